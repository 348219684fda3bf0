"""Matching, class by class, the mean of what networks make of real and of distilled images.

    L = sum over classes c of || mean over B real images of phi(A_w(x)) - mean over S_c of phi(A_w(s)) ||^2

w is one augmentation per class, shared by both sides; phi the features of a new random network every iteration: its
embedding in DM (``dm.py``), what its layers attend to beside it in DataDAM (``datadam.py``). DP-DM (``dpdm.py``) has
the first mean with noise, and not from images at hand. Memory is bounded by handling classes in groups.

K classes, B images of a class per step, F features. Images (N, C, H, W) float32 normalised.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainables.data import augment
from trainables.data.origins import Origin
from trainables.device import laid_out
from trainables.distill.context import DistillContext
from trainables.distill.matching import PATHS, SIZES, Path, augmented, groups, rows_of
from trainables.methods import DMSettings
from trainables.models.network import Network, uses_batch_statistics
from trainables.payloads import DistilledSet, load_tensors, save_tensors

Features = Callable[[Tensor], Tensor]
"""Images (n, C, H, W) -> numbers (n, F)."""
FeaturesOf = Callable[[Network], Features]
"""A frozen network -> its features."""
Step = Callable[[int, Tensor], tuple[float, Tensor]]
"""Iteration and distilled images -> loss and gradient."""
CHECKPOINT = "dm.safetensors"
"""Also DataDAM's: stores hold snapshots of DM by this name."""


def embedding(network: Network) -> Features:
    """What the network's last linear layer sees."""
    return network.embed


def match_means(
    origin: Origin, settings: DMSettings, context: DistillContext, features: FeaturesOf = embedding
) -> DistilledSet:
    """Descend towards the means of real images, each iteration with a new network.

    Raises:
        StageFailure: The loss or an image is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from.
    """

    def step(iteration: int, images: Tensor) -> tuple[float, Tensor]:
        network = context.network(iteration).requires_grad_(False)
        batches = context.real_batches(origin, settings.batch_real, iteration)
        omegas = context.omegas(iteration)
        return match_distributions(network, origin.images, batches, images, context.ipc, omegas, features=features)

    images, indices = context.initial_images(origin)
    return context.finish(descend(images, settings, context, step), indices, iterations=settings.iterations)


def descend(images: Tensor, settings: DMSettings, context: DistillContext, step: Step) -> Tensor:
    """Gradient descent with momentum on the images, until the budget is spent.

    Every random number is derived from (seed, purpose, iteration), so the images after i iterations depend neither on
    the budget nor on interruptions: a checkpoint holds the images and their momentum, nothing else.

    Args:
        images: Where they start.
        step: A function of its arguments alone.

    Raises:
        StageFailure: The loss or an image is not finite.
    """
    momentum = torch.zeros_like(images)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / CHECKPOINT)
        images, momentum = saved["images"].to(images.device), saved["momentum"].to(images.device)

    def save(folder: pathlib.Path) -> None:
        save_tensors(folder / CHECKPOINT, {"images": images, "momentum": momentum})

    for iteration in context.iterations(settings.iterations, start=done, save=save):
        loss, gradient = step(iteration, images)
        context.check_loss(loss, iteration)
        momentum.mul_(settings.momentum_img).add_(gradient)
        images.sub_(momentum, alpha=settings.lr_img)
        context.check_images(images, iteration)

    return images


def match_distributions(
    network: Network,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    ipc: int,
    omegas: augment.Params | None,
    path: Path | None = None,
    features: FeaturesOf = embedding,
) -> tuple[float, Tensor]:
    """The loss above and its gradient with respect to the distilled images.

    Args:
        network: Frozen.
        real: Origin images (N, C, H, W) normalised.
        batches: For each of the K classes, the positions in ``real`` of its batch.
        synthetic: Distilled images (K * ipc, C, H, W), class-major.
        omegas: K augmentations, one per class, or None for no augmentation.
        path: How to compute; None: as the device likes.
        features: Of the network: phi.

    Returns:
        The loss, and a tensor like ``synthetic``.
    """
    step = _in_parts if (path or PATHS[real.device.type]) == "loop" else _together
    return step(features(network), uses_batch_statistics(network), real, batches, synthetic, ipc, omegas)


