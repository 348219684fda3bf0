"""Whether methods differ: Friedman's statistic against SciPy's, its level where nothing differs, what counts as a
replicate, and what is said instead of a test."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import worlds
from scipy.stats import friedmanchisquare

from ddray.measurements.statistics import holm
from ddray.plan.points import GridPoint
from ddray.report.report import machine_report, report
from ddray.report.sections.contrasts import Value, compared, friedman, replicates_needed


@pytest.mark.parametrize(("cells", "methods"), [(4, 3), (6, 3), (9, 4), (12, 5)])
@pytest.mark.parametrize("digits", [1, 8])
def test_the_statistic_is_friedmans(cells: int, methods: int, digits: int) -> None:
    values = np.random.default_rng(cells).normal(size=(cells, methods)).round(digits)
    values[:, 0] += 0.8
    statistic, p = friedman(values)
    assert statistic == pytest.approx(friedmanchisquare(*values.T).statistic)
    assert p is not None
    order = np.random.default_rng(0).permutation(methods)
    assert friedman(values[:, order])[0] == pytest.approx(statistic), "methods have no order"
    assert friedman(np.exp(3 * values))[0] == pytest.approx(statistic), "only ranks count"


def test_small_p_are_as_rare_as_they_should_be() -> None:
    random = np.random.default_rng(7)
    below = [p <= 0.05 for _ in range(300) if (p := friedman(random.normal(size=(5, 3)))[1]) is not None]
    assert len(below) == 300
    assert np.mean(below) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    sure = np.tile(np.arange(3.0), (5, 1))
    assert friedman(sure)[1] == pytest.approx(6.0**-4, abs=2e-3)


@pytest.mark.parametrize(("cells", "methods", "known"), [(2, 3, False), (3, 3, True), (5, 2, False), (6, 2, True)])
def test_no_p_where_none_could_be_small(cells: int, methods: int, known: bool) -> None:
    """Six orders of three methods: two cells that agree have 1/6, three 1/36."""
    p = friedman(np.tile(np.arange(float(methods)), (cells, 1)))[1]
    assert (p is not None) == known
    assert p is None or p <= 0.05


def test_ties_alone_are_no_difference() -> None:
    assert friedman(np.ones((5, 3))) == (0.0, None)


def test_as_many_replicates_as_a_small_p_needs() -> None:
    assert [replicates_needed(methods) for methods in (2, 3, 4, 9)] == [6, 3, 3, 3]


def test_a_second_test_lends_no_support() -> None:
    assert holm([0.04, 0.04]) == [0.08, 0.08], "two that say the same are no better than one of two"
    assert holm([0.01, None, 0.03, 0.02]) == [0.03, None, pytest.approx(0.04), pytest.approx(0.04)]


# --- what counts ------------------------------------------------------------------------------------------------------

METHODS = ("dm", "dsa", "idc")


def values(
    data: int = 1, seeds: int = 1, cells: int = 1, shares: tuple[float | None, ...] = (1.0, 1.0, 1.0)
) -> list[Value]:
    """Three methods in one order, over data sets, distillations and cells."""
    return [
        Value((f"data {one}", 0, 0), seed, (cell,), method, rank + 0.1 * seed, share)
        for one in range(data)
        for seed in range(seeds)
        for cell in range(cells)
        for rank, (method, share) in enumerate(zip(METHODS, shares, strict=True))
    ]


def test_cells_of_one_distillation_are_no_replicates() -> None:
    """Two nested cells gave p = 1/24 of four methods: it was the smallest that two cells can give."""
    for cells in (2, 20):
        found = compared(values(cells=cells))
        assert (found["replicates"], found["cells"], found["p"], found["mean_ranks"]) == (1, cells, None, None)
        assert f"one replicate is there ({cells} cells share its data and seeds)" in found["not_tested"]
    assert "2 replicates are there" in compared(values(seeds=2))["not_tested"]


@pytest.mark.parametrize("there", [{"data": 3}, {"seeds": 3}, {"data": 3, "cells": 4}])
def test_data_sets_and_distillations_are(there: dict[str, int]) -> None:
    found = compared(values(**there))
    assert (found["replicates"], found["not_tested"]) == (3, None)
    assert found["mean_ranks"] == {"dm": 1.0, "dsa": 2.0, "idc": 3.0}
    assert found["p"] == pytest.approx(1 / 36), "further cells do not make it smaller"


def test_unequal_budgets_are_not_compared() -> None:
    found = compared(values(data=5, shares=(0.005, 0.06, 0.0003)))
    assert (found["p"], found["cells_unequal"], found["mean_ranks"]) == (None, 5, None)
    assert "unequal shares of the published iterations (dm 0.5 %, dsa 6 %, idc 0.03 %)" in found["not_tested"].lower()
    assert "of an unknown whole" in compared(values(data=5, shares=(1.0, math.nan, 1.0)))["not_tested"]
    assert compared(values(data=5, shares=(1.0, None, 0.95)))["not_tested"] is None, "a coreset has no iterations"


def test_a_method_without_seeds_makes_distillations_one() -> None:
    seeded = [value for value in values(seeds=4) if value.variant != "idc"]
    fixed = [value._replace(distill_seed=None) for value in values() if value.variant == "idc"]
    assert compared(seeded + fixed)["replicates"] == 1


def test_small_p_are_rare_where_cells_hang_together() -> None:
    """Where nothing differs but a method is good or bad in all cells of a distillation, five replicates count as five:
    taken as twenty, their p would be small in half of the cases."""
    random, small = np.random.default_rng(3), []
    for _ in range(200):
        luck = random.normal(size=(5, 3))
        made = [
            value._replace(value=luck[value.distill_seed or 0, METHODS.index(value.variant)] + 0.01 * random.normal())
            for value in values(seeds=5, cells=4)
        ]
        p = compared(made)["p"]
        assert p is not None
        small.append(p <= 0.05)
    assert np.mean(small) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_cells_that_lack_a_method_are_left_out_and_counted() -> None:
    made = [
        value
        for value in values(data=4, cells=2)
        if (value.replicate[0], value.cell, value.variant) != ("data 0", (0,), "dm")
    ]
    found = compared(made)
    assert (found["replicates"], found["cells"], found["cells_left_out"]) == (4, 7, 1)


# --- in the report ----------------------------------------------------------------------------------------------------

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], ipc: [1, 2], seed: [0], init: [real], distill_seed: SEEDS}
  settings: {dm: {iterations: 200}, dsa: {iterations: ITERATIONS}, dc: {iterations: 10}}
grids:
  all: {axes: {method: [random, full, dm, dsa, dc]}}
"""


