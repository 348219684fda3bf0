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


def batches_per_epoch(
    images: int, batch: int, *, batch_statistics: bool, setting: str = "the recipe's batch", who: str = "train"
) -> int:
    """How many batches a permutation of the images is cut into; the last takes what is left.

    Args:
        images: Images of the set.
        batch: Images per batch.
        batch_statistics: A single image cannot be a batch: left over, it joins the batch before.
        setting: What to raise, for the message.
        who: Whose batches they are, for the message.

    Raises:
        ValueError: Batch statistics are asked of one image.
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
        ValueError: Batch statistics are asked of one image.
    """
    count = batches_per_epoch(len(order), batch, batch_statistics=batch_statistics, setting=setting, who=who)
    return [order[part * batch : None if part + 1 == count else (part + 1) * batch] for part in range(count)]


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
