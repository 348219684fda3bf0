"""Rows that wait to be written, by column: points, their stages, and what each stage measured, joined by index.

The rows of most evaluations differ only in what was measured. What they have in common is a ``Template``, kept once:
so no row is ever a Python object with all its columns, and neither time nor memory grows with the table's width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ddray.measurements.columns import MEASUREMENTS, SCHEMA_VERSION, names
from ddray.measurements.identity import POINT, PROVENANCE
from ddray.plan.keys import canonical

STAGE = ("stage_key", *PROVENANCE, "status", "note")
MEASURED = ("value", "ci_low", "ci_high", "n", "n_pos", "n_neg", "std", "n_agg", "converged_share", "flag")
"""What may differ between two evaluations of one kind: it comes from the measurement."""
COMMON = tuple(name for name in (*names("measurement"), *names("parameters")) if name not in (*MEASURED, "param_json"))
_TELLING = ("metric", "class_id", "split", "repeat", "agg", *names("parameters"))
"""Columns that tell one number of an evaluation from another."""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """What the rows of equal evaluations have in common, row by row."""

    rows: list[dict[str, Any]]
    """As read, without what was measured."""
    columns: dict[str, list[Any]]
    rest: list[dict[str, Any]] | None
    """Per row, what has no column and goes to ``param_json``; None when there is nothing of that kind."""
    hashes: NDArray[np.uint64]
    """(rows, 2): per row, a 128-bit hash of what tells it from the evaluation's other rows."""

    def __len__(self) -> int:
        return len(self.rows)


class EvaluationRows(NamedTuple):
    """The rows of one evaluation."""

    template: Template
    measured: dict[str, list[Any]]


