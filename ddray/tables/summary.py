"""Measurements -> what a report says, as plain values: fractions, seconds, names. ``render.py`` only words it.

A *block* holds rows that may stand in one table: one data set, origin, architecture and training recipe. A row of a
block is one ipc (and init, augmentation or number of iterations, where methods differ in it); a *column* is a method,
or a method with the settings that tell several of the same method apart; a *cell* is a column's points in a row, over
all seeds.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddray.errors import DdrayError, EnvironmentProblem
from ddray.tables import paper
from ddray.tables.cells import Spread, Values, by_seed, paired, spread
from ddray.tables.columns import SCHEMA_VERSION
from ddray.tables.gather import MEASUREMENTS_FILE, Coverage
from trainables.methods import METHODS

ORDER = ("random", "dsa", "dm", "mtt", "idc", "full")
FAIRNESS = ("fair_var_acc", "fair_var_acc_corr", "fair_worst_acc")

_BLOCK_AXES = (
    "dataset", "num_classes", "class_draw", "architecture", "protocol", "origin_per_class", "origin_draw",
)  # fmt: skip
_IN_CELL = (
    "distill_cfg_hash", "distill_arch", "distill_iters", "distill_aug", "init", "factor", "zca", "label_kind",
    "budget_fraction", "selection",
)  # fmt: skip
"""Parameters that seeds of one cell must agree on."""
_IN_BLOCK = ("data_hash", "norm_layer", "train_aug", "train_epochs", "train_steps", "optimizer", "lr")
"""Parameters that all rows of a block must agree on."""
_OF_POINT = (
    "schema_version", "point", "method", "ipc", "distill_seed", "seed", *_BLOCK_AXES, *_IN_CELL, *_IN_BLOCK,
    "value", "class_id", "param_json", "numerics", "status",
)  # fmt: skip
"""Columns read for every point."""

Row = dict[str, Any]
ByPoint = Mapping[str, Mapping[str, float]]
"""Metric -> point -> value."""


class MixedBlock(DdrayError):
    """Rows that differ in a parameter which is not an axis would end up in one cell."""


class At(NamedTuple):
    """What the rows of a block vary by; None: not in this block, or not used by the method."""

    ipc: int | None
    init: str | None = None
    distill_aug: str | None = None
    distill_iters: int | None = None

    def covers(self, other: At) -> bool:
        """Whether the other is the same where it says anything: ``full`` belongs to every row."""
        return all(theirs is None or ours == theirs for ours, theirs in zip(self, other, strict=True))


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
        points = _points(path)
        provenance = _provenance(path)
        fairness = _fairness(path)
        flags = _flags(path)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise EnvironmentProblem(
            f"{path}: the measurements cannot be read; got {error}. Run `ddray collect` to make them again."
        ) from error
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for point in points:
        groups[_block_key(point)].append(point)
    blocks = [_block(rows, fairness, coverage.sweep) for rows in groups.values()]
    return {
        "sweep": coverage.sweep,
        "digest": coverage.digest,
        "coverage": {
            name: getattr(coverage, name) for name in ("points", "evaluations", "methods", "failures", "reasons")
        },
        "provenance": provenance,
        "alarms": _alarms(coverage, blocks, points, provenance, flags),
        "blocks": blocks,
    }


# --- reading ----------------------------------------------------------------------------------------------------------


def _points(path: Path) -> list[Row]:
    """One row per point: identity, status, and test accuracy where there is one."""
    table = _read(path, _OF_POINT, ["test_acc"])
    table = table.filter(pc.is_null(table["class_id"]))
    if table.num_rows and max(table["schema_version"].to_pylist()) > SCHEMA_VERSION:
        raise pa.ArrowInvalid("it was written by a newer ddray")
    params: dict[str | None, Mapping[str, Any]] = {None: {}}
    rows: list[Row] = table.to_pylist()
    for row in rows:
        text = row["param_json"]
        if text not in params:
            params[text] = json.loads(text)
        row["param"] = params[text]
    return rows


def _fairness(path: Path) -> ByPoint:
    table = _read(path, ["point", "metric", "value"], FAIRNESS)
    found: dict[str, dict[str, float]] = {metric: {} for metric in FAIRNESS}
    for point, metric, value in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        if value is not None:
            found[metric][point] = value
    return found


def _flags(path: Path) -> dict[tuple[str, str], int]:
    """(metric, flag) -> numbers that carry it."""
    table = pq.read_table(path, columns=["metric", "flag"])
    table = table.filter(pc.is_valid(table["flag"]))
    return dict(sorted(Counter(zip(table["metric"].to_pylist(), table["flag"].to_pylist(), strict=True)).items()))


def _provenance(path: Path) -> dict[str, Any]:
    """What made the numbers, and when."""
    wanted = ["git_commit", "dirty", "code_version", "torch_version", "device", "numerics", "started_at"]
    table = pq.read_table(path, columns=wanted)

    def distinct(name: str) -> list[Any]:
        column = table[name]
        found = {value for chunk in column.chunks for value in pc.unique(chunk).to_pylist()}
        return sorted(value for value in found if value is not None)

    times = pc.min_max(table["started_at"]).as_py()
    return {
        "first": times["min"].isoformat(timespec="seconds") if times["min"] else None,
        "last": times["max"].isoformat(timespec="seconds") if times["max"] else None,
        "commits": distinct("git_commit"), "dirty": any(distinct("dirty")), "ddray": distinct("code_version"),
        "torch": distinct("torch_version"), "devices": distinct("device"),
        "numerics": [json.loads(text) for text in distinct("numerics")],
    }  # fmt: skip


def _read(path: Path, columns: Sequence[str], metrics: Iterable[str]) -> pa.Table:
    """The named columns of the rows with one of the metrics, row group by row group."""
    wanted = pa.array(list(metrics))
    with pq.ParquetFile(path) as file:
        pieces = [file.schema_arrow.empty_table().select(columns)]
        for group in range(file.num_row_groups):
            metric = file.read_row_group(group, columns=["metric"])["metric"]
            mask = pc.is_in(pc.cast(metric, pa.string()), value_set=wanted)
            if pc.any(mask).as_py():
                pieces.append(file.read_row_group(group, columns=list(columns)).select(columns).filter(mask))
    return pa.concat_tables(pieces).unify_dictionaries()


# --- blocks -----------------------------------------------------------------------------------------------------------


def _block_key(row: Row) -> tuple[Any, ...]:
    changes = json.dumps(row["param"].get("protocol_changes", {}), sort_keys=True)
    return (*(row[name] for name in _BLOCK_AXES), changes)


def _block(rows: list[Row], fairness: ByPoint, sweep: str) -> dict[str, Any]:
    first = rows[0]
    title = block_title(first)
    _refuse_mixed(rows, _IN_BLOCK, f"{sweep}: {title}")
    axes = _row_axes(rows)
    _name_columns(rows, axes)
    methods = sorted({row["column"] for row in rows}, key=_rank)
    entries = []
    for at in _places(rows, axes):
        cells: dict[str, Any] = {}
        values: dict[str, Values] = {}
        for method in methods:
            members = [row for row in rows if row["column"] == method and at.covers(_at(row, axes))]
            if members:
                _refuse_mixed(members, _IN_CELL, f"{sweep}: {title}: {method}, {_at_text(at)}")
                values[method] = _values(members)
                cells[method] = _cell(members[0]["method"], members, values[method], fairness)
        entries.append({**at._asdict(), "cells": cells, "against_random": _against_random(cells, values)})
    return {
        "title": title,
        **{name: first[name] for name in (*_BLOCK_AXES, *_IN_BLOCK)},
        "protocol_changes": first["param"].get("protocol_changes", {}),
        "row_axes": ["ipc", *axes],
        "methods": methods,
        "rows": entries,
    }  # fmt: skip


def block_title(row: Mapping[str, Any]) -> str:
    """``cifar10, convnet3, protocol quick, full origin``."""
    parts = [row["dataset"], row["architecture"], f"protocol {row['protocol']}"]
    if row["class_draw"] is not None:
        parts.append(f"{row['num_classes']} classes (draw {row['class_draw']})")
    if row["origin_per_class"] is None:
        parts.append("full origin")
    else:
        parts.append(f"origin {row['origin_per_class']} per class (draw {row['origin_draw']})")
    return ", ".join(parts)


def title_of(column: str) -> str:
    """A column's name as printed in tables: the method's title, and the settings that tell it from others."""
    method, apart, settings = column.partition(" (")
    return (METHODS[method].title if method in METHODS else method) + apart + settings


def _rank(column: str) -> tuple[int, str]:
    method = column.partition(" (")[0]
    return (ORDER.index(method) if method in ORDER else len(ORDER) - 1, column)


def _name_columns(rows: Iterable[Row], axes: Sequence[str]) -> None:
    """Give every row its ``column``: where a method stands twice in one place of the block with other settings, the
    settings that differ there are named in the column of all its rows."""
    places: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        places[(row["method"], row["ipc"], row["init"], row["distill_aug"])].append(row)
    apart: dict[str, dict[str, None]] = defaultdict(dict)
    for (method, *_), members in places.items():
        varying = {**_told_apart(members)}
        if "distill_iters" not in axes and len({row["distill_iters"] for row in members}) > 1:
            varying["iterations"] = None
        if len({"ensemble" in row["param"] for row in members}) > 1:
            varying["ensemble"] = None
        apart[method] |= varying
    for row in rows:
        named = [f"{name} {_setting(row, name)}" for name in apart[row["method"]]]
        row["column"] = row["method"] + (f" ({', '.join(named)})" if named else "")


def _setting(row: Row, name: str) -> Any:
    match name:
        case "iterations":
            return row["distill_iters"]
        case "ensemble":
            return "yes" if "ensemble" in row["param"] else "no"
        case _:
            return row["param"].get("settings", {}).get(name)


def _told_apart(rows: Sequence[Row]) -> dict[str, None]:
    """Names of the settings, other than the budget, in which rows differ."""
    settings = [row["param"].get("settings", {}) for row in rows]
    names = sorted({name for each in settings for name in each} - {"iterations"})
    return {name: None for name in names if len({json.dumps(each.get(name)) for each in settings}) > 1}


def _row_axes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Which parameters a block needs a row for each value of."""
    found = [name for name in ("init", "distill_aug") if len({row[name] for row in rows} - {None}) > 1]
    per_place = defaultdict(set)
    for row in rows:
        place = (row["method"], row["ipc"], row["init"], row["distill_aug"])
        per_place[place].add(row["distill_iters"])
    # With several methods, each with budgets of its own, rows of iterations would hold one cell each.
    learned = {row["method"] for row in rows if row["distill_iters"]}
    if len(learned) < 2 and any(len(values) > 1 for values in per_place.values()):
        found.append("distill_iters")
    return tuple(found)


