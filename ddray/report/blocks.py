"""Which points may stand in one table, in which row and column of it; and the refusal to mix what may not be mixed.

A *block* holds points of one data set, origin, architecture and training recipe. A row of a block is one ipc (and init,
augmentation or number of iterations, where methods differ in it); a *column* is a method, or a method with the settings
that tell several of the same method apart; a *group* is a column's points in a row, over all seeds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ddray.errors import DdrayError
from ddray.measurements.reading import Row
from ddray.measurements.statistics import Spread, Values, by_seed, spread
from ddray.plan.external import EXTERNAL
from trainables.methods import METHODS

ORDER = ("random", "dsa", "dm", "mtt", "idc", "full")

BLOCK_AXES = ("dataset", "num_classes", "class_draw", "architecture", "protocol", "origin_per_class", "origin_draw")
IN_CELL = (
    "distill_cfg_hash",
    "distill_arch",
    "distill_iters",
    "distill_aug",
    "init",
    "factor",
    "zca",
    "label_kind",
    "budget_fraction",
    "selection",
)
"""Parameters that seeds of one cell must agree on."""
IN_BLOCK = ("data_hash", "norm_layer", "train_aug", "train_epochs", "train_steps", "optimizer", "lr")
"""Parameters that all rows of a block must agree on."""


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

    @property
    def text(self) -> str:
        """``ipc 10, init real``."""
        said = [f"{name} {value}" for name, value in self._asdict().items() if value is not None]
        return ", ".join(said) or "every ipc"


class Group(NamedTuple):
    """One cell's points."""

    at: At
    column: str
    """The method, with the settings that tell several of the same method apart."""
    members: list[Row]

    @property
    def method(self) -> str:
        name: str = self.members[0]["method"]
        return name

    @property
    def unit(self) -> str:
        """What a distilled set is called."""
        return "draws" if self.method == "random" else "distillations"

    def values(self, metric: Mapping[str, float] | None = None) -> Values:
        """Accuracy of the members by their seeds, or another metric by point."""
        found = []
        for row in self.members:
            value = row["value"] if metric is None else metric.get(row["point"])
            if value is not None:
                found.append((row["distill_seed"], row["seed"], value))
        return by_seed(found)

    def mean(self, metric: Mapping[str, float] | None = None) -> dict[str, Any] | None:
        """The same as a mean over seeds, as JSON types; None without a value."""
        return spread_json(spread(self.values(metric), self.unit))

    @property
    def place(self) -> dict[str, Any]:
        """Row and column, as JSON types."""
        return {**self.at._asdict(), "method": self.column}


class Block(NamedTuple):
    """The points of one table."""

    title: str
    axes: tuple[str, ...]
    """What its rows vary by, beside ipc."""
    columns: list[str]
    groups: list[Group]
    """Row by row, in the order of the columns."""
    rows: list[Row]
    """All its points."""

    @property
    def places(self) -> list[At]:
        """The rows, in order."""
        return list(dict.fromkeys(group.at for group in self.groups))

    @property
    def own_groups(self) -> list[Group]:
        """The groups, each once, at what it says of itself: ``full``, which stands in every row, comes last."""
        found: dict[tuple[str, str], Group] = {}
        for group in self.groups:
            first = group.members[0]
            found.setdefault((group.column, first["point"]), group._replace(at=_at(first, self.axes)))
        return sorted(found.values(), key=lambda group: group.at.ipc is None)


def spread_json(found: Spread | None) -> dict[str, Any] | None:
    """A mean over seeds as JSON types."""
    if found is None:
        return None
    return {
        "mean": found.mean,
        "sd": found.sd,
        "unit": found.unit,
        "count": found.count,
        "trainings": found.trainings,
        "seed_level": found.seed_level,
        "short": found.short,
    }


def block_key(row: Row) -> tuple[Any, ...]:
    """Equal for points of one block."""
    changes = json.dumps(row["param"].get("protocol_changes", {}), sort_keys=True)
    return (*(row[name] for name in BLOCK_AXES), changes)


def make_block(rows: list[Row], where: str) -> Block:
    """Arrange the points of one block.

    Args:
        rows: From ``reading.read_points``; given their ``column``.
        where: For messages.

    Raises:
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    title = block_title(rows[0])
    where = f"{where}: {title}"
    refuse_mixed(rows, IN_BLOCK, where)
    axes = row_axes(rows)
    name_columns(rows, axes)
    columns = sorted({row["column"] for row in rows}, key=rank)
    by_column: dict[str, dict[At, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_column[row["column"]][_at(row, axes)].append(row)
    groups = []
    for at in _places(rows, axes):
        for column in columns:
            members = [row for own, found in by_column[column].items() if at.covers(own) for row in found]
            if members:
                refuse_mixed(members, IN_CELL, f"{where}: {column}, {at.text}")
                groups.append(Group(at, column, members))
    return Block(title, axes, columns, groups, rows)


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
    return ", ".join(parts)


def title_of(column: str) -> str:
    """A column's name as printed in tables: the method's title, and the settings that tell it from others."""
    method, apart, settings = column.partition(" (")
    return (METHODS[method].title if method in METHODS else method) + apart + settings


def rank(column: str) -> tuple[int, str]:
    """Order of columns."""
    method = column.partition(" (")[0]
    return (ORDER.index(method) if method in ORDER else len(ORDER) - 1, column)


def name_columns(rows: Iterable[Row], axes: Sequence[str], place: Callable[[Row], Any] | None = None) -> None:
    """Give every row its ``column``: where a method stands twice in one place of the block with other settings, the
    settings that differ there are named in the column of all its rows.

    Args:
        rows: Points.
        axes: What rows of the table vary by, beside the place.
        place: What makes a place, beside the method; default: ipc, init, augmentation.
    """
    place = place or (lambda row: (row["ipc"], row["init"], row["distill_aug"]))
    places: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        places[(row["method"], place(row))].append(row)
    apart: dict[str, dict[str, None]] = defaultdict(dict)
    for (method, _), members in places.items():
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


def row_axes(rows: Sequence[Row]) -> tuple[str, ...]:
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


def refuse_mixed(rows: Iterable[Row], parameters: Iterable[str], where: str) -> None:
    """Raise where rows of one cell or table differ in a parameter.

    Args:
        rows: With the parameters as columns, or among those in ``param``.
        parameters: That must have one value; saying nothing is one too.
        where: For the message.

    Raises:
        MixedBlock: They differ.
    """
    rows = list(rows)
    for name in parameters:
        values = {_told(row, name) for row in rows}
        if len(values) > 1:
            shown = f"{name}: " + ", ".join(sorted(map(str, values)))
            raise MixedBlock(
                f"{where}: rows with different parameters in one table; got {shown} (column {name}); expected one "
                "value. Ask for them in sweeps of their own."
            )


def _told(row: Row, name: str) -> Any:
    value = row[name] if name in row else row["param"].get(name)
    return json.dumps(value) if isinstance(value, list | dict) else value
