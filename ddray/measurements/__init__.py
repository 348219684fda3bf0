"""From the store to rows: one row of measurements.parquet is one number. Nothing here computes a result or asks MLflow.

    columns.py   the columns of measurements.parquet
    identity.py  the columns that follow from a point's chain and its manifests
    piece.py     points, stages, numbers -> Arrow table, by column
    gather.py    plan + store -> measurements.parquet, coverage.json
    derived/     numbers that need several points: against the full data, random images, other networks
    references.py  published values, a file for each paper in references/, and when ours may stand beside them
    statistics.py  means and differences over seeds, rank tests, interpolation, with what their intervals cover
    reading.py   the rows of measurements.parquet that a report shows
    picture.py   a distilled set as one picture
    exports/     tables beside the measurements: every example, maps, files

This file imports nothing.
"""

SCHEMA_VERSION = 1
"""Raised when a column of measurements.parquet changes its name, type or meaning."""
RENDERER_VERSION = 7
"""Raised when what is built from the store changes: finished sweeps are then rebuilt once."""