def _at(row: Row, axes: Sequence[str]) -> At:
    return At(row["ipc"], **{name: row[name] for name in axes})


def _places(rows: Iterable[Row], axes: Sequence[str]) -> list[At]:
    """The block's rows in order; what holds for every row (``full``, an init for ``random``) gets none of its own."""
    found = {_at(row, axes) for row in rows}
    own = [at for at in found if not any(other != at and other.covers(at) for other in found)]
    return sorted(own, key=lambda at: tuple((value is None, value) for value in at))


def _at_text(at: At) -> str:
    return ", ".join(f"{name} {value}" for name, value in at._asdict().items() if value is not None) or "every ipc"


def _refuse_mixed(rows: Sequence[Row], parameters: Iterable[str], where: str) -> None:
    for name in parameters:
        values = {row[name] for row in rows}
        if len(values) > 1:
            shown = f"{name}: " + ", ".join(sorted(map(str, values)))
            raise MixedBlock(
                f"{where}: rows with different parameters in one table; got {shown} (column {name}); expected one "
                "value. Ask for them in sweeps of their own."
            )


# --- cells ------------------------------------------------------------------------------------------------------------


def _values(members: Iterable[Row], metric: Mapping[str, float] | None = None) -> Values:
    """Accuracy of the members by their seeds, or another metric by point."""
    found = []
    for row in members:
        value = row["value"] if metric is None else metric.get(row["point"])
        if value is not None:
            found.append((row["distill_seed"], row["seed"], value))
    return by_seed(found)


