"""The attack on the distilled images themselves: how near a candidate is to one of its class, without a trained model.

Distances are between pixels, and between features of networks with random weights. Those have seen no image, so that
what they find is in the released set alone; features of the network at hand, which was trained on the set, or of one
that was trained on images which may be among the candidates, would know more than the set says.

Soft labels are part of what is released: they come from networks that were trained on the origin. A further score reads
them: what the labels of the images around a candidate say of its class.

n candidates and N training images that a set holds, of D numbers each, in pixel space ([0, 1] for real images).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import DatasetConfig, NetworkConfig
from trainables.data.pixels import Whitening, decode, decode_labels, normalise
from trainables.device import laid_out
from trainables.evaluate.intervals import Floats, Integers
from trainables.evaluate.privacy.inputs import Scored
from trainables.labels import SoftLabels
from trainables.models.network import Network, build
from trainables.networks import NETWORKS, variant_of
from trainables.payloads import DistilledSet

ENCODERS = 5
WIDTH = 32
"""Random networks, and the filters in each of their blocks: narrow, because time grows with the square of the width."""

_CHUNK = 1024
_LOWEST = float(np.finfo(np.float64).min)


class Nearness(NamedTuple):
    """Scores of each candidate, higher = more likely a member."""

    pixel: Floats
    """(n,) minus the mean squared difference to the nearest image of the same class."""
    relative: Floats
    """(n,) the same over the candidate's mean squared difference to all images of the set: a pale image is near to
    everything, which says nothing of membership."""
    features: Floats
    """(n,) the same as ``relative`` of the features of ``ENCODERS`` random networks, averaged over them."""

    def variants(self) -> dict[str, Scored]:
        """How details call them after the attack's name -> what rows say of them."""
        return {
            "" if name == "pixel" else f"_{name}": Scored(scores, {"distance": name})
            for name, scores in self._asdict().items()
        }


class _Points(NamedTuple):
    """The training images of a set, as they are compared."""

    numbers: NDArray[np.float32]
    """(N, D)."""
    squares: Floats
    """(N,) mean square of each."""
    classes: Integers
    """(N,)."""
    rows: Floats | None
    """(N, K) soft labels: probabilities, or targets as they are."""


def score(
    images: NDArray[np.uint8],
    labels: Integers,
    sets: Sequence[DistilledSet],
    dataset: DatasetConfig,
    poll: Callable[[], None] = lambda: None,
) -> list[dict[str, Scored]]:
    """Scores by variant of ``nearness`` and, of sets with soft labels, ``around``; one dictionary per set; arguments as
    of ``nearness``."""
    return [
        near.variants() | ({} if around is None else {"_labels": Scored(around, {"distance": "labels"})})
        for near, around in _compared(images, labels, sets, dataset, poll)
    ]


def nearness(
    images: NDArray[np.uint8],
    labels: Integers,
    sets: Sequence[DistilledSet],
    dataset: DatasetConfig,
    poll: Callable[[], None] = lambda: None,
) -> list[Nearness]:
    """Score candidates by their distance to each of several distilled sets (threat model ``data_release``).

    Multi-formation is undone first, so candidates are compared with the images that networks are trained on; those that
    are whitened before training are whitened before the random networks too. Where a set holds real images, a candidate
    that is in it has distance 0. A class without distilled images scores lowest.

    Args:
        images: (n, C, H, W) in 0 ... 255.
        labels: (n,) positions; canaries with the label they were trained with.
        sets: Of the same classes and image size.
        dataset: Whose constants normalise images before they enter a network.
        poll: Called now and then.

    Returns:
        One per set.
    """
    return [near for near, _ in _compared(images, labels, sets, dataset, poll)]


