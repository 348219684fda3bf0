"""Which points may be compared: in one block, in one row and cell of its tables; and the refusal to mix others.

A *block* holds points of one data set, origin, architecture and training recipe. A *row* of its tables is one ipc (and
init, augmentation or number of iterations, where methods differ in it). A *variant* is a method, or a method with the
settings that tell several of the same method apart. A *cell* holds a variant's points in a row, over all seeds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ddray.errors import DdrayError
from ddray.measurements.reading import Row
from ddray.measurements.statistics import Spread, Values, by_seed, spread
from ddray.plan.axes import AXES, in_report
from trainables.methods import EXTERNAL

ORDER = ("random", "dsa", "dm", "mtt", "idc", "full")
"""Of methods; those it does not name stand before ``full``."""

BLOCK_AXES = (*in_report("block"), "protocol")
_OPTIONAL_ROW_AXES = tuple(axis for axis in in_report("row") if axis != "ipc")
ROW_AXES = ("ipc", *_OPTIONAL_ROW_AXES, "distill_iters")
"""What rows of a block may vary by: ipc, other axes where points differ in them, and the number of iterations."""
SAME_IN_CELL = (
    "distill_cfg_hash",
    "distill_arch",
    "distill_iters",
    *_OPTIONAL_ROW_AXES,
    "factor",
    "constants",
    "zca",
    "label_kind",
    "budget_fraction",
    "selection",
)
"""Parameters that seeds of one cell must agree on."""
SAME_IN_BLOCK = (*in_report("agrees"), "data_hash", "norm_layer", "train_epochs", "train_steps", "optimizer", "lr")
"""Parameters that all rows of a block must agree on."""


def is_part(budget: float | None) -> bool:
    """Whether a distillation ran for a part of the published iterations, or none of them; None: it has no budget."""
    return budget is not None and budget < 1


class MixedBlock(DdrayError):
    """Rows that differ in a parameter which is not an axis would end up in one cell."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """Which row of a table: values of axes; None where the table has no rows for it, or the method does not use it."""

    axes: tuple[str, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any], used: Collection[str], axes: Sequence[str] = ROW_AXES) -> RowKey:
        """The key of a point.

        Args:
            row: The point.
            used: The axes that the table has rows for.
            axes: All axes that tables of its kind may have rows for.
        """
        return cls(tuple(axes), tuple(row[name] if name in used else None for name in axes))

    def covers(self, other: RowKey) -> bool:
        """Whether the other is the same where it says anything: ``full`` belongs to every row."""
        return all(theirs is None or ours == theirs for ours, theirs in zip(self.values, other.values, strict=True))

    @property
    def facts(self) -> dict[str, Any]:
        """Axis -> value."""
        return dict(zip(self.axes, self.values, strict=True))

    @property
    def text(self) -> str:
        """``ipc 10, init real``."""
        said = [f"{name} {value}" for name, value in self.facts.items() if value is not None]
        return ", ".join(said) or "every ipc"


def row_keys(rows: Iterable[Row], used: Collection[str], axes: Sequence[str] = ROW_AXES) -> list[RowKey]:
    """The rows of a table, in order; points that belong to every row (``full``) make none of their own."""
    keys = {RowKey.of(row, used, axes) for row in rows}
    own = [key for key in keys if not any(other != key and other.covers(key) for other in keys)]
    return sorted(own, key=lambda key: tuple((value is None, value) for value in key.values))


@dataclass(frozen=True, slots=True)
class Cell:
    """The points of a variant in a row."""

    key: RowKey
    variant: str
    points: list[Row]

    @property
    def method(self) -> str:
        name: str = self.points[0]["method"]
        return name

    @property
    def set_unit(self) -> str:
        """What distilled sets are called."""
        return "draws" if self.method == "random" else "distillations"

    def values(self, metric: Mapping[str, float] | None = None) -> Values:
        """Accuracy of the points by their seeds, or another metric by point."""
        values = []
        for point in self.points:
            value = point["value"] if metric is None else metric.get(point["point"])
            if value is not None:
                values.append((point["distill_seed"], point["seed"], value))
        return by_seed(values)

    def mean(self, metric: Mapping[str, float] | None = None) -> dict[str, Any] | None:
        """The same as a mean over seeds, as JSON types; None without a value."""
        return spread_facts(spread(self.values(metric), self.set_unit))

    @property
    def facts(self) -> dict[str, Any]:
        """Row and variant, as JSON types."""
        return {**self.key.facts, "method": self.variant}


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """Points that one set of tables shows."""

    title: str
    where: str
    """Sweep and title, for messages."""
    axes: tuple[str, ...]
    """What its rows vary by: ipc, and others of ``ROW_AXES``."""
    variants: list[str]
    cells: list[Cell]
    """Row by row, in the order of the variants."""
    points: list[Row]

    @property
    def rows(self) -> dict[RowKey, list[Cell]]:
        """The cells of each row, in order."""
        rows: dict[RowKey, list[Cell]] = {}
        for cell in self.cells:
            rows.setdefault(cell.key, []).append(cell)
        return rows

    @property
    def own_cells(self) -> list[Cell]:
        """The cells, each once, with a key of its own: ``full``, which stands in every row, comes last."""
        cells: dict[tuple[str, str], Cell] = {}
        for cell in self.cells:
            first = cell.points[0]
            cells.setdefault((cell.variant, first["point"]), replace(cell, key=RowKey.of(first, self.axes)))
        return sorted(cells.values(), key=lambda cell: cell.key.facts["ipc"] is None)


def spread_facts(mean: Spread | None) -> dict[str, Any] | None:
    """A mean over seeds as JSON types."""
    if mean is None:
        return None
    return {**asdict(mean), "seed_level": mean.seed_level, "short": mean.short}


def show_null(points: Iterable[Row]) -> None:
    """Give points a value of axes whose null is one beside others (hard labels beside a teacher's), where the sweep has
    others. What has nothing of the kind keeps null, which in a report belongs to every row.

    Args:
        points: Of a sweep; changed in place.
    """
    points = list(points)
    for name, axis in AXES.items():
        shown = axis.null_shown
        if shown is not None and any(point[name] is not None for point in points):
            for point in points:
                if point[name] is None:
                    point[name] = shown.words.get(point[shown.column])


# --- blocks -----------------------------------------------------------------------------------------------------------


def block_key(row: Row) -> tuple[Any, ...]:
    """Equal for points of one block."""
    return (*(row[name] for name in BLOCK_AXES), protocol_changes(row))


def protocol_changes(row: Row) -> str:
    """What a sweep changed of the recipe, in a form that can be compared."""
    return json.dumps(row["param"].get("protocol_changes", {}), sort_keys=True)


def arrange(points: Iterable[Row], sweep: str) -> list[ReportBlock]:
    """The blocks of a sweep.

    Args:
        points: From ``reading.read_points``; each is given its ``variant``.
        sweep: For messages.

    Raises:
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    blocks: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for point in points:
        blocks[block_key(point)].append(point)
    return [_block(members, sweep) for members in blocks.values()]


def _block(points: list[Row], sweep: str) -> ReportBlock:
    title = block_title(next((point for point in points if point["method"] != EXTERNAL), points[0]))
    where = f"{sweep}: {title}"
    refuse_mixed(points, SAME_IN_BLOCK, where)
    axes = _row_axes(points)
    name_variants(points, "distill_iters" in axes, in_report("row"))
    variants = sorted({point["variant"] for point in points}, key=variant_order)
    by_variant: dict[str, dict[RowKey, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        by_variant[point["variant"]][RowKey.of(point, axes)].append(point)
    cells = []
    for key in row_keys(points, axes):
        for variant in variants:
            members = [row for own, rows in by_variant[variant].items() if key.covers(own) for row in rows]
            if members:
                refuse_mixed(members, SAME_IN_CELL, f"{where}: {variant}, {key.text}")
                cells.append(Cell(key, variant, members))
    return ReportBlock(title, where, axes, variants, cells, points)


def block_title(row: Mapping[str, Any]) -> str:
    """``cifar10, convnet3, protocol quick, full origin``; of what was brought, the origin as far as it is known."""
    parts = [row["dataset"], row["architecture"], f"protocol {row['protocol']}"]
    if row["class_draw"] is not None:
        parts.append(f"{row['num_classes']} classes (draw {row['class_draw']})")
    if row["origin_per_class"] is None:
        parts += ["full origin"] if row["method"] != EXTERNAL else []
    else:
        draw = f" (draw {row['origin_draw']})" if row["origin_draw"] is not None else ""
        parts.append(f"origin {row['origin_per_class']} per class{draw}")
    further = [axis for axis in BLOCK_AXES if axis not in _TOLD and row[axis] is not None]
    return ", ".join([*parts, *(f"{axis} {row[axis]}" for axis in further)])


_TOLD = {"dataset", "architecture", "protocol", "num_classes", "class_draw", "origin_per_class", "origin_draw"}
"""Axes that a title tells in words of their own."""


def _row_axes(points: Sequence[Row]) -> tuple[str, ...]:
    """The axes that a block needs a row for each value of."""
    used = ["ipc", *(axis for axis in _OPTIONAL_ROW_AXES if len({point[axis] for point in points} - {None}) > 1)]
    return (*used, "distill_iters") if budgets_are_rows(points, in_report("row")) else tuple(used)


def budgets_are_rows(points: Sequence[Row], axes: Sequence[str]) -> bool:
    """Whether a table has a row for each number of iterations.

    With several methods that distill, each with budgets of its own, such rows would hold one cell each: then a budget
    makes a variant instead.

    Args:
        points: Of the table.
        axes: Within one value of which a method may have several budgets.
    """
    budgets: dict[tuple[Any, ...], set[int | None]] = defaultdict(set)
    for point in points:
        budgets[point["method"], *(point[name] for name in axes)].add(point["distill_iters"])
    learned = {point["method"] for point in points if point["distill_iters"]}
    return len(learned) < 2 and any(len(values) > 1 for values in budgets.values())


# --- variants ---------------------------------------------------------------------------------------------------------


def variant_order(variant: str) -> tuple[int, str]:
    """The order in which variants stand in a table."""
    method = variant.partition(" (")[0]
    return (ORDER.index(method) if method in ORDER else len(ORDER) - 1, variant)


def name_variants(points: Iterable[Row], budgets_are_rows: bool, axes: Sequence[str]) -> None:
    """Give every point its ``variant``: where a method stands twice in one row with other settings, the settings that
    differ there are named in the variant of all its points.

    Args:
        points: Of one table.
        budgets_are_rows: Whether points with other numbers of iterations stand in other rows.
        axes: What makes a row, beside the number of iterations.
    """
    rows: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for point in points:
        rows[point["method"], *(point[name] for name in axes)].append(point)
    named: dict[str, dict[str, None]] = defaultdict(dict)
    for (method, *_), members in rows.items():
        named[method] |= differing_settings(members)
        if not budgets_are_rows and len({point["distill_iters"] for point in members}) > 1:
            named[method]["iterations"] = None
        if len({"ensemble" in point["param"] for point in members}) > 1:
            named[method]["ensemble"] = None
    for point in points:
        settings = [f"{name} {_setting(point, name)}" for name in named[point["method"]]]
        point["variant"] = point["method"] + (f" ({', '.join(settings)})" if settings else "")


def differing_settings(points: Sequence[Row]) -> dict[str, None]:
    """Names of the settings, other than the budget, in which points differ."""
    settings = [point["param"].get("settings", {}) for point in points]
    names = sorted({name for each in settings for name in each} - {"iterations"})
    return {name: None for name in names if len({json.dumps(each.get(name)) for each in settings}) > 1}


def _setting(point: Row, name: str) -> Any:
    match name:
        case "iterations":
            return point["distill_iters"]
        case "ensemble":
            return "yes" if "ensemble" in point["param"] else "no"
        case _:
            return point["param"].get("settings", {}).get(name)


# --- refusal ----------------------------------------------------------------------------------------------------------


def refuse_mixed(rows: Sequence[Row], parameters: Iterable[str], where: str) -> None:
    """Raise where rows of one cell or table differ in a parameter.

    Args:
        rows: With the parameters as columns, or among those in ``param``.
        parameters: That must have one value; saying nothing is one too.
        where: For the message.

    Raises:
        MixedBlock: They differ.
    """
    for name in parameters:
        values = {_parameter(row, name) for row in rows}
        if len(values) > 1:
            shown = f"{name}: " + ", ".join(sorted(map(str, values)))
            raise MixedBlock(
                f"{where}: rows with different parameters in one table; got {shown} (column {name}); expected one "
                "value. Ask for them in sweeps of their own."
            )


def _parameter(row: Row, name: str) -> Any:
    value = row[name] if name in row else row["param"].get(name)
    return json.dumps(value) if isinstance(value, list | dict) else value
