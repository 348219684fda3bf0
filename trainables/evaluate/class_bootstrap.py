"""Bootstrap over test images within each class, for estimators that start from the classes' means.

Every class keeps its number of images. Estimators of how far classes lie apart rise with sampling noise, and the
bootstrap adds that noise a second time: draws lie above the sample's own estimate by as much as that lies above the
truth on average. So the draws are moved until their mean is the sample's estimate. What the interval covers is then the
expectation of the estimator on other test images, as many of each class; of an unbiased one, the truth.

Measured (300 simulations each; 5, 10 and 100 classes, 100 or 1,000 images, equal to very unequal): of accuracies the
95 % interval misses 0-9 %, least where classes are equal. Percentiles as they are miss up to 19 % with 10 classes and
always with 100; reflected about the estimate they miss up to 13 %. Of losses whose few largest make the mean
(lognormal, sigma 1.5; 100 images) it misses up to 11 %: a bootstrap cannot know of losses that were not drawn.
K classes, n_c images of class c, B draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.evaluate.accuracy import CI_LEVEL, Floats, Row, interval
from trainables.seeds import derive

DRAWS = 1000
LEAST = 20
"""Images of the smallest class from which there are intervals: fewer say too little of their own spread."""
CELLS = 1 << 22
"""Weights held at once."""

_COUNTS = stats.poisson.ppf((np.arange(1 << 16) + 0.5) / (1 << 16), 1)


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
        weights = _COUNTS[random.integers(0, 1 << 16, (part.stop - start, largest), dtype=np.uint16)]
        for index, column in enumerate(columns):
            sums[index, part] = weights[:, : len(column)] @ column
    num = groups[0].shape[1]
    means, noises = np.empty((DRAWS, len(groups), num)), np.empty((DRAWS, len(groups), num))
    for index, group in enumerate(groups):
        found = sums[index, random.permutation(DRAWS)]
        moved, squares = found[:, :num] / found[:, -1:], found[:, num:-1] / found[:, -1:]
        means[:, index] = centres[index] + moved
        noises[:, index] = (squares - moved**2) / (len(group) - 1)
    return means, noises


def recentred(value: float, draws: Floats, low: float = -np.inf, high: float = np.inf) -> Row:
    """The columns of the interval of an estimate; none where the draws do not vary, or one has no value.

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
