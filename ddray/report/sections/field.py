"""A block's test accuracy beside what other publications print of the same cells, and what stands against comparing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ddray.measurements.field import beside
from ddray.measurements.reading import Numbers
from ddray.report.comparable import Cell
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import Bullets, Column, Facts, Footnote
from ddray.report.words import cell_table, cells_of, plus_minus, row_title, variant_title

SAME = "(same recipe)"
_MEANING = f"{SAME}: trained and chosen as ours is, so the two numbers may be compared."


def _facts(cell: Cell, _: Numbers) -> list[dict[str, Any]]:
    """What is printed elsewhere, in fractions, and why it may not be compared."""
    first = cell.points[0]
    return [
        {
            "title": value.recipe.title,
            "recipe": value.recipe.says,
            "publication": value.publication.title,
            "url": value.publication.url,
            "where": value.where,
            "mean": value.mean,
            "sd": value.sd,
            "objections": value.objections(first),
        }
        for value in beside(first)
    ]


def _elements(block: Facts) -> Iterator[Element]:
    """One row per cell that somebody printed, one column per publication and recipe."""
    rows = [row for row in cells_of(block) if row["cell"]["elsewhere"] and row["cell"]["accuracy"]]
    if not rows:
        return
    columns = {value["title"]: _column(value) for row in rows for value in row["cell"]["elsewhere"]}
    ours = Column("ours", "cell.accuracy", plus_minus)
    words = {SAME: _MEANING}
    notes = list(_against_ours(rows, block["row_axes"]))
    title = "Test accuracy, percent, beside other publications"
    yield cell_table(title, block["row_axes"], rows, [ours, *columns.values()], notes, words)


def _column(value: Facts) -> Column:
    title: str = value["title"]
    note = f"{title}: {value['recipe']}. {value['publication']} ({value['url']})."
    return Column(title, partial(_printed, title=title), footnote=Footnote(note))


def _printed(row: Facts, title: str) -> str | None:
    value = next((value for value in row["cell"]["elsewhere"] if value["title"] == title), None)
    if value is None:
        return None
    text = _as_printed(value["mean"]) + (f" ± {_as_printed(value['sd'])}" if value["sd"] is not None else "")
    return text if value["objections"] else f"{text} {SAME}"


def _as_printed(fraction: float) -> str:
    """In percent, with the decimals that the publication gives, one at least."""
    percent = round(100 * fraction, 2)
    return f"{percent:.1f}" if percent == round(percent, 1) else f"{percent:.2f}"


def _against_ours(rows: list[Facts], axes: list[str]) -> Iterator[str | Bullets]:
    """What stands against a comparison beside the recipe of the column."""
    entries = []
    for row in rows:
        reasons = [
            reason if reason.startswith("ours ") else f"{value['title']}: {reason}"
            for value in row["cell"]["elsewhere"]
            for reason in value["objections"]
            if reason != value["recipe"]
        ]
        if reasons:
            where = f"{row_title(axes, row)}, {variant_title(row['method'])}"
            entries.append(f"{where}: {'; '.join(dict.fromkeys(reasons))}")
    if entries:
        yield Bullets("Beside their recipes, this stands against comparing:", entries)


FIELD = BlockSection(id="elsewhere", order=25, cell_facts=_facts, elements=_elements)
