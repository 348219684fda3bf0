"""`ddray doctor`: what is unfit is said with a remedy, and nothing is changed by looking."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from workspace import Workspace

from ddray.commands import doctor
from ddray.commands.doctor import Finding, examine, text
from ddray.settings import RAY_ENVIRONMENT
from trainables.data.layout import find_source


def findings(workspace: Workspace) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(workspace.places)}


def test_every_bad_finding_has_a_remedy_and_nothing_is_made(workspace: Workspace) -> None:
    before = sorted(workspace.folder.rglob("*"))
    found = findings(workspace)
    assert sorted(workspace.folder.rglob("*")) == before
    assert all(finding.remedy for finding in found.values() if finding.level == "bad")
    assert {
        "python",
        "torch",
        "instruction set",
        "ray",
        "DDRAY_HOME",
        "DDRAY_STORE",
        "data digits",
        "CPUs",
    } <= found.keys()
    assert set(RAY_ENVIRONMENT) <= found.keys()
    assert found["data digits"].level == "good"
    assert found["data cifar10"].level == "note", "not there, and that is no fault"


def test_the_command_line_agrees(workspace: Workspace) -> None:
    ran = workspace.run("doctor", "--json")
    levels = {entry["level"] for entry in json.loads(ran.out)}
    assert ran.code == (3 if "bad" in levels else 0)
    shown = workspace.run("doctor")
    assert shown.code == ran.code
    assert shown.out.rstrip().endswith("to mend" if "bad" in levels else "this machine is fit")


def test_text_puts_the_remedy_below_its_finding() -> None:
    lines = text(
        [Finding("good", "python", "3.11"), Finding("bad", "home", "read-only", "set DDRAY_HOME")]
    ).splitlines()
    assert lines[0].startswith("ok   python  3.11")
    assert lines[1].startswith("BAD  home")
    assert lines[2].endswith("-> set DDRAY_HOME")
    assert lines[3] == "1 finding(s) to mend"


def test_a_folder_that_cannot_be_written(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    found = findings(workspace)
    assert (found["DDRAY_HOME"].level, found["DDRAY_CACHE"].level) == ("bad", "bad")
    assert "set DDRAY_HOME" in found["DDRAY_HOME"].remedy


def test_folders_that_hide_packages(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.folder / "ddray").mkdir()
    (workspace.folder / "mlflow").mkdir()
    monkeypatch.chdir(workspace.folder)
    found = findings(workspace)
    assert found["folder ddray/"].level == "bad"
    assert "folder mlflow/" not in found, "without __init__.py it hides nothing"
    (workspace.folder / "mlflow" / "__init__.py").write_text("")
    assert findings(workspace)["folder mlflow/"].level == "bad"


def test_data_that_are_there_and_data_that_are_broken(workspace: Workspace) -> None:
    data = workspace.places.data
    (data / "cifar-100-python").mkdir(parents=True)
    (data / "cifar10").mkdir()
    (data / "cifar10" / "train-00000-of-00001.parquet").symlink_to(workspace.folder / "gone")
    (data / "cifar10" / "test-00000-of-00001.parquet").symlink_to(workspace.folder / "gone")
    found = findings(workspace)
    # An empty folder is no data set: sweep would not find one, and neither does doctor.
    assert found["data cifar100"].level == "note"
    assert "cifar-100-python/ without train, test, meta" in found["data cifar100"].value
    assert found["data cifar10"].level == "bad"
    assert "gone" in found["data cifar10"].value or "cifar10" in found["data cifar10"].value
    assert found["data cifar10"].remedy


def test_data_are_found_where_a_sweep_finds_them(workspace: Workspace) -> None:
    below = workspace.places.data / "cifar10" / "plain_text"
    below.mkdir(parents=True)
    (below / "train-00000-of-00001.parquet").touch()
    assert "cifar10/plain_text/train-*.parquet without test-*.parquet" in findings(workspace)["data cifar10"].value
    (below / "test-00000-of-00001.parquet").touch()
    found = findings(workspace)["data cifar10"]
    assert (found.level, str(below) in found.value) == ("good", True)
    assert find_source("cifar10", None, workspace.places.data) is not None


def test_a_missing_library_and_a_foreign_setting(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", (*doctor.LIBRARIES, "no-such-library"))
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = findings(workspace)
    assert (found["no-such-library"].level, "make setup" in found["no-such-library"].remedy) == ("bad", True)
    assert "ddray's own choice is 64" in found["TUNE_MAX_PENDING_TRIALS_PG"].value
    assert "10.0.0.1" in found["RAY_ADDRESS"].value


def test_a_card_that_torch_cannot_use(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The driver's tool sees a card, torch does not: the wheel does not fit."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("NOT RUN: torch can use the card here")
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho Tesla V100-SXM2-32GB\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    found = findings(workspace)["GPU"]
    assert found.level == "bad"
    assert "Tesla V100" in found.value
    monkeypatch.setenv("PATH", "")
    assert findings(workspace)["GPU"].level == "note"
