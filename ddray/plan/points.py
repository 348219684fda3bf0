"""The nouns of the planner: a sweep, its grids and what they declare, and a point of a grid."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddray.plan import yaml
from ddray.plan.axes import AXES, AxisValues, in_report
from ddray.plan.keys import canonical, point_identity
from ddray.plan.yaml import Node


class FrozenValues(dict[str, Any]):
    """Values as a sweep gives them, JSON types, for a cached function: hashed by their text, which is made once. Nobody
    changes one."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.text = canonical(values)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.text)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FrozenValues:
        """The same values, or themselves if they are one already."""
        return values if isinstance(values, cls) else cls(values)


Values = Mapping[str, tuple[Any, ...]]
"""Axis -> its values."""
_OF_CELL = tuple(name for name in AXES if name not in (*in_report("repeat"), "origin_draw", "class_draw"))


@dataclass(frozen=True, slots=True)
class DatasetDecl:
    """A data set that the sweep declares."""

    name: str
    folder: str | None
    """Below DDRAY_DATA; None: the known data set's own place."""
    like: str
    """Known data set whose constants, presets and label column apply."""
    resize: int | None
    """Height and width in pixels; None: as stored."""
    constants: str | None = None
    """Known data set whose mean and deviation normalise the images; None: those of ``like``."""
    classes: int | None = None
    """How many classes the folder has; None: as many as ``like``."""


@dataclass(frozen=True, slots=True)
class ResourceDecl:
    """What the sweep asks for; None leaves our own choice."""

    cpus: int | None
    gpu: float | None
    """Share of one GPU, 0 to 1."""


@dataclass(frozen=True, slots=True)
class NotifyDecl:
    """What runs when the sweep ends."""

    command: str


@dataclass(frozen=True, slots=True)
class Grid:
    """One named grid with everything laid over it."""

    name: str
    file: str
    axes: Values
    """In the order of the file, defaults first."""
    exclude: tuple[Values, ...]
    exclude_inherited: bool
    """``exclude`` stands in some defaults; entries that do not concern this grid are then no mistake."""
    settings: Mapping[str, Mapping[str, Any]]
    """Method -> the settings that were given, as JSON types."""
    protocol: str
    """Name of the training recipe."""
    train: Mapping[str, Any]
    """Values given instead of the recipe's. At most one of epochs and steps."""
    evaluations: Mapping[str, Mapping[str, Any]]
    """Kind -> the settings that were given, beyond ``accuracy``, which every point gets."""
    doubtful: frozenset[str] = field(default=frozenset(), compare=False)
    """Axes that lost values to other problems: nothing is concluded from what they lack."""
    node: Node = field(default=Node({}, "?"), compare=False, repr=False)

    def where(self, path: Sequence[str | int] | str = ()) -> str:
        """``file:line`` (or ``--set``) of a path below the grid, as ``axes.ipc``, or ``axes.ipc.2`` for a value."""
        return yaml.where(self.node, path)

    def say(self, path: str, what: str) -> str:
        """A message about a path below the grid."""
        shown = ".".join(part for part in path.split(".") if not part.isdecimal())
        return f"{self.where(path)}: grids.{self.name}{'.' if shown else ''}{shown}: {what}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A validated request: what is to be computed, from which files."""

    name: str
    """Stem, ``@profile`` for each profile, and 6 characters of the ``--set`` values' hash where there are any."""
    stem: str
    path: Path
    files: tuple[Path, ...]
    """All files it was read from, this one first."""
    grids: tuple[Grid, ...]
    datasets: Mapping[str, DatasetDecl]
    resources: Mapping[str, ResourceDecl]
    """By stage kind, method, or ``kind.method``."""
    notify: NotifyDecl | None
    digest: str
    """sha256 of the resolved content: equal for files that ask for the same in other words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPoint(AxisValues):
    """One combination of axis values, with what else tells it from others, and what is measured on it."""

    settings: Mapping[str, Any]
    """Of its method, as given."""
    protocol: str
    train: Mapping[str, Any]
    """Values that differ from the protocol's recipe."""
    evaluations: Mapping[str, Mapping[str, Any]]
    """Kind -> settings as given, beyond ``accuracy``."""
    grids: tuple[str, ...]
    """All grids that ask for the point."""
    grid: Grid = field(compare=False, repr=False)
    """The first of them, for the places in messages."""
    _hash: str = field(default="", init=False, compare=False, repr=False)

    @property
    def identity(self) -> str:
        """Canonical JSON of axes, settings and protocol: equal for equal points. Axes that are null stay out, so that
        points keep their identity when an axis is added to the grammar."""
        axes = {axis: value for axis in AXES if (value := getattr(self, axis)) is not None}
        return point_identity(axes, self.settings, self.protocol, self.train)

    @property
    def cell(self) -> tuple[Any, ...]:
        """Equal for points that differ in seeds and draws alone."""
        axes = tuple(getattr(self, axis) for axis in _OF_CELL)
        return *axes, FrozenValues.of(self.settings).text, self.protocol, FrozenValues.of(self.train).text

    @property
    def hash(self) -> str:
        """sha256 of the identity, hexadecimal."""
        if not self._hash:  # asked for again and again while planning, and 10 microseconds each time
            object.__setattr__(self, "_hash", hashlib.sha256(self.identity.encode()).hexdigest())
        return self._hash
