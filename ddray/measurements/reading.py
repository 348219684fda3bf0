"""What a report reads of ``measurements.parquet``: a row per point, and the few numbers per point that it shows.

The table is read once, row group by row group, and of each only the rows and columns that are wanted: most rows of a
large sweep (classes, epsilons, costs) never become Python objects.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddray.measurements.columns import SCHEMA_VERSION, names

Row = dict[str, Any]

_NUMBER = (
    "point",
    "stage_key",
    "metric",
    "value",
    "unit",
    "ci_low",
    "ci_high",
    "ci_method",
    "ci_unit",
    "n",
    "n_pos",
    "n_neg",
    "repeat",
    "agg",
    "n_agg",
    "class_id",
    "split",
    "flag",
    "status",
    "note",
    *names("parameters"),
)


IMPLAUSIBLE = 1e6
"""Numbers of ``_SMALL_UNITS`` beyond it come from a computation that ran away."""
_SMALL_UNITS = frozenset({"fraction", "fraction^2", "ratio", "nat", "nat^2", "1"})


@dataclass
class Numbers:
    """Numbers of points, by metric."""

    plain: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """Metric -> point -> value, of metrics without parameters; points without a value are left out."""
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """Metric -> point -> rows with ``param``, of metrics with parameters or intervals."""
    classes: dict[str, dict[str, dict[int, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    """Metric -> point -> class -> value, of metrics that are read by class."""
    flags: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(metric, flag) -> numbers that carry it."""

    def of(self, metric: str, points: Iterable[str]) -> list[Row]:
        """The rows of a metric for some points, in their order."""
        by_point = self.rows.get(metric)
        return [row for point in points for row in by_point.get(point, ())] if by_point else []


def read_points(path: Path, columns: Sequence[str]) -> list[Row]:
    """One row per point: the columns, and ``param``, the parsed ``param_json``; ``value`` is the test accuracy or None.

    Raises:
        pyarrow.ArrowInvalid: The table is of a newer version.
    """
    rows: list[Row] = []
    for table in _wanted(path, [*columns, "class_id"], {"test_acc"}, ()):
        table = table.filter(pc.is_null(table["class_id"]))
        if table.num_rows and max(table["schema_version"].to_pylist()) > SCHEMA_VERSION:
            raise pa.ArrowInvalid("it was written by a newer ddray")
        rows += _rows(table)
    for row in rows:
        row["param"] = parsed(row["param_json"])
    return rows


def read_numbers(
    path: Path,
    plain: Iterable[str],
    detailed: Iterable[str],
    prefixes: Sequence[str] = (),
    by_class: Iterable[str] = (),
) -> Numbers:
    """The numbers of the named metrics: not of single repeats, and but for ``by_class`` over all classes together.

    Args:
        path: The table.
        plain: Metrics of which a point has one number.
        detailed: Metrics of which it has several, told apart by parameters, or whose intervals are wanted.
        prefixes: Of further detailed metrics.
        by_class: Metrics of which a point has a number for each class.
    """
    numbers = Numbers()
    light, of_classes = set(plain), set(by_class)
    for table in _wanted(path, _NUMBER, light | set(detailed) | of_classes, prefixes, numbers.flags):
        table = table.filter(pc.is_null(table["repeat"]))
        if of_classes:
            _take_classes(table, of_classes, numbers)
        table = table.filter(pc.is_null(table["class_id"]))
        is_light = pc.is_in(_text(table["metric"]), value_set=pa.array(sorted(light), pa.string()))
        few = table.filter(is_light).select(["point", "metric", "value"])
        few = few.filter(pc.is_valid(few["value"]))
        for point, metric, value in zip(*(_listed(few[name]) for name in few.column_names), strict=True):
            numbers.plain[metric][point] = value
        for row in _rows(table.filter(pc.invert(is_light))):
            row["param"] = parsed(row["param_json"])
            numbers.rows[row["metric"]][row["point"]].append(row)
    return numbers


def _take_classes(table: pa.Table, metrics: set[str], numbers: Numbers) -> None:
    wanted = pc.is_in(_text(table["metric"]), value_set=pa.array(sorted(metrics), pa.string()))
    found = table.filter(pc.and_(wanted, pc.and_(pc.is_valid(table["class_id"]), pc.is_valid(table["value"]))))
    columns = (_listed(found[name]) for name in ("metric", "point", "class_id", "value"))
    for metric, point, class_id, value in zip(*columns, strict=True):
        numbers.classes[metric][point][class_id] = value


