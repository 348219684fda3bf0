"""What a stage is asked to do: frozen pydantic models, one per stage kind. No torch here.

Everything that can change a stage's result is a field, filled in before the key is made; where the result is
computed (device, paths, workers) is not. Two devices keep keys meaningful over time:

* a field in ``outside_key`` helps a worker find something (a folder, a display name) and never enters the key;
* a field in ``neutral`` was added later and is left out of the key while it holds the value that reproduces the
  behaviour from before it existed, so that finished work keeps its address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["experts", "distill", "ensemble", "train", "accuracy", "robustness", "privacy", "embedding"]
KINDS: tuple[Kind, ...] = (
    "experts", "distill", "ensemble", "train", "accuracy", "robustness", "privacy", "embedding",
)  # fmt: skip
Init = Literal["noise", "real"]
Architecture = Literal["convnet3", "resnet18", "vgg16"]
Norm = Literal["instance", "batch", "layer", "group", "none"]
Augmentation = Literal["dsa", "none"]

VERSIONS: dict[Kind, int] = {
    "experts": 1, "distill": 1, "ensemble": 1, "train": 1, "accuracy": 1, "robustness": 1, "privacy": 1, "embedding": 1,
}  # fmt: skip
"""Raised by hand when the results of a kind change; CHANGELOG.md then says so under *Invalidates*."""


class Config(BaseModel):
    """Base of all stage configurations: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    outside_key: ClassVar[frozenset[str]] = frozenset()
    neutral: ClassVar[dict[str, Any]] = {}

    @cached_property
    def key_json(self) -> str:
        """The part of the configuration that determines the result, as canonical JSON.

        Made once per instance: a plan of a hundred thousand points shares a few data sets, origins and recipes.
        """
        parts = [
            f'"{name}":{_json_of(getattr(self, name))}'
            for name in sorted(type(self).model_fields)
            if name not in self.outside_key and not (name in self.neutral and getattr(self, name) == self.neutral[name])
        ]
        return "{" + ",".join(parts) + "}"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, whose key text is made anew."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("key_json", None)
        return copy

    def key_material(self) -> dict[str, Any]:
        """The same as JSON types."""
        material: dict[str, Any] = json.loads(self.key_json)
        return material


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted names and no spaces; the same value always gives the same text.

    Raises:
        ValueError: The value holds NaN or an infinity, which have no JSON form.
    """
    return _ENCODER.encode(value)


def _json_of(value: Any) -> str:
    if type(value) is int:  # most fields; the encoder would cost ten times as much
        return str(value)
    return value.key_json if isinstance(value, Config) else _ENCODER.encode(value)


class DatasetConfig(Config):
    """Which images, and the constants they are normalised with."""

    outside_key: ClassVar[frozenset[str]] = frozenset({"name", "base", "folder", "resize"})

    name: str
    """The name used in the sweep."""
    base: str
    """The known data set whose loader, constants and label column apply (``like`` in the sweep)."""
    folder: str | None = None
    """Folder below DDRAY_DATA when it is not the known data set's own."""
    resize: int | None = Field(default=None, ge=4, le=256)
    """Height and width in pixels to which images are resized when the cache is built (the digest covers it)."""
    digest: str
    """Content digest of both splits in canonical order, after resizing: ``sha256:…``."""
    num_classes: int = Field(ge=2)
    image_size: int = Field(ge=4)
    """Height = width, pixels, after resizing."""
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    """Per channel, of images scaled to [0, 1]."""
    std: tuple[float, ...]
    flip: bool = True
    """Whether a mirrored image keeps its meaning: false for digits (the authors drop the flip there)."""


class OriginConfig(Config):
    """What is distilled: a training set or a part of it.

    ``full``: every training image of the classes. ``draw``: ``per_class`` random images of each class.
    ``pool``: row ``row`` of a membership matrix over a pool of 2 * ``per_class`` images per class; row 2k + 1 is the
    complement of row 2k.
    """

    kind: Literal["full", "draw", "pool"] = "full"
    per_class: int | None = Field(default=None, ge=1)
    draw: int | None = Field(default=None, ge=0)
    row: int | None = Field(default=None, ge=0)
    classes: tuple[int, ...]
    """The data set's own label numbers, ascending. Inside a stage, labels are positions in this list."""

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> OriginConfig:
        wanted = {"full": (), "draw": ("per_class", "draw"), "pool": ("per_class", "draw", "row")}[self.kind]
        for name in ("per_class", "draw", "row"):
            if (getattr(self, name) is not None) != (name in wanted):
                raise ValueError(f"origin kind {self.kind!r} takes {wanted or 'no further fields'}, got {name}")
        if list(self.classes) != sorted(set(self.classes)):
            raise ValueError(f"classes must ascend without repeats, got {self.classes}")
        return self


