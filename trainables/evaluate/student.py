"""Student's t where several variances add up: of a mean over targets, of a difference from real images.

No torch, and SciPy on use alone, for tables read this.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_TARGETS = 3
"""Of a mean with an interval. Two say too little of their own spread: of two that truly differ the interval of
``error_over_targets`` would hold the truth in 90 %."""


class Error(NamedTuple):
    """How far a value may be from its truth."""

    scale: float
    """Standard error, above 0."""
    freedom: float
    """Degrees of freedom of Student's t."""

    def reach(self, level: float) -> float:
        """Half of the interval."""
        from scipy.special import stdtrit

        return float(stdtrit(min(self.freedom, 1e9), (1 + level) / 2)) * self.scale

    def p(self, value: float) -> float:
        """Two-sided, of a truth of 0."""
        from scipy.special import stdtr

        return min(1.0, 2 * float(stdtr(min(self.freedom, 1e9), -abs(value) / self.scale)))


def freedom_of(parts: Iterable[tuple[float, float]], variance: float) -> float:
    """Degrees of freedom of a sum of estimated variances.

    The mean of 1 / f over the parts, by their shares of the sum, inverted. Welch and Satterthwaite average squares of
    shares, which gives more degrees: with two to five things behind a part, intervals would miss in up to 11 % where
    one part is a little larger than the others (docs/metrics.md).

    Args:
        parts: Variances, and the degrees of freedom of each.
        variance: Their sum, above 0.
    """
    inverse = sum(part / freedom for part, freedom in parts)
    return variance / inverse if inverse > 0 else math.inf


def error_over_targets(values: Floats, influence: Floats, fewest: int) -> Error | None:
    """The error of a mean over T targets, rows of one membership matrix, for other targets and other images.

    An image acts on all targets, a target on all images, and both are drawn. With psi_ti what image i adds to the error
    of target t,

        V = sum_i (mean_t psi_ti)^2 + max(0, s^2 / T - e),  e = sum_ti (psi_ti - mean_t psi_ti)^2 / (T (T - 1)),

    s^2 the variance of the targets' values, of which e is what the images alone make. Degrees of freedom are those of
    s^2 / T in full and of the images. Shadows that targets share are as they are: other ones would add to V.

    Args:
        values: (T,), one of each target.
        influence: (T, n) psi, 0 where an image is no candidate of a target; its squares sum to the variance of the
            target's value about images.
        fewest: The fewest images of one side in any target.

    Returns:
        Of one target: about images, for this one. None for fewer than ``FEWEST_TARGETS`` of several, and where nothing
        varies.
    """
    targets = len(values)
    common = influence.mean(axis=0)
    of_images = variance = float((common**2).sum())
    of_targets = 0.0
    if targets > 1:
        if targets < FEWEST_TARGETS:
            return None
        of_targets = float(values.var(ddof=1)) / targets
        variance += max(0.0, of_targets - float(((influence - common) ** 2).sum()) / (targets * (targets - 1)))
    if variance <= 0:
        return None
    parts = (of_targets, max(1, targets - 1)), (of_images, fewest - 1)
    return Error(math.sqrt(variance), freedom_of(parts, variance))
