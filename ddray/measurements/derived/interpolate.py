"""A property of random real images as a function of their accuracy, with an interval about the draws. NumPy and SciPy.

P accuracies; D draws. A value that does not exist is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddray.measurements.derived.compare import Floats, Integers

LEVEL = 0.95
_ROUNDING = 1e-9
"""Accuracies that differ by less are equal: means of equal numbers may differ in the last digit."""


class Knot(NamedTuple):
    """Draws of one ipc of random real images."""

    accuracy: Floats
    """(D,) mean over the trainings of each draw."""
    value: Floats
    """(D,) the same of the property."""
    steps: float
    """Mean optimiser steps."""


class OnFrontier(NamedTuple):
    """What real images give at some accuracies."""

    value: Floats
    """(P,) NaN outside the frontier's accuracies: nothing is extrapolated."""
    reach: Floats
    """(P,) half of the interval; NaN where a knot beside it has a single draw."""
    draws: Integers
    """(P,) behind the knots beside it."""
    steps: Floats
    """(P, 2) optimiser steps of the two knots; equal at the ends."""


def on_frontier(knots: Sequence[Knot], accuracies: Floats) -> OnFrontier | None:
    """The property of real images at given accuracies: linear between the means of neighbouring ipc.

    The interval is Student's over draws. A draw's residual is its distance from the segment, so it holds what
    scatters of the accuracy as well as of the property; the variances of the two knots are combined by the weights of
    the interpolation, with the degrees of freedom of Welch and Satterthwaite. It is about the frontier alone: the point
    that is compared with it is taken as measured.

    Args:
        knots: One per ipc, in any order; ordered by accuracy here.
        accuracies: (P,).

    Returns:
        None with fewer than two knots of different accuracy: there is no line.
    """
    from scipy.special import stdtrit

    knots = _merged(sorted(knots, key=lambda knot: float(knot.accuracy.mean())))
    if len(knots) < 2:
        return None
    x = np.array([knot.accuracy.mean() for knot in knots])
    y = np.array([knot.value.mean() for knot in knots])
    counts = np.array([len(knot.accuracy) for knot in knots])
    steps = np.array([knot.steps for knot in knots])
    segment = np.clip(np.searchsorted(x, accuracies, side="right") - 1, 0, len(x) - 2)
    weight = (accuracies - x[segment]) / (x[segment + 1] - x[segment])
    weight = np.where(np.abs(weight - np.round(weight)) < _ROUNDING, np.round(weight), weight)
    inside = (weight >= 0) & (weight <= 1)
    weight = np.clip(weight, 0, 1)
    slopes = np.diff(y) / np.diff(x)

    variance, freedom = np.zeros(len(accuracies)), np.zeros(len(accuracies))
    draws, alone = np.zeros(len(accuracies), dtype=np.int64), np.zeros(len(accuracies), dtype=bool)
    for side, share in ((segment, 1 - weight), (segment + 1, weight)):
        scatter = _scatter(knots, side, slopes[segment], segment)
        needed = share > 0
        alone |= needed & (counts[side] < 2)
        part = np.where(needed, share**2 * np.nan_to_num(scatter) / counts[side], 0.0)
        variance += part
        freedom += part**2 / np.maximum(counts[side] - 1, 1)
        draws += np.where(needed, counts[side], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = np.where(freedom > 0, variance**2 / freedom, np.inf)
        reach = np.where(variance > 0, stdtrit(degrees, (1 + LEVEL) / 2) * np.sqrt(variance), 0.0)
    value = (1 - weight) * y[segment] + weight * y[segment + 1]
    beside = np.stack(
        [
            np.where(weight < 1, steps[segment], steps[segment + 1]),
            np.where(weight > 0, steps[segment + 1], steps[segment]),
        ],
        axis=1,
    )
    return OnFrontier(
        np.where(inside, value, np.nan), np.where(inside & ~alone, reach, np.nan), np.where(inside, draws, 0), beside
    )


def _merged(knots: Sequence[Knot]) -> list[Knot]:
    """Knots of one and the same accuracy become one."""
    found: list[Knot] = []
    for knot in knots:
        if found and float(knot.accuracy.mean() - found[-1].accuracy.mean()) < _ROUNDING:
            last = found.pop()
            accuracy, value = (np.concatenate(both) for both in zip(last[:2], knot[:2], strict=True))
            knot = Knot(accuracy, value, (last.steps + knot.steps) / 2)
        found.append(knot)
    return found


def _scatter(knots: Sequence[Knot], side: Integers, slope: Floats, segment: Integers) -> Floats:
    """Variance (P,) of the draws' residuals at the knot ``side``, from the line of ``segment``; NaN of single ones."""
    found = np.full((len(knots), 2), np.nan)  # knot, and whether the segment lies to its right
    slopes = dict(zip(segment.tolist(), slope.tolist(), strict=True))
    for index, knot in enumerate(knots):
        for right in (0, 1):
            line = slopes.get(index - 1 + right)
            if line is not None and len(knot.accuracy) > 1:
                found[index, right] = float((knot.value - line * knot.accuracy).var(ddof=1))
    return np.asarray(found[side, (side == segment).astype(np.int64)])
