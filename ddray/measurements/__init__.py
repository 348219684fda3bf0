"""From the store to rows: one row of measurements.parquet is one number. Nothing here computes a result or asks MLflow.

    metrics.py       one record per metric of a stage: property, unit, which way is better, what it means
    columns.py       the columns of measurements.parquet
    statistics.py    means and differences over seeds, rank tests, interpolation, with what their intervals cover
    identity.py      the columns that follow from a point's chain and its manifests
    buffer.py        rows that wait to be written, by column
    coverage.py      how much of a sweep is there: coverage.json
    stage_rows.py    rows of a finished stage beside those of evaluations: costs, how a distillation went
    stage_reader.py  what the store says of the stages of a plan
    derived/         numbers that need several points: against the full data, random images, other networks
    rows.py          plan + store -> measurements.parquet, coverage.json
    reading.py       the rows of measurements.parquet that a report shows
    references/      published values: two files for each paper
    references.py    values of the paper that is repeated, and when ours may stand beside them
    field.py         the same of other publications
    exports/         tables beside the measurements: every example, maps, files, pictures

This file imports nothing.
"""
