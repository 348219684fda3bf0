"""DM: dataset condensation with distribution matching (Zhao & Bilen, WACV 2023; main_DM.py).

Every iteration embeds real and distilled images of each class with a new random network, after one shared (Siamese)
augmentation per class, and moves the distilled images so that the classes' mean embeddings agree:

    L = sum over classes c of || mean over B real images of psi(A_w(x)) - mean over S_c of psi(A_w(s)) ||^2

K classes, B images of a class per step, F numbers in an embedding. Images (N, C, H, W) float32 normalised.
The loop is in ``distill``; its memory is bounded by embedding classes in groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainables import seeds
from trainables.configs import DistillConfig, DMSettings
from trainables.context import Context, StageFailure
from trainables.data import augment
from trainables.data.origins import Origin
from trainables.distill.initial import distilled_set, initial_images
from trainables.models.build import build
from trainables.models.convnet import ConvNet, uses_batch_statistics
from trainables.payloads import DistilledSet, load_tensors, save_tensors

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """How many images are handled at once: what a device likes. Part of the numerics, fixed per device type."""

    group: int
    """Images that are gathered and augmented together, in whole classes."""
    chunk: int
    """Images that pass the network together when nothing is learned."""


# CPU: the first layer's output of 32 images of 32 pixels (16 MiB) still fits a last-level cache. CUDA: memory is the
# bound.
SIZES = {"cpu": Sizes(group=256, chunk=32), "cuda": Sizes(group=4096, chunk=4096)}


def distill(origin: Origin, config: DistillConfig, context: Context) -> DistilledSet:
    """Distil ``origin`` by distribution matching.

    Every random number is derived from (seed, purpose, iteration), so the images after i iterations depend neither on
    the budget nor on interruptions: a checkpoint holds the images and their momentum, nothing else.

    Differs from the authors' code: ``iterations`` updates instead of one more; batch statistics (norm ``batch``) are
    taken over whatever the classes have, where theirs needs ``batch_real`` images of every class; no clock seeds
    anything.

    Args:
        origin: What is distilled, on the context's device.
        config: Settings of ``DMSettings``; ``augmentation`` ``none`` leaves the images as they are.
        context: Progress and checkpoints.

    Raises:
        StageFailure: The loss is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from.
    """
    assert config.init is not None
    assert config.network is not None
    settings = DMSettings.model_validate(config.settings)
    seed, num_classes = config.distill_seed, len(config.origin.classes)
    strategy = augment.strategy_for(config.dataset.flip) if config.augmentation == "dsa" else None
    images, indices = initial_images(origin, config.ipc, config.init, seed, config.origin.classes)
    momentum = torch.zeros_like(images)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / "dm.safetensors")
        images, momentum = saved["images"].to(images.device), saved["momentum"].to(images.device)

    def save(folder: Path) -> None:
        save_tensors(folder / "dm.safetensors", {"images": images, "momentum": momentum})

    for iteration in context.iterations(settings.iterations, start=done, save=save):
        network = build(config.network, "dm", "network", seed, iteration, device=context.device)
        network.requires_grad_(False)
        batches = _draw_real(origin, settings.batch_real, seed, iteration)
        omegas = None
        if strategy is not None:
            generator = seeds.generator("dm", "augment", seed, iteration)
            omegas = augment.sample_each(strategy, num_classes, generator=generator)

        loss, gradient = match_distributions(network, origin.images, batches, images, config.ipc, omegas)
        if not math.isfinite(loss):
            raise StageFailure(
                f"dm: the loss is {loss} at iteration {iteration}; expected a finite number. Lower settings.dm.lr_img."
            )
        momentum.mul_(settings.momentum_img).add_(gradient)
        images.sub_(momentum, alpha=settings.lr_img)
        context.measure(loss=loss)

    return distilled_set(images, indices, config, init=config.init, iterations=settings.iterations)


def match_distributions(
    network: ConvNet,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    ipc: int,
    omegas: augment.Params | None,
) -> tuple[float, Tensor]:
    """The loss above and its gradient with respect to the distilled images.

    Args:
        network: Frozen; its ``embed`` is psi.
        real: Origin images (N, C, H, W) normalised.
        batches: For each of the K classes, the positions in ``real`` of its batch.
        synthetic: Distilled images (K * ipc, C, H, W), class-major.
        ipc: Distilled images per class.
        omegas: K augmentations, one per class, or None for no augmentation.

    Returns:
        The loss, and a tensor like ``synthetic``.
    """
    # Batch statistics are those of all classes together, so nothing may be split.
    whole = uses_batch_statistics(network)
    sizes = Sizes(len(real), len(real)) if whole else SIZES[real.device.type]
    num_classes = len(batches)
    targets = torch.cat(
        [
            _real_means(network.embed, real, batches[first:last], _rows(omegas, first, last), sizes.chunk)
            for first, last in _groups([len(batch) for batch in batches], num_classes if whole else sizes.group, whole)
        ]
    )
    loss = torch.zeros((), device=real.device)
    gradient = torch.empty_like(synthetic)
    for first, last in _groups([ipc] * num_classes, sizes.chunk, whole):
        rows = slice(first * ipc, last * ipc)
        leaf = synthetic[rows].detach().requires_grad_()
        counts = [ipc] * (last - first)
        means = class_means(network.embed(_augmented(leaf, _rows(omegas, first, last), counts)), counts)
        part = (targets[first:last] - means).square().sum()
        (gradient[rows],) = torch.autograd.grad(part, leaf)
        loss += part.detach()
    return float(loss), gradient


def class_means(embeddings: Tensor, counts: Sequence[int]) -> Tensor:
    """The mean (K, F) of ``counts[c]`` consecutive rows for each class c: one product, no loop over classes."""
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    weights = torch.zeros(len(counts), len(embeddings))
    weights[owner, torch.arange(len(embeddings))] = 1.0 / torch.tensor(counts, dtype=torch.float32)[owner]
    return weights.to(embeddings.device) @ embeddings


@torch.no_grad()
def _real_means(
    embed: Embed, real: Tensor, batches: Sequence[Tensor], omegas: augment.Params | None, chunk: int
) -> Tensor:
    counts = [len(batch) for batch in batches]
    images = _augmented(real[torch.cat(list(batches)).to(real.device)], omegas, counts)
    return class_means(torch.cat([embed(part) for part in torch.split(images, chunk)]), counts)


def _augmented(images: Tensor, omegas: augment.Params | None, counts: Sequence[int]) -> Tensor:
    if omegas is not None:
        images = augment.apply(images, omegas if len(counts) == 1 else omegas.repeat(counts))
    return images.contiguous(memory_format=torch.channels_last)


def _rows(omegas: augment.Params | None, first: int, last: int) -> augment.Params | None:
    return None if omegas is None else omegas.rows(first, last)


def _groups(counts: Sequence[int], limit: int, whole: bool) -> Iterator[tuple[int, int]]:
    """Consecutive classes [first, last) with at most ``limit`` images together, but at least one class."""
    first, images = 0, 0
    for index, count in enumerate(counts):
        if index > first and images + count > limit and not whole:
            yield first, index
            first, images = index, 0
        images += count
    yield first, len(counts)


def _draw_real(origin: Origin, batch: int, seed: int, iteration: int) -> list[Tensor]:
    """Up to ``batch`` positions of each class, without replacement."""
    generator = seeds.generator("dm", "real", seed, iteration)
    return [
        members[torch.randperm(len(members), generator=generator)[:batch].to(members.device)]
        for members in origin.by_class
    ]
