"""What is remembered of each point while the tables are written, and the rows that are later derived from it."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ddray.measurements.identity import Facts, Memo, training
from ddray.measurements.piece import Numbers, Template
from ddray.plan.graph import Chain, Stage
from ddray.plan.keys import canonical
from trainables import files
from trainables.attacks import PRIMARY_ATTACK

Row = dict[str, Any]

PRIMARY_ADVERSARY = "deepfool_l2"
"""The attack that stands for robustness, registered beforehand: Definition 1 of Chen et al. 2023 is in L2."""
_OVERALL = ("test_loss", "fair_var_acc", "fair_var_acc_corr", "fair_var_loss", "fair_cv_acc")
"""Of the accuracy evaluation, what is compared at equal accuracy."""
_NOT_IDENTITY = {"ci_level", "ci_method", "ci_unit", "agg", "attack_lib_version", "prior"}
"""Columns of a row in which the same property of two points may differ."""


class Block(NamedTuple):
    """What points must share to be compared. All text, for equality alone."""

    data: str
    """Content of the data set, and origin."""
    network: str
    protocol: str
    recipe: str
    """Without the augmentation."""
    augmentation: str


@dataclass(slots=True, eq=False)
class Noted:
    """A point with a finished accuracy evaluation."""

    chain: Chain
    values: tuple[Any, ...]
    """Of ``POINT``."""
    param: str | None
    block: Block
    made: str
    """Key of the distilled set; ``full`` for the origin itself; of a model that was brought, its own. Within a block's
    data it says what was trained on."""
    model: str
    """Key of the training."""
    cell: str
    """The method with its settings, equal for points that differ in seeds, network and training."""
    label_kind: str
    stages: dict[str, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)
    """Kind of a finished evaluation -> its key and the values of ``PROVENANCE``."""
    inputs: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Kind of a finished evaluation -> what it was made from: (role, key)."""
    artifacts: dict[str, tuple[str, dict[str, Mapping[str, Any]]]] = field(default_factory=dict)
    """``model``, ``attack.NAME``, ``privacy`` -> key, and of the files that may be read their names and entries in the
    manifest."""
    accuracy: float = 0.0
    images: int = 0
    steps: float = 0.0
    """Optimiser steps of the training."""
    class_accuracies: array[float] = field(default_factory=lambda: array("d"))
    class_losses: array[float] = field(default_factory=lambda: array("d"))
    class_images: array[int] = field(default_factory=lambda: array("l"))
    """Test images of each class."""
    properties: dict[str, float] = field(default_factory=dict)
    """What is compared at equal accuracy: canonical JSON of a row's names and parameters -> its value."""
    derived: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """Kind of the evaluation a row is derived from -> rows. ``class_id`` in them is a position."""

    @property
    def method(self) -> str:
        return self.chain.point.method

    @property
    def distilled(self) -> bool:
        """Whether a method other than random choice made the set."""
        return self.method not in ("full", "random")

    @property
    def order(self) -> tuple[int, int]:
        return self.chain.point.distill_seed or 0, self.chain.point.seed

    def keep(self, role: str, key: str, facts: Facts, names: Sequence[str]) -> None:
        """Remember files of an artifact, if they are all there."""
        entries = {name: facts.files[name] for name in names if name in facts.files}
        if len(entries) == len(names):
            self.artifacts[role] = (key, entries)

    def add(
        self, prop: str, metric: str, value: float | None, unit: str, n: int, kind: str = "accuracy", **other: Any
    ) -> None:
        """A derived row; a value that is None or NaN is ``degenerate`` unless another flag is given."""
        if value is None or value != value:
            other = {"flag": "degenerate", **other}
            value = None
        self.derived[kind].append(
            {"property": prop, "metric": metric, "value": value, "unit": unit, "n": n, "agg": "single", **other}
        )


