"""Which classes lose more than others: class accuracies a_c against those of the full-data models, a_c*.

a_c* is the mean over the training seeds of ``full`` in the same block; its order ranks the classes once for all points.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, no_p, unequal
from ddray.measurements.metrics import records
from ddray.measurements.statistics import Floats, Integers, adjusted, cv, log_slope, permutation_p, spearman
from ddray.plan.keys import digest

_Tested = tuple[PointRecord, int, int, float | None, Row]
"""A cell's first point, classes, sets, p, and the flag of a p that is missing."""

_METRICS = records(
    "fairness",
    "retention",
    ("fair_retention_c", "ratio", "higher", "a_c / a_c*, with `class_rank` by a_c* (1: best)"),
    ("fair_retention_min", "ratio", "higher", "smallest of it over classes (those with a_c* > 0: `n`)"),
    ("fair_retention_std", "ratio", "lower", "standard deviation of it over the same classes"),
    (
        "fair_amplification",
        "ratio",
        "lower",
        "CV(a) over the mean CV of the single full-data models; above 1: more unequal than the full data",
    ),
    (
        "fair_hardness_rho",
        "ratio",
        "lower",
        "Spearman correlation of a_c* and retention; above 0: hard classes lose more. a_c* of the two sides from "
        "different full-data models; with one alone (`n_agg` 1) its noise lowers the value",
    ),
    ("fair_hardness_slope", "ratio", "lower", "slope of log a_c on log a_c*; above 1: hard classes lose more"),
    (
        "fair_hardness_rho_of_mean",
        "ratio",
        "lower",
        "`fair_hardness_rho` of the class accuracies averaged over all seeds of a method",
    ),
    (
        "fair_hardness_p",
        "p",
        "",
        "its two-sided permutation p (the a_c change places). It asks whether a_c has anything to do with a_c*, not "
        "whether hard classes lose *more*",
    ),
    ("fair_hardness_p_adjusted", "p", "", "that p adjusted over all methods of the sweep (Benjamini-Hochberg)"),
    mirrored=(),
)
(
    RETENTION,
    RETENTION_MIN,
    RETENTION_STD,
    AMPLIFICATION,
    HARDNESS_RHO,
    HARDNESS_SLOPE,
    HARDNESS_RHO_OF_MEAN,
    HARDNESS_P,
    HARDNESS_P_ADJUSTED,
) = _METRICS


def retention(points: Sequence[PointRecord]) -> None:
    """Retention, amplification and hardness of every point, and the test of hardness once per method and ipc."""
    tested: list[_Tested] = []
    for members in grouped(points, lambda point: point.comparable).values():
        full = [point for point in members if point.method == "full" and len(point.class_accuracies)]
        others = [point for point in members if point.method != "full" and len(point.class_accuracies)]
        if full and others:
            reference = _classes(full)
            _against(others, reference, [point.steps for point in full])
            tested += _cells(others, reference)
    corrected = adjusted([p for *_, p, _ in tested])
    for (point, classes, sets, p, flag), q in zip(tested, corrected, strict=True):
        for metric, value in ((HARDNESS_P, p), (HARDNESS_P_ADJUSTED, q)):
            point.add(metric, value, classes, agg="mean_seeds", n_agg=sets, **flag)


def hardness(reference: Floats, accuracies: Floats) -> Floats:
    """Spearman correlation (P,) of a_c* with the retention a_c / a_c*: above 0 where hard classes lose more.

    a_c* stands on both sides, so its noise alone makes the correlation negative. With several full-data models one half
    of them therefore gives the one side and the other half the other, both ways round, averaged; with a single one
    (``n_agg`` 1) the coupling stays. All models are measured on the same test images: that noise stays too.

    Args:
        reference: (S, K) of the full-data models.
        accuracies: (P, K).

    Returns:
        NaN where a class of a reference has no accuracy.
    """
    parts = [reference[::2].mean(axis=0), reference[1::2].mean(axis=0)] if len(reference) > 1 else [reference[0]]
    correlations = []
    for order, scale in zip(parts, reversed(parts), strict=True):
        if (scale <= 0).any():
            return np.full(len(accuracies), np.nan)
        correlations.append(spearman(np.broadcast_to(order, accuracies.shape), accuracies / scale))
    return np.asarray(np.mean(correlations, axis=0))


def _classes(points: Sequence[PointRecord]) -> Floats:
    return np.array([point.class_accuracies for point in points])


def _against(points: Sequence[PointRecord], reference: Floats, full_steps: Sequence[float]) -> None:
    accuracies, star = _classes(points), reference.mean(axis=0)
    classes = len(star)
    rank = np.empty(classes, dtype=np.int64)
    rank[np.argsort(-star, kind="stable")] = np.arange(1, classes + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = np.where(star > 0, accuracies / star, np.nan)
        amplification = cv(accuracies) / cv(reference).mean()  # of single models on both sides
    amplification = np.where(np.isfinite(amplification), amplification, np.nan)
    known = np.isfinite(star) & (star > 0)
    lowest = kept[:, known].min(axis=1) if known.any() else np.full(len(points), np.nan)
    scatter = kept[:, known].std(axis=1) if known.any() else np.full(len(points), np.nan)
    overall = (
        (RETENTION_MIN, lowest),
        (RETENTION_STD, scatter),
        (AMPLIFICATION, amplification),
        (HARDNESS_RHO, hardness(reference, accuracies)),
        (HARDNESS_SLOPE, log_slope(star, accuracies)),
    )
    ranks, used, models = rank.tolist(), int(known.sum()), len(reference)
    for index, point in enumerate(points):
        flag = unequal(point.steps, *full_steps)
        for position, value in enumerate(kept[index].tolist()):
            point.add(
                RETENTION,
                value,
                point.class_images[position],
                n_agg=models,
                split="test",
                class_id=position,
                class_rank=ranks[position],
                **(flag if value == value else {}),
            )
        for metric, values in overall:
            value = float(values[index])
            point.add(metric, value, used, n_agg=models, split="test", **(flag if value == value else {}))


def _cells(points: Sequence[PointRecord], reference: Floats) -> list[_Tested]:
    """Hardness of what the seeds of a method average to, and its p: classes exchange their a_c, not their ratios.

    The null hypothesis is that a_c has nothing to do with a_c*. It says that the methods' classes are hard in an order
    of their own; that hard classes lose *more* is a slope above 1, not a small p.
    """
    tested: list[_Tested] = []
    for members in grouped(points, lambda point: point.cell).values():
        first = min(members, key=lambda point: point.order)
        # Each set counts once, by the mean over its trainings.
        sets = [_classes(trainings).mean(axis=0) for trainings in grouped(members, lambda each: each.set_key).values()]
        mean = np.mean(sets, axis=0)
        rho = float(hardness(reference, mean[None])[0])
        first.add(
            HARDNESS_RHO_OF_MEAN,
            rho,
            len(mean),
            agg="mean_seeds",
            n_agg=len(sets),
            split="test",
        )
        p = None
        if rho == rho:
            seed = int(digest(["hardness", len(mean)])[:16], 16)
            p = permutation_p(partial(_permuted, reference, mean), len(mean), seed)
        tested.append((first, len(mean), len(sets), p, no_p(rho, p)))
    return tested


def _permuted(reference: Floats, mean: Floats, orders: Integers) -> Floats:
    return hardness(reference, mean[orders])


DERIVATION = Derivation(_METRICS, ("accuracy",), lambda points, store: retention(points))