class NetworkConfig(Config):
    """One network, complete: its parameter count follows from these fields."""

    architecture: Architecture
    norm: Norm
    width: int = Field(ge=1)
    """Filters of the first block (128 for ConvNet3, 64 for ResNet18 and VGG16)."""
    depth: int = Field(ge=1)
    """Blocks (3 for ConvNet3), or the layers in the name (18, 16)."""
    image_size: int
    channels: Literal[1, 3]
    num_classes: int = Field(ge=2)


class RecipeConfig(Config):
    """How a network is trained on a set. The named recipes are in ``protocols.py``."""

    neutral: ClassVar[dict[str, Any]] = {"learned_lr": "own_network", "ensemble": False}

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the set. Exactly one of ``epochs`` and ``steps`` is given."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; the last pass over the set is cut short when they run out."""
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    milestones: tuple[float, ...]
    """Fractions of the training after which the learning rate is multiplied by ``gamma``."""
    gamma: float = Field(gt=0, le=1)
    batch: int = Field(ge=1)
    """Images per step; a set with fewer images is one batch."""
    augmentation: Literal["dsa", "idc", "none"]
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability per batch of CutMix."""
    learned_lr: Literal["own_network", "always", "never"] = "own_network"
    """When the learning rate that was learned with a set (MTT) replaces ``lr``: for the network the set was distilled
    with, for every network, or never. Sets without one are trained with ``lr``."""
    ensemble: bool = False
    """Whether the repeats of a point (axis ``seed``) are trained together, as one computation: the same recipe, equal
    to rounding, with fewer calls to the device."""

    @model_validator(mode="after")
    def _one_length(self) -> RecipeConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class MethodSettings(Config):
    """Base of the methods' settings, which are declared in ``methods.py`` or by other packages."""

    budget: ClassVar[str | None] = None
    """The setting that decides where the path of the optimisation ends and nothing else, where there is one: a longer
    budget then continues a shorter one."""

    @property
    def length(self) -> int | None:
        """How many times the body of the method's loop runs, the unit of its checkpoints; None without a budget."""
        return None if self.budget is None else int(getattr(self, self.budget))

    def real_images(self, ipc: int) -> int:
        """Real images of each class that a start from real images takes."""
        return ipc

    def experts(
        self, dataset: DatasetConfig, origin: OriginConfig, network: NetworkConfig, augmentation: Augmentation | None
    ) -> tuple[ExpertConfig, ...]:
        """Expert trajectories the method learns from. Each becomes a stage of its own and the input ``expert.I``."""
        return ()


class NetworkSettings(MethodSettings):
    """Settings of methods that match something of a network."""

    neutral: ClassVar[dict[str, Any]] = {"depth": None}

    architecture: Architecture = "convnet3"
    """The network that is matched on, not the one that is evaluated."""
    width: int | None = Field(default=None, ge=1)
    norm: Norm | None = None
    depth: int | None = Field(default=None, ge=1, le=6)
    """Blocks of ConvNet3; left out: 3."""


