"""One step of training a network on labelled images: shared by training, experts and the inner loops of methods.

Images (N, C, H, W) float32 normalised; labels (N,) int64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.data import augment
from trainables.models.network import Network, uses_batch_statistics

CHUNK = {"cpu": 32, "cuda": 65536}
"""Images per forward and backward pass; a larger batch adds up the gradients of its parts. Activations of 32 images
stay in a CPU's cache; benchmarks/steps.py prints what that gains."""


def batch_gradient(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    params: augment.Params | None = None,
    cutmix: tuple[float, torch.Generator] | None = None,
) -> Tensor:
    """Add the gradient of one batch's mean cross-entropy to the parameters' ``grad``.

    Args:
        network: In train mode. With batch statistics the batch is never split.
        images: The batch.
        labels: Its labels.
        params: One augmentation for all of it, or one per image.
        cutmix: Probability of CutMix, and the generator that decides and draws it.

    Returns:
        The loss, detached.
    """
    if params is not None:
        images = augment.apply(images, params)
    images, partners, kept = mixed(images, labels, cutmix)
    parts = 1 if uses_batch_statistics(network) else math.ceil(len(images) / CHUNK[images.device.type])
    total = torch.zeros((), device=images.device)
    for part, own, other in zip(images.chunk(parts), labels.chunk(parts), partners.chunk(parts), strict=True):
        logits = network(part.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, own, reduction="sum") / len(images)
        if kept < 1.0:
            loss = kept * loss + (1 - kept) * F.cross_entropy(logits, other, reduction="sum") / len(images)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def mixed(images: Tensor, labels: Tensor, cutmix: tuple[float, torch.Generator] | None) -> tuple[Tensor, Tensor, float]:
    """A batch after CutMix, or as it was: images, partners' labels, share of the own label (``augment.cutmix``).

    Args:
        images: The batch.
        labels: Its labels.
        cutmix: Probability, and the generator that decides and draws; None: never.
    """
    if cutmix is not None:
        probability, generator = cutmix
        if float(torch.rand(1, generator=generator)) < probability:
            return augment.cutmix(images, labels, generator)
    return images, labels, 1.0
