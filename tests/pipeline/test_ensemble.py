"""Repeats that are trained together, as a person asks for them: one training, a row per seed, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from workspace import Workspace, stages

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 3, ensemble: ENSEMBLE}
  axes: {dataset: [digits], num_classes: [3], ipc: [2], seed: [0, 1, 2]}
grids:
  real: {axes: {method: [random]}}
"""


def sweep(workspace: Workspace, ensemble: bool, name: str = "repeats") -> Path:
    return workspace.write(name, SWEEP.replace("ENSEMBLE", str(ensemble).lower()))


def rows_of(workspace: Workspace, metric: str, name: str = "repeats") -> list[dict[str, Any]]:
    rows = parquet.read_table(workspace.results(name).measurements).to_pylist()
    return [row for row in rows if row["metric"] == metric]


def test_repeats_are_trained_together_and_stand_apart_in_the_tables(workspace: Workspace) -> None:
    path = sweep(workspace, ensemble=True)
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "seed=1")
    assert ran.code == 0, ran.err
    (ensemble,) = stages(workspace.prepare(path), "ensemble")
    before = workspace.manifests()
    assert ensemble.key in before
    assert len(before) == 4, "of the ensemble's members only the one that was asked for was taken out"
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert "3 of 3 points done" in ran.err
    after = workspace.manifests()
    assert {key: after[key] for key in before} == before, "trained once for all"
    assert len(after) == 1 + 1 + 3 + 3

    rows = rows_of(workspace, "test_acc")
    assert sorted(row["seed"] for row in rows) == [0, 1, 2]
    assert {row["protocol"] for row in rows} == {"quick*"}, "for its epochs alone"
    for row in rows:
        said = json.loads(row["param_json"])
        assert (said["protocol_changes"], said["ensemble"]) == ({"epochs": 3}, [0, 1, 2])
    assert [row["stage_key"] for row in rows_of(workspace, "ensemble_s")] == [ensemble.key] * 3

    second = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert (second.code, "nothing to do; 3 of 3 points done" in second.err) == (0, True)
    assert workspace.manifests() == after


def test_the_numbers_are_those_of_repeats_one_by_one(workspace: Workspace) -> None:
    for ensemble in (True, False):
        path = sweep(workspace, ensemble, name=f"together-{ensemble}".lower())
        ran = workspace.run("sweep", path, "--local", "--no-mlflow")
        assert ran.code == 0, ran.err
    together, alone = (
        {row["seed"]: row["value"] for row in rows_of(workspace, "test_loss", f"together-{word}")}
        for word in ("true", "false")
    )
    assert together.keys() == alone.keys() == {0, 1, 2}
    assert together == pytest.approx(alone, rel=5e-5)
    assert min(abs(alone[one] - alone[two]) for one, two in ((0, 1), (0, 2), (1, 2))) > 5e-4, (
        "so that it says something"
    )
