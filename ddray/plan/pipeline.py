"""A grid point becomes its chain of stages: the only place that knows what a method needs.

    experts (MTT) -> distill -> [ensemble ->] train -> accuracy, attack ... -> robustness

That is a point's main path. ``privacy`` and ``embedding`` also need what does not lie on it: sets distilled from other
images and models trained on them, an encoder. Those are branches, made in ``branches.py``.

Configurations are completed here: presets, defaults, the recipe of the protocol. Stages that several points need come
out with the same key and are one object.
"""

from __future__ import annotations

import importlib.util
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

from ddray.plan import branches, resources
from ddray.plan.datasets import DatasetFacts
from ddray.plan.feasible import ENCODER
from ddray.plan.graph import Chain, Making, Part, Stage, label_of
from ddray.plan.keys import stage_key
from ddray.plan.points import GridPoint
from ddray.plan.schema import EVALUATIONS
from trainables.attacks import ROBUSTNESS_ATTACKS, RobustnessAttack, attack_settings, epsilons_for
from trainables.configs import (
    VERSIONS,
    AccuracyConfig,
    AttackConfig,
    Config,
    DistillConfig,
    EmbeddingConfig,
    EnsembleConfig,
    ExpertConfig,
    Kind,
    MethodSettings,
    NetworkConfig,
    NetworkSettings,
    OriginConfig,
    PrivacyConfig,
    PrivacySettings,
    RecipeConfig,
    RobustnessConfig,
    RobustnessSettings,
    SignalsConfig,
    TrainConfig,
)
from trainables.data.known import class_subset
from trainables.methods import METHODS
from trainables.networks import Variant, parse
from trainables.presets import Chosen, choose, completed
from trainables.protocols import PROTOCOLS

Asked = TypeVar("Asked", bound=Config)


class Completed(NamedTuple):
    """A method's settings at a point."""

    settings: MethodSettings
    unpublished: tuple[Chosen, ...]


