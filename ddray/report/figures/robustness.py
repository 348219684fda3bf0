"""Accuracy within each budget of an attack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddray.report.drawing import Canvas, label, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, row_title, variant_title


def _drawings(block: Facts) -> Iterator[Drawing]:
    """One for each attack; a panel for each row of the block."""
    axes = block["row_axes"]
    for attack in block["robustness"]:
        places = [place for entry in attack["rows"] if (place := _place(axes, entry)) is not None]
        rows: list[dict[str, Any]] = []
        for entry in attack["rows"]:
            # A model that all rows share, as that of the full data, stands in each panel.
            own = _place(axes, entry)
            for place in dict.fromkeys(places) if own is None and places else [own or "all"]:
                means = [] if entry["clean"] is None else [{**entry["clean"], "epsilon": 0.0}]
                for mean in [*means, *(each for each in entry["adv_acc"] if each["epsilon"] > 0)]:
                    known = mean["low"] is not None and mean["high"] is not None
                    rows.append(
                        {
                            "method": entry["method"],
                            "axis": axes_title(axes),
                            "place": place,
                            "norm": attack["norm"],
                            "epsilon": mean["epsilon"],
                            "percent": 100 * mean["mean"],
                            "low": 100 * mean["low"] if known else None,
                            "high": 100 * mean["high"] if known else None,
                        }
                    )
        if rows:
            yield Drawing(f"{attack['title']}: {block['title']}", rows)


def _place(axes: list[str], entry: Facts) -> str | None:
    return None if all(entry[axis] is None for axis in axes) else row_title(axes, entry)


def _draw(canvas: Canvas, rows: Rows) -> None:
    titles = {row["place"]: f"{row['axis']} {row['place']}" for row in rows}
    panels = canvas.panels(titles.values(), sharey=True)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    linf = rows[0]["norm"] == "linf"
    for place, title in titles.items():
        for method in methods:
            own = [row for row in rows if row["method"] == method and row["place"] == place]
            if not own:
                continue
            style = style_of(method, methods)
            x = [row["epsilon"] * (255 if linf else 1) for row in own]
            panels[title].plot(
                x,
                [row["percent"] for row in own],
                color=style.colour,
                marker=style.marker,
                markersize=3.5,
                linestyle=style.line,
                linewidth=1.2,
                label=variant_title(method),
            )
            if all(row["low"] is not None for row in own):
                low, high = [row["low"] for row in own], [row["high"] for row in own]
                panels[title].fill_between(x, low, high, color=style.colour, alpha=0.1, linewidth=0)
        label(panels[title], "budget ε, of 255 (Linf)" if linf else "budget ε (L2)", "still right, %")
    canvas.legend(panels.values())


ROBUSTNESS = Figure(
    id="robustness",
    beside="robustness",
    reading="At 0 the accuracy without an attack; higher further right is more robust. Bands: 95 % intervals over "
    "images, of one model each; all models are attacked on the same images.",
    drawings=_drawings,
    draw=_draw,
)
