"""How the images of a step are split: classes that are handled together, and images that pass the network together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.data import augment


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

Path = Literal["loop", "vectorised"]
PATHS: dict[str, Path] = {"cpu": "loop", "cuda": "vectorised"}
"""Device type -> way of computing: in parts that suit a cache, or in as few operators as possible. Part of the
numerics: both give the same numbers to rounding."""


def groups(counts: Sequence[int], limit: int, whole: bool = False) -> Iterator[tuple[int, int]]:
    """Consecutive classes [first, last) with at most ``limit`` images together, but at least one class.

    Args:
        counts: Images of each class.
        limit: Images of a group.
        whole: All classes in one group, whatever their number.
    """
    first, images = 0, 0
    for index, count in enumerate(counts):
        if index > first and images + count > limit and not whole:
            yield first, index
            first, images = index, 0
        images += count
    yield first, len(counts)


def rows_of(omegas: augment.Params | None, first: int, last: int) -> augment.Params | None:
    """The augmentations of classes [first, last)."""
    return None if omegas is None else omegas.rows(first, last)


def augmented(images: Tensor, omegas: augment.Params | None, counts: Sequence[int]) -> Tensor:
    """Class-major images under one augmentation per class.

    Args:
        images: (sum of counts, C, H, W).
        omegas: One row per class; None leaves the images as they are.
        counts: Images of each class.
    """
    if omegas is not None:
        images = augment.apply(images, omegas if len(counts) == 1 else omegas.repeat(counts))
    return images.contiguous(memory_format=torch.channels_last)
