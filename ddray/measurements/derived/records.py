"""What is remembered of each point while its rows are written, and the rows that derivations add to it."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ddray.measurements.buffer import EvaluationRows, Template
from ddray.measurements.identity import StageRecord, soft_labels, training
from ddray.measurements.metrics import Metric
from ddray.plan.graph import Chain, Stage
from ddray.plan.keys import canonical
from ddray.store.artifacts import Store
from trainables import files
from trainables.attacks import PANELS
from trainables.configs import DistillConfig

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)

PRIMARY_ADVERSARY = "deepfool_l2"
"""The attack that stands for robustness, registered beforehand: Definition 1 of Chen et al. 2023 is in L2."""
_OVERALL = ("test_loss", "fair_var_acc", "fair_var_acc_corr", "fair_var_loss", "fair_cv_acc")
"""Of the accuracy evaluation, what is compared at equal accuracy."""
_NOT_IDENTITY = {"ci_level", "ci_method", "ci_unit", "agg", "attack_lib_version", "prior"}
"""Columns of a row in which the same property of two points may differ."""


class Comparable(NamedTuple):
    """What points must share to be compared. All text, for equality alone."""

    data: str
    """Content of the data set, and origin."""
    network: str
    protocol: str
    recipe: str
    """Without the augmentation."""
    augmentation: str
    labels: str
    """The teacher that labelled the images, by its name (it has the student's architecture, so that its key is another
    for each); "": none did."""


@dataclass(slots=True, eq=False)
class PointRecord:
    """A point with a finished accuracy evaluation."""

    chain: Chain
    values: tuple[Any, ...]
    """Of ``POINT``."""
    param: str | None
    comparable: Comparable
    set_key: str
    """Key of the distilled set; ``full`` for the origin itself; of a model that was brought, its own. Together with
    ``comparable.data`` it says what was trained on."""
    model_key: str
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
    """Test images."""
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
        """Of points that differ in seeds alone, the first is the smallest."""
        return self.chain.point.distill_seed or 0, self.chain.point.seed

    def keep(self, role: str, key: str, stage: StageRecord, names: Sequence[str]) -> None:
        """Remember files of an artifact, if they are all there."""
        entries = {name: stage.files[name] for name in names if name in stage.files}
        if len(entries) == len(names):
            self.artifacts[role] = (key, entries)

    def add(self, metric: Metric, value: float | None, n: int, kind: str = "accuracy", **columns: Any) -> None:
        """Add a derived row to those of an evaluation.

        Args:
            metric: Gives property and unit.
            value: None or NaN is ``degenerate`` unless ``columns`` hold another flag.
            n: Samples behind the value.
            kind: The evaluation it is derived from.
            columns: Further columns; ``agg`` is ``single`` unless they say otherwise.
        """
        if value is None or value != value:
            columns = {"flag": "degenerate", **columns}
            value = None
        self.derived[kind].append(metric.row(value, n, **columns))


@dataclass(frozen=True, slots=True)
class Derivation:
    """Numbers that need several points of a sweep."""

    metrics: tuple[Metric, ...]
    """What it makes."""
    reads: tuple[str, ...]
    """Kinds of evaluations without which a point takes no part."""
    derive: Callable[[Sequence[PointRecord], Store], None]
    """Adds its rows to points of a sweep, which come in the order of the plan. The store is read for single images and
    for nothing else."""


class PointRecords:
    """Collects points in the order of the plan."""

    def __init__(self) -> None:
        self.points: list[PointRecord] = []
        self._comparables: dict[tuple[Any, ...], Comparable] = {}
        self._cells: dict[tuple[str, str | None], tuple[str, str]] = {}
        self._positions: dict[Template, _Positions] = {}

    def begin(
        self, chain: Chain, values: tuple[Any, ...], param: str | None, trained: StageRecord | None
    ) -> PointRecord:
        """A point of which numbers may come."""
        distill, train = chain.stage("distill"), chain.stage("train")
        assert train is not None, chain.point
        set_key = distill.key if distill is not None else "full" if chain.point.method == "full" else train.key
        of_cell = (set_key, chain.point.labels)
        if of_cell not in self._cells:
            self._cells[of_cell] = _cell(chain, distill)
        record = PointRecord(chain, values, param, self._comparable(chain), set_key, train.key, *self._cells[of_cell])
        if trained is not None:
            record.keep("model", train.key, trained, (files.OUTPUTS,))
        return record

    def add(self, record: PointRecord, stage: Stage, rows: EvaluationRows, provenance: tuple[Any, ...]) -> None:
        """The rows of a finished evaluation of the point."""
        template, measured = rows
        if template not in self._positions:
            self._positions[template] = _Positions.of(template)
        at = self._positions[template]
        values = measured.get("value")
        if values is None:
            return
        record.stages[stage.kind] = (stage.key, provenance)
        record.inputs[stage.kind] = stage.inputs
        for index, identity in at.properties:
            if values[index] is not None:
                record.properties[identity] = values[index]
        if stage.kind == "accuracy" and at.accuracy is not None:
            counts = measured.get("n") or [0] * len(values)
            record.accuracy = values[at.accuracy]
            record.images = counts[at.accuracy]
            record.steps = (values[at.steps] if at.steps is not None else None) or 0.0
            record.class_accuracies = array("d", [values[index] for index in at.class_accuracies])
            record.class_losses = array("d", [values[index] for index in at.class_losses])
            record.class_images = array("l", [counts[index] for index in at.class_accuracies])
            self.points.append(record)

    def _comparable(self, chain: Chain) -> Comparable:
        config = training(chain)
        # Of a model that was brought nothing is known: it is comparable with nothing but itself.
        recipe_or_model = config.recipe if config.recipe is not None else config.key_json
        network = (config.network, chain.point.architecture)
        labels = chain.point.labels or ""
        shared = (config.dataset, config.origin, network, chain.protocol, recipe_or_model, labels)
        if shared not in self._comparables:
            recipe = config.recipe.model_dump(mode="json") if config.recipe is not None else {"of": config.key_json}
            augmentation = recipe.pop("augmentation", "not known")
            recipe.pop("ensemble", None)  # how the repeats are computed, not what they are
            self._comparables[shared] = Comparable(
                canonical([config.dataset.digest, config.dataset.key_material(), config.origin.key_material()]),
                canonical([chain.point.architecture, config.network.key_material()]),
                chain.protocol,
                canonical(recipe),
                augmentation,
                labels,
            )
        return self._comparables[shared]


@dataclass(frozen=True, slots=True)
class _Positions:
    """Where in the rows of a template the wanted numbers stand."""

    accuracy: int | None
    steps: int | None
    class_accuracies: list[int]
    class_losses: list[int]
    properties: list[tuple[int, str]]

    @classmethod
    def of(cls, template: Template) -> _Positions:
        overall: dict[str, int] = {}
        classes: dict[str, dict[int, int]] = {"test_acc_class": {}, "test_loss_class": {}}
        properties: list[tuple[int, str]] = []
        for index, row in enumerate(template.rows):
            metric = row["metric"]
            if metric in classes and row.get("class_id") is not None:
                classes[metric][row["class_id"]] = index
            if metric in ("test_acc", "optimiser_steps") and row.get("class_id") is None:
                overall[metric] = index
            if _at_equal_accuracy(row):
                identity = {name: row[name] for name in row.keys() - _NOT_IDENTITY if row[name] is not None}
                properties.append((index, canonical(identity)))
        accuracies, losses = ([rows[position] for position in sorted(rows)] for rows in classes.values())
        return cls(overall.get("test_acc"), overall.get("optimiser_steps"), accuracies, losses, properties)


def _at_equal_accuracy(row: Row) -> bool:
    """Whether the number is compared with that of real images of the same accuracy."""
    if row.get("class_id") is not None:
        return False
    match row["metric"]:
        case "adv_acc":
            clip = row.get("adv_def") in (None, "clip")
            return row.get("attack") == PRIMARY_ADVERSARY and clip and bool(row.get("epsilon"))
        case "mia_auc":
            # Not of single members, targets or repeats, of pooled scores, of a variant, nor of the undistilled start.
            apart = ("member_role", "target_row", "repeat", "iteration", "variant")
            panel = PANELS[row["audit"]] if row.get("audit") else ()
            return (
                row.get("attack") in panel
                and row.get("agg") != "pooled"
                and all(row.get(name) is None for name in apart)
            )
        case metric:
            return metric in _OVERALL


def _cell(chain: Chain, distill: Stage | None) -> tuple[str, str]:
    """``cell`` and ``label_kind`` of a point."""
    point = chain.point
    made = distill.config if distill is not None and isinstance(distill.config, DistillConfig) else None
    axes = [point.method, point.ipc, point.init, point.distill_aug, dict(made.settings) if made is not None else {}]
    soft = point.labels is not None or (made is not None and soft_labels(made) is not None)
    return canonical(axes), "soft" if soft else "hard"


def grouped(points: Iterable[PointRecord], key: Callable[[PointRecord], K]) -> dict[K, list[PointRecord]]:
    """Points by something they share, in order."""
    groups: dict[K, list[PointRecord]] = defaultdict(list)
    for point in points:
        groups[key(point)].append(point)
    return groups


def unequal(*steps: float) -> Row:
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
