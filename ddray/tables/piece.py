"""Some points' rows, by column: one line per point, one per stage of a point, one per number, joined by index.

So no row is ever a Python object with all its columns, and neither time nor memory grows with the table's width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddray.plan.keys import canonical
from ddray.tables.columns import MEASUREMENTS, SCHEMA_VERSION, names
from ddray.tables.identity import POINT, PROVENANCE

STAGE = ("stage_key", *PROVENANCE, "status", "note")
NUMBER = (*names("measurement"), *(name for name in names("parameters") if name != "param_json"), "flag")
_TELLING = ("metric", "class_id", "split", "repeat", "agg", *names("parameters"))
_TELLING = tuple(name for name in _TELLING if name not in ("converged_share", "param_json"))
"""Columns that tell one number of an evaluation from another; ``converged_share`` is an outcome."""
_REST = "rest"


class Piece:
    """Collects rows: ``begin_point``, then for each of its stages ``begin_stage`` and ``add``."""

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self._points: list[tuple[Any, ...]] = []
        self._params: list[str | None] = []
        self._stages: list[tuple[Any, ...]] = []
        self._point_of_stage: list[int] = []
        self._stage_of_number: list[int] = []
        self._numbers: dict[str, list[Any]] = {}
        self._row_ids: list[str] = []
        self._hash = ""
        self._kind = ""
        self._classes: tuple[int, ...] | None = None
        self._suffixes: dict[tuple[str, ...], dict[tuple[Any, ...], bytes]] = {}

    def __len__(self) -> int:
        return len(self._row_ids)

    def begin_point(self, point: str, values: tuple[Any, ...], param: str | None, classes: tuple[int, ...]) -> None:
        """A point: its hash, the values of ``POINT``, its ``param_json``, the data set's labels of its classes."""
        self._points.append(values)
        self._params.append(param)
        self._hash = point
        self._classes = None if classes == tuple(range(len(classes))) else classes

    def begin_stage(
        self, kind: str, key: str, provenance: tuple[Any, ...], status: str = "ok", note: str | None = None
    ) -> None:
        """A stage of the point: the values of ``PROVENANCE``, and what became of it."""
        self._stages.append((key, *provenance, status, note))
        self._point_of_stage.append(len(self._points) - 1)
        self._kind = kind

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Numbers of the stage, under the names of ``NUMBER``; whatever else a row holds goes to ``param_json``."""
        if not rows:
            return
        before, count = len(self), len(rows)
        used = set().union(*rows)
        columns = {name: [row.get(name) for row in rows] for name in NUMBER if name in used}
        if "class_id" in columns and self._classes is not None:
            own = self._classes
            columns["class_id"] = [None if position is None else own[position] for position in columns["class_id"]]
        if unknown := used.difference(NUMBER):
            rest = [{name: row[name] for name in unknown if row.get(name) is not None} for row in rows]
            columns[_REST] = [canonical(extra) if extra else None for extra in rest]
            columns["param_json"] = [self._merged(extra) if extra else None for extra in rest]
        self._identify(columns)
        columns.pop(_REST, None)
        for name in columns.keys() - self._numbers.keys():
            self._numbers[name] = [None] * before
        for name, column in self._numbers.items():
            column.extend(columns[name] if name in columns else [None] * count)
        self._stage_of_number.extend([len(self._stages) - 1] * count)

    def table(self) -> pa.Table:
        """The rows added so far."""
        stage = np.asarray(self._stage_of_number, dtype=np.int64)
        point = np.asarray(self._point_of_stage, dtype=np.int64)[stage]
        stage_rows, point_rows = pa.array(stage), pa.array(point)
        points, stages = _columns(self._points, POINT), _columns(self._stages, STAGE)
        return pa.table([self._array(field, points, point_rows, stages, stage_rows) for field in MEASUREMENTS],
                        schema=MEASUREMENTS)  # fmt: skip

    def _array(
        self,
        field: pa.Field,
        points: Mapping[str, Sequence[Any]],
        point_rows: pa.Array,
        stages: Mapping[str, Sequence[Any]],
        stage_rows: pa.Array,
    ) -> pa.Array:
        name, count = field.name, len(self)
        if name == "row_id":
            return pa.array(self._row_ids, field.type)
        if name == "sweep":
            return pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), pa.array([self.sweep]))
        if name == "schema_version":
            return pa.array(np.full(count, SCHEMA_VERSION, dtype=np.int32))
        if name == "param_json":
            param = pa.array(self._params, field.type).take(point_rows)
            own = self._numbers.get(name)
            return param if own is None else pc.coalesce(pa.array(own, field.type), param)
        if name in points:
            return pa.array(points[name], field.type).take(point_rows)
        if name in stages:
            return pa.array(stages[name], field.type).take(stage_rows)
        if name in self._numbers:
            return pa.array(self._numbers[name], field.type)
        return pa.nulls(count, field.type)

    def _merged(self, extra: Mapping[str, Any]) -> str:
        return canonical({**json.loads(self._params[-1] or "{}"), **extra})

    def _identify(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """``row_id`` of each row: point, evaluation, metric and parameters, and nothing that was measured."""
        telling = tuple(name for name in (*_TELLING, _REST) if name in columns)
        known = self._suffixes.setdefault(telling, {})
        prefix = f"{self._hash} {self._kind} ".encode()
        for values in zip(*(columns[name] for name in telling), strict=True):
            suffix = known.get(values)
            if suffix is None:
                pairs = zip(telling, values, strict=True)
                suffix = canonical({name: value for name, value in pairs if value is not None}).encode()
                known[values] = suffix
            self._row_ids.append(hashlib.sha256(prefix + suffix).hexdigest()[:32])


def _columns(rows: Sequence[tuple[Any, ...]], wanted: Sequence[str]) -> dict[str, Sequence[Any]]:
    if not rows:
        return dict.fromkeys(wanted, ())
    return dict(zip(wanted, zip(*rows, strict=True), strict=True))
