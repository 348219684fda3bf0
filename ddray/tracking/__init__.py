"""Finished points mirrored to MLflow: one experiment per sweep, one flat run per grid point. Rebuildable at any time.

    measured.py  what MLflow gets of measurements.parquet: by point, the numbers that one compares runs by
    runs.py      runs that MLflow has, read straight from its database
    schema.py    whether the installed MLflow can use its database
    content.py   what a run of a point says: tags, parameters
    writer.py    writes runs; the only module that imports MLflow
    links.py     runs.html, which leads from a report to the runs
    mirror.py    brings the runs of a sweep up to date

The driver alone calls it; workers never do, so one process writes to the SQLite database and a tracking outage loses
nothing. A run is found again by its tag ``ddray.point``; ``ddray.digest``, written last, says what it holds, so that
mirroring again touches only what changed and a mirror that was killed is completed. This file imports nothing.
"""
