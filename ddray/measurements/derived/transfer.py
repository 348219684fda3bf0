"""One distilled set, several networks: how much of its accuracy is kept, and whether the ranking of methods is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, no_p, unequal
from ddray.measurements.metrics import records
from ddray.measurements.statistics import Floats, Integers, adjusted, kendall, permutation_p
from ddray.plan.keys import digest

REFERENCE = "convnet3"
"""The network that methods distil with; others are measured against it."""
_FEWEST = 3
"""Methods of which a ranking is worth the name."""

_METRICS = records(
    "informativeness",
    "transfer",
    ("xarch_retention", "ratio", "higher", "acc / acc(convnet3), same set and training seed"),
    (
        "xarch_mean",
        "ratio",
        "higher",
        "mean of it over the other networks (`n`), of trainings averaged; per set, on its first `convnet3` point",
    ),
    ("xarch_worst", "ratio", "higher", "smallest of it over the other networks"),
    (
        "xarch_kendall_tau",
        "ratio",
        "",
        "Kendall's tau-b of the methods' mean accuracies on two networks (`architectures` in `param_json`), per ipc, "
        "over the sets and seeds that both have; from 3 methods (`n`), whose settings are averaged",
    ),
    ("xarch_kendall_p", "p", "", "its exact two-sided permutation p, from 5 methods on"),
    ("xarch_kendall_p_adjusted", "p", "", "that p adjusted over all pairs and ipc (Benjamini-Hochberg)"),
    mirrored=(),
)
RETENTION, MEAN, WORST, KENDALL_TAU, KENDALL_P, KENDALL_P_ADJUSTED = _METRICS


def transfer(points: Sequence[PointRecord]) -> None:
    """``xarch_retention`` of every point on another network than the reference, ``xarch_mean`` and ``xarch_worst`` of
    every set, and Kendall's tau of the methods' ranking for every pair of networks and ipc."""
    for family in grouped(points, _family).values():
        names = dict.fromkeys(_network(point) for point in family)
        if len(names) < 2:
            continue
        for members in grouped(family, lambda point: point.set_key).values():
            _retention(members)
    _rankings(points)


def _family(point: PointRecord) -> tuple[Any, ...]:
    """Points that may differ in the network alone."""
    return (
        point.comparable.data,
        point.comparable.protocol,
        point.comparable.recipe,
        point.comparable.augmentation,
        point.comparable.labels,
    )


def _network(point: PointRecord) -> str:
    return point.chain.point.architecture


def _retention(members: Sequence[PointRecord]) -> None:
    """Of one set: acc(network) / acc(reference) with the same training seed; the mean and the worst over networks."""
    by_network = {
        name: {point.chain.point.seed: point for point in same} for name, same in grouped(members, _network).items()
    }
    reference = by_network.pop(REFERENCE, {})
    kept: dict[str, float | None] = {}
    for name, trainings in by_network.items():
        common = sorted(trainings.keys() & reference.keys())
        for seed in common:
            point, base = trainings[seed], reference[seed]
            ratio = point.accuracy / base.accuracy if base.accuracy > 0 else None
            flag = unequal(point.steps, base.steps) if ratio is not None else {}
            point.add(RETENTION, ratio, point.images, **flag)
        if common:
            base_mean = fmean(reference[seed].accuracy for seed in common)
            mean = fmean(trainings[seed].accuracy for seed in common)
            kept[name] = mean / base_mean if base_mean > 0 else None
    if not kept:
        return
    first = reference[min(reference)]
    values = [value for value in kept.values() if value is not None]
    for metric, value in (
        (MEAN, fmean(values) if values else None),
        (WORST, min(values, default=None)),
    ):
        first.add(metric, value, len(kept), agg="mean_seeds", n_agg=len(reference))


# --- the ranking of methods -------------------------------------------------------------------------------------------


def _rankings(points: Sequence[PointRecord]) -> None:
    tested: list[tuple[PointRecord, Row, int, float | None, Row]] = []
    distilled = [point for point in points if point.distilled]
    for members in grouped(distilled, lambda point: (_family(point), point.chain.point.ipc)).values():
        by_network = grouped(members, _network)
        names = sorted(by_network, key=lambda name: (name != REFERENCE, name))
        for one, other in itertools.combinations(names, 2):
            both = _common(by_network[one], by_network[other])
            means = [_means(points) for points in both]
            shared = list(means[0])
            if len(shared) < _FEWEST:
                continue
            ours, theirs = (np.array([mean[method] for method in shared]) for mean in means)
            first = both[0][0]
            columns: Row = {"architectures": [one, other], "agg": "pooled"}
            tau = float(kendall(ours[None], theirs[None])[0])
            first.add(KENDALL_TAU, tau, len(shared), **columns)
            p = None
            if tau == tau:
                seed = int(digest(["ranking", len(shared)])[:16], 16)
                p = permutation_p(partial(_permuted, ours, theirs), len(shared), seed)
            tested.append((first, columns, len(shared), p, no_p(tau, p)))
    corrected = adjusted([p for *_, p, _ in tested])
    for (point, columns, count, p, flag), q in zip(tested, corrected, strict=True):
        for metric, value in ((KENDALL_P, p), (KENDALL_P_ADJUSTED, q)):
            point.add(metric, value, count, **columns, **flag)


def _common(one: Sequence[PointRecord], other: Sequence[PointRecord]) -> tuple[list[PointRecord], list[PointRecord]]:
    """The points of two networks that have the same set and training seed, in the same order: what one lacks would
    change the mean of a method on the other alone."""
    there = {(point.set_key, point.chain.point.seed): point for point in other}
    pairs = [(point, there[key]) for point in one if (key := (point.set_key, point.chain.point.seed)) in there]
    return [mine for mine, _ in pairs], [theirs for _, theirs in pairs]


def _means(points: Sequence[PointRecord]) -> Mapping[str, float]:
    """Method -> accuracy: the mean over what it was run with (start, augmentation, settings), each set by the mean over
    its trainings. The settings of one method are no further methods, whose agreement would count."""
    return {
        method: fmean(
            fmean(
                fmean(point.accuracy for point in trainings)
                for trainings in grouped(sets, lambda point: point.set_key).values()
            )
            for sets in grouped(members, lambda point: point.cell).values()
        )
        for method, members in grouped(points, lambda point: point.method).items()
    }


def _permuted(ours: Floats, theirs: Floats, orders: Integers) -> Floats:
    return kendall(np.broadcast_to(ours, orders.shape), theirs[orders])


DERIVATION = Derivation(_METRICS, ("accuracy",), lambda points, store: transfer(points))
