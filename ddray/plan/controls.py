"""Sets with soft labels without their control: real images with the same kind of labels.

Labels of a teacher alone make a good network of random images (Qin et al., NeurIPS 2024), so that what a distilled set
with such labels reaches says nothing of its images. Where a teacher labels the images the control is random images with
the same labels; where a method has soft labels of its own it is the method's start: the same with a budget of 0.
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
    own = [point for point in points if point.labels is None and _has_own(point)]
    starts = {(point.method, _place(point)) for point in own if _is_start(point)}
    without: dict[tuple[str, str], list[GridPoint]] = {}
    for point in own:
        if point.hash in selected and (point.method, _place(point)) not in starts:
            without.setdefault((point.grid.name, point.method), []).append(point)
    return [_note(members[0].grid, labels, members) for (_, labels), members in lacking.items()] + [
        _start_note(members[0].grid, method, members) for (_, method), members in without.items()
    ]


def _has_own(point: GridPoint) -> bool:
    """Whether the point's method gives its sets soft labels."""
    method = METHODS[point.method]
    return method.distils and method.settings.model_construct(**point.settings).label_source is not None


def _is_start(point: GridPoint) -> bool:
    budget = METHODS[point.method].settings.budget
    return budget is not None and point.settings.get(budget) == 0


def _place(point: GridPoint) -> tuple[Any, ...]:
    axes = tuple(getattr(point, axis) for axis in _SAME)
    return *axes, point.protocol, FrozenValues.of(point.train).text


def _start_note(grid: Grid, method: str, points: Sequence[GridPoint]) -> str:
    _, datasets, ipcs = _named(points)
    budget = METHODS[method].settings.budget
    return grid.say(
        path_of(grid, "method", method),
        f"no control; got {method}, whose sets have soft labels, on {datasets} at ipc {ipcs}; expected its start "
        "beside it, whose real images experts labelled: without it nobody can tell what the images do from what the "
        "labels do. "
        f"Add a grid with settings: {{{method}: {{{budget}: 0}}}}.",
    )


def _named(points: Sequence[GridPoint]) -> list[str]:
    """Methods, data sets and ipcs in words."""
    axes = ("method", "dataset", "ipc")
    return [", ".join(dict.fromkeys(str(getattr(point, axis)) for point in points)) for axis in axes]


def _note(grid: Grid, labels: str, points: Sequence[GridPoint]) -> str:
    methods, datasets, ipcs = _named(points)
    return grid.say(
        path_of(grid, "labels", labels),
        f"no control; got {methods} with labels {labels} on {datasets} at ipc {ipcs}; expected {CONTROL} with the same "
        f"labels beside it: without it nobody can tell what the images do from what the labels do. Add {CONTROL} to "
        "axes.method.",
    )
