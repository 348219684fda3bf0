"""From measurements to what people read: one page per sweep. Nothing here computes a measurement.

    blocks.py    which points may stand in one table, and the refusal to mix the others
    sections/    the parts of a report: accuracy, fairness, robustness, privacy, ...
    alarms.py    what makes numbers doubtful
    summary.py   measurements -> all of it, in fractions: what --json prints
    report.py    the same as Markdown, in percent; markdown.py has its words and tables

This file imports nothing.
"""
