"""Accuracy against the full data and against random real images, and the scores of DD-Ranking.

A point is compared with the mean over the full-data models of its block, and with the ``random`` point of its block
with the same ipc, distill_seed and seed: random images of one distill_seed are those that a method with init ``real``
starts from. A set that no distill_seed made (``herding``, one that was brought) is compared with the mean over all
draws of random images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, unequal
from ddray.measurements.metrics import records
from ddray.measurements.statistics import accuracy_difference

_Seeds = tuple[int | None, int | None, int]
"""ipc, distill_seed, seed; without a distill_seed: all of them."""

_PERFORMANCE = records(
    "performance",
    "relative_accuracy",
    ("acc_over_full", "ratio", "higher", "acc / acc(full)"),
    mirrored=(),
)
_INFORMATIVENESS = records(
    "informativeness",
    "relative_accuracy",
    ("ior", "fraction", "higher", "acc - acc(random): improvement over random"),
    (
        "recovery",
        "ratio",
        "higher",
        "(acc - acc(random)) / (acc(full) - acc(random)); `low_resolution`: the test images do not tell the divisor "
        "from 0",
    ),
    ("dd_hlr", "fraction", "lower", "DD-Ranking's hard label recovery: acc(full) - acc"),
    ("dd_ior", "fraction", "higher", "DD-Ranking's improvement over random: `ior`"),
    (
        "dd_lrs",
        "score",
        "higher",
        "(e^x - e^-1) / (e - e^-1) of x = (`dd_ior` - `dd_hlr`) / 2; 0.269 at x = 0. Of fractions: not comparable "
        "with its leaderboard, whose code takes percent and chooses rate and epoch on test images",
    ),
    (
        "dd_ars",
        "score",
        "higher",
        "the same map of the mean of acc - acc(random) with and without training augmentation; on the point with it",
    ),
    mirrored=(),
)
(ACC_OVER_FULL,) = _PERFORMANCE
IOR, RECOVERY, DD_HLR, DD_IOR, DD_LRS, DD_ARS = _INFORMATIVENESS


def relative_accuracy(points: Sequence[PointRecord]) -> None:
    """``acc_over_full``, ``ior``, ``recovery``, ``dd_hlr``, ``dd_ior``, ``dd_lrs``, ``dd_ars``, all of fractions.

    DD-Ranking (arXiv 2505.13300): HLR = acc(full) - acc(set), both with hard labels; IOR = acc(set) - acc(random) under
    one recipe; LRS maps (IOR - HLR) / 2, ARS maps the mean of the differences to random with and without augmentation.
    Differs from its released code, which puts percent into the exponential and tunes the learning rate and the epoch
    on test images: the numbers cannot be compared with its leaderboard.
    """
    for members in grouped(points, lambda point: point.comparable).values():
        full = [point for point in members if point.method == "full"]
        random = _random(members)
        for point in members:
            if point.method != "full":
                _one(point, full, random.get(_seeds(point), []) if point.distilled else [])
    _augmentations(points)


def _seeds(point: PointRecord) -> _Seeds:
    at = point.chain.point
    return at.ipc, at.distill_seed, at.seed


def _random(points: Sequence[PointRecord]) -> Mapping[_Seeds, list[PointRecord]]:
    """The random images of the same seeds; of a set without a distill_seed all draws."""
    draws: dict[_Seeds, list[PointRecord]] = defaultdict(list)
    for point in points:
        if point.method == "random":
            ipc, distill_seed, seed = _seeds(point)
            draws[ipc, distill_seed, seed].append(point)
            draws[ipc, None, seed].append(point)
    return draws


def _one(point: PointRecord, full: Sequence[PointRecord], random: Sequence[PointRecord]) -> None:
    ours, n = point.accuracy, point.images
    whole = fmean(each.accuracy for each in full) if full else None
    steps = [point.steps, *(each.steps for each in full)]
    if whole is not None:
        ratio = ours / whole if whole > 0 else None
        point.add(ACC_OVER_FULL, ratio, n, n_agg=len(full), **unequal(*steps))
    ior = None
    drawn = [each.steps for each in random]
    if random:
        chance = fmean(each.accuracy for each in random)
        ior, flag = ours - chance, unequal(point.steps, *drawn)
        point.add(IOR, ior, n, **flag)
        point.add(DD_IOR, ior, n, **flag)
        if whole is not None:
            gap = whole - chance
            flag = unequal(*drawn, *steps)
            recovered = ior / gap if gap > 0 else None
            if accuracy_difference([whole], [chance], n).low <= 0:
                flag = {"flag": "low_resolution"}
            point.add(RECOVERY, recovered, n, **_unless_missing(recovered, flag))
    if whole is not None and point.distilled and point.label_kind == "hard":
        hlr = whole - ours
        point.add(DD_HLR, hlr, n, n_agg=len(full), **unequal(*steps))
        if ior is not None:
            flag = unequal(*drawn, *steps)
            point.add(DD_LRS, dd_score((ior - hlr) / 2), n, n_agg=len(full), **flag)


def _unless_missing(value: float | None, flag: Row) -> Row:
    """A flag about the comparison only where there is a value: without one, its own flag says why."""
    return flag if value is not None else {}


def _but_for_augmentation(point: PointRecord) -> tuple[str, str, str, str]:
    about = point.comparable
    return about.data, about.network, about.recipe, about.labels


def _augmentations(points: Sequence[PointRecord]) -> None:
    """ARS: on the point that is trained with augmentation, where its set was also trained without."""
    for family in grouped(points, _but_for_augmentation).values():
        without = [point for point in family if point.comparable.augmentation == "none"]
        bare = {(point.set_key, point.chain.point.seed): point for point in without}
        random_bare = _random(without)
        for members in grouped(family, lambda point: point.comparable).values():
            if not bare or members[0].comparable.augmentation == "none":
                continue
            random = _random(members)
            for point in members:
                at = _seeds(point)
                other = bare.get((point.set_key, point.chain.point.seed))
                if not point.distilled or other is None or at not in random or at not in random_bare:
                    continue
                chance, chance_bare = (fmean(each.accuracy for each in drawn[at]) for drawn in (random, random_bare))
                beta = ((point.accuracy - chance) + (other.accuracy - chance_bare)) / 2
                flag = unequal(*(each.steps for each in (point, other, *random[at], *random_bare[at])))
                point.add(DD_ARS, dd_score(beta), point.images, **flag)


def dd_score(alpha: float) -> float:
    """(e^alpha - e^-1) / (e - e^-1): 0 at -1, 1 at 1, 0.269 at 0 (DD-Ranking, arXiv 2505.13300), of fractions."""
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


DERIVATION = Derivation(
    (*_PERFORMANCE, *_INFORMATIVENESS), ("accuracy",), lambda points, store: relative_accuracy(points)
)
