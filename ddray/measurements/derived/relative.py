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
from typing import Any

from ddray.measurements.derived.notes import Noted, grouped, unequal

_Place = tuple[int | None, int | None, int]
"""ipc, distill_seed, seed; without a distill_seed: all of them."""


def relative(points: Sequence[Noted]) -> None:
    """``acc_over_full``, ``ior``, ``recovery``, ``dd_hlr``, ``dd_ior``, ``dd_lrs``, ``dd_ars``, all of fractions.

    DD-Ranking (arXiv 2505.13300): HLR = acc(full) - acc(set), both with hard labels; IOR = acc(set) - acc(random) under
    one recipe; LRS maps (IOR - HLR) / 2, ARS maps the mean of the differences to random with and without augmentation.
    Differs from its released code, which puts percent into the exponential and tunes the learning rate and the epoch
    on test images: the numbers cannot be compared with its leaderboard.
    """
    for members in grouped(points, lambda point: point.block).values():
        full = [point for point in members if point.method == "full"]
        random = _random(members)
        for point in members:
            if point.method != "full":
                _one(point, full, random.get(_place(point), []) if point.distilled else [])
    _augmentations(points)


def _place(point: Noted) -> _Place:
    at = point.chain.point
    return at.ipc, at.distill_seed, at.seed


def _random(points: Sequence[Noted]) -> Mapping[_Place, list[Noted]]:
    """The random images of a place; of one without a distill_seed all draws."""
    found: dict[_Place, list[Noted]] = defaultdict(list)
    for point in points:
        if point.method == "random":
            ipc, distill_seed, seed = _place(point)
            found[ipc, distill_seed, seed].append(point)
            found[ipc, None, seed].append(point)
    return found


def _one(point: Noted, full: Sequence[Noted], random: Sequence[Noted]) -> None:
    ours, n = point.accuracy, point.images
    whole = fmean(each.accuracy for each in full) if full else None
    steps = [point.steps, *(each.steps for each in full)]
    if whole is not None:
        ratio = ours / whole if whole > 0 else None
        point.add("performance", "acc_over_full", ratio, "ratio", n, n_agg=len(full), **unequal(*steps))
    ior = None
    drawn = [each.steps for each in random]
    if random:
        chance = fmean(each.accuracy for each in random)
        ior, flag = ours - chance, unequal(point.steps, *drawn)
        point.add("informativeness", "ior", ior, "fraction", n, **flag)
        point.add("informativeness", "dd_ior", ior, "fraction", n, **flag)
        if whole is not None:
            gap = whole - chance
            flag = unequal(*drawn, *steps)
            recovered = ior / gap if gap > 0 else None
            point.add("informativeness", "recovery", recovered, "ratio", n, **_either(recovered, flag))
    if whole is not None and point.distilled and point.label_kind == "hard":
        hlr = whole - ours
        point.add("informativeness", "dd_hlr", hlr, "fraction", n, n_agg=len(full), **unequal(*steps))
        if ior is not None:
            flag = unequal(*drawn, *steps)
            point.add("informativeness", "dd_lrs", dd_score((ior - hlr) / 2), "score", n, n_agg=len(full), **flag)


def _either(value: float | None, flag: Mapping[str, Any]) -> Mapping[str, Any]:
    """A flag about the comparison only where there is a value: without one, its own flag says why."""
    return flag if value is not None else {}


def _augmentations(points: Sequence[Noted]) -> None:
    """ARS: on the point that is trained with augmentation, where its set was also trained without."""
    for family in grouped(points, lambda point: (point.block.data, point.block.network, point.block.recipe)).values():
        without = [point for point in family if point.block.augmentation == "none"]
        bare = {(point.made, point.chain.point.seed): point for point in without}
        random_bare = _random(without)
        for members in grouped(family, lambda point: point.block).values():
            if not bare or members[0].block.augmentation == "none":
                continue
            random = _random(members)
            for point in members:
                at = _place(point)
                other = bare.get((point.made, point.chain.point.seed))
                if not point.distilled or other is None or at not in random or at not in random_bare:
                    continue
                chance, chance_bare = (fmean(each.accuracy for each in drawn[at]) for drawn in (random, random_bare))
                beta = ((point.accuracy - chance) + (other.accuracy - chance_bare)) / 2
                flag = unequal(*(each.steps for each in (point, other, *random[at], *random_bare[at])))
                point.add("informativeness", "dd_ars", dd_score(beta), "score", point.images, **flag)


def dd_score(alpha: float) -> float:
    """(e^alpha - e^-1) / (e - e^-1): 0 at -1, 1 at 1, 0.269 at 0 (DD-Ranking, arXiv 2505.13300), of fractions."""
    return (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))