class Pipeline:
    """Makes chains; remembers stages, so that equal ones are the same object."""

    def __init__(self, facts: Mapping[str, DatasetFacts], requests: Mapping[str, resources.Request]) -> None:
        self.facts = facts
        self.requests = requests
        self.stages: dict[str, Stage] = {}
        """By key. What a stage needs comes before it."""
        self._memo: dict[object, Any] = {}
        self._repeats: dict[object, set[int]] = defaultdict(set)
        """What is trained together: the training without its seed -> the seeds."""

    def chains(self, points: Iterable[GridPoint]) -> list[Chain]:
        """The chains of a whole sweep's points, in their order.

        Which repeats form an ensemble, and which sets share a map, is judged on all of them, so that filters and
        finished work never regroup.
        """
        points = list(points)
        for point in points:
            if point.train.get("ensemble"):
                self._repeats[self._repeat(point, self.making(point))].add(point.seed)
        chains = [self._chain(point) for point in points]
        for index, tsne in branches.maps(self, chains).items():
            chains[index] = replace(chains[index], stages=(*chains[index].stages, tsne))
        return chains

    def _chain(self, point: GridPoint) -> Chain:
        making = self.making(point)
        recipe, changes = self.recipe(point)
        stages = [*making.stages, *self._train(point, recipe, making)]
        train = stages[-1]
        stages.append(self._accuracy(point, train))
        aside: tuple[tuple[Stage, ...], ...] = ()
        if "robustness" in point.evaluations:
            stages += self._robustness(point, train)
        if "privacy" in point.evaluations:
            paths, privacy = branches.audit(self, point, making, train)
            aside += paths
            stages.append(privacy)
        if "embedding" in point.evaluations and making.stages:
            encoder, embedding = branches.embed(self, point, making)
            aside += ((encoder,),)
            stages.append(embedding)
        unpublished = self.completed(point).unpublished if making.stages else ()
        return Chain(point, tuple(stages), point.protocol + ("*" if changes else ""), changes, unpublished, aside)

    # --- stages that branches have too -----------------------------------------------------------------------------

    def making(
        self, point: GridPoint, part: Part | None = None, distill_seed: int | None = None, start: bool = False
    ) -> Making:
        """The stages that make a set.

        Args:
            point: Gives method, settings and everything else.
            part: What is distilled; None: the point's own origin.
            distill_seed: None: the point's own.
            start: Make the start instead, which takes no experts; of methods that have one.
        """
        method = METHODS[point.method]
        if not method.distils:
            return Making()
        distill_seed = point.distill_seed if distill_seed is None else distill_seed
        memo = (
            "making",
            point.method,
            point.ipc,
            point.init,
            distill_seed,
            point.distill_aug,
            self._origin_memo(point),
            part,
            start,
            id(point.grid),
        )
        if memo in self._memo:
            found: Making = self._memo[memo]
            return found
        facts, origin = self.facts[point.dataset], self.origin(point, part)
        assert point.ipc is not None
        settings = self.completed(point).settings
        if start:
            nothing = branches.start_of(settings)
            assert nothing is not None, point.method
            settings = nothing
        network = None
        if isinstance(settings, NetworkSettings):
            network = NetworkConfig.of(
                settings.variant,
                image_size=facts.config.image_size,
                channels=facts.config.channels,
                num_classes=len(origin.classes),
            )
        config = DistillConfig(
            method=method.name,
            method_version=method.version,
            dataset=facts.config,
            origin=origin,
            ipc=point.ipc,
            init=point.init,
            augmentation=point.distill_aug,
            network=network,
            settings=self._material(settings),
            distill_seed=distill_seed or 0,
        )
        experts = self._experts(point, part, config, settings)
        words = [*([str(part)] if part is not None else []), *(["start"] if start else [])]
        stage = self.make(
            "distill",
            point,
            label_of("distill", point, *words, distill_seed=distill_seed),
            config,
            tuple((f"expert.{index}", expert.key) for index, expert in enumerate(experts)),
            settings=settings,
        )
        made = self._memo[memo] = Making((*experts, stage))
        return made

    def _material(self, settings: MethodSettings) -> dict[str, Any]:
        """Settings as JSON types; few differ, and every stage that distils has them."""
        memo = ("material", settings.key_json)
        if memo not in self._memo:
            self._memo[memo] = settings.key_material()
        found: dict[str, Any] = self._memo[memo]
        return found

    def _experts(
        self, point: GridPoint, part: Part | None, config: DistillConfig, settings: MethodSettings
    ) -> tuple[Stage, ...]:
        """The experts of a distillation: the same for every start and seed of it. What takes no step needs none."""
        if config.network is None or settings.length == 0:
            return ()
        memo = ("experts", point.method, point.ipc, point.distill_aug, self._origin_memo(point), part, id(point.grid))
        if memo not in self._memo:
            words = label_of("experts", point, *([str(part)] if part is not None else []))
            configs = settings.experts(config.dataset, config.origin, config.network, config.augmentation)
            self._memo[memo] = tuple(
                self.make("experts", point, f"{words} expert={each.index}", each, ()) for each in configs
            )
        found: tuple[Stage, ...] = self._memo[memo]
        return found

    def training(
        self, point: GridPoint, making: Making, part: Part | None, seed: int, signals: SignalsConfig, start: bool
    ) -> Stage:
        """A further training like the point's own, on its own and without a curve.

        Args:
            point: Gives network, recipe and everything else.
            making: Of the set; without stages: train on the part itself.
            part: What the set is of; None: the point's own origin.
            seed: Of the training.
            signals: What the model is asked about.
            start: Whether the set is a start, for the label.
        """
        recipe = self.recipe(point)[0]
        recipe = recipe.model_copy(update={"ensemble": False}) if recipe.ensemble else recipe
        config = self._training(point, recipe, seed, part=part, signals=signals, curve_points=0)
        words = [*([str(part)] if part is not None else []), *(["start"] if start else [])]
        return self.make(
            "train", point, label_of("train", point, *words, seed=seed), config, making.inputs, recipe=recipe
        )

    def _train(self, point: GridPoint, recipe: RecipeConfig, making: Making) -> tuple[Stage, ...]:
        """The stage that leaves the point's model; before it the ensemble that it is taken from, if there is one."""
        label = label_of("train", point)
        repeat = self._repeat(point, making) if recipe.ensemble else None
        seeds = tuple(sorted(self._repeats[repeat])) if recipe.ensemble else ()
        signals = self._own_signals(point)
        if len(seeds) < 2:
            if recipe.ensemble:  # an ensemble of one is the training itself
                recipe = recipe.model_copy(update={"ensemble": False})
            config = self._training(point, recipe, point.seed, signals=signals)
            return (self.make("train", point, label, config, making.inputs, recipe=recipe),)
        ensemble = self._memo.get(("ensemble", repeat))
        if ensemble is None:
            first = self._training(point, recipe, seeds[0], signals=signals)
            ensemble = self._memo["ensemble", repeat] = self.make(
                "ensemble",
                point,
                label_of("ensemble", point, seeds=seeds),
                EnsembleConfig(base=first, seeds=seeds),
                making.inputs,
                recipe=recipe,
            )
        config = self._training(point, recipe, point.seed, signals=signals, ensemble=seeds)
        return ensemble, self.make("train", point, label, config, (("ensemble", ensemble.key),))

    def reference(self, point: GridPoint) -> Stage:
        """The training of a point of method ``full`` on its own, whatever is trained together."""
        memo = (
            "reference",
            point.architecture,
            point.seed,
            point.protocol,
            point.train_aug,
            id(point.grid),
            self._origin_memo(point),
        )
        if memo not in self._memo:
            recipe = self.recipe(point)[0].model_copy(update={"ensemble": False})
            (self._memo[memo],) = self._train(point, recipe, Making())
        found: Stage = self._memo[memo]
        return found

    def _repeat(self, point: GridPoint, making: Making) -> object:
        """Equal for points whose trainings differ in the seed alone."""
        parts = (self.facts[point.dataset].config, self.origin(point), self.recipe(point)[0])
        asked = self._own_signals(point) is not None
        return making.inputs, point.architecture, asked, *(part.key_json for part in parts)

    def _own_signals(self, point: GridPoint) -> SignalsConfig | None:
        """What the point's own model is asked about beside the test split: its origin, where that is audited."""
        if "privacy" not in point.evaluations or "seed" not in self.asked(point, PrivacySettings).audit:
            return None
        assert point.origin_per_class is not None, "feasible.py refuses the rest"
        return SignalsConfig()

    def _training(
        self, point: GridPoint, recipe: RecipeConfig, seed: int, part: Part | None = None, **more: Any
    ) -> TrainConfig:
        facts = self.facts[point.dataset]
        origin = self.origin(point, part)
        memo = ("network", point.dataset, point.architecture, len(origin.classes))
        if memo not in self._memo:
            self._memo[memo] = NetworkConfig.of(
                parse(point.architecture),
                image_size=facts.config.image_size,
                channels=facts.config.channels,
                num_classes=len(origin.classes),
            )
        return TrainConfig(
            dataset=facts.config,
            origin=origin,
            on_origin=point.method == "full",
            network=self._memo[memo],
            recipe=recipe,
            seed=seed,
            **more,
        )

    # --- evaluations on the main path ------------------------------------------------------------------------------

    def _accuracy(self, point: GridPoint, train: Stage) -> Stage:
        config = AccuracyConfig(num_classes=len(self.origin(point).classes))
        return self.make("accuracy", point, label_of("accuracy", point), config, (("model", train.key),))

    def _robustness(self, point: GridPoint, train: Stage) -> tuple[Stage, ...]:
        """An attack each, and their summary."""
        asked = self.asked(point, RobustnessSettings)
        origin, facts = self.origin(point), self.facts[point.dataset]
        memo = ("attacks", point.dataset, id(origin), id(asked))
        if memo not in self._memo:
            self._memo[memo] = [
                AttackConfig(
                    attack=spec.name,
                    dataset=facts.config,
                    classes=origin.classes,
                    settings=attack_settings(spec.name),
                    images=min(asked.images, len(origin.classes) * facts.test_per_class),
                    epsilons=epsilons_for(spec.name, asked.epsilons_l2, asked.epsilons_linf),
                )
                for spec in ROBUSTNESS_ATTACKS.values()
                if spec.name in asked.attacks
            ]
        configs: list[AttackConfig] = self._memo[memo]
        attacks = [
            self.make(
                "attack",
                point,
                label_of("attack", point, config.attack),
                config,
                (("model", train.key),),
                unavailable=missing_library(ROBUSTNESS_ATTACKS[config.attack]),
            )
            for config in configs
        ]
        summary = RobustnessConfig(num_classes=len(origin.classes), attacks=tuple(config.attack for config in configs))
        inputs = tuple((f"attack.{config.attack}", stage.key) for config, stage in zip(configs, attacks, strict=True))
        return *attacks, self.make("robustness", point, label_of("robustness", point), summary, inputs)

    # --- any stage ---------------------------------------------------------------------------------------------------

    def make(
        self,
        kind: Kind,
        point: GridPoint,
        label: str,
        config: Config,
        inputs: tuple[tuple[str, str], ...],
        *,
        unavailable: str | None = None,
        settings: MethodSettings | None = None,
        recipe: RecipeConfig | None = None,
    ) -> Stage:
        """The stage of a configuration and inputs: the one that exists, or a new one.

        Args:
            kind: What it does.
            point: One that needs it; for what it asks for and how long it takes.
            label: How people see it.
            config: Complete.
            inputs: (role, key).
            unavailable: Why it cannot run here.
            settings: Of a distillation.
            recipe: Of a training.
        """
        version = VERSIONS[kind]
        key = stage_key(kind, version, config.key_json, dict(inputs))
        found = self.stages.get(key)
        if found is not None:
            return found
        lineage: str = key
        budget = settings.length if settings is not None else None
        if settings is not None and budget is not None:
            assert isinstance(config, DistillConfig)
            lineage = stage_key(kind, version, f'{{"lineage":{config.lineage_json(settings.budget)}}}', dict(inputs))
        data = self.facts[point.dataset].config
        num_classes = point.num_classes or data.num_classes
        network = parse(ENCODER if kind in ("embedding", "tsne") else point.architecture)
        if isinstance(config, DistillConfig | ExpertConfig):
            network = config.network.variant if config.network is not None else parse("convnet3")
        members = len(config.seeds) if isinstance(config, EnsembleConfig) else 1
        default = resources.share(kind, point.method, network.base, data.image_size, num_classes, point.ipc, members)
        cpus, share = resources.requested(self.requests, kind, point.method, default)
        if _takes_a_member(config):
            share = None  # a copy of files: no card of its own
        stage = Stage(
            kind=kind,
            key=key,
            lineage=lineage,
            budget=budget,
            version=version,
            label=label,
            config=config,
            inputs=inputs,
            unavailable=unavailable,
            cpus=cpus,
            share=share,
            work=self._work(kind, point, network, num_classes, config, settings, recipe),
            size=resources.size(
                kind,
                architecture=network.base,
                width=network.relative_width,
                num_classes=num_classes,
                ipc=point.ipc,
                pixels=data.channels * data.image_size**2,
                members=members,
                numbers=_numbers(config, num_classes),
                test_images=num_classes * self.facts[point.dataset].test_per_class,
            ),
        )
        self.stages[key] = stage
        return stage

    # --- parts of configurations -----------------------------------------------------------------------------------

    def _origin_memo(self, point: GridPoint) -> tuple[Any, ...]:
        return (point.dataset, point.origin_per_class, point.origin_draw, point.num_classes, point.class_draw)

    def completed(self, point: GridPoint) -> Completed:
        """The settings of a point's method, presets and defaults filled in; and those nobody published for it."""
        memo = ("settings", point.method, point.dataset, point.ipc, id(point.grid))
        if memo not in self._memo:
            base = self.facts[point.dataset].config.base
            chosen = choose(point.method, base, point.ipc, point.settings)
            unpublished = tuple(entry for entry in chosen if not entry.exact and entry.setting not in point.settings)
            self._memo[memo] = Completed(completed(point.method, base, point.ipc, point.settings), unpublished)
        found: Completed = self._memo[memo]
        return found

    def asked(self, point: GridPoint, model: type[Asked]) -> Asked:
        """What is asked of an evaluation at a point, defaults filled in."""
        memo = ("asked", model, id(point.evaluations))
        if memo not in self._memo:
            kind = next(kind for kind, settings in EVALUATIONS.items() if settings is model)
            given = json.dumps(dict(point.evaluations[kind]))
            # What was given is held on to, so that its id stays its own.
            self._memo[memo] = (model.model_validate_json(given), point.evaluations)
        settings: Asked = self._memo[memo][0]
        return settings

    def origin(self, point: GridPoint, part: Part | None = None) -> OriginConfig:
        """The point's own origin, or a part beside it."""
        memo = ("origin", part, *self._origin_memo(point))
        if memo not in self._memo:
            total = self.facts[point.dataset].config.num_classes
            classes = tuple(range(total))
            if point.num_classes is not None:
                classes = class_subset(total, point.num_classes, point.class_draw or 0)
            if part is not None:
                draw = {"per_class": point.origin_per_class, "draw": point.origin_draw or 0}
                origin = OriginConfig.model_validate({"classes": classes, **draw, **part._asdict()})
            elif point.origin_per_class is None:
                origin = OriginConfig(classes=classes)
            else:
                origin = OriginConfig(
                    kind="draw", per_class=point.origin_per_class, draw=point.origin_draw or 0, classes=classes
                )
            self._memo[memo] = origin
        result: OriginConfig = self._memo[memo]
        return result

    def recipe(self, point: GridPoint) -> tuple[RecipeConfig, dict[str, Any]]:
        """How the point's model is trained, and how that differs from the protocol's recipe."""
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
        network: Variant,
        num_classes: int,
        config: Config,
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
        images, steps, batch, passes = num_classes * per_class, 0, 1, 0.0
        if isinstance(config, AttackConfig):
            images = config.images
            passes = ROBUSTNESS_ATTACKS[config.attack].cost(config.settings, len(config.epsilons))
        elif isinstance(config, EmbeddingConfig):
            images, passes = num_classes * (config.real_per_class + (point.ipc or 0)), 1.0
        elif isinstance(config, ExpertConfig):
            steps, batch = config.snapshots * config.steps_between(-(-images // config.batch)), config.batch
        elif recipe is not None:
            # What a set decodes to is in the settings of its distillation; an estimate may read them as given.
            factor = int(point.settings.get("factor", 2 if point.method == "idc" else 1))
            images = num_classes * (point.ipc * factor**2 if point.ipc else per_class)
            steps, batch = recipe.steps or (recipe.epochs or 0) * -(-images // recipe.batch), recipe.batch
        return resources.work(
            kind,
            gflop=gflop,
            images=images,
            steps=steps,
            batch=batch,
            test_images=num_classes * facts.test_per_class,
            members=len(config.seeds) if isinstance(config, EnsembleConfig) else 1,
            passes=passes,
        )


def _takes_a_member(config: Config) -> bool:
    """Whether a training only takes its model from an ensemble."""
    return isinstance(config, TrainConfig) and config.ensemble is not None


def _numbers(config: Config, num_classes: int) -> int:
    """Numbers that a stage keeps beside what all of its kind do: signals, features, scores."""
    match config:
        case EnsembleConfig():
            return len(config.seeds) * _numbers(config.base, num_classes)
        case TrainConfig(signals=SignalsConfig() as signals, origin=origin):
            images = (origin.per_class or 0) * (1 if origin.kind == "draw" and origin.block is None else 2)
            return num_classes * (images + signals.population + signals.reserve) * (num_classes + 4)
        case AttackConfig():
            return config.images * (len(config.epsilons) + 6)
        case EmbeddingConfig():
            return num_classes * config.real_per_class * resources.FEATURES
        case PrivacyConfig():
            per_class = 2 * (config.origin.per_class or 0) + config.signals.reserve
            return num_classes * per_class * 2 * (len(config.attacks) + 2) * (config.targets + 1)
    return 0


def missing_library(spec: RobustnessAttack) -> str | None:
    """Why an attack cannot run here, or None. Looked for and not loaded, where the sweep is planned."""
    if spec.extra is None or _is_there(spec.library):
        return None
    return f"attack {spec.name} needs {spec.library}, which is not installed: pip install 'ddray[{spec.extra}]'"


@cache
def _is_there(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
