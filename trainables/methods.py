"""The methods that come with ddray, each with its settings. No torch: planning reads this.

The computation of ``dsa`` is in ``distill/dsa.py`` and so on; published values by data set and images per class are in
``presets.py``. Defaults here are the authors' for CIFAR-10. Other packages declare theirs in the same way, see
``registry.py`` and ``ddray new method``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from trainables.configs import (
    OPERATIONS,
    OPERATIONS_PATTERN,
    SNAPSHOTS,
    Augmentation,
    DatasetConfig,
    ExpertConfig,
    Held,
    LabelSource,
    MethodSettings,
    NetworkConfig,
    NetworkSettings,
    OriginConfig,
    parse_operations,
)
from trainables.registry import CHOSEN, LEARNED, METHODS, Method, load_plugins, method

__all__ = ["METHODS", "PLUGIN_PROBLEMS", "Method", "method"]

Positive = Annotated[int, Field(ge=1)]
Operations = Annotated[
    str,
    AfterValidator(lambda text: "_".join(sorted(parse_operations(text), key=OPERATIONS.index))),
    WithJsonSchema({"type": "string", "pattern": OPERATIONS_PATTERN}),
]
"""Operations of an augmentation, joined by underscores. The order in which they are written makes no difference."""


EMBEDDED_TOGETHER, MATCHED_TOGETHER = 2048, 512
"""On a card: images that are embedded at once, and images of which gradients are taken at once; whole classes."""
GRADIENTS = 2.35
"""Gradients of a class's weights hold so many times what one gradient of the same images does: all classes of a group
are on their way back at the same time."""
KEPT_STEPS = 1000
"""Images in student steps of MTT whose graphs are worth a larger share of a card; those that do not fit are computed
once more."""


@method("random", title="Random", function="trainables.distill.coresets:random", uses=CHOSEN, card=False)
class RandomSettings(MethodSettings):
    """Real images drawn at random; nothing to set."""


@method("full", title="Full data", function=None, uses=frozenset())
class FullSettings(MethodSettings):
    """The whole origin; nothing to set."""


@method(
    "dm",
    title="DM",
    function="trainables.distill.dm:distill",
    init="real",
)
class DMSettings(NetworkSettings):
    """Distribution matching (Zhao & Bilen, WACV 2023)."""

    budget: ClassVar[str | None] = "iterations"

    iterations: int = Field(default=20_000, ge=0)
    """Image updates; 0 gives the start itself. The authors' loop runs one more."""
    lr_img: float = Field(default=1.0, gt=0)
    """Learning rate of the images, in normalised units. By IPC: see the presets."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    """Real images per class and iteration; a class with fewer gives all it has."""

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """Real images pass forward, distilled ones keep their graph; batch norm wants all classes together."""
        real = min(real_images, self.batch_real)
        classes = num_classes if batch_statistics else _together(real + ipc, EMBEDDED_TOGETHER, num_classes)
        return Held(forward=classes * real, graph=classes * ipc)


@method("datadam", title="DataDAM", function="trainables.distill.datadam:distill", init="real")
class DataDAMSettings(DMSettings):
    """Attention matching (Sajedi et al., ICCV 2023): DM with other features."""

    batch_real: int = Field(default=64, ge=1)
    """Real images per class and iteration; a class with fewer gives all it has."""
    attention_power: int = Field(default=1, ge=1)
    """p: channels are summed as |h|^p. The authors' program has 1, their paper 4."""
    task_balance: float = Field(default=0.01, ge=0)
    """lambda: weight of the embeddings beside that of the attention maps."""


@method("fairdd", title="FairDD", function="trainables.distill.fairdd:distill", init="real")
class FairDDSettings(DMSettings):
    """FairDD on DM (NeurIPS 2025): the mean of a class's groups, each counting alike, is matched instead of the mean of
    its images. For data with groups."""

    of_groups: ClassVar[bool] = True

    summed: bool = True
    """Whether the distances to all groups are summed, as in FairDD: a class then moves as many times as far as it has
    groups in the batch. false: to the mean of the groups alone, which is its control."""


