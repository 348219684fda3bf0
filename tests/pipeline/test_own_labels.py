"""A method whose sets have soft labels of their own, from the sweep file to the report and to other programs."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from pyarrow import parquet
from workspace import Workspace

from ddray.results import MEASUREMENTS_FILE

SWEEP = """
ddray: 1
defaults:
  protocol: datm
  train: {epochs: 3}
  axes: {dataset: [digits], architecture: [convnet3-w8], num_classes: [2], ipc: [2], seed: [0]}
  settings: {datm: {width: 8, syn_steps: 2, num_experts: 2, expert_snapshots: 3, max_start: 2, early_starts: null,
                    batch_syn: null, snapshot_steps: 20, lr_expert: 0.1, batch_expert: 64, zca: false, lr_label: 50.0,
                    lr_img: 1.0, lr_syn: 0.1}}
grids:
  real_images: {axes: {method: [random]}}
  start: {axes: {method: [datm]}, settings: {datm: {iterations: 0}}}
  learned: {axes: {method: [datm]}, settings: {datm: {iterations: 3}}}
"""
AUDITED = SWEEP.replace(
    "grids:",
    "  evaluations: {privacy: {audit: [seed], rows: 4, targets: 2, shadows: 1, "
    "population: 5, reserve: 0, start: false, attacks: [data_release]}}\ngrids:",
).replace("seed: [0]}", "seed: [0], origin_per_class: [10]}")


@pytest.fixture
def swept(workspace: Workspace) -> Workspace:
    ran = workspace.run("sweep", workspace.write("own", SWEEP), "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    return workspace


def rows_of(workspace: Workspace, metric: str, **wanted: Any) -> list[dict[str, Any]]:
    rows = parquet.read_table(workspace.results("own").folder / MEASUREMENTS_FILE).to_pylist()
    wanted |= {"metric": metric, "class_id": None}
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


def test_rows_and_report_tell_them_from_hard_ones(swept: Workspace) -> None:
    kinds = {(row["method"], row["distill_iters"]): row["label_kind"] for row in rows_of(swept, "test_acc")}
    assert kinds == {("random", None): "hard", ("datm", 0): "soft", ("datm", 3): "soft"}
    budgets = {row["distill_iters"]: row["budget_fraction"] for row in rows_of(swept, "test_acc")}
    assert budgets == {None: None, 0: 0.0, 3: 3 / 10_000}
    for row in rows_of(swept, "test_acc", method="datm"):
        said = json.loads(row["param_json"])["labels"]
        assert (said["form"], said["source"], said["loss"]) == ("logits", "learned", "soft_ce")
        assert (said["temperature"], said["scaled"]) == (1.0, False)
    agreement = {row["distill_iters"]: row["value"] for row in rows_of(swept, "label_agreement")}
    assert agreement[0] == 1.0, "a start is labelled by experts that are right"
    entropy = {row["distill_iters"]: row["value"] for row in rows_of(swept, "label_entropy")}
    assert entropy.keys() == {0, 3}
    assert entropy[0] != entropy[3], "labels were learned"
    ran = swept.run("report", "own", "--full")
    assert ran.code == 0, ran.err
    assert "own" in ran.out
    assert "DATM" in ran.out


@pytest.mark.parametrize("form, zca", [("mtt", False), ("mtt", True), ("safetensors", False)])
def test_other_programs_get_the_labels_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, form: str, zca: bool
) -> None:
    """What is read again trains to the same accuracy."""
    text = SWEEP.replace("num_classes: [2], ", "").replace("epochs: 3", "epochs: 300")
    path = workspace.write("own", text.replace("zca: false", f"zca: {str(zca).lower()}"))
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "method=datm")
    assert ran.code == 0, ran.err
    (ours,) = rows_of(workspace, "test_acc", method="datm", distill_iters=3)
    stages = workspace.prepare(path).plan.stages
    into = workspace.folder / form
    assert workspace.run("export", "own", into, "--form", form, "--only", "method=datm").code == 0
    written = json.loads((into / "sets.json").read_text())
    (learned,) = [each for each in written if stages[each["key"]].config.settings["iterations"] == 3]
    monkeypatch.chdir(into / learned["folder"])
    options = ("--train", "epochs=300", "--protocol", "datm", "--architecture", "convnet3-w8", "--local")
    command = shlex.split(learned["evaluate"])[1:]
    ran = workspace.run(*command, *options, "--robustness", "none", "--no-mlflow", "--json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["blocks"][0]["rows"]
    rounding = 0.03 if zca else 1e-9  # what was whitened, unwhitened and whitened again is a little different
    assert row["cells"]["external"]["accuracy"]["mean"] == pytest.approx(ours["value"], abs=rounding)
    assert ours["value"] > 0.2, "the control: twice chance"


def test_a_set_of_some_classes_is_written_without_a_command(swept: Workspace) -> None:
    into = swept.folder / "some"
    assert swept.run("export", "own", into, "--form", "mtt").code == 0
    written = {each["method"]: "evaluate" in each for each in json.loads((into / "sets.json").read_text())}
    assert written == {"random": True, "datm": False}


def test_a_plan_asks_for_the_start_and_refuses_a_loss_for_other_labels(workspace: Workspace) -> None:
    alone = workspace.write("alone", SWEEP.replace("iterations: 0", "iterations: 2"))
    ran = workspace.run("plan", alone)
    assert ran.code == 0, ran.err
    assert "no control; got datm, whose sets have soft labels, on digits at ipc 2" in ran.out + ran.err
    assert "Add a grid with settings: {datm: {iterations: 0}}." in ran.out + ran.err
    assert "no control" not in (beside := workspace.run("plan", workspace.write("own", SWEEP))).out + beside.err
    ran = workspace.run("check", workspace.write("l2", SWEEP.replace("epochs: 3", "epochs: 3, label_loss: l2")))
    assert ran.code == 2
    assert "is for targets of a regression, and datm's labels are logits" in ran.err + ran.out


def test_an_audit_attacks_what_is_published(workspace: Workspace) -> None:
    path = workspace.write("own", AUDITED)
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    plan = workspace.prepare(path).plan
    experts = {stage.key for stage in plan.stages.values() if stage.kind == "experts"}
    for stage in plan.stages.values():
        if stage.kind == "distill" and stage.config.method == "datm":
            assert {key for role, key in stage.inputs if role.startswith("expert")} <= experts
    origins = {str(plan.stages[key].config.origin) for key in experts}
    assert len(origins) > 1, "each shadow has experts of its own"
    rows = rows_of(workspace, "mia_auc", method="datm", attack="data_release")
    assert rows
    assert all(0 <= row["value"] <= 1 for row in rows)
