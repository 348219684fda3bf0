"""Sweeps of dataset distillation: accuracy, privacy, robustness, fairness.

In the order in which one thing is made of others, as in the map of every package: a file uses only what is named above
it. Nouns come first, the command line last.

    errors.py      what a user can do something about, with exit codes
    settings.py    folders and environment variables in force
    atomic.py      files and folders that appear whole
    collector.py   the search for cycles, put aside while very many objects are made
    request.py     what a command was asked for

    store/         finished stages by key, each with a manifest: the only truth
    results.py     the folder of a sweep's results, and whether it is up to date
    plan/          YAML -> points -> stages with keys -> jobs; pure and instant: no torch, no ray
    external/      requests about a set or a model from elsewhere
    prepare.py     request -> validated sweep with its plan, for sweep files and for what was imported
    price/         a plan's bill on a device, from what finished stages took
    measurements/  store -> measurements.parquet, numbers of several points, exports
    report/        measurements -> tables and text beside the published numbers
    tracking/      the same numbers mirrored to MLflow, rebuildable at any time
    opened.py      a finished sweep in Python: ``ddray.open``
    run/           jobs -> Ray Tune or this process, one path for a stage; then tables, report and mirror
    commands/      what the commands do that have more to do than to call one function
    cli.py         the commands
    __main__.py    `python -m ddray`

What a stage computes is a package of its own, ``trainables``. The picture is in `docs/architecture.md`. This file
imports nothing before `open` is called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from ddray.opened import SweepResults

__all__ = ["open"]


def open(results: str | Path) -> SweepResults:
    """The numbers of a sweep that was run.

    Args:
        results: The sweep's name, as ``quickstart`` or ``table3@laptop``, looked for below ``DDRAY_HOME``; or its
            results folder.

    Raises:
        ddray.errors.DdrayError: There are no such results.
    """
    from ddray.opened import open_results

    return open_results(results)
