"""The two halves of a test split, for what is chosen or measured on one and measured on the other. NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def halves(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an image is in the first half (n,): every other image of its class, in the given order."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    first = np.empty(len(labels), dtype=bool)
    first[order] = (np.arange(len(labels)) - starts) % 2 == 0
    return first
