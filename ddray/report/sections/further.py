"""Numbers of one model whose records ask for a column and that no other table shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.measurements.metrics import MEASURED
from ddray.measurements.reading import Numbers
from ddray.report.comparable import Cell
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import Column, Facts
from ddray.report.words import cell_table, cells_of, own_columns

METRICS = [metric for metric in MEASURED if metric.property != "fairness" and metric.column]


def _facts(cell: Cell, numbers: Numbers) -> dict[str, Any]:
    """Metric -> mean over the same seeds as the accuracy, or None."""
    return {metric.id: cell.mean(numbers.plain.get(metric.id, {})) for metric in METRICS}


def _elements(block: Facts) -> Iterator[Element]:
    """One row per cell that has such a number."""
    rows = [row for row in cells_of(block) if row["cell"]["accuracy"] and any(row["cell"]["further"].values())]
    if rows:
        columns = [*own_columns(METRICS, "cell.further"), Column("n", "cell.accuracy.short")]
        yield cell_table("Further numbers: mean ± sd over the same seeds", block["row_axes"], rows, columns)


FURTHER = BlockSection(
    id="further",
    order=65,
    plain=[metric.id for metric in METRICS],
    cell_facts=_facts,
    elements=_elements,
)
