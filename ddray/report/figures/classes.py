"""How accurate a network is in each class, and what the class keeps of the full data's (Chen et al. 2023, Figure 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ddray.report.drawing import Canvas, label, marks, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, row_title, variant_title

MOST_PLACES, MOST_NAMED = 6, 25
"""Panels of one figure; classes up to which each has its number on the axis."""


def _rows(block: Facts) -> list[dict[str, Any]]:
    """A row for each class of each cell, with its rank by the full-data model's accuracy (1: best)."""
    axes = block["row_axes"]
    full = {
        each["class_id"]: each["mean"]
        for row in block["rows"]
        for variant, cell in row["cells"].items()
        if variant == "full"
        for each in cell["classes"]
    }
    ranked = sorted(full, key=lambda class_id: -full[class_id])
    rows = []
    for row in block["rows"]:
        for variant, cell in row["cells"].items():
            for each in cell["classes"]:
                class_id = each["class_id"]
                rows.append(
                    {
                        "method": variant,
                        "axis": axes_title(axes),
                        "place": row_title(axes, row),
                        "class_id": class_id,
                        "class_rank": ranked.index(class_id) + 1 if class_id in full else None,
                        "percent": 100 * each["mean"],
                        "sd": None if each["sd"] is None else 100 * each["sd"],
                        "n": each["n"],
                        "kept_percent": 100 * each["mean"] / full[class_id] if full.get(class_id) else None,
                    }
                )
    return rows


def _drawings(block: Facts) -> Iterator[Drawing]:
    rows = _rows(block)
    if len({row["method"] for row in rows}) > 1 and len({row["class_id"] for row in rows}) > 1:
        yield Drawing(f"Accuracy of each class: {block['title']}", rows)


def _kept_drawings(block: Facts) -> Iterator[Drawing]:
    rows = [row for row in _rows(block) if row["kept_percent"] is not None]
    if any(row["method"] == "full" for row in rows) and len({row["method"] for row in rows}) > 1:
        yield Drawing(f"What each class keeps of its full-data accuracy: {block['title']}", rows)


def _drawer(value: str, title: str) -> Callable[[Canvas, Rows], None]:
    def draw(canvas: Canvas, rows: Rows) -> None:
        methods = list(dict.fromkeys(row["method"] for row in rows))
        own_places = list(dict.fromkeys(row["place"] for row in rows if row["method"] != "full"))
        titles = {place: f"{rows[0]['axis']} {place}" for place in own_places[-MOST_PLACES:]}
        panels = canvas.panels(titles.values(), sharex=True, sharey=True)
        ranked = all(row["class_rank"] is not None for row in rows)
        order = sorted({(row["class_rank"] if ranked else row["class_id"], row["class_id"]) for row in rows})
        at = {class_id: position for position, (_, class_id) in enumerate(order)}
        for place, name in titles.items():
            for index, method in enumerate(methods):
                style = style_of(method, methods)
                own = [row for row in rows if row["method"] == method and (row["place"] == place or method == "full")]
                own.sort(key=lambda row: at[row["class_id"]])
                aside = 0.0 if method == "full" else (index - (len(methods) - 1) / 2) * 0.08
                marks(
                    panels[name],
                    [at[row["class_id"]] + aside for row in own],
                    [row[value] for row in own],
                    [row["sd"] for row in own] if value == "percent" else None,
                    style,
                    title=variant_title(method),
                    line=None if method == "full" else "none",
                    size=4,
                )
            if len(at) <= MOST_NAMED:
                panels[name].set_xticks(list(at.values()), list(map(str, at)))
            what = "class, the full data's best first" if ranked else "class"
            label(panels[name], what, title)
        canvas.legend(panels.values())

    return draw


CLASSES = Figure(
    id="classes",
    beside="classes",
    reading="One mark per class, mean over trainings with one standard deviation: which classes a set serves, and "
    "where it stays behind the full data (dashed).",
    drawings=_drawings,
    draw=_drawer("percent", "accuracy of the class, %"),
)
KEPT = Figure(
    id="kept",
    beside="classes",
    reading="100: as accurate in this class as a network trained on the full data. Where marks fall from left to "
    "right, classes that are hard anyway lose most.",
    drawings=_kept_drawings,
    draw=_drawer("kept_percent", "kept of the full data's, %"),
)
