"""`ddray doctor`: what is unfit is said with a remedy, and nothing is changed by looking."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from workspace import Workspace

from ddray.commands import doctor, machine
from ddray.commands.doctor import Finding, examine, text
from ddray.settings import RAY_ENVIRONMENT
from trainables.data.layout import find_source


def findings(workspace: Workspace) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(workspace.folders)}


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
    data = workspace.folders.data
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
    below = workspace.folders.data / "cifar10" / "plain_text"
    below.mkdir(parents=True)
    (below / "train-00000-of-00001.parquet").touch()
    assert "cifar10/plain_text/train-*.parquet without test-*.parquet" in findings(workspace)["data cifar10"].value
    (below / "test-00000-of-00001.parquet").touch()
    found = findings(workspace)["data cifar10"]
    assert (found.level, str(below) in found.value) == ("good", True)
    assert find_source("cifar10", None, workspace.folders.data) is not None


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


# --- the machine --------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "DASHBOARD_PORT", port)
        found = findings(workspace)[f"port {port}"]
        assert (found.level, "taken" in found.value, "next free port" in found.remedy) == ("note", True, True)
    assert findings(workspace)[f"port {port}"].level == "good"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_is_too_long_for_sockets(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # else what was found first holds
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert findings(workspace)["temporary"].value.startswith("/tmp (")
    long = workspace.folder / ("scratch-of-a-batch-system" * 2)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(variable, str(long))
    found = findings(workspace)["temporary"]
    assert (found.level, "RAY_TMPDIR" in found.remedy) == ("note", True)
    assert f"{long} has {len(str(long))} bytes" in found.value
    assert "used instead: /tmp" in found.value


def test_little_space_below_the_temporary_folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TEMPORARY_WARNING_BYTES", 2**60)
    found = findings(workspace)["temporary"]
    assert (found.level, "spilled" in found.remedy) == ("note", True)


def mounted(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc" / "mounts").write_text("".join(f"{line} rw,relatime 0 0\n" for line in lines))
    monkeypatch.setattr(machine, "PROC", folder / "proc")


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "beegfs", "fuse.sshfs"])
def test_a_store_that_nodes_share(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    home = workspace.folders.home
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("DDRAY_CACHE", str(workspace.folder / "elsewhere"))
    mounted(workspace.folder, monkeypatch, "/dev/sda / ext4", f"server:/export {home} {kind}")
    found = findings(workspace)
    assert f"{kind} of server:/export: nodes that mount it share it" in found["DDRAY_STORE"].value
    assert found["DDRAY_STORE"].level == "note"
    assert (found["DDRAY_HOME"].level, "MLflow" in found["DDRAY_HOME"].remedy) == ("note", True)
    assert found["DDRAY_CACHE"].level == "good"


def test_a_store_on_a_disk_in_memory_and_in_a_container(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(workspace.folder, monkeypatch, "/dev/sda / ext4")
    found = findings(workspace)["DDRAY_STORE"]
    assert "ext4, a disk of this machine: on a cluster all nodes need one folder or a URL" in found.value
    for kind, told in (("tmpfs", "is memory"), ("overlay", "goes with it")):
        mounted(workspace.folder, monkeypatch, "/dev/sda / ext4", f"{kind} {workspace.folder} {kind}")
        found = findings(workspace)["DDRAY_STORE"]
        assert (kind in found.value, told in found.remedy) == (True, True)
    monkeypatch.setenv("DDRAY_STORE", "memory://store")
    assert "the same from every node" in findings(workspace)["DDRAY_STORE"].value


def test_which_file_system_a_folder_lies_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine.mount_of(tmp_path)
    assert here is not None, "of this machine"
    (tmp_path / "a b").mkdir()
    text = str(tmp_path / "a b").replace(" ", "\\040")
    mounted(tmp_path, monkeypatch, "root / ext4", f"old {text} xfs", f"new {text} nfs", f"other {tmp_path}/a btrfs")
    assert str(machine.mount_of(tmp_path / "a b" / "to" / "be" / "made")) == "nfs of new", (
        "the later one hides the other"
    )
    assert str(machine.mount_of(tmp_path / "a b c")) == "ext4"
    monkeypatch.setattr(machine, "PROC", tmp_path / "not there")
    assert machine.mount_of(tmp_path) is None


def test_cpus_that_a_container_may_use(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, groups = workspace.folder / "proc", workspace.folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (groups / "user" / "job").mkdir(parents=True)
    monkeypatch.setattr(machine, "PROC", proc)
    monkeypatch.setattr(machine, "CGROUP", groups)
    cpus = len(os.sched_getaffinity(0))
    (proc / "self" / "cgroup").write_text("0::/user/job\n")
    (groups / "user" / "job" / "cpu.max").write_text("max 100000\n")
    assert machine.cpu_limit() is None
    assert (findings(workspace)["CPUs"].level, findings(workspace)["CPUs"].value) == ("good", str(cpus))
    (groups / "user" / "cpu.max").write_text("50000 100000\n")
    assert machine.cpu_limit() == 0.5, "of the group above"
    found = findings(workspace)["CPUs"]
    assert (found.level, "lets this process use 0.5" in found.value) == ("note", True)
    assert "--cpus 1" in found.remedy

    (proc / "self" / "cgroup").write_text("4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n")
    old = groups / "cpu,cpuacct"
    old.mkdir()
    for name, value in (("quota", -1), ("period", 100000)):
        (old / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert machine.cpu_limit() is None
    (old / "cpu.cfs_quota_us").write_text("150000\n")
    assert machine.cpu_limit() == 1.5, "in a container the group's own path is not there"
