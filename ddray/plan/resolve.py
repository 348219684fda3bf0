"""A grid point with everything filled in: presets, defaults, the protocol's recipe, the images that it is about.

Points are many, and what they consist of is little: the parts are frozen values, made once by cached functions, and
stages are looked up by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

from pydantic import ValidationError

from ddray.plan.datasets import DatasetInfo
from ddray.plan.imported import NAME, Imported
from ddray.plan.kinds import Load
from ddray.plan.points import FrozenValues, GridPoint
from trainables.configs import (
    Augmentation,
    Config,
    DatasetConfig,
    DistillConfig,
    ExpertConfig,
    MethodSettings,
    NetworkConfig,
    NetworkSettings,
    OriginConfig,
    PrivacySettings,
    RecipeConfig,
    SignalsConfig,
    TeacherConfig,
    TrainConfig,
)
from trainables.data.known import class_subset
from trainables.methods import EXTERNAL, METHODS
from trainables.networks import Variant, parse
from trainables.presets import Chosen, choose, completed
from trainables.protocols import PROTOCOLS
from trainables.teachers import parse as parse_teacher

Requested = TypeVar("Requested", bound=Config)
Settings = tuple[MethodSettings, tuple[Chosen, ...]]
"""A method's settings with presets and defaults; and those that nobody published for the combination."""
_NOTHING_SET: Settings = (MethodSettings(), ())


