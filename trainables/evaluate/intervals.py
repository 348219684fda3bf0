"""Intervals about test images, of one model: shares, means, quantiles, and what starts from the classes' means.

All are 95 % intervals of what the same model would show on other images of the same distribution; that training again
would give another model is in none of them (statistics over seeds: ``ddray/measurements/statistics.py``). Intervals of
membership AUCs are in ``privacy/roc.py``, of differences between two models in ``paired.py``.
K classes, n_c images of class c, B draws.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.seeds import derive

Row = dict[str, Any]
"""One row of measurements: column -> value."""
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CI_LEVEL = 0.95
DRAWS = 1000
LEAST = 20
"""Images of the smallest class from which there are intervals: fewer say too little of their own spread."""
CELLS = 1 << 22
"""Weights held at once."""

POISSON = stats.poisson.ppf((np.arange(1 << 16) + 0.5) / (1 << 16), 1)
"""Number of times a draw with replacement takes an image, by a random 16-bit number."""


def interval(low: float, high: float, method: str) -> Row:
    """The columns of an interval about the images."""
    return {"ci_low": low, "ci_high": high, "ci_level": CI_LEVEL, "ci_method": method, "ci_unit": "images"}


def wilson(hits: Booleans) -> Row:
    """Wilson's interval of a share (n,), n >= 1.

    Of the chance that an image drawn from the distribution of the images is a hit; binomial variance alone. Coverage is
    near 95 % on average over that chance.
    """
    limits = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(CI_LEVEL, method="wilson")
    return interval(float(limits.low), float(limits.high), "wilson")


def student(values: Floats) -> Row:
    """Student's interval of a mean (n,); absent with fewer than two values.

    Of the mean over the distribution of the images; the spread between images alone. Exact for normal values, else
    right for many; of values whose few largest make the mean it covers less.
    """
    n = len(values)
    if n < 2:
        return {}
    mean = float(values.mean())
    reach = float(stats.t.ppf((1 + CI_LEVEL) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return interval(mean - reach, mean + reach, "t")


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, count / total: binomial variance alone, coverage at least 95 %."""
    limits = stats.binomtest(count, total).proportion_ci(CI_LEVEL, method="exact")
    return float(limits.low), float(limits.high)


def order_statistics(values: Floats, share: float) -> Row:
    """Interval of a quantile between two of the ordered values; absent where one of them does not exist or is infinite.

    Of the quantile of the distribution of the images; sampling of the images alone. The number of values below the true
    quantile is binomial, whatever their distribution, so that coverage is about 95 % without assumptions.
    """
    n = len(values)
    if n == 0:
        return {}
    low, high = (int(stats.binom.ppf(tail, n, share)) for tail in ((1 - CI_LEVEL) / 2, (1 + CI_LEVEL) / 2))
    ordered = sorted(values)
    if low < 1 or high >= n or not math.isfinite(ordered[high]):
        return {}
    return interval(float(ordered[low - 1]), float(ordered[high]), "order statistics")


# --- Bootstrap over test images within each class, for estimators that start from the classes' means ---
#
# Every class keeps its number of images. Estimators of how far classes lie apart rise with sampling noise, and the
# bootstrap adds that noise a second time: draws lie above the sample's own estimate by as much as that lies above the
# truth on average. So the draws are moved until their mean is the sample's estimate. What the interval covers is then
# the expectation of the estimator on other test images, as many of each class; of an unbiased one, the truth.
#
# Measured (300 simulations each; 5, 10 and 100 classes, 100 or 1,000 images, equal to very unequal): of accuracies the
# 95 % interval misses 0-9 %, least where classes are equal. Percentiles as they are miss up to 19 % with 10 classes and
# always with 100; reflected about the estimate they miss up to 13 %. Of losses whose few largest make the mean
# (lognormal, sigma 1.5; 100 images) it misses up to 11 %: a bootstrap cannot know of losses that were not drawn.


def drawn_shares(shares: Floats, counts: NDArray[np.int64], purpose: str) -> Floats:
    """Shares of draws with replacement (B, K).

    Args:
        shares: (K,) of the images.
        counts: (K,) of images.
        purpose: Names the random numbers; the same for every model, which pairs models.
    """
    random = np.random.default_rng(derive("fairness", purpose))
    # By class, so that the generator sets up each distribution once.
    hits = random.binomial(counts[:, None], shares[:, None], (len(shares), DRAWS))
    return np.asarray((hits / counts[:, None]).T, dtype=np.float64)


def drawn_means(groups: list[Floats], purpose: str) -> tuple[Floats, Floats]:
    """Mean (B, K, V) and its sampling variance s^2 / n_c (B, K, V), of draws with replacement.

    Images come with independent Poisson(1) weights, all classes with the same ones in an order of their own: so the
    weights are made once, and classes are independent all the same.

    Args:
        groups: By class, values (n_c, V), n_c >= ``LEAST``.
        purpose: Names the random numbers.
    """
    random = np.random.default_rng(derive("fairness", purpose))
    largest = max(map(len, groups))
    centres = [group.mean(axis=0) for group in groups]
    centred = [group - centre for group, centre in zip(groups, centres, strict=True)]
    columns = [np.concatenate([each, each**2, np.ones((len(each), 1))], axis=1) for each in centred]
    sums = np.empty((len(groups), DRAWS, columns[0].shape[1]))
    step = max(1, CELLS // largest)
    for start in range(0, DRAWS, step):
        part = slice(start, min(start + step, DRAWS))
        weights = POISSON[random.integers(0, 1 << 16, (part.stop - start, largest), dtype=np.uint16)]
        for index, column in enumerate(columns):
            sums[index, part] = weights[:, : len(column)] @ column
    num = groups[0].shape[1]
    means, noises = np.empty((DRAWS, len(groups), num)), np.empty((DRAWS, len(groups), num))
    for index, group in enumerate(groups):
        drawn = sums[index, random.permutation(DRAWS)]
        moved, squares = drawn[:, :num] / drawn[:, -1:], drawn[:, num:-1] / drawn[:, -1:]
        means[:, index] = centres[index] + moved
        noises[:, index] = (squares - moved**2) / (len(group) - 1)
    return means, noises


def recentred(value: float, draws: Floats, low: float = -np.inf, high: float = np.inf) -> Row:
    """The columns of the interval of an estimate; none where the draws do not vary, or one has no value.

    Of the estimator's expectation on as many other images of each class; sampling of images within classes alone. See
    above for what it covers.

    Args:
        value: Of the images.
        draws: (B,) of draws of them.
        low: Least value there can be.
        high: Greatest.
    """
    if not np.isfinite(draws).all() or draws.min() == draws.max():
        return {}
    ends = np.quantile(draws, [(1 - CI_LEVEL) / 2, (1 + CI_LEVEL) / 2]) + (value - draws.mean())
    # Where most draws are alike their mean may lie outside; the estimate itself is always compatible with the images.
    # A smallest accuracy near 0 has draws far below it; moved up they would leave out what the images allow.
    plain = float(np.quantile(draws, (1 - CI_LEVEL) / 2))
    first, last = min(float(ends[0]), plain, value), max(float(ends[1]), value)
    return interval(max(first, low), min(last, high), "bootstrap_recentred")
