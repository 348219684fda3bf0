"""Agreement with the paper's Table 3: intervals hold what they say, and a verdict can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds

from ddray.measurements.references import CHEN2023
from ddray.plan.points import GridPoint
from ddray.report.report import machine_report, report
from ddray.report.sections.agreement import _reach, _scatter
from ddray.store import files

TABLE3 = """
ddray: 1
grids:
  t:
    protocol: paper2023
    axes: {method: [dm, dsa], dataset: [cifar10], ipc: [10], seed: [0, 1, 2], distill_seed: DISTILL_SEEDS}
"""


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_flush", lambda path: None)


def filled(folder: Path, off: dict[str, float], distill_seeds: int = 3) -> Path:
    """Our accuracies: the paper's, so far off, scattering by a point between sets and half of one between trainings."""

    def accuracy(point: GridPoint) -> float:
        published = CHEN2023.accuracy_of("cifar10", 10, "convnet3", point.method)
        assert published is not None
        scatter = 0.01 * ((point.distill_seed or 0) - (distill_seeds - 1) / 2) + 0.005 * (point.seed - 1)
        return published.mean + off.get(point.method, 0.0) + scatter

    return worlds.filled(folder, TABLE3.replace("DISTILL_SEEDS", str(list(range(distill_seeds)))), accuracy)


def cells(folder: Path) -> dict[str, dict[str, Any]]:
    found = machine_report(folder)["agreement"]
    return {cell["method"]: cell for cell in found["cells"]}


def test_a_verdict_can_fail(tmp_path: Path) -> None:
    found = cells(filled(tmp_path, {"dm": 0.004, "dsa": 0.09}))
    assert {name: cell["agrees"] for name, cell in found.items()} == {"dm": True, "dsa": False}
    assert found["dm"]["difference"] == pytest.approx(0.004, abs=1e-3)
    text = report(tmp_path / "results")
    assert "1 of 2 cells agree." in text
    assert "With two methods of a row exchanged" in text
    (line,) = [
        line for line in text.splitlines() if line.startswith("| cifar10, convnet3, ipc 10") and "| DSA " in line
    ]
    assert "| +9." in line
    assert line.rstrip().endswith("| differs |")


def test_without_several_sets_there_is_no_verdict(tmp_path: Path) -> None:
    found = cells(filled(tmp_path, {}, distill_seeds=1))
    assert {cell["agrees"] for cell in found.values()} == {None}
    assert "No verdicts: no cell is of several distilled sets" in report(tmp_path / "results")


def test_order_and_exchange_are_counted(tmp_path: Path) -> None:
    """The two are a tenth of a point apart in the paper: exchanged they agree just as well, and the report says so."""
    found = machine_report(filled(tmp_path, {}))["agreement"]
    assert found["order"] == {"kept": 1, "pairs": 1}
    assert found["exchanged"] == {"agree": 2, "pairs": 2}
    turned = machine_report(filled(tmp_path / "turned", {"dm": 0.03}))["agreement"]
    assert turned["order"]["pairs"] == 1


def test_nothing_is_said_where_nothing_may_stand_beside_the_paper(tmp_path: Path) -> None:
    folder = worlds.filled(tmp_path, worlds.SWEEP)
    assert machine_report(folder)["agreement"] is None
    assert "agree with the paper's Table 3?" not in report(folder)


@pytest.mark.parametrize(("sets", "scatter"), [(3, 0.01), (3, 0.003), (5, 0.01)])
def test_the_prediction_interval_holds_as_often_as_it_says(sets: int, scatter: float) -> None:
    """Programs that are equal, trainings that scatter by half a point; four cells pooled. Nominal 95 %."""
    rng, held, count = np.random.default_rng(0), 0, 1500
    training = 0.005
    for _ in range(count):
        theirs = rng.normal(0, scatter) + rng.normal(0, training, 3)
        means = rng.normal(0, scatter, (4, sets)) + rng.normal(0, training, (4, sets, 3)).mean(axis=2)
        ours = [{"mean": each.mean(), "sd": each.std(ddof=1), "count": sets, "unit": "distillations"} for each in means]
        cell = {"method": "dm", "accuracy": ours[0], "paper": {"mean": theirs.mean(), "sd": theirs.std(ddof=1)}}
        reach = _reach(cell, _scatter(ours))
        assert reach is not None
        held += abs(ours[0]["mean"] - theirs.mean()) <= reach
    assert 0.93 <= held / count <= 0.995
