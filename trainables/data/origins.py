"""Origins: which training images are distilled, and those images as normalised tensors on the device.

Legend: N images, C channels, H = W pixels. Indices are canonical positions in the train split (``cache.py``). Draws
depend on the kind, its numbers and the label only, so every method, network and machine sees the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import DatasetConfig, OriginConfig
from trainables.data.cache import open_split
from trainables.seeds import generator

_CHUNK = 2048


@dataclass(frozen=True)
class Origin:
    """An origin in memory."""

    images: Tensor
    """(N, C, H, W) float32, normalised, on the device; in ascending order of ``indices``, so grouped by class."""
    labels: Tensor
    """(N,) int64 on the device: positions in the origin's ``classes``."""
    indices: Tensor
    """(N,) int64 on the CPU: canonical train indices, ascending."""
    by_class: tuple[Tensor, ...]
    """For each position in ``classes``, the places of its images in ``images``: int64 on the CPU, ascending."""


class TestSet(NamedTuple):
    """The test images of some classes, all of them, in canonical order."""

    images: Tensor
    """(N, C, H, W) float32, normalised, on the device."""
    labels: Tensor
    """(N,) int64 on the device: positions in ``classes``."""
    ids: Tensor
    """(N,) int64 on the CPU: canonical test indices, ascending."""


def origin_indices(origin: OriginConfig, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Canonical train indices of an origin, ascending.

    A draw is the beginning of one random permutation per class, so of one ``draw`` number the larger contain the
    smaller, and a class subset contains the same images as the whole. A pool row takes exactly half of the pool's
    images in every class; rows 2k and 2k + 1 are complements within the pool.

    Args:
        origin: What to take.
        labels: (N,) labels of the whole train split in canonical order.

    Raises:
        ValueError: If a class holds fewer images than asked for.
    """
    if origin.kind == "full":
        return np.flatnonzero(np.isin(labels, origin.classes)).astype(np.int64)
    if origin.kind == "draw":
        assert origin.per_class is not None
        return _sorted(_draw(origin, labels, "origin", origin.per_class))
    assert origin.per_class is not None
    assert origin.draw is not None
    assert origin.row is not None
    halves = []
    for label, pool in zip(origin.classes, _draw(origin, labels, "pool", 2 * origin.per_class), strict=True):
        order = torch.randperm(len(pool), generator=generator("row", origin.draw, origin.row // 2, label)).numpy()
        half = order[: origin.per_class] if origin.row % 2 == 0 else order[origin.per_class :]
        halves.append(pool[half])
    return _sorted(halves)


def pool_indices(origin: OriginConfig, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Canonical train indices of the whole pool of a ``pool`` origin, ascending: 2 * ``per_class`` of each class.

    Args:
        origin: Any row of the pool.
        labels: (N,) labels of the whole train split in canonical order.

    Raises:
        ValueError: If the origin is of another kind, or a class holds too few images.
    """
    if origin.kind != "pool" or origin.per_class is None:
        raise ValueError(f"origin: only a pool has members and non-members; got kind {origin.kind!r}; expected 'pool'")
    return _sorted(_draw(origin, labels, "pool", 2 * origin.per_class))


def load_origin(dataset: DatasetConfig, origin: OriginConfig, data: Path, cache: Path, device: str) -> Origin:
    """Load an origin.

    Args:
        dataset: Which images, and their constants.
        origin: Which of the train split.
        data: DDRAY_DATA.
        cache: DDRAY_CACHE.
        device: Where the images go.

    Raises:
        ValueError: If a class holds too few images, or the data are missing, broken or others than planned.
    """
    split = open_split(dataset, "train", data, cache)
    indices = origin_indices(origin, split.labels)
    labels = _positions(split.labels[indices], origin.classes)
    return Origin(
        images=_to_device(split.images, indices, dataset, device),
        labels=labels.to(device),
        indices=torch.from_numpy(indices),
        by_class=tuple(torch.nonzero(labels == position).flatten() for position in range(len(origin.classes))),
    )


def load_test(dataset: DatasetConfig, classes: tuple[int, ...], data: Path, cache: Path, device: str) -> TestSet:
    """Load all test images of some classes.

    Args:
        dataset: Which images, and their constants.
        classes: The data set's own label numbers, ascending.
        data: DDRAY_DATA.
        cache: DDRAY_CACHE.
        device: Where images and labels go.

    Raises:
        ValueError: If the data are missing, broken or others than planned.
    """
    split = open_split(dataset, "test", data, cache)
    ids = np.flatnonzero(np.isin(split.labels, classes)).astype(np.int64)
    return TestSet(
        images=_to_device(split.images, ids, dataset, device),
        labels=_positions(split.labels[ids], classes).to(device),
        ids=torch.from_numpy(ids),
    )


def normalise(images01: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std per channel; differentiable, a new tensor on the same device.

    Args:
        images01: (N, C, H, W), scaled to [0, 1].
        mean: (C,) per channel, of images scaled to [0, 1].
        std: (C,) likewise.
    """
    return (images01 - _per_channel(mean, images01)) / _per_channel(std, images01)


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of ``normalise``. Values outside [0, 1] stay: distilled images have such, and nothing clips here."""
    return images * _per_channel(std, images) + _per_channel(mean, images)


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    assert images.ndim == 4, f"(N, C, H, W), got {tuple(images.shape)}"
    assert images.shape[1] == len(values), f"{len(values)} constants for {tuple(images.shape)}"
    return torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)


def _to_device(images: NDArray[np.uint8], indices: NDArray[np.int64], dataset: DatasetConfig, device: str) -> Tensor:
    """Normalised float32 images, converted in chunks: one full copy exists, on the device."""
    out = torch.empty((len(indices), *images.shape[1:]), dtype=torch.float32, device=device)
    for start in range(0, len(indices), _CHUNK):
        part = torch.from_numpy(images[indices[start : start + _CHUNK]]).to(device)
        out[start : start + _CHUNK] = normalise(part.float() / 255, dataset.mean, dataset.std)
    return out


def _positions(labels: NDArray[np.int64], classes: tuple[int, ...]) -> Tensor:
    """Labels as positions in ``classes``."""
    return torch.from_numpy(np.searchsorted(np.array(classes, dtype=np.int64), labels).astype(np.int64))


def _draw(origin: OriginConfig, labels: NDArray[np.int64], purpose: str, count: int) -> list[NDArray[np.int64]]:
    """``count`` random images of each class, in the order drawn."""
    assert origin.draw is not None
    held = {label: int((labels == label).sum()) for label in origin.classes}
    short = [f"class {label} holds {number}" for label, number in held.items() if number < count]
    if short:
        raise ValueError(
            f"origin {origin.kind}: a class holds too few training images; got {', '.join(short[:10])}; "
            f"expected at least {count} of each. Ask for fewer per class."
        )
    drawn = []
    for label in origin.classes:
        members = np.flatnonzero(labels == label)
        order = torch.randperm(len(members), generator=generator(purpose, origin.draw, label)).numpy()
        drawn.append(members[order[:count]].astype(np.int64))
    return drawn


def _sorted(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.sort(np.concatenate(parts))
