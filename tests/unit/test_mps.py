"""The driver's multi-process service: started where it can be, told to end, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