def _cell(method: str, members: list[Row], values: Values, fairness: ByPoint) -> dict[str, Any]:
    first = members[0]
    unit = "draws" if method == "random" else "distillations"
    published = paper.accuracy_of(first["dataset"], first["ipc"], first["architecture"], method)
    states = Counter(row["status"] for row in members)
    cell: dict[str, Any] = {
        "method": method, "planned": len(members),
        "done": states.pop("ok", 0), "not_done": dict(sorted(states.items())),
        "accuracy": _as_json(spread(values, unit)),
        "fairness": {metric: _as_json(spread(_values(members, fairness[metric]), unit)) for metric in FAIRNESS},
        "budget_fraction": first["budget_fraction"], "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None, "objections": paper.objections(first),
        "unpublished": first["param"].get("unpublished", {}),
    }  # fmt: skip
    return cell


def _as_json(found: Spread | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {**asdict(found), "seed_level": found.seed_level, "short": found.short}


def _against_random(cells: Mapping[str, Any], values: Mapping[str, Values]) -> dict[str, Any]:
    """Seed-paired differences to ``random``, which starts from the images a method with init real starts from."""
    if "random" not in values:
        return {}
    found = {}
    for method in cells:
        if method in ("random", "full"):
            continue
        difference = paired(values[method], values["random"])
        if difference is not None:
            found[method] = {**asdict(difference), "unit": "distillations"}
    return found


# --- alarms -----------------------------------------------------------------------------------------------------------


def _alarms(
    coverage: Coverage,
    blocks: Sequence[Mapping[str, Any]],
    points: Iterable[Row],
    provenance: Mapping[str, Any],
    flags: Mapping[tuple[str, str], int],
) -> list[str]:
    found = []
    if not coverage.complete:
        share = coverage.done / coverage.planned if coverage.planned else 0.0
        found.append(f"coverage {paper.percent(share)}: {coverage.done} of {coverage.planned} points are done")
    for block in blocks:
        for entry in block["rows"]:
            found += _below_random(block["title"], entry)
    protocols = sorted({block["protocol"] for block in blocks})
    if len(protocols) > 1:
        found.append(f"{len(protocols)} protocols ({', '.join(protocols)}): compare within a block, never across")
    numerics: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in points:
        if row["numerics"] is not None:
            numerics[_block_key(row)].add(row["numerics"])
    if mixed := sum(len(classes) > 1 for classes in numerics.values()):
        found.append(f"{mixed} of {len(blocks)} blocks hold rows of several numerics classes (device, torch, threads)")
    if provenance["dirty"]:
        found.append("some numbers come from a checkout with changes that were not committed")
    if len(provenance["commits"]) > 1:
        found.append(f"the numbers come from {len(provenance['commits'])} commits")
    for (metric, flag), count in flags.items():
        found.append(f"{count} values of {metric} are flagged {flag}")
    return found


def _below_random(title: str, entry: Mapping[str, Any]) -> list[str]:
    cells, found = entry["cells"], []
    baseline = (cells.get("random") or {}).get("accuracy")
    for method, cell in cells.items():
        if cell["method"] in ("random", "full") or baseline is None or cell["accuracy"] is None:
            continue
        against = entry["against_random"].get(method)
        difference = against["mean"] if against else cell["accuracy"]["mean"] - baseline["mean"]
        if difference < 0:
            at = At(*(entry[name] for name in At._fields))
            found.append(f"{title}: {method} is {-100 * difference:.2f} points below random at {_at_text(at)}")
    return found
