"""How unequally classes are treated, against accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.drawing import Canvas, label, marks, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import cells_of, row_title, variant_title


def _drawings(block: Facts) -> Iterator[Drawing]:
    rows: list[dict[str, Any]] = []
    for row in cells_of(block):
        accuracy, fairness = row["cell"]["accuracy"], row["cell"]["fairness"]
        variance, worst = fairness["fair_var_acc_corr"], fairness["fair_worst_acc"]
        if accuracy is None or variance is None or worst is None:
            continue
        rows.append(
            {
                "method": row["method"],
                "place": row_title(block["row_axes"], row),
                "percent": 100 * accuracy["mean"],
                "variance_pp2": 1e4 * variance["mean"],
                "variance_sd": None if variance["sd"] is None else 1e4 * variance["sd"],
                "worst_percent": 100 * worst["mean"],
                "worst_sd": None if worst["sd"] is None else 100 * worst["sd"],
            }
        )
    if len({row["method"] for row in rows}) > 1:
        yield Drawing(f"Fairness between classes: {block['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    names = {"worst": "worst class, %", "variance": "variance of class accuracies, pp²"}
    panels = canvas.panels(names.values())
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for name, title in names.items():
        value, scatter = ("worst_percent", "worst_sd") if name == "worst" else ("variance_pp2", "variance_sd")
        for method in methods:
            style = style_of(method, methods)
            own = [row for row in rows if row["method"] == method]
            marks(
                panels[title],
                [row["percent"] for row in own],
                [row[value] for row in own],
                [row[scatter] for row in own],
                style,
                title=variant_title(method),
                line="none",
                size=6,
            )
            for row in own:
                panels[title].annotate(
                    row["place"],
                    (row["percent"], row[value]),
                    textcoords="offset points",
                    xytext=(5, 4),
                    fontsize=7,
                    color=style.colour,
                )
        label(panels[title], "test accuracy, %", title)
        panels[title].set_title("")
    canvas.legend(panels.values())


FAIRNESS = Figure(
    id="fairness",
    beside="fairness",
    reading="Each point is a cell (number: its place in the table), bars one standard deviation. Low accuracy alone "
    "makes classes unequal: compare points at the same height of accuracy.",
    drawings=_drawings,
    draw=_draw,
)
