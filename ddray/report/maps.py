"""t-SNE maps as figures, from ``embeddings.parquet``: real images in grey, each distilled set in its colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddray.report.drawing import Canvas, style_of
from ddray.report.page import Picture
from ddray.report.words import variant_title

FILE = "embeddings.parquet"
MOST = 12
"""Maps in a report."""
_READING = (
    "Features of one network, flattened to two numbers: they say who lies near whom, not how far. Grey: real images."
)


def map_pictures(folder: Path) -> list[Picture]:
    """A picture for each map of a sweep, at most ``MOST``; none where there is no map, or none that can be read.

    Args:
        folder: ``results/<sweep>``.
    """
    try:
        table = pq.read_table(folder / FILE)
    except (OSError, pa.ArrowInvalid):
        return []
    by_fit: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_fit.setdefault(row["fit_id"], []).append(row)
    pictures = []
    for number, rows in enumerate(list(by_fit.values())[:MOST], 1):
        first = rows[0]
        title = f"Map of {first['dataset']}" + (f", ipc {first['ipc']}" if first["ipc"] is not None else "")
        drawn = [{name: row[name] for name in ("source", "method", "init", "class_id", "x", "y")} for row in rows]
        pictures.append(Picture(f"map-{number}", title, _READING, drawn, _draw))
    return pictures


def _draw(canvas: Canvas, rows: Sequence[Mapping[str, Any]]) -> None:
    sets = [name for name in dict.fromkeys(row["source"] for row in rows) if name != "real"]
    panels = canvas.panels(sets or ["real"], row_height=2.6, sharex=True, sharey=True)
    methods = list(dict.fromkeys(row["method"] for row in rows if row["method"] is not None))
    real = [row for row in rows if row["source"] == "real"]
    for name, axes in panels.items():
        axes.scatter([row["x"] for row in real], [row["y"] for row in real], s=4, color="#88888866", linewidths=0)
        own = [row for row in rows if row["source"] == name and name != "real"]
        if own:
            style = style_of(own[0]["method"], methods)
            x, y = [row["x"] for row in own], [row["y"] for row in own]
            axes.scatter(x, y, s=14, color=style.colour, marker=style.marker, label=variant_title(own[0]["method"]))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    canvas.legend(panels.values())