def _compared(
    images: NDArray[np.uint8],
    labels: Integers,
    sets: Sequence[DistilledSet],
    dataset: DatasetConfig,
    poll: Callable[[], None],
) -> Iterator[tuple[Nearness, Floats | None]]:
    """Of each set the nearness of all candidates, and what its soft labels say around them (``_around``)."""
    pixel, relative = np.empty((len(sets), len(images))), np.empty((len(sets), len(images)))
    for index, each in enumerate(sets):
        points = _points(each, lambda shown: shown.flatten(1).numpy())
        for part in _chunks(len(images), poll):
            flat = images[part].reshape(len(images[part]), -1) / 255.0
            pixel[index, part], relative[index, part] = _scores(_distances(flat, points), labels[part], points)
    features, around = np.zeros_like(pixel), np.zeros_like(pixel)
    whitenings = {id(each.whitening): each.whitening for each in sets}
    for number in range(ENCODERS):
        encoder = _encoder(dataset, images.shape[-1], number)
        encoded = [_points(each, partial(_embed, encoder, dataset, each.whitening)) for each in sets]
        for part in _chunks(len(images), poll):
            candidates = torch.tensor(images[part]).float() / 255
            seen = {key: _embed(encoder, dataset, each, candidates) for key, each in whitenings.items()}
            for index, (each, points) in enumerate(zip(sets, encoded, strict=True)):
                distances = _distances(seen[id(each.whitening)], points)
                if points.rows is not None:
                    around[index, part] += _around(distances, labels[part], points.rows) / ENCODERS
                features[index, part] += _scores(distances, labels[part], points)[1] / ENCODERS
    for index, each in enumerate(sets):
        near = Nearness(*(np.maximum(scores[index], _LOWEST) for scores in (pixel, relative, features)))
        yield near, around[index] if isinstance(each.labels, SoftLabels) else None


def _points(released: DistilledSet, numbers: Callable[[Tensor], NDArray[np.float32]]) -> _Points:
    factor = released.info["factor"]
    shown = numbers(decode(released.images, factor))
    squares = np.square(shown.astype(np.float64)).mean(1)
    classes, rows = decode_labels(released.labels.classes, factor).numpy(), None
    if isinstance(labels := released.labels, SoftLabels):
        read = labels.rows if labels.form == "targets" else labels.probabilities()
        rows = decode_labels(read, factor).double().numpy()
    return _Points(shown, squares, classes, rows)


def _chunks(count: int, poll: Callable[[], None]) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        poll()
        yield slice(start, start + _CHUNK)


def _distances(candidates: NDArray[np.floating], points: _Points) -> Floats:
    """Squared distances over D (n, N)."""
    ours, theirs = candidates.astype(np.float64), points.numbers.astype(np.float64)
    products = ours @ theirs.T / theirs.shape[1]
    between: Floats = np.maximum(np.square(ours).mean(1)[:, None] - 2 * products + points.squares, 0.0)
    return between


def _around(distances: Floats, labels: Integers, rows: Floats) -> Floats:
    """What the soft labels (N, K) of the images around each candidate say of its class (n,): their mean, each image
    weighted by one over its squared distance (n, N)."""
    floor = np.maximum(1e-12 * distances.mean(1, keepdims=True), np.finfo(np.float64).tiny)
    weights = 1 / np.maximum(distances / floor, 1.0)
    said: Floats = (weights * rows[:, labels].T).sum(1) / weights.sum(1)
    return said


def _scores(distances: Floats, labels: Integers, points: _Points) -> tuple[Floats, Floats]:
    """Minus the squared distance to the nearest of the class, (n,), and that over the mean of all."""
    whole = distances.mean(1)
    nearest = np.where(labels[:, None] == points.classes, distances, np.inf).min(1)
    return -nearest, -nearest / np.maximum(whole, np.finfo(np.float64).tiny)


def _encoder(dataset: DatasetConfig, size: int, number: int) -> Network:
    """A ConvNet3 of random weights; with fewer blocks where images are too small for three, more where too large."""
    depth = min(max(NETWORKS["convnet3"].depth, math.ceil(math.log2(size)) - 3), int(math.log2(size)))
    variant = variant_of("convnet3", width=WIDTH, depth=depth)
    network = NetworkConfig.of(variant, image_size=size, channels=dataset.channels, num_classes=2)
    return build(network, "privacy", "release", number).eval()


@torch.no_grad()
def _embed(
    encoder: Network, dataset: DatasetConfig, whitening: Whitening | None, images01: Tensor
) -> NDArray[np.float32]:
    features = []
    for part in torch.split(images01, 256):
        images = normalise(part, dataset.mean, dataset.std)
        if whitening is not None:
            images = whitening.whiten(images, dataset.mean, dataset.std)
        features.append(encoder.embed(laid_out(images)).numpy())
    return np.concatenate(features)
