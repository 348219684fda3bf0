"""The driver's multi-process service: started where it can be, told to end, and never in the way."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest
from workspace import Workspace

from ddray.run.mps import CONTROL, multi_process_service

NAMES = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")


def control(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> Path:
    """A control program that notes what it is asked; returns its notes."""
    notes, program = folder / "notes", folder / CONTROL
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -d ] || read said\necho "$1 $said $CUDA_MPS_PIPE_DIRECTORY" >> {notes}\nexit {code}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return notes


def test_it_runs_inside_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = control(tmp_path, monkeypatch, 0)
    monkeypatch.setenv(NAMES[1], "as before")
    monkeypatch.delenv(NAMES[0], raising=False)
    with multi_process_service() as runs:
        assert runs
        folder = os.environ[NAMES[0]]
        assert os.environ[NAMES[1]] == folder
        assert Path(folder).is_dir()
        assert notes.read_text() == f"-d  {folder}\n"
    assert notes.read_text().splitlines()[1] == f" quit {folder}"
    assert not Path(folder).exists()
    assert NAMES[0] not in os.environ
    assert os.environ[NAMES[1]] == "as before"


def test_it_ends_when_what_runs_inside_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = control(tmp_path, monkeypatch, 0)
    with pytest.raises(ZeroDivisionError), multi_process_service():
        _ = 1 / 0
    assert "quit" in notes.read_text()


def test_where_it_may_not_be_started_nothing_is_asked_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = control(tmp_path, monkeypatch, 1)
    with multi_process_service() as runs:
        assert not runs
    assert "quit" not in notes.read_text()


def test_without_a_driver_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with multi_process_service() as runs:
        assert not runs


def test_a_sweep_takes_it_to_its_workers_and_ends_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real Ray: the process that a job runs in knows where the service listens."""
    notes = control(tmp_path, monkeypatch, 0)
    monkeypatch.delenv(NAMES[0], raising=False)
    with workspace.start("sweep", workspace.tiny(iterations=100), "--mps", "--no-mlflow", "--cpus", "1") as running:
        running.until(lambda: places_of("default_worker.py"))
        (folder,) = places_of("default_worker.py")
        assert notes.read_text() == f"-d  {folder}\n", "it runs while the jobs do"
        ran = running.wait(120)
    assert ran.code == 0, ran.err
    assert "jobs share cards through the driver's multi-process service" in ran.err
    assert notes.read_text().splitlines()[1] == f" quit {folder}"


def places_of(program: str) -> set[str]:
    """Where processes that run a program look for the service, of those that do."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if program in (process / "cmdline").read_text():
                found |= set(re.findall(rf"{NAMES[0]}=([^\0]+)", (process / "environ").read_text()))
    return found


def test_a_sweep_goes_on_without_it(ray_folder: Path) -> None:
    if shutil.which(CONTROL):
        pytest.skip(f"NOT RUN: {CONTROL} is here, and serves")
    said = (ray_folder / "said.txt").read_text()
    assert f"--mps: {CONTROL} is not on the PATH or did not start; jobs that share a card take turns on it" in said


@pytest.mark.parametrize("other", [["--local"], ["--address", "auto"]])
def test_it_is_for_a_ray_that_is_started_here(workspace: Workspace, other: list[str]) -> None:
    ran = workspace.run("sweep", workspace.tiny(), "--mps", *other)
    assert ran.code == 2
    assert "--mps is for a Ray that is started here" in ran.err
    assert "nvidia-cuda-mps-control -d" in ran.err
