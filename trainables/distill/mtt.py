"""MTT: dataset distillation by matching training trajectories (Cazenavette et al., CVPR 2022; distill.py; methods.md
section 5).

    for each iteration: the next expert; a start t; theta_0 = its snapshot t, target = its snapshot t + M
        a student goes N steps from theta_0 by gradient descent on S, at the learned rate a
        L = |theta_N - target|^2 / |theta_0 - target|^2
        S <- S - lr_img * dL/dS,   a <- a - lr_lr * dL/da,   both with momentum

The experts come from stages of their own (``trainables/experts.py``); the derivatives through the N steps are in
``unroll.py``.

FTD (Du et al., CVPR 2023; methods2.md 3.5) has experts that look for flat places, and hands on a running average of the
images, E <- d E + (1 - d) S, which begins at the start.

DATM (Guo et al., ICLR 2024; methods2.md 3.7) has FTD's experts; an end of the starts that grows; no update where L is
above a threshold; and labels that are learned,

    y <- y - lr_label * dL/dy   with momentum,   the student's loss being the cross-entropy with softmax(y).

It starts from real images that the first expert's last network gets right, and y from the mean of the logits of the
experts that are right. TESLA (Cui et al., ICML 2023; methods2.md 3.6) has an approximate gradient, and may take y anew
in each iteration: the logits of the target on the images.

Which starts there are. Where an expert hardly moves L divides by next to nothing, which is why the method is said to
fail on small origins. So an expert's starts are the snapshots t < T+ with a target, up to the first at which it gets
99 % of its training images right, without those whose segment is shorter (squared) than a thousandth of its first.

K classes, n images per class, P parameters. Images (N, C, H, W) float32 normalised, or whitened with ZCA.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.context import StageFailure
from trainables.data import augment, pixels
from trainables.data.origins import Origin
from trainables.distill.context import FAR, DistillContext, class_major_labels
from trainables.distill.unroll import GRADIENTS, Batch, MetaGradient, outputs, recompute, tesla
from trainables.files import load_json, save_json
from trainables.labels import SoftLabels
from trainables.methods import DATMSettings, MTTSettings
from trainables.models.network import Network
from trainables.models.second_order import for_second_order
from trainables.optimise import in_batches
from trainables.payloads import DistilledSet, StoredExpert, load_tensors, save_tensors
from trainables.train import EVAL_BATCH

LEARNED = 0.99
"""Train accuracy from which an expert has nothing more to show."""
SHORTEST = 1e-3
"""Least squared length of a segment, in units of the expert's first."""
LEAST_RATE = 1e-6
"""The learned rate is kept from falling below this; the authors' may become negative."""
LAST_LOSSES = 25
"""Iterations whose mean loss is kept with the set."""
SURE = 10.0
"""A logit that, beside those of 0, is read as near to certain: 0.9996 of ten classes."""


