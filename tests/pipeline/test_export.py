"""`ddray export`: sets that other programs read, and that ddray reads again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from workspace import Workspace

from ddray.commands.export import FORMS
from trainables.external.sets import read_set
from trainables.payloads import DistilledSet

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 1}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [3], ipc: [4], init: [real]}
grids:
  sets:
    axes: {method: [random, dm, idc], seed: [0, 1]}
    settings:
      dm: {iterations: 2, batch_real: 8, width: 8}
      idc: {iterations: 1, inner_loop: 1, factor: 2, width: 8}
"""


@pytest.fixture
def swept(workspace: Workspace) -> Workspace:
    ran = workspace.run("sweep", workspace.write("sets", SWEEP), "--local", "--no-mlflow", "--quiet")
    assert ran.code == 0, ran.err
    return workspace


@pytest.mark.parametrize("form", [form for form in FORMS if form != "png"])
def test_a_set_is_read_again_as_it_was(swept: Workspace, form: str) -> None:
    into = swept.folder / "out"
    ran = swept.run("export", "sets", into, "--form", form)
    assert ran.code == 0, ran.err
    written = json.loads((into / "sets.json").read_text())
    assert sorted(each["method"] for each in written) == ["dm", "idc", "random"], "trainings share a set"
    plan = swept.prepare(swept.folder / "sets.yaml").plan
    for each in written:
        stage = plan.stages[each["key"]]
        config, factor = stage.config, each["factor"]
        assert factor == (2 if each["method"] == "idc" else 1)
        again = read_set(
            into / each["folder"] / each["set"],
            config.dataset,
            config.origin.classes,
            space=each["space"],
            mean=each["mean"] if each["space"] == "normalised" else None,
            std=each["std"] if each["space"] == "normalised" else None,
            factor=factor,
            labels=into / each["folder"] / each["labels"] if "labels" in each else None,
        )
        ours = DistilledSet.load(swept.store.open(each["key"]).folder)
        torch.testing.assert_close(again.images, ours.images, rtol=0, atol=1e-6)
        assert torch.equal(again.labels.classes, ours.labels.classes)
        assert again.info["factor"] == factor


def test_the_command_that_is_written_works(swept: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    into = swept.folder / "out"
    assert swept.run("export", "sets", into, "--form", "mtt", "--only", "method=dm").code == 0
    (each,) = json.loads((into / "sets.json").read_text())
    monkeypatch.chdir(into / each["folder"])
    options = (
        "--train",
        "epochs=1",
        "--protocol",
        "quick",
        "--robustness",
        "none",
        "--local",
        "--no-mlflow",
        "--quiet",
    )
    ran = swept.run(*shlex.split(each["evaluate"])[1:], *options)
    assert ran.code == 0, ran.err


def test_pictures_are_the_images_clamped(swept: Workspace) -> None:
    into = swept.folder / "out"
    assert swept.run("export", "sets", into, "--form", "png", "--only", "method=random").code == 0
    (each,) = json.loads((into / "sets.json").read_text())
    assert "evaluate" not in each
    pictures = sorted(Path(into / each["folder"]).glob("*/*.png"))
    ours = DistilledSet.load(swept.store.open(each["key"]).folder)
    assert len(pictures) == len(ours.images) == 12
    shown = torch.tensor(list(Image.open(pictures[0]).get_flattened_data())).view(8, 8)
    torch.testing.assert_close(shown / 255, ours.images[0, 0].clamp(0, 1), rtol=0, atol=0.5 / 255 + 1e-6)


def test_nothing_finished_is_said(workspace: Workspace) -> None:
    ran = workspace.run("export", workspace.write("none", SWEEP), workspace.folder / "out")
    assert ran.code == 2
    assert "none of its distilled sets is finished" in ran.err
