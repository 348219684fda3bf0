"""Gradient descent on labelled images: the one loop, the state it keeps, and the gradient of a step.

Trainings and experts run ``descend``, on one network or on several packed into one; the inner loops of methods take
single gradients. M networks. Images (N, C, H, W) float32 normalised; labels (N,) int64, or rows (N, K) of soft ones
with the loss that they are learned by (``labels.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from trainables.configs import Optimiser, PrivateConfig
from trainables.context import Context, StageFailure
from trainables.data import augment
from trainables.device import LAYOUTS, laid_out
from trainables.guarantee import Guarantee
from trainables.labels import Answers, Loss, hard_loss
from trainables.models.network import Network, uses_batch_statistics
from trainables.payloads import load_tensors, save_tensors

CHECK_EVERY = 50
"""Steps between looks at the loss: on a GPU each look waits for the device."""

CHUNK = {"cpu": 32, "cuda": 65536}
"""Images per forward and backward pass; a larger batch adds up the gradients of its parts. Activations of 32 images
stay in a CPU's cache; benchmarks/steps.py prints what that gains."""

SECOND_BETA = 0.999
"""Of AdamW; the recipe's momentum is the first."""
_KEPT = {torch.optim.SGD: {"momentum_buffer": ""}, torch.optim.AdamW: {"exp_avg": "", "exp_avg_sq": "2", "step": "n"}}
"""Optimiser -> what it keeps of a parameter, and what a checkpoint calls it after ``momentum``."""


class Mix(NamedTuple):
    """How the images of a batch are mixed with one another, at most in one way."""

    cutmix: float
    """Probability of CutMix."""
    mixup: float
    """Alpha of Mixup; 0: none."""
    generator: torch.Generator
    """Decides and draws it."""


