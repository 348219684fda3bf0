"""For each cell the command that computes it, and the keys that its points have in the store and in MLflow."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ddray.plan.axes import AXES, in_report
from ddray.plan.keys import short
from ddray.report.comparable import Cell
from ddray.report.page import Element
from ddray.report.sections import Measured, SweepSection
from ddray.report.table import Column, Facts
from ddray.report.words import cell_table
from ddray.results import RUNS_HTML
from trainables.data.layout import known_dataset
from trainables.protocols import PROTOCOLS

_REPEATS = frozenset(in_report("repeat"))


def _facts(measured: Measured, _: Facts) -> list[dict[str, Any]]:
    """A block's title and row axes, and its cells with ``command`` and ``points``."""
    values: dict[tuple[str, str], set[Any]] = defaultdict(set)
    for point in measured.points:
        for axis in AXES:
            values[point["method"], axis].add(_asked(point, axis))
    return [
        {
            "title": block.title,
            "row_axes": list(block.axes),
            "cells": [
                {
                    **cell.facts,
                    "command": _command(measured.sweep, cell, values),
                    "points": [point["point"] for point in cell.points],
                }
                for cell in block.own_cells
            ],
        }
        for block in measured.blocks
    ]


def _command(sweep: str, cell: Cell, values: Mapping[tuple[str, str], set[Any]]) -> str:
    """With a filter for each axis that other points of the method have other values of."""
    first: Mapping[str, Any] = cell.points[0]
    axes = [axis for axis in AXES if axis not in _REPEATS and len(values[cell.method, axis]) > 1]
    filters = [f"{axis}={'null' if (value := _asked(first, axis)) is None else value}" for axis in ("method", *axes)]
    words = ["ddray", "sweep", sweep, *(word for each in filters for word in ("--only", each))]
    return shlex.join(words)


def _asked(point: Mapping[str, Any], axis: str) -> Any:
    """The value of an axis as sweeps say it: null where it is what null means there, which rows spell out."""
    shown = AXES[axis].null_shown
    if shown is not None and point[axis] in shown.words.values():
        return None
    means, recipe = AXES[axis].null_means, PROTOCOLS.get(point["protocol"].rstrip("*"))
    if means is None or recipe is None:
        return point[axis]
    declared = point["param"].get("declared", {})
    data = known_dataset(declared.get("like", point["dataset"]), declared.get("classes"))
    return None if point[axis] == means(data, recipe.recipe) else point[axis]


def _elements(report: Facts) -> Iterator[Element]:
    """One table per block."""
    columns = [
        Column("command", "command", lambda command: f"`{command}`"),
        Column(
            "points",
            "points",
            lambda points: ", ".join(map(short, points)),
            links=lambda cell: [(short(point), f"{RUNS_HTML}#{point}") for point in cell["points"]],
        ),
    ]
    for block in report["again"]:
        notes = [
            "What is finished is not computed again; in an empty store (`DDRAY_STORE=FOLDER`) all of it is. In MLflow "
            f"(`ddray ui`) the run of a point has its key as the tag `ddray.point`; `{RUNS_HTML}` leads to it."
        ]
        yield cell_table(block["title"], block["row_axes"], block["cells"], columns, notes)


AGAIN = SweepSection(
    id="again", order=180, title="To compute a cell again", long=True, facts=_facts, elements=_elements
)
