"""Origins, test images and the images that models are asked about, as normalised tensors on the device.

Legend: N images, C channels, H = W pixels. Indices are canonical positions in a split (``cache.py``); which images an
origin holds is in ``draws.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import DatasetConfig, OriginConfig, SignalsConfig
from trainables.data.cache import Split, open_split
from trainables.data.draws import canary_labels, origin_indices, signal_indices

_CHUNK = 2048


@dataclass(frozen=True)
class Origin:
    """An origin in memory."""

    images: Tensor
    """(N, C, H, W) float32, normalised, on the device; in ascending order of ``indices``, so grouped by true
    class."""
    labels: Tensor
    """(N,) int64 on the device: positions in the origin's ``classes``; of canaries, the wrong one."""
    indices: Tensor
    """(N,) int64 on the CPU: canonical train indices, ascending."""
    by_class: tuple[Tensor, ...]
    """For each position in ``classes``, the places in ``images`` of those labelled so: int64 on the CPU, ascending."""


class TestSet(NamedTuple):
    """Images that a model is asked about, in canonical order: the test images of some classes, or of a split of
    ``SignalsConfig``."""

    images: Tensor
    """(N, C, H, W) float32, normalised, on the device."""
    labels: Tensor
    """(N,) int64 on the device: positions in ``classes``."""
    ids: Tensor
    """(N,) int64 on the CPU: canonical indices in the test split, or for signals in the train split, ascending."""


def load_origin(dataset: DatasetConfig, origin: OriginConfig, data: Path, cache: Path, device: str) -> Origin:
    """Load an origin. Canaries carry their wrong label.

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
    labels = _origin_labels(split, origin, indices)
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


class AskedImages:
    """The images of ``signal_indices`` with the labels they were trained with, read from the cache piece by piece.

    Iterating gives (split, images of that split, at most 2048 of them), as often as wanted: so no more than a piece is
    in memory, on a device least of all.

    Args:
        dataset: Which images, and their constants.
        origin: What the models come from.
        signals: How many images of each class.
        data: DDRAY_DATA.
        cache: DDRAY_CACHE.
        device: Where the images go.

    Raises:
        ValueError: If a class holds too few images, or the data are missing, broken or others than planned.
    """

    def __init__(
        self, dataset: DatasetConfig, origin: OriginConfig, signals: SignalsConfig, data: Path, cache: Path, device: str
    ) -> None:
        self._split = open_split(dataset, "train", data, cache)
        self._dataset, self._origin, self._device = dataset, origin, device
        self.indices = signal_indices(origin, signals, self._split.labels)
        """By split."""

    def __iter__(self) -> Iterator[tuple[str, TestSet]]:
        for split, indices in self.indices.items():
            labels = _origin_labels(self._split, self._origin, indices)
            for start in range(0, len(indices), _CHUNK):
                part = indices[start : start + _CHUNK]
                images = _to_device(self._split.images, part, self._dataset, self._device)
                yield (
                    split,
                    TestSet(images, labels[start : start + _CHUNK].to(self._device), torch.from_numpy(part.copy())),
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


def _origin_labels(split: Split, origin: OriginConfig, indices: NDArray[np.int64]) -> Tensor:
    """Positions in ``classes`` that images of an origin, or of its pool, are trained with."""
    labels = _positions(split.labels[indices], origin.classes)
    for index, wrong in canary_labels(origin, split.labels).items():
        labels[torch.from_numpy(indices == index)] = wrong
    return labels


def _positions(labels: NDArray[np.int64], classes: tuple[int, ...]) -> Tensor:
    """Labels as positions in ``classes``."""
    return torch.from_numpy(np.searchsorted(np.array(classes, dtype=np.int64), labels).astype(np.int64))
