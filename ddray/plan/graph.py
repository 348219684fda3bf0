"""The graph that a plan is: stages, the chain of a point, and how people see them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ddray.plan.points import GridPoint
from trainables.configs import Config, Kind
from trainables.presets import Chosen


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One content-addressed computation."""

    kind: Kind
    key: str
    lineage: str
    """Shared by stages that follow one path to different budgets; their checkpoints live under it."""
    budget: int | None
    """Iterations, where the stage has a budget that a longer one can continue."""
    version: int
    label: str
    config: Config
    inputs: tuple[tuple[str, str], ...]
    """(role, key)."""
    unavailable: str | None
    """Why the stage cannot run on this machine, or None. Its key does not depend on it."""
    cpus: float
    share: float | None
    """Share of a GPU; None takes the share of the job."""
    work: float
    """Rough GFLOP."""
    size: int
    """Rough bytes in the store."""
    cost_class: str = ""
    """Stages of one class cost the same for each GFLOP; "": nothing is computed."""
    held_mib: float = 0.0
    """Of a card, by tensors, at its fullest: the share follows from it. 0: the sweep asked for the share, or there is
    none to ask for."""

    def spec(self) -> dict[str, Any]:
        """Everything a worker needs, as JSON types."""
        return {
            "kind": self.kind,
            "key": self.key,
            "lineage": self.lineage,
            "budget": self.budget,
            "version": self.version,
            "label": self.label,
            "config": self.config.model_dump(mode="json"),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A point with its stages, in order, and what its rows say about the recipe."""

    point: GridPoint
    stages: tuple[Stage, ...]
    """The main path: what makes the point's set and model, then its evaluations."""
    protocol: str
    """The recipe's name, with ``*`` when any of its values was overridden."""
    protocol_changes: Mapping[str, Any]
    """The overridden values."""
    unpublished: tuple[Chosen, ...]
    """Settings that nobody published for this combination: taken from the nearest one, or ours."""
    side_paths: tuple[tuple[Stage, ...], ...] = ()
    """Further paths, each in order, to what evaluations need beside the point's own set and model: shadow models and
    membership rows, encoders."""

    @property
    def paths(self) -> tuple[tuple[Stage, ...], ...]:
        """The side paths, then the main path."""
        return *self.side_paths, self.stages

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages of all paths; one that lies on several of them comes several times."""
        return (*itertools.chain.from_iterable(self.side_paths), *self.stages) if self.side_paths else self.stages

    def stage(self, kind: Kind) -> Stage | None:
        """The first stage of a kind on the main path, if it has one."""
        return next((stage for stage in self.stages if stage.kind == kind), None)


class SetStages(NamedTuple):
    """What makes a set."""

    stages: tuple[Stage, ...] = ()
    """Experts, then the set's own stage; none for methods that train on the origin."""

    @property
    def inputs(self) -> tuple[tuple[str, str], ...]:
        """Of what is trained on it."""
        return (("set", self.stages[-1].key),) if self.stages else ()

    def taught_by(self, teacher: Sequence[Stage]) -> tuple[tuple[str, str], ...]:
        """The same, where a teacher labels the images.

        Args:
            teacher: Its stage; none: the set has its own labels.
        """
        return (*self.inputs, *(("teacher", stage.key) for stage in teacher))
