"""Disks, files, databases and clocks that go wrong: told, without harm to what is finished, mended by the next run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from trials import LOCAL, Trial
from workspace import mounted


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- full and failing disks ---------------------------------------------------------------------------------------


@pytest.mark.fault("disk full")
def test_a_full_disk_stops_the_run_with_one_message_and_no_leftovers(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "disk", "700m") as disk:
        monkeypatch.setenv("DDRAY_STORE", str(disk / "store"))
        with trial.start(*LOCAL) as running:
            running.until(lambda: trial.workspace.store.keys())
            with contextlib.suppress(OSError), (disk / "fill").open("wb") as fill:
                while True:
                    fill.write(bytes(2**16))
                    fill.flush()
            ran = running.wait()
        assert ran.code == 3, ran.err
        assert ran.err.count("No space left on device") == 1, ran.err
        assert "Traceback" not in ran.err
        assert "failed" not in ran.err
        assert [name for name in os.listdir(trial.store / "claims") if name.startswith(".")] == []
        assert trial.workspace.store.failures() == set()
        (disk / "fill").unlink()
        trial.again()


@pytest.mark.fault("errors of reading and writing")
@pytest.mark.parametrize("what", ["FAULT_READS", "FAULT_WRITES"])
def test_every_tenth_fails(trial: Trial, shim: str, what: str) -> None:
    log = trial.workspace.folder / "faults"
    where = {"LD_PRELOAD": shim, "FAULT_FOLDER": f"{trial.store}/", "FAULT_LOG": str(log)}
    with trial.start(*LOCAL, **where, **{what: "10"}) as running:
        ran = running.wait()
    assert log.stat().st_size > 3, "control: they did fail"
    assert ran.code in (0, 1, 3), ran.err
    assert "Traceback" not in ran.err
    assert not (trial.store / "quarantine").exists(), "an error of reading is no damage"
    trial.again()


# --- damage -------------------------------------------------------------------------------------------------------


def an_artifact(trial: Trial) -> set[str]:
    stage = trial.stages("train")[0]
    flip(trial.workspace.store.open(stage.key).folder / "model.safetensors")
    return {stage.key}


def a_manifest(trial: Trial) -> set[str]:
    stage = trial.stages("accuracy")[0]
    halve(trial.store / "artifacts" / stage.key[:2] / stage.key / "manifest.json")
    return {stage.key}


def a_checkpoint(trial: Trial) -> set[str]:
    """The last of a distillation that is to be continued."""
    stage = next(stage for stage in trial.stages("distill") if trial.workspace.checkpoints(stage.lineage))
    last = sorted((trial.store / "checkpoints" / stage.lineage[:2] / stage.lineage).iterdir())[-1]
    flip(max(last.iterdir(), key=lambda path: path.stat().st_size))
    trial.remove([stage])
    return {stage.key}


def the_cache(trial: Trial) -> set[str]:
    """What a training is to be repeated on."""
    (images,) = trial.workspace.folders.cache.glob("data/*/test_images.npy")
    flip(images)
    stage = trial.stages("train")[0]
    trial.remove([stage])
    return {stage.key}


def the_state(trial: Trial) -> set[str]:
    halve(trial.workspace.results("tiny").folder / "state.json")
    return set()


@pytest.mark.fault("damaged files")
@pytest.mark.parametrize("damage", [an_artifact, a_manifest, a_checkpoint, the_cache, the_state])
def test_damage(trial: Trial, damage: Callable[[Trial], set[str]]) -> None:
    trial.finish()
    trial.again(spoilt=damage(trial))


# --- the mirror ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("MLflow's database")
@pytest.mark.parametrize("what", ["locked", "of another MLflow"])
def test_the_mirrors_database(trial: Trial, what: str) -> None:
    """An outage of the mirror loses nothing; the next run catches up."""
    trial.finish()
    database = trial.workspace.folders.mlflow_database
    mirrored = ("--local",)
    trial.again(how=mirrored)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM tags")
        connection.execute("DELETE FROM metrics")
        if what == "locked":
            connection.commit()
            connection.execute("BEGIN EXCLUSIVE")
        else:
            connection.execute("UPDATE alembic_version SET version_num = 'feedfeedfeed'")
            connection.commit()
        results = trial.workspace.results("tiny")
        state = json.loads((results.folder / "state.json").read_text())
        (results.folder / "state.json").write_text(json.dumps({**state, "mirrored": ""}))
        ran = trial.again(how=mirrored)
        assert "MLflow was not updated" in ran.err
    if what != "locked":
        shutil.rmtree(database.parent)  # as the message says
    with trial.start(*mirrored) as running:  # in another process: MLflow keeps connections
        ran = running.wait()
    assert ran.code == 0, ran.err
    assert "MLflow: " in ran.err
    trial.again()


# --- clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("clock jumps")
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_the_clock_of_one_of_two_drivers_jumps(trial: Trial, shim: str, seconds: int) -> None:
    """In the middle of its work; claims are of use all the same, so that nothing is computed twice."""
    jumped = trial.workspace.folder / "jumped"
    clock = {"LD_PRELOAD": shim, "FAULT_JUMP": str(seconds), "FAULT_JUMPED": str(jumped)}
    homes = [{"DDRAY_HOME": str(trial.workspace.folder / name), "DDRAY_STORE": str(trial.store)} for name in ("a", "b")]
    with trial.start(*LOCAL, **clock, **homes[0]) as one, trial.start(*LOCAL, **homes[1]) as other:
        one.until(lambda: trial.progress())
        jumped.touch()
        for running in (one, other):
            ran = running.wait()
            assert ran.code == 0, ran.err
    trial.again()
