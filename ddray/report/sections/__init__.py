"""The parts of a report, a file each: ``facts`` (JSON types, fractions) and ``text`` (Markdown, percent).

    accuracy.py        a block's test accuracy beside the paper's Table 3, and against random images
    fairness.py        how unequally its models treat the classes
    robustness.py      how easily they are misled
    generalisation.py  against the full data, random images, other networks, real images of equal accuracy
    embedding.py       where its distilled images lie among real ones
    privacy.py         who is told to be a member: tables across blocks, beside the paper's Tables 1 and 2

This file imports nothing.
"""
