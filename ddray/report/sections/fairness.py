"""How unequally the models of a block treat the classes, and which classes lose most against the full data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ddray.measurements.metrics import MEASURED
from ddray.measurements.reading import Numbers
from ddray.report.comparable import Cell
from ddray.report.page import Element, Heading, Lines
from ddray.report.sections import BlockSection
from ddray.report.table import Column, Facts, Footnote
from ddray.report.words import PERCENT, SQUARED_POINTS, cell_table, cells_of, own_columns, plus_minus, resolution

OWN = ("fair_var_acc", "fair_var_acc_corr", "fair_worst_acc")
"""Of one model alone."""
AGAINST_FULL = ("fair_retention_min", "fair_amplification", "fair_hardness_slope", "fair_hardness_rho")
"""Against the full-data models of the block."""
FURTHER = [metric for metric in MEASURED if metric.property == "fairness" and metric.column]
DRAWN = ("fair_var_loss", "fair_var_loss_corr")
"""In a figure alone."""
METRICS = (*OWN, *AGAINST_FULL, "fair_persistent", *DRAWN, *(metric.id for metric in FURTHER))


def _facts(cell: Cell, numbers: Numbers) -> dict[str, Any]:
    """Metric -> mean over the same seeds as the accuracy, or None."""
    return {metric: cell.mean(numbers.plain.get(metric, {})) for metric in METRICS}


def _elements(block: Facts) -> Iterator[Element]:
    """One row per cell."""
    rows = [
        row
        for row in cells_of(block)
        if row["cell"]["accuracy"] and any(row["cell"]["fairness"][metric] for metric in OWN)
    ]
    if not rows:
        yield Heading("Fairness between classes", 3)
        yield Lines(("No numbers yet.",))
        return
    notes = ["How unequal classes can be depends on the accuracy itself: compare methods at equal accuracy."]
    if any("level" in (_of_fewer(row, metric) or {}) for row in rows for metric in AGAINST_FULL):
        notes.append("[n]: of these seeds alone, as the others have no such number.")
    title = "Fairness between classes: mean ± sd over the same seeds"
    yield cell_table(title, block["row_axes"], rows, _COLUMNS, notes, resolution(block))


def _floored(row: Facts) -> Facts | None:
    corrected = row["cell"]["fairness"]["fair_var_acc_corr"]
    return None if corrected is None else {**corrected, "mean": max(0.0, corrected["mean"])}


def _of_fewer(row: Facts, metric: str) -> Facts | None:
    """A number with its seeds, where not all have it: no slope where a class is at 0."""
    mean: Facts | None = row["cell"]["fairness"][metric]
    if mean is None or mean["short"] == row["cell"]["accuracy"]["short"]:
        return mean
    return {**mean, "level": f"[{mean['short']}]"}


def _against_full(title: str, metric: str, meaning: str, unit: str = "", scale: float = 1, digits: int = 2) -> Column:
    note = Footnote(f"{title}, {meaning}", "Against the full-data models")
    form = partial(plus_minus, scale=scale, digits=digits)
    return Column(title, lambda row: _of_fewer(row, metric), form, unit, note, optional=True)


_VARIANCE = Footnote("var acc: the variance of accuracy over classes; smaller is fairer.")
_CORRECTED = Footnote("corrected: less what the sampling of test images adds, shown as 0 when negative.")
_PERSISTENT = Footnote("persistent: the variance over classes that the trainings of one set share, negative by chance.")

_COLUMNS = [
    Column("accuracy", "cell.accuracy", PERCENT, "%"),
    Column("var acc", "cell.fairness.fair_var_acc", SQUARED_POINTS, "pp²", _VARIANCE),
    Column("corrected", _floored, SQUARED_POINTS, "pp²", _CORRECTED),
    Column("worst class", "cell.fairness.fair_worst_acc", PERCENT, "%"),
    *own_columns(FURTHER, "cell.fairness"),
    Column("n", "cell.accuracy.short"),
    _against_full(
        "least kept", "fair_retention_min", "the smallest share of its accuracy that a class keeps", "%", 100, 1
    ),
    _against_full(
        "amplification",
        "fair_amplification",
        "how many times larger the relative scatter over classes is, noise of test images on both sides",
    ),
    _against_full("slope", "fair_hardness_slope", "of log accuracies, above 1 where hard classes lose more"),
    _against_full("rho", "fair_hardness_rho", "rank correlation of a class's full-data accuracy with what it keeps"),
    Column("persistent", "cell.fairness.fair_persistent", SQUARED_POINTS, "pp²", _PERSISTENT, optional=True),
]

FAIRNESS = BlockSection(id="fairness", order=20, plain=METRICS, cell_facts=_facts, elements=_elements)