def told(point: GridPoint) -> float:
    return {"random": 0.1, "full": 0.9, "dm": 0.4, "dsa": 0.5, "dc": 0.3}[point.method] + 0.01 * (point.ipc or 0)


def made(folder: Path, seeds: str, iterations: int = 10) -> tuple[Path, str]:
    text = SWEEP.replace("SEEDS", seeds).replace("ITERATIONS", str(iterations))
    results = worlds.filled(folder, text, told)
    page = report(results)
    return results, page[page.index("## Do the methods differ?") :]


def test_the_report_tests_over_distillations(tmp_path: Path) -> None:
    results, section = made(tmp_path, "[0, 1, 2, 3]")
    found = {entry["property"]: entry for entry in machine_report(results)["contrasts"]}
    accuracy = found["accuracy"]
    assert accuracy["mean_ranks"] == {"dm": 2.0, "dsa": 3.0, "dc": 1.0}, "random and full take no part"
    assert (accuracy["replicates"], accuracy["cells"]) == (4, 8)
    assert accuracy["p"] == pytest.approx(6.0**-3, abs=2e-3)
    assert "DSA 3.0, DM 2.0, DC 1.0" in section
    fairness = found["variance of class accuracies at equal accuracy"]
    assert (fairness["p"], fairness["not_tested"]) == (None, "no method has such numbers")
    assert accuracy["p_adjusted"] == accuracy["p"], "the variance, which goes with accuracy, is no second test"


def test_the_report_says_why_nothing_was_tested(tmp_path: Path) -> None:
    _, section = made(tmp_path / "one", "[0]")
    assert "accuracy, protocol quick: not tested, because one replicate is there (2 cells share" in section
    assert "mean ranks" not in section
    _, section = made(tmp_path / "budgets", "[0, 1, 2]", iterations=500)
    assert "not tested, because the methods ran for unequal shares of the published iterations (DSA 50 %" in section
