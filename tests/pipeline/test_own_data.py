"""Sweeps on data of one's own: what was read and what is wrong with it is said, and damage is not computed with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from workspace import Workspace

OWN = """
ddray: 1
defaults: {protocol: quick, train: {steps: 5}}
datasets: {leaves: {folder: leaves, like: digits}}
grids:
  g: {axes: {method: [full], dataset: [leaves], architecture: [convnet3-d2-w8], origin_per_class: [4]}}
"""
AUDIT = "evaluations: {privacy: {audit: [seed], shadows: 0, start: false, attacks: [loss]}}"


def write_leaves(workspace: Workspace, classes: int = 10, shared: int = 0) -> Path:
    """Ten gray images of each class in each split, of which the first ``shared`` are the same in both."""
    rng = np.random.default_rng(0)
    root = workspace.folders.data / "leaves"
    for label in range(classes):
        images = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
        for split, chosen in (("train", images[:10]), ("test", [*images[:shared], *images[10 + shared :]])):
            folder = root / split / f"kind{label}"
            folder.mkdir(parents=True)
            for number, image in enumerate(chosen):
                Image.fromarray(image).save(folder / f"{split}{number}.png")
    return root


def sweep(workspace: Workspace, path: Path) -> Any:
    return workspace.run("sweep", path, "--local", "--no-mlflow", "-q")


def forget(workspace: Workspace, *kinds: str) -> None:
    """Remove finished stages of these kinds."""
    for manifest in Path(workspace.folders.store).glob("artifacts/*/*/manifest.json"):
        if json.loads(manifest.read_text())["kind"] in kinds:
            shutil.rmtree(manifest.parent)


def alarms(workspace: Workspace, name: str) -> list[str]:
    told: list[str] = json.loads(workspace.run("report", name, "--json").out)["alarms"]
    return told


def test_what_was_read_is_said_and_identical_images_sound_an_alarm(workspace: Workspace) -> None:
    write_leaves(workspace, shared=3)
    path = workspace.write("own", OWN)
    planned = workspace.run("plan", path)
    assert planned.code == 0, planned.err
    assert "leaves: 100 training and 100 test images of 10 classes from " in planned.err
    assert "0 = kind0" in planned.err
    sentence = "leaves: identical images: 30 of 100 test images are also training images"
    assert sentence in planned.err
    ran = sweep(workspace, path)
    assert ran.code == 0, ran.err
    assert sentence in ran.out
    assert sentence in alarms(workspace, "own")


def test_data_without_identical_images_sound_none(workspace: Workspace) -> None:
    write_leaves(workspace)
    ran = sweep(workspace, workspace.write("own", OWN))
    assert ran.code == 0, ran.err
    assert "identical images" not in ran.out + ran.err


def test_a_changed_cache_changes_no_payload(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workspace.tiny()
    assert sweep(workspace, path).code == 0
    before = workspace.payloads()
    (images,) = Path(workspace.folders.cache).glob("data/*/test_images.npy")
    content = bytearray(images.read_bytes())
    content[200:6000] = bytes(byte ^ 0xFF for byte in content[200:6000])
    images.write_bytes(content)
    with monkeypatch.context() as patched:  # control: unnoticed, it does change payloads
        patched.setattr("trainables.data.cache.file_sha256", lambda file: _said(file))
        forget(workspace, "train", "accuracy")
        assert sweep(workspace, path).code == 0
        assert workspace.payloads() != before
    forget(workspace, "train", "accuracy")
    ran = workspace.spawn("sweep", path, "--local", "--no-mlflow", "-q")  # has compared nothing yet
    assert ran.code == 0, ran.err
    assert "the decoded images changed since they were written" in ran.err
    assert workspace.payloads() == before


def _said(file: Path) -> str:
    """The digest that the index has of a file, whatever the file holds."""
    digest: str = json.loads((file.parent / "index.json").read_text())["sha256"][file.name]
    return digest


def test_data_with_any_number_of_classes_are_swept(workspace: Workspace) -> None:
    write_leaves(workspace, classes=3)
    refused = workspace.run("plan", workspace.write("ten", OWN))
    assert refused.code == 2
    assert "wrong number of classes; got 3 folders with images (kind0, kind1, kind2); expected 10" in refused.err
    assert "declare the folder with classes: 3." in refused.err
    text = OWN.replace("like: digits", "like: digits, classes: 3").replace("[full]", "[full, random]")
    path = workspace.write("three", text.replace("[4]}}", f"[4], ipc: [1], num_classes: [null, 2]}}, {AUDIT}}}"))
    ran = sweep(workspace, path)  # as the message says
    assert ran.code == 0, ran.err
    assert "leaves: 30 training and 30 test images of 3 classes" in ran.err
    rows = parquet.read_table(workspace.results("three").measurements).to_pylist()
    accuracies = [row for row in rows if row["metric"] == "test_acc" and row["split"] == "test"]
    assert {row["num_classes"] for row in accuracies} == {2, 3}
    assert {json.loads(row["param_json"])["declared"]["classes"] for row in accuracies} == {3}
    four = workspace.run("plan", workspace.write("four", text.replace("[4]}}", "[4], num_classes: [4]}}")))
    assert (four.code, "more classes than leaves has; got 4; expected 2 to 3" in four.err) == (2, True)


def test_classes_are_of_a_folder(workspace: Workspace) -> None:
    ran = workspace.run("check", workspace.write("none", OWN.replace("folder: leaves, ", "classes: 3, ")))
    assert ran.code == 2
    assert "datasets.leaves.classes: only a folder has classes of its own; got 3" in ran.err


def test_an_audit_of_data_with_twins_says_how_many_it_left_out(workspace: Workspace) -> None:
    write_leaves(workspace, shared=10)
    ran = sweep(workspace, workspace.write("own", OWN.replace("[4]}}", f"[4]}}, {AUDIT}}}")))
    assert ran.code == 0, ran.err
    told = alarms(workspace, "own")
    assert "leaves: identical images: 100 of 100 test images are also training images" in told
    assert any(
        alarm.startswith("privacy, audit seed: left out 40 images that are identical to others") for alarm in told
    )


def test_images_that_ran_away_fail_their_stage_and_name_the_setting(workspace: Workspace) -> None:
    text = """
