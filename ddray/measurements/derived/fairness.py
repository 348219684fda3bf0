"""Which classes lose more than others: class accuracies a_c against those of the full-data models, a_c*.

a_c* is the mean over the training seeds of ``full`` in the same block; its order ranks the classes once for all points.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ddray.measurements.derived.notes import Noted, Row, grouped, no_p, unequal
from ddray.measurements.statistics import Floats, Integers, adjusted, cv, log_slope, permutation_p, spearman
from ddray.plan.keys import digest

_Tested = tuple[Noted, int, int, float | None, Row]
"""A cell's first point, classes, sets, p, and the flag of a p that is missing."""


def fairness(points: Sequence[Noted]) -> None:
    """Retention, amplification and hardness of every point, and the test of hardness once per method and ipc."""
    tested: list[_Tested] = []
    for members in grouped(points, lambda point: point.block).values():
        full = [point for point in members if point.method == "full" and len(point.class_accuracies)]
        others = [point for point in members if point.method != "full" and len(point.class_accuracies)]
        if full and others:
            reference = _classes(full)
            _against(others, reference, [point.steps for point in full])
            tested += _cells(others, reference)
    corrected = adjusted([p for *_, p, _ in tested])
    for (point, classes, sets, p, flag), q in zip(tested, corrected, strict=True):
        for metric, value in (("fair_hardness_p", p), ("fair_hardness_p_adjusted", q)):
            point.add("fairness", metric, value, "p", classes, agg="mean_seeds", n_agg=sets, **flag)


def of_mean(points: Sequence[Noted]) -> None:
    """Variances over classes of what several trainings of one set average to: less of their noise than in the mean of
    their variances. One row per set, on its first point."""
    for members in grouped(points, lambda point: (point.block, point.made)).values():
        if len(members) < 2 or not len(members[0].class_accuracies):
            continue
        first = min(members, key=lambda point: point.order)
        losses = np.array([point.class_losses for point in members])
        for metric, values, unit in (
            ("fair_var_acc_of_mean", _classes(members), "fraction^2"),
            ("fair_var_loss_of_mean", losses, "nat^2"),
        ):
            value = float(values.mean(axis=0).var())
            first.add("fairness", metric, value, unit, first.images, agg="mean_seeds", n_agg=len(members), split="test")


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
    found = []
    for order, scale in zip(parts, reversed(parts), strict=True):
        if (scale <= 0).any():
            return np.full(len(accuracies), np.nan)
        found.append(spearman(np.broadcast_to(order, accuracies.shape), accuracies / scale))
    return np.asarray(np.mean(found, axis=0))


def _classes(points: Sequence[Noted]) -> Floats:
    return np.array([point.class_accuracies for point in points])


def _against(points: Sequence[Noted], reference: Floats, full_steps: Sequence[float]) -> None:
    accuracies, star = _classes(points), reference.mean(axis=0)
    classes = len(star)
    rank = np.empty(classes, dtype=np.int64)
    rank[np.argsort(-star, kind="stable")] = np.arange(1, classes + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        retention = np.where(star > 0, accuracies / star, np.nan)
        amplification = cv(accuracies) / cv(reference).mean()  # of single models on both sides
    amplification = np.where(np.isfinite(amplification), amplification, np.nan)
    known = np.isfinite(star) & (star > 0)
    lowest = retention[:, known].min(axis=1) if known.any() else np.full(len(points), np.nan)
    scatter = retention[:, known].std(axis=1) if known.any() else np.full(len(points), np.nan)
    overall = (
        ("fair_retention_min", lowest),
        ("fair_retention_std", scatter),
        ("fair_amplification", amplification),
        ("fair_hardness_rho", hardness(reference, accuracies)),
        ("fair_hardness_slope", log_slope(star, accuracies)),
    )
    ranks, used, models = rank.tolist(), int(known.sum()), len(reference)
    for index, point in enumerate(points):
        flag = unequal(point.steps, *full_steps)
        for position, value in enumerate(retention[index].tolist()):
            point.add(
                "fairness",
                "fair_retention_c",
                value,
                "ratio",
                point.class_images[position],
                n_agg=models,
                split="test",
                class_id=position,
                class_rank=ranks[position],
                **(flag if value == value else {}),
            )
        for metric, values in overall:
            value = float(values[index])
            point.add(
                "fairness", metric, value, "ratio", used, n_agg=models, split="test", **(flag if value == value else {})
            )


def _cells(points: Sequence[Noted], reference: Floats) -> list[_Tested]:
    """Hardness of what the seeds of a method average to, and its p: classes exchange their a_c, not their ratios.

    The null hypothesis is that a_c has nothing to do with a_c*. It says that the methods' classes are hard in an order
    of their own; that hard classes lose *more* is a slope above 1, not a small p.
    """
    found: list[_Tested] = []
    for members in grouped(points, lambda point: point.cell).values():
        first = min(members, key=lambda point: point.order)
        # Each set counts once, by the mean over its trainings.
        sets = [_classes(trainings).mean(axis=0) for trainings in grouped(members, lambda each: each.made).values()]
        mean = np.mean(sets, axis=0)
        rho = float(hardness(reference, mean[None])[0])
        first.add(
            "fairness",
            "fair_hardness_rho_of_mean",
            rho,
            "ratio",
            len(mean),
            agg="mean_seeds",
            n_agg=len(sets),
            split="test",
        )
        p = None
        if rho == rho:
            seed = int(digest(["hardness", len(mean)])[:16], 16)
            p = permutation_p(partial(_permuted, reference, mean), len(mean), seed)
        found.append((first, len(mean), len(sets), p, no_p(rho, p)))
    return found


def _permuted(reference: Floats, mean: Floats, orders: Integers) -> Floats:
    return hardness(reference, mean[orders])
