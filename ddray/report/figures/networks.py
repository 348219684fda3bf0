"""Test accuracy by network: how much of what a set gives on the network it was made with is there on others (Chen et
al. 2023, Figure 5c and d)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ddray.report.comparable import SAME_IN_BLOCK
from ddray.report.drawing import Canvas, label, marks, style_of
from ddray.report.figures import Drawing, Figure, Rows
from ddray.report.table import Facts
from ddray.report.words import axes_title, cells_of, row_title, variant_title

SAME = tuple(name for name in SAME_IN_BLOCK if name not in ("architecture", "norm_layer"))
"""What blocks of a report agree in that differ in the network alone."""
MOST_PLACES = 6
"""Panels of one figure: the last ones, which have the most images."""


def _drawings(report: Facts) -> Iterator[Drawing]:
    groups: dict[tuple[Any, ...], list[Facts]] = defaultdict(list)
    for block in report["blocks"]:
        groups[tuple(block[name] for name in SAME)].append(block)
    for blocks in groups.values():
        rows = _rows(blocks)
        if len({row["network"] for row in rows}) > 1 and len({row["method"] for row in rows}) > 1:
            first = blocks[0]
            yield Drawing(f"Test accuracy by network: {first['dataset']}, protocol {first['protocol']}", rows)


def _rows(blocks: list[Facts]) -> list[dict[str, Any]]:
    """A row for each cell. By what not all blocks vary in, only the first row's value counts: the usual one."""
    common = [axis for axis in blocks[0]["row_axes"] if all(axis in block["row_axes"] for block in blocks)]
    rows = []
    for block in blocks:
        others = [axis for axis in block["row_axes"] if axis not in common]
        usual = {axis: block["rows"][0][axis] for axis in others}
        for row in cells_of(block):
            accuracy = row["cell"]["accuracy"]
            if accuracy is not None and all(row[axis] == usual[axis] for axis in others):
                rows.append(
                    {
                        "method": row["method"],
                        "axis": axes_title(common),
                        "place": row_title(common, row),
                        "network": block["architecture"],
                        "percent": 100 * accuracy["mean"],
                        "sd": None if accuracy["sd"] is None else 100 * accuracy["sd"],
                        "repeats": accuracy["seed_level"],
                    }
                )
    return rows


def _draw(canvas: Canvas, rows: Rows) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    places = list(dict.fromkeys(row["place"] for row in rows if row["method"] != "full"))[-MOST_PLACES:]
    titles = {place: f"{rows[0]['axis']} {place}".strip() for place in places}
    panels = canvas.panels(titles.values(), sharex=True, sharey=True)
    for place, name in titles.items():
        for index, method in enumerate(methods):
            style = style_of(method, methods)
            mine = [row for row in rows if row["method"] == method and (row["place"] == place or method == "full")]
            found = {row["network"]: row for row in mine}
            own = [(at, found[network]) for at, network in enumerate(networks) if network in found]
            aside = 0.0 if method == "full" else (index - (len(methods) - 1) / 2) * 0.04
            marks(
                panels[name],
                [at + aside for at, _ in own],
                [row["percent"] for _, row in own],
                [row["sd"] for _, row in own],
                style,
                title=variant_title(method),
            )
        panels[name].set_xticks(range(len(networks)), networks)
        label(panels[name], "network that is trained", "test accuracy, %")
    canvas.legend(panels.values())


NETWORKS = Figure(
    id="networks",
    beside="rankings",
    reading="Mean over repeats, bars one standard deviation of them. A line that falls from the left belongs to a set "
    "that is worth less on networks it was not made with; lines that cross change the order of methods.",
    drawings=_drawings,
    draw=_draw,
)
