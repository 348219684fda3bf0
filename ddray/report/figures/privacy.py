"""What every attack of the panel reached, with the null band."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.drawing import INK, Canvas, label, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, row_title, variant_title

MOST_ROWS = 9
"""Panels of one figure."""


def _drawings(report: Facts) -> Iterator[Drawing]:
    for table in report["privacy"]:
        rows: list[dict[str, Any]] = []
        for row in table["rows"][:MOST_ROWS]:
            for variant, cell in row["cells"].items():
                strongest = cell["strongest"]
                if strongest is None:
                    continue
                for attack in cell["by_attack"]:
                    chosen = attack == strongest["attack"]
                    found = strongest if chosen else cell["attacks"][attack]
                    rows.append(
                        {
                            "method": variant,
                            "axis": axes_title(table["row_axes"]),
                            "place": row_title(table["row_axes"], row),
                            "attack": attack,
                            "strongest": chosen,
                            "percent": 100 * found["value"],
                            "low": None if found["low"] is None else 100 * found["low"],
                            "high": None if found["high"] is None else 100 * found["high"],
                            "null_low": None if row["null_band"] is None else 100 * row["null_band"]["low"],
                            "null_high": None if row["null_band"] is None else 100 * row["null_band"]["high"],
                            "as_published": None if cell["as_published"] is None else 100 * cell["as_published"],
                        }
                    )
        if rows:
            yield Drawing(f"Membership inference, audit {table['audit']}: {table['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    titles = {row["place"]: f"{row['axis']} {row['place']}" for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = canvas.panels(titles.values(), row_height=1.1 + 0.36 * len(methods), sharex=True, sharey=True)
    for place, title in titles.items():
        axes = panels[title]
        own = [row for row in rows if row["place"] == place]
        if own[0]["null_low"] is not None:
            axes.axvspan(own[0]["null_low"], own[0]["null_high"], color="#88888833", linewidth=0, label="null band")
        axes.axvline(50, color=INK, linewidth=0.6)
        for at, method in enumerate(reversed(methods)):
            style = style_of(method, methods)
            for row in own:
                if row["method"] != method:
                    continue
                if not row["strongest"]:
                    axes.plot(row["percent"], at, marker="|", color=style.colour, markersize=9, linestyle="none")
                    continue
                axes.plot(row["percent"], at, marker=style.marker, color=style.colour, markersize=7)
                if row["low"] is not None and row["high"] is not None:
                    axes.plot([row["low"], row["high"]], [at, at], color=style.colour, linewidth=1.4)
                axes.annotate(
                    row["attack"],
                    (row["percent"], at),
                    textcoords="offset points",
                    xytext=(0, 8),
                    ha="center",
                    fontsize=7,
                    color=style.colour,
                )
        ceiling = next((row["as_published"] for row in own if row["as_published"] is not None), None)
        if ceiling is not None:
            axes.axvline(
                ceiling, color=INK, linewidth=0.8, linestyle=":", label="as many real images,\nat most, on average"
            )
        axes.set_yticks(range(len(methods)), [variant_title(method) for method in reversed(methods)])
        axes.set_ylim(-0.6, len(methods) - 0.3)
        label(axes, "AUC, %", "")
    canvas.legend(panels.values())


PRIVACY = Figure(
    id="privacy",
    beside="privacy",
    reading="Marker: the strongest attack, with a line for its interval where it has one; ticks: the other attacks of "
    "the panel. Right of the null band something leaks; inside it nothing is shown, which is not that nothing leaks.",
    drawings=_drawings,
    draw=_draw,
)