ddray: 1
defaults: {protocol: quick, train: {steps: 5}}
grids:
  g:
    axes: {method: [dm], dataset: [digits], ipc: [1], architecture: [convnet3-d2]}
    settings: {dm: {iterations: 20, lr_img: RATE, batch_real: 8, depth: 2}}
"""
    ran = sweep(workspace, workspace.write("far", text.replace("RATE", "1.0e+6")))
    assert ran.code == 1
    assert "the distilled images left the range of images; got values from -" in ran.err
    assert "Lower settings.dm: lr_img" in ran.err
    assert sweep(workspace, workspace.write("near", text.replace("RATE", "1.0"))).code == 0  # control


def test_data_of_points_that_are_not_run_need_not_be_there(workspace: Workspace) -> None:
    sweep = workspace.write(
        "two",
        """
        ddray: 1
        defaults:
          protocol: quick
          train: {epochs: 1}
          axes: {architecture: [convnet3], num_classes: [2], ipc: [1]}
        grids:
          random: {axes: {dataset: [digits, cifar100], method: [random]}}
        """,
    )
    refused = workspace.run("sweep", sweep, "--local", "--no-mlflow", "--quiet")
    assert refused.code == 3
    assert "cifar100: no complete data set" in refused.err
    ran = workspace.run("sweep", sweep, "--only", "dataset=digits", "--local", "--no-mlflow", "--quiet")
    assert ran.code == 0, ran.err
    assert "1 of 2 points done" in ran.err
