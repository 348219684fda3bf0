"""Statistics over seeds, draws and classes: means, paired differences, rank tests, and the frontier of real images.

Each function says what it estimates and what its interval covers. Two kinds of repeat are never mixed silently:
trainings of one distilled set (``seed``) say how much the training scatters, distillations (``distill_seed``) how much
the method does. Where there are several distilled sets, each counts once, by the mean over its trainings.

P points or models, K classes, D draws; accuracies are fractions. A value that does not exist is NaN in an array, None
alone. NumPy; SciPy is imported where a quantile is needed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.evaluate.student import Error, freedom_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVEL = 0.95
"""Of every interval."""
ALPHA = 0.05
"""Above it, a p of the most extreme order says nothing."""
PERMUTATIONS = 4999
"""Random orders, where there are too many to try all."""
_ALL_UP_TO = 7
"""Things of which all orders are tried: 5040."""
_ROUNDING = 1e-9
"""Accuracies that differ by less are equal: means of equal numbers may differ in the last digit."""

Values = Mapping[int | None, Mapping[int, float]]
"""distill_seed (None: nothing was distilled) -> seed -> value."""


# --- means and paired differences over seeds --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation (ddof 1) over ``unit``; None for a single one."""
    unit: str
    """``trainings``, or ``distillations`` (``draws`` of real images for ``random``) when there are several."""
    count: int
    """Units."""
    trainings: tuple[int, int]
    """Fewest and most trainings of one distilled set."""

    @property
    def seed_level(self) -> str:
        """``n=3 trainings``, ``n=5 distillations × 1 training``."""
        if self.unit == "trainings":
            return f"n={_counted(self.count, 'trainings')}"
        low, high = self.trainings
        inner = _counted(high, "trainings") if low == high else f"{low}-{high} trainings"
        return f"n={_counted(self.count, self.unit)} × {inner}"

    @property
    def short(self) -> str:
        """The same without words: ``n=3``, ``n=5×1``."""
        if self.unit == "trainings":
            return f"n={self.count}"
        low, high = self.trainings
        return f"n={self.count}×{low}" if low == high else f"n={self.count}×{low}-{high}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences, with Student's interval."""

    mean: float
    low: float | None
    """None with a single pair."""
    high: float | None
    pairs: int
    trainings: tuple[int, int]
    """Fewest and most trainings behind one side of a pair."""


def spread(values: Values, unit: str = "distillations") -> Spread | None:
    """Mean and standard deviation at the highest level of repetition there is.

    With several distilled sets it estimates the expected value over distillations, each set by the mean over its
    trainings; with one, the expected value over trainings of that set. The deviation is of single units, not of the
    mean: it covers nothing, it says how much one unit differs from another.

    Args:
        values: What was measured; sets without a value are left out.
        unit: What a distilled set is called.

    Returns:
        None when nothing was measured.
    """
    sets = [list(trainings.values()) for trainings in values.values() if trainings]
    if not sets:
        return None
    counts = (min(map(len, sets)), max(map(len, sets)))
    of_sets = len(sets) > 1
    entries = [fmean(trainings) for trainings in sets] if of_sets else sets[0]
    sd = stdev(entries) if len(entries) > 1 else None
    return Spread(fmean(entries), sd, unit if of_sets else "trainings", len(entries), counts)


def differences(ours: Values, other: Values, seeded: bool = True) -> dict[int | None, dict[int, float]]:
    """Ours minus the other of each training whose seeds both have, by distill_seed and seed.

    Args:
        ours: By distill_seed and seed.
        other: Likewise.
        seeded: Whether ours has distill_seeds; else its one set is compared with each of the other's.
    """
    found: dict[int | None, dict[int, float]] = {}
    for distill_seed in ours.keys() & other.keys() if seeded else other.keys():
        mine, theirs = ours[distill_seed] if seeded else next(iter(ours.values()), {}), other[distill_seed]
        if common := mine.keys() & theirs.keys():
            found[distill_seed] = {seed: mine[seed] - theirs[seed] for seed in sorted(common)}
    return found


def paired(ours: Values, other: Values, seeded: bool = True) -> Difference | None:
    """Ours minus the other, paired by distill_seed; within a pair the mean over the trainings' common seeds.

    Estimates the expected difference over distillations, both sides made from the same seeds; see ``mean_of``.

    Args:
        ours: As for ``differences``; so are the others.
        other: Likewise.
        seeded: Likewise.

    Returns:
        None when no pair has a training seed in common.
    """
    return mean_of(differences(ours, other, seeded))