class Templates:
    """Splits rows into what is common and what was measured; remembers templates over a whole table."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[int, ...] | None], list[Template]] = {}

    def split(self, rows: list[dict[str, Any]], classes: tuple[int, ...] | None = None) -> EvaluationRows:
        """Rows of an evaluation, as template and measured numbers.

        Args:
            rows: Under the names of columns; what has no column goes to ``param_json``. They are taken over.
            classes: The data set's labels of the class positions in ``class_id``; None where they are the positions.
        """
        used = set().union(*rows)
        measured = {name: [row.pop(name, None) for row in rows] for name in MEASURED if name in used}
        known = self._known.setdefault((len(rows), classes), [])
        # The latest first: evaluations of one kind follow one another.
        template = next((each for each in reversed(known) if each.rows == rows), None)
        if template is None:
            template = _template(rows, classes)
            known.append(template)
        return EvaluationRows(template, measured)


class RowBuffer:
    """Collects rows: ``begin_point``, then for each of its stages ``begin_stage`` and ``add``."""

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self._points: list[tuple[Any, ...]] = []
        self._params: list[str | None] = []
        self._stages: list[tuple[Any, ...]] = []
        self._point_of_stage: list[int] = []
        self._stage_hashes: list[bytes] = []
        self._templates: list[Template] = []
        """One per call of ``add``."""
        self._stage_of_template: list[int] = []
        self._measured: dict[str, list[Any]] = {}
        self._own_params: dict[int, str] = {}
        """Row -> its ``param_json``, where that is not its point's."""
        self._length = 0
        self._point_hash = ""

    def __len__(self) -> int:
        return self._length

    def begin_point(self, point: str, values: tuple[Any, ...], param: str | None) -> None:
        """A point: its hash, the values of ``POINT``, its ``param_json``."""
        self._points.append(values)
        self._params.append(param)
        self._point_hash = point

    def begin_stage(
        self, kind: str, key: str, provenance: tuple[Any, ...], status: str = "ok", note: str | None = None
    ) -> None:
        """A stage of the point: the values of ``PROVENANCE``, and what became of it."""
        self._stages.append((key, *provenance, status, note))
        self._point_of_stage.append(len(self._points) - 1)
        self._stage_hashes.append(_hash128(f"{self._point_hash} {kind}"))

    def add(self, rows: EvaluationRows) -> None:
        """Rows of the stage."""
        template, measured = rows
        before, count = len(self), len(template)
        for name in measured.keys() - self._measured.keys():
            self._measured[name] = [None] * before
        for name, column in self._measured.items():
            column.extend(measured[name] if name in measured else [None] * count)
        self._templates.append(template)
        self._stage_of_template.append(len(self._stages) - 1)
        if template.rest is not None:
            point = json.loads(self._params[-1] or "{}")
            for index, rest in enumerate(template.rest):
                if rest:
                    self._own_params[before + index] = canonical({**point, **rest})
        self._length += count

    def table(self) -> pa.Table:
        """The rows added so far."""
        stage = np.repeat(np.asarray(self._stage_of_template, dtype=np.int64), [len(each) for each in self._templates])
        point = np.asarray(self._point_of_stage, dtype=np.int64)[stage]
        columns: dict[str, pa.Array] = {
            **_taken(POINT, self._points, point),
            **_taken(STAGE, self._stages, stage),
            **self._common(),
            **{name: _array(name, values) for name, values in self._measured.items()},
            "row_id": self._row_ids(stage),
            "sweep": pa.DictionaryArray.from_arrays(np.zeros(len(self), dtype=np.int32), pa.array([self.sweep])),
            "schema_version": pa.array(np.full(len(self), SCHEMA_VERSION, dtype=np.int32)),
            "param_json": self._param_json(point),
        }
        return pa.Table.from_arrays(
            [
                columns[field.name] if field.name in columns else pa.nulls(len(self), field.type)
                for field in MEASUREMENTS
            ],
            schema=MEASUREMENTS,
        )

    def _row_ids(self, stage: NDArray[np.int64]) -> pa.Array:
        """Hash of (point, kind of stage) xor hash within the evaluation, as 32 hexadecimal characters."""
        of_stage = np.frombuffer(b"".join(self._stage_hashes), dtype=np.uint64).reshape(-1, 2)
        within = [template.hashes for template in self._templates] or [np.empty((0, 2), dtype=np.uint64)]
        # One long text and the offsets of its pieces: a million Python strings would take seconds.
        text = (of_stage[stage] ^ np.concatenate(within)).tobytes().hex().encode()
        offsets = np.arange(0, len(text) + 1, 32, dtype=np.int32)
        return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))

    def _common(self) -> dict[str, pa.Array]:
        """What the templates hold: the columns of each template once, one template after the other, taken by row."""
        columns: dict[str, list[Any]] = {name: [] for name in COMMON}
        starts: dict[Template, int] = {}
        length = 0
        for template in dict.fromkeys(self._templates):
            starts[template] = length
            length += len(template)
            for name, column in columns.items():
                column.extend(template.columns.get(name) or [None] * len(template))
        rows = [np.arange(len(template)) + starts[template] for template in self._templates]
        index = pa.array(np.concatenate(rows) if rows else np.empty(0, dtype=np.int64))
        filled = {name: column for name, column in columns.items() if any(value is not None for value in column)}
        return {name: _array(name, column).take(index) for name, column in filled.items()}

    def _param_json(self, point: NDArray[np.int64]) -> pa.Array:
        param = pa.array(self._params, pa.string()).take(pa.array(point))
        if not self._own_params:
            return param
        own = pa.array([self._own_params.get(index) for index in range(len(self))], pa.string())
        return pc.coalesce(own, param)


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    return pa.array(values, MEASUREMENTS.field(name).type)


def _taken(columns: Sequence[str], rows: Sequence[tuple[Any, ...]], index: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Columns of some rows, taken by index."""
    at = pa.array(index)
    # Without rows there is nothing to transpose, and no column.
    return {name: _array(name, values).take(at) for name, values in zip(columns, zip(*rows, strict=True), strict=False)}


def _template(rows: list[dict[str, Any]], classes: tuple[int, ...] | None) -> Template:
    used = set().union(*rows)
    columns = {name: [row.get(name) for row in rows] for name in COMMON if name in used}
    if classes is not None and "class_id" in columns:
        columns["class_id"] = [None if position is None else classes[position] for position in columns["class_id"]]
    unknown = used.difference(COMMON)
    rest = [{name: row[name] for name in unknown if row.get(name) is not None} for row in rows] if unknown else None
    hashes = []
    for index in range(len(rows)):
        telling = {name: columns[name][index] for name in _TELLING if name in columns}
        telling = {name: value for name, value in telling.items() if value is not None}
        hashes.append(_hash128(canonical({**telling, **(rest[index] if rest else {})})))
    return Template(rows, columns, rest, np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 2))


def _hash128(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]