@dataclass(frozen=True)
class Learner:
    """A network and the optimiser that trains it."""

    network: Network
    optimiser: torch.optim.SGD | torch.optim.AdamW

    @classmethod
    def of(
        cls,
        network: Network,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        optimiser: Optimiser = "sgd",
        decay_on: Literal["all", "matrices"] = "all",
    ) -> Learner:
        """Arguments as the fields of ``RecipeConfig``."""
        decays: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in network.named_parameters():
            small = decay_on == "matrices" and (parameter.ndim < 2 or not name.endswith("weight"))
            (others if small else decays).append(parameter)
        groups: list[dict[str, Any]] = [{"params": decays}]
        if others:
            groups.append({"params": others, "weight_decay": 0.0})
        if optimiser == "adamw":
            betas = momentum, SECOND_BETA
            return cls(network, torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay))
        return cls(network, torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay))

    def set_rate(self, lr: float) -> None:
        """The learning rate from now on."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        """Take one step along the gradients, which are then forgotten."""
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def state(self, momentum: str = "momentum") -> dict[str, Tensor]:
        """What a checkpoint holds: ``network.NAME`` of parameters and buffers, and what the optimiser keeps of each
        under this prefix."""
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for kept, suffix in _KEPT[type(self.optimiser)].items():
                buffer = self.optimiser.state[parameter].get(kept)
                if buffer is not None:
                    state[f"{momentum}{suffix}.{name}"] = buffer
        return state

    def load(self, state: Mapping[str, Tensor], momentum: str = "momentum") -> None:
        """Take over what ``state`` gave."""
        self.network.load_state_dict({name: state[f"network.{name}"] for name in self.network.state_dict()})
        for name, parameter in self.network.named_parameters():
            for kept, suffix in _KEPT[type(self.optimiser)].items():
                saved = state.get(f"{momentum}{suffix}.{name}")
                if saved is None:
                    continue
                # In the parameter's own memory layout: a file holds plain ones, and the optimiser is faster in its own.
                like = torch.empty_like(parameter, requires_grad=False) if saved.ndim else torch.empty_like(saved)
                self.optimiser.state[parameter][kept] = like.copy_(saved)


class Record(Protocol):
    """What is kept of a descent along the way; it belongs to the state that a checkpoint holds."""

    @property
    def at(self) -> Collection[int]:
        """Numbers of steps done, 0 for none yet, at which the network is looked at."""

    def look(self, done: int) -> None:
        """Look at the network after so many steps."""

    def save(self, folder: Path) -> None:
        """Write the record into an existing folder."""

    def restore(self, folder: Path) -> None:
        """Take up what ``save`` wrote."""


class Names(NamedTuple):
    """Who descends, for messages."""

    members: Sequence[str]
    """One for each of the M networks."""
    advice: str
    """What to do when the loss is not finite."""

    def diverged(self, what: str, step: int, per_epoch: int, member: int = 0) -> StageFailure:
        """The failure of a descent in which something is not finite after a step, counted from 0."""
        return StageFailure(
            f"{self.members[member]}: {what} is not finite in epoch {step // per_epoch + 1} (step {step + 1}); "
            f"expected a finite number. {self.advice}"
        )


def descend(
    learner: Learner,
    *,
    batch: int,
    steps: int,
    per_epoch: int,
    order: Callable[[int], Tensor],
    gradient: Callable[[Tensor, int], Tensor],
    rate: Callable[[int], float] | None = None,
    record: Record,
    names: Names,
    context: Context,
) -> None:
    """Adjust a network's parameters along gradients.

    Resumable: a checkpoint holds the parameters, what the optimiser keeps and the record; everything random is a
    function of epoch or step.

    Args:
        learner: Its network in train mode; M networks packed into one, or a single one.
        batch: Images of a step, of each of the M networks.
        steps: How many in all.
        per_epoch: Batches that an epoch's permutation is cut into (``batches_per_epoch``).
        order: Epoch -> the permutation of the images (N,), or one for each of the M networks (M, N); on any device.
        gradient: Adds the gradient of a batch, given its rows (B,) or (M, B) and the step, to the parameters' ``grad``;
            returns the loss () or losses (M,), detached.
        rate: Step -> learning rate; None: the learner's throughout.

    Raises:
        StageFailure: A loss is not finite; the message names whose, epoch and step.
        Interrupted: The stage is to stop.
    """
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        learner.load(load_tensors(folder / "train.safetensors"))
        record.restore(folder)
    elif 0 in record.at:
        record.look(0)

    def save(folder: Path) -> None:
        save_tensors(folder / "train.safetensors", learner.state())
        record.save(folder)

    batches: list[Tensor] = []
    sums = torch.zeros(len(names.members), device=context.device)
    for step in context.iterations(steps, start=done, save=save, unit="step"):
        epoch, number = divmod(step, per_epoch)
        if number == 0 or step == done:
            batches = _cut(order(epoch).to(context.device), batch, per_epoch)
        if rate is not None:
            learner.set_rate(rate(step))
        losses = gradient(batches[number], step)
        learner.step()
        # Summed between looks: the sum is not finite once one of its losses was not.
        sums += losses
        looked_at = step + 1 in record.at
        if looked_at or (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            finite = sums.isfinite().tolist()
            if not all(finite):
                raise names.diverged("the loss", step, per_epoch, finite.index(False))
            context.measure(loss=float(losses.mean()))
            sums.zero_()
        if looked_at:
            record.look(step + 1)


def batch_gradient(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    params: augment.Params | None = None,
    mix: Mix | None = None,
    loss_of: Loss = hard_loss,
    answers: Answers | None = None,
) -> Tensor:
    """Add the gradient of one batch's mean loss to the parameters' ``grad``.

    Args:
        network: In train mode. With batch statistics the batch is never split.
        images: (B, C, H, W).
        labels: (B,) classes, or what else ``loss_of`` compares logits with (B, K).
        params: One augmentation for all of the batch, or one per image.
        answers: What logits are compared with instead of labels; of a mixed image that is one row, not two.

    Returns:
        The loss, detached.
    """
    if params is not None:
        images = augment.apply(images, params)
    images, partners, kept = mixed(images, labels, mix)
    kept = kept if answers is None else 1.0
    parts = 1 if uses_batch_statistics(network) else math.ceil(len(images) / CHUNK[images.device.type])
    total = torch.zeros((), device=images.device)
    for part, own, other in zip(images.chunk(parts), labels.chunk(parts), partners.chunk(parts), strict=True):
        logits = network(laid_out(part))
        loss = loss_of(logits, own if answers is None else answers(part), "sum") / len(images)
        if kept < 1.0:
            loss = kept * loss + (1 - kept) * loss_of(logits, other, "sum") / len(images)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


@dataclass(frozen=True)
class GradientNoise:
    """What makes the gradients of a training private."""

    guarantee: Guarantee
    expected: float
    """Images of a step on average."""

    def rows(self, images: int, coins: torch.Generator) -> Tensor:
        """Which of the images a step has: each by a coin of its own (n,), perhaps none."""
        return (torch.rand(images, generator=coins) < self.guarantee.rate).nonzero().flatten()


def private_gradient(
    network: Network,
    images: Tensor,
    labels: Tensor,
    noise: GradientNoise,
    generator: torch.Generator,
    *,
    params: augment.Params | None = None,
    loss_of: Loss = hard_loss,
) -> Tensor:
    """Add a step's noisy gradient to the parameters' ``grad`` (DP-SGD: Abadi et al., CCS 2016, algorithm 1):

        1 / (q N) * (sum over images of g min(1, C / (||g|| + 1e-6)) + N(0, sigma^2 C^2))

    with g an image's gradient of all parameters, and q N the images of a step on average, not those that it has.

    Args:
        network: In train mode, without batch statistics.
        images: (B, C, H, W) that coins chose; B may be 0.
        labels: (B,) classes, or what else ``loss_of`` compares logits with (B, K).
        noise: How much, and to what norm C gradients are shortened.
        generator: Of the noise.
        params: One augmentation per image.

    Returns:
        The mean loss, detached; 0 without images.
    """
    if params is not None:
        images = augment.apply(images, params)
    parameters = dict(network.named_parameters())
    weights = {name: parameter.detach() for name, parameter in parameters.items()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        own = loss_of(functional_call(network, weights, (image[None],)), label[None], "sum")
        return own, own.detach()

    clip, together = noise.guarantee.clip, PrivateConfig.together
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    total = torch.zeros((), device=images.device)
    parts = zip(torch.split(images, together), torch.split(labels, together), strict=True)
    for part, own in parts if len(images) else ():
        gradients, losses = vmap(grad(loss, has_aux=True), in_dims=(None, 0, 0))(weights, laid_out(part), own)
        norms = torch.stack([each.flatten(1).square().sum(1) for each in gradients.values()]).sum(0).sqrt()
        factors = (clip / (norms + 1e-6)).clamp_max(1.0)
        for name, each in gradients.items():
            sums[name] += torch.tensordot(factors, each, 1)
        total += losses.sum()
    for name, parameter in parameters.items():
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        parameter.grad = (sums[name] + noise.guarantee.noise * clip * drawn) / noise.expected
    return total / max(1, len(images))


def packed_gradient(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    params: Sequence[augment.Params | None],
    mixes: Sequence[Mix | None],
    loss_of: Loss = hard_loss,
    answers: Answers | None = None,
) -> Tensor:
    """``batch_gradient`` of several networks packed into one: each member's gradient of its own batch's mean loss.

    Args:
        network: Packed (``models/packed.py``), in train mode.
        images: (M, B, C, H, W), edited in place.
        labels: (M, B) classes, or (M, B, K).
        params: Of each member's batch, one per image; of all members or of none.

    Returns:
        The losses (M,), detached.
    """
    count, batch = labels.shape[:2]
    drawn = [each for each in params if each is not None]
    if drawn:
        active, draws = (torch.cat([getattr(each, name) for each in drawn]) for name in ("active", "draws"))
        together = augment.Params(drawn[0].order, active, draws)
        images = augment.apply(images.flatten(0, 1), together).reshape(images.shape)
    partners, kept = labels.clone(), torch.ones(count, 1)
    for index, mix in enumerate(mixes):
        images_s, partners_s, share = mixed(images[index], labels[index], mix)
        if share < 1.0:
            images[index], partners[index], kept[index] = images_s, partners_s, share
    shares = kept.to(images.device) if kept.min() < 1.0 and answers is None else None
    parts = 1
    if not uses_batch_statistics(network):
        parts = min(batch, math.ceil(count * batch / CHUNK[images.device.type]))
    losses = torch.zeros(count, device=images.device)
    for part, own, other in zip(images.chunk(parts, 1), labels.chunk(parts, 1), partners.chunk(parts, 1), strict=True):
        logits = network(_side_by_side(part)).flatten(0, 1)
        rows = own.flatten(0, 1) if answers is None else answers(part.flatten(0, 1))
        loss = loss_of(logits, rows, "none").view(part.shape[:2])
        if shares is not None:
            others = loss_of(logits, other.flatten(0, 1), "none").view(own.shape[:2])
            loss = shares * loss + (1 - shares) * others
        loss = loss.sum(1) / batch
        loss.sum().backward()  # type: ignore[no-untyped-call]
        losses += loss.detach()
    return losses


def _side_by_side(images: Tensor) -> Tensor:
    """(M, B, C, H, W) as the packed network wants them: (B, M * C, H, W) as its device likes them, by one copy."""
    if LAYOUTS[images.device.type] is torch.contiguous_format:
        return images.transpose(0, 1).flatten(1, 2)
    return images.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)


def drops(position: int, length: int, milestones: Sequence[float], gamma: float) -> float:
    """What the milestones passed so far have left of a learning rate.

    Args:
        position: Steps or epochs done.
        length: Of the training.
        milestones: Fractions of it, rounded down to whole steps or epochs.
        gamma: What each leaves.
    """
    # The small number keeps products such as 2/3 * 300 from falling below the integer they stand for.
    passed = sum(position >= math.floor(milestone * length + 1e-9) for milestone in milestones)
    return float(gamma**passed)


def batches_per_epoch(
    images: int, batch: int, *, batch_statistics: bool, setting: str = "the recipe's batch", who: str = "train"
) -> int:
    """How many batches a permutation of the images is cut into; the last takes what is left.

    Args:
        batch_statistics: A single image cannot be a batch: left over, it joins the batch before.
        setting: What to raise, for the message.

    Raises:
        ValueError: Batch norm would take statistics of one image.
    """
    if batch_statistics and min(images, batch) == 1:
        raise ValueError(
            f"{who}: batch norm has no statistics of one image; got {images} images in batches of {batch}; expected 2 "
            f"or more of both. Raise {setting}, or take a network with instance norm."
        )
    whole, left = divmod(images, batch)
    return whole + (left > (1 if batch_statistics and whole else 0))


def in_batches(order: Tensor, batch: int, *, batch_statistics: bool, setting: str, who: str) -> list[Tensor]:
    """A permutation cut into batches.

    Args:
        order: (N,) rows.
        batch: As for ``batches_per_epoch``; so are the others.

    Raises:
        ValueError: Batch norm would take statistics of one image.
    """
    count = batches_per_epoch(len(order), batch, batch_statistics=batch_statistics, setting=setting, who=who)
    return _cut(order, batch, count)


def _cut(order: Tensor, batch: int, count: int) -> list[Tensor]:
    """Permutations (..., N) cut into batches (..., B); the last one takes what is left."""
    return [order[..., part * batch : None if part + 1 == count else (part + 1) * batch] for part in range(count)]


def mixed(images: Tensor, labels: Tensor, mix: Mix | None) -> tuple[Tensor, Tensor, float]:
    """A batch after CutMix or Mixup, or as it was: images, partners' labels, share of the own label (``augment``)."""
    if mix is not None and mix.mixup > 0:
        return augment.mixup(images, labels, mix.mixup, mix.generator)
    if mix is not None and float(torch.rand(1, generator=mix.generator)) < mix.cutmix:
        return augment.cutmix(images, labels, mix.generator)
    return images, labels, 1.0
