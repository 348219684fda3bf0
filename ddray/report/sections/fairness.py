"""How unequally the models of a block treat the classes, and which classes lose most against the full data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.report.comparable import Cell
from ddray.report.page import Element, Heading, Lines
from ddray.report.sections import BlockSection
from ddray.report.table import Column, Footnote, Table
from ddray.report.words import CellRow, Facts, cell_columns, plus_minus, row_title

OWN = ("fair_var_acc", "fair_var_acc_corr", "fair_worst_acc")
"""Of one model alone."""
AGAINST_FULL = ("fair_retention_min", "fair_amplification", "fair_hardness_slope", "fair_hardness_rho")
"""Against the full-data models of the block."""
METRICS = (*OWN, *AGAINST_FULL, "fair_persistent")

_PERCENT = plus_minus
_SQUARED_POINTS = partial(plus_minus, scale=1e4, digits=1)


def _facts(cell: Cell, numbers: Numbers) -> dict[str, Any]:
    """Metric -> mean over the same seeds as the accuracy, or None."""
    return {metric: cell.mean(numbers.plain.get(metric, {})) for metric in METRICS}


def _elements(block: Facts) -> Iterator[Element]:
    """One row per cell."""
    rows = [
        CellRow(row_title(block["row_axes"], entry), variant, cell)
        for entry in block["rows"]
        for variant, cell in entry["cells"].items()
        if cell["accuracy"] is not None and any(cell["fairness"][metric] is not None for metric in OWN)
    ]
    if not rows:
        yield Heading("Fairness between classes", 3)
        yield Lines(("No numbers yet.",))
        return
    notes = ["Low accuracy alone looks fair: compare methods at equal accuracy."]
    if any("level" in (_of_fewer(row, metric) or {}) for row in rows for metric in AGAINST_FULL):
        notes.append("[n]: of these seeds alone, as the others have no such number.")
    yield Table(
        "Fairness between classes: mean ± sd over the same seeds",
        [*cell_columns(block["row_axes"]), *_COLUMNS],
        rows,
        notes,
    )


def _floored(row: CellRow) -> Facts | None:
    found = row.facts["fairness"]["fair_var_acc_corr"]
    return None if found is None else {**found, "mean": max(0.0, found["mean"])}


def _of_fewer(row: CellRow, metric: str) -> Facts | None:
    """A number with its seeds, where not all have it: no slope where a class is at 0."""
    found: Facts | None = row.facts["fairness"][metric]
    if found is None or found["short"] == row.facts["accuracy"]["short"]:
        return found
    return {**found, "level": f"[{found['short']}]"}


def _against_full(
    title: str, metric: str, meaning: str, unit: str = "", scale: float = 1, digits: int = 2
) -> Column[CellRow]:
    return Column(
        title,
        lambda row: _of_fewer(row, metric),
        partial(plus_minus, scale=scale, digits=digits),
        unit,
        Footnote(meaning, "Against the full-data models"),
        optional=True,
    )


_COLUMNS: list[Column[CellRow]] = [
    Column("accuracy", lambda row: row.facts["accuracy"], _PERCENT, "%"),
    Column(
        "var acc",
        lambda row: row.facts["fairness"]["fair_var_acc"],
        _SQUARED_POINTS,
        "pp²",
        Footnote("var acc: the variance of accuracy over classes; smaller is fairer."),
    ),
    Column(
        "corrected",
        _floored,
        _SQUARED_POINTS,
        "pp²",
        Footnote("corrected: less what the sampling of test images adds, shown as 0 when negative."),
    ),
    Column("worst class", lambda row: row.facts["fairness"]["fair_worst_acc"], _PERCENT, "%"),
    Column("n", lambda row: row.facts["accuracy"]["short"]),
    _against_full(
        "least kept",
        "fair_retention_min",
        "least kept, the smallest share of its accuracy that a class keeps",
        "%",
        100,
        1,
    ),
    _against_full(
        "amplification",
        "fair_amplification",
        "amplification, how many times larger the relative scatter over classes is",
    ),
    _against_full("slope", "fair_hardness_slope", "slope, of log accuracies, above 1 where hard classes lose more"),
    _against_full(
        "rho", "fair_hardness_rho", "rho, rank correlation of a class's full-data accuracy with what it keeps"
    ),
    Column(
        "persistent",
        lambda row: row.facts["fairness"]["fair_persistent"],
        _SQUARED_POINTS,
        "pp²",
        Footnote("persistent: the variance over classes that the trainings of one set share, negative by chance."),
        optional=True,
    ),
]

FAIRNESS = BlockSection(id="fairness", order=20, plain=METRICS, cell_facts=_facts, elements=_elements)
