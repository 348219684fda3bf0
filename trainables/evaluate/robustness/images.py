"""Which test images are attacked: the first of each class, the same for every model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import AttackConfig
from trainables.context import Context
from trainables.data.cache import open_split


class PixelImages(NamedTuple):
    """Test images as they are stored."""

    pixels: Tensor
    """(n, C, H, W) float32 in [0, 1], on the CPU."""
    labels: Tensor
    """(n,) int64: positions in the list of classes."""
    ids: Tensor
    """(n,) int64: canonical test indices, ascending."""


def load_images(config: AttackConfig, context: Context) -> PixelImages:
    """The images of an attack. Bytes over 255, never normalised and back: they are exactly within the bounds.

    Raises:
        ValueError: The data are missing, broken or others than planned.
    """
    split = open_split(config.dataset, "test", context.data, context.cache)
    ids = first_of_each_class(split.labels, config.classes, config.images)
    labels = np.searchsorted(np.array(config.classes, dtype=np.int64), split.labels[ids]).astype(np.int64)
    pixels = torch.from_numpy(split.images[ids]).float() / 255
    return PixelImages(pixels.clamp(0, 1), torch.from_numpy(labels), torch.from_numpy(ids))


def first_of_each_class(labels: NDArray[np.int64], classes: tuple[int, ...], images: int) -> NDArray[np.int64]:
    """Canonical indices (n,), ascending, of the first images of each class.

    As many of each class as of the others, the lower labels one more where the number does not divide. A class that
    has fewer gives what it has: n is then less than ``images``.

    Args:
        labels: (N,) labels of the whole split in canonical order.
        classes: Labels that take part.
        images: How many in all.
    """
    each, more = divmod(images, len(classes))
    chosen = [np.flatnonzero(labels == label)[: each + (place < more)] for place, label in enumerate(classes)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)