def distill(origin: Origin, settings: MTTSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by matching its experts' training.

    A checkpoint holds the images, the learned rate, the momentum of both, and what is reported at the end.

    Differs from the authors' code (MTT distill.py): ``iterations`` updates instead of one more; the exact gradient is
    computed within the memory there is to spare (``mtt_gradient: recompute``); the learned rate is saved with the set
    and kept above 1e-6; starts as above, also DATM's; where no expert gets an image right, DATM's label is near to its
    class alone; a permutation of the set is cut into parts from its beginning, the short one last, where
    theirs begins at the end with the short one; no choice among sets by test accuracy; all random numbers are derived
    from (seed, purpose, step).

    Raises:
        StageFailure: The loss, a gradient or the learned rate is not finite; or no expert has a segment to match.
        ValueError: A class has fewer than ``ipc`` images to start from, or batch norm would be trained on one image.
    """
    # A start whose labels are hard takes none.
    trajectories = open_experts(settings, context) if settings.iterations or settings.label_source else []
    experts = [each for each in trajectories if each.starts]
    network = context.network().requires_grad_(False)
    for_second_order(network)
    expected = [(name, list(weight.shape)) for name, weight in network.named_parameters()]
    assert all(expert.stored.parameters == expected for expert in experts), "experts of another network"
    constants = context.config.dataset.mean, context.config.dataset.std
    whitening = pixels.fit_whitening(origin.images, *constants) if settings.zca else None

    def whitened(images: Tensor) -> Tensor:
        return images if whitening is None else whitening.whiten(images, *constants)

    classes = class_major_labels(context.num_classes, context.ipc, context.device)
    preferred = None
    if isinstance(settings, DATMSettings) and settings.right_first:
        preferred = _right(network, trajectories[0].stored, origin, whitened)
    images, indices = context.initial_images(origin, preferred)
    images = images if context.init == "noise" else whitened(images)
    state = State.of(images, settings)
    if isinstance(settings, DATMSettings):
        tellers = [each.stored for each in trajectories[: None if settings.right_first else 1]]
        state.labels = first_labels(network, tellers, images, classes, only_right=settings.right_first)
        state.labels_momentum = torch.zeros_like(state.labels)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        state = State.load(folder, images.device)

    def segment(iteration: int) -> list[Tensor]:
        """A start and its target."""
        expert, start = draw_segment(experts, settings, context, iteration)
        ends = start, start + settings.match_snapshots
        return [expert.stored.snapshot(index).to(images.device) for index in ends]

    if settings.label_source == "teacher" and state.labels is None:
        state.labels = outputs(network, segment(0)[1], images)
    for iteration in context.iterations(settings.iterations, start=done, save=state.save):
        first, target = segment(iteration)
        if settings.label_source == "teacher":
            state.labels = outputs(network, target, state.images)
        batches = student_batches(settings, context, iteration)
        labels = classes if state.labels is None else state.labels
        arguments = (first, state.images, labels, state.rate, batches, network, target, context.poll)
        gradient = GRADIENTS[settings.mtt_gradient](*arguments)
        blamed = state.to_lower(settings)
        context.check_loss(float(gradient.loss), iteration, blamed)
        if settings.tesla_cosine and iteration % settings.tesla_cosine == 0:
            other = (recompute if settings.mtt_gradient == "tesla" else tesla)(*arguments)
            state.cosines.append([iteration, _cosine(gradient.images, other.images)])
            context.measure(tesla_cosine=state.cosines[-1][1])
        if float(gradient.loss) > settings.loss_limit:
            state.skip(gradient)
        else:
            state.update(gradient, settings)
        context.check_images(state.images, iteration, "lr_img" if gradient.images.isfinite().all() else blamed)
        if not state.rate.isfinite():
            context.diverged(f"the learned rate is {float(state.rate)}", iteration, "lr_lr")
        context.measure(learned_lr=float(state.rate), rate_clamped=state.clamped)

    assert context.config.network is not None
    info = {
        "iterations": settings.iterations,
        "learned_lr": float(state.rate),
        "rate_clamped": state.clamped,
        "loss_last": sum(state.losses) / len(state.losses) if state.losses else None,
        "zca": settings.zca,
        "network": context.config.network.model_dump(mode="json"),
        "experts": len(experts),
        "experts_left_out": len(trajectories) - len(experts),
        "last_starts": [each.last for each in trajectories],
        "segments": sum(len(each.starts) for each in trajectories),
        "segments_refused": sum(len(each.refused) for each in trajectories),
        "mtt_gradient": settings.mtt_gradient,
        "tesla_cosines": state.cosines,
    }
    if state.average is not None:
        # Of the start, what the average still holds: real images, which whoever audits the set wants to know.
        info["start_share"] = settings.averaged**settings.iterations
    if settings.loss_limit < math.inf:
        info["skipped"] = state.skipped
    soft = None
    if settings.label_source is not None and state.labels is not None:
        soft = SoftLabels(classes.cpu(), state.labels.cpu(), "logits", 1.0, settings.label_source)
    handed_on = state.images if state.average is None else state.average
    final = whitening.pixels(handed_on) if whitening is not None else handed_on
    result = context.finish(final, indices, in_pixels=settings.zca, labels=soft, **info)
    return replace(result, whitening=whitening)


# --- what the student has to match ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trajectory:
    """An expert and the starts of its segments."""

    stored: StoredExpert
    last: int
    """The last start before it has learned its images, whether refused or not; -1 if there is none."""
    starts: list[int]
    refused: list[int]
    """Starts of segments that are too short."""


def open_experts(settings: MTTSettings, context: DistillContext) -> list[Trajectory]:
    """The experts among the context's inputs, also those without a segment to match.

    Raises:
        StageFailure: None has one.
    """
    numbers = sorted(int(role.removeprefix("expert.")) for role in context.inputs if role.startswith("expert."))
    assert len(numbers) == settings.num_experts, (numbers, settings.num_experts)
    trajectories = [trajectory(StoredExpert(context.inputs[f"expert.{number}"]), settings) for number in numbers]
    if not any(each.starts for each in trajectories):
        name = context.config.method
        early = sum(each.last < settings.earliest for each in trajectories)  # with T- as the start
        short = sum(len(each.refused) for each in trajectories)
        raise StageFailure(
            f"{name}: no expert has a segment to match; got {len(trajectories)} experts, of which {early} know their "
            f"images from the start, and {short} segments in which an expert stands still; expected one segment at "
            f"least. Raise settings.{name}.lr_expert or settings.{name}.snapshot_steps so that experts move between "
            "snapshots."
        )
    return trajectories


def trajectory(expert: StoredExpert, settings: MTTSettings) -> Trajectory:
    """The starts of one expert; see the top of this file."""
    ahead = settings.match_snapshots
    learned = (index for index, accuracy in enumerate(expert.info["train_acc"]) if accuracy >= LEARNED)
    end = min(settings.max_start, len(expert) - ahead, next(learned, len(expert)))
    lengths = [float(expert.distances[start, start + ahead]) for start in range(end)]
    wanted = range(settings.earliest, end)
    refused = [start for start in wanted if not lengths[start] > SHORTEST * lengths[0]]
    return Trajectory(expert, end - 1, [start for start in wanted if start not in refused], refused)


def draw_segment(
    experts: Sequence[Trajectory], settings: MTTSettings, context: DistillContext, iteration: int
) -> tuple[Trajectory, int]:
    """The expert of an iteration, each once in a random order before any comes again, and one of its starts: of those
    that the iteration may have, or of none of these its first."""
    turn, number = divmod(iteration, len(experts))
    order = torch.randperm(len(experts), generator=context.generator("experts", turn))
    chosen = experts[int(order[number])]
    starts = [start for start in chosen.starts if start < settings.starts_end(iteration)] or chosen.starts[:1]
    start = torch.randint(len(starts), (), generator=context.generator("start", iteration))
    return chosen, starts[int(start)]


def student_batches(settings: MTTSettings, context: DistillContext, iteration: int) -> list[Batch]:
    """The student's N batches: consecutive parts of permutations of S, each image under its own augmentation."""
    count = context.num_classes * context.ipc
    parts: list[Tensor] = []
    for turn in itertools.count():
        if len(parts) >= settings.syn_steps:
            break
        order = torch.randperm(count, generator=context.generator("order", iteration, turn)).to(context.device)
        parts += in_batches(
            order,
            settings.batch_syn or count,
            batch_statistics=context.needs_two_images,
            who=context.config.method,
            setting=f"settings.{context.config.method}.batch_syn",
        )
    batches = []
    for step, rows in enumerate(parts[: settings.syn_steps]):
        params = None
        if context.strategy is not None:
            generator = context.generator("augment", iteration, step)
            params = augment.sample(context.strategy, len(rows), shared=False, generator=generator)
        batches.append(Batch(rows, params))
    return batches


# --- labels -----------------------------------------------------------------------------------------------------------


def _right(network: Network, expert: StoredExpert, origin: Origin, seen: Callable[[Tensor], Tensor]) -> Tensor:
    """Which images of the origin (N,) the expert's last network gets right."""
    last = expert.snapshot(len(expert) - 1).to(origin.images.device)
    parts = torch.split(origin.images, EVAL_BATCH[origin.images.device.type])
    said = torch.cat([outputs(network, last, seen(part)).argmax(1) for part in parts])
    return said == origin.labels.to(said.device)


def first_labels(
    network: Network, experts: Sequence[StoredExpert], images: Tensor, classes: Tensor, *, only_right: bool
) -> Tensor:
    """The mean of the experts' logits (N, K) at the end of their training.

    Args:
        network: Of their kind.
        experts: E of them.
        images: (N, C, H, W), as the experts see images.
        classes: (N,).
        only_right: Of each image, the mean over the experts that get it right; where none does, ``SURE`` of its class
            and 0 of the others.
    """
    rows = torch.stack(
        [outputs(network, expert.snapshot(len(expert) - 1).to(images.device), images) for expert in experts]
    )
    if not only_right:
        return rows.mean(0)
    right = (rows.argmax(-1) == classes).to(rows.dtype)  # (E, N)
    told = (rows * right[..., None]).sum(0) / right.sum(0).clamp(min=1)[:, None]
    alone = SURE * F.one_hot(classes, rows.shape[-1]).to(rows.dtype)
    return torch.where(right.any(0)[:, None], told, alone)


# --- what is learned --------------------------------------------------------------------------------------------------


@dataclass
class State:
    """Everything that changes from iteration to iteration."""

    images: Tensor
    """(K * n, C, H, W)."""
    rate: Tensor
    """A scalar: the student's learning rate."""
    images_momentum: Tensor
    rate_momentum: Tensor
    average: Tensor | None = None
    """Of the images so far, where the set is made of it."""
    labels: Tensor | None = None
    """Logits (K * n, K) of soft labels."""
    labels_momentum: Tensor | None = None
    """Of those that are learned."""
    clamped: int = 0
    """How often the rate was kept from falling below its least value."""
    skipped: int = 0
    """How many iterations changed nothing, because of their loss."""
    losses: list[float] = field(default_factory=list)
    """Of the last iterations."""
    cosines: list[list[float]] = field(default_factory=list)
    """[iteration, cosine between the exact and the TESLA gradient of the images]."""

    @classmethod
    def of(cls, images: Tensor, settings: MTTSettings) -> State:
        """Before the first iteration; soft labels are not there yet."""
        rate = torch.tensor(settings.lr_syn, device=images.device)
        average = images.clone() if settings.averaged else None
        return cls(images, rate, torch.zeros_like(images), torch.zeros_like(rate), average)

    def skip(self, gradient: MetaGradient) -> None:
        """An iteration that changes nothing."""
        self._note(gradient)
        self.skipped += 1

    def update(self, gradient: MetaGradient, settings: MTTSettings) -> None:
        """One step of gradient descent with momentum, of the images, of the rate and of labels that are learned."""
        self._note(gradient)
        self.images_momentum.mul_(settings.momentum_img).add_(gradient.images)
        self.images.sub_(self.images_momentum, alpha=settings.lr_img)
        if self.average is not None:
            self.average.mul_(settings.averaged).add_(self.images, alpha=1 - settings.averaged)
        if isinstance(settings, DATMSettings):
            assert gradient.labels is not None
            assert self.labels is not None
            assert self.labels_momentum is not None
            self.labels_momentum.mul_(settings.momentum_label).add_(gradient.labels)
            self.labels.sub_(self.labels_momentum, alpha=settings.lr_label)
        self.rate_momentum.mul_(settings.momentum_img).add_(gradient.rate)
        self.rate.sub_(self.rate_momentum, alpha=settings.lr_lr)
        if -math.inf < float(self.rate) < LEAST_RATE:
            self.clamped += 1
            self.rate.fill_(LEAST_RATE)

    def _note(self, gradient: MetaGradient) -> None:
        self.losses = [*self.losses[1 - LAST_LOSSES :], float(gradient.loss)]

    def to_lower(self, settings: MTTSettings) -> str:
        """The rate to blame when the student diverges: that of the images if they are far from what images are, else
        its own, which the sweep sets (``lr_syn``) and ``lr_lr`` raises."""
        if float(self.images.abs().max()) > FAR:
            return "lr_img"
        return "lr_lr" if float(self.rate) > 1.01 * settings.lr_syn else "lr_syn"

    def save(self, folder: Path) -> None:
        tensors = {name: getattr(self, name) for name in _TENSORS}
        save_tensors(folder / "mtt.safetensors", {name: one for name, one in tensors.items() if one is not None})
        save_json(folder / "mtt.json", {name: getattr(self, name) for name in _NUMBERS})

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> State:
        tensors = {name: tensor.to(device) for name, tensor in load_tensors(folder / "mtt.safetensors").items()}
        said: dict[str, Any] = {**tensors, **load_json(folder / "mtt.json")}
        return cls(**said)


_TENSORS = ("images", "rate", "images_momentum", "rate_momentum", "average", "labels", "labels_momentum")
_NUMBERS = ("clamped", "skipped", "losses", "cosines")


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))
