"""Do the methods differ over all cells of the sweep? One test for each property, corrected for their number.

A *cell* is one data set, origin, network and number of images per class, and what else the methods vary in (start,
augmentation, iterations); within it every method has one value, the mean over its seeds. Where a method does not know
such a setting, its one value stands in several rows: they are one cell, with the means of the others. What is tested is
whether the methods' ranks within cells could come from exchanging the methods within each: Friedman's statistic, with
its distribution under permutation instead of chi-square's, which needs many cells.
``random`` and ``full`` take no part: that a method is better than random images is another question.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ddray.measurements.statistics import ALPHA, Floats, adjusted, ranks
from ddray.report.comparable import BLOCK_AXES, ROW_AXES
from ddray.report.page import Element
from ddray.report.sections import SweepSection
from ddray.report.table import Column, Facts, Footnote, Table
from ddray.report.words import DEEPFOOL, epsilon_text, shown_epsilons, variant_title

RESAMPLES = 9999
"""Permutations drawn where there are more; below that number all are tried."""
_BASELINES = {"random", "full"}
_BLOCK = tuple(axis for axis in BLOCK_AXES if axis != "protocol")


def contrasts(blocks: Sequence[Facts], tables: Sequence[Facts]) -> list[dict[str, Any]]:
    """One entry for each property and protocol that several methods have in several cells.

    Args:
        blocks: Of the report.
        tables: Of membership inference.

    Returns:
        ``property``, ``protocol``, ``cells``, ``mean_ranks`` (method -> rank, 1 is the lowest value), ``statistic``,
        ``p`` and ``p_adjusted`` (Benjamini-Hochberg over all entries); p is None where no order of so few cells could
        have given 0.05 or less.
    """
    values: dict[tuple[str, str], dict[tuple[Any, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, protocol, cell, method, value in (*_of_blocks(blocks), *_of_privacy(tables)):
        if value is not None and method.split()[0] not in _BASELINES:
            values[name, protocol][cell][method] = value
    tested = (_tested(name, protocol, merged(cells)) for (name, protocol), cells in values.items())
    entries = [entry for entry in tested if entry is not None]
    for entry, p in zip(entries, adjusted([entry["p"] for entry in entries]), strict=True):
        entry["p_adjusted"] = p
    return entries


_Value = tuple[str, str, tuple[Any, ...], str, float | None]
"""Property, protocol, cell, method, value."""


def _of_blocks(blocks: Sequence[Facts]) -> Iterator[_Value]:
    for block in blocks:
        protocol = block["protocol"]
        for row in block["rows"]:
            for variant, cell in row["cells"].items():
                variance = cell["fairness"]["fair_var_acc_corr"]
                yield "accuracy", protocol, _cell(block, row), variant, _mean(cell["accuracy"])
                yield "variance of class accuracies, corrected", protocol, _cell(block, row), variant, _mean(variance)
        for attack in block["robustness"]:
            if attack["attack"] == DEEPFOOL[0] and attack["epsilons"]:
                shown = shown_epsilons(attack["epsilons"], attack["norm"])
                epsilon = shown[len(shown) // 2]
                name = f"accuracy under {attack['title']} at {epsilon_text(epsilon, attack['norm'])}"
                for row in attack["rows"]:
                    within = next((each for each in row["adv_acc"] if each["epsilon"] == epsilon), None)
                    yield name, protocol, _cell(block, row), row["method"], _mean(within)


def _of_privacy(tables: Sequence[Facts]) -> Iterator[_Value]:
    for table in tables:
        name = f"AUC of {table['attack']}, audit {table['audit']}"
        for row in table["rows"]:
            for variant, cell in row["cells"].items():
                auc = cell["attacks"].get(table["attack"])
                yield name, table["protocol"], _cell(table, row), variant, None if auc is None else auc["value"]


def _cell(table: Facts, row: Facts) -> tuple[Any, ...]:
    return tuple({**table, **row}.get(axis) for axis in (*_BLOCK, *ROW_AXES))


def merged(cells: Mapping[tuple[Any, ...], Mapping[str, float]]) -> list[dict[str, float]]:
    """The cells, those in one that hold the same number of a method.

    Args:
        cells: Cell, as the axes of block and row -> variant -> value; the axes after ipc are what methods vary in.
    """
    together: list[list[Mapping[str, float]]] = []
    families: dict[tuple[Any, ...], list[Mapping[str, float]]] = defaultdict(list)
    for cell, values in cells.items():
        families[cell[: len(_BLOCK) + 1]].append(values)
    for family in families.values():
        sets: list[list[Mapping[str, float]]] = []
        for values in family:
            same = [each for each in sets if any(values.items() & other.items() for other in each)]
            sets = [each for each in sets if each not in same] + [[values, *itertools.chain(*same)]]
        together += sets
    return [
        {
            method: fmean(each[method] for each in same if method in each)
            for method in dict.fromkeys(itertools.chain(*same))
        }
        for same in together
    ]


def _mean(mean: Facts | None) -> float | None:
    return None if mean is None else mean["mean"]


def _tested(name: str, protocol: str, cells: Sequence[Mapping[str, float]]) -> dict[str, Any] | None:
    """Over the cells that hold all methods of which there is more than one cell."""
    seen = [method for cell in cells for method in cell]
    methods = [method for method in dict.fromkeys(seen) if seen.count(method) > 1]
    whole = [cell for cell in cells if all(method in cell for method in methods)]
    if len(methods) < 2 or len(whole) < 2:
        return None
    values = np.array([[cell[method] for method in methods] for cell in whole])
    statistic, p = friedman(values)
    mean_ranks = dict(zip(methods, ranks(values).mean(axis=0).tolist(), strict=True))
    return {
        "property": name,
        "protocol": protocol,
        "cells": len(whole),
        "cells_left_out": len(cells) - len(whole),
        "mean_ranks": mean_ranks,
        "statistic": statistic,
        "p": p,
    }


def friedman(values: Floats) -> tuple[float, float | None]:
    """Friedman's test with ties (Conover 1999), by permutation of the methods within each cell.

    Args:
        values: (N, K): N cells, K methods.

    Returns:
        The statistic, 0 where all cells are ties; and p, None where the smallest that N cells of K methods can give is
        above ``ALPHA``: one over K! to the power of N - 1, for an order that all cells share is as good as any other.
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
    from scipy.stats import permutation_test  # a second and more, and most sweeps have too few cells

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


