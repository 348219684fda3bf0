"""A distilled set as one picture: a row per class, its images side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_CLASS = 10
"""Images shown of a class."""
SIDE = 64
"""Pixels that a small image is enlarged to, about, by repeating pixels."""
GAP = 2


def picture(images: NDArray[Any], labels: NDArray[Any], info: Mapping[str, Any]) -> bytes:
    """The first images of each class, as PNG.

    Args:
        images: (N, C, H, W), C 1 or 3. Clamped to [0, 1] here and only here: learned images leave that range.
        labels: (N,).
        info: ``space`` is ``pixel01``, or the images are normalised by ``mean`` and ``std``.
    """
    from PIL import Image

    images = np.asarray(images, dtype=np.float64)
    if info.get("space") != "pixel01":
        mean, std = (np.asarray(info[name], dtype=np.float64)[None, :, None, None] for name in ("mean", "std"))
        images = images * std + mean
    pixels = np.rint(images.clip(0, 1) * 255).astype(np.uint8)
    if pixels.shape[1] == 1:
        pixels = pixels.repeat(3, axis=1)
    factor = max(1, round(SIDE / pixels.shape[2]))
    pixels = pixels.transpose(0, 2, 3, 1).repeat(factor, axis=1).repeat(factor, axis=2)
    classes = np.unique(labels)
    columns = min(PER_CLASS, max(int((labels == name).sum()) for name in classes))
    height, width = pixels.shape[1] + GAP, pixels.shape[2] + GAP
    canvas = np.full((len(classes) * height + GAP, columns * width + GAP, 3), 255, dtype=np.uint8)
    for row, name in enumerate(classes):
        for column, image in enumerate(pixels[labels == name][:columns]):
            top, left = GAP + row * height, GAP + column * width
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG")
    return buffer.getvalue()
