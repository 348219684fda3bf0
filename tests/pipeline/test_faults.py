"""Disks, networks, clocks and files that go wrong: what a run says, and that a second run gives equal results."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from workspace import Workspace, mounted

from ddray.errors import EnvironmentProblem
from ddray.run.sweep import with_variables
from ddray.store import artifacts
from ddray.store.artifacts import Store
from ddray.store.files import LocalFiles

LOCAL = ("--local", "--no-mlflow")


def finished(workspace: Workspace) -> Path:
    path = workspace.tiny()
    ran = workspace.run("sweep", path, *LOCAL)
    assert ran.code == 0, ran.err
    return path


def key_of(workspace: Workspace, kind: str) -> str:
    return next(key for key in sorted(workspace.store.keys()) if workspace.store.manifest(key).kind == kind)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times, survives", [(2, True), (3, False)])
def test_an_error_of_reading_is_tried_again_and_never_taken_for_damage(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, times: int, survives: bool
) -> None:
    finished(workspace)
    key, original, left = key_of(workspace, "accuracy"), LocalFiles.read, [times]

    def failing(self: LocalFiles, path: str) -> bytes:
        if key in path and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error", path)
        return original(self, path)

    monkeypatch.setattr(LocalFiles, "read", failing)
    monkeypatch.setattr(artifacts, "READ_AGAIN_SECONDS", (0.0, 0.0))
    if survives:
        assert workspace.store.open(key).manifest.key == key
    else:
        with pytest.raises(EnvironmentProblem, match=rf"artifact {key[:12]} cannot be read; got .*Input/output error"):
            workspace.store.open(key)
    assert workspace.store.has(key)
    assert not (Path(workspace.folders.store) / "quarantine").exists()


def test_damage_that_is_met_while_tables_are_made_is_computed_again_in_the_same_run(workspace: Workspace) -> None:
    path = finished(workspace)
    before, table = workspace.payloads(), workspace.table("tiny")
    key = key_of(workspace, "accuracy")
    metrics = workspace.store.open(key).folder / "metrics.json"
    metrics.write_bytes(metrics.read_bytes()[:-3])
    (workspace.results("tiny").folder / "state.json").unlink()  # as in a second home on a shared store
    ran = workspace.run("sweep", path, *LOCAL)
    assert ran.code == 0, ran.err
    assert "computed again" in ran.err
    assert "4 of 4 points done" in ran.err
    assert workspace.payloads() == before
    assert workspace.table("tiny").equals(table)


def test_what_a_worker_says_is_looked_up(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a node that writes into another store than the driver's."""
    monkeypatch.setattr(Store, "commit", lambda self, folder, manifest: True)
    ran = workspace.run("sweep", workspace.tiny(), *LOCAL)
    assert ran.code == 1, ran.err
    assert "still without" in ran.err
    assert "Look whether all nodes see the same store" in ran.err


def test_a_table_that_was_cut_short_is_built_again(workspace: Workspace) -> None:
    path = finished(workspace)
    table, file = workspace.table("tiny"), workspace.results("tiny").measurements
    os.truncate(file, 500)
    assert workspace.run("sweep", path, *LOCAL).code == 0
    assert workspace.table("tiny").equals(table)


@pytest.mark.parametrize("content", ["", "[]", '{"path": 3}'])
def test_a_results_folder_that_does_not_know_its_sweep(workspace: Workspace, content: str) -> None:
    path = finished(workspace)
    (workspace.results("tiny").folder / "sweep.json").write_text(content)
    ran = workspace.run("report", "tiny")
    assert ran.code == 2
    assert "sweep.json: does not say which file the sweep was run from" in ran.err
    assert workspace.run("status", "tiny").code in (0, 2)
    assert workspace.run("sweep", path, *LOCAL).code == 0
    assert workspace.run("report", "tiny").code == 0


# --- writing ----------------------------------------------------------------------------------------------------------


def test_damage_in_a_store_that_cannot_be_written(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "disk", "700m") as disk:
        monkeypatch.setenv("DDRAY_STORE", str(disk / "store"))
        path = finished(workspace)
        key = key_of(workspace, "accuracy")
        os.truncate(workspace.store.open(key).folder / "metrics.json", 3)
        (workspace.results("tiny").folder / "state.json").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for command in (("collect", path), ("sweep", path, *LOCAL)):
            ran = workspace.run(*command)
            assert ran.code == 3, ran.err
            assert f"artifact {key[:12]} is damaged" in ran.err
            assert "cannot be moved away" in ran.err


# --- the machines of others ------------------------------------------------------------------------------------------


def test_names_are_no_commands(workspace: Workspace) -> None:
    text = """
ddray: 1
notify: {command: "echo told {sweep} {status} > told.txt"}
grids:
  a:
    axes: {method: [random], dataset: [digits], architecture: [convnet3-d2-w8], ipc: [1]}
    protocol: quick
    train: {epochs: 1}
"""
    path = workspace.write("x$(touch broken-in)", text)
    ran = workspace.spawn("sweep", path, *LOCAL)
    assert ran.code == 0, ran.err
    assert (workspace.folder / "told.txt").read_text() == "told x$(touch broken-in) done\n"
    assert not (workspace.folder / "broken-in").exists()


@pytest.mark.parametrize(
    "command, said",
    [
        ("echo {sweep} {status}", "NAME done"),
        ("echo 'sweep {sweep}: {status}'", "sweep NAME: done"),
        ('echo "it\'s {sweep}"', "it's NAME"),
        ("echo it\\'s {sweep}", "it's NAME"),
        ("echo '\\' {sweep}", "\\ NAME"),
        ("echo '\"{sweep}\"'", '"NAME"'),
    ],
)
def test_names_stay_names_however_a_command_quotes_them(tmp_path: Path, command: str, said: str) -> None:
    name = "x$(touch broken-in) `touch broken-in` '\"; touch broken-in"
    text = with_variables(command, {"{sweep}": "DDRAY_SWEEP", "{status}": "DDRAY_STATUS"})
    variables = {**os.environ, "DDRAY_SWEEP": name, "DDRAY_STATUS": "done"}
    ran = subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=tmp_path, env=variables)
    assert ran.stdout == said.replace("NAME", name) + "\n"
    assert list(tmp_path.glob("broken*")) == []


@pytest.mark.parametrize(
    "said, advice",
    [
        ("The current node timed out during startup. This could happen because ...", "too busy to start Ray in time"),
        ("AF_UNIX path length cannot exceed 107 bytes", "Set RAY_TMPDIR to a shorter path"),
        ("something nobody has seen yet", "`ddray doctor` looks for the usual reasons"),
    ],
)
def test_a_ray_that_does_not_start_ends_with_a_message(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    import ray

    def init(*arguments: object, **options: object) -> None:
        raise Exception(said)

    monkeypatch.setattr(ray, "init", init)
    ran = workspace.run("sweep", workspace.tiny(), "--no-mlflow")
    assert ran.code == 3
    assert advice in ran.err
    assert "--local" in ran.err or "RAY_TMPDIR" in ran.err
    assert "Traceback" not in ran.err