class ExpertConfig(Config):
    """Train one expert on an origin and keep its parameters along the way (Cazenavette et al., CVPR 2022)."""

    dataset: DatasetConfig
    origin: OriginConfig
    network: NetworkConfig
    index: int = Field(ge=0)
    """Number of the expert: the seed of its weights, batches and augmentations."""
    snapshots: int = Field(ge=1)
    """States kept after the initial one."""
    snapshot_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps between them. None: one epoch, at least 50 steps, so that those of a small origin differ."""
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch: int = Field(ge=1)
    augmentation: Augmentation | None
    zca: bool = False
    """Whether images are whitened instead of normalised."""

    def steps_between(self, per_epoch: int) -> int:
        """Optimiser steps between snapshots, of an origin whose epoch is ``per_epoch`` steps.

        With 400 images and batches of 256 an epoch is two steps, and the distance between two snapshots nothing to
        speak of (methods.md section 12, MTT in privacy): hence at least 50.
        """
        return self.snapshot_steps or max(per_epoch, 50)


class DistillConfig(Config):
    """Make a distilled set from an origin."""

    method: str
    method_version: int = Field(ge=1)
    dataset: DatasetConfig
    origin: OriginConfig
    ipc: int = Field(ge=1)
    init: Init | None
    """None for methods without a start (``random``)."""
    augmentation: Augmentation | None
    """The axis ``distill_aug``; None for methods that use none."""
    network: NetworkConfig | None
    """The network the method matches on; None for methods without one."""
    settings: dict[str, Any]
    """The method's settings with defaults filled in, as JSON types."""
    distill_seed: int = Field(ge=0)

    def lineage_material(self, budget: str | None) -> dict[str, Any]:
        """Key material without the budget: equal for stages that follow the same path to different lengths."""
        material = self.key_material()
        material["settings"] = {name: value for name, value in material["settings"].items() if name != budget}
        return material


class TrainConfig(Config):
    """Train one network on a distilled set (input ``set``) or, for ``full``, on an origin."""

    neutral: ClassVar[dict[str, Any]] = {"ensemble": None}

    dataset: DatasetConfig
    origin: OriginConfig
    """What is trained on when there is no input ``set``; always gives the classes that are tested."""
    on_origin: bool
    """True: train on the origin itself (method ``full``). False: on the input ``set``."""
    network: NetworkConfig
    recipe: RecipeConfig
    seed: int = Field(ge=0)
    curve_points: int = Field(default=20, ge=0)
    """Epochs, evenly spaced and ending with the last, at which accuracy is recorded. Nothing reads it to choose."""
    curve_images: int = Field(default=1000, ge=1)
    """Test images of that record: the first ones of each class in canonical order, equally many per class."""
    ensemble: tuple[int, ...] | None = None
    """Seeds of the networks that it was trained together with, its own among them, ascending: the stage then takes it
    from the input ``ensemble``. None: it is trained on its own."""

    @model_validator(mode="after")
    def _its_seed_is_a_member(self) -> TrainConfig:
        if self.ensemble is not None and self.seed not in self.ensemble:
            raise ValueError(f"seed {self.seed} is not one of the ensemble's {self.ensemble}")
        return self


class EnsembleConfig(Config):
    """Train several networks together that differ in the seed alone: the repeats of a point."""

    base: TrainConfig
    """The training of the first member."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Of all members, ascending."""

    @model_validator(mode="after")
    def _members_fit_together(self) -> EnsembleConfig:
        if list(self.seeds) != sorted(set(self.seeds)):
            raise ValueError(f"seeds must ascend without repeats, got {self.seeds}")
        if self.base.seed != self.seeds[0] or self.base.ensemble is not None:
            raise ValueError("base is the first member's training as if it were trained on its own")
        return self

    def member(self, seed: int) -> TrainConfig:
        """The training of one member as if it were trained on its own."""
        return self.base.model_copy(update={"seed": seed})


class AccuracyConfig(Config):
    """Accuracy and class fairness of the input ``model``, from its stored logits."""

    num_classes: int = Field(ge=2)


class RobustnessConfig(Config):
    """Adversarial robustness of the input ``model``."""

    attacks: tuple[str, ...] = ("deepfool_l2", "deepfool_linf")
    images: int = Field(default=1000, ge=1)
    dataset: DatasetConfig | None = None


class PrivacyConfig(Config):
    """Membership inference against a point."""

    audit: tuple[Literal["seed", "pool"], ...] = ("seed", "pool")
    rows: int = Field(default=16, ge=4, multiple_of=2)
    targets: int = Field(default=3, ge=1)


class EmbeddingConfig(Config):
    """Joint t-SNE of real and distilled images."""

    perplexity: float = Field(default=50.0, gt=0)


StageConfig = (
    ExpertConfig
    | DistillConfig
    | EnsembleConfig
    | TrainConfig
    | AccuracyConfig
    | RobustnessConfig
    | PrivacyConfig
    | EmbeddingConfig
)
