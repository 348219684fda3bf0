"""What ddray did not make, a distilled set or a trained model in a file, for the same evaluations.

    evaluation.py    the request, as evaluate.json in the results folder holds it
    options.py       the command line -> a checked request
    planning.py      the request as a sweep of one grid; the imported stage

The module ddray.run.importing puts the file's content into the store. This file imports nothing.
"""
