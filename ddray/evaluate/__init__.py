"""`ddray evaluate`: what ddray did not make, a distilled set or a trained model in a file, through the same suite.

    command line
       |  request.py      checked, and written to results/<name>/evaluate.json
       v
       |  importing.py    the file's content -> the store, as a finished artifact
       v
       |  prepare.py      an ordinary plan (plan/external.py): sweep, collect and report find it by the name
       v
       `- command.py      all of it, for the command

This file imports nothing.
"""
