"""Receiver operating characteristics of membership scores: numbers of one target, each with an interval about images.

Legend: m members, n non-members, k = m + n. "Positive" is a score at or above the threshold. Ties count half in the
AUC. S_i: the share of non-members above member i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import stats

from trainables.evaluate.intervals import CI_LEVEL, Booleans, Floats, Integers
from trainables.evaluate.paired import STABLE, placements

Interval = tuple[float, float]

Z = float(stats.norm.ppf((1 + CI_LEVEL) / 2))
TAILS = ((1 - CI_LEVEL) / 2, (1 + CI_LEVEL) / 2)


class Estimate(NamedTuple):
    """A number of one target."""

    value: float
    influence: Floats | None
    """(k,) what each image adds to its error: the squares sum to its variance about images. None: not known."""
    interval: Interval | None
    """Of the same target on other images; None: there is none that would hold."""
    method: str
    """Of the interval."""
    reason: str | None = None
    """Why there is no interval, where that is not plain."""


@dataclass(frozen=True)
class Curve:
    """Scores of one target, and how many positives there are at each threshold."""

    values: Floats
    """(k,)."""
    member: Booleans
    """(k,)."""

    @cached_property
    def thresholds(self) -> Floats:
        """(G + 1,) from above all scores through every distinct one, descending."""
        return np.concatenate([[math.inf], np.unique(self.values)[::-1]])

    @cached_property
    def true(self) -> Integers:
        """(G + 1,) members at or above each threshold."""
        return self._positives(self.member)

    @cached_property
    def false(self) -> Integers:
        """(G + 1,) non-members."""
        return self._positives(~self.member)

    def _positives(self, side: Booleans) -> Integers:
        ordered = np.sort(self.values[side])
        return np.asarray(len(ordered) - np.searchsorted(ordered, self.thresholds), dtype=np.int64)

    def last(self, false_positives: int) -> int:
        """Position of the lowest threshold with at most so many false positives."""
        return int(np.searchsorted(self.false, false_positives, side="right")) - 1

    def recall(self, false_positives: int) -> float:
        """TPR at that threshold: conservative, nothing is interpolated."""
        return float(self.true[self.last(false_positives)] / self.true[-1])


# --- numbers ----------------------------------------------------------------------------------------------------------


def auc(values: Floats, member: Booleans) -> float:
    """AUC of scores (k,), from ranks: P(member above non-member) + half of P(tie)."""
    m, n = int(member.sum()), int((~member).sum())
    ranks = stats.rankdata(values)
    return float((ranks[member].sum() - m * (m + 1) / 2) / (m * n))


def auc_estimate(values: Floats, member: Booleans) -> Estimate:
    """AUC of scores (k,).

    The interval is of the AUC on the distributions of members and of others, for this one target; sampling of either
    side alone. DeLong's variance (DeLong et al. 1988) from ``placements``. Where the AUC is 0 or 1 that variance is 0
    and says nothing; the interval then ends at 1 - p or p with p = 0.05 ** (1 / min(m, n)), the bound of Clopper and
    Pearson for as many successes without a failure (method ``exact``). None where one side has fewer than two images or
    all scores tie.
    """
    m, n = int(member.sum()), int((~member).sum())
    placed = placements(values, member)
    value = float(placed[member].mean())
    if value in (0.0, 1.0):
        bound = float((1 - CI_LEVEL) ** (1 / min(m, n)))
        return Estimate(value, np.zeros(m + n), (bound, 1.0) if value == 1.0 else (0.0, 1 - bound), "exact")
    if min(m, n) < 2:
        return Estimate(value, None, None, "delong")
    influence = _influence(placed - value, member)
    if values.min() == values.max():
        return Estimate(value, influence, None, "delong")
    reach = Z * math.sqrt(float((influence**2).sum()))
    return Estimate(value, influence, (max(0.0, value - reach), min(1.0, value + reach)), "delong")


def class_mean_estimate(values: Floats, member: Booleans, labels: Integers) -> Estimate:
    """Mean of the AUCs of classes (k,), each ranked apart; 1/2 where no class has both sides."""
    areas, influence, fewest = [], np.zeros(len(values)), math.inf
    for label in np.unique(labels):
        own = labels == label
        if not member[own].any() or member[own].all():
            continue
        of_class = auc_estimate(values[own], member[own])
        areas.append(of_class.value)
        fewest = min(fewest, member[own].sum(), (~member[own]).sum())
        if of_class.influence is not None:
            influence[own] = of_class.influence
    if not areas:
        return Estimate(0.5, None, None, "delong", "no class has members and others")
    value = float(np.mean(areas))
    if fewest < 2:
        return Estimate(value, None, None, "delong", "a class has fewer than two members or others")
    influence /= len(areas)
    reach = Z * math.sqrt(float((influence**2).sum()))
    limits = (max(0.0, value - reach), min(1.0, value + reach)) if reach > 0 else None
    return Estimate(value, influence, limits, "delong")


def recall_estimate(curve: Curve, fpr: float, non_members: int | None = None) -> Estimate:
    """TPR at the lowest threshold whose FPR is at most ``fpr``.

    The interval is of the TPR at the threshold that ``fpr`` of the distribution of non-members exceed; of sampling of
    members and of the non-members that the threshold comes from. How many of n non-members exceed the true threshold is
    binomial, whatever their distribution, so it lies between two of them with 95 %: TPRs there are the part of the
    threshold. That of the members is Wilson's at the threshold that was found. Both are independent and their distances
    from the value are added as squares (Zou & Donner 2008).

    Args:
        curve: Of the scores.
        fpr: False positive rate.
        non_members: Distinct ones; left out: all are.
    """
    m, n = int(curve.true[-1]), int(curve.false[-1])
    expected = fpr * (n if non_members is None else non_members)
    # The slack is far below one non-member and keeps n * fpr, exact in decimals, from being lost to rounding.
    at = curve.last(math.floor(n * fpr + 1e-6))
    value = float(curve.true[at] / m)
    if expected < STABLE - 1e-9:
        reason = f"fewer than {STABLE} false positives are expected, from which the threshold comes"
        return Estimate(value, None, None, "order_statistics", reason)
    fewest, most = (int(stats.binom.ppf(tail, n, fpr)) for tail in TAILS)
    below, above = curve.recall(fewest - 1), curve.recall(most)
    low, high = _wilson(int(curve.true[at]), m)
    limits = (
        max(0.0, value - math.hypot(value - low, value - below)),
        min(1.0, value + math.hypot(high - value, above - value)),
    )
    slope = (above - below) * n / (most - fewest + 1)
    hit = curve.values >= curve.thresholds[at]
    rates = np.where(curve.member, value, -float(curve.false[at] / n))
    moved = np.where(curve.member, hit, -hit.astype(np.float64)) - rates
    influence = _influence(np.where(curve.member, moved, slope * moved), curve.member) if min(m, n) > 1 else None
    return Estimate(value, influence, limits, "order_statistics")


def advantage_estimate(values: Floats, member: Booleans, threshold: float) -> Estimate:
    """TPR - FPR of scores (k,) at a threshold that was chosen without them.

    The interval is about images of both sides: Newcombe's (1998) of a difference of two shares, from Wilson's.
    """
    hit = values >= threshold
    m, n = int(member.sum()), int((~member).sum())
    true, false = int(hit[member].sum()), int(hit[~member].sum())
    value = true / m - false / n
    (true_low, true_high), (false_low, false_high) = _wilson(true, m), _wilson(false, n)
    low = value - math.hypot(true / m - true_low, false_high - false / n)
    high = value + math.hypot(true_high - true / m, false / n - false_low)
    centred = np.where(member, hit - true / m, false / n - hit)
    influence = _influence(centred, member) if min(m, n) > 1 else None
    return Estimate(value, influence, (max(-1.0, low), min(1.0, high)), "newcombe")


def greatest_advantage(curve: Curve) -> Estimate:
    """max over thresholds of TPR - FPR, and no interval: it is chosen on the very images, and above its truth."""
    value = float((curve.true / curve.true[-1] - curve.false / curve.false[-1]).max())
    return Estimate(value, None, None, "", "chosen on the target itself")


def partial_area_estimate(curve: Curve, max_fpr: float) -> Estimate:
    """Area up to ``max_fpr``, standardised so that chance is 1/2 and the best 1 (McClish 1989), as scikit-learn's
    ``roc_auc_score(max_fpr=...)``.

    The area is the mean over members of max(0, max_fpr - S_i), whence the influence of either side; the interval is
    about images, normal.
    """
    m, n, member = int(curve.true[-1]), int(curve.false[-1]), curve.member
    false, true = curve.false / n, curve.true / m
    steps, rises = np.diff(false), np.diff(true)
    taken = np.clip(max_fpr - false[:-1], 0.0, steps)
    ends = true[:-1] + rises * np.divide(taken, steps, out=np.zeros_like(steps), where=steps > 0)
    under = float((taken * (true[:-1] + ends) / 2).sum())
    least, most = max_fpr**2 / 2, max_fpr
    value = (1 + (under - least) / (most - least)) / 2
    if n * max_fpr < STABLE - 1e-9:
        reason = f"fewer than {STABLE} false positives are expected in the area"
        return Estimate(value, None, None, "normal", reason)
    above = 1 - placements(curve.values, member)[member]
    inside = np.sort(curve.values[member][above < max_fpr])
    gained = np.zeros(m + n)
    gained[member] = np.maximum(max_fpr - above, 0.0) - under
    passed = np.searchsorted(inside, curve.values[~member]) / m
    gained[~member] = passed.mean() - passed
    influence = _influence(gained, member) / (2 * (most - least)) if min(m, n) > 1 else None
    if influence is None:
        return Estimate(value, None, None, "normal")
    reach = Z * math.sqrt(float((influence**2).sum()))
    return Estimate(value, influence, (max(0.0, value - reach), min(1.0, value + reach)), "normal")


def null_reach(m: int, n: int) -> float:
    """Half the width of the 95 % band of the AUC when nothing leaks: 1.96 sqrt((m + n + 1) / (12 m n))."""
    return Z * float(np.sqrt((m + n + 1) / (12 * m * n)))


def _influence(centred: Floats, member: Booleans) -> Floats:
    """Of means over members and over others: their sampling variances, with the divisors of unbiased ones."""
    m, n = int(member.sum()), int((~member).sum())
    return np.asarray(centred / np.where(member, math.sqrt(m * (m - 1)), math.sqrt(n * (n - 1))), dtype=np.float64)


def _wilson(count: int, total: int) -> Interval:
    share, z = count / total, Z * Z / total
    middle = (share + z / 2) / (1 + z)
    reach = math.sqrt(z * (share * (1 - share) + z / 4)) / (1 + z)
    return max(0.0, middle - reach), min(1.0, middle + reach)
