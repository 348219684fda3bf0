"""Bootstrap over complementary pairs and images at once, for scores of several targets on the same images.

An image that several targets are asked about, and a target that several images are asked of, make scores dependent.
Both are drawn with replacement: targets by pair (a twin is no second opinion), images by id, the same draw for all
targets. Images come with independent Poisson(1) weights, which is the multinomial draw for all but tiny samples and
needs no gather. Three targets are few to draw from: where they truly differ (SD of the effect 0.3) the 95 % interval of
their mean AUC held the truth in 91 % of 150 simulations, with eight targets in 97 %, with three equal ones in 99 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.evaluate.accuracy import CI_LEVEL, Floats
from trainables.evaluate.privacy.roc import Interval
from trainables.seeds import derive

CELLS = 1 << 21
"""Weights held at once: a few megabytes, so that they stay in cache."""
BUDGET = 1 << 24
LEAST = 400
"""Weights in all; beyond it there are fewer resamples, at least so many. More images do not ask for more resamples."""

_COUNTS = stats.poisson.ppf((np.arange(1 << 16) + 0.5) / (1 << 16), 1).astype(np.float32)


class Resampler:
    """Draws of pairs and images, the same for every statistic that is asked of one instance.

    Args:
        ids: Of each target, the ids of its images (k_t,).
        pairs: Of each target, the number of its complementary pair.
        resamples: How many draws are wanted.
        seed_parts: What the draws are for.
    """

    def __init__(
        self, ids: list[NDArray[np.int64]], pairs: list[int], resamples: int, seed_parts: tuple[int | str, ...]
    ) -> None:
        unique, positions = np.unique(np.concatenate(ids), return_inverse=True)
        self.num_images = len(unique)
        self.places = np.split(positions, np.cumsum([len(each) for each in ids])[:-1])
        work = sum(map(len, ids))
        self.num = min(resamples, max(LEAST, BUDGET // work))
        self.seed = derive(*seed_parts, "membership", "resamples")
        numbers, which = np.unique(pairs, return_inverse=True)
        count = len(numbers)
        drawn = np.random.default_rng(derive(*seed_parts, "membership", "pairs")).multinomial(
            count, np.full(count, 1 / count), size=self.num
        )
        self.of_targets: Floats = drawn[:, which].astype(np.float64)
        """(B, T) how often each target was drawn."""

    def batches(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Slices of the draws, with image weights (b, num_images)."""
        rng = np.random.default_rng(self.seed)
        size = max(1, CELLS // self.num_images)
        for start in range(0, self.num, size):
            stop = min(start + size, self.num)
            yield (
                slice(start, stop),
                _COUNTS[rng.integers(0, 1 << 16, (stop - start, self.num_images), dtype=np.uint16)],
            )

    def means(self, statistic: Callable[[int, NDArray[np.float32]], Floats], num_outputs: int) -> Floats:
        """Mean over the drawn targets of a statistic (B, num_outputs).

        Args:
            statistic: Of target t under image weights (b, k_t): (b, num_outputs), finite.
            num_outputs: How many numbers it gives.
        """
        total = np.zeros((self.num, num_outputs))
        for part, weights in self.batches():
            for index, places in enumerate(self.places):
                total[part] += self.of_targets[part, index, None] * statistic(index, weights[:, places])
        return np.asarray(total / self.of_targets.sum(axis=1, keepdims=True), dtype=np.float64)

    def of_pooled(self, statistic: Callable[[NDArray[np.float32]], Floats], num_outputs: int) -> Floats:
        """A statistic of all targets' scores together (B, num_outputs), under weights (b, sum of k_t)."""
        found = np.zeros((self.num, num_outputs))
        for part, weights in self.batches():
            drawn = self.of_targets[part].astype(np.float32)
            together = [weights[:, places] * drawn[:, index, None] for index, places in enumerate(self.places)]
            found[part] = statistic(np.concatenate(together, axis=1))
        return found


def percentile_interval(samples: Floats) -> Interval:
    """Percentile interval of draws (B,)."""
    low, high = np.quantile(samples, [(1 - CI_LEVEL) / 2, (1 + CI_LEVEL) / 2])
    return float(low), float(high)
