"""The accuracy of each class, which figures show: a table of it would be read by nobody."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.report.comparable import Cell
from ddray.report.sections import BlockSection

METRIC = "test_acc_class"


def _facts(cell: Cell, numbers: Numbers) -> list[dict[str, Any]]:
    """For each class its ``mean`` over the cell's trainings, their ``sd`` (ddof 1; None of one) and number ``n``."""
    by_point = numbers.classes.get(METRIC, {})
    found: dict[int, list[float]] = {}
    for point in cell.points:
        for class_id, value in by_point.get(point["point"], {}).items():
            found.setdefault(class_id, []).append(value)
    return [
        {
            "class_id": class_id,
            "mean": fmean(values),
            "sd": stdev(values) if len(values) > 1 else None,
            "n": len(values),
        }
        for class_id, values in sorted(found.items())
    ]


CLASSES = BlockSection(id="classes", order=21, by_class=(METRIC,), cell_facts=_facts, elements=lambda block: ())
