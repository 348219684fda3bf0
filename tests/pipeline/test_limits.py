"""A run that is given so long, or so many hours: it does a part, says so, and the next one does the rest."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from workspace import Workspace

from ddray.price import devices

CROWD = """
ddray: 1
resources: {dm: {gpu: 1.0}, train: {gpu: 0.25}, random: {gpu: 0.25}}
defaults:
  protocol: quick
  train: {epochs: 40}
  axes: {dataset: [digits], architecture: [convnet3-w16], num_classes: [2], ipc: [1], init: [real]}
grids:
  random:
    axes: {method: [random], seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
  dm:
    axes: {method: [dm]}
    settings: {dm: {iterations: 3, batch_real: 8, width: 8}}
"""
"""One job of a whole card, third in order, and many small ones."""
LONG = """
from ddray.run import schedule
schedule.LONG_GFLOP = 0.0
from ddray.cli import main
main()
"""
"""Every job is taken for one that is worth a new worker."""


def points(workspace: Workspace) -> dict[str, int]:
    counts: dict[str, int] = json.loads((workspace.results("tiny").folder / "coverage.json").read_text())["points"]
    return counts


def test_a_budget_holds_a_part_and_the_next_run_does_the_rest(workspace: Workspace) -> None:
    path = workspace.tiny()
    facts = json.loads(workspace.run("plan", path, "--gpu", "cpu-1", "--simulate", "--json").out)
    half = f"{1800 * facts['simulation']['work_hours']:.6f}s"
    planned = json.loads(workspace.run("plan", path, "--gpu", "cpu-1", "--budget", half, "--json").out)["simulation"]
    assert 0 < len(planned["points"]) < 4
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--budget", half)
    assert ran.code == 0, ran.err
    assert "are left for later" in ran.err
    assert points(workspace)["done"] == len(planned["points"])
    assert points(workspace)["failed"] == 0
    first = workspace.manifests()
    again = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert again.code == 0, again.err
    assert points(workspace)["done"] == 4
    assert first.items() <= workspace.manifests().items(), "nothing twice"


def test_what_fits_nowhere_starts_nothing(workspace: Workspace) -> None:
    ran = workspace.run("sweep", workspace.tiny(), "--local", "--no-mlflow", "--for", "0.001s")
    assert ran.code == 0, ran.err
    assert "are left for later" in ran.err
    assert workspace.manifests() == {}


def test_a_time_that_is_over_ends_in_checkpoints(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs were expected to take no time at all."""
    for name in devices.CORE_GFLOPS:
        monkeypatch.setitem(devices.CORE_GFLOPS, name, 1e12)
    path = workspace.tiny(iterations=100_000)
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "method=dm", "--for", "6s")
    assert ran.code == 130, ran.err
    assert "the time is over; running stages write a checkpoint" in ran.err
    assert "Run the same command again to continue." in ran.err
    assert workspace.store.checkpointed()


@pytest.mark.ray
def test_a_whole_card_gets_its_turn_among_small_jobs(workspace: Workspace) -> None:
    """On a real Ray with one logical card: the card runs empty for it, though small jobs wait all the time."""
    path = workspace.write("tiny", CROWD)
    ran = workspace.spawn("sweep", path, "--no-mlflow", "--gpus", "1", "--cpus", "4", script=LONG)
    assert ran.code == 0, ran.err
    begun: dict[str, Any] = {}
    store = workspace.store
    for key in sorted(store.keys()):
        manifest = store.manifest(key)
        if manifest.kind in ("distill", "train"):
            begun[manifest.label] = datetime.fromisoformat(manifest.provenance["started_at"])
    (whole,) = [at for label, at in begun.items() if label.startswith("distill dm")]
    later = [label for label, at in begun.items() if label.startswith("train random") and at > whole]
    assert len(later) >= 4, f"{len(later)} of 10 small jobs began after it"
