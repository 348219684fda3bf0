"""Origins, test images and the images that models are queried with: which they are, and as tensors on the device.

Indices are canonical positions in a split (``cache.py``). Which images an origin holds depends on the kind of origin,
its numbers and the labels only, so every method, network and machine sees the same images; n is ``per_class``. Tensors
are normalised (``pixels.py``).

N images, C channels, H = W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import DatasetConfig, OriginConfig, SignalsConfig
from trainables.data.cache import Split, open_split
from trainables.data.pixels import normalise
from trainables.seeds import generator

Integers = NDArray[np.int64]

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
    """For each position in ``classes``, the rows of ``images`` with that label: int64 on the CPU, ascending."""
    groups: Tensor | None = None
    """(N,) int64 on the CPU, of data with groups beside classes."""


class TestSet(NamedTuple):
    """Images that a model is queried with, in canonical order: the test images of some classes, or a split of
    ``SignalsConfig``."""

    images: Tensor
    """(N, C, H, W) float32, normalised, on the device."""
    labels: Tensor
    """(N,) int64 on the device: positions in ``classes``."""
    ids: Tensor
    """(N,) int64 on the CPU: canonical indices in the test split, or for queries in the train split, ascending."""


def load_origin(dataset: DatasetConfig, origin: OriginConfig, data: Path, cache: Path, device: str) -> Origin:
    """Load an origin. Canaries carry their wrong label.

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
        groups=None if split.groups is None else torch.from_numpy(split.groups[indices]),
    )


