"""Points with numbers as if they had been evaluated, without a store: what tests of derived rows start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import worlds

from ddray.measurements.buffer import Templates
from ddray.measurements.derived.records import PointRecord, PointRecords
from ddray.measurements.identity import PROVENANCE
from ddray.plan.points import GridPoint

Row = dict[str, Any]
Numbers = Mapping[str, Any]
"""``accuracy``; and, where they are wanted, ``classes``, ``losses`` and ``class_images`` (by class), ``steps``,
``images``, other metrics of the accuracy evaluation by name, and ``robustness`` or ``privacy``: whole rows."""


def recorded(folder: Path, text: str, numbers: Callable[[GridPoint], Numbers | None]) -> list[PointRecord]:
    """The points of a sweep, each with its numbers; those without any are left out, as if they were not finished."""
    records, templates = PointRecords(), Templates()
    for chain in worlds.plan_of(worlds.sweep_of(folder, text)).chains:
        said = numbers(chain.point)
        if said is None:
            continue
        point = records.begin(chain, (), None, None)
        for kind in ("accuracy", "robustness", "privacy"):
            stage = chain.stage(kind)
            rows = _accuracy(said) if kind == "accuracy" else list(said.get(kind, ()))
            if stage is not None and rows:
                records.add(point, stage, templates.split([dict(row) for row in rows]), (None,) * len(PROVENANCE))
    return records.points


def _accuracy(said: Numbers) -> list[Row]:
    images = said.get("images", 1000)
    classes = said.get("classes", [said["accuracy"]] * 2)
    losses = said.get("losses", [1.0] * len(classes))
    rows = [_row("performance", "test_acc", said["accuracy"], images)]
    counts = said.get("class_images", [images // len(classes)] * len(classes))
    for index, (accuracy, loss, count) in enumerate(zip(classes, losses, counts, strict=True)):
        rows.append({**_row("performance", "test_acc_class", accuracy, count), "class_id": index})
        rows.append({**_row("performance", "test_loss_class", loss, count), "class_id": index})
    rows.append(_row("cost", "optimiser_steps", float(said.get("steps", 100)), 1))
    for metric, prop in (("test_loss", "performance"), ("fair_var_acc", "fairness"), ("fair_cv_acc", "fairness")):
        if metric in said:
            rows.append(_row(prop, metric, said[metric], images))
    return rows


def _row(prop: str, metric: str, value: float | None, n: int) -> Row:
    return {"property": prop, "metric": metric, "value": value, "unit": "fraction", "n": n, "split": "test"}


def rows(points: Iterable[PointRecord], metric: str, **axes: Any) -> list[Row]:
    """Derived rows of a metric, of the points with these values of axes."""
    return [
        row
        for point in points
        if all(getattr(point.chain.point, name) == value for name, value in axes.items())
        for found in point.derived.values()
        for row in found
        if row["metric"] == metric
    ]


def metrics(points: Iterable[PointRecord]) -> set[str]:
    return {row["metric"] for point in points for found in point.derived.values() for row in found}
