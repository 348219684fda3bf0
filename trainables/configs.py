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
from functools import cache, cached_property
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainables.attacks import MEMBERSHIP_ATTACKS, ROBUSTNESS_ATTACKS, Audit
from trainables.networks import Architecture, Norm, Variant, variant_of

Kind = Literal[
    "experts", "distill", "ensemble", "train", "accuracy", "attack", "robustness", "privacy", "embedding", "tsne"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Init = Literal["noise", "real"]
Augmentation = Literal["dsa", "none"]
TrainingAugmentation = Literal["dsa", "idc", "crop_flip", "rrc_flip", "none"]
"""Of distillation and of training. ``crop_flip``: shifted by up to an eighth, and flipped; ``rrc_flip``: a random
resized crop, and flipped."""
LabelForm = Literal["logits", "probabilities", "targets"]
LabelSource = Literal["learned", "teacher"]
LabelLoss = Literal["soft_ce", "kl", "mse", "l2"]
"""What soft labels are, where they come from, and with which loss networks learn them (``labels.py``)."""
Operation = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
"""What an augmentation is made of (``data/augment.py``)."""
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
OPERATIONS_PATTERN = f"^({'|'.join(OPERATIONS)})(_({'|'.join(OPERATIONS)}))*$"
"""What ``parse_operations`` reads, as an editor checks it (which does not see that a name stands twice)."""

# A type checker cannot read a Literal that is made of a table's keys; pydantic can, and refuses other names.
if TYPE_CHECKING:
    RobustnessAttackName = str
    MembershipAttackName = str
else:
    RobustnessAttackName = Literal[tuple(ROBUSTNESS_ATTACKS)]
    MembershipAttackName = Literal[tuple(MEMBERSHIP_ATTACKS)]


def parse_operations(text: str) -> tuple[Operation, ...]:
    """The operations of a text such as ``color_crop_cutout``, in its order.

    Raises:
        ValueError: A name is unknown or stands there twice.
    """
    names = text.split("_")
    known: dict[str, Operation] = {name: name for name in OPERATIONS}
    expected = f"expected some of {', '.join(OPERATIONS)}, joined by underscores. Correct the name"
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown operation {unknown[0]!r}; got {text!r}; {expected}")
    if len(set(names)) < len(names):
        raise ValueError(f"an operation stands twice; got {text!r}; expected each once. Leave one out")
    return tuple(known[name] for name in names)


class Config(BaseModel):
    """Base of all stage configurations: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    outside_key: ClassVar[frozenset[str]] = frozenset()
    neutral: ClassVar[dict[str, Any]] = {}

    def __hash__(self) -> int:
        """Of the key's text, which is made once: configurations are arguments of cached functions."""
        return hash(self.key_json)

    @cached_property
    def key_json(self) -> str:
        """The part of the configuration that determines the result, as canonical JSON.

        Made once per instance: a plan of a hundred thousand points shares a few data sets, origins and recipes.
        """
        return self._json({})

    def _json(self, instead: Mapping[str, Any]) -> str:
        """The same with other values of some fields."""
        values = {**self.__dict__, **instead} if instead else self.__dict__
        parts = [
            opening + _json_of(values[name])
            for name, opening, neutral in _key_fields(type(self))
            if neutral is _NEVER or values[name] != neutral
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


_NEVER: Final = object()
"""The neutral value of fields that have none."""


@cache
def _key_fields(model: type[Config]) -> tuple[tuple[str, str, Any], ...]:
    """(name, how its entry opens, neutral value) of what stands in keys, by name."""
    return tuple(
        (name, f'"{name}":', model.neutral.get(name, _NEVER))
        for name in sorted(model.model_fields)
        if name not in model.outside_key
    )


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted names and no spaces; the same value always gives the same text.

    Raises:
        ValueError: The value holds NaN or an infinity, which have no JSON form.
    """
    return _ENCODER.encode(value)


def _json_of(value: Any) -> str:
    if type(value) is int:  # this and what follows are most fields; the encoder would cost ten times as much
        return str(value)
    if value is None or value is True or value is False:
        return "null" if value is None else "true" if value else "false"
    if type(value) is str:
        return encode_basestring(value)
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

    ``full``: every training image of the classes. ``draw``: ``per_class`` random images of each class; with ``block``,
    others, disjoint from them and from those of other blocks. ``pool``: row ``row`` of a membership matrix over a pool
    of 2 * ``per_class`` images per class; row 2k + 1 is the complement of row 2k. ``coin``: each image of that pool
    with probability one half, by an independent coin; ``row`` says which toss. ``listed``: the images of ``indices``,
    and ``per_class`` where they are as many of each class.
    """

    neutral: ClassVar[dict[str, Any]] = {"block": None, "canaries": 0, "indices": None}

    kind: Literal["full", "draw", "pool", "coin", "listed"] = "full"
    per_class: int | None = Field(default=None, ge=1)
    draw: int | None = Field(default=None, ge=0)
    row: int | None = Field(default=None, ge=0)
    block: int | None = Field(default=None, ge=1)
    """Of a draw: which further block of ``per_class`` images of each class, in the order of the same draw."""
    canaries: int = Field(default=0, ge=0)
    """Of a pool: how many of its images carry a wrong label, wherever they are members (Aerni et al. 2024)."""
    indices: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Of a list: canonical train indices, ascending (what somebody else's set or model was made of)."""
    classes: tuple[int, ...]
    """The data set's own label numbers, ascending. Inside a stage, labels are positions in this list."""

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> OriginConfig:
        pool = ("per_class", "draw", "row")
        wanted = {"full": (), "draw": ("per_class", "draw"), "pool": pool, "coin": pool, "listed": ()}[self.kind]
        optional = ("per_class",) if self.kind == "listed" else ()
        for name in pool:
            if name not in optional and (getattr(self, name) is not None) != (name in wanted):
                raise ValueError(f"origin kind {self.kind!r} takes {wanted or 'no further fields'}, got {name}")
        if self.block is not None and self.kind != "draw":
            raise ValueError(f"only a draw has blocks, got kind {self.kind!r}")
        if self.canaries and self.kind not in ("pool", "coin"):
            raise ValueError(f"only a pool has canaries, got kind {self.kind!r}")
        if (self.indices is not None) != (self.kind == "listed"):
            raise ValueError(f"a list of images has indices and nothing else has, got kind {self.kind!r}")
        for name, numbers in (("classes", self.classes), ("indices", self.indices or ())):
            if list(numbers) != sorted(set(numbers)):
                raise ValueError(f"{name} must ascend without repeats, got {numbers[:20]}")
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

    @classmethod
    def of(cls, network: Variant, *, image_size: int, channels: Literal[1, 3], num_classes: int) -> NetworkConfig:
        """The complete description of a network for images of a data set."""
        return cls(
            architecture=network.base,
            norm=network.norm,
            width=network.width,
            depth=network.depth,
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
        )

    @property
    def variant(self) -> Variant:
        """The network whatever the images; its ``name`` is a name where the options are possible."""
        return Variant(self.architecture, self.depth, self.width, self.norm)


Optimiser = Literal["sgd", "adamw"]


class PrivateConfig(Config):
    """The guarantee that noise on the gradients of a training is to give (DP-SGD: Abadi et al., CCS 2016).

    How much noise that takes follows from the images, the batch and the number of steps (``guarantee.py``).
    """

    together: ClassVar[int] = 64
    """Images whose gradients are held at once, one by one: as many times the network's parameters."""

    epsilon: float = Field(default=1.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Less than one over the number of images, or the guarantee may give some of them away."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of an image's gradient; a longer one is shortened to it. It goes together with the learning rate: of
    small ones only their product matters."""


class RecipeConfig(Config):
    """How a network is trained on a set. The named recipes are in ``protocols.py``."""

    neutral: ClassVar[dict[str, Any]] = {
        "optimiser": "sgd",
        "decay_on": "all",
        "schedule": "steps",
        "warmup": 0,
        "crop_area": 0.08,
        "mixup": 0.0,
        "learned_lr": "own_network",
        "ensemble": False,
        "label_loss": "soft_ce",
        "temperature": None,
        "scaled": False,
        "private": None,
    }

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the set. Exactly one of ``epochs`` and ``steps`` is given."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; the last pass over the set is cut short when they run out."""
    optimiser: Optimiser = "sgd"
    """Stochastic gradient descent with momentum, or AdamW (Loshchilov and Hutter, ICLR 2019), which moves a bias before
    a norm, whose gradient is rounding, as far as any parameter: two devices agree in what networks say, not in that."""
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    """Of AdamW the first beta; its second is 0.999."""
    weight_decay: float = Field(ge=0)
    """Times a parameter: added to its gradient (sgd), or taken off it beside the step (adamw)."""
    decay_on: Literal["all", "matrices"] = "all"
    """Which parameters decay: all, or weights of more than one axis (no biases, no scales of norms; RDED)."""
    schedule: Literal["steps", "cosine", "half_cosine"] = "steps"
    """How the learning rate falls, by the share s of the training that is done: by ``gamma`` at ``milestones``;
    (1 + cos(pi s)) / 2, to 0; or (1 + cos(pi s / 2)) / 2, to a half (RDED)."""
    warmup: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises to its value in equal parts (RCIG: 500)."""
    milestones: tuple[float, ...]
    """Fractions of the training after which the learning rate is multiplied by ``gamma``; of the schedule ``steps``."""
    gamma: float = Field(gt=0, le=1)
    batch: int = Field(ge=1)
    """Images per step; a set with fewer images is one batch."""
    augmentation: TrainingAugmentation
    crop_area: float = Field(default=0.08, gt=0, le=1)
    """Smallest share of an image that a crop of ``rrc_flip`` shows; 1: all of it."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability per batch of CutMix."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of Mixup of every batch: the share of the own image is drawn from Beta(alpha, alpha); 0: none."""
    learned_lr: Literal["own_network", "always", "never"] = "own_network"
    """When the learning rate that was learned with a set (MTT) replaces ``lr``: for the network the set was distilled
    with, for every network, or never. Sets without one are trained with ``lr``."""
    ensemble: bool = False
    """Whether the repeats of a point (axis ``seed``) are trained together, as one computation: the same recipe, equal
    to rounding, with fewer calls to the device."""
    label_loss: LabelLoss = "soft_ce"
    """How sets with soft labels are learned: cross-entropy, Kullback-Leibler divergence, squared error of logits (mse)
    or of regression targets (l2). Hard labels are learned by cross-entropy whatever it says."""
    temperature: float | None = Field(default=None, gt=0)
    """That soft labels and the network's logits are read at; left out: that of the labels."""
    scaled: bool = False
    """Whether soft_ce and kl are multiplied by the square of the temperature."""
    private: PrivateConfig | None = None
    """Differential privacy: noise on the gradients, for a guarantee. ``batch`` is then how many images a step has on
    average, as each is in it by a coin of its own. None: none."""

    @model_validator(mode="after")
    def _fields_fit(self) -> RecipeConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if self.schedule != "steps" and self.milestones:
            raise ValueError(f"schedule {self.schedule} has no milestones; give milestones: [] beside it")
        if self.mixup and self.cutmix:
            raise ValueError("mixup and cutmix both mix a batch; set one of them to 0")
        if self.private is not None and (self.mixup or self.cutmix):
            raise ValueError("a mixed image tells of two; with private set mixup and cutmix to 0")
        if self.private is not None and self.ensemble:
            raise ValueError("noise is drawn for one network; with private set ensemble: false")
        return self


PRESET = "preset"
"""Beside a method's settings in a sweep: the alternative of its presets that what is left out comes from."""
SNAPSHOTS = 8
"""Kept states of a distillation with the authors' budget."""


class Held(NamedTuple):
    """What one run of a method's loop holds of a card at its fullest. Of the three sorts of images the largest counts;
    what one of a sort takes stands in the network's record (``networks.Activations``)."""

    forward: float = 0.0
    """Images that pass a network at once without a gradient."""
    graph: float = 0.0
    """Images whose way through a network is kept for a gradient."""
    double: float = 0.0
    """Images whose gradient is differentiated again, with all that it takes."""
    networks: float = 4.0
    """Vectors of the length of the network's parameters: weights, gradients, momentum."""


class MethodSettings(Config):
    """Base of the methods' settings, which are declared in ``methods.py`` or by other packages."""

    budget: ClassVar[str | None] = None
    """The setting that decides where the path of the optimisation ends and nothing else, where there is one: a longer
    budget then continues a shorter one."""

    of_groups: ClassVar[bool] = False
    """Whether it needs data with a group beside the class."""

    course: ClassVar[bool] = False
    """Whether the set's facts tell how its making went, as ``loss_last`` (1: nothing was learned) and ``rate_clamped``
    (how often a learned rate was kept above 0); tables then show both, and reports sound an alarm."""

    @property
    def label_source(self) -> LabelSource | None:
        """Where soft labels of its sets come from, which are logits to be read at temperature 1; None: labels are hard
        ones."""
        return None

    @property
    def length(self) -> int | None:
        """How many times the body of the method's loop runs, the unit of its checkpoints; None without a budget."""
        return None if self.budget is None else int(getattr(self, self.budget))

    def real_images(self, ipc: int) -> int:
        """Real images of each class that a start from real images takes."""
        return ipc

    def decoded_images(self, ipc: int) -> int:
        """Training images of each class that a set of ``ipc`` stored ones decodes to."""
        return ipc

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """Rough cost of one run of the loop's body: for the order of jobs and the remaining time, never for a result.

        In forward passes of one image. A gradient with respect to weights or images costs three, the second pass of
        gradient matching six more. A method that does not say costs what distribution matching does: a forward pass
        of a real batch and a gradient with respect to the set.

        Args:
            num_classes: K.
            ipc: Images per class.
            real_images: Of each class of the origin.
        """
        return num_classes * (min(real_images, int(getattr(self, "batch_real", 0))) + 3 * ipc)

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held | None:
        """What one run of the loop's body holds on a card; ``trainables.dry_run`` measures it without one.

        A method that does not say takes a whole card.

        Args:
            num_classes: K.
            ipc: Images per class.
            real_images: Of each class of the origin.
            batch_statistics: Whether the network's norm is over the images of a batch, which then must not be split.
        """
        return None

    def stored_bytes(self, num_classes: int, ipc: int, numbers: int) -> int:
        """Rough bytes that the finished stage takes: the images, and of each snapshot images and momentum.

        Args:
            num_classes: K.
            ipc: Images per class.
            numbers: Of one image, four bytes each.
        """
        return num_classes * ipc * numbers * 4 * (1 + 2 * SNAPSHOTS)

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

    @property
    def variant(self) -> Variant:
        """The network that is matched on."""
        return variant_of(self.architecture, depth=self.depth, width=self.width, norm=self.norm)


class ExpertConfig(Config):
    """Train one expert on an origin and keep its parameters along the way (Cazenavette et al., CVPR 2022)."""

    outside_key: ClassVar[frozenset[str]] = frozenset({"method"})
    neutral: ClassVar[dict[str, Any]] = {
        "radius": 0.0,
        "alignment": 0.0,
        "snapshot_epochs": 1,
        "milestones": (),
        "gamma": 1.0,
        "operations": None,
        "cutmix": 0.0,
    }

    method: str = "mtt"
    """Whose expert it is, for messages."""
    dataset: DatasetConfig
    origin: OriginConfig
    network: NetworkConfig
    index: int = Field(ge=0)
    """Number of the expert: the seed of its weights, batches and augmentations."""
    snapshots: int = Field(ge=1)
    """States kept after the initial one."""
    snapshot_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps between them. None: some epochs, at least 50 steps, so that those of a small origin differ."""
    snapshot_epochs: int = Field(default=1, ge=1)
    """How many, where no steps are given."""
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch: int = Field(ge=1)
    augmentation: Augmentation | None
    zca: bool = False
    """Whether images are whitened instead of normalised."""
    radius: float = Field(default=0.0, ge=0)
    """How far away gradients are taken (FTD's rho); 0: plain gradient descent."""
    alignment: float = Field(default=0.0, ge=0)
    """How much of what is orthogonal to the gradient there is taken off (FTD's a)."""
    milestones: tuple[float, ...] = ()
    """Fractions of the training after which the learning rate is multiplied by ``gamma``."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    operations: str | None = None
    """Of another augmentation than DSA, in IDC's order; applied only when the augmentation is on."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability per batch of CutMix."""

    def steps_between(self, per_epoch: int) -> int:
        """Optimiser steps between snapshots, of an origin whose epoch is ``per_epoch`` steps.

        With 400 images and batches of 256 an epoch is two steps, and the distance between two snapshots nothing to
        speak of (methods.md section 12, MTT in privacy): hence at least 50.
        """
        return self.snapshot_steps or max(self.snapshot_epochs * per_epoch, 50)


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

    def lineage_json(self, budget: str | None) -> str:
        """``key_json`` without the budget: equal for stages that follow the same path to different lengths."""
        return self._json({"settings": {name: value for name, value in self.settings.items() if name != budget}})


class SignalsConfig(Config):
    """Which images a trained model is asked about besides the test split: those that memberships are told from.

    Of a ``draw``: its own images (split ``origin``), and of a block also the next block's (``other``). Of a ``pool`` or
    ``coin``: the whole pool (``pool``), and disjoint from it ``population`` and ``reserve``.
    """

    population: int = Field(default=0, ge=0)
    """Images of each class that attacks calibrate with; they are never members."""
    reserve: int = Field(default=0, ge=0)
    """Images of each class that are never members of any row, for false positive rates below the pool's resolution."""


class TeacherConfig(Config):
    """Another network, the input ``teacher``, labels the images that a network is trained on: each once, as it is
    decoded and without augmentation, or every batch anew."""

    neutral: ClassVar[dict[str, Any]] = {"online": False}

    temperature: float = Field(default=1.0, gt=0)
    """That the teacher's logits are divided by, and the student's with them, unless the recipe names another."""
    online: bool = False
    """Whether it labels the images of every step as they are then, augmented and mixed (RDED, SRe2L)."""


class TrainConfig(Config):
    """Train one network on a distilled set (input ``set``) or, for ``full``, on an origin."""

    neutral: ClassVar[dict[str, Any]] = {"ensemble": None, "signals": None, "teacher": None}

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
    signals: SignalsConfig | None = None
    """None: the model is asked about the test split alone."""
    teacher: TeacherConfig | None = None
    """What labels the images of the set; None: they have the set's own labels."""
    ensemble: tuple[int, ...] | None = None
    """Seeds of the networks that it was trained together with, its own among them, ascending: the stage then takes it
    from the input ``ensemble``. None: it is trained on its own."""

    @model_validator(mode="after")
    def _its_seed_is_a_member(self) -> TrainConfig:
        if self.recipe.private is not None and not self.on_origin:
            raise ValueError("a guarantee is of the images that are trained on; those of a set are made of others")
        if self.teacher is not None and self.on_origin:
            raise ValueError("a teacher labels the images of a set; the origin has labels of its own")
        if self.ensemble is not None and self.seed not in self.ensemble:
            raise ValueError(f"seed {self.seed} is not one of the ensemble's {self.ensemble}")
        return self


class ExternalConfig(Config):
    """A network that was trained elsewhere. Nothing computes it: ``ddray evaluate`` puts it into the store."""

    recipe: ClassVar[None] = None
    """Not known."""
    ensemble: ClassVar[None] = None

    dataset: DatasetConfig
    origin: OriginConfig
    """Its members where they are known, else all images; always gives the classes that are tested."""
    network: NetworkConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per channel, of images in [0, 1]: what it expects its input to be normalised with."""
    asked: bool
    """Whether it is asked about the images of the origin too."""
    file: str
    """SHA-256 of the file it comes from."""


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

    neutral: ClassVar[dict[str, Any]] = {"dataset": None}

    num_classes: int = Field(ge=2)
    dataset: DatasetConfig | None = None
    """Whose test images have groups, for fairness between these; None: they have none."""


class RobustnessSettings(Config):
    """What a sweep says of adversarial robustness."""

    attacks: tuple[RobustnessAttackName, ...] = ("deepfool_l2", "deepfool_linf")
    """Each runs once per model."""
    images: int = Field(default=1000, ge=1)
    """Test images, the same for every model: the first ones of each class in canonical order."""
    epsilons_l2: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Budgets in L2, of images in [0, 1]; left out: those of ``trainables/attacks.py``."""
    epsilons_linf: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    """Budgets in Linf, of images in [0, 1]; left out: those of ``trainables/attacks.py``."""


class AttackConfig(Config):
    """Attack the input ``model`` on test images."""

    attack: RobustnessAttackName
    dataset: DatasetConfig
    classes: tuple[int, ...]
    """The data set's own label numbers, ascending: the images that are attacked, and the model's outputs."""
    images: int = Field(ge=1)
    epsilons: tuple[float, ...]
    """Ascending, above 0, in units of images in [0, 1] and of the attack's norm. 0 is always evaluated too."""
    settings: dict[str, Any]
    """The attack's own (``steps``, ``overshoot``, ...), complete: the defaults of ``trainables/attacks.py``."""


class RobustnessConfig(Config):
    """Robustness from the inputs ``attack.NAME``, one per attack, all of the same model and images."""

    num_classes: int = Field(ge=2)
    attacks: tuple[RobustnessAttackName, ...]


Tier = Literal["smoke", "standard", "full"]
TIERS: dict[Tier, int] = {"smoke": 6, "standard": 16, "full": 66}
"""Rows of the membership matrix; each target then has that many less two as shadows."""


class PrivacySettings(Config):
    """What a sweep says of membership inference."""

    audit: tuple[Audit, ...] = ("seed", "pool")
    """``seed``: the paper's setting, the origin's images against test images. ``pool``: rows of a membership matrix,
    each distilled anew, every row a target for the others. ``one_run``: a lower bound on epsilon from one distillation
    of images chosen by coins."""
    rows: Tier | Annotated[int, Field(ge=4, multiple_of=2)] = "standard"
    """Rows of the matrix of ``pool``, in complementary pairs: a number, or smoke (6), standard (16), full (66)."""
    targets: int = Field(default=3, ge=1)
    """Rows that are attacked, at most half of them: the first of each pair."""
    shadows: int = Field(default=4, ge=0)
    """Distillations of disjoint further draws, from which the attacks of ``seed`` learn; 0: attacks without any."""
    attacks: tuple[MembershipAttackName, ...] = tuple(MEMBERSHIP_ATTACKS)
    """Which membership scores; those that need more shadows than there are give rows that say so."""
    canaries: int = Field(default=0, ge=0)
    """Images of the pool with a wrong label, reported on their own."""
    population: int | None = Field(default=None, ge=1)
    """Images per class for calibration, disjoint from everything else; None: 200, or as many as make 2,000."""
    reserve: int = Field(default=1000, ge=0)
    """Images per class that are never members, for low false positive rates; fewer where the data have fewer."""
    start: bool = True
    """Whether the same attacks also run on models trained on the undistilled start (``iteration 0``)."""

    @property
    def num_rows(self) -> int:
        """``rows`` as a number."""
        return TIERS[self.rows] if isinstance(self.rows, str) else self.rows

    def population_of(self, num_classes: int) -> int:
        """``population`` as a number, for so many classes: RMIA wants 2,000 points to compare with in all."""
        return self.population if self.population is not None else max(200, -(-2000 // num_classes))


class PrivacyConfig(Config):
    """Membership inference against one point.

    Inputs, by role; ``.set`` only for methods that distil, ``.start`` (a model trained on the undistilled start) only
    with ``start`` and for methods that have an iteration 0:

    * ``seed``: ``seed.model``, ``seed.set``, ``seed.start``, and ``shadow.B.model`` for blocks B = 1 … ``shadows``;
    * ``pool``: ``row.R.model``, ``row.R.set``, ``row.R.start`` for R = 0 … ``rows`` - 1;
    * ``one_run``: ``coin.model``, ``coin.set``;
    * ``seed.teacher``, ``row.R.teacher`` and ``coin.teacher`` where a teacher labels the images of the sets.
    """

    neutral: ClassVar[dict[str, Any]] = {"teacher": None}

    dataset: DatasetConfig
    origin: OriginConfig
    """The point's own draw."""
    method: str
    ipc: int | None
    init: Init | None
    audit: tuple[Audit, ...]
    """Those that the data have enough images for."""
    unfit: dict[str, str] = Field(default_factory=dict)
    """Audit -> why it is not applicable to this point."""
    rows: int = Field(ge=0)
    targets: int = Field(ge=1)
    shadows: int = Field(ge=0)
    attacks: tuple[MembershipAttackName, ...]
    canaries: int = Field(ge=0)
    signals: SignalsConfig
    start: bool
    teacher: TeacherConfig | None = None
    """What labels the images of the sets, at the temperature that networks learned its labels at; None: they have
    their own labels."""


class EmbeddingSettings(Config):
    """What a sweep says of embeddings."""

    perplexity: float = Field(default=50.0, gt=0)
    """Of t-SNE."""
    real_per_class: int = Field(default=500, ge=10)
    """Real training images per class that are embedded beside the sets."""
    neighbours: int = Field(default=10, ge=1)
    """Real neighbours of a distilled image that say whether it is an outlier."""


class EmbeddingConfig(Config):
    """Features of the input ``set`` and of real images, in the last feature map of the input ``encoder``."""

    dataset: DatasetConfig
    classes: tuple[int, ...]
    real_per_class: int = Field(ge=10)
    neighbours: int = Field(ge=1)


class TsneConfig(Config):
    """One t-SNE of real images and of the sets behind the inputs ``embedding.I`` together, in the features of the input
    ``encoder``."""

    dataset: DatasetConfig
    classes: tuple[int, ...]
    real_per_class: int = Field(ge=10)
    sources: tuple[str, ...]
    """What the sets are called, in the order of the inputs."""
    perplexity: float = Field(gt=0)


StageConfig = (
    ExpertConfig
    | DistillConfig
    | EnsembleConfig
    | TrainConfig
    | AccuracyConfig
    | AttackConfig
    | RobustnessConfig
    | PrivacyConfig
    | EmbeddingConfig
    | TsneConfig
)
