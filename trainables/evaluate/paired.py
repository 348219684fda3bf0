"""Two models on the same images: differences of accuracy, robustness and membership AUC; halves of a test split.

No torch, and SciPy on use alone, for tables read this. Arrays have one column per image; rows of a curve are epsilons,
the first of them 0. Images are the same and in the same order in both: ``shared`` finds them. Accuracies and AUCs are
fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.evaluate.student import error_over_targets

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]

FLOOR = 0.02
"""Below this accuracy two models are both broken, and an order between them says nothing."""
QUANTILES = {"median": 0.5, "q10": 0.1}


class Difference(NamedTuple):
    """A difference of two accuracies on the same images."""

    value: float
    """First minus second."""
    ci_low: float
    ci_high: float
    n: int
    """Images."""
    p_value: float | None
    """Exact McNemar test, two-sided; None where the inputs are means over several models."""
    method: str
    """Of the interval: ``bonett-price`` or ``normal``."""


def shared(ids_a: Any, ids_b: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions, in the one and in the other, of the images that both have, in the same order.

    Args:
        ids_a: (n,) image numbers, each once.
        ids_b: (m,) likewise.
    """
    _, in_a, in_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
    return in_a.astype(np.int64), in_b.astype(np.int64)


def robust_curve(correct: Any, success: Any) -> Booleans:
    """Whether each image is still classified correctly (E + 1, n): as it is, then within each budget.

    An adversarial image within a budget lies within every larger one, hence the cumulative OR.

    Args:
        correct: (n,) bool, as it is.
        success: (E, n) bool, whether an adversarial image was found; epsilons ascending.
    """
    correct, success = np.asarray(correct, dtype=bool), np.asarray(success, dtype=bool)
    broken = np.logical_or.accumulate(np.vstack([~correct[None], success]), axis=0)
    return np.asarray(~broken)


def paired_difference(right_a: Any, right_b: Any, level: float = 0.95) -> Difference:
    """Accuracy of the one less that of the other, on the same images.

    The interval is of the difference on the distribution of the images, for these models; sampling of images alone. Of
    two models: Bonett and Price's adjusted Wald interval for paired proportions (JEBS 2012), which keeps its level with
    few discordant images, where percentiles of a bootstrap do not. Of means over several models: the normal interval of
    the mean difference.

    Args:
        right_a: (n,) bool, or shares of models in [0, 1].
        right_b: (n,) likewise.
        level: Of the interval.

    Raises:
        ValueError: The shapes differ, or there is no image.
    """
    a, b = np.asarray(right_a, dtype=np.float64), np.asarray(right_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(
            f"paired difference: got {a.shape} and {b.shape}; expected two equal (n,) with n >= 1. Take the images "
            "that both have."
        )
    n, value, z = len(a), float((a - b).mean()), NormalDist().inv_cdf((1 + level) / 2)
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
        up, down = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
        middle, reach = up - down, z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
        return Difference(
            value, max(-1.0, middle - reach), min(1.0, middle + reach), n, mcnemar(only_a, only_b), "bonett-price"
        )
    reach = z * float((a - b).std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), n, None, "normal")


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value of the exact McNemar test.

    Args:
        only_a: Images that the one alone has right.
        only_b: Images that the other alone has right.
    """
    total, most = only_a + only_b, max(only_a, only_b)
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(most, total + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))


def adv_delta(robust_a: Any, robust_b: Any) -> list[Difference]:
    """Difference of robust accuracy at each epsilon, the first less the second.

    Args:
        robust_a: (E + 1, n), from ``robust_curve``, or its mean over several models.
        robust_b: (E + 1, n) likewise, same epsilons and images.
    """
    return [paired_difference(a, b) for a, b in zip(np.asarray(robust_a), np.asarray(robust_b), strict=True)]


def crossover(epsilons: Sequence[float], robust_a: Any, robust_b: Any, floor: float = FLOOR) -> float | None:
    """The smallest epsilon above 0 at which the first model is the more robust one: ``eps_cross``.

    That is where the difference has an interval above 0 while both accuracies are at least ``floor``: two models that
    are both at 0 have not crossed. The intervals hold for all epsilons together (Bonferroni): the first of a dozen that
    each err in 2.5 % would be found between equal models in every fifth case.

    Args:
        epsilons: (E + 1,) ascending, the first 0.
        robust_a: (E + 1, n): see ``adv_delta``.
        robust_b: (E + 1, n).
        floor: Least accuracy of both.

    Returns:
        None where there is no such epsilon.

    Raises:
        ValueError: The lengths differ, or the first epsilon is not 0.
    """
    a, b = np.asarray(robust_a, dtype=np.float64), np.asarray(robust_b, dtype=np.float64)
    if len(epsilons) != len(a) or len(a) != len(b) or epsilons[0] != 0:
        raise ValueError(
            f"crossover: got {len(epsilons)} epsilons from {epsilons[0]}, curves of {len(a)} and {len(b)}; expected "
            "equally many, from 0. Use robust_curve."
        )
    level = 1 - 0.05 / max(1, len(epsilons) - 1)
    for epsilon, one, other in zip(epsilons[1:], a[1:], b[1:], strict=True):
        if min(one.mean(), other.mean()) >= floor and paired_difference(one, other, level).ci_low > 0:
            return float(epsilon)
    return None


def common_distances(distance_a: Any, distance_b: Any, correct_a: Any, correct_b: Any) -> dict[str, Any]:
    """Distances over the images that both models classify correctly: ``adv_dist_*_common``.

    Each model's own correct images favour the weaker one, which keeps the easy ones alone.

    Args:
        distance_a: (n,) norms, infinite where no adversarial image was found.
        distance_b: (n,) likewise.
        correct_a: (n,) bool.
        correct_b: (n,) bool.

    Returns:
        ``n``; ``median_a``, ``median_b``, ``q10_a``, ``q10_b``, ``mean_a``, ``mean_b``: None where undefined;
        ``farther_a``: share of the images whose distance is larger for the first, ties counting one half.
    """
    both = np.asarray(correct_a, dtype=bool) & np.asarray(correct_b, dtype=bool)
    a, b = np.asarray(distance_a, dtype=np.float64)[both], np.asarray(distance_b, dtype=np.float64)[both]
    summary: dict[str, Any] = {"n": int(both.sum())}
    for model, values in (("a", a), ("b", b)):
        for name, share in QUANTILES.items():
            summary[f"{name}_{model}"] = censored_quantile(values, share)
        summary[f"mean_{model}"] = float(values.mean()) if len(values) and np.isfinite(values).all() else None
    summary["farther_a"] = float(((a > b) + 0.5 * (a == b)).mean()) if len(a) else None
    return summary


def censored_quantile(values: Any, share: float) -> float | None:
    """Quantile of values of which the infinite are only known to be large; None where it lies among those.

    Args:
        values: (n,), none of them NaN.
        share: In [0, 1].
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) == 0:
        return None
    position = share * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return float(low + (position - math.floor(position)) * (high - low)) if np.isfinite(high) else None


