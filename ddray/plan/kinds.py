"""What the planner knows of each kind of stage, one record each: version, label, job, memory of a card, work, bytes.

Memory, work and bytes are estimates: for the shares of cards, the order of jobs, the remaining time and the space on
the disk, never for a result. What a method, a network or an attack costs stands in its own record (``trainables``).
Measured numbers take the place of memory and work as soon as there are some (``ddray/price/``).

A further kind is its name and configuration in ``trainables/configs.py``, its computation in ``trainables/stages.py``
and its record here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

from ddray.plan.shares import share_of
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.configs import (
    AccuracyConfig,
    AttackConfig,
    Config,
    DatasetConfig,
    DistillConfig,
    EmbeddingConfig,
    EmbeddingSettings,
    EnsembleConfig,
    ExpertConfig,
    Kind,
    MethodSettings,
    PrivacyConfig,
    PrivacySettings,
    RobustnessConfig,
    RobustnessSettings,
    TrainConfig,
    TsneConfig,
)
from trainables.data.known import KNOWN
from trainables.methods import METHODS
from trainables.networks import Architecture, Variant, parse

ENCODER: Architecture = "convnet3"
"""The network in whose features sets are compared."""
TESTED_TOGETHER, ATTACKED_TOGETHER = 1024, 250
"""Images that pass a network at once on a card (``train.EVAL_BATCH``, ``robustness.network.BATCH``)."""

AUGMENTED = 12
"""Copies of an image that live while the next group is gathered and augmented."""
COPYING = 0.01
"""GFLOP of a stage that computes next to nothing."""
PRIVACY_GFLOP, TSNE_GFLOP = 200.0, 500.0
"""That last as long as these stages do on one core: attack classifiers and resampling; gradient descent."""
SMALL_FILES = 32 * 2**10
"""Bytes of a stage that leaves metrics, or an expert's snapshots without their tensors."""
FEATURES = 2048
"""Numbers in the last feature map of ConvNet3, of an image of 32 pixels."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a stage works on, beside its configuration: memory, work and bytes follow from the two."""

    method: str
    settings: MethodSettings
    """Of the method, complete."""
    ipc: int | None
    network: Variant
    """That the point trains."""
    image_size: int
    """Height = width, pixels."""
    channels: int
    num_classes: int
    """Of the point."""
    test_images: int
    """Of these classes."""
    origin_images: int
    """Real images of each class."""
    train_images: int
    """Of each class that the point's network is trained on."""

    def gflop(self, network: Variant) -> float:
        """Of one image's forward pass."""
        return network.forward_gflop(self.image_size, self.channels)


