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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from trainables.evaluate.accuracy import Floats, Row, checked, hits, losses
from trainables.evaluate.halves import halves


def fairness_rows(logits: Any, labels: Any, num_classes: int, split: str = "test") -> list[Row]:
    """Every estimator that needs one model alone.

    Values that the data cannot give are None with ``flag``: ``low_resolution`` when a class has a single image,
    ``degenerate`` when every accuracy is 0. Small accuracies alone make most of them look fair: compare models at
    equal accuracy.

    Args:
        logits: (n, K).
        labels: (n,) positions in [0, K), each at least once.
        num_classes: K.
        split: Value of the column.

    Raises:
        ValueError: As for ``accuracy_rows``.
    """
    logits, labels = checked(logits, labels, num_classes)
    correct, loss = hits(logits, labels).astype(np.float64), losses(logits, labels)
    accuracies = by_class(correct, labels, num_classes)
    mean_losses = by_class(loss, labels, num_classes)
    first = halves_of(labels, num_classes)
    calibrated, temperature = rescaled_losses(logits, labels, first)
    values: list[tuple[str, float | None, str]] = [
        ("fair_var_acc", float(accuracies.var()), "fraction^2"),
        ("fair_var_loss", float(mean_losses.var()), "nat^2"),
        ("fair_var_acc_corr", corrected_variance(correct, labels, num_classes), "fraction^2"),
        ("fair_var_loss_corr", corrected_variance(loss, labels, num_classes), "nat^2"),
        ("fair_var_loss_rescaled", None if calibrated is None else between(calibrated, labels, num_classes), "nat^2"),
        ("fair_var_loss_rescaled_corr", corrected_variance(calibrated, labels, num_classes), "nat^2"),
        ("temperature", temperature, "1"),
        ("fair_std_acc", float(accuracies.std()), "fraction"),
        ("fair_cv_acc", coefficient_of_variation(accuracies), "ratio"),
        ("fair_worst_acc", float(accuracies.min()), "fraction"),
        ("fair_worst_acc_split", worst_elsewhere(correct, labels, first, num_classes), "fraction"),
        ("fair_worst10pct_acc", worst_tenth(accuracies), "fraction"),
        ("fair_gap_acc", float(accuracies.max() - accuracies.min()), "fraction"),
        ("fair_gini_acc", gini(accuracies), "ratio"),
        ("fair_jain", jain(accuracies), "ratio"),
    ]
    rows: list[Row] = []
    for metric, value, unit in values:
        row: Row = {"property": "fairness", "metric": metric, "value": value, "unit": unit, "n": len(labels)}
        row["split"] = split
        if value is None:
            row["flag"] = "degenerate" if metric in ("fair_cv_acc", "fair_gini_acc", "fair_jain") else "low_resolution"
        rows.append(row)
    return rows


def by_class(values: Floats, labels: Any, num_classes: int) -> Floats:
    """Mean of ``values`` (n,) over the images of each class (K,)."""
    sums = np.bincount(labels, weights=values, minlength=num_classes)
    means: Floats = sums / np.bincount(labels, minlength=num_classes)
    return means


def between(values: Floats, labels: Any, num_classes: int) -> float:
    """Population variance over classes of the class means."""
    return float(by_class(values, labels, num_classes).var())


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
    found = np.empty(len(labels))
    logs = []
    for fitted, measured in ((first, ~first), (~first, first)):
        logs.append(_best_log_temperature(logits[fitted], labels[fitted]))
        found[measured] = losses(logits[measured] / math.exp(logs[-1]), labels[measured])
    return found, math.exp(sum(logs) / 2)


def _best_log_temperature(logits: Floats, labels: Any) -> float:
    def loss(log: float) -> float:
        return float(losses(logits / math.exp(log), labels).mean())

    # Convex in 1/T, hence with one minimum in log T; between 1/150 and 150.
    found: float = optimize.minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x
    return found


def worst_elsewhere(correct: Floats, labels: Any, first: NDArray[np.bool_] | None, num_classes: int) -> float | None:
    """Accuracy of the worst class, which unlike the smallest accuracy noise does not lower: the class is the worst of
    one half, its accuracy that of the other, both ways round. None without halves."""
    if first is None:
        return None
    found = []
    for chosen, measured in ((first, ~first), (~first, first)):
        worst = int(by_class(correct[chosen], labels[chosen], num_classes).argmin())
        found.append(by_class(correct[measured], labels[measured], num_classes)[worst])
    return float(np.mean(found))


def corrected_variance(values: Floats | None, labels: Any, num_classes: int) -> float | None:
    """Variance over classes of the class means, less what the sampling of test images adds on average.

    var_c(m_c) - ((K - 1) / K) mean_c(s_c^2 / n_c), with s_c^2 the unbiased variance within class c. For accuracies
    s_c^2 / n_c = a_c (1 - a_c) / (n_c - 1). Unbiased, hence negative now and then; only tables floor it at 0.

    Returns:
        None when a class has fewer than two images, or there are no values.
    """
    if values is None:
        return None
    members = [values[labels == index] for index in range(num_classes)]
    if min(map(len, members)) < 2:
        return None
    noise = float(np.mean([group.var(ddof=1) / len(group) for group in members]))
    observed = float(np.var([group.mean() for group in members]))
    return observed - (num_classes - 1) / num_classes * noise


def coefficient_of_variation(accuracies: Floats) -> float | None:
    """Standard deviation over mean; None when the mean is 0."""
    mean = float(accuracies.mean())
    return float(accuracies.std()) / mean if mean > 0 else None


def worst_tenth(accuracies: Floats) -> float:
    """Mean of the lowest tenth of the accuracies, rounded up to whole classes."""
    count = math.ceil(len(accuracies) / 10)
    return float(np.sort(accuracies)[:count].mean())


def gini(accuracies: Floats) -> float | None:
    """Gini index in [0, 1): half the mean absolute difference over the mean; None when all are 0."""
    ascending, count = np.sort(accuracies), len(accuracies)
    total = float(ascending.sum())
    if total == 0:
        return None
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float((weights * ascending).sum()) / (count * total)


def jain(accuracies: Floats) -> float | None:
    """Jain's index in [1/K, 1]: (sum a)^2 / (K sum a^2), 1 when all are equal; None when all are 0."""
    squares = float((accuracies**2).sum())
    return float(accuracies.sum()) ** 2 / (len(accuracies) * squares) if squares > 0 else None
