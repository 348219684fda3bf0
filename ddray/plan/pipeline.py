"""A grid point becomes its chain of stages: the only place that knows what a method needs.

    experts (MTT) -> distill -> [ensemble ->] train -> accuracy, robustness, privacy, embedding

Configurations are completed here: presets, defaults, the recipe of the protocol. Stages that several points need come
out with the same key and are one object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ddray.plan import resources
from ddray.plan.datasets import DatasetFacts
from ddray.plan.grid import GridPoint
from ddray.plan.keys import stage_key
from trainables.configs import (
    VERSIONS,
    AccuracyConfig,
    Config,
    DistillConfig,
    EnsembleConfig,
    ExpertConfig,
    Kind,
    MethodSettings,
    NetworkSettings,
    OriginConfig,
    RecipeConfig,
    TrainConfig,
)
from trainables.data.known import class_subset
from trainables.methods import METHODS, Method
from trainables.networks import Parsed, default_network, network_of, parse, parsed
from trainables.presets import Chosen, choose, completed
from trainables.protocols import PROTOCOLS


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
    config: Config | None
    """None: this version cannot run the stage, see ``unavailable``."""
    inputs: tuple[tuple[str, str], ...]
    """(role, key)."""
    unavailable: str | None
    """Why this version cannot run the stage, or None."""
    cpus: float
    share: float | None
    """Share of a GPU; None takes the share of the job."""
    work: float
    """Rough GFLOP."""
    size: int
    """Rough bytes in the store."""

    def spec(self) -> dict[str, Any]:
        """Everything a worker needs, as JSON types."""
        assert self.config is not None, f"{self.label} cannot run"
        return {
            "kind": self.kind, "key": self.key, "lineage": self.lineage, "budget": self.budget,
            "version": self.version, "label": self.label, "config": self.config.model_dump(mode="json"),
            "inputs": dict(self.inputs),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A point with its stages, in order, and what its rows say about the recipe."""

    point: GridPoint
    stages: tuple[Stage, ...]
    protocol: str
    """The recipe's name, with ``*`` when any of its values was overridden."""
    protocol_changes: Mapping[str, Any]
    """The overridden values."""
    unpublished: tuple[Chosen, ...]
    """Settings that nobody published for this combination: taken from the nearest one, or ours."""

    def stage(self, kind: Kind) -> Stage | None:
        """The chain's stage of a kind, if it has one."""
        return next((stage for stage in self.stages if stage.kind == kind), None)


