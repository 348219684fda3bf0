"""The attack on the distilled images themselves: how near a candidate is to one of its class. No model takes part.

Distances are between pixels alone. A distance between features would be a number about their encoder too: the network
at hand was trained on the very set, and another one was trained on images that may be among the candidates.

n candidates and N training images that the set holds, of D numbers each, in pixel space ([0, 1] for real images).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.data.decode import decode, decode_labels
from trainables.evaluate.accuracy import Floats, Integers
from trainables.payloads import DistilledSet

NO_START = "of an undistilled start the audit holds the model, not the images"
"""Why there are no rows about it for iteration 0."""

_CHUNK = 1024


class Nearness(NamedTuple):
    """Two scores of each candidate, higher = more likely a member."""

    pixel: Floats
    """(n,) minus the mean squared difference to the nearest image of the same class."""
    relative: Floats
    """(n,) the same over the candidate's mean squared difference to all images of the set: a pale image is near to
    everything, which says nothing of membership."""


def nearness(images: NDArray[np.uint8], labels: Integers, released: DistilledSet) -> Nearness:
    """Score candidates by their distance to a distilled set (threat model ``data_release``).

    Multi-formation is undone first, so candidates are compared with the images that networks are trained on. Where a
    set holds real images, a candidate that is in it has distance 0. A class without distilled images scores lowest.

    Args:
        images: (n, C, H, W) in 0 ... 255.
        labels: (n,) positions; canaries with the label they were trained with.
        released: The set.
    """
    factor = released.facts["factor"]
    points = decode(released.images, factor).flatten(1).double().numpy()
    classes = decode_labels(released.labels, factor).numpy()
    squares = np.square(points).mean(1)
    other_class = labels[:, None] != classes
    pixel, relative = np.empty(len(images)), np.empty(len(images))
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        flat = images[part].reshape(len(images[part]), -1) / 255.0
        products = flat @ points.T / points.shape[1]
        distances = np.maximum(np.square(flat).mean(1)[:, None] - 2 * products + squares, 0.0)
        whole = distances.mean(1)
        distances[other_class[part]] = np.inf
        nearest = distances.min(1)
        pixel[part] = -nearest
        relative[part] = -nearest / np.maximum(whole, np.finfo(np.float64).tiny)
    lowest = np.finfo(np.float64).min
    return Nearness(np.maximum(pixel, lowest), np.maximum(relative, lowest))
