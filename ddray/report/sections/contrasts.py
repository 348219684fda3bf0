"""Do the methods differ over all of the sweep? One test for each property, corrected for their number.

A *replicate* is what was made independently of the others: another data set, draw of its classes or of the origin, or
another distill_seed. A *cell* of a replicate is one network, size of the origin, number of images per class, and what
else the methods vary in (start, augmentation, iterations). Cells of one replicate share images and seeds, so they do
not repeat one another: a method has one value in a replicate, the mean of its ranks over the cells. A method without a
distill_seed is the same in all distillations, which then are one replicate.

Only cells count in which all methods ran for the same share of the published iterations: else the order of the methods
would be that of the budgets. What is tested is whether their order within replicates could come from exchanging the
methods within each: Friedman's statistic, with its distribution under permutation instead of chi-square's, which needs
many replicates. The p of several properties are adjusted by Holm's method, which holds however they hang together.

Classes are compared at equal accuracy: their variance as such goes down with every model that is better, and would be
accuracy's test once more. ``random`` and ``full`` take no part: that a method beats random images is another question.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ddray.measurements.reading import Row
from ddray.measurements.references import percent
from ddray.measurements.statistics import ALPHA, Floats, holm, ranks
from ddray.report.comparable import Cell
from ddray.report.page import Element
from ddray.report.sections import Measured, SweepSection
from ddray.report.table import Bullets, Column, Facts, Footnote, Table
from ddray.report.words import DEEPFOOL, epsilon_text, shown_epsilons, variant_title

RESAMPLES = 9999
"""Permutations drawn where there are more; below that number all are tried."""
LEAST_REPLICATES = 3
EQUAL_SHARES = 1.1
"""Ratio of the largest to the smallest share of the published iterations that still counts as equal: iterations are
whole numbers."""
ACCURACY = "accuracy"
FAIRNESS = "variance of class accuracies at equal accuracy"
EXCESS_OF_VARIANCE = "excess_fair_var_acc_corr"
_BASELINES = {"random", "full"}


class Value(NamedTuple):
    """A number of a method in a cell of a replicate, mean over trainings."""

    replicate: tuple[Any, ...]
    """Data set and draws."""
    distill_seed: int | None
    cell: tuple[Any, ...]
    variant: str
    value: float
    share: float | None
    """Of the published iterations, at most 1; NaN where they are not known, None of a method without iterations."""


def contrasts(measured: Measured, report: Facts) -> list[dict[str, Any]]:
    """One entry for each property and protocol that several methods have.

    Args:
        measured: Of the sweep.
        report: The facts of its blocks and of membership inference.

    Returns:
        ``property`` and ``protocol``, what ``compared`` says of them, and ``p_adjusted`` (Holm's, over all entries).
    """
    values: dict[tuple[str, str], list[Value]] = defaultdict(list)
    for name, protocol, value in (*_of_blocks(measured, report["blocks"]), *_of_audits(measured, report["privacy"])):
        values[name, protocol].append(value)
    for _, protocol in [key for key in values if key[0] == ACCURACY]:
        values[FAIRNESS, protocol] += []  # where no number stands at equal accuracy, that is the reason
    entries = [
        {"property": name, "protocol": protocol, **compared(each)}
        for (name, protocol), each in values.items()
        if name == FAIRNESS or len({value.variant for value in each}) > 1
    ]
    if not any(entry["property"] == ACCURACY for entry in entries):
        return []  # one method, or none
    for entry, p in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_adjusted"] = p
    return entries


# --- values -----------------------------------------------------------------------------------------------------------


def _of_blocks(measured: Measured, blocks: Sequence[Facts]) -> Iterator[tuple[str, str, Value]]:
    numbers = measured.numbers
    for block, facts in zip(measured.blocks, blocks, strict=True):
        points = [point["point"] for point in block.points]
        excess = numbers.of(EXCESS_OF_VARIANCE, points)
        named: dict[str, Mapping[str, float] | None] = {ACCURACY: None, FAIRNESS: _by_point(excess)}
        for attack in facts["robustness"]:
            if attack["attack"] == DEEPFOOL[0] and attack["epsilons"]:
                shown = shown_epsilons(attack["epsilons"], attack["norm"])
                epsilon = shown[len(shown) // 2]
                name = f"accuracy under {attack['title']} at {epsilon_text(epsilon, attack['norm'])}"
                named[name] = _by_point(
                    row
                    for row in numbers.of("adv_acc", points)
                    if (row["attack"], row["epsilon"], row["adv_def"]) == (DEEPFOOL[0], epsilon, "clip")
                )
        for cell in block.cells:
            for name, metric in named.items():
                yield from ((name, facts["protocol"], value) for value in _of_cell(cell, metric))


def _of_audits(measured: Measured, tables: Sequence[Facts]) -> Iterator[tuple[str, str, Value]]:
    for audit, source in dict.fromkeys((table["audit"], table["nonmember_source"]) for table in tables):
        for block in measured.blocks:
            rows = measured.numbers.of("mia_auc_strongest", [point["point"] for point in block.points])
            aucs = _by_point(
                row
                for row in rows
                if (row["audit"], row["nonmember_source"], row["param"].get("iteration")) == (audit, source, None)
            )
            for cell in block.cells:
                for value in _of_cell(cell, aucs):
                    yield f"AUC of the strongest attack, audit {audit}", cell.points[0]["protocol"], value


def _by_point(rows: Iterator[Row] | Sequence[Row]) -> dict[str, float]:
    return {row["point"]: row["value"] for row in rows if row["value"] is not None}


def _of_cell(cell: Cell, metric: Mapping[str, float] | None) -> Iterator[Value]:
    if cell.method in _BASELINES:
        return
    first = cell.points[0]
    # A draw of a larger origin holds that of a smaller one: sizes are cells of one replicate.
    replicate = (first["dataset"], first["class_draw"] or 0, first["origin_draw"] or 0)
    place = (first["num_classes"], first["origin_per_class"], first["architecture"], *cell.key.values)
    for distill_seed, trainings in cell.values(metric).items():
        yield Value(replicate, distill_seed, place, cell.variant, fmean(trainings.values()), _share(first))


def _share(point: Row) -> float | None:
    if point["budget_fraction"] is not None:
        return min(1.0, float(point["budget_fraction"]))
    return None if point["distill_iters"] is None else math.nan


# --- the test ---------------------------------------------------------------------------------------------------------


def compared(values: Sequence[Value]) -> dict[str, Any]:
    """One property over its replicates.

    Args:
        values: Of all methods.

    Returns:
        ``replicates`` and ``cells`` that count, ``cells_left_out`` (a method is missing), ``cells_unequal`` (budgets),
        ``mean_ranks`` (method -> rank, 1 is the lowest value), ``statistic`` and ``p``; without a test the latter are
        None and ``not_tested`` says why.
    """
    methods = list(dict.fromkeys(value.variant for value in values))
    seeded = all(value.distill_seed is not None for value in values)
    cells: dict[tuple[Any, ...], dict[str, list[Value]]] = defaultdict(lambda: defaultdict(list))
    for value in values:
        distillation = value.distill_seed if seeded else None
        cells[(*value.replicate, distillation), value.cell][value.variant].append(value)
    together = {at: cell for at, cell in cells.items() if len(cell) == len(methods)}
    equal = {at: cell for at, cell in together.items() if _equal_shares(cell)}
    ranked: dict[tuple[Any, ...], list[Floats]] = defaultdict(list)
    for (replicate, _), cell in equal.items():
        means = [fmean(value.value for value in cell[method]) for method in methods]
        ranked[replicate].append(ranks(np.array([means]))[0])
    found: dict[str, Any] = {
        "replicates": len(ranked),
        "cells": len(equal),
        "cells_left_out": len(cells) - len(together),
        "cells_unequal": len(together) - len(equal),
        "mean_ranks": None,
        "statistic": None,
        "p": None,
        "not_tested": None,
    }
    if len(methods) < 2:
        return found | {"not_tested": f"{'one method has' if methods else 'no method has'} such numbers"}
    needed = replicates_needed(len(methods))
    if not together:
        return found | {"not_tested": f"no cell holds all of {', '.join(map(variant_title, methods))}"}
    if not equal:
        budgets = f"the methods ran for unequal shares of the published iterations ({_shares(values)})"
        return found | {"not_tested": budgets}
    if len(ranked) < needed:
        return found | {"not_tested": _too_few(len(ranked), len(equal), len(methods), needed)}
    by_replicate = np.array([np.mean(each, axis=0) for each in ranked.values()])
    statistic, p = friedman(by_replicate)
    mean_ranks = dict(zip(methods, by_replicate.mean(axis=0).tolist(), strict=True))
    found |= {"mean_ranks": mean_ranks, "statistic": statistic, "p": p}
    return found | {"not_tested": "the methods tie everywhere"} if p is None else found


def replicates_needed(methods: int) -> int:
    """How many replicates can give a p of ``ALPHA`` or less: an order that N of K methods share is one of K! to the
    power of N - 1."""
    return max(LEAST_REPLICATES, 1 + math.ceil(math.log(1 / ALPHA) / math.log(math.factorial(methods)) - 1e-9))


def _too_few(replicates: int, cells: int, methods: int, needed: int) -> str:
    there = "one replicate is there" if replicates == 1 else f"{replicates} replicates are there"
    kinds = f" ({cells} cells share its data and seeds)" if cells > replicates == 1 else ""
    return f"{there}{kinds}, and {methods} methods need {needed}: further data sets, draws or distillations"


def _equal_shares(cell: Mapping[str, Sequence[Value]]) -> bool:
    shares = [value.share for values in cell.values() for value in values if value.share is not None]
    return not shares or (not any(map(math.isnan, shares)) and max(shares) <= EQUAL_SHARES * min(shares))


def _shares(values: Sequence[Value]) -> str:
    """``DM 0.5 %, DSA 0.2 to 6 %``."""
    by_method: dict[str, list[float]] = defaultdict(list)
    for value in values:
        if value.share is not None:
            by_method[value.variant].append(value.share)
    return ", ".join(f"{variant_title(method)} {_span(shares)}" for method, shares in by_method.items())


def _span(shares: Sequence[float]) -> str:
    if any(map(math.isnan, shares)):
        return "of an unknown whole"
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def friedman(values: Floats) -> tuple[float, float | None]:
    """Friedman's test with ties (Conover 1999), by permutation of the methods within each replicate.

    Args:
        values: (N, K): N replicates, K methods.

    Returns:
        The statistic, 0 where all replicates are ties; and p, None where the smallest that N replicates of K methods
        can give is above ``ALPHA``.
    """
    count, methods = values.shape
    within = ranks(values)
    scale = float((within**2).sum()) - count * methods * (methods + 1) ** 2 / 4  # the same in every permutation

    def statistic(*columns: Floats, axis: int = -1) -> Floats:
        sums = np.stack([np.asarray(column).sum(axis=axis) for column in columns])
        spread = ((sums - count * (methods + 1) / 2) ** 2).sum(axis=0)
        return np.asarray((methods - 1) * spread / scale if scale > 0 else np.zeros_like(spread))

    observed = float(statistic(*within.T))
    if scale <= 0 or math.factorial(methods) ** (count - 1) < 1 / ALPHA:
        return observed, None
    from scipy.stats import permutation_test  # a second and more, and most sweeps have too few replicates

    test = permutation_test(
        tuple(within.T),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return observed, float(test.pvalue)


# --- what is printed --------------------------------------------------------------------------------------------------


def _elements(report: Facts) -> Iterator[Element]:
    """One row per property that was tested, one line per property that was not."""
    entries: Sequence[Facts] = report["contrasts"]
    made = [entry for entry in entries if entry["not_tested"] is None]
    if made:
        notes = [
            "A replicate is another data set, draw of classes or of the origin, or distillation; its cells (network, "
            "ipc, start, size of the origin) share images and seeds, and a method counts once in it, by its mean rank "
            "over them. Replicates of one data set have their test images in common: what is said holds for those."
        ]
        if left_out := sum(entry["cells_left_out"] for entry in made):
            notes.append(f"Cells that lack one of the methods are left out: {left_out}.")
        if unequal := sum(entry["cells_unequal"] for entry in made):
            notes.append(f"Cells with unequal shares of the published iterations are left out: {unequal}.")
        yield Table("", _COLUMNS, made, notes)
    if reasons := [
        f"{entry['property']}, protocol {entry['protocol']}: not tested, because {entry['not_tested']}"
        for entry in entries
        if entry["not_tested"] is not None
    ]:
        yield Bullets("", reasons)


def _order(entry: Facts) -> str:
    ordered = sorted(entry["mean_ranks"].items(), key=lambda item: -item[1])
    return ", ".join(f"{variant_title(method)} {rank:.1f}" for method, rank in ordered)


_P = Footnote(
    "p: of no difference, by permutation of the methods within replicates, adjusted for the number of tests by Holm's "
    "method, which holds for properties that go together. A large one does not say that the methods are equal."
)
_COLUMNS = [
    Column("property", "property"),
    Column("protocol", "protocol"),
    Column("replicates", "replicates"),
    Column("cells", "cells"),
    Column("mean ranks, highest value first", _order),
    Column("Friedman's statistic", "statistic", "{:.1f}".format),
    Column("p, adjusted", "p_adjusted", "{:.4f}".format, footnote=_P),
]

CONTRASTS = SweepSection(
    id="contrasts",
    order=120,
    title="Do the methods differ?",
    detailed=("adv_acc", "mia_auc", EXCESS_OF_VARIANCE),
    facts=contrasts,
    elements=_elements,
)