def halves(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an image is in the first half (n,): every other image of its class, in the given order."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    first = np.empty(len(labels), dtype=bool)
    first[order] = (np.arange(len(labels)) - starts) % 2 == 0
    return first


# --- AUCs of attacks on membership: T targets, rows of one membership matrix; n images, the same for every target ---


class AucDifference(NamedTuple):
    """A difference of two mean AUCs over the same targets."""

    value: float
    """First less second."""
    ci_low: float | None
    """None, as all below, where no image tells anything (both AUCs are at their ends, or all scores tie), and of two
    targets."""
    ci_high: float | None
    p: float | None
    """Two-sided, of no difference."""


def placements(values: Floats, member: Booleans) -> Floats:
    """DeLong's placements (n,): of a member the share of non-members below it, of a non-member that of members above.

    Ties count half. The mean over members is the AUC, as is the mean over non-members (DeLong et al. 1988).

    Args:
        values: (n,) scores, higher is likelier a member.
        member: (n,) with both sides present.
    """
    from scipy.stats import rankdata  # a second and more, and most sweeps attack no memberships

    placed = np.empty(len(values))
    m, n = int(member.sum()), int((~member).sum())
    ranks = rankdata(values)
    placed[member] = (ranks[member] - rankdata(values[member])) / n
    placed[~member] = 1 - (ranks[~member] - rankdata(values[~member])) / m
    return placed


def auc_difference(first: Floats, second: Floats, member: Booleans, level: float = 0.95) -> AucDifference:
    """Difference of two models' mean AUCs over targets, with an interval that uses that the images are the same.

    Of one target: DeLong's variance of correlated AUCs, about images, for these two models. Of several: Student's, of
    other targets and images (``student.py``); of two there is none. What was measured stands in docs/metrics.md.

    Args:
        first: (T, n) ``placements`` of the one model's targets.
        second: (T, n) of the other's.
        member: (T, n), the same for both.
        level: Of the interval.

    Raises:
        ValueError: The shapes differ, or a target has fewer than two members or two others.
    """
    if first.shape != second.shape or first.shape != member.shape or first.ndim != 2 or not first.size:
        raise ValueError(
            f"AUC difference: got {first.shape}, {second.shape} and memberships {member.shape}; expected three equal "
            "(T, n). Take the images and targets that both have."
        )
    inside = member.sum(axis=1)
    fewest = int(min(inside.min(), (member.shape[1] - inside).min()))
    if fewest < 2:
        raise ValueError(f"AUC difference: got {fewest} members or others in a target; expected 2 or more of each.")
    by_image = first - second
    differences = np.array([row[own].mean() for row, own in zip(by_image, member, strict=True)])
    value = float(differences.mean())
    sizes = np.where(member, inside[:, None], member.shape[1] - inside[:, None])
    error = error_over_targets(differences, (by_image - differences[:, None]) / np.sqrt(sizes * (sizes - 1)), fewest)
    if error is None:
        return AucDifference(value, None, None, None)
    reach = error.reach(level)
    return AucDifference(value, max(-1.0, value - reach), min(1.0, value + reach), error.p(value))


STABLE = 10
"""False positives that must be expected at a rate before a TPR has an interval. With fewer the threshold, one of the
highest scores of non-members, says too little of where the rate is."""


def recall(values: Floats, member: Booleans, false_positives: int) -> float:
    """Share of the members above the lowest threshold that lets so many non-members pass: conservative, nothing is
    interpolated.

    Args:
        values: Scores (k,).
        member: (k,).
        false_positives: Less than there are non-members.
    """
    bar = np.partition(values[~member], -1 - false_positives)[-1 - false_positives]
    return float((values[member] > bar).mean())


def usable(member: Any) -> bool:
    """Whether every target (T, n) has two members and two others, as ``auc_difference`` needs."""
    inside = np.asarray(member, dtype=bool).sum(axis=1)
    return bool(len(inside) and inside.min() >= 2 and (np.shape(member)[1] - inside).min() >= 2)