def load_test(dataset: DatasetConfig, classes: tuple[int, ...], data: Path, cache: Path, device: str) -> TestSet:
    """Load all test images of some classes.

    Args:
        classes: The data set's own label numbers, ascending.

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


class QueriedImages:
    """The images of ``query_indices`` with the labels they were trained with, read from the cache in parts.

    Iterating gives (split, images of that split, at most 2048 of them), as often as wanted, so that one part at a
    time is in memory.

    Raises:
        ValueError: If a class holds too few images, or the data are missing, broken or others than planned.
    """

    def __init__(
        self, dataset: DatasetConfig, origin: OriginConfig, signals: SignalsConfig, data: Path, cache: Path, device: str
    ) -> None:
        self._split = open_split(dataset, "train", data, cache)
        self._dataset, self._origin, self._device = dataset, origin, device
        self.indices = query_indices(origin, signals, self._split.labels)
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


def origin_indices(origin: OriginConfig, labels: Integers) -> Integers:
    """Canonical train indices of an origin, ascending.

    A draw is the beginning of one random permutation per class, so of one ``draw`` number the larger contain the
    smaller, and a class subset contains the same images as the whole; block B is positions B * n to (B + 1) * n of
    it, and the draw itself is block 0. A pool row takes exactly half of the pool's images in every class; rows 2k and
    2k + 1 are complements within the pool. A coin origin takes each of the pool's images with probability one half.

    Args:
        labels: (N,) labels of the whole train split in canonical order.

    Raises:
        ValueError: If a class holds too few images.
    """
    if origin.kind == "full":
        return np.flatnonzero(np.isin(labels, origin.classes)).astype(np.int64)
    if origin.indices is not None:
        return np.array(origin.indices, dtype=np.int64)
    assert origin.per_class is not None
    assert origin.draw is not None
    if origin.kind == "draw":
        return _sorted(_block(origin, labels, origin.block or 0))
    assert origin.row is not None
    chosen = []
    for label, pool in zip(origin.classes, _draw(origin, labels, "pool", 2 * origin.per_class), strict=True):
        if origin.kind == "coin":
            coins = torch.randint(0, 2, (len(pool),), generator=generator("coin", origin.draw, origin.row, label))
            chosen.append(pool[coins.numpy() == 1])
            continue
        order = torch.randperm(len(pool), generator=generator("row", origin.draw, origin.row // 2, label)).numpy()
        half = order[: origin.per_class] if origin.row % 2 == 0 else order[origin.per_class :]
        chosen.append(pool[half])
    return _sorted(chosen)


def pool_indices(origin: OriginConfig, labels: Integers) -> Integers:
    """Canonical train indices of the whole pool of a ``pool`` or ``coin`` origin, ascending: 2n of each class.

    Args:
        origin: Any row of the pool.
        labels: (N,) labels of the whole train split in canonical order.

    Raises:
        ValueError: If the origin is of another kind, or a class holds too few images.
    """
    if origin.kind not in ("pool", "coin") or origin.per_class is None:
        raise ValueError(
            f"origin: only a pool has members and non-members; got kind {origin.kind!r}; expected 'pool' or 'coin'. "
            "Give the origin of a row."
        )
    return _sorted(_draw(origin, labels, "pool", 2 * origin.per_class))


def canary_labels(origin: OriginConfig, labels: Integers) -> dict[int, int]:
    """The images of a pool that carry a wrong label, and the position of that label in ``classes``.

    They are drawn from the whole pool and every other class is equally likely; both depend on the number of the draw
    alone, so all rows of a pool agree. Members carry it in the training set; an attacker asks about it.

    Args:
        origin: Of any kind; only pools have canaries.
        labels: (N,) labels of the whole train split in canonical order.

    Returns:
        Canonical train index -> position, ascending by index.

    Raises:
        ValueError: If the pool holds fewer images than canaries, or one class alone.
    """
    if not origin.canaries:
        return {}
    assert origin.draw is not None
    pool, classes = pool_indices(origin, labels), len(origin.classes)
    if origin.canaries > len(pool) or classes < 2:
        raise ValueError(
            f"origin {origin.kind}: canaries are images of the pool with the label of another class; got "
            f"{origin.canaries} canaries, {len(pool)} images and {classes} classes; expected at most as many canaries "
            "as images, and two classes. Ask for fewer canaries."
        )
    chance = generator("canary", origin.draw)
    chosen = pool[torch.randperm(len(pool), generator=chance)[: origin.canaries].numpy()]
    shifts = torch.randint(1, classes, (origin.canaries,), generator=chance).numpy()
    wrong = (np.searchsorted(origin.classes, labels[chosen]) + shifts) % classes
    return dict(sorted(zip(chosen.tolist(), wrong.tolist(), strict=True)))


def query_indices(origin: OriginConfig, signals: SignalsConfig, labels: Integers) -> dict[str, Integers]:
    """Canonical train indices of the images that a model of an origin is queried with, ascending, by split.

    ``origin`` of a draw (or of all images, or a list), and of a block also ``other``: the next block. ``pool`` of a
    pool or coin origin, and the images that follow the pool's 2n in the permutation of each class: first
    ``population``, then ``reserve``. Splits of no images are left out.

    Args:
        labels: (N,) labels of the whole train split in canonical order.

    Raises:
        ValueError: If a class holds too few images.
    """
    if origin.kind in ("full", "draw", "listed"):
        splits = {"origin": origin_indices(origin, labels)}
        if origin.block is not None:
            splits["other"] = _sorted(_block(origin, labels, origin.block + 1))
        return splits
    assert origin.per_class is not None
    ends = np.cumsum([2 * origin.per_class, signals.population, signals.reserve]).tolist()
    drawn = _draw(origin, labels, "pool", ends[-1])
    cut = {
        "pool": slice(0, ends[0]),
        "population": slice(ends[0], ends[1]),
        "reserve": slice(ends[1], ends[2]),
    }
    splits = {split: _sorted([part[rows] for part in drawn]) for split, rows in cut.items()}
    return {split: indices for split, indices in splits.items() if len(indices)}


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


def _block(origin: OriginConfig, labels: Integers, block: int) -> list[Integers]:
    """Of each class, positions block * n to (block + 1) * n of the permutation of a draw."""
    assert origin.per_class is not None
    drawn = _draw(origin, labels, "origin", (block + 1) * origin.per_class)
    return [part[block * origin.per_class :] for part in drawn]


def _draw(origin: OriginConfig, labels: Integers, purpose: str, count: int) -> list[Integers]:
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


def _sorted(parts: list[Integers]) -> Integers:
    return np.sort(np.concatenate(parts))
