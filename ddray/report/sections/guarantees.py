"""What mechanisms with noise state of themselves: differential privacy, beside the accuracy that it left.

What attacks found against the same points, and where that contradicts what is stated, stands with the audits
(``privacy.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.report.comparable import ReportBlock
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import Column, Facts, Footnote
from ddray.report.words import PERCENT, cell_table

STATED = ("dp_epsilon", "dp_delta", "dp_noise", "dp_clip", "dp_rate", "dp_rounds")


def _facts(block: ReportBlock, numbers: Numbers) -> list[dict[str, Any]]:
    """An entry for each cell with a guarantee: the weakest of its points'."""
    entries = []
    for cell in block.own_cells:
        points = [point["point"] for point in cell.points]
        known = [point for point in points if point in numbers.plain.get("dp_epsilon", {})]
        if known:
            weakest = max(known, key=lambda point: numbers.plain["dp_epsilon"][point])
            stated = {name: numbers.plain.get(name, {}).get(weakest) for name in STATED}
            entries.append({**cell.facts, "accuracy": cell.mean(), **stated})
    return entries


def _elements(block: Facts) -> Iterator[Element]:
    if block["guarantees"]:
        yield cell_table(
            "Differential privacy, as the mechanisms state it of one image added or removed",
            block["row_axes"],
            block["guarantees"],
            _COLUMNS,
            _NOTES,
        )


_NOTES = (
    "By Rényi accounting, for one set or one network: each repeat, and each that was tried to choose settings, is a "
    "release of its own. The noise follows from the seed of the stage, so that a run can be repeated: who knows the "
    "seed can take it off.",
)
_SHORT = "{:g}".format
_COLUMNS = [
    Column("accuracy", "accuracy", PERCENT, "%"),
    Column("epsilon", "dp_epsilon", "{:.3f}".format),
    Column("delta", "dp_delta", _SHORT),
    Column(
        "noise",
        "dp_noise",
        "{:.4f}".format,
        footnote=Footnote("noise: standard deviation on each number of a sum, in units of clip."),
    ),
    Column("clip", "dp_clip", _SHORT, footnote=Footnote("clip: largest norm of what one image adds to a sum.")),
    Column("rate", "dp_rate", _SHORT, footnote=Footnote("rate: probability with which an image is in a sum.")),
    Column("sums", "dp_rounds", _SHORT, footnote=Footnote("sums: how many were released.")),
]

GUARANTEES = BlockSection(id="guarantees", order=33, plain=STATED, facts=_facts, elements=_elements)