class Pipeline:
    """Makes chains; remembers stages, so that equal ones are the same object."""

    def __init__(self, facts: Mapping[str, DatasetFacts], requests: Mapping[str, resources.Request]) -> None:
        self.facts = facts
        self.requests = requests
        self.stages: dict[str, Stage] = {}
        self._memo: dict[object, Any] = {}
        self._repeats: dict[object, set[int]] = defaultdict(set)
        """What is trained together: the training without its seed -> the seeds."""

    def chains(self, points: Iterable[GridPoint]) -> list[Chain]:
        """The chains of a whole sweep's points, in their order.

        Which repeats form an ensemble is judged on all of them, so that filters and finished work never regroup.
        """
        points = list(points)
        for point in points:
            if point.train.get("ensemble"):
                self._repeats[self._repeat(point, self._making(point)[1])].add(point.seed)
        return [self._chain(point) for point in points]

    def _chain(self, point: GridPoint) -> Chain:
        making, inputs, unpublished = self._making(point)
        stages = list(making)
        recipe, changes = self._recipe(point)
        stages += self._train(point, recipe, inputs)
        train = stages[-1]
        stages.append(self._accuracy(point, train))
        for kind in ("robustness", "privacy", "embedding"):
            if kind in point.evaluations:
                stages.append(self._later(point, kind, point.evaluations[kind], train))
        protocol = point.protocol + ("*" if changes else "")
        return Chain(point, tuple(stages), protocol, changes, unpublished)

    # --- one stage each --------------------------------------------------------------------------------------------

    def _making(self, point: GridPoint) -> tuple[tuple[Stage, ...], tuple[tuple[str, str], ...], tuple[Chosen, ...]]:
        """The stages that make the point's set, the inputs of what is trained on it, the unpublished settings."""
        method = METHODS[point.method]
        if not method.distils:
            return (), (), ()
        making, unpublished = self._distill(point, method)
        return making, (("set", making[-1].key),), unpublished

    def _distill(self, point: GridPoint, method: Method) -> tuple[tuple[Stage, ...], tuple[Chosen, ...]]:
        """The stages that make the point's set, it last; and the settings that nobody published for it."""
        memo = (
            "distill", point.method, point.dataset, point.ipc, point.init, point.distill_seed, point.distill_aug,
            self._origin_memo(point), id(point.grid),
        )  # fmt: skip
        if memo in self._memo:
            found: tuple[tuple[Stage, ...], tuple[Chosen, ...]] = self._memo[memo]
            return found
        facts = self.facts[point.dataset]
        assert point.ipc is not None
        chosen = choose(method.name, facts.config.base, point.ipc, point.settings)
        unpublished = tuple(entry for entry in chosen if not entry.exact and entry.setting not in point.settings)
        origin = self._origin(point)
        settings = completed(method.name, facts.config.base, point.ipc, point.settings)
        network = None
        if isinstance(settings, NetworkSettings):
            network = default_network(
                settings.architecture, image_size=facts.config.image_size, channels=facts.config.channels,
                num_classes=len(origin.classes), width=settings.width, norm=settings.norm, depth=settings.depth,
            )  # fmt: skip
        config = DistillConfig(
            method=method.name, method_version=method.version, dataset=facts.config, origin=origin, ipc=point.ipc,
            init=point.init, augmentation=point.distill_aug, network=network, settings=settings.key_material(),
            distill_seed=point.distill_seed or 0,
        )  # fmt: skip
        experts: list[Stage] = []
        if network is not None:
            for expert in settings.experts(facts.config, origin, network, config.augmentation):
                label = f"{_label('experts', point)} expert={expert.index}"
                experts.append(self._make("experts", point, label, expert, expert.key_json, (), None))
        stage = self._make(
            "distill", point, _label("distill", point), config, config.key_material(),
            tuple((f"expert.{index}", expert.key) for index, expert in enumerate(experts)), None,
            lineage_material=config.lineage_material(settings.budget), budget=settings.length, settings=settings,
        )  # fmt: skip
        self._memo[memo] = ((*experts, stage), unpublished)
        result: tuple[tuple[Stage, ...], tuple[Chosen, ...]] = self._memo[memo]
        return result

    def _train(self, point: GridPoint, recipe: RecipeConfig, inputs: tuple[tuple[str, str], ...]) -> tuple[Stage, ...]:
        """The stage that leaves the point's model; before it the ensemble that it is taken from, if there is one."""
        label = _label("train", point)
        repeat = self._repeat(point, inputs) if recipe.ensemble else None
        seeds = tuple(sorted(self._repeats[repeat])) if recipe.ensemble else ()
        if len(seeds) < 2:
            if recipe.ensemble:  # an ensemble of one is the training itself
                recipe = recipe.model_copy(update={"ensemble": False})
            config = self._training(point, recipe, point.seed)
            return (self._make("train", point, label, config, config.key_json, inputs, None, recipe=recipe),)
        ensemble = self._memo.get(("ensemble", repeat))
        if ensemble is None:
            together = EnsembleConfig(base=self._training(point, recipe, seeds[0]), seeds=seeds)
            ensemble = self._memo["ensemble", repeat] = self._make(
                "ensemble", point, _label("ensemble", point, seeds), together, together.key_json, inputs, None,
                recipe=recipe,
            )  # fmt: skip
        config = self._training(point, recipe, point.seed, seeds)
        taking = (("ensemble", ensemble.key),)
        return ensemble, self._make("train", point, label, config, config.key_json, taking, None)

    def _repeat(self, point: GridPoint, inputs: tuple[tuple[str, str], ...]) -> object:
        """Equal for points whose trainings differ in the seed alone."""
        parts = (self.facts[point.dataset].config, self._origin(point), self._recipe(point)[0])
        return inputs, point.architecture, *(part.key_json for part in parts)

    def _training(
        self, point: GridPoint, recipe: RecipeConfig, seed: int, ensemble: tuple[int, ...] | None = None
    ) -> TrainConfig:
        facts = self.facts[point.dataset]
        origin = self._origin(point)
        memo = ("network", point.dataset, point.architecture, len(origin.classes))
        if memo not in self._memo:
            self._memo[memo] = network_of(
                point.architecture, image_size=facts.config.image_size, channels=facts.config.channels,
                num_classes=len(origin.classes),
            )  # fmt: skip
        return TrainConfig(
            dataset=facts.config, origin=origin, on_origin=point.method == "full", network=self._memo[memo],
            recipe=recipe, seed=seed, ensemble=ensemble,
        )  # fmt: skip

    def _accuracy(self, point: GridPoint, train: Stage) -> Stage:
        config = AccuracyConfig(num_classes=len(self._origin(point).classes))
        inputs = (("model", train.key),)
        return self._make("accuracy", point, _label("accuracy", point), config, config.key_json, inputs, None)

    def _later(self, point: GridPoint, kind: Kind, settings: Mapping[str, Any], train: Stage) -> Stage:
        """An evaluation of the grammar that this version cannot compute: planned, counted, reported as blocked."""
        inputs = (("model", train.key),)
        reason = f"evaluation {kind} is not in this version"
        return self._make(kind, point, _label(kind, point), None, {"settings": dict(settings)}, inputs, reason)

    def _make(
        self,
        kind: Kind,
        point: GridPoint,
        label: str,
        config: Config | None,
        material: Mapping[str, Any] | str,
        inputs: tuple[tuple[str, str], ...],
        unavailable: str | None,
        *,
        lineage_material: Mapping[str, Any] | None = None,
        budget: int | None = None,
        settings: MethodSettings | None = None,
        recipe: RecipeConfig | None = None,
    ) -> Stage:
        version = VERSIONS[kind]
        key = stage_key(kind, version, material, dict(inputs))
        found = self.stages.get(key)
        if found is not None:
            return found
        lineage: str = key
        if lineage_material is not None and budget is not None:
            lineage = stage_key(kind, version, {"lineage": lineage_material}, dict(inputs))
        data = self.facts[point.dataset].config
        num_classes = point.num_classes or data.num_classes
        network = parse(point.architecture)
        if isinstance(config, DistillConfig | ExpertConfig):
            network = parsed(config.network) if config.network is not None else parse("convnet3")
        members = len(config.seeds) if isinstance(config, EnsembleConfig) else 1
        default = resources.share(kind, point.method, network.base, data.image_size, num_classes, point.ipc, members)
        cpus, share = resources.requested(self.requests, kind, point.method, default)
        if _takes_a_member(config):
            share = None  # a copy of files: no card of its own
        stage = Stage(
            kind=kind, key=key, lineage=lineage, budget=budget, version=version, label=label, config=config,
            inputs=inputs, unavailable=unavailable, cpus=cpus, share=share,
            work=self._work(kind, point, network, num_classes, config, settings, recipe),
            size=resources.size(
                kind, architecture=network.base, width=network.relative_width, num_classes=num_classes, ipc=point.ipc,
                pixels=data.channels * data.image_size**2,
                test_images=num_classes * self.facts[point.dataset].test_per_class, members=members,
            ),
        )  # fmt: skip
        self.stages[key] = stage
        return stage

    # --- parts of configurations -----------------------------------------------------------------------------------

    def _origin_memo(self, point: GridPoint) -> tuple[Any, ...]:
        return (point.dataset, point.origin_per_class, point.origin_draw, point.num_classes, point.class_draw)

    def _origin(self, point: GridPoint) -> OriginConfig:
        memo = ("origin", *self._origin_memo(point))
        if memo not in self._memo:
            total = self.facts[point.dataset].config.num_classes
            classes = tuple(range(total))
            if point.num_classes is not None:
                classes = class_subset(total, point.num_classes, point.class_draw or 0)
            if point.origin_per_class is None:
                origin = OriginConfig(classes=classes)
            else:
                origin = OriginConfig(
                    kind="draw", per_class=point.origin_per_class, draw=point.origin_draw or 0, classes=classes
                )
            self._memo[memo] = origin
        result: OriginConfig = self._memo[memo]
        return result

    def _recipe(self, point: GridPoint) -> tuple[RecipeConfig, dict[str, Any]]:
        memo = ("recipe", point.protocol, point.train_aug, id(point.grid))
        if memo not in self._memo:
            base = PROTOCOLS[point.protocol].recipe
            wanted = dict(point.train)
            if "steps" in wanted and "epochs" not in wanted:
                wanted["epochs"] = None
            if point.train_aug is not None:
                wanted["augmentation"] = point.train_aug
            recipe = RecipeConfig.model_validate({**base.model_dump(), **wanted})
            before, after = base.key_material(), recipe.key_material()
            before["ensemble"] = after.get("ensemble")  # how, not what: the recipe stays the one that is named
            changes = {name: value for name, value in after.items() if value != before.get(name)}
            self._memo[memo] = (recipe, {name: value for name, value in changes.items() if value is not None})
        result: tuple[RecipeConfig, dict[str, Any]] = self._memo[memo]
        return result

    def _work(
        self,
        kind: Kind,
        point: GridPoint,
        network: Parsed,
        num_classes: int,
        config: Config | None,
        settings: MethodSettings | None,
        recipe: RecipeConfig | None,
    ) -> float:
        facts = self.facts[point.dataset]
        data = facts.config
        gflop = resources.convnet3_gflop(data.image_size, data.channels) * resources.FORWARD_RATIO[network.base]
        gflop *= network.relative_width**2
        per_class = point.origin_per_class or facts.train_per_class
        if settings is not None:
            assert point.ipc is not None
            return resources.distill_work(point.method, settings, gflop, num_classes, point.ipc, per_class)
        if _takes_a_member(config):
            return resources.COPYING
        images, steps, batch = num_classes * per_class, 0, 1
        if isinstance(config, ExpertConfig):
            steps, batch = config.snapshots * config.steps_between(-(-images // config.batch)), config.batch
        elif recipe is not None:
            # What a set decodes to is in the settings of its distillation; an estimate may read them as given.
            factor = int(point.settings.get("factor", 2 if point.method == "idc" else 1))
            images = num_classes * (point.ipc * factor**2 if point.ipc else per_class)
            steps, batch = recipe.steps or (recipe.epochs or 0) * -(-images // recipe.batch), recipe.batch
        return resources.work(
            kind, gflop=gflop, images=images, steps=steps, batch=batch, test_images=num_classes * facts.test_per_class,
            members=len(config.seeds) if isinstance(config, EnsembleConfig) else 1,
        )  # fmt: skip


def _takes_a_member(config: Config | None) -> bool:
    """Whether a training only takes its model from an ensemble."""
    return isinstance(config, TrainConfig) and config.ensemble is not None


def recipe_problem(point: GridPoint) -> str | None:
    """Why the point's recipe overrides do not make a recipe, or None."""
    wanted = dict(point.train)
    if "steps" in wanted and "epochs" not in wanted:
        wanted["epochs"] = None
    try:
        RecipeConfig.model_validate({**PROTOCOLS[point.protocol].recipe.model_dump(), **wanted})
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    return None


def _label(kind: str, point: GridPoint, seeds: tuple[int, ...] = ()) -> str:
    """How people see a stage: ``train dm cifar10 ipc=10 init=real convnet3 seed=0``; ``seeds`` of an ensemble."""
    words = [kind, point.method, point.dataset]
    if point.ipc is not None:
        words.append(f"ipc={point.ipc}")
    if point.init is not None:
        words.append(f"init={point.init}")
    if point.origin_per_class is not None:
        words.append(f"origin={point.origin_per_class}/{point.origin_draw}")
    if point.num_classes is not None:
        words.append(f"classes={point.num_classes}/{point.class_draw or 0}")
    if point.distill_seed:
        words.append(f"distill_seed={point.distill_seed}")
    if kind not in ("experts", "distill"):
        words += [point.architecture, f"seeds={','.join(map(str, seeds))}" if seeds else f"seed={point.seed}"]
    return " ".join(words)
