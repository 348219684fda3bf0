"""Distilled sets as pictures: a row per class, its images side by side."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddray.measurements.exports.artifact_files import artifact_file, load
from ddray.plan.graph import Stage
from ddray.plan.jobs import Plan
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.methods import METHODS

PER_CLASS = 10
"""Images shown of a class."""
SIDE = 64
"""Pixels that a small image is enlarged to, about, by repeating pixels."""
GAP = 2

log = logging.getLogger(__name__)


MOST_SETS, CLASSES = 24, 10
"""Pictures in a report, and classes in each."""


def pictures_of_sets(plan: Plan, store: Store) -> list[tuple[str, bytes]]:
    """Title and picture of one finished set for each data set, method, number of images per class and start.

    Of sets that differ in more than that, the first in the plan stands for all. At most ``MOST_SETS``, each pixel of an
    image one of the picture.
    """
    done = store.keys()
    chosen: dict[tuple[Any, ...], Stage] = {}
    for chain in plan.chains:
        stage, point = chain.stage("distill"), chain.point
        if stage is not None and stage.key in done:
            chosen.setdefault((point.dataset, point.method, point.ipc, point.init), stage)
    made: list[tuple[str, bytes]] = []
    for (dataset, method, ipc, init), stage in chosen.items():
        if len(made) == MOST_SETS:
            break
        try:
            manifest = store.manifest(stage.key)
            arrays = load(store, stage.key, files.SET_TENSORS, manifest)
            info = files.load_json(artifact_file(store, stage.key, files.SET_INFO, manifest))
            shown = np.isin(arrays["labels"], np.unique(arrays["labels"])[:CLASSES])
            png = picture(arrays["images"][shown], arrays["labels"][shown], info, side=1)
        except (KeyError, DamagedArtifact, OSError, ValueError) as error:
            log.warning("pictures: %s left out; %s", stage.label, error)
            continue
        title = METHODS[method].title if method in METHODS else method
        made.append((f"{title}, {dataset}, {ipc} per class" + (f", from {init}" if init else ""), png))
    return made


def picture(images: NDArray[Any], labels: NDArray[Any], info: Mapping[str, Any], side: int = SIDE) -> bytes:
    """The first images of each class, as PNG.

    Args:
        images: (N, C, H, W), C 1 or 3. Clamped to [0, 1] here and only here: learned images leave that range.
        labels: (N,).
        side: Pixels that a small image is enlarged to, about.
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
    factor = max(1, round(side / pixels.shape[2]))
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