def _elements(report: Facts) -> Iterator[Element]:
    """One row per property."""
    entries: Sequence[Facts] = report["contrasts"]
    if not entries:
        return
    notes = [
        "A cell is one data set, origin, network, ipc, and start, augmentation and iterations where all methods differ "
        "in them, with the mean over seeds of each method; those of several networks share their sets and are not "
        "quite independent."
    ]
    if left_out := sum(entry["cells_left_out"] for entry in entries):
        notes.append(f"{left_out} cells that lack one of the methods are left out.")
    yield Table("", _COLUMNS, entries, notes)


def _order(entry: Facts) -> str:
    ordered = sorted(entry["mean_ranks"].items(), key=lambda item: -item[1])
    return ", ".join(f"{variant_title(method)} {rank:.1f}" for method, rank in ordered)


_P = Footnote(
    "p: of no difference, by permutation of the methods within cells, adjusted for the number of tests; absent where "
    "so few cells could not have given a small one."
)
_COLUMNS = [
    Column("property", "property"),
    Column("protocol", "protocol"),
    Column("cells", "cells"),
    Column("mean ranks, highest value first", _order),
    Column("Friedman's statistic", "statistic", "{:.1f}".format),
    Column("p, adjusted", "p_adjusted", "{:.4f}".format, footnote=_P),
]

CONTRASTS = SweepSection(
    id="contrasts",
    order=120,
    title="Do the methods differ over all cells?",
    facts=lambda _, report: contrasts(report["blocks"], report["privacy"]),
    elements=_elements,
)
