"""Where distilled images lie among real ones, in the features of one network trained on the full data."""

from __future__ import annotations

from typing import Any

from ddray.measurements.reading import Numbers
from ddray.measurements.statistics import by_seed, spread
from ddray.report.blocks import Block, Group, refuse_mixed, spread_json, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, place, plus_minus, table

METRICS = (
    "embed_outlier_rate",
    "embed_outlier_rate_real",
    "embed_coverage",
    "embed_coverage_expected",
    "embed_centroid_distance",
    "embed_centroid_distance_expected",
    "embed_mmd",
    "embed_mmd_null95",
)
_ONE_VALUE = ("embed_dim", "neighbours")


def facts(block: Block, numbers: Numbers, where: str) -> list[dict[str, Any]]:
    """One entry per cell: means over distilled sets, by metric.

    Raises:
        MixedBlock: Numbers were made with different features or numbers of neighbours.
    """
    points = [row["point"] for row in block.rows]
    rows = [row for metric in METRICS for row in numbers.of(metric, points)]
    if not rows:
        return []
    refuse_mixed(rows, _ONE_VALUE, f"{where}: {block.title}: embedding")
    real = numbers.of("embed_outlier_rate_real", points)
    refuse_mixed(real, ("n",), f"{where}: {block.title}: real images of the embedding")
    found = []
    for group in block.own_groups:
        means = {metric: mean for metric in METRICS if (mean := _mean(group, numbers, metric)) is not None}
        if means:
            found.append({**group.place, "neighbours": rows[0]["param"].get("neighbours"), "numbers": means})
    return found


def _mean(group: Group, numbers: Numbers, metric: str) -> dict[str, Any] | None:
    """Over sets: the points that differ in the training alone have one embedding."""
    seeds = {row["point"]: row["distill_seed"] for row in group.members}
    entries = [(seeds[row["point"]], 0, row["value"]) for row in numbers.of(metric, seeds) if row["value"] is not None]
    found = spread(by_seed(entries), group.unit)
    if found is not None and found.count == 1:
        return {**(spread_json(found) or {}), "unit": group.unit, "seed_level": "n=1 set"}
    return spread_json(found)


def text(block: Facts) -> list[str]:
    """One line per cell; beside each number what real images, or as many further ones, would give."""
    rows = []
    for entry in block["embedding"]:
        found = entry["numbers"]
        rows.append(
            [
                place(block["row_axes"], entry),
                title_of(entry["method"]),
                _beside(found, "embed_outlier_rate", "embed_outlier_rate_real", 100, 1),
                _beside(found, "embed_coverage", "embed_coverage_expected", 100, 1),
                _beside(found, "embed_centroid_distance", "embed_centroid_distance_expected", 1, 3),
                _beside(found, "embed_mmd", "embed_mmd_null95", 1, 4),
                next(iter(found.values()))["short"],
            ]
        )
    if not rows:
        return []
    header = [
        axes_header(block["row_axes"]),
        "method",
        "outliers % (real)",
        "coverage % (expected)",
        "centre moved (expected)",
        "MMD² (95 % null)",
        "n",
    ]
    neighbours = block["embedding"][0]["neighbours"]
    return [
        "",
        "### Embedding among real images",
        "",
        *table(header, rows),
        "",
        f"outliers: distilled images most of whose {neighbours} nearest real images are of other classes. coverage: "
        "real images that have a distilled one of their class nearby. In brackets what real images give: the same "
        "rate, what as many further real images would cover or move, and what chance alone reaches.",
    ]


def _beside(found: Facts, metric: str, other: str, scale: float, digits: int) -> str:
    shown = plus_minus(found.get(metric), scale, digits)
    usual = found.get(other)
    return shown if shown == NOTHING or usual is None else f"{shown} ({scale * usual['mean']:.{digits}f})"
