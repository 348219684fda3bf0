"""The variance over classes of loss and of accuracy, by images per class (Chen et al. 2023, Figure 6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ddray.report.drawing import Canvas, label, marks, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, cells_of, row_title, variant_title


class _Measure(NamedTuple):
    metric: str
    scale: float
    title: str


_MEASURES = {
    "loss": _Measure("fair_var_loss", 1.0, "variance of loss over classes, nat²"),
    "accuracy": _Measure("fair_var_acc", 1e4, "variance of accuracy over classes, pp²"),
}


def _drawings(block: Facts) -> Iterator[Drawing]:
    places = [row_title(block["row_axes"], row) for row in block["rows"]]
    rows: list[dict[str, Any]] = []
    for row in cells_of(block):
        for name, measure in _MEASURES.items():
            found = row["cell"]["fairness"][measure.metric]
            if found is None:
                continue
            place = row_title(block["row_axes"], row)
            rows.append(
                {
                    "measure": name,
                    "method": row["method"],
                    "axis": axes_title(block["row_axes"]),
                    "place": place,
                    "rank": places.index(place),
                    "variance": measure.scale * found["mean"],
                    "sd": None if found["sd"] is None else measure.scale * found["sd"],
                }
            )
    if len({row["method"] for row in rows}) > 1:
        yield Drawing(f"Variance over classes: {block['title']}", rows)


def _draw(canvas: Canvas, rows: Rows) -> None:
    measures = [measure for measure in _MEASURES if any(row["measure"] == measure for row in rows)]
    panels = canvas.panels(_MEASURES[measure].title for measure in measures)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    places = dict(sorted({row["rank"]: row["place"] for row in rows}.items()))
    for measure in measures:
        title = _MEASURES[measure].title
        for method in methods:
            style = style_of(method, methods)
            own = sorted(
                (row for row in rows if (row["measure"], row["method"]) == (measure, method)),
                key=lambda row: row["rank"],
            )
            marks(
                panels[title],
                [row["rank"] for row in own],
                [row["variance"] for row in own],
                [row["sd"] for row in own],
                style,
                title=variant_title(method),
            )
        panels[title].set_xticks(list(places), list(places.values()))
        panels[title].set_ylim(bottom=0)
        panels[title].set_title("")
        label(panels[title], rows[0]["axis"], title)
    canvas.legend(panels.values())


VARIANCE = Figure(
    id="variance",
    beside="fairness",
    reading="Lower treats classes more alike, at equal accuracy: networks that are right less often have larger "
    "variances whatever the method. As measured, with what the sampling of test images adds.",
    drawings=_drawings,
    draw=_draw,
)
