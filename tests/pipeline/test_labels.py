"""A teacher's labels, as a person asks for them: the four cells of images and labels, one teacher, continued after a
stop; and an audit that attacks what the labels tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyarrow import parquet
from workspace import Workspace, stages

from ddray.plan.graph import Stage
from ddray.prepare import Prepared

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 2}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [2], ipc: [1], init: [real], seed: [0, 1]}
grids:
  four:
    axes: {method: [random, dm], labels: [null, teacher-quick-e3]}
    settings: {dm: {iterations: 3, batch_real: 8, width: 8}}
"""
AUDITED = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 2}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [2], ipc: [2], seed: [0], origin_per_class: [10]}
grids:
  audited:
    axes: {method: [random], labels: [null, teacher-quick-e3]}
    evaluations:
      privacy: {audit: [seed, pool], rows: 4, targets: 2, shadows: 1, population: 5, reserve: 0, start: false,
                attacks: [loss, data_release]}
"""
LABELS = "teacher-quick-e3"


def rows_of(workspace: Workspace, metric: str, name: str, **wanted: Any) -> list[dict[str, Any]]:
    rows = parquet.read_table(workspace.results(name).measurements).to_pylist()
    wanted["metric"] = metric
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


def teachers(prepared: Prepared) -> list[Stage]:
    keys = {key for stage in prepared.plan.stages.values() for role, key in stage.inputs if role == "teacher"}
    return [prepared.plan.stages[key] for key in sorted(keys)]


def test_four_cells_with_one_teacher_continue_and_stand_apart(workspace: Workspace) -> None:
    path = workspace.write("four", SWEEP)
    ran = workspace.run(
        "sweep", path, "--local", "--no-mlflow", "--only", "method=random", "--only", f"labels={LABELS}"
    )
    assert ran.code == 0, ran.err
    prepared = workspace.prepare(path)
    (teacher,) = teachers(prepared)
    before = workspace.manifests()
    assert len(before) == 1 + 1 + 2 + 2, "the draw, the teacher, two trainings with their accuracies"
    assert teacher.key in before
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert "8 of 8 points done" in ran.err
    after = workspace.manifests()
    assert {key: after[key] for key in before} == before, "nothing is computed twice"
    assert set(after) == set(prepared.plan.stages)

    accuracies = rows_of(workspace, "test_acc", "four", class_id=None)
    cells = {(row["method"], row["labels"], row["label_kind"]) for row in accuracies}
    assert cells == {(method, *of) for method in ("random", "dm") for of in ((None, "hard"), (LABELS, "soft"))}
    assert len(accuracies) == 8
    for row in accuracies:
        said = json.loads(row["param_json"])
        assert said.get("labels", {}).get("teacher") == (
            {"name": LABELS, "key": teacher.key} if row["labels"] else None
        )
    of_teacher = rows_of(workspace, "teacher_acc", "four")
    assert {(row["method"], row["labels"]) for row in of_teacher} == {("random", LABELS), ("dm", LABELS)}
    assert len({row["value"] for row in of_teacher}) == 1
    assert {row["value"] for row in rows_of(workspace, "label_bytes", "four")} == {4.0 * 2 * 2}

    report = json.loads(workspace.run("report", path, "--json").out)
    (block,) = report["blocks"]
    (entry,) = block["labels"]
    means = {(row["method"], row["labels"]): 0.0 for row in accuracies}
    for row in accuracies:
        means[row["method"], row["labels"]] += row["value"] / 2
    assert entry["image_gain_soft"]["mean"] == pytest.approx(means["dm", LABELS] - means["random", LABELS])
    assert entry["label_gain"]["mean"] == pytest.approx(means["dm", LABELS] - means["dm", None])
    whole = means["dm", LABELS] - means["random", LABELS] - means["dm", None] + means["random", None]
    assert entry["interaction"]["mean"] == pytest.approx(whole)

    second = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert (second.code, "nothing to do; 8 of 8 points done" in second.err) == (0, True)
    assert workspace.manifests() == after


def test_an_audit_attacks_what_labels_tell_in_worlds_of_their_own(workspace: Workspace) -> None:
    path = workspace.write("audited", AUDITED)
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    prepared = workspace.prepare(path)
    assert len(teachers(prepared)) == 1 + 1 + 4, "of the point, of its shadow, of each row"
    (hard,) = stages(prepared, "privacy", labels=None)
    (soft,) = stages(prepared, "privacy", labels=LABELS)
    assert not any(role.endswith(".teacher") for role, _ in hard.inputs)
    assert [role for role, _ in soft.inputs if role.endswith(".teacher")] == [
        "seed.teacher",
        *(f"row.{i}.teacher" for i in range(4)),
    ]
    released = rows_of(workspace, "mia_auc", "audited", attack="data_release", audit="pool", agg="mean_targets")
    distances = {(row["labels"], json.loads(row["param_json"]).get("distance")) for row in released}
    assert (LABELS, "labels") in distances, "labels are published too"
    assert (None, "labels") not in distances
    of_pixels = {
        row["labels"]: row["value"]
        for row in released
        if json.loads(row["param_json"]).get("distance") == "pixel" and row["flag"] is None
    }
    assert of_pixels[None] == of_pixels[LABELS], "the images are the same"
    against = [
        (row["attack"], json.loads(row["param_json"])["against"])
        for row in rows_of(workspace, "mia_auc_delta", "audited", labels=LABELS)
    ]
    assert ("loss", {"labels": "hard"}) in against
    assert all(attack == "loss" for attack, of in against if "labels" in of)
    (trainings,) = {row["value"] for row in rows_of(workspace, "privacy_trainings", "audited", labels=LABELS)}
    assert trainings == 2 * (1 + 4), "a student and a teacher in each world but the point's own"