def read_provenance(path: Path) -> dict[str, Any]:
    """What made the numbers, and when."""
    wanted = ["git_commit", "dirty", "code_version", "torch_version", "device", "numerics", "started_at"]
    table = pq.read_table(path, columns=wanted)

    def distinct(name: str) -> list[Any]:
        column = table[name]
        values = {value for chunk in column.chunks for value in pc.unique(chunk).to_pylist()}
        return sorted(value for value in values if value is not None)

    times = pc.min_max(table["started_at"]).as_py()
    return {
        "first": times["min"].isoformat(timespec="seconds") if times["min"] else None,
        "last": times["max"].isoformat(timespec="seconds") if times["max"] else None,
        "commits": distinct("git_commit"),
        "dirty": any(distinct("dirty")),
        "ddray": distinct("code_version"),
        "torch": distinct("torch_version"),
        "devices": distinct("device"),
        "numerics": [json.loads(text) for text in distinct("numerics")],
    }


@lru_cache(maxsize=1 << 16)
def parsed(text: str | None) -> Mapping[str, Any]:
    """``param_json`` as a mapping; empty for None."""
    param: Mapping[str, Any] = json.loads(text) if text else {}
    return param


def _wanted(
    path: Path,
    columns: Sequence[str],
    metrics: set[str],
    prefixes: Sequence[str],
    flags: Counter[tuple[str, str]] | None = None,
) -> Iterator[pa.Table]:
    """The named columns of the rows with one of the metrics, row group by row group; counts the flags of all rows, and
    those that are implausible."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            told = [] if flags is None else ["flag", "value", "unit"]
            about = file.read_row_group(group, columns=["metric", *told])
            if flags is not None:
                flags.update(_flagged(about))
                flags.update(_implausible(about))
            mask = _matches(about["metric"], metrics, prefixes)
            if pc.any(mask).as_py():
                yield file.read_row_group(group, columns=list(dict.fromkeys(columns))).filter(mask)


def _matches(column: pa.ChunkedArray, metrics: set[str], prefixes: Sequence[str]) -> pa.ChunkedArray:
    """Which rows are wanted: judged once per name, not once per row."""
    chunks = []
    for chunk in column.chunks:
        named = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
        wanted = [name in metrics or name.startswith(tuple(prefixes)) for name in named.dictionary.to_pylist()]
        mask = pa.array(wanted, pa.bool_()).take(named.indices)
        chunks.append(pc.fill_null(mask, False))
    return pa.chunked_array(chunks, pa.bool_())


def _flagged(table: pa.Table) -> Counter[tuple[str, str]]:
    table = table.filter(pc.is_valid(table["flag"]))
    return Counter(zip(_listed(table["metric"]), _listed(table["flag"]), strict=True))


def _implausible(table: pa.Table) -> Counter[tuple[str, str]]:
    """Numbers no sound computation gives, whatever else is said of them."""
    table = table.filter(pc.greater(pc.abs(table["value"]), IMPLAUSIBLE))
    table = table.filter(pc.is_in(_text(table["unit"]), value_set=pa.array(sorted(_SMALL_UNITS))))
    return Counter((metric, "implausible") for metric in _listed(table["metric"]))


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.string())


def _listed(column: pa.ChunkedArray) -> list[Any]:
    """``to_pylist``, with each distinct value made once: most columns of a report repeat a few."""
    if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        values: list[Any] = column.to_pylist()
        return values
    listed: list[Any] = []
    for chunk in column.chunks:
        encoded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
        known = [*encoded.dictionary.to_pylist(), None]  # index -1: null
        listed += [known[index] for index in pc.fill_null(encoded.indices, -1).to_numpy().tolist()]
    return listed


def _rows(table: pa.Table) -> list[Row]:
    """Rows as mappings; columns that hold nothing here are one shared None each and cost nothing."""
    full = [name for name in table.column_names if table[name].null_count < table.num_rows]
    empty = dict.fromkeys(name for name in table.column_names if name not in full)
    columns = [_listed(table[name]) for name in full]
    return [empty | dict(zip(full, values, strict=True)) for values in zip(*columns, strict=True)]