@method("idm", title="IDM", function="trainables.distill.idm:distill", init="real")
class IDMSettings(NetworkSettings):
    """Improved distribution matching (Zhao et al., CVPR 2023): means of embeddings by networks that are being trained,
    and their cross-entropy on images that each hold several."""

    budget: ClassVar[str | None] = "iterations"

    iterations: int = Field(default=20_000, ge=0)
    """Each updates the images of every class in turn; 0 gives the start itself."""
    factor: int = Field(default=2, ge=1, le=8)
    """Each stored image is cut into factor x factor training images; a real start holds as many in tiles."""
    lr_img: float = Field(default=0.2, gt=0)
    """Learning rate of the images, in normalised units."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    """Real images per class and iteration; a class with fewer gives all it has."""
    ce_weight: float = Field(default=0.5, ge=0)
    """Of the cross-entropy, for each percent of the network's train accuracy: at 60 % it counts 30 times."""
    queue: int = Field(default=100, ge=1)
    """Networks at most; the oldest leaves."""
    first_networks: int = Field(default=3, ge=1)
    """Of them, before the first iteration adds one."""
    net_interval: int = Field(default=30, ge=1)
    """Iterations from one new network to the next."""
    networks_trained: int = Field(default=2, ge=0)
    """Networks of the queue that are trained after each iteration."""
    net_steps: int = Field(default=10, ge=0)
    """Steps of that training."""
    batch_net: int = Field(default=256, ge=1)
    lr_net: float = Field(default=0.01, gt=0)
    momentum_net: float = Field(default=0.9, ge=0, lt=1)
    weight_decay_net: float = Field(default=5e-4, ge=0)

    def real_images(self, ipc: int) -> int:
        """Tiles of a start."""
        return ipc * self.factor**2

    def decoded_images(self, ipc: int) -> int:
        return ipc * self.factor**2

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """Also the training of networks."""
        trained = 3 * self.networks_trained * self.net_steps * min(self.batch_net, num_classes * real_images)
        return num_classes * (min(real_images, self.batch_real) + 3 * self.decoded_images(ipc)) + trained

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """Real images pass forward, whole classes of decoded ones keep their graph, as does a training batch; the whole
        queue with its momentum."""
        decoded, batch = self.decoded_images(ipc), min(real_images, self.batch_real)
        together = decoded * _together(decoded, MATCHED_TOGETHER, num_classes)
        return Held(
            forward=min(batch * num_classes, EMBEDDED_TOGETHER),
            graph=max(together, min(self.batch_net, num_classes * real_images)),
            networks=2.0 * self.queue + 2,
        )

    def stored_bytes(self, num_classes: int, ipc: int, numbers: int) -> int:
        """Each snapshot also holds the queue."""
        return super().stored_bytes(num_classes, ipc, numbers) + SNAPSHOTS * 2 * self.queue * self.variant.file_bytes


