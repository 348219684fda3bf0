"""Sets whose images a teacher labels, without the control: random real images with the same labels.

Labels of a teacher alone make a good network of random images (Qin et al., NeurIPS 2024), so that what a distilled set
with such labels reaches says nothing of its images.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ddray.plan.axes import AXES, in_report
from ddray.plan.feasible import path_of
from ddray.plan.points import FrozenValues, Grid, GridPoint
from trainables.methods import METHODS

CONTROL = "random"
_SAME = tuple(
    name
    for name, axis in AXES.items()
    if axis.used_by(name, METHODS[CONTROL]) and name not in ("method", *in_report("repeat"))
)
"""Axes in which a set and its control agree."""


def control_notes(points: Sequence[GridPoint], selected: Collection[str]) -> list[str]:
    """One sentence for each grid and teacher with sets that lack their control.

    Args:
        points: All of the sweep.
        selected: Hashes of those that are to be run; what others lack is not told.
    """
    labelled = [point for point in points if point.labels is not None]
    there = {_place(point) for point in labelled if point.method == CONTROL}
    lacking: dict[tuple[str, str], list[GridPoint]] = {}
    for point in labelled:
        if point.hash in selected and _place(point) not in there:
            assert point.labels is not None
            lacking.setdefault((point.grid.name, point.labels), []).append(point)
    return [_note(members[0].grid, labels, members) for (_, labels), members in lacking.items()]


def _place(point: GridPoint) -> tuple[Any, ...]:
    axes = tuple(getattr(point, axis) for axis in _SAME)
    return *axes, point.protocol, FrozenValues.of(point.train).text


def _note(grid: Grid, labels: str, points: Sequence[GridPoint]) -> str:
    methods, datasets, ipcs = (
        ", ".join(dict.fromkeys(str(getattr(point, axis)) for point in points)) for axis in ("method", "dataset", "ipc")
    )
    return grid.say(
        path_of(grid, "labels", labels),
        f"no control; got {methods} with labels {labels} on {datasets} at ipc {ipcs}; expected {CONTROL} with the same "
        f"labels beside it: without it nobody can tell what the images do from what the labels do. Add {CONTROL} to "
        "axes.method.",
    )
