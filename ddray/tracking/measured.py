"""What MLflow gets of ``measurements.parquet``: by point, the numbers that one compares runs by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddray.errors import EnvironmentProblem
from ddray.measurements.metrics import MEASURED
from ddray.plan.jobs import Plan
from ddray.plan.keys import digest

VERSION = 3
"""Raised when runs are written differently; they are then updated once."""

_PARAMETERS = ("attack", "norm", "epsilon", "audit", "fpr")
"""Columns that tell apart numbers of one metric."""


_TELLING = (
    "property",
    "epsilon",
    "norm",
    "adv_def",
    "member_role",
    "repeat",
    "agg",
    "nonmember_source",
    "variance_mode",
    "param_json",
)


@dataclass(slots=True)
class Number:
    """A number of a point."""

    metric: str
    value: float | None
    class_id: int | None
    parameters: tuple[Any, ...]
    status: str
    note: str | None
    at: int
    """Milliseconds since 1970 at which its stage started; 0 if not recorded."""


@dataclass(slots=True)
class MeasuredPoint:
    """What the table of measurements says of a point."""

    rows: list[Number] = field(default_factory=list)
    commit: str | None = None
    dirty: bool | None = None
    device: str | None = None
    digest: str = ""

    @property
    def states(self) -> set[str]:
        return {row.status for row in self.rows}

    @property
    def status(self) -> str:
        """The point's state, judged as in its coverage."""
        return next((state for state in ("failed", "pending", "blocked") if state in self.states), "done")

    @property
    def measured(self) -> bool:
        """Whether there is anything to show beyond what the stages cost."""
        return any(row.status == "ok" and row.metric == "test_acc" for row in self.rows) or self.status == "failed"


def mirrored(table: Any) -> Any:
    """Which rows MLflow gets: of each evaluation the numbers one compares runs by. All are in the table itself."""

    def one_of(name: str, values: Sequence[Any]) -> Any:
        column = table[name]
        plain = pc.cast(column, pa.string()) if pa.types.is_dictionary(column.type) else column
        return pc.is_in(plain, value_set=pa.array([*values], plain.type))

    def usual(name: str, *values: str) -> Any:
        return pc.or_(pc.is_null(table[name]), one_of(name, values)) if values else pc.is_null(table[name])

    keep = one_of("metric", [metric.id for metric in MEASURED if metric.mirrored])
    for mask in (
        usual("member_role"),
        usual("repeat"),
        usual("adv_def", "clip"),
        usual("nonmember_source", "pool", "test_balanced"),
        usual("variance_mode", "shrunk"),
        pc.invert(one_of("agg", ["pooled"])),
        pc.invert(pc.fill_null(pc.match_substring(table["param_json"], '"iteration":0'), False)),
    ):
        keep = pc.and_(keep, mask)
    return pc.or_(keep, pc.invert(one_of("status", ["ok"])))


def measured_points(plan: Plan, path: Path) -> dict[str, MeasuredPoint]:
    """The table's rows by point, and the digest of everything a run is made of."""
    columns = [
        "point",
        "metric",
        "value",
        "class_id",
        "status",
        "note",
        "started_at",
        "git_commit",
        "dirty",
        "device",
        "distilled_hash",
        "model_hash",
        *_PARAMETERS,
    ]
    try:
        table = pq.read_table(path, columns=list(dict.fromkeys((*columns, *_TELLING))))
        table = table.filter(mirrored(table))
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"{path}: cannot be read; got {error}. Run `ddray collect` to make it again."
        ) from error
    points: dict[str, MeasuredPoint] = {}
    material: dict[str, list[Any]] = {}
    lists = [table[name].to_pylist() for name in columns]
    for hash_, metric, value, class_id, status, note, started, commit, dirty, device, *rest in zip(*lists, strict=True):
        point = points.setdefault(hash_, MeasuredPoint())
        at = int(started.timestamp() * 1000) if isinstance(started, datetime) else 0
        parameters = tuple(rest[2:])
        point.rows.append(Number(metric, value, class_id, parameters, status, note, at))
        point.commit, point.dirty = commit or point.commit, dirty if dirty is not None else point.dirty
        point.device = device or point.device
        material.setdefault(hash_, []).append(
            [metric, value, class_id, parameters, status, note, at, commit, dirty, *rest[:2]]
        )
    for chain in plan.chains:
        if chain.point.hash in points:
            keys = [stage.key for stage in chain.stages]
            points[chain.point.hash].digest = digest([VERSION, keys, chain.point.grids, material[chain.point.hash]])
    return points