class Notes:
    """Collects points in the order of the plan."""

    def __init__(self, memo: Memo) -> None:
        self.points: list[Noted] = []
        self._memo = memo
        self._places: dict[int, _Places] = {}
        self._templates: list[Template] = []  # so that no other comes to have the identity of one of them

    def begin(self, chain: Chain, values: tuple[Any, ...], param: str | None, trained: Facts | None) -> Noted:
        """A point of which numbers may come."""
        distill = chain.stage("distill")
        train = chain.stage("train")
        assert train is not None, chain.point
        made = distill.key if distill is not None else "full" if chain.point.method == "full" else train.key
        cell, label_kind = self._memo(("cell", made), lambda: _cell(chain, distill))
        noted = Noted(chain, values, param, self._block(chain), made, train.key, cell, label_kind)
        if trained is not None:
            noted.keep("model", train.key, trained, (files.OUTPUTS,))
        return noted

    def add(self, noted: Noted, stage: Stage, numbers: Numbers, provenance: tuple[Any, ...]) -> None:
        """The numbers of a finished evaluation of the point."""
        template, measured = numbers
        places = self._places.get(id(template))
        if places is None:
            places = self._places[id(template)] = _Places.of(template)
            self._templates.append(template)
        value = measured.get("value")
        if value is None:
            return
        noted.stages[stage.kind] = (stage.key, provenance)
        noted.inputs[stage.kind] = stage.inputs
        for index, identity in places.properties:
            if value[index] is not None:
                noted.properties[identity] = value[index]
        if stage.kind == "accuracy" and places.accuracy is not None:
            noted.accuracy = value[places.accuracy]
            counts = measured.get("n") or [0] * len(value)
            noted.images = counts[places.accuracy]
            noted.steps = (value[places.steps] if places.steps is not None else None) or 0.0
            noted.class_accuracies = array("d", [value[index] for index in places.class_accuracies])
            noted.class_losses = array("d", [value[index] for index in places.class_losses])
            noted.class_images = array("l", [counts[index] for index in places.class_accuracies])
            self.points.append(noted)

    def _block(self, chain: Chain) -> Block:
        config = training(chain)
        of = config.recipe if config.recipe is not None else config
        key = ("block", id(config.dataset), id(config.origin), id(config.network), id(of), chain.protocol)

        def make() -> Block:
            # Of a model that was brought nothing is known: it has a block of its own and is compared with nothing.
            recipe = config.recipe.model_dump(mode="json") if config.recipe is not None else {"of": config.key_json}
            augmentation = recipe.pop("augmentation", "not known")
            recipe.pop("ensemble", None)  # how the repeats are computed, not what they are
            return Block(
                canonical([config.dataset.digest, config.dataset.key_material(), config.origin.key_material()]),
                canonical([chain.point.architecture, config.network.key_material()]),
                chain.protocol,
                canonical(recipe),
                augmentation,
            )

        block: Block = self._memo(key, make)
        return block


@dataclass(frozen=True, slots=True)
class _Places:
    """Where in the rows of a template the wanted numbers stand."""

    accuracy: int | None
    steps: int | None
    class_accuracies: list[int]
    class_losses: list[int]
    properties: list[tuple[int, str]]

    @classmethod
    def of(cls, template: Template) -> _Places:
        single: dict[str, int] = {}
        classes: dict[str, dict[int, int]] = {"test_acc_class": {}, "test_loss_class": {}}
        properties: list[tuple[int, str]] = []
        for index, row in enumerate(template.rows):
            metric = row["metric"]
            if metric in classes and row.get("class_id") is not None:
                classes[metric][row["class_id"]] = index
            if metric in ("test_acc", "optimiser_steps") and row.get("class_id") is None:
                single[metric] = index
            if _compared(row):
                told = {name: value for name, value in row.items() if value is not None and name not in _NOT_IDENTITY}
                properties.append((index, canonical(told)))
        accuracies, losses = ([found[position] for position in sorted(found)] for found in classes.values())
        return cls(single.get("test_acc"), single.get("optimiser_steps"), accuracies, losses, properties)


def _compared(row: Row) -> bool:
    """Whether real images of the same accuracy are asked for this number too."""
    if row.get("class_id") is not None:
        return False
    match row["metric"]:
        case "adv_acc":
            clip = row.get("adv_def") in (None, "clip")
            return row.get("attack") == PRIMARY_ADVERSARY and clip and bool(row.get("epsilon"))
        case "mia_auc":
            # Not of single members, targets or repeats, nor of the undistilled start.
            apart = ("member_role", "target_row", "repeat", "iteration")
            return row.get("attack") == PRIMARY_ATTACK and all(row.get(name) is None for name in apart)
        case metric:
            return metric in _OVERALL


def _cell(chain: Chain, distill: Stage | None) -> tuple[str, str]:
    point = chain.point
    settings: Mapping[str, Any] = getattr(distill.config, "settings", {}) if distill is not None else {}
    axes = [point.method, point.ipc, point.init, point.distill_aug, dict(settings)]
    return canonical(axes), str(settings.get("label_kind", "hard"))


def grouped(points: Iterable[Noted], key: Callable[[Noted], Any]) -> dict[Any, list[Noted]]:
    """Points by something they share, in order."""
    found: dict[Any, list[Noted]] = defaultdict(list)
    for point in points:
        found[key(point)].append(point)
    return found


def unequal(*steps: float) -> dict[str, Any]:
    """The flag of a comparison between trainings whose optimiser steps differ by more than 1 %."""
    return {"flag": "unequal_steps"} if max(steps) > 1.01 * min(steps) else {}


def no_p(statistic: float, p: float | None) -> Row:
    """The flag of a p that is missing: there is nothing to test, or no order of so few things could have been rare."""
    if p is not None:
        return {}
    return {"flag": "low_resolution" if statistic == statistic else "degenerate"}


def parsed(identity: str) -> Row:
    """The names and parameters of a property."""
    row: Row = json.loads(identity)
    return row