def mean_of(pairs: Values) -> Difference | None:
    """The mean of paired differences, each pair by the mean over its trainings.

    The interval is Student's over pairs: it covers what distillations and the trainings behind each pair add, for these
    test images. One pair gives no interval: repeated trainings of one distilled set say nothing about the method's
    scatter.

    Args:
        pairs: As ``differences`` gives them.

    Returns:
        None without a pair.
    """
    means = [fmean(trainings.values()) for trainings in pairs.values()]
    if not means:
        return None
    mean, count = fmean(means), len(means)
    counts = list(map(len, pairs.values()))
    trainings = (min(counts), max(counts))
    if count == 1:
        return Difference(mean, None, None, 1, trainings)
    from scipy.special import stdtrit  # a tenth of the time that importing scipy.stats takes

    reach = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * stdev(means) / math.sqrt(count)
    return Difference(mean, mean - reach, mean + reach, count, trainings)


class Estimate(NamedTuple):
    """A number with an interval."""

    value: float
    low: float
    high: float


class _Mean(NamedTuple):
    """A mean accuracy, its variance and the parts of that with their degrees of freedom."""

    value: float
    variance: float
    parts: tuple[tuple[float, float], ...]


def _mean_accuracy(repeats: Sequence[float], images: int) -> _Mean:
    """Over repeats, where there are several, and test images: as if every mean had images of its own, which is too much
    where two are compared on the same ones."""
    mean = fmean(repeats)
    of_repeats = ((stdev(repeats) ** 2 / len(repeats), len(repeats) - 1.0),) if len(repeats) > 1 else ()
    parts = (*of_repeats, (mean * (1 - mean) / images, max(1.0, images - 1.0)))
    return _Mean(mean, sum(variance for variance, _ in parts), parts)


def _student(*means: _Mean) -> float:
    """The quantile with the degrees of freedom of a sum (Welch and Satterthwaite)."""
    from scipy.special import stdtrit  # a tenth of the time that importing scipy.stats takes

    parts = [part for mean in means for part in mean.parts]
    divisor = sum(variance**2 / freedom for variance, freedom in parts)
    freedom = sum(variance for variance, _ in parts) ** 2 / divisor if divisor > 0 else math.inf
    return float(stdtrit(min(freedom, 1e9), (1 + LEVEL) / 2))


def accuracy_difference(first: Sequence[float], second: Sequence[float], images: int) -> Estimate:
    """First less second, with Student's interval over repeats and test images (see ``_mean_accuracy``).

    Args:
        first: Accuracies of repeats; of a single one the interval is about images alone.
        second: Likewise.
        images: Test images.
    """
    one, other = _mean_accuracy(first, images), _mean_accuracy(second, images)
    value = one.value - other.value
    reach = _student(one, other) * math.sqrt(one.variance + other.variance)
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach))


def share_of_way(ours: Sequence[float], start: Sequence[float], end: Sequence[float], images: int) -> Estimate | None:
    """(ours - start) / (end - start) of mean accuracies, with Fieller's interval over repeats and test images.

    Args:
        ours: Accuracies of repeats.
        start: Likewise; where the share is 0.
        end: Likewise; where it is 1.
        images: Test images.

    Returns:
        None where the divisor's interval holds 0: then the share may be anything, and Fieller's interval has no end.
    """
    here, low, high = (_mean_accuracy(repeats, images) for repeats in (ours, start, end))
    way, gone = high.value - low.value, here.value - low.value
    squared = _student(here, low, high) ** 2
    whole = way**2 - squared * (high.variance + low.variance)
    if way <= 0 or whole <= 0 or accuracy_difference(end, start, images).low <= 0:
        return None
    middle = gone * way - squared * low.variance
    reach = math.sqrt(max(0.0, middle**2 - whole * (gone**2 - squared * (here.variance + low.variance))))
    return Estimate(gone / way, (middle - reach) / whole, (middle + reach) / whole)


def by_seed(entries: Iterable[tuple[int | None, int, float]]) -> dict[int | None, dict[int, float]]:
    """(distill_seed, seed, value) -> nested mappings."""
    values: dict[int | None, dict[int, float]] = {}
    for distill_seed, seed, value in entries:
        values.setdefault(distill_seed, {})[seed] = value
    return values


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural if number != 1 else plural.removesuffix('s')}"


# --- ranks and permutations -------------------------------------------------------------------------------------------


