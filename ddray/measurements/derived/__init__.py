"""Numbers that need several points of a sweep: made from finished evaluations whenever the rows are written.

    records.py             what is remembered of each point, and what a derivation is
    relative_accuracy.py   against the full data and random images; DD-Ranking's scores
    transfer.py            one set, several networks; whether the ranking of methods is kept
    retention.py           which classes lose more than others, against the full-data model
    persistence.py         what several trainings of one set have in common
    robust_differences.py  against the full-data model, image by image
    auc_differences.py     which of two points leaks more, on the same members and others
    roc_curves.py          true positive rates of attacks at low false positive rates
    frontier.py            against real images at the same accuracy
    driver.py              all of them, in this order

They stand in the table as rows of the points they belong to, and vanish with what they are compared with. Only
comparable points are compared: one data set and origin, network and training recipe. This file imports nothing.
"""
