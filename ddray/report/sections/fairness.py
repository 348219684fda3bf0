"""How unequally the models of a block treat the classes, and which classes lose most against the full data."""

from __future__ import annotations

from typing import Any

from ddray.measurements.reading import Numbers
from ddray.report.blocks import Group, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, narrowed, place, plus_minus

OWN = ("fair_var_acc", "fair_var_acc_corr", "fair_worst_acc")
"""Of one model alone."""
AGAINST_FULL = ("fair_retention_min", "fair_amplification", "fair_hardness_slope", "fair_hardness_rho")
"""Against the full-data models of the block."""
OF_SETS = ("fair_persistent",)
"""Of the trainings of one set together."""
METRICS = (*OWN, *AGAINST_FULL, *OF_SETS)


def facts(group: Group, numbers: Numbers) -> dict[str, Any]:
    """Metric -> mean over the same seeds as the accuracy, or None."""
    return {metric: group.mean(numbers.plain.get(metric, {})) for metric in METRICS}


def text(block: Facts) -> list[str]:
    """One line per cell; what was not derived for any of them has no column."""
    header = [
        axes_header(block["row_axes"]),
        "method",
        "accuracy %",
        "var acc pp²",
        "corrected pp²",
        "worst class %",
        "n",
        "least kept %",
        "amplification",
        "slope",
        "rho",
        "persistent pp²",
    ]
    rows = []
    for entry in block["rows"]:
        for method, cell in entry["cells"].items():
            found = cell["fairness"]
            if cell["accuracy"] is None or all(found[metric] is None for metric in OWN):
                continue
            rows.append(
                [
                    place(block["row_axes"], entry),
                    title_of(method),
                    plus_minus(cell["accuracy"]),
                    plus_minus(found["fair_var_acc"], 1e4, 1),
                    _floored(found["fair_var_acc_corr"]),
                    plus_minus(found["fair_worst_acc"]),
                    cell["accuracy"]["short"],
                    *(
                        plus_minus(found[metric], scale, digits, _fewer(found[metric], cell))
                        for metric, scale, digits in _SHOWN
                    ),
                    plus_minus(found["fair_persistent"], 1e4, 1),
                ]
            )
    if not rows:
        return ["### Fairness between classes", "", "No numbers yet."]
    lines = [
        "### Fairness between classes: mean ± sd over the same seeds",
        "",
        *narrowed(header, rows, always=7),
        "",
        "Smaller variance is fairer. corrected: less what the sampling of test images adds, shown as 0 when negative.",
        "Low accuracy alone looks fair: compare methods at equal accuracy.",
    ]
    if any(row[index] != NOTHING for row in rows for index in range(7, 11)):
        lines.append(
            "Against the full-data models: least kept, the smallest share of its accuracy that a class keeps; "
            "amplification, how many times larger the relative scatter over classes is; slope of log accuracies, above "
            "1 where hard classes lose more; rho, rank correlation of a class's full-data accuracy with what it keeps. "
            "[n]: of these seeds alone, as the others have no such number."
        )
    if any(row[11] != NOTHING for row in rows):
        lines.append("persistent: the variance over classes that the trainings of one set share, negative by chance.")
    return lines


_SHOWN = (
    ("fair_retention_min", 100, 1),
    ("fair_amplification", 1, 2),
    ("fair_hardness_slope", 1, 2),
    ("fair_hardness_rho", 1, 2),
)


def _fewer(found: Facts | None, cell: Facts) -> str:
    """The seeds of a number that not all seeds have: no slope where a class is at 0."""
    return "" if found is None or found["short"] == cell["accuracy"]["short"] else f"[{found['short']}]"


def _floored(value: Facts | None) -> str:
    return plus_minus(None if value is None else {**value, "mean": max(0.0, value["mean"])}, 1e4, 1)
