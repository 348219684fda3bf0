"""A finished sweep in Python: its sets, its networks and its figures are those that the numbers are about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from workspace import Workspace, places_in, stages

import ddray
from ddray.errors import DdrayError
from ddray.settings import Folders
from trainables import files
from trainables.data.cache import open_split


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Iterator[tuple[Workspace, Folders]]:
    with places_in(tmp_path_factory.mktemp("opened"), digits_cache) as workspace:
        ran = workspace.run("sweep", workspace.tiny(), "--local", "--no-mlflow")
        assert ran.code == 0, ran.err
        yield workspace, workspace.folders


@pytest.fixture
def finished(once: tuple[Workspace, Folders], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A finished sweep, with its places in force."""
    workspace, places = once
    monkeypatch.setenv("DDRAY_HOME", str(places.home))
    monkeypatch.setenv("DDRAY_STORE", places.store)
    monkeypatch.setenv("DDRAY_CACHE", str(places.cache))
    return workspace


def test_a_set_is_the_one_in_the_store(finished: Workspace) -> None:
    found = ddray.open("tiny").distilled_set(method="dm")
    (stage,) = {stage.key for stage in stages(finished.prepare(finished.folder / "tiny.yaml"), "distill", method="dm")}
    stored = files.load_arrays(finished.store.open(stage).folder / files.SET_TENSORS)
    np.testing.assert_array_equal(found.images, stored["images"])
    np.testing.assert_array_equal(found.labels, stored["labels"])
    assert found.images.shape == (2, 1, 8, 8)
    assert found.info["iterations"] == 3
    assert found.point["method"] == "dm"


def test_a_network_has_the_accuracy_that_its_row_says(finished: Workspace) -> None:
    """Images in [0, 1] in, logits out: evaluated by hand, to the last image."""
    results = ddray.open("tiny")
    network = results.model(method="dm", seed=1)
    assert not network.training
    prepared = finished.prepare(finished.folder / "tiny.yaml")
    dataset = prepared.datasets["digits"].config
    test = open_split(dataset, "test", finished.folders.data, finished.folders.cache)
    chosen = np.isin(np.asarray(test.labels), (0, 1))
    pixels = torch.from_numpy(np.asarray(test.images)[chosen].astype(np.float32) / 255)
    with torch.no_grad():
        said = network(pixels).argmax(1).numpy()
    accuracy = float((said == np.asarray(test.labels)[chosen]).mean())
    rows = results.measurements()
    mine = rows[(rows["metric"] == "test_acc") & (rows["method"] == "dm") & (rows["seed"] == 1)]
    assert accuracy == pytest.approx(float(mine["value"].iloc[0]), abs=1e-9)


def test_figures_and_claims_are_the_reports(finished: Workspace) -> None:
    results = ddray.open("tiny")
    assert results.figures() == ["block-1-accuracy", "block-1-fairness", "block-1-variance", "block-1-classes"]
    svg = results.figure("block-1-accuracy")
    assert svg == (results.folder / "figures" / "block-1-accuracy.svg").read_bytes()
    assert results.figure("block-1-accuracy", "png").startswith(b"\x89PNG")
    claims = results.claims()
    assert len(claims) == 20
    assert claims.loc["C4", "verdict"] == "not run"
    assert results.report()["sweep"] == "tiny"


def test_what_is_not_meant_is_said(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ddray.open("tiny")
    with pytest.raises(DdrayError, match=r"2 are meant; expected one network. Say more of .*seed: 0, 1"):
        results.model(method="dm")
    with pytest.raises(DdrayError, match="no row of distill_s has method='mtt'"):
        results.distilled_set(method="mtt")
    with pytest.raises(DdrayError, match=r"no figure 'block-1-acuracy' as 'svg'.*Did you mean 'block-1-accuracy'"):
        results.figure("block-1-acuracy")
    monkeypatch.setenv("DDRAY_STORE", str(finished.folder / "elsewhere"))
    with pytest.raises(DdrayError, match="has no sound distilled set"):
        results.distilled_set(method="dm")
