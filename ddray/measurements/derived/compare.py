"""The arithmetic of comparisons, in NumPy alone: ranks, permutations, variances over classes, the map of DD-Ranking.

P points or models, K classes; accuracies are fractions. A value that does not exist is NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ALPHA = 0.05
DRAWS = 4999
"""Random permutations, where there are too many to try all."""
_ALL_UP_TO = 7
"""Things of which all permutations are tried: 5040."""


# --- ranks and permutations -------------------------------------------------------------------------------------------


def ranks(values: Floats) -> Floats:
    """Ranks (P, K) within each row of (P, K), from 1; ties share the mean of theirs."""
    order = np.argsort(values, axis=1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=1)
    begins = np.ones(values.shape, dtype=np.int64)
    begins[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    group = np.cumsum(begins.ravel()) - 1  # a row always begins a group, so groups never cross rows
    places = np.tile(np.arange(1.0, values.shape[1] + 1), len(values))
    shared = np.bincount(group, weights=places) / np.bincount(group)
    found = np.empty_like(values, dtype=np.float64)
    np.put_along_axis(found, order, shared[group].reshape(values.shape), axis=1)
    return found


def correlation(first: Floats, second: Floats) -> Floats:
    """Pearson correlation (P,) of the rows of two (P, K); NaN where a row is constant."""
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(scale > 0, (first * second).sum(axis=1) / scale, np.nan))


def spearman(first: Floats, second: Floats) -> Floats:
    """Spearman's rank correlation (P,) of the rows of two (P, K); NaN where a row is constant."""
    return correlation(ranks(first), ranks(second))


def kendall(first: Floats, second: Floats) -> Floats:
    """Kendall's tau-b (P,) of the rows of two (P, K); NaN where a row is constant."""
    upper = np.triu_indices(first.shape[1], 1)
    ours = np.sign(first[:, upper[0]] - first[:, upper[1]])
    theirs = np.sign(second[:, upper[0]] - second[:, upper[1]])
    scale = np.sqrt((ours != 0).sum(axis=1) * (theirs != 0).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(scale > 0, (ours * theirs).sum(axis=1) / scale, np.nan))


@cache
def permutations(count: int, seed: int) -> Integers:
    """Orders (N, count), the given one first: all of them where they are few, else ``DRAWS`` random ones besides it."""
    if count <= _ALL_UP_TO:
        return np.array(list(itertools.permutations(range(count))), dtype=np.int64).reshape(-1, count)
    random = np.random.default_rng(seed)
    drawn = random.permuted(np.tile(np.arange(count), (DRAWS, 1)), axis=1)
    return np.concatenate([np.arange(count)[None], drawn]).astype(np.int64)


def permutation_p(statistic: Callable[[Integers], Floats], count: int, seed: int) -> float | None:
    """Two-sided p of a statistic under exchange of its ``count`` entries.

    Twice the smaller tail, at most 1; the given order counts among the permutations, so p is never 0.

    Args:
        statistic: Orders (N, count) to values (N,).
        count: Entries that are exchanged.
        seed: Of the random orders.

    Returns:
        p; None where even the most extreme order would have p above ``ALPHA``.
    """
    orders = permutations(count, seed)
    # Rounded, so that orders which are equal but for the rounding of their sums count as equal.
    values = np.round(statistic(orders), 10)
    if not np.isfinite(values).all():
        return None

    def tails(value: float) -> float:
        smaller = min(int((values >= value).sum()), int((values <= value).sum()))
        return min(1.0, 2 * smaller / len(values))

    if min(tails(float(values.min())), tails(float(values.max()))) > ALPHA:
        return None
    return tails(float(values[0]))


def adjusted(values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for the false discovery rate (Benjamini-Hochberg) over those that are there."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    from scipy.stats import false_discovery_control  # a second and more, and most tables have no p

    found = iter(false_discovery_control(known).tolist())
    return [None if value is None else float(next(found)) for value in values]


# --- classes ----------------------------------------------------------------------------------------------------------


def cv(accuracies: Floats) -> Floats:
    """Coefficient of variation (P,) over the classes of (P, K); NaN where all are 0."""
    means = accuracies.mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(means > 0, accuracies.std(axis=1) / means, np.nan))


def log_slope(reference: Floats, accuracies: Floats) -> Floats:
    """Least-squares slope (P,) of log accuracies (P, K) on log reference (K,); NaN where any is 0 or all are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.log(reference)
        x = x - x.mean()
        spread = (x**2).sum()
        if not np.isfinite(spread) or spread <= 0:
            return np.full(len(accuracies), np.nan)
        slopes = (np.log(accuracies) * x).sum(axis=1) / spread
    return np.asarray(np.where(np.isfinite(slopes), slopes, np.nan))


def persistent(first: Floats, second: Floats) -> float:
    """Variance over classes that several trainings share: free of the noise of trainings and of test images.

    The covariance over classes (ddof 0) of one training's class means on one half of the images with another
    training's on the other half, averaged over all ordered pairs of trainings. Both noises are independent between
    the two sides, so its mean is the variance of the true class means. It can be negative.

    Args:
        first: (T, K) class means of T >= 2 trainings on the first half.
        second: (T, K) on the second half.
    """
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    products = first @ second.T / first.shape[1]
    count = len(first)
    return float((products.sum() - np.trace(products)) / (count * (count - 1)))


# --- DD-Ranking -------------------------------------------------------------------------------------------------------


def dd_score(alpha: float) -> float:
    """(e^alpha - e^-1) / (e - e^-1): 0 at -1, 1 at 1, 0.269 at 0 (DD-Ranking, arXiv 2505.13300), of fractions."""
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))
