"""Measurements -> what a report says, as plain values: fractions, seconds, names. ``render.py`` only words it.

What may stand in one table is decided in ``blocks.py``; what each part of the report holds, in ``sections``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from ddray.errors import EnvironmentProblem
from ddray.measurements.gather import MEASUREMENTS_FILE, Coverage
from ddray.measurements.reading import Numbers, Row, read_numbers, read_points, read_provenance
from ddray.report import alarms
from ddray.report.blocks import BLOCK_AXES, IN_BLOCK, IN_CELL, Block, block_key, make_block
from ddray.report.sections import accuracy, contrasts, embedding, fairness, generalisation, privacy, robustness

_OF_POINT = (
    "schema_version",
    "point",
    "method",
    "ipc",
    "distill_seed",
    "seed",
    *BLOCK_AXES,
    *IN_CELL,
    *IN_BLOCK,
    "value",
    "param_json",
    "numerics",
    "status",
    "class_ids",
)
"""Columns read for every point."""
_PLAIN = (*fairness.METRICS, *generalisation.PLAIN)
_DETAILED = (*robustness.METRICS, *privacy.METRICS, *embedding.METRICS, *generalisation.RANKS)


def summarise(folder: Path) -> dict[str, Any]:
    """Everything a report says, as JSON types.

    Args:
        folder: Holds ``measurements.parquet`` and ``coverage.json``.

    Raises:
        EnvironmentProblem: One of the files is missing or not readable.
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    coverage = Coverage.load(folder)
    path = folder / MEASUREMENTS_FILE
    try:
        points = read_points(path, _OF_POINT)
        provenance = read_provenance(path)
        numbers = read_numbers(path, _PLAIN, _DETAILED, (generalisation.EXCESS,))
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise EnvironmentProblem(
            f"{path}: the measurements cannot be read; got {error}. Run `ddray collect` to make them again."
        ) from error
    sweep = coverage.sweep
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for point in points:
        groups[block_key(point)].append(point)
    arranged = [make_block(rows, sweep) for rows in groups.values()]
    blocks = [_block(block, numbers, sweep) for block in arranged]
    tables = privacy.facts(points, numbers, sweep)
    found = alarms.general(coverage, blocks, points, provenance)
    for block in blocks:
        found += robustness.alarms(block["title"], block["robustness"])
    found += privacy.alarms(tables, numbers)
    return {
        "sweep": sweep,
        "digest": coverage.digest,
        "coverage": {
            name: getattr(coverage, name) for name in ("points", "evaluations", "methods", "failures", "reasons")
        },
        "provenance": provenance,
        "alarms": found + alarms.flagged(numbers.flags),
        "flagged": alarms.careful(numbers.flags),
        "blocks": blocks,
        "privacy": tables,
        "contrasts": contrasts.facts(blocks, tables),
        "rankings": generalisation.ranks(arranged, numbers),
    }


def _block(block: Block, numbers: Numbers, sweep: str) -> dict[str, Any]:
    first = block.rows[0]
    return {
        "title": block.title,
        **{name: first[name] for name in (*BLOCK_AXES, *IN_BLOCK)},
        "protocol_changes": first["param"].get("protocol_changes", {}),
        "row_axes": ["ipc", *block.axes],
        "methods": block.columns,
        "rows": accuracy.facts(block, numbers),
        "robustness": robustness.facts(block, numbers, sweep),
        "generalisation": generalisation.facts(block, numbers),
        "embedding": embedding.facts(block, numbers, sweep),
    }
