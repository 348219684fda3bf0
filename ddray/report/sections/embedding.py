"""Where distilled images lie among real ones, in the features of one network trained on the full data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.measurements.statistics import by_seed, spread
from ddray.report.comparable import Cell, ReportBlock, refuse_mixed, spread_facts
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import Column, Facts, Footnote
from ddray.report.words import cell_table, plus_minus

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


def _facts(block: ReportBlock, numbers: Numbers) -> list[dict[str, Any]]:
    """One entry per cell: means over distilled sets, by metric.

    Raises:
        MixedBlock: Numbers were made with different features or numbers of neighbours.
    """
    points = [point["point"] for point in block.points]
    rows = [row for metric in METRICS for row in numbers.of(metric, points)]
    if not rows:
        return []
    refuse_mixed(rows, _ONE_VALUE, f"{block.where}: embedding")
    real = numbers.of("embed_outlier_rate_real", points)
    refuse_mixed(real, ("n",), f"{block.where}: real images of the embedding")
    entries = []
    for cell in block.own_cells:
        means = {metric: mean for metric in METRICS if (mean := _mean(cell, numbers, metric)) is not None}
        if means:
            entries.append({**cell.facts, "neighbours": rows[0]["param"].get("neighbours"), "numbers": means})
    return entries


def _mean(cell: Cell, numbers: Numbers, metric: str) -> dict[str, Any] | None:
    """Over sets: the points that differ in the training alone have one embedding."""
    seeds = {point["point"]: point["distill_seed"] for point in cell.points}
    entries = [(seeds[row["point"]], 0, row["value"]) for row in numbers.of(metric, seeds) if row["value"] is not None]
    mean = spread_facts(spread(by_seed(entries), cell.set_unit))
    if mean is not None and mean["count"] == 1:
        return {**mean, "unit": cell.set_unit, "seed_level": "n=1 set"}
    return mean


def _elements(block: Facts) -> Iterator[Element]:
    """One row per cell; beside each number what real images, or as many further ones, would give."""
    entries = block["embedding"]
    if not entries:
        return
    outliers = (
        f"outliers: distilled images most of whose {entries[0]['neighbours']} nearest real images are of other "
        "classes; in brackets, real images of which that is true."
    )
    yield cell_table(
        "Embedding among real images",
        block["row_axes"],
        entries,
        [
            _beside("outliers % (real)", "outlier_rate", "outlier_rate_real", 100, 1, outliers),
            _beside("coverage % (expected)", "coverage", "coverage_expected", 100, 1, _COVERAGE),
            _beside("centre moved (expected)", "centroid_distance", "centroid_distance_expected", 1, 3, _CENTRE),
            _beside(
                "MMD² (95 % null)",
                "mmd",
                "mmd_null95",
                1,
                4,
                "MMD²: in brackets, what chance alone stays below in 95 % of cases.",
            ),
            Column("n", lambda row: next(iter(row["numbers"].values()))["short"]),
        ],
    )


_COVERAGE = (
    "coverage: real images that have a distilled one of their class nearby; in brackets, what as many further real "
    "images would cover."
)
_CENTRE = "centre moved: in brackets, how far as many further real images would move it."


def _beside(title: str, metric: str, usual: str, scale: float, digits: int, meaning: str) -> Column:
    """A number, with the usual one in brackets."""

    def value(row: Facts) -> Facts | None:
        numbers: dict[str, Facts] = row["numbers"]
        mean, other = numbers.get(f"embed_{metric}"), numbers.get(f"embed_{usual}")
        if mean is None or other is None:
            return mean
        return {**mean, "level": f"({scale * other['mean']:.{digits}f})"}

    return Column(title, value, partial(plus_minus, scale=scale, digits=digits), footnote=Footnote(meaning))


EMBEDDING = BlockSection(id="embedding", order=60, detailed=METRICS, facts=_facts, elements=_elements)
