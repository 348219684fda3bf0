"""Test accuracy by the hours that a set took to distil."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.drawing import INK, Canvas, label, marks, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, cells_of, row_title, variant_title

PER_HOUR = {"hours": 1.0, "minutes": 60.0, "seconds": 3600.0}
"""The unit of the axis is the first of which the longest distillation took one."""


def _drawings(block: Facts) -> Iterator[Drawing]:
    axes = block["row_axes"]
    rows: list[dict[str, Any]] = []
    for row in cells_of(block):
        accuracy, distilled = row["cell"]["accuracy"], row["cell"]["distilled"]
        if accuracy is not None and (distilled is not None or row["method"] == "random"):
            rows.append(
                {
                    "method": row["method"],
                    "axis": axes_title(axes),
                    "place": row_title(axes, row),
                    "hours": None if distilled is None else distilled["hours"],
                    "machine": None if distilled is None else distilled["machine"],
                    "percent": 100 * accuracy["mean"],
                    "sd": None if accuracy["sd"] is None else 100 * accuracy["sd"],
                }
            )
    distilling = [row for row in rows if row["hours"] is not None]
    one_machine = len({row["machine"] for row in distilling}) == 1  # the hours of two do not compare
    if one_machine and len({row["method"] for row in distilling}) > 1:
        yield Drawing(f"Test accuracy by time of distillation: {block['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes = canvas.panels([""])[""]
    distilled = [row for row in rows if row["hours"] is not None]
    longest = max(row["hours"] for row in distilled)
    unit = next((name for name, per_hour in PER_HOUR.items() if longest * per_hour >= 1), "seconds")
    methods = list(dict.fromkeys(row["method"] for row in distilled))
    for method in methods:
        style = style_of(method, methods)
        own = [row for row in distilled if row["method"] == method]
        x, y = [row["hours"] * PER_HOUR[unit] for row in own], [row["percent"] for row in own]
        marks(axes, x, y, [row["sd"] for row in own], style, title=variant_title(method), line="none", size=6)
        for row, at in zip(own, zip(x, y, strict=True), strict=True):
            axes.annotate(
                row["place"],
                at,
                textcoords="offset points",
                xytext=(6, 3),
                fontsize=7,
                color=style.colour,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for row in rows:
        if row["hours"] is None:
            axes.axhline(row["percent"], color=INK, linewidth=0.7, linestyle=":", label="random real images")
            axes.annotate(
                row["place"],
                (1.0, row["percent"]),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                xytext=(-3, 2),
                ha="right",
                fontsize=7,
                color=INK,
            )
    label(axes, f"{unit} of distillation on {distilled[0]['machine']}", "test accuracy, %")
    canvas.legend([axes])


HOURS = Figure(
    id="hours",
    beside="rows",
    reading="Further left is cheaper, higher is better; the number at a mark is its row of the table, bars are one "
    "standard deviation over repeats, dotted lines random real images, which take no time. Time is that of one set's "
    "own distillation; experts that several sets learn from are not in it.",
    drawings=_drawings,
    draw=_draw,
)
