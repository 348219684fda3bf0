"""What ddray did not make, a distilled set or a trained model in a file, for the same evaluations.

    evaluation.py    the request: from the command line, checked, kept as evaluate.json in the results folder
    planning.py      the request as points of an ordinary plan; the imported stage

This file imports nothing.
"""