class Part(NamedTuple):
    """Images beside the point's own, for its audits: what ``OriginConfig`` holds beyond what the point says."""

    kind: Literal["draw", "pool", "coin"]
    row: int | None = None
    block: int | None = None
    canaries: int = 0

    def __str__(self) -> str:
        """As in labels."""
        return f"block={self.block}" if self.kind == "draw" else f"{self.kind}={self.row}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSpec:
    """How a distilled set is made: equal for all points that use the set, so that its stages are made once."""

    method: str
    dataset: DatasetConfig
    origin: OriginConfig
    ipc: int
    init: str | None
    augmentation: Augmentation | None
    settings: MethodSettings
    distill_seed: int | None
    """None for methods without one."""
    point: GridPoint = field(compare=False)
    """The first that uses it: for labels, which name its axes."""
    load: Load = field(compare=False)
    words: tuple[str, ...] = field(default=(), compare=False)
    """What tells it from the point's own set in labels."""

    @property
    def config(self) -> DistillConfig:
        """Of the stage ``distill``."""
        method = METHODS[self.method]
        return DistillConfig(
            method=method.name,
            method_version=method.version,
            dataset=self.dataset,
            origin=self.origin,
            ipc=self.ipc,
            init=self.init,
            augmentation=self.augmentation,
            network=self.network,
            settings=_material(self.settings),
            distill_seed=self.distill_seed or 0,
        )

    @property
    def network(self) -> NetworkConfig | None:
        """That the method matches on."""
        if not isinstance(self.settings, NetworkSettings):
            return None
        return network_of(self.settings.variant, self.dataset, len(self.origin.classes))

    @property
    def experts(self) -> tuple[ExpertConfig, ...]:
        """What takes no step needs none, unless they label its start."""
        network = self.network
        if network is None or (self.settings.length == 0 and self.settings.label_source is None):
            return ()
        return self.settings.experts(self.dataset, self.origin, network, self.augmentation)

    @property
    def start(self) -> SetSpec | None:
        """The start of the same set, before the first step; None where the method has no such start, or it is one
        already."""
        settings = start_of(self.settings)
        if settings is None:
            return None
        load = replace(self.load, settings=settings)
        return replace(self, settings=settings, load=load, words=(*self.words, "start"))

    def of(self, origin: OriginConfig, distill_seed: int | None, *words: str) -> SetSpec:
        """The same of other images, with another seed."""
        return replace(self, origin=origin, distill_seed=distill_seed, words=(*self.words, *words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A point, complete."""

    point: GridPoint
    data: DatasetInfo
    origin: OriginConfig
    """Its own images."""
    set: SetSpec | None
    """None: the network is trained on the origin, or set or model was imported."""
    imported: Imported | None
    """What stands for the point's set or model."""
    network: NetworkConfig
    recipe: RecipeConfig
    changes: Mapping[str, Any]
    """Values of the recipe that differ from the protocol's."""
    unpublished: tuple[Chosen, ...]
    """Settings that nobody published for this combination."""
    load: Load
    teacher: Resolved | None = None
    """What labels the images of the set, as a point of ``full``; None: they have the set's own labels."""

    @property
    def protocol(self) -> str:
        """The recipe's name, with ``*`` when any of its values was overridden."""
        return self.point.protocol + ("*" if self.changes else "")

    @property
    def signals(self) -> SignalsConfig | None:
        """What the point's own model is asked about beside the test split: its origin, where that is audited."""
        if self.imported is not None:
            return SignalsConfig() if self.imported.members is not None else None
        if "privacy" not in self.point.evaluations or "seed" not in self.requested("privacy", PrivacySettings).audit:
            return None
        assert self.point.origin_per_class is not None, "feasible.py refuses the rest"
        return SignalsConfig()

    @property
    def labels(self) -> TeacherConfig | None:
        """What labels the images of the set, at the temperature that its labels are learned at; None: they have their
        own labels."""
        if self.point.labels is None:
            return None
        own = parse_teacher(self.point.labels).config
        temperature = self.recipe.temperature
        return own if temperature is None else own.model_copy(update={"temperature": temperature})

    def requested(self, kind: str, settings: type[Requested]) -> Requested:
        """What the sweep says of an evaluation, defaults filled in."""
        complete: Requested = _evaluation(settings, FrozenValues.of(self.point.evaluations[kind]))
        return complete

    def part(self, part: Part) -> OriginConfig:
        """Images beside the point's own."""
        assert self.point.origin_per_class is not None, "feasible.py refuses the rest"
        return _part(part, self.origin.classes, self.point.origin_per_class, self.point.origin_draw or 0)

    def training(self, seed: int, *, recipe: RecipeConfig | None = None, **other: Any) -> TrainConfig:
        """A training of the point's network; ``other`` replaces what is the point's own."""
        values: dict[str, Any] = {
            "dataset": self.data.config,
            "origin": self.origin,
            "on_origin": self.point.method == "full",
            "network": self.network,
            "recipe": recipe or self.recipe,
            "seed": seed,
            "teacher": self.labels,
            **other,
        }
        return TrainConfig(**values)

    @property
    def own_recipe(self) -> RecipeConfig:
        """The recipe of a network that is trained on its own, whatever is trained together."""
        return _alone(self.recipe)


class Resolver:
    """Completes points of one sweep, or of one imported set or model.

    Args:
        datasets: By name.
        imported: What points of the method ``external`` are about, by the name in their settings; None is the name of
            what is evaluated alone.
    """

    def __init__(
        self, datasets: Mapping[str, DatasetInfo], imported: Mapping[str | None, Imported] | None = None
    ) -> None:
        self.datasets = datasets
        self.imported = imported or {}
        # Of this plan alone: the table of presets may grow before the next one.
        self._settings = cache(_settings)
        self._data = cache(lambda dataset, method: datasets[dataset].for_method(method))

    def __call__(self, point: GridPoint) -> Resolved:
        """Everything that the point consists of."""
        data = self._data(point.dataset, point.method)
        imported = self.imported[point.settings.get(NAME)] if point.method == EXTERNAL else None
        origin = self._origin(point, data.config, imported)
        recipe, changes = self._recipe(point)
        settings, unpublished = _NOTHING_SET
        if imported is None:
            settings, unpublished = self._settings(
                point.method, data.config.base, point.ipc, FrozenValues.of(point.settings)
            )
        num_classes = point.num_classes or data.config.num_classes
        origin_images = point.origin_per_class or data.train_per_class
        network = parse(point.architecture)
        load = Load(
            method=point.method,
            settings=settings,
            ipc=point.ipc,
            network=network,
            image_size=data.config.image_size,
            channels=data.config.channels,
            num_classes=num_classes,
            test_images=num_classes * data.test_per_class,
            origin_images=origin_images,
            train_images=_train_images(point, settings, imported) or origin_images,
        )
        set_spec = None
        if imported is None and METHODS[point.method].distils:
            assert point.ipc is not None
            set_spec = SetSpec(
                method=point.method,
                dataset=data.config,
                origin=origin,
                ipc=point.ipc,
                init=point.init,
                augmentation=cast("Augmentation | None", point.distill_aug),
                settings=settings,
                distill_seed=point.distill_seed,
                point=point,
                load=load,
            )
        return Resolved(
            point=point,
            data=data,
            origin=origin,
            set=set_spec,
            imported=imported,
            network=network_of(network, data.config, len(origin.classes)),
            recipe=recipe,
            changes=changes,
            unpublished=unpublished if set_spec is not None else (),
            load=load,
            teacher=self(_teacher(point, data.config.base)) if point.labels is not None else None,
        )

    def _origin(self, point: GridPoint, dataset: DatasetConfig, imported: Imported | None) -> OriginConfig:
        if imported is not None:
            return imported.origin
        if (alone := self.imported.get(None)) is not None:  # its encoder sees all images of its classes
            return OriginConfig(classes=alone.classes)
        return _origin(
            dataset.num_classes, point.num_classes, point.class_draw, point.origin_per_class, point.origin_draw
        )

    def _recipe(self, point: GridPoint) -> tuple[RecipeConfig, Mapping[str, Any]]:
        if point.protocol == EXTERNAL:  # of a model; nothing is trained by it
            return next(iter(PROTOCOLS.values())).recipe, {}
        return _recipe(point.protocol, FrozenValues.of(point.train), point.train_aug)


def _teacher(point: GridPoint, base: str) -> GridPoint:
    """The teacher of a point's labels: trained on all real images that the point is about, whatever its method, with
    the data set's own constants, so that all methods have the same one."""
    assert point.labels is not None, point
    assert point.ipc is not None, point
    known = parse_teacher(point.labels)
    nothing: dict[str, Any] = dict.fromkeys(("ipc", "init", "distill_seed", "distill_aug", "train_aug", "labels"))
    changes = FrozenValues(known.changes(base, point.ipc))
    return replace(point, method="full", protocol=known.protocol, train=changes, settings={}, evaluations={}, **nothing)


def start_of(settings: MethodSettings) -> MethodSettings | None:
    """The settings that stop a method before its first step; None where it has no such start, or is one already."""
    if not settings.length or settings.budget is None:
        return None
    try:
        return type(settings).model_validate({**settings.model_dump(), settings.budget: 0})
    except ValidationError:  # a method of another package may not know an iteration 0
        return None


@cache
def network_of(network: Variant, dataset: DatasetConfig, num_classes: int) -> NetworkConfig:
    """The complete description of a network for images of a data set."""
    return NetworkConfig.of(network, image_size=dataset.image_size, channels=dataset.channels, num_classes=num_classes)


def _train_images(point: GridPoint, settings: MethodSettings, imported: Imported | None) -> int | None:
    """Of each class, that the point's set decodes to; None: it has no set."""
    if point.ipc is None:
        return None
    return point.ipc * imported.factor**2 if imported is not None else settings.decoded_images(point.ipc)


def _settings(method: str, base: str, ipc: int | None, given: FrozenValues) -> Settings:
    chosen = choose(method, base, ipc, given)
    unpublished = tuple(entry for entry in chosen if not entry.exact and entry.setting not in given)
    return completed(method, base, ipc, given), unpublished


@cache
def _origin(
    total: int, num_classes: int | None, class_draw: int | None, per_class: int | None, draw: int | None
) -> OriginConfig:
    classes = tuple(range(total))
    if num_classes is not None:
        classes = class_subset(total, num_classes, class_draw or 0)
    if per_class is None:
        return OriginConfig(classes=classes)
    return OriginConfig(kind="draw", per_class=per_class, draw=draw or 0, classes=classes)


@cache
def _part(part: Part, classes: tuple[int, ...], per_class: int, draw: int) -> OriginConfig:
    return OriginConfig.model_validate({"classes": classes, "per_class": per_class, "draw": draw, **part._asdict()})


@cache
def _recipe(protocol: str, train: FrozenValues, train_aug: str | None) -> tuple[RecipeConfig, Mapping[str, Any]]:
    """How a model is trained, and how that differs from the protocol's recipe."""
    base = PROTOCOLS[protocol].recipe
    given = {"epochs": None, **train} if "steps" in train else dict(train)
    if train_aug is not None:
        given["augmentation"] = train_aug
    recipe = RecipeConfig.model_validate({**base.model_dump(), **given})
    before, after = base.key_material(), recipe.key_material()
    before["ensemble"] = after.get("ensemble")  # how, not what: the recipe stays the one that is named
    changes = {name: value for name, value in after.items() if value != before.get(name)}
    return recipe, {name: value for name, value in changes.items() if value is not None}


@cache
def _alone(recipe: RecipeConfig) -> RecipeConfig:
    return recipe.model_copy(update={"ensemble": False}) if recipe.ensemble else recipe


@cache
def _evaluation(settings: type[Requested], given: FrozenValues) -> Requested:
    return settings.model_validate_json(given.text)


@cache
def _material(settings: MethodSettings) -> dict[str, Any]:
    """Settings as JSON types; few differ, and every stage that distils has them."""
    return settings.key_material()