@method("dpdm", title="DP-DM", function="trainables.distill.dpdm:distill", uses=LEARNED - {"init"})
class DPDMSettings(DMSettings):
    """Distribution matching of noisy class means, with a guarantee of differential privacy: from noise, never from real
    images. What is released is the rounds' sums; all iterations follow from them and cost no privacy."""

    epsilon: float = Field(default=1.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Less than one over the number of images, or the guarantee may give some of them away."""
    rounds: int = Field(default=1000, ge=1)
    """Networks of which noisy class sums of real images are taken, once each; iterations go round them."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of an image's embedding; a longer one is shortened to it. Distances are in units of it."""
    batch_real: int = Field(default=50, ge=1)
    """Real images per class and round on average: each is in it by a coin of its own."""
    lr_img: float = Field(default=10.0, gt=0)
    """Learning rate of the images, in normalised units and units of ``clip``."""

    @model_validator(mode="after")
    def _images_pass_alone(self) -> DPDMSettings:
        if self.variant.norm == "batch":
            raise ValueError(
                "an image changes the embeddings of all others under batch norm, and no clipping bounds that; got norm "
                "batch; expected instance, or another that looks at one image"
            )
        return self

    def real_images(self, ipc: int) -> int:
        """None: it starts from noise."""
        return 0

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """Real images pass once a round, not once an iteration."""
        once = min(1.0, self.rounds / max(1, self.iterations))
        return num_classes * (once * min(real_images, self.batch_real) + 3 * ipc)


@method("dsa", title="DSA", function="trainables.distill.dsa:distill", init="real")
class DSASettings(NetworkSettings):
    """Gradient matching with Siamese augmentation (Zhao & Bilen, ICML 2021)."""

    budget: ClassVar[str | None] = "iterations"

    iterations: int = Field(default=1000, ge=0)
    """Networks; 0 gives the start itself. The authors' loop runs one more."""
    loops: tuple[Positive, Positive] = (1, 1)
    """Image updates per network, and epochs of its training on the distilled set between them. By IPC."""
    lr_img: float = Field(default=0.1, gt=0)
    """Learning rate of the images, in normalised units."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    lr_net: float = Field(default=0.01, gt=0)
    """Learning rate of the network's training on the distilled set (plain gradient descent)."""
    batch_real: int = Field(default=256, ge=1)
    """Real images per class and update; a class with fewer gives all it has."""
    batch_train: int = Field(default=256, ge=1)
    """Distilled images per step of the network's training."""
    distance: Literal["ours", "mse", "cos"] = "ours"
    """``ours``: per output unit of each layer, 1 - cosine; ``mse``, ``cos``: of all gradients as one vector."""

    @property
    def length(self) -> int:
        """Image updates."""
        return self.iterations * self.loops[0]

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """Also the network's training on the set, between two updates of one network."""
        updates, epochs = self.loops
        trained = 3 * num_classes * ipc * epochs * (updates - 1) / updates
        return num_classes * (3 * min(real_images, self.batch_real) + 9 * ipc) + trained

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """Gradients of a group's real images, then those of its distilled ones, differentiated."""
        real = min(real_images, self.batch_real)
        classes = _together(max(real, ipc), MATCHED_TOGETHER, num_classes)
        return Held(
            graph=max(GRADIENTS * classes * real, min(num_classes * ipc, self.batch_train)), double=classes * ipc
        )


@method(
    "dc",
    title="DC",
    function="trainables.distill.dsa:distill",
    uses=LEARNED - {"distill_aug"},
    init="noise",
)
class DCSettings(DSASettings):
    """Gradient matching without augmentation (Zhao et al., ICLR 2021), from noise."""


@method(
    "mtt",
    title="MTT",
    function="trainables.distill.mtt:distill",
    init="real",
    version=2,  # instance norm with its second derivatives written out: other rounding
)
class MTTSettings(NetworkSettings):
    """Matching training trajectories (Cazenavette et al., CVPR 2022)."""

    budget: ClassVar[str | None] = "iterations"
    course: ClassVar[bool] = True

    iterations: int = Field(default=5000, ge=0)
    """Image updates; 0 gives the start itself. The authors' loop runs one more."""
    syn_steps: int = Field(default=50, ge=1)
    """Steps of the student on the distilled set (N)."""
    match_snapshots: int = Field(default=2, ge=1)
    """Snapshots of the expert, usually epochs, that the student is to cover (M)."""
    max_start: int = Field(default=5, ge=1)
    """Starts are drawn from the expert's first snapshots, 0 to this number without it (T+), as long as the expert gets
    less than 99 % of its training images right there."""
    batch_syn: int | None = Field(default=None, ge=1)
    """Distilled images per student step; null: all of them."""
    lr_img: float = Field(default=1000.0, gt=0)
    """Learning rate of the images."""
    lr_lr: float = Field(default=1e-7, gt=0)
    """Learning rate of the student's learning rate."""
    lr_syn: float = Field(default=0.01, gt=0)
    """Where the student's learning rate, which is learned, starts. It never falls below 1e-6."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    """Of the images and of the learned rate."""
    mtt_gradient: Literal["recompute", "unrolled", "tesla"] = "recompute"
    """``recompute``: exact, within the memory there is to spare; ``unrolled``: exact, memory of all; ``tesla``:
    approximate, earlier parameters count as constants (Cui et al., ICML 2023)."""
    tesla_cosine: int = Field(default=0, ge=0)
    """Every so many iterations, the cosine between the exact and the TESLA gradient is measured; 0: never."""
    num_experts: int = Field(default=100, ge=1)
    expert_snapshots: int = Field(default=50, ge=1)
    """Snapshots after the initial one, usually epochs."""
    snapshot_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps between snapshots; null: one epoch, at least 50 steps."""
    lr_expert: float = Field(default=0.01, gt=0)
    momentum_expert: float = Field(default=0.0, ge=0, lt=1)
    batch_expert: int = Field(default=256, ge=1)
    """An origin with fewer images is one batch."""
    zca: bool = False
    """Distil whitened images (eps 0.1) instead of normalised ones; the whitening is kept with the set."""

    @model_validator(mode="after")
    def _targets_exist(self) -> MTTSettings:
        reached = self.max_start - 1 + self.match_snapshots
        if reached > self.expert_snapshots:
            raise ValueError(
                f"the last start has no target; got max_start {self.max_start} and match_snapshots "
                f"{self.match_snapshots}, which need {reached} snapshots; expected at most expert_snapshots, "
                f"{self.expert_snapshots}. Lower max_start, or raise expert_snapshots"
            )
        return self

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """The student's steps and the way back through them."""
        return 9 * self.syn_steps * min(num_classes * ipc, self.batch_syn or num_classes * ipc)

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """A student step at least, more as far as they are worth their memory; the parameters after each step."""
        batch = min(num_classes * ipc, self.batch_syn or num_classes * ipc)
        return Held(double=max(batch, min(self.syn_steps * batch, KEPT_STEPS)), networks=self.syn_steps + 8)

    @property
    def averaged(self) -> float:
        """How much of the running average of the images stays at each update; 0: the last images are the set."""
        return 0.0

    @property
    def earliest(self) -> int:
        """The first start."""
        return 0

    def starts_end(self, iteration: int) -> int:
        """Starts of an iteration are before this one."""
        return self.max_start

    @property
    def loss_limit(self) -> float:
        """An iteration whose loss is above this changes nothing."""
        return math.inf

    def experts(
        self, dataset: DatasetConfig, origin: OriginConfig, network: NetworkConfig, augmentation: Augmentation | None
    ) -> tuple[ExpertConfig, ...]:
        common: dict[str, Any] = {
            "dataset": dataset,
            "origin": origin,
            "network": network,
            "augmentation": augmentation,
            "snapshots": self.expert_snapshots,
            "snapshot_steps": self.snapshot_steps,
            "lr": self.lr_expert,
            "momentum": self.momentum_expert,
            "batch": self.batch_expert,
            "zca": self.zca,
        }
        common |= self.flatness()
        return tuple(ExpertConfig(index=index, **common) for index in range(self.num_experts))

    def flatness(self) -> dict[str, Any]:
        """What the experts have beyond plain gradient descent, as fields of ``ExpertConfig``."""
        return {}


@method("tesla", title="TESLA", function="trainables.distill.mtt:distill", init="real")
class TESLASettings(MTTSettings):
    """MTT in constant memory (Cui et al., ICML 2023), with labels that experts give if wanted."""

    mtt_gradient: Literal["recompute", "unrolled", "tesla"] = "tesla"
    target_labels: bool = False
    """Whether each iteration labels the images anew, by the expert at the end of its segment; the last labels are the
    set's. The authors have it for ImageNet."""

    @property
    def label_source(self) -> LabelSource | None:
        """Experts."""
        return "teacher" if self.target_labels else None


class _FlatSettings(MTTSettings):
    """With experts that look for flat places."""

    radius: float = Field(default=0.01, gt=0)
    """rho: how far away, in units of the parameters, experts take their gradients."""
    alignment: float = Field(default=0.3, ge=0)
    """a: how much of the gradient's part that is orthogonal to that one is taken off."""

    def flatness(self) -> dict[str, Any]:
        """Gradients of a flatter place."""
        return {"method": "ftd", "radius": self.radius, "alignment": self.alignment}


@method("ftd", title="FTD", function="trainables.distill.mtt:distill", init="real")
class FTDSettings(_FlatSettings):
    """Flat trajectories (Du et al., CVPR 2023): MTT with sharpness-aware experts and an average of the images."""

    ema: float = Field(default=0.9995, ge=0, lt=1)
    """d of the average. After i iterations it still holds d^i of the real images it began at: 8 % after 5,000."""

    @property
    def averaged(self) -> float:
        """The average is what the set is made of."""
        return self.ema


@method("datm", title="DATM", function="trainables.distill.mtt:distill", init="real")
class DATMSettings(_FlatSettings):
    """Trajectories of matched difficulty (Guo et al., ICLR 2024): MTT with FTD's experts, starts that go on to later
    epochs the more images there are, and soft labels that are learned with them."""

    iterations: int = Field(default=10_000, ge=0)
    """0 gives the start itself, labelled by experts: the control of what is learned."""
    syn_steps: int = Field(default=80, ge=1)
    """Steps of the student on the distilled set (N)."""
    expert_snapshots: int = Field(default=100, ge=1)
    """Snapshots after the initial one, usually epochs."""
    zca: bool = True
    """Distil whitened images (eps 0.1) instead of normalised ones; the whitening is kept with the set."""
    min_start: int = Field(default=0, ge=0)
    """The first start (T-)."""
    early_starts: int | None = Field(default=None, ge=1)
    """Starts at the first iteration are before this one (T); the end grows to ``max_start``. null: it is there from the
    beginning."""
    growth: int = Field(default=1000, ge=1)
    """Iterations of that growth."""
    threshold: float = Field(default=1.0, gt=0)
    """An iteration whose loss is above this changes nothing."""
    right_first: bool = True
    """Real images that the first expert's last network gets right come first, and their labels start at the mean of the
    experts that are right. false: the images of ``random``, labelled by the first expert."""
    lr_label: float = Field(default=2.0, ge=0)
    """Learning rate of the labels, which are logits."""
    momentum_label: float = Field(default=0.9, ge=0, lt=1)

    @model_validator(mode="after")
    def _starts_in_order(self) -> DATMSettings:
        first_end = self.early_starts or self.max_start
        if not self.min_start < first_end <= self.max_start:
            raise ValueError(
                f"starts out of order; got min_start {self.min_start}, early_starts {self.early_starts}, max_start "
                f"{self.max_start}; expected min_start below early_starts, and that at most max_start"
            )
        return self

    @property
    def label_source(self) -> LabelSource | None:
        """With the images."""
        return "learned"

    @property
    def earliest(self) -> int:
        """T-."""
        return self.min_start

    def starts_end(self, iteration: int) -> int:
        """The end grows with the iterations."""
        first = self.early_starts or self.max_start
        return min(self.max_start, first + (self.max_start - first) * iteration // self.growth)

    @property
    def loss_limit(self) -> float:
        """The threshold."""
        return self.threshold


@method(
    "idc",
    title="IDC",
    function="trainables.distill.idc:distill",
    init="real",
)
class IDCSettings(NetworkSettings):
    """Efficient synthetic-data parameterisation (Kim et al., ICML 2022). With factor 1 it is the paper's IDC-I."""

    budget: ClassVar[str | None] = "iterations"

    iterations: int = Field(default=200_000, ge=0)
    """Inner steps: each updates the images of every class once and trains the network. (The authors: 2,000 x 100.)"""
    inner_loop: int = Field(default=100, ge=1)
    """Inner steps with one network."""
    factor: int = Field(default=2, ge=1, le=8)
    """Each stored image is cut into factor x factor training images."""
    layout: Literal["mix", "whole"] = "mix"
    """A start from real images with a factor above 1. ``mix``: ipc x factor^2 shrunken images in tiles; ``whole``: ipc
    images as they are."""
    lr_base: float = Field(default=5e-3, gt=0)
    """Learning rate of the images in [0, 1] at ipc 10 and 32 pixels; it grows with ipc and with the image's area."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    lr_net: float = Field(default=0.01, gt=0)
    momentum_net: float = Field(default=0.9, ge=0, lt=1)
    weight_decay_net: float = Field(default=5e-4, ge=0)
    batch_real: int = Field(default=64, ge=1)
    """Real images per class and update, and per step of the network's training."""
    batch_syn_max: int = Field(default=128, ge=1)
    """Decoded images of a class that are matched at once; of more, so many are drawn."""
    net_images: int = Field(default=2000, ge=0)
    """Real images that the network is trained on in each inner step, in whole batches; an origin with fewer is gone
    through once."""
    metric: Literal["mse", "l1"] = "mse"
    """Sum of squares, or of absolute values, of the differences of the convolutions' gradients."""
    match_aug: Operations = "color_crop_cutout"
    """Operations of the matching step, shared by real and distilled images, joined by underscores. Of crop, scale and
    rotate one is chosen; the others are all applied, in the order flip, color, that one, cutout."""
    net_aug: Operations = "color_crop"
    """The same of the network's training, drawn for each image."""
    cutmix: float = Field(default=0.5, ge=0, le=1)
    """Probability of CutMix per batch of the network's training."""

    @property
    def clustered(self) -> tuple[int, int] | None:
        """Images of each class that are chosen by clustering, and for how many steps; None: they are drawn."""
        return None

    @property
    def matched_real(self) -> int:
        """Real images of a class that are matched at once."""
        return self.batch_real if self.clustered is None else self.clustered[0]

    def decoded_images(self, ipc: int) -> int:
        return ipc * self.factor**2

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """Also the network's training on real images."""
        matched = 3 * min(real_images, self.matched_real) + 9 * min(self.decoded_images(ipc), self.batch_syn_max)
        return num_classes * matched + 3 * min(self.net_images, num_classes * real_images)

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """As of gradient matching, of decoded images."""
        real, own = min(real_images, self.matched_real), min(self.decoded_images(ipc), self.batch_syn_max)
        classes = _together(max(real, own), MATCHED_TOGETHER, num_classes)
        return Held(graph=GRADIENTS * classes * real, double=classes * own)

    def real_images(self, ipc: int) -> int:
        return ipc * self.factor**2 if self.layout == "mix" else ipc

    def lr_img(self, ipc: int, image_size: int) -> float:
        """The images' learning rate: lr_base * ipc / 10 * (image_size / 32)^2.

        The mean of the cross-entropy over a class makes gradients shrink with ipc, which the rate undoes. Differs from
        the authors' code: 32 pixels are the measure of every data set, where theirs takes 28 for MNIST (the presets'
        ``lr_base`` makes up for it).
        """
        return self.lr_base * ipc / 10 * (image_size / 32) ** 2


@method(
    "dream",
    title="DREAM",
    function="trainables.distill.idc:distill",
    init="real",
    version=2,  # of images that are equally near a centre the first: rounding chose
)
class DREAMSettings(IDCSettings):
    """Representative matching (Liu et al., ICCV 2023): IDC on real images that clustering chooses."""

    clusters: int = Field(default=128, ge=1)
    """Clusters of a class, whose central images are matched; a class with fewer images gives all it has."""
    interval: int = Field(default=10, ge=1)
    """Inner steps for which they stay; a new network chooses anew."""

    @property
    def clustered(self) -> tuple[int, int]:
        """As it is set."""
        return self.clusters, self.interval

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """Also the embedding of every real image, once an interval."""
        return super().passes(num_classes, ipc, real_images) + num_classes * real_images / self.interval


class TrainedBefore(NetworkSettings):
    """Base of methods that take networks trained to their end before they begin; of equal settings they are one stage,
    whatever the method."""

    epochs_net: int = Field(default=60, ge=1)
    """Of their training; at 2/3 and 5/6 of it the rate falls to a fifth."""
    lr_net: float = Field(default=0.01, gt=0)
    momentum_net: float = Field(default=0.9, ge=0, lt=1)
    weight_decay_net: float = Field(default=5e-4, ge=0)
    batch_net: int = Field(default=128, ge=1)
    net_aug: Operations = "color_crop"
    """Operations of their training, drawn for each image."""
    cutmix: float = Field(default=0.5, ge=0, le=1)
    """Probability of CutMix per batch of their training."""

    @model_validator(mode="after")
    def _weights_are_all_there_is(self) -> TrainedBefore:
        if self.variant.norm == "batch":
            raise ValueError(
                "of networks that are trained beforehand the weights are kept, and no statistics of a batch norm; got "
                "norm batch; expected instance, or another without running statistics"
            )
        return self

    def trained(
        self,
        name: str,
        index: int,
        dataset: DatasetConfig,
        origin: OriginConfig,
        network: NetworkConfig,
        augmentation: Augmentation | None,
    ) -> ExpertConfig:
        """The network with this number.

        Args:
            name: Of the method, for messages. The others are those of ``experts``.
        """
        return ExpertConfig(
            method=name,
            dataset=dataset,
            origin=origin,
            network=network,
            index=index,
            augmentation=augmentation,
            snapshots=1,
            snapshot_epochs=self.epochs_net,
            lr=self.lr_net,
            momentum=self.momentum_net,
            weight_decay=self.weight_decay_net,
            batch=self.batch_net,
            milestones=(2 / 3, 5 / 6),
            gamma=0.2,
            operations=self.net_aug,
            cutmix=self.cutmix,
        )


@method("ncfm", title="NCFM", function="trainables.distill.ncfm:distill", init="real")
class NCFMSettings(TrainedBefore):
    """Matching characteristic functions (Wang et al., CVPR 2025), without the network that chooses frequencies."""

    budget: ClassVar[str | None] = "iterations"

    iterations: int = Field(default=20_000, ge=0)
    """Each updates the images of every class twice; 0 gives the start itself."""
    factor: int = Field(default=2, ge=1, le=8)
    """Each stored image is cut into factor x factor training images; a real start holds as many in tiles."""
    frequencies: int = Field(default=4096, ge=1)
    """M, drawn anew for each class of each iteration."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr_img: float = Field(default=1e-3, gt=0)
    """Learning rate of the images in [0, 1]."""
    weight_decay_img: float = Field(default=5e-4, ge=0)
    """Of adamw: what each of the steps takes off the pixels, times the rate."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    """Of sgd."""
    patience: int = Field(default=500, ge=0)
    """Iterations in a row without a better loss after which the rate is halved."""
    calibration: float = Field(default=1.0, ge=0)
    """Weight of a trained network's cross-entropy on the images; 0: without."""
    batch_real: int = Field(default=1024, ge=1)
    """Real images per class and iteration; a class with fewer gives all it has."""
    match_aug: Operations = "color_crop_cutout"
    """Operations shared by real and distilled images, as IDC's."""
    num_networks: int = Field(default=20, ge=1)
    """Networks that are trained beforehand; an iteration takes one between its first and its last weights."""

    def real_images(self, ipc: int) -> int:
        """Tiles of a start."""
        return ipc * self.factor**2

    def decoded_images(self, ipc: int) -> int:
        return ipc * self.factor**2

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """The decoded images pass twice, with a gradient each time."""
        own = self.decoded_images(ipc) * (6 if self.calibration else 3)
        return num_classes * (min(real_images, self.batch_real) + own)

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """One class at a time; two networks and their next weights."""
        return Held(
            forward=min(real_images, self.batch_real, EMBEDDED_TOGETHER), graph=self.decoded_images(ipc), networks=6.0
        )

    def experts(
        self, dataset: DatasetConfig, origin: OriginConfig, network: NetworkConfig, augmentation: Augmentation | None
    ) -> tuple[ExpertConfig, ...]:
        described = dataset, origin, network, augmentation
        return tuple(self.trained("ncfm", index, *described) for index in range(self.num_networks))


@method("rded", title="RDED", function="trainables.distill.rded:distill", uses=CHOSEN | {"distill_aug"})
class RDEDSettings(TrainedBefore):
    """Realistic parts of real images (Sun et al., CVPR 2024): those that a trained network finds easiest. Its numbers
    are of labels that a teacher gives every batch anew (``labels: [teacher-...-online]``, protocol ``rded``)."""

    candidates: int = Field(default=300, ge=1)
    """Images of a class that are looked at, drawn at random, at least as many as the set takes; a class with fewer
    gives all it has."""
    crops: int = Field(default=5, ge=1)
    """Random squares of each, of which the easiest stays."""
    crop_area: float = Field(default=0.08, gt=0, le=1)
    """Smallest share of an image that a square has; 1: the whole image."""
    tiles: int = Field(default=1, ge=1, le=4)
    """Squares along each side of an image of the set, which is trained on as it is."""

    def real_images(self, ipc: int) -> int:
        """Tiles of the set, each of an image of its own."""
        return ipc * self.tiles**2

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """The squares of a class's candidates pass forward."""
        squares = min(real_images, self.candidates) * self.crops
        return Held(forward=min(squares, EMBEDDED_TOGETHER), networks=1.0)

    def experts(
        self, dataset: DatasetConfig, origin: OriginConfig, network: NetworkConfig, augmentation: Augmentation | None
    ) -> tuple[ExpertConfig, ...]:
        return (self.trained("rded", 0, dataset, origin, network, augmentation),)


EXTERNAL = "external"
"""In the column ``method``; of a network from a file also in the column ``protocol``."""


@method(EXTERNAL, title="external", function=None, uses=frozenset({"ipc"}))
class ExternalSettings(MethodSettings):
    """A set or a network that ddray did not make, beside those it makes: what ``ddray evaluate`` read from a file."""

    imported: str | None = Field(default=None, min_length=1)
    """The name that it was given there (``--name``); has to be said. Of a network the protocol, the seed and ipc are
    its own, whatever the grid says."""


@method(
    "herding",
    title="Herding",
    function="trainables.distill.coresets:herding",
    uses=frozenset({"ipc"}),
    card=False,
)
class HerdingSettings(MethodSettings):
    """Real images whose mean follows the class mean (Welling, ICML 2009), chosen greedily. Nothing is random."""

    features: Literal["pixels", "network"] = "pixels"
    """Space in which means are taken: normalised pixels, or the embedding of one random ConvNet3, always the same."""


@method("kmeans", title="k-means", function="trainables.distill.coresets:kmeans", uses=CHOSEN, card=False)
class KMeansSettings(MethodSettings):
    """Of each class, the real images nearest to the centres of ipc clusters (scikit-learn)."""

    features: Literal["pixels", "network"] = "pixels"
    """Space in which distances are taken: normalised pixels, or the embedding of one random ConvNet3, always the
    same."""
    restarts: int = Field(default=10, ge=1)
    """Starts of the clustering; the best is kept."""


def _together(of_class: int, limit: int, num_classes: int) -> int:
    """Classes that make up a group of so many images at most, one at least."""
    return max(1, min(num_classes, limit // of_class))


PLUGIN_PROBLEMS: tuple[str, ...] = tuple(load_plugins())
"""Entry points that gave no method, and why; for ``ddray doctor``."""
