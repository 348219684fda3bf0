"""All methods through a whole sweep: on the digits that are always there, and on real CIFAR-100 images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from workspace import Workspace

from trainables.methods import EXTERNAL, METHODS

DATA = os.environ.get("DDRAY_DATA")
"""As it was when the suite began; a test's own places have none."""
OURS = [
    name
    for name, method in METHODS.items()
    if method.settings.__module__ == "trainables.methods" and name != EXTERNAL and not method.settings.of_groups
]
"""What comes with ddray, but for what needs a file (``test_evaluate.py``) or groups (``test_group_fairness.py``)."""
LEARNERS = [name for name in OURS if "init" in METHODS[name].uses]
SWEEP = """
ddray: 1
DATASETS
defaults:
  protocol: quick
  train: {epochs: 2}
  axes: {dataset: [DATASET], architecture: [convnet3], num_classes: [3], ipc: [1], init: [real]}
grids:
  networks: {axes: {method: [random], architecture: [ARCHITECTURES]}}
  chosen: {axes: {method: [herding, kmeans]}, settings: {kmeans: {restarts: 1}}}
  learned:
    axes: {method: [dm, datadam, dpdm, dsa, dc, mtt, tesla, ftd, datm, idc, idm, dream, ncfm, rded]}
    settings:
      dm: {iterations: 2, batch_real: 8, width: 8, norm: instance}
      datadam: {iterations: 2, batch_real: 8, width: 8, norm: batch}
      dpdm: {iterations: 2, rounds: 2, batch_real: 8, width: 8, norm: instance, epsilon: 100}
      dsa: {iterations: 2, batch_real: 8, width: 8, norm: instance}
      dc: {iterations: 2, batch_real: 8, width: 8, norm: instance}
      mtt: {iterations: 2, width: 8, norm: instance, syn_steps: 2, num_experts: 2, expert_snapshots: 3, max_start: 2,
            match_snapshots: 2, snapshot_steps: 5, batch_expert: 16}
      ftd: {iterations: 2, width: 8, norm: instance, syn_steps: 2, num_experts: 2, expert_snapshots: 3, max_start: 2,
            match_snapshots: 2, snapshot_steps: 5, batch_expert: 16, zca: false}
      tesla: {iterations: 2, width: 8, norm: instance, syn_steps: 2, num_experts: 2, expert_snapshots: 3, max_start: 2,
              match_snapshots: 2, snapshot_steps: 5, batch_expert: 16, zca: false}
      datm: {iterations: 2, width: 8, norm: instance, syn_steps: 2, num_experts: 2, expert_snapshots: 3, max_start: 2,
             match_snapshots: 2, snapshot_steps: 5, batch_expert: 16, early_starts: null, batch_syn: null, zca: false}
      idc: {iterations: 3, inner_loop: 2, batch_real: 8, net_images: 16, width: 8, norm: instance}
      ncfm: {iterations: 2, frequencies: 8, batch_real: 8, num_networks: 2, epochs_net: 1, width: 8, norm: instance}
      idm: {iterations: 2, batch_real: 8, net_steps: 2, batch_net: 16, width: 8, norm: instance}
      rded: {candidates: 8, crops: 2, epochs_net: 1, width: 8, norm: instance}
      dream: {iterations: 3, inner_loop: 2, batch_real: 8, clusters: 6, net_images: 16, width: 8, norm: instance}
  all: {axes: {method: [full], origin_per_class: [20]}}
"""


def rows_of(workspace: Workspace, name: str, metric: str) -> list[dict[str, Any]]:
    rows = parquet.read_table(workspace.results(name).measurements).to_pylist()
    return [row for row in rows if row["metric"] == metric and row["class_id"] is None]


def check(workspace: Workspace, path: Path, points: int) -> None:
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert f"{points} of {points} points done" in ran.err
    rows = rows_of(workspace, path.stem, "test_acc")
    assert {row["method"] for row in rows} == set(OURS)
    assert all(row["status"] == "ok" and 0 <= row["value"] <= 1 for row in rows)
    factors = {row["method"]: (row["factor"], row["effective_ipc"]) for row in rows if row["ipc"] is not None}
    assert factors == {
        name: (2, 4) if name in ("idc", "idm", "dream", "ncfm") else (1, 1) for name in OURS if name != "full"
    }
    assert "nothing to do" in workspace.run("sweep", path, "--local", "--no-mlflow").err


def test_every_method_on_digits(workspace: Workspace) -> None:
    text = SWEEP.replace("DATASETS", "").replace("DATASET", "digits").replace("ARCHITECTURES", "convnet3")
    check(workspace, workspace.write("methods", text), len(OURS))
    rates = {row["method"]: row["value"] for row in rows_of(workspace, "methods", "trained_lr")}
    # MTT's network here is narrower than the one that is trained, so the rate it learned is not for it.
    assert rates == dict.fromkeys(OURS, 0.01)


def test_every_method_and_network_on_cifar100(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small part of the real CIFAR-100, declared as a folder: its images, labels and constants."""
    if not DATA or not (Path(DATA) / "cifar100-mini").is_dir():
        pytest.skip("NOT RUN: cifar100-mini is not below DDRAY_DATA")
    monkeypatch.setenv("DDRAY_DATA", DATA)
    text = SWEEP.replace("DATASETS", "datasets: {cifar100_mini: {folder: cifar100-mini, like: cifar100}}")
    text = text.replace("DATASET", "cifar100_mini").replace("ARCHITECTURES", "convnet3, resnet18-w4, vgg16-w4")
    check(workspace, workspace.write("hundred", text), 2 + len(OURS))
