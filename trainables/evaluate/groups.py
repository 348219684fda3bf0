"""How unequally one model treats groups that its classes should not depend on. Pure functions of predictions.

TPR_gk is the share of the test images of class k and group g that are classified as k; FPR_gk the share of those of
other classes and group g that are.

    gap_k = max over g of TPR_gk - min over g;   EOD_mean, EOD_max: mean and largest of gap_k   (FairDD's code)
    equalised odds: the largest over k of both gap_k and the same gap of FPR_gk                  (fairlearn)

FairDD calls the first two equalized odds, though false positives are not in them. All rise with sampling noise: of
ten groups with a hundred test images of each class a perfectly fair model of 60 % has an EOD_mean of 15 points. So
these two stand beside their null: what they are on average, and in 95 % of cases at most, where within each class hits
fall on groups by chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.evaluate.accuracy import checked, hits
from trainables.evaluate.intervals import Booleans, Floats, Integers, Row
from trainables.seeds import derive

DRAWS = 1000
"""Of the null."""
LEVEL = 0.95


def group_rows(logits: Any, labels: Any, groups: Any, num_classes: int, num_groups: int) -> list[Row]:
    """Accuracy of the worst group, and how far groups are apart within the classes.

    A group without a test image of a class takes no part there.

    Args:
        logits: (n, K).
        labels: (n,) positions in [0, K).
        groups: (n,) in [0, G).
        num_classes: K.
        num_groups: G.

    Raises:
        ValueError: As for ``accuracy_rows``.
    """
    logits, labels = checked(logits, labels, num_classes)
    groups = np.asarray(groups, dtype=np.int64)
    predicted = np.argmax(logits, axis=1)
    counts = _table(groups, labels, num_groups, num_classes)
    hit = _table(groups, labels, num_groups, num_classes, hits(logits, labels))
    false = _table(groups, predicted, num_groups, num_classes, predicted != labels)
    others = counts.sum(1, keepdims=True) - counts
    accuracies = _shares(hit.sum(1), counts.sum(1))
    recalls = _shares(hit, counts)
    gaps = _gaps(recalls)
    values = {
        "group_worst_acc": np.nanmin(accuracies),
        "group_gap_acc": np.nanmax(accuracies) - np.nanmin(accuracies),
        "group_worst_tpr": np.nanmin(recalls),
        "group_eod_mean": np.nanmean(gaps),
        "group_eod_max": np.nanmax(gaps),
        "group_equalised_odds": max(np.nanmax(gaps), np.nanmax(_gaps(_shares(false, others)))),
    }
    drawn = _gaps(_shares(_by_chance(hit, counts), counts))
    for name, null in (("mean", np.nanmean(drawn, axis=-1)), ("max", np.nanmax(drawn, axis=-1))):
        values[f"group_eod_{name}_null"] = null.mean()
        values[f"group_eod_{name}_null_high"] = np.quantile(null, LEVEL)
    common = {"property": "fairness", "unit": "fraction", "n": len(labels), "split": "test"}
    return [{**common, "metric": metric, "value": float(value)} for metric, value in values.items()]


def _table(
    groups: Integers, classes: Integers, num_groups: int, num_classes: int, which: Booleans | None = None
) -> Any:
    """How many images (G, K) there are of each group and class."""
    weights = None if which is None else which.astype(np.float64)
    flat = np.bincount(groups * num_classes + classes, weights=weights, minlength=num_groups * num_classes)
    return flat.reshape(num_groups, num_classes).astype(np.int64)


def _shares(of: Any, counts: Any) -> Floats:
    """NaN where there is nothing."""
    shape = np.broadcast_shapes(of.shape, counts.shape)
    shares: Floats = np.divide(of, counts, out=np.full(shape, np.nan), where=counts > 0)
    return shares


def _gaps(shares: Floats) -> Floats:
    """(..., G, K) -> (..., K): largest less smallest of the groups."""
    return np.asarray(np.nanmax(shares, axis=-2) - np.nanmin(shares, axis=-2), dtype=np.float64)


def _by_chance(hit: Integers, counts: Integers) -> Integers:
    """Hits (DRAWS, G, K) where, within each class, they fall on its images of all groups alike."""
    random = np.random.default_rng(derive("groups", "null"))
    by_class = [
        random.multivariate_hypergeometric(counts[:, index], int(hit[:, index].sum()), size=DRAWS)
        for index in range(counts.shape[1])
    ]
    return np.stack(by_class, axis=-1)
