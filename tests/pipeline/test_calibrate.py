"""`ddray calibrate`: a few steps say what a stage takes, and plan goes by it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from workspace import Workspace

from ddray.commands.calibrate import calibrated_text
from ddray.price.measured import measured_in
from ddray.run import calibrate

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 60}
  axes: {dataset: [digits], architecture: [convnet3], ipc: [1], init: [real]}
grids:
  dm:
    axes: {method: [dm]}
    settings: {dm: {iterations: 400, batch_real: 8, width: 8}}
  mtt:
    axes: {method: [mtt]}
    settings: {mtt: {iterations: 400, syn_steps: 4, num_experts: 1, expert_snapshots: 6, max_start: 2}}
  random:
    axes: {method: [random]}
"""


def test_shapes_are_tried_and_the_plan_rests_on_them(workspace: Workspace) -> None:
    sweep = workspace.write("tried", SWEEP)
    before = json.loads(workspace.run("plan", sweep, "--json").out)["cost"]
    ran = workspace.run("calibrate", sweep, "--seconds", "0.5", "--json")
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    shapes = {shape["label"].split()[0] + " " + shape["label"].split()[1]: shape for shape in facts["shapes"]}
    assert shapes.keys() == {"distill dm", "distill random", "experts mtt", "train random"}
    dm = shapes["distill dm"]
    assert 3 <= dm["steps"] < dm["total"] == 400
    assert dm["seconds"] == pytest.approx(400 * dm["step_seconds"], rel=0.5), "and a moment before the first"
    assert any(name.startswith("distill.") and " mtt " in name for name in facts["untried"]), "it needs experts"
    assert set(facts["company"]) <= {"1", "2", "4", "8"}

    known = measured_in(workspace.store)
    ((_, classes),) = known.stages.items()
    assert dm["cost_class"] in classes
    after = json.loads(workspace.run("plan", sweep, "--json").out)["cost"]
    assert after != before
    assert "measured" in json.dumps(after)
    again = json.loads(workspace.run("calibrate", sweep, "--seconds", "0.5", "--json").out)
    assert again["shapes"] == [], "what is known is not tried again"
    assert "nothing to try" in calibrated_text(again)

    ran = workspace.run("sweep", sweep, "--only", "method=dm", "--local", "--no-mlflow", "--quiet")
    assert ran.code == 0, ran.err
    (took,) = (
        manifest.provenance["seconds"]
        for manifest in map(workspace.store.manifest, workspace.store.keys())
        if manifest.kind == "distill"
    )
    assert 1 / 3 < dm["seconds"] / took < 3, "on a busy machine; docs/benchmarks/ has the errors on a quiet one"


def test_a_stage_that_fails_is_told_and_the_others_are_tried(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(trial: calibrate.Trial, count: int) -> list[Any]:
        class Barrier:
            wait = abort = staticmethod(lambda: None)

        return [calibrate.begin(trial, Barrier()) for _ in range(count)]

    monkeypatch.setattr(calibrate, "_at_once", here)
    text = SWEEP.replace("batch_real: 8, width: 8", "batch_real: 8, width: 8, norm: none, lr_img: 1.0e+30")
    ran = workspace.run("calibrate", workspace.write("fails", text), "--seconds", "0.2")
    assert ran.code == 0, ran.err
    assert "distill dm digits ipc=1 init=real: failed; StageFailure: dm: " in ran.out
    assert "train random digits" in ran.out
