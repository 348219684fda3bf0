"""A curve of robust accuracy over epsilon, image by image, and its rows and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

from trainables.evaluate.accuracy import CI_LEVEL, Floats, Integers, Row, interval
from trainables.evaluate.robustness.paired import Booleans


@dataclass(frozen=True)
class Curve:
    """Which images are robust, at each epsilon from 0."""

    epsilons: tuple[float, ...]
    robust: Booleans
    """(E + 1, n)."""
    labels: Integers
    columns: Row = field(default_factory=dict)
    """What every row says of the attack."""

    def at(self, epsilon: float) -> Booleans | None:
        """(n,), or None where the grid does not hold the epsilon."""
        for index, known in enumerate(self.epsilons):
            if math.isclose(known, epsilon, rel_tol=1e-6, abs_tol=1e-12):
                found: Booleans = self.robust[index]
                return found
        return None

    def row(self, metric: str, value: float | None, unit: str = "fraction", **other: Any) -> Row:
        head = {"property": "robustness", "metric": metric, "value": value, "unit": unit, "n": len(self.labels)}
        return {**head, "split": "test", **self.columns, **other}


def order_statistics(values: Floats, share: float) -> Row:
    """Interval of a quantile between two of the ordered values; absent where one of them does not exist or is infinite.

    The number of values below the true quantile is binomial, whatever their distribution.
    """
    n = len(values)
    if n == 0:
        return {}
    low, high = (int(stats.binom.ppf(tail, n, share)) for tail in ((1 - CI_LEVEL) / 2, (1 + CI_LEVEL) / 2))
    ordered = sorted(values)
    if low < 1 or high >= n or not math.isfinite(ordered[high]):
        return {}
    return interval(float(ordered[low - 1]), float(ordered[high]), "order statistics")
