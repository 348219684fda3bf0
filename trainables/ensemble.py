"""Train several networks on one set at once that differ in the seed alone: the repeats of a point.

One packed network holds all members (``models/packed.py``), so a step costs about the calls of one training. Batches,
augmentations and initial weights of member s are those of ``train.py`` with seed s, and so are its weights at the end,
up to the rounding of sums taken in another order.

M members. Images (N, C, H, W) float32 normalised; labels (N,) int64; batches (M, B, …), stacked by member.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.configs import EnsembleConfig, TrainConfig
from trainables.context import Context
from trainables.data import augment
from trainables.data.origins import AskedImages, TestSet
from trainables.data.whiten import Whitening
from trainables.models.build import build
from trainables.models.network import Network, uses_batch_statistics
from trainables.models.packed import member_states, pack
from trainables.optimise import CHUNK, batches_per_epoch, mixed
from trainables.payloads import TrainedEnsemble
from trainables.train import (
    CHECK_EVERY,
    accuracy,
    augmentation,
    curve_steps,
    cutmix,
    diverged,
    first_per_class,
    learning_rate,
    order_of,
    restore_progress,
    save_progress,
    trained_model,
)


def train_ensemble(
    config: EnsembleConfig,
    images: Tensor,
    labels: Tensor,
    test: TestSet,
    context: Context,
    *,
    learned_lr: float | None = None,
    whitening: Whitening | None = None,
    asked: AskedImages | None = None,
) -> TrainedEnsemble:
    """Train one fresh network per seed and record what each says about the test split.

    Everything is as in ``train``; a member's share of a step depends on nothing of the others.

    Args:
        config: The training, and the seeds.
        images: Training images.
        labels: Their positions in the origin's list of classes.
        test: The whole test split, in canonical order.
        context: Device, progress and checkpoints.
        learned_lr: Replaces the recipe's rate.
        whitening: What the images of the set and of the test split were whitened with, to be kept with the models.
        asked: Further images that each model is asked about; see ``train``.

    Raises:
        StageFailure: The loss of a member is not finite; the message names its seed. The others are lost with it.
        ValueError: The network cannot be built, or it has batch norm and the recipe's batches hold one image.
    """
    base, device = config.base, torch.device(context.device)
    recipe = base.recipe if learned_lr is None else base.recipe.model_copy(update={"lr": learned_lr})
    members = [config.member(seed) for seed in config.seeds]
    images, labels = images.to(device), labels.to(device)
    test = TestSet(test.images.to(device), test.labels.to(device), test.ids)
    alone = [build(base.network, "train", "network", seed, device=context.device) for seed in config.seeds]
    network = pack(alone)
    per_epoch = batches_per_epoch(len(images), recipe.batch, batch_statistics=uses_batch_statistics(network))
    total = recipe.steps or per_epoch * (recipe.epochs or 0)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    curve: list[dict[str, float]] = []
    """A point per member, in the order of the seeds."""
    curve_rows = first_per_class(test.labels, base.curve_images)
    at_steps = curve_steps(recipe, base.curve_points, per_epoch)

    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        curve = restore_progress(folder, network, optimiser)
    orders = torch.empty(len(members), 0, dtype=torch.int64)
    looks = torch.zeros(len(members), device=device)

    def save(folder: Path) -> None:
        save_progress(folder, network, optimiser, curve)

    for step in context.iterations(total, start=done, save=save, unit="step"):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0 or step == done:
            orders = torch.stack([order_of(member, len(images), epoch) for member in members]).to(device)
        rows = orders[:, batch * recipe.batch : None if batch + 1 == per_epoch else (batch + 1) * recipe.batch]
        optimiser.param_groups[0]["lr"] = learning_rate(recipe, step, per_epoch)
        optimiser.zero_grad(set_to_none=True)
        losses = _accumulate_gradients(network, images[rows], labels[rows], members, step)
        optimiser.step()
        looks += losses
        if (step + 1) % CHECK_EVERY == 0 or step + 1 in at_steps or step + 1 == total:
            finite = looks.isfinite().tolist()
            if not all(finite):
                raise diverged(f"ensemble: seed {config.seeds[finite.index(False)]}", epoch, step)
            context.measure(loss=float(losses.mean()))
            looks.zero_()
        if step + 1 in at_steps:
            for each in _unpack(network, alone):
                correct = accuracy(each, test.images[curve_rows], test.labels[curve_rows])
                curve.append({"epoch": (step + 1) / per_epoch, "steps": step + 1, "test_acc": correct})
            context.measure(test_acc=sum(point["test_acc"] for point in curve[-len(members) :]) / len(members))

    models = {}
    for index, (member, each) in enumerate(zip(members, _unpack(network, alone), strict=True)):
        facts = {
            "optimiser_steps": total,
            "trained_lr": recipe.lr,
            "epochs": total / per_epoch,
            "curve": curve[index :: len(members)],
        }
        models[member.seed] = trained_model(member, each, images, labels, test, facts, whitening, asked)
    return TrainedEnsemble(models)


def _accumulate_gradients(
    network: Network, images: Tensor, labels: Tensor, members: Sequence[TrainConfig], step: int
) -> Tensor:
    """Augment the members' batches together, add the gradient of each one's mean loss to its parameters.

    Args:
        network: Packed, in train mode.
        images: (M, B, C, H, W), edited in place.
        labels: (M, B).
        members: The configurations, in order.
        step: Number of the step.

    Returns:
        The losses (M,), detached.
    """
    count, batch = labels.shape
    drawn = [params for member in members if (params := augmentation(member, batch, step)) is not None]
    if drawn:
        active, draws = (torch.cat([getattr(params, name) for params in drawn]) for name in ("active", "draws"))
        together = augment.Params(drawn[0].order, active, draws)
        images = augment.apply(images.flatten(0, 1), together).reshape(images.shape)
    partners, kept = labels.clone(), torch.ones(count, 1)
    for index, member in enumerate(members):
        images_s, partners_s, share = mixed(images[index], labels[index], cutmix(member, step))
        if share < 1.0:
            images[index], partners[index], kept[index] = images_s, partners_s, share
    shares = kept.to(images.device) if kept.min() < 1.0 else None
    parts = 1
    if not uses_batch_statistics(network):
        parts = min(batch, math.ceil(count * batch / CHUNK[images.device.type]))
    losses = torch.zeros(count, device=images.device)
    for part, own, other in zip(images.chunk(parts, 1), labels.chunk(parts, 1), partners.chunk(parts, 1), strict=True):
        logits = network(_side_by_side(part)).flatten(0, 1)
        loss = F.cross_entropy(logits, own.flatten(), reduction="none").view_as(own)
        if shares is not None:
            others = F.cross_entropy(logits, other.flatten(), reduction="none").view_as(other)
            loss = shares * loss + (1 - shares) * others
        loss = loss.sum(1) / batch
        loss.sum().backward()  # type: ignore[no-untyped-call]
        losses += loss.detach()
    return losses


def _unpack(network: Network, alone: Sequence[Network]) -> Sequence[Network]:
    """The members as networks of their own, in ``alone``: their numbers are looked at just as after ``train``."""
    for each, state in zip(alone, member_states(network, len(alone)), strict=True):
        each.load_state_dict(state)
    return alone


def _side_by_side(images: Tensor) -> Tensor:
    """(M, B, C, H, W) as the packed network wants them: (B, M * C, H, W) in channels-last layout, by one copy."""
    return images.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)
