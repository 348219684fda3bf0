"""Receiver operating characteristics of the strongest attacks, both rates by their logarithm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.audits import null_recall
from ddray.report.drawing import INK, Canvas, label, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, row_title, variant_title

MOST_ROWS = 6
"""Panels of one figure."""


def _drawings(report: Facts) -> Iterator[Drawing]:
    for table in report["privacy"]:
        rows: list[dict[str, Any]] = []
        for row in table["rows"][:MOST_ROWS]:
            for variant, cell in row["cells"].items():
                for at in cell["roc"]:
                    low, high = null_recall(at["fpr"], at["members"], at["others"])
                    rows.append(
                        {
                            "method": variant,
                            "axis": axes_title(table["row_axes"]),
                            "place": row_title(table["row_axes"], row),
                            "attack": cell["strongest"]["attack"],
                            "fpr": at["fpr"],
                            "tpr": at["tpr"],
                            "targets": at["targets"],
                            "null_low": low,
                            "null_high": high,
                        }
                    )
        if rows:
            yield Drawing(f"Few false positives, audit {table['audit']}: {table['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    titles = {row["place"]: f"{row['axis']} {row['place']}" for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = canvas.panels(titles.values(), sharex=True, sharey=True)
    least = min(row["fpr"] for row in rows) / 2
    for place, title in titles.items():
        axes, own = panels[title], [row for row in rows if row["place"] == place]
        band = {row["fpr"]: (max(row["null_low"], least), row["null_high"]) for row in own}
        x = sorted(band)
        axes.fill_between(
            x, [band[at][0] for at in x], [band[at][1] for at in x], color="#88888833", linewidth=0, label="null band"
        )
        axes.plot([least, 1], [least, 1], color=INK, linewidth=0.6)
        for method in methods:
            style = style_of(method, methods)
            line = [row for row in own if row["method"] == method and row["tpr"] > 0]
            if line:
                axes.plot(
                    [row["fpr"] for row in line],
                    [row["tpr"] for row in line],
                    color=style.colour,
                    marker=style.marker,
                    markersize=3.5,
                    linestyle=style.line,
                    linewidth=1.2,
                    label=variant_title(method),
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(least, 1)
        axes.set_ylim(least, 1.1)
        label(axes, "false positive rate", "true positive rate")
    canvas.legend(panels.values())


ROC = Figure(
    id="roc",
    beside="privacy",
    reading="Each method's strongest attack; the thin line is chance. Far left an attack is sure of few images. Above "
    "the null band, in which 95 % of the rates of one target lie when nothing leaks, something leaks. A rate of 0 is "
    "not shown.",
    drawings=_drawings,
    draw=_draw,
)
