"""Sweeps of dataset distillation: accuracy, privacy, robustness, fairness.

    a sweep file, or an imported set or model
       |  cli.py            the commands; commands/ what those do that have more to do than to call one function
       |  request.py        what a command was asked for
       |  prepare.py        request -> validated sweep with its plan; external/ reads requests about imported files
       v
       |  plan/             YAML -> points -> stages with keys -> jobs        pure and instant: no torch, no ray
       v
       |  run/              jobs -> Ray Tune or this process; one path for a stage, which both share
       |     `- trainables   the science, a package of its own
       v
       |  store/            finished stages by key, each with a manifest: the only truth
       v
       |  measurements/     store -> measurements.parquet, numbers of several points, exports
       |  report/           measurements -> tables and text beside the published numbers
       |  results.py        the folder they lie in, and whether it is up to date
       `- tracking/         the same numbers mirrored to MLflow, rebuildable at any time

Used everywhere, and using nothing of it:

    errors.py      what a user can do something about, with exit codes
    settings.py    folders and environment variables in force
    atomic.py      files and folders that appear whole
    collector.py   the search for cycles, put aside while very many objects are made
    __main__.py    `python -m ddray`

The picture is in `docs/architecture.md`. This file imports nothing.
"""