Memory = Callable[[Any, Load], float | None]
Work = Callable[[Any, Load], float]
Size = Callable[[Any, Load], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKind:
    """One kind of stage as the planner sees it. ``memory``, ``work`` and ``size`` take the stage's configuration, which
    is of the type ``config``, and its load."""

    config: type[Config]
    version: int
    """Raised by hand when the results of the kind change; CHANGELOG.md then says so under *Invalidates*."""
    memory: Memory
    """MiB that tensors hold of a card at its fullest; 0: needs none; infinite: a whole card, whichever; None: looks at
    what others stored and takes the share of the job that it is part of."""
    work: Work
    """GFLOP."""
    size: Size
    """Bytes in the store."""
    settings: type[Config] | None = None
    """What a sweep may say of it under ``evaluations``; None: a sweep cannot ask for it."""
    of_model_alone: Callable[[Any, DatasetConfig, int], Config] | None = None
    """Of an evaluation whose only input is the point's ``model``: its configuration, from the settings that were
    requested (None where there are none), the data set and the number of classes."""
    first_metric: str | None = None
    """Of an evaluation: the metric that stands on the row of one without a result."""
    of_method: bool = False
    """Whether it belongs to the method: ``resources`` of a sweep may then name the method."""
    of_model: bool = True
    """Whether it needs the point's network: its label then names network and training seed."""
    alone: bool = False
    """Whether it starts a job of its own: it waits for shadows or encoders, and a point's training must not wait
    with it."""
    per_job: int | None = None
    """So many form a job, whoever needs them; they do not depend on each other. Not in any key."""
    of_all: bool = False
    """Whether it is of several points together: it is needed once all of them are selected, because that one is wanted
    is no reason to make the others' sets."""
    copies: Callable[[Any], bool] = lambda config: False
    """Whether it only copies files: it then takes no card of its own, whatever the sweep asks for."""


# --- memory of a card -------------------------------------------------------------------------------------------------


def _images_mib(images: float, load: Load) -> float:
    return images * load.channels * load.image_size**2 * 4 / 2**20


def _memory_of_distillation(config: DistillConfig, load: Load) -> float:
    """The origin, the set with its momentum and gradient, and what the method says that it holds."""
    method, network = METHODS.get(config.method), _matched(config)
    if method is not None and not method.card:
        return 0.0
    batch_statistics = network.norm == "batch"
    held = load.settings.held(load.num_classes, config.ipc, load.origin_images, batch_statistics)
    if held is None:
        return math.inf
    each = network.activations(load.image_size)
    passing = max(held.forward * each.forward, held.graph * each.graph, held.double * each.double)
    images = load.num_classes * (load.origin_images + 3 * config.ipc)
    images += AUGMENTED * math.ceil(max(held.forward + held.graph, held.double))
    return _images_mib(images, load) + passing + held.networks * network.file_bytes / 2**20


def _memory_of_expert(config: ExpertConfig, load: Load) -> float:
    images = load.num_classes * load.origin_images
    return _memory_of_training(config.network.variant, 1, config.batch, images, load)


def _memory_of_train(config: TrainConfig, load: Load) -> float:
    return _memory_of_recipe(config, 1, load)


def _memory_of_ensemble(config: EnsembleConfig, load: Load) -> float:
    return _memory_of_recipe(config.base, len(config.seeds), load)


def _memory_of_recipe(config: TrainConfig, networks: int, load: Load) -> float:
    images = load.num_classes * load.train_images
    batch, apart = config.recipe.batch, 0.0
    if config.recipe.private is not None:  # few images pass together, and each has gradients of its own
        batch = min(batch, config.recipe.private.together)
        apart = batch * load.network.file_bytes / 2**20
    if config.teacher is not None and config.teacher.online:
        shown = networks * min(batch, images)
        apart = shown * load.network.activations(load.image_size).forward + load.network.file_bytes / 2**20
    held = _memory_of_training(load.network, networks, batch, images, load)
    return held + apart + _images_mib(load.test_images, load)


def _memory_of_training(network: Variant, networks: int, batch: int, images: int, load: Load) -> float:
    """The images, a step or a look at the test images, weights with gradients and momentum."""
    each = network.activations(load.image_size)
    passing = max(networks * min(batch, images) * each.graph, TESTED_TOGETHER * each.forward)
    return _images_mib(images, load) + passing + 4 * networks * network.file_bytes / 2**20


def _memory_of_attack(config: AttackConfig, load: Load) -> float:
    """A batch with its graph, and the gradients of as many classes as DeepFool follows."""
    each = load.network.activations(load.image_size)
    return 2 * ATTACKED_TOGETHER * each.graph + 2 * load.network.file_bytes / 2**20


def _memory_of_embedding(config: EmbeddingConfig, load: Load) -> float:
    images = load.num_classes * (config.real_per_class + (load.ipc or 0))
    return _images_mib(images, load) + TESTED_TOGETHER * parse(ENCODER).activations(load.image_size).forward


def _none(config: Config, load: Load) -> None:
    return None


def _no_card(config: Config, load: Load) -> float:
    return 0.0


# --- work -------------------------------------------------------------------------------------------------------------


def _training_work(networks: int, steps: int, batch: int, images: int, gflop: float, load: Load) -> float:
    """A training step costs three forward passes: forward, and backward for inputs and weights."""
    return networks * (3 * steps * min(batch, images) * gflop + load.test_images * gflop)


def _work_of_expert(config: ExpertConfig, load: Load) -> float:
    images = load.num_classes * load.origin_images
    steps = config.snapshots * config.steps_between(-(-images // config.batch))
    gradients = 2 if config.radius else 1  # at the parameters, and where they are flatter
    return gradients * _training_work(1, steps, config.batch, images, load.gflop(config.network.variant), load)


def _work_of_distillation(config: DistillConfig, load: Load) -> float:
    runs = load.settings.length or 0
    passes = load.settings.passes(load.num_classes, config.ipc, load.origin_images)
    return float(runs * passes * load.gflop(_matched(config))) + COPYING


def _work_of_training(config: TrainConfig, load: Load) -> float:
    return COPYING if _takes_a_member(config) else _work_of_recipe(config, 1, load)


def _work_of_ensemble(config: EnsembleConfig, load: Load) -> float:
    return _work_of_recipe(config.base, len(config.seeds), load)


def _work_of_recipe(config: TrainConfig, networks: int, load: Load) -> float:
    recipe, images = config.recipe, load.num_classes * load.train_images
    steps = recipe.steps or (recipe.epochs or 0) * -(-images // recipe.batch)
    gflop = load.gflop(load.network)
    work = _training_work(networks, steps, recipe.batch, images, gflop, load)
    if config.teacher is not None and config.teacher.online:
        work += networks * steps * min(recipe.batch, images) * gflop
    return work


def _work_of_attack(config: AttackConfig, load: Load) -> float:
    passes = ROBUSTNESS_ATTACKS[config.attack].cost(config.settings, len(config.epsilons))
    return COPYING + passes * config.images * load.gflop(load.network)


def _work_of_embedding(config: EmbeddingConfig, load: Load) -> float:
    images = load.num_classes * (config.real_per_class + (load.ipc or 0))
    return COPYING + 1.0 * images * load.gflop(parse(ENCODER))


# --- bytes ------------------------------------------------------------------------------------------------------------


def _size_of_distillation(config: DistillConfig, load: Load) -> int:
    numbers = load.channels * load.image_size**2
    return load.settings.stored_bytes(load.num_classes, config.ipc, numbers)


def _size_of_training(config: TrainConfig, load: Load) -> int:
    return _size_of_models(1, config, load)


def _size_of_ensemble(config: EnsembleConfig, load: Load) -> int:
    return _size_of_models(len(config.seeds), config.base, load)


def _size_of_models(networks: int, config: TrainConfig, load: Load) -> int:
    """Parameters, logits of the test split, and what the models say of members."""
    queried = 0
    if config.signals is not None:
        origin = config.origin
        images = (origin.per_class or 0) * (1 if origin.kind == "draw" and origin.block is None else 2)
        images += config.signals.population + config.signals.reserve
        queried = load.num_classes * images * (load.num_classes + 4)
    return networks * (load.network.file_bytes + load.test_images * load.num_classes * 4 + 4 * queried)


def _size_of_attack(config: AttackConfig, load: Load) -> int:
    return SMALL_FILES + 4 * config.images * (len(config.epsilons) + 6)


def _size_of_privacy(config: PrivacyConfig, load: Load) -> int:
    per_class = 2 * (config.origin.per_class or 0) + config.signals.reserve
    return SMALL_FILES + 4 * load.num_classes * per_class * 2 * (len(config.attacks) + 2) * (config.targets + 1)


def _size_of_embedding(config: EmbeddingConfig, load: Load) -> int:
    return SMALL_FILES + 4 * load.num_classes * config.real_per_class * FEATURES


def _small(config: Config, load: Load) -> int:
    return SMALL_FILES


# --- records ----------------------------------------------------------------------------------------------------------


def _matched(config: DistillConfig) -> Variant:
    """The network that a distillation matches on; ConvNet3's shares hold for methods without one."""
    return config.network.variant if config.network is not None else parse("convnet3")


@cache
def _accuracy(dataset: DatasetConfig | None, num_classes: int) -> AccuracyConfig:
    return AccuracyConfig(num_classes=num_classes, dataset=dataset)


def has_groups(dataset: DatasetConfig) -> bool:
    """Whether its images have a group beside their class."""
    return dataset.folder is None and KNOWN[dataset.base].made is not None


def _takes_a_member(config: TrainConfig) -> bool:
    """Whether a training only takes its model from an ensemble."""
    return config.ensemble is not None


STAGE_KINDS: Mapping[Kind, StageKind] = {
    "experts": StageKind(
        config=ExpertConfig,
        version=1,
        memory=_memory_of_expert,
        work=_work_of_expert,
        size=_small,
        of_method=True,
        of_model=False,
        per_job=5,  # minutes on a GPU, and enough jobs for a cluster
    ),
    "distill": StageKind(
        config=DistillConfig,
        version=1,
        memory=_memory_of_distillation,
        work=_work_of_distillation,
        size=_size_of_distillation,
        of_method=True,
        of_model=False,
    ),
    "ensemble": StageKind(
        config=EnsembleConfig,
        version=1,
        memory=_memory_of_ensemble,
        work=_work_of_ensemble,
        size=_size_of_ensemble,
    ),
    "train": StageKind(
        config=TrainConfig,
        version=1,
        memory=_memory_of_train,
        work=_work_of_training,
        size=_size_of_training,
        copies=_takes_a_member,
    ),
    "accuracy": StageKind(
        config=AccuracyConfig,
        version=4,
        of_model_alone=lambda _, dataset, num_classes: _accuracy(dataset if has_groups(dataset) else None, num_classes),
        first_metric="test_acc",
        memory=_none,
        work=lambda config, load: COPYING,
        size=_small,
    ),
    "attack": StageKind(
        config=AttackConfig,
        version=1,
        memory=_memory_of_attack,
        work=_work_of_attack,
        size=_size_of_attack,
    ),
    "robustness": StageKind(
        config=RobustnessConfig,
        version=2,
        settings=RobustnessSettings,
        first_metric="adv_acc",
        memory=_none,
        work=lambda config, load: COPYING,
        size=_small,
    ),
    "privacy": StageKind(
        config=PrivacyConfig,
        version=5,
        settings=PrivacySettings,
        first_metric="mia_auc",
        memory=_no_card,
        work=lambda config, load: PRIVACY_GFLOP,
        size=_size_of_privacy,
        alone=True,
    ),
    "embedding": StageKind(
        config=EmbeddingConfig,
        version=1,
        settings=EmbeddingSettings,
        first_metric="embed_outlier_rate",
        memory=_memory_of_embedding,
        work=_work_of_embedding,
        size=_size_of_embedding,
        of_model=False,
        alone=True,
    ),
    "tsne": StageKind(
        config=TsneConfig,
        version=1,
        first_metric="tsne_trustworthiness",
        memory=_no_card,
        work=lambda config, load: TSNE_GFLOP,
        size=_small,
        of_model=False,
        alone=True,
        of_all=True,
    ),
}
"""By name, in the order of the flow."""


class Request(Protocol):
    """A ``resources:`` entry of a sweep; fields that are None leave the default."""

    @property
    def cpus(self) -> float | None: ...
    @property
    def gpu(self) -> float | None: ...


class Reservation(NamedTuple):
    """What a stage asks for."""

    cpus: float
    share: float | None
    """Of the reference card; 0: none; None: that of its job."""
    held_mib: float
    """From which the share follows; 0: it was asked for, or there is none."""


def reservation(kind: Kind, config: Config, load: Load, requests: Mapping[str, Request]) -> Reservation:
    """By the record, and the sweep's ``resources`` before it.

    The more specific entry wins: kind, then method, then ``kind.method``; entries for a method apply to the stages that
    belong to it.
    """
    record = STAGE_KINDS[kind]
    cpus, asked = 1.0, None
    names = [kind, load.method, f"{kind}.{load.method}"] if record.of_method else [kind]
    for request in (requests[name] for name in names if name in requests):
        cpus = request.cpus if request.cpus is not None else cpus
        asked = request.gpu if request.gpu is not None else asked
    if record.copies(config):
        return Reservation(cpus, None, 0.0)
    held = record.memory(config, load) if asked is None else None
    if held is None:
        return Reservation(cpus, asked, 0.0)
    return Reservation(cpus, share_of(held), held)


def work_of(kind: Kind, config: Config, load: Load) -> float:
    """GFLOP of a stage: the record's estimate. A measured cost of stages like it would enter here."""
    return STAGE_KINDS[kind].work(config, load)


def cost_class_of(kind: Kind, config: Config, load: Load) -> str:
    """What stages have in common that cost the same for each GFLOP: kind and version, method or attack, network, size
    of the images. Measured costs are kept by it (``ddray/price/``)."""
    record = STAGE_KINDS[kind]
    words = [f"{kind}.{record.version}"]
    if record.of_method:
        words.append(load.method)
    elif isinstance(config, AttackConfig):
        words.append(config.attack)
    match config:
        case DistillConfig():
            words.append(_matched(config).name if config.network is not None else "no-network")
        case ExpertConfig():
            words.append(config.network.variant.name)
        case EnsembleConfig():
            words.append(f"{len(config.seeds)}x{load.network.name}")
        case EmbeddingConfig():
            words.append(ENCODER)
        case _:
            words.append(load.network.name if record.of_model else "no-network")
    if record.copies(config):
        words.append("copied")
    if isinstance(config, TrainConfig) and config.recipe.private is not None:
        words.append("private")
    return " ".join([*words, f"{load.image_size}px"])
