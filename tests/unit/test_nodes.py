"""What a node must share with the driver: each that it lacks is named, with what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from workspace import Workspace, stages

from ddray.run import nodes
from ddray.run.nodes import Agreement, agreement, disagreement, on_this_node
from ddray.run.stage import WorkerEnv
from ddray.store.witness import Witness

COMMIT = "0123456789ab" + "0" * 28


class Driver:
    """A driver's side, and what it says of a node that is this process."""

    def __init__(self, workspace: Workspace) -> None:
        folders = workspace.folders
        self.store = workspace.store
        self.env = WorkerEnv(folders.store, str(folders.data), str(folders.cache), code={"commit": None})
        self.witness = Witness(self.store.files)
        self.witness.write()
        (stage,) = stages(workspace.prepare(workspace.tiny()), "distill", method="dm")
        self.agreed = agreement(self.env, self.witness, [stage.config.dataset])  # type: ignore[attr-defined]

    def says(self, agreed: Agreement | None = None, env: WorkerEnv | None = None) -> str:
        return disagreement(agreed or self.agreed, env or self.env, "a-node")


@pytest.fixture
def driver(workspace: Workspace) -> Driver:
    return Driver(workspace)


def test_a_node_like_the_driver_may_take_jobs(driver: Driver) -> None:
    assert not driver.witness.answered("a-node")
    assert driver.says() == ""
    assert driver.witness.answered("a-node")
    assert not driver.witness.answered("another")
    driver.witness.remove()
    assert driver.store.files.names("witnesses") == []


def test_another_version(driver: Driver) -> None:
    versions = {**driver.agreed.versions, "ddray": "0.0.1", "torch": "1.0"}
    said = driver.says(replace(driver.agreed, versions=versions))
    assert f"another ddray; got {driver.agreed.versions['ddray']}; expected 0.0.1" in said
    assert f"another torch; got {driver.agreed.versions['torch']}; expected 1.0" in said
    assert "Install the same version on all nodes." in said


def test_a_build_of_the_same_version_for_another_device_is_no_other_version(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dict(nodes.versions())
    monkeypatch.setattr(nodes, "versions", lambda: {**here, "torch": here["torch"].split("+")[0] + "+cu999"})
    assert driver.says() == ""


def test_another_checkout(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "code_state", lambda: {"commit": "f" * 40, "dirty": False})
    assert driver.says() == "", "the driver runs from no checkout"
    said = driver.says(replace(driver.agreed, commit=COMMIT))
    assert "got ffffffffffff; expected 0123456789ab" in said
    monkeypatch.setattr(nodes, "code_state", lambda: {"commit": None, "dirty": None})
    assert driver.says(replace(driver.agreed, commit=COMMIT)) == "", "neither does the node: versions tell"


def test_another_store(driver: Driver, tmp_path: Path) -> None:
    said = driver.says(replace(driver.agreed, store=str(tmp_path / "elsewhere")))
    assert "does not see the store" in said
    assert f"no file witnesses/{driver.witness.name}/asked there" in said
    assert "mount the folder" in said
    assert not (tmp_path / "elsewhere").exists(), "nothing is made where nothing is"
    said = driver.says(replace(driver.agreed, witness=(driver.witness.name, "another secret")))
    assert "with another content" in said


def test_a_store_of_a_process_s_own(driver: Driver) -> None:
    said = driver.says(replace(driver.agreed, store="memory://elsewhere/store"))
    assert "does not see the store memory://elsewhere/store" in said
    said = driver.says(replace(driver.agreed, store="unheard-of://store"))
    assert "EnvironmentProblem: store unheard-of://store: cannot be opened" in said


def test_a_store_that_cannot_be_written(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(driver.store.files), "write", refuse)
    assert "an error of writing: [Errno 13] Permission denied" in driver.says()


def test_data_that_are_not_there_or_are_others(driver: Driver, tmp_path: Path) -> None:
    (dataset,) = driver.agreed.datasets
    said = driver.says(replace(driver.agreed, datasets=({**dataset, "digest": "sha256:" + "0" * 64},)))
    assert "Its data set digits differs; got sha256:" in said
    assert "expected sha256:000000000000" in said
    nothing = {**dataset, "name": "mine", "folder": "mine"}
    said = driver.says(replace(driver.agreed, datasets=(nothing,)))
    assert "It has no data set mine: no complete data set below" in said


def test_data_and_cache_belong_to_the_node(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDRAY_DATA", "/its/data")
    monkeypatch.delenv("DDRAY_CACHE")
    assert on_this_node(driver.env) == replace(driver.env, data="/its/data")


def test_what_a_killed_driver_left_is_removed_one_day(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.store.tidy()
    assert driver.store.files.names("witnesses") == [driver.witness.name]
    monkeypatch.setattr("ddray.store.artifacts.WITNESS_SECONDS", -1.0)
    driver.store.tidy()
    assert driver.store.files.names("witnesses") == []
