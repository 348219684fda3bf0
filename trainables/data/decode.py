"""Multi-formation: a stored image becomes several training images (Kim et al., ICML 2022, section 4; condense.py).

A stored image is cut into f x f patches, row by row, and each is enlarged to the image's own size. N images, C
channels, H x W pixels in [0, 1], factor f.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

FILL = 0.5
"""What sides that f does not divide are filled up with, on the right and at the bottom, in units of [0, 1]."""


def decode(images: Tensor, factor: int, num_classes: int = 1) -> Tensor:
    """The training images that stored images hold.

    Differs from the authors' code: the bilinear enlargement (corners not aligned) is two products with the matrix of
    its weights, whose gradient is the same on every run, on a GPU too.

    Args:
        images: (N, C, H, W) in [0, 1] units, class-major where classes are told apart.
        factor: f; 1 gives the images back.
        num_classes: K, equally many images each. The order is class, then patch, then image of the class; so with one
            class (the authors' order) the first N results are the first patch of every image.

    Returns:
        (N * f^2, C, H, W); differentiable.
    """
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    images = F.pad(images, [0, -width % factor, 0, -height % factor], value=FILL)
    rows, columns = images.shape[2] // factor, images.shape[3] // factor
    # class, image, channel, patch row, row, patch column, column -> class, patch row, patch column, image, ...
    cut = images.reshape(num_classes, count // num_classes, channels, factor, rows, factor, columns)
    patches = cut.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, channels, rows, columns)
    downwards, across = (_enlargement(*sizes).to(images) for sizes in ((rows, height), (columns, width)))
    return downwards @ patches @ across.T


def decode_labels(labels: Tensor, factor: int) -> Tensor:
    """The labels (N * f^2,) of ``decode(images, factor)`` from those of the images (N,)."""
    return labels.repeat(factor**2)


@cache
def _enlargement(small: int, large: int) -> Tensor:
    """(large, small): the share of each old pixel in each new one, of bilinear interpolation along one side."""
    pixels = torch.eye(small, dtype=torch.float64)[None]
    return F.interpolate(pixels, size=large, mode="linear", align_corners=False)[0].T.contiguous()
