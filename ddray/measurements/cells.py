"""Means over seeds, and which seeds they are about. Pure; fractions in, fractions out.

Two kinds of repeat must never be mixed silently: trainings of one distilled set (``seed``) say how much the training
scatters, distillations (``distill_seed``) how much the method does. Where there are several distilled sets, each
counts once, by the mean over its trainings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

Values = Mapping[int | None, Mapping[int, float]]
"""distill_seed (None: nothing was distilled) -> seed -> value."""

LEVEL = 0.95


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
    """Mean and scatter at the highest level of repetition there is.

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


def paired(ours: Values, other: Values, seeded: bool = True) -> Difference | None:
    """Ours minus the other, paired by distill_seed; within a pair the mean over the trainings' common seeds.

    One pair gives no interval: repeated trainings of one distilled set say nothing about the method's scatter.

    Args:
        ours: By distill_seed and seed.
        other: Likewise.
        seeded: Whether ours has distill_seeds; else its one set is compared with each of the other's.

    Returns:
        None when no pair has a training seed in common.
    """
    differences, counts = [], []
    for distill_seed in ours.keys() & other.keys() if seeded else other.keys():
        mine, theirs = ours[distill_seed] if seeded else next(iter(ours.values()), {}), other[distill_seed]
        if common := mine.keys() & theirs.keys():
            differences.append(fmean(mine[seed] - theirs[seed] for seed in sorted(common)))
            counts.append(len(common))
    if not differences:
        return None
    mean, pairs = fmean(differences), len(differences)
    trainings = (min(counts), max(counts))
    if pairs == 1:
        return Difference(mean, None, None, 1, trainings)
    from scipy.special import stdtrit  # a tenth of the time that importing scipy.stats takes

    reach = float(stdtrit(pairs - 1, (1 + LEVEL) / 2)) * stdev(differences) / math.sqrt(pairs)
    return Difference(mean, mean - reach, mean + reach, pairs, trainings)


def by_seed(entries: Iterable[tuple[int | None, int, float]]) -> dict[int | None, dict[int, float]]:
    """(distill_seed, seed, value) -> nested mappings."""
    values: dict[int | None, dict[int, float]] = {}
    for distill_seed, seed, value in entries:
        values.setdefault(distill_seed, {})[seed] = value
    return values


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural if number != 1 else plural.removesuffix('s')}"
