"""Test accuracy by images per class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.beside_paper import comparable
from ddray.report.drawing import INK, Canvas, label, marks, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, cells_of, row_title, variant_title


def _drawings(block: Facts) -> Iterator[Drawing]:
    axes = block["row_axes"]
    places = [row_title(axes, row) for row in block["rows"]]
    rows: list[dict[str, Any]] = []
    for row in cells_of(block):
        accuracy = row["cell"]["accuracy"]
        if accuracy is not None:
            rows.append(
                {
                    "method": row["method"],
                    "axis": axes_title(axes),
                    "place": row_title(axes, row),
                    "rank": places.index(row_title(axes, row)),
                    "percent": 100 * accuracy["mean"],
                    "sd": None if accuracy["sd"] is None else 100 * accuracy["sd"],
                    "repeats": accuracy["seed_level"],
                    "paper": 100 * row["cell"]["paper"]["mean"] if comparable(row["cell"]) else None,
                }
            )
    if len({row["method"] for row in rows}) > 1:
        yield Drawing(f"Test accuracy: {block['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    axes = canvas.panels([""])[""]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    places = dict(sorted({row["rank"]: row["place"] for row in rows}.items()))
    for index, method in enumerate(methods):
        style = style_of(method, methods)
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["rank"])
        aside = 0.0 if method == "full" else (index - (len(methods) - 1) / 2) * 0.03
        x = [row["rank"] + aside for row in own]
        marks(axes, x, [row["percent"] for row in own], [row["sd"] for row in own], style, title=variant_title(method))
        published = [at for at, row in enumerate(own) if row["paper"] is not None]
        theirs = [own[at]["paper"] for at in published]
        axes.scatter([x[at] for at in published], theirs, marker="_", s=160, color=style.colour, linewidths=2)
    if any(row["paper"] is not None for row in rows):
        axes.scatter([], [], marker="_", s=100, color=INK, label="the paper's")
    axes.set_xticks(list(places), list(places.values()))
    label(axes, rows[0]["axis"], "test accuracy, %")
    canvas.legend([axes])


ACCURACY = Figure(
    id="accuracy",
    beside="rows",
    reading="Mean over repeats, bars one standard deviation of them; higher is better, and the full data is what there "
    "is to reach.",
    drawings=_drawings,
    draw=_draw,
)
