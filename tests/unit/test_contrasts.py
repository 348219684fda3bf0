"""Friedman's test over cells: its statistic against SciPy's, its level under no difference, and what may enter it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
from scipy.stats import friedmanchisquare

from ddray.measurements.rows import collect
from ddray.report.report import machine_report, report
from ddray.report.sections.contrasts import contrasts, friedman, merged


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


def test_rows_that_hold_the_same_number_of_a_method_are_one_cell() -> None:
    """A method that does not know an axis stands in every row of it: counted each time it would look like agreement."""
    place: tuple[Any, ...] = ("digits", None, None, "convnet3", None, None)
    cells = {
        (*place, 1, "noise", None, None): {"dm": 0.5, "dsa": 0.6, "dc": 0.7},
        (*place, 1, "real", None, None): {"dm": 0.7, "dsa": 0.8, "dc": 0.7},
        (*place, 5, "noise", None, None): {"dm": 0.5, "dsa": 0.9},
        (*place, 5, "real", None, None): {"dm": 0.6, "dsa": 0.8},
        (*place, 10, "noise", None, None): {"dm": 0.5},
    }
    found = merged(cells)
    assert len(found) == 4, "of ipc 1 one; other ipc are other cells, whatever they hold"
    assert found[0] == {"dm": pytest.approx(0.6), "dsa": pytest.approx(0.7), "dc": pytest.approx(0.7)}
    assert {"dm": 0.5, "dsa": 0.9} in found
    assert {"dm": 0.5} in found
    chain = {
        (*place, 1, str(index), None, None): {"a": float(index // 2), "b": float((index + 1) // 2)}
        for index in range(4)
    }
    assert len(merged(chain)) == 1, "a row that shares a number with two others joins them"


def test_ties_alone_are_no_difference() -> None:
    assert friedman(np.ones((5, 3))) == (0.0, None)


TEXT = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], ipc: [1, 2, 5, 10, 20, 50], seed: [0, 1], distill_seed: [0]}
  settings: {dm: {iterations: 200}, dsa: {iterations: 100}}
grids:
  all: {axes: {method: [random, full, dm, dsa, herding]}}
"""


def told(method: str, ipc: int) -> float:
    return {"random": 0.1, "full": 0.9, "dm": 0.4, "dsa": 0.5, "herding": 0.3}[method] + 0.001 * ipc


def test_the_report_tests_methods_over_cells(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, TEXT)
    worlds.fill(store, plan, accuracy=lambda point: told(point.method, point.ipc or 0))
    folder = tmp_path / "r"
    collect(plan, sweep, store, folder)
    entries = {entry["property"]: entry for entry in machine_report(folder)["contrasts"]}
    found = entries["accuracy"]
    assert found["mean_ranks"] == {"dm": 2.0, "dsa": 3.0, "herding": 1.0}, "random and full take no part"
    assert (found["cells"], found["cells_left_out"]) == (6, 0)
    assert found["p"] <= 6.0**-5 + 3e-3
    assert found["p_adjusted"] >= found["p"]
    text = report(folder)
    section = text[text.index("## Do the methods differ over all cells?") :]
    assert "DSA 3.0, DM 2.0, Herding 1.0" in section


def cell(values: dict[str, float], ipc: int) -> dict[str, Any]:
    fairness = {"fair_var_acc_corr": None}
    return {
        "ipc": ipc,
        "cells": {name: {"accuracy": {"mean": value}, "fairness": fairness} for name, value in values.items()},
    }


def block(rows: list[dict[str, Any]]) -> dict[str, Any]:
    where = dict.fromkeys(("num_classes", "class_draw", "origin_per_class", "origin_draw"))
    return {
        "dataset": "digits",
        "architecture": "convnet3",
        "protocol": "quick",
        "rows": rows,
        "robustness": [],
        **where,
    }


def test_cells_that_lack_a_method_are_left_out_and_counted() -> None:
    rows = [cell({"dm": 0.4, "dsa": 0.5 + ipc / 100}, ipc) for ipc in range(1, 7)]
    (found,) = contrasts([block([*rows, cell({"dm": 0.4}, 7)])], [])
    assert (found["cells"], found["cells_left_out"]) == (6, 1)
    assert found["p"] == pytest.approx(2.0**-5)
    assert contrasts([block(rows[:1])], []) == [], "one cell is no repetition"
    assert contrasts([block([cell({"dm": 0.4, "random": 0.1}, ipc) for ipc in range(6)])], []) == []