def ranks(values: Floats) -> Floats:
    """Ranks (P, K) within each row of (P, K), from 1; ties share the mean of theirs."""
    order = np.argsort(values, axis=1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=1)
    begins = np.ones(values.shape, dtype=np.int64)
    begins[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    group = np.cumsum(begins.ravel()) - 1  # a row always begins a group, so groups never cross rows
    plain = np.tile(np.arange(1.0, values.shape[1] + 1), len(values))
    shared = np.bincount(group, weights=plain) / np.bincount(group)
    ranked = np.empty_like(values, dtype=np.float64)
    np.put_along_axis(ranked, order, shared[group].reshape(values.shape), axis=1)
    return ranked


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
    """Orders (N, count), the given one first: all of them where they are few, else ``PERMUTATIONS`` random ones too."""
    if count <= _ALL_UP_TO:
        return np.array(list(itertools.permutations(range(count))), dtype=np.int64).reshape(-1, count)
    random = np.random.default_rng(seed)
    drawn = random.permuted(np.tile(np.arange(count), (PERMUTATIONS, 1)), axis=1)
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
    """p-values adjusted for the false discovery rate (Benjamini-Hochberg) over those that are there, None apart."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    from scipy.stats import false_discovery_control  # a second and more, and most tables have no p

    corrected = iter(false_discovery_control(known).tolist())
    return [None if value is None else float(next(corrected)) for value in values]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for the chance of any false rejection (Holm 1979), however they depend on one another."""
    known = sorted(value for value in values if value is not None)
    stepped = [min(1.0, (len(known) - index) * value) for index, value in enumerate(known)]
    reached = dict(zip(known, itertools.accumulate(stepped, max), strict=True))
    return [None if value is None else reached[value] for value in values]


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


# --- a property as a function of accuracy -----------------------------------------------------------------------------


class Sets(NamedTuple):
    """Sets that differ in seeds alone: draws of random real images of one ipc, or distillations of one cell."""

    accuracy: Floats
    """(D,) mean over the trainings of each set; of a single set, its trainings."""
    value: Floats
    """(D,) the same of the property."""
    steps: float
    """Mean optimiser steps."""


class Excess(NamedTuple):
    """A property of sets less that of random real images of the same accuracy."""

    value: float
    """NaN outside the accuracies of real images: nothing is extrapolated."""
    reach: float
    """Half of the interval; NaN without one."""
    reason: str | None
    """Why there is no interval."""
    draws: int
    """Of real images, at the knots beside it."""
    apart: float
    """By how much the accuracies of those knots differ; 0 on a knot."""
    steps: tuple[float, float]
    """Optimiser steps of those knots."""


def excess(knots: Sequence[Sets], own: Sets) -> Excess | None:
    """What sets have more than random real images of their mean accuracy, which lie on straight lines between ipc.

    Estimates the expected property of a set less the line at its expected accuracy, over distillations (trainings where
    there is a single set) and draws of real images. Both sides are measured from the line between the two knots
    beside: a residual holds what scatters of the accuracy as well as of the property. The interval is Student's;
    variances of the sets and of the knots, these by the weights of the interpolation, are added (``student.py``).

    Args:
        knots: Random real images, one per ipc in any order; ordered by accuracy here.
        own: The sets.

    Returns:
        None with fewer than two knots of different accuracy: there is no line.
    """
    knots = _merged(sorted(knots, key=lambda knot: float(knot.accuracy.mean())))
    if len(knots) < 2:
        return None
    x = np.array([knot.accuracy.mean() for knot in knots])
    at = float(own.accuracy.mean())
    left = int(np.clip(np.searchsorted(x, at + _ROUNDING) - 1, 0, len(x) - 2))
    one, other = knots[left], knots[left + 1]
    apart = float(x[left + 1] - x[left])
    weight = (at - float(x[left])) / apart
    weight = round(weight) if abs(weight - round(weight)) < _ROUNDING / apart else weight
    if not 0 <= weight <= 1:
        return Excess(math.nan, math.nan, None, 0, 0.0, (own.steps, own.steps))
    slope = float(other.value.mean() - one.value.mean()) / apart
    beside = [(share, knot) for share, knot in ((1 - weight, one), (weight, other)) if share > 0]
    line = sum(share * float(knot.value.mean()) for share, knot in beside)
    return Excess(
        float(own.value.mean()) - line,
        *_reach_of_excess([(1.0, own), *beside], slope),
        sum(len(knot.accuracy) for _, knot in beside),
        apart if len(beside) == 2 else 0.0,
        (beside[0][1].steps, beside[-1][1].steps),
    )


def _reach_of_excess(sides: Sequence[tuple[float, Sets]], slope: float) -> tuple[float, str | None]:
    """Half of the interval, or NaN and why there is none.

    Args:
        sides: Weight of each, the sets themselves first.
        slope: Of the line.
    """
    (_, own), *real = sides
    if len(own.accuracy) < 2:
        return math.nan, "one model: how much models scatter is not known"
    if any(len(knot.accuracy) < 2 for _, knot in real):
        return math.nan, "one draw of real images: how much draws scatter is not known"
    parts = [
        (share**2 * float((each.value - slope * each.accuracy).var(ddof=1)) / len(each.value), len(each.value) - 1)
        for share, each in sides
    ]
    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return 0.0, None
    return Error(math.sqrt(variance), freedom_of(parts, variance)).reach(LEVEL), None


def _merged(knots: Sequence[Sets]) -> list[Sets]:
    """Knots of one and the same accuracy become one."""
    merged: list[Sets] = []
    for knot in knots:
        if merged and float(knot.accuracy.mean() - merged[-1].accuracy.mean()) < _ROUNDING:
            last = merged.pop()
            accuracy, value = (np.concatenate(both) for both in zip(last[:2], knot[:2], strict=True))
            knot = Sets(accuracy, value, (last.steps + knot.steps) / 2)
        merged.append(knot)
    return merged
