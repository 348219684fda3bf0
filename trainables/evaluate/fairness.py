"""How unequally one model treats the classes. Pure functions of logits and labels, in float64.

Definition 3 of Chen et al. 2023: the fairer model has the smaller variance over classes of accuracy or of mean loss.
The paper states neither the degrees of freedom nor the unit; we take the population variance (ddof 0) of fractions and
nats. The further estimators are ours: variances without the sampling noise, scale-free indices, extremes. Where
something is chosen (a temperature, the worst class), it is chosen on one half of each class's test images and measured
on the other, both ways round: the first, third, ... image of a class in canonical order against the second, fourth, ...
a_c, l_c: accuracy and mean loss of class c; n_c its test images; K classes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from trainables.evaluate.accuracy import checked, hits, losses
from trainables.evaluate.intervals import LEAST, Floats, Row, drawn_means, drawn_shares, recentred
from trainables.evaluate.paired import halves

UNITS: dict[str, str] = {
    "fair_var_acc": "fraction^2",
    "fair_var_loss": "nat^2",
    "fair_var_acc_corr": "fraction^2",
    "fair_var_loss_corr": "nat^2",
    "fair_var_loss_rescaled": "nat^2",
    "fair_var_loss_rescaled_corr": "nat^2",
    "temperature": "1",
    "fair_std_acc": "fraction",
    "fair_cv_acc": "ratio",
    "fair_worst_acc": "fraction",
    "fair_worst_acc_split": "fraction",
    "fair_worst10pct_acc": "fraction",
    "fair_gap_acc": "fraction",
    "fair_gini_acc": "ratio",
    "fair_jain": "ratio",
}
_OF_ZEROS = ("fair_cv_acc", "fair_gini_acc", "fair_jain")
"""Undefined when every accuracy is 0."""


def fairness_rows(logits: Any, labels: Any, num_classes: int, split: str = "test") -> list[Row]:
    """Every estimator that needs one model alone.

    Values that the data cannot give are None with ``flag``: ``low_resolution`` when a class has a single image,
    ``degenerate`` when every accuracy is 0. Small accuracies alone make most of them look fair: compare models at
    equal accuracy.

    Intervals are about the images of the split within their classes, for this one model (``intervals.py``): of
    the ``_corr`` metrics about the value itself, of the others about their expectation on as many images, which noise
    moves. ``temperature`` has none, and the rescaled losses take it as given. With fewer than 20 images in a class, or
    where draws do not vary, there is none.

    Args:
        logits: (n, K).
        labels: (n,) positions in [0, K), each at least once.
        num_classes: K.
        split: Value of the column.

    Raises:
        ValueError: As for ``accuracy_rows``.
    """
    logits, labels = checked(logits, labels, num_classes)
    first = halves_of(labels, num_classes)
    calibrated, temperature = rescaled_losses(logits, labels, first)
    kinds = [losses(logits, labels)] + ([] if calibrated is None else [calibrated])
    of_class = [labels == index for index in range(num_classes)]
    correct = hits(logits, labels).astype(np.float64)
    groups = [np.column_stack([each[members] for each in kinds]) for members in of_class]
    counts = np.bincount(labels, minlength=num_classes)
    estimated = estimates(observed_means(correct, groups, labels, first, counts))
    draws = estimates(drawn_from(correct, groups, labels, first, counts)) if counts.min() >= LEAST else {}
    rows: list[Row] = []
    for metric, unit in UNITS.items():
        value = temperature if metric == "temperature" else _number(estimated.get(metric))
        row: Row = {"property": "fairness", "metric": metric, "value": value, "unit": unit, "n": len(labels)}
        row["split"] = split
        if value is None:
            row["flag"] = "degenerate" if metric in _OF_ZEROS else "low_resolution"
        elif metric in draws:
            row |= recentred(value, draws[metric], *_bounds(metric))
        rows.append(row)
    return rows


def _bounds(metric: str) -> tuple[float, float]:
    share = UNITS[metric] == "fraction" or metric in ("fair_gini_acc", "fair_jain")
    return -math.inf if metric.endswith("_corr") else 0.0, 1.0 if share else math.inf


def _number(value: Floats | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


class Means(NamedTuple):
    """What the estimators start from, of the images or of draws of them: leading axes as there are, K last."""

    accuracies: Floats
    accuracy_noise: Floats
    """Sampling variance of each accuracy: a (1 - a) / (n_c - 1)."""
    losses: Floats
    """(..., K, 1 or 2): as they are and, where there are halves, rescaled."""
    loss_noise: Floats
    halves: tuple[Floats, Floats] | None
    """Accuracies of either half."""


def observed_means(correct: Floats, groups: list[Floats], labels: Any, first: Any, counts: Any) -> Means:
    """Of the images as they are.

    Args:
        correct: (n,) 0 or 1.
        groups: By class, losses (n_c, 1 or 2).
        labels: (n,).
        first: Of ``halves_of``.
        counts: (K,) n_c.
    """
    accuracies = by_class(correct, labels, len(counts))
    sides = None
    if first is not None:
        one, other = (by_class(correct[side], labels[side], len(counts)) for side in (first, ~first))
        sides = (one, other)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a single image the noise cannot be known
        return Means(
            accuracies,
            accuracies * (1 - accuracies) / (counts - 1),
            np.stack([group.mean(axis=0) for group in groups]),
            np.stack([group.var(axis=0) / (len(group) - 1) for group in groups]),
            sides,
        )


def drawn_from(correct: Floats, groups: list[Floats], labels: Any, first: Any, counts: Any) -> Means:
    """Of draws of the images, the same for every model; arguments as for ``observed_means``, with halves."""
    accuracies = drawn_shares(by_class(correct, labels, len(counts)), counts, "accuracies")
    sides = []
    for name, side in (("first", first), ("second", ~first)):
        shares = by_class(correct[side], labels[side], len(counts))
        sides.append(drawn_shares(shares, np.bincount(labels[side]), name))
    means, noises = drawn_means(groups, "losses")
    noise = accuracies * (1 - accuracies) / (counts - 1)
    return Means(accuracies, noise, means, noises, (sides[0], sides[1]))


def estimates(means: Means) -> dict[str, Floats]:
    """Every estimator by name (...,); NaN where it is undefined. Those that need halves are absent without."""
    accuracies = means.accuracies
    spread, mean = accuracies.std(axis=-1), accuracies.mean(axis=-1)
    by_metric = {
        "fair_var_acc": accuracies.var(axis=-1),
        "fair_std_acc": spread,
        "fair_var_acc_corr": less_noise(accuracies, means.accuracy_noise),
        "fair_cv_acc": np.divide(spread, mean, out=np.full_like(mean, np.nan), where=mean > 0),
        "fair_worst_acc": accuracies.min(axis=-1),
        "fair_worst10pct_acc": worst_tenth(accuracies),
        "fair_gap_acc": accuracies.max(axis=-1) - accuracies.min(axis=-1),
        "fair_gini_acc": gini(accuracies),
        "fair_jain": jain(accuracies),
    }
    for index, name in enumerate(("fair_var_loss", "fair_var_loss_rescaled")[: means.losses.shape[-1]]):
        by_metric[name] = means.losses[..., index].var(axis=-1)
        by_metric[f"{name}_corr"] = less_noise(means.losses[..., index], means.loss_noise[..., index])
    if means.halves is not None:
        by_metric["fair_worst_acc_split"] = worst_elsewhere(*means.halves)
    return by_metric


def less_noise(means: Floats, noise: Floats) -> Floats:
    """Variance over classes of class means (..., K), less what the sampling of test images adds on average.

    var_c(m_c) - ((K - 1) / K) mean_c(noise_c), with noise_c the sampling variance of m_c: of accuracies
    a_c (1 - a_c) / (n_c - 1), of losses s_c^2 / n_c. Unbiased, hence negative now and then; only tables floor it at 0.
    """
    count = means.shape[-1]
    return np.asarray(means.var(axis=-1) - (count - 1) / count * noise.mean(axis=-1), dtype=np.float64)


def by_class(values: Floats, labels: Any, num_classes: int) -> Floats:
    """Mean of ``values`` (n,) over the images of each class (K,)."""
    sums = np.bincount(labels, weights=values, minlength=num_classes)
    means: Floats = sums / np.bincount(labels, minlength=num_classes)
    return means


def halves_of(labels: Any, num_classes: int) -> NDArray[np.bool_] | None:
    """Which images (n,) are in the first half: every other one of each class. None when a class has a single image."""
    return halves(labels) if np.bincount(labels, minlength=num_classes).min() >= 2 else None


def rescaled_losses(logits: Floats, labels: Any, first: NDArray[np.bool_] | None) -> tuple[Floats | None, float | None]:
    """Losses (n,) in nats after temperature scaling (Guo et al., ICML 2017), and the temperature.

    Mean losses of overconfident networks are made by a few images; the temperature, which changes no prediction, takes
    that away. Each half's is the one that is best for the other half; what is returned is their geometric mean.

    Args:
        logits: (n, K).
        labels: (n,).
        first: Of ``halves_of``; None gives (None, None).
    """
    if first is None:
        return None, None
    rescaled = np.empty(len(labels))
    logs = []
    for fitted, measured in ((first, ~first), (~first, first)):
        logs.append(_best_log_temperature(logits[fitted], labels[fitted]))
        rescaled[measured] = losses(logits[measured] / math.exp(logs[-1]), labels[measured])
    return rescaled, math.exp(sum(logs) / 2)


def _best_log_temperature(logits: Floats, labels: Any) -> float:
    def loss(log: float) -> float:
        return float(losses(logits / math.exp(log), labels).mean())

    # Convex in 1/T, hence with one minimum in log T; between 1/150 and 150.
    best: float = optimize.minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x
    return best


def worst_elsewhere(one: Floats, other: Floats) -> Floats:
    """Accuracy of the worst class, which unlike the smallest accuracy noise does not lower: the class is the worst of
    one half, its accuracy that of the other, both ways round.

    Args:
        one: (..., K) accuracies on the first half of each class's images.
        other: (..., K) on the second.
    """
    ways = [
        np.take_along_axis(measured, chosen.argmin(axis=-1)[..., None], axis=-1)[..., 0]
        for chosen, measured in ((one, other), (other, one))
    ]
    return np.asarray((ways[0] + ways[1]) / 2, dtype=np.float64)


def worst_tenth(accuracies: Floats) -> Floats:
    """Mean of the lowest tenth of the accuracies (..., K), rounded up to whole classes."""
    count = math.ceil(accuracies.shape[-1] / 10)
    return np.asarray(np.sort(accuracies, axis=-1)[..., :count].mean(axis=-1), dtype=np.float64)


def gini(accuracies: Floats) -> Floats:
    """Gini index in [0, 1) of (..., K): half the mean absolute difference over the mean; NaN when all are 0."""
    ascending, count = np.sort(accuracies, axis=-1), accuracies.shape[-1]
    total = np.asarray(ascending.sum(axis=-1))
    weighted = (ascending * (2 * np.arange(1, count + 1) - count - 1)).sum(axis=-1)
    index: Floats = np.divide(weighted, count * total, out=np.full_like(total, np.nan), where=total > 0)
    return index


def jain(accuracies: Floats) -> Floats:
    """Jain's index in [1/K, 1] of (..., K): (sum a)^2 / (K sum a^2), 1 when all are equal; NaN when all are 0."""
    squares = np.asarray((accuracies**2).sum(axis=-1))
    total = accuracies.sum(axis=-1) ** 2
    count = accuracies.shape[-1]
    index: Floats = np.divide(total, count * squares, out=np.full_like(squares, np.nan), where=squares > 0)
    return index