def _in_parts(
    phi: Features,
    whole: bool,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    ipc: int,
    omegas: augment.Params | None,
) -> tuple[float, Tensor]:
    """Real and distilled images separately, each in parts that stay in a cache.

    Args:
        whole: Nothing may be split: batch statistics are those of all classes together.
    """
    targets = real_means(phi, whole, real, batches, omegas)
    return match_targets(phi, whole, targets, synthetic, ipc, omegas, SIZES[real.device.type].chunk)


def match_targets(
    phi: Features, whole: bool, targets: Tensor, synthetic: Tensor, ipc: int, omegas: augment.Params | None, chunk: int
) -> tuple[float, Tensor]:
    """The loss and its gradient with respect to the distilled images, given the means (K, F) of the real ones.

    Args:
        whole: Nothing may be split: batch statistics are those of all classes together.
        chunk: Images that pass the network together.
    """
    loss = torch.zeros((), device=targets.device)
    gradient = torch.empty_like(synthetic)
    for first, last in groups([ipc] * len(targets), chunk, whole):
        rows = slice(first * ipc, last * ipc)
        leaf = synthetic[rows].detach().requires_grad_()
        counts = [ipc] * (last - first)
        means = class_means(phi(augmented(leaf, rows_of(omegas, first, last), counts)), counts)
        part = (targets[first:last] - means).square().sum()
        (gradient[rows],) = torch.autograd.grad(part, leaf)
        loss += part.detach()
    return float(loss), gradient


def _together(
    phi: Features,
    whole: bool,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    ipc: int,
    omegas: augment.Params | None,
) -> tuple[float, Tensor]:
    """Both sides of all classes of a group under one call of each operation."""
    losses, gradients = [], []
    counts = [len(batch) for batch in batches]
    for first, last in groups([count + ipc for count in counts], SIZES[real.device.type].group, whole):
        chosen = torch.cat(list(batches[first:last])).to(real.device)
        leaf = synthetic[first * ipc : last * ipc].detach().requires_grad_()
        images = torch.cat([real[chosen], leaf])
        if omegas is not None:
            classes = torch.arange(last - first)
            owners = [classes.repeat_interleave(torch.tensor(counts[first:last])), classes.repeat_interleave(ipc)]
            images = augment.apply(images, omegas.rows(first, last).take(torch.cat(owners)))
        images = laid_out(images)
        with torch.no_grad():
            target = class_means(phi(images[: len(chosen)]), counts[first:last])
        means = class_means(phi(images[len(chosen) :]), [ipc] * (last - first))
        part = (target - means).square().sum()
        gradients.append(torch.autograd.grad(part, leaf)[0])
        losses.append(part.detach())
    return float(torch.stack(losses).sum()), torch.cat(gradients)


def class_means(features: Tensor, counts: Sequence[int]) -> Tensor:
    """The mean (K, F) of ``counts[c]`` consecutive rows for each class c: one product, no loop over classes."""
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    weights = torch.zeros(len(counts), len(features), dtype=features.dtype)
    weights[owner, torch.arange(len(features))] = 1.0 / torch.tensor(counts, dtype=features.dtype)[owner]
    return weights.to(features.device) @ features


@torch.no_grad()
def real_means(
    phi: Features, whole: bool, real: Tensor, batches: Sequence[Tensor], omegas: augment.Params | None
) -> Tensor:
    """The mean (K, F) of each class's batch under its augmentation.

    Args:
        whole: Nothing may be split: batch statistics are those of all classes together.
        real: Origin images (N, C, H, W) normalised.
        batches: For each class, the positions in ``real`` of its batch.
        omegas: One row per class.
    """
    sizes = SIZES[real.device.type]
    means = []
    for first, last in groups([len(batch) for batch in batches], sizes.group, whole):
        counts = [len(batch) for batch in batches[first:last]]
        rows = torch.cat(list(batches[first:last])).to(real.device)
        images = augmented(real[rows], rows_of(omegas, first, last), counts)
        features = torch.cat([phi(part) for part in torch.split(images, len(images) if whole else sizes.chunk)])
        means.append(class_means(features, counts))
    return torch.cat(means)
