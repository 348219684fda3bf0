"""The attack on the distilled images themselves: how near a candidate is to one of its class, without a trained model.

Distances are between pixels, and between features of networks with random weights. Those have seen no image, so that
what they find is in the released set alone; features of the network at hand, which was trained on the set, or of one
that was trained on images which may be among the candidates, would know more than the set says.

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
from trainables.evaluate.intervals import Floats, Integers
from trainables.evaluate.privacy.inputs import Scored
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


def score(
    images: NDArray[np.uint8],
    labels: Integers,
    sets: Sequence[DistilledSet],
    dataset: DatasetConfig,
    poll: Callable[[], None] = lambda: None,
) -> list[dict[str, Scored]]:
    """``nearness`` as scores by variant, one dictionary per set; arguments as there."""
    return [near.variants() for near in nearness(images, labels, sets, dataset, poll)]


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
    pixel, relative = np.empty((len(sets), len(images))), np.empty((len(sets), len(images)))
    for index, each in enumerate(sets):
        points = _points(each, lambda shown: shown.flatten(1).numpy())
        for part in _chunks(len(images), poll):
            flat = images[part].reshape(len(images[part]), -1) / 255.0
            pixel[index, part], relative[index, part] = _scores(flat, labels[part], points)
    features = np.zeros_like(pixel)
    whitenings = {id(each.whitening): each.whitening for each in sets}
    for number in range(ENCODERS):
        encoder = _encoder(dataset, images.shape[-1], number)
        encoded = [_points(each, partial(_embed, encoder, dataset, each.whitening)) for each in sets]
        for part in _chunks(len(images), poll):
            candidates = torch.tensor(images[part]).float() / 255
            seen = {key: _embed(encoder, dataset, each, candidates) for key, each in whitenings.items()}
            for index, (each, points) in enumerate(zip(sets, encoded, strict=True)):
                features[index, part] += _scores(seen[id(each.whitening)], labels[part], points)[1] / ENCODERS
    both = zip(pixel, relative, features, strict=True)
    return [Nearness(*(np.maximum(scores, _LOWEST) for scores in each)) for each in both]


def _points(released: DistilledSet, numbers: Callable[[Tensor], NDArray[np.float32]]) -> _Points:
    factor = released.info["factor"]
    shown = numbers(decode(released.images, factor))
    squares = np.square(shown.astype(np.float64)).mean(1)
    return _Points(shown, squares, decode_labels(released.labels.classes, factor).numpy())


def _chunks(count: int, poll: Callable[[], None]) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        poll()
        yield slice(start, start + _CHUNK)


def _scores(candidates: NDArray[np.floating], labels: Integers, points: _Points) -> tuple[Floats, Floats]:
    """Minus the squared distance over D to the nearest of the class, (n,), and that over the mean of all."""
    ours, theirs = candidates.astype(np.float64), points.numbers.astype(np.float64)
    products = ours @ theirs.T / theirs.shape[1]
    distances = np.maximum(np.square(ours).mean(1)[:, None] - 2 * products + points.squares, 0.0)
    whole = distances.mean(1)
    distances[labels[:, None] != points.classes] = np.inf
    nearest = distances.min(1)
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
        features.append(encoder.embed(images.contiguous(memory_format=torch.channels_last)).numpy())
    return np.concatenate(features)
