"""What a network leaks against how accurate it is, beside networks trained on random real images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.drawing import INK, Canvas, label, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import row_title, variant_title


def _drawings(report: Facts) -> Iterator[Drawing]:
    for table in report["privacy"]:
        rows: list[dict[str, Any]] = []
        for row in table["rows"]:
            for variant, cell in row["cells"].items():
                strongest, accuracy = cell["strongest"], cell["target_accuracy"]
                if strongest is None or accuracy is None:
                    continue
                rows.append(
                    {
                        "method": variant,
                        "place": row_title(table["row_axes"], row),
                        "target_accuracy_percent": 100 * accuracy["value"],
                        "attack": strongest["attack"],
                        "percent": 100 * strongest["value"],
                        "low": None if strongest["low"] is None else 100 * strongest["low"],
                        "high": None if strongest["high"] is None else 100 * strongest["high"],
                        "null_high": None if row["null_band"] is None else 100 * row["null_band"]["high"],
                    }
                )
        if len({row["method"] for row in rows}) > 1:
            yield Drawing(f"Leakage against accuracy, audit {table['audit']}: {table['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    axes = canvas.panels([""])[""]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    axes.axhline(50, color=INK, linewidth=0.6)
    nulls = [row["null_high"] for row in rows if row["null_high"] is not None]
    if nulls:
        axes.axhspan(50, max(nulls), color="#88888833", linewidth=0, label="nothing shown")
    for method in methods:
        style = style_of(method, methods)
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["target_accuracy_percent"])
        x = [row["target_accuracy_percent"] for row in own]
        axes.plot(
            x,
            [row["percent"] for row in own],
            color=style.colour,
            marker=style.marker,
            markersize=6,
            linestyle="-" if method == "random" else "none",
            linewidth=1,
            label=variant_title(method),
        )
        for at, row in zip(x, own, strict=True):
            if row["low"] is not None and row["high"] is not None:
                axes.plot([at, at], [row["low"], row["high"]], color=style.colour, linewidth=1)
            axes.annotate(
                row["place"],
                (at, row["percent"]),
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=7,
                color=style.colour,
            )
    label(axes, "test accuracy of the attacked networks, %", "AUC of the strongest attack, %")
    canvas.legend([axes])


TRADEOFF = Figure(
    id="tradeoff",
    beside="privacy",
    reading="Right is more accurate, up leaks more (number: the row of the table; lines: intervals). Below "
    "the random real images of its accuracy a set leaks less than they; in the grey band nothing is shown either way.",
    drawings=_drawings,
    draw=_draw,
)
