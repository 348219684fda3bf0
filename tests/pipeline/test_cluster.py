"""Clusters of several nodes, on real Rays of one machine: nodes join, have no CPUs, or share too little."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Grown
from workspace import Running, Workspace

pytestmark = pytest.mark.ray
SEEDS = (0, 1, 2, 3)
LONG = 1500
"""Iterations: some seconds."""


def jobs_done(running: Running) -> int:
    return max([0, *(int(number) for number in re.findall(r"^\[(\d+)/", running.err, re.MULTILINE))])


def test_a_head_without_cpus_and_gpus_that_are_expected(workspace: Workspace, grown: Grown) -> None:
    """Nothing is there at first; jobs wait for the card, which comes, and use it although the head has none."""
    grown.add(0)
    path = workspace.tiny(resources="{dm: {gpu: 0.5}, train: {gpu: 0.5}}")
    with workspace.start("sweep", path, *grown.options, "--gpus-expected", "1") as running:
        running.until(lambda: "Ray dashboard" in running.err or "without a dashboard" in running.err)
        grown.add(2, 1)
        ran = running.wait()
    assert ran.code == 0, ran.err
    assert "a node has joined: " in ran.err
    assert "2 CPUs and 1 GPUs" in ran.err
    shares = {
        manifest.kind: manifest.provenance["gpu_share"] for manifest in workspace.swept("tiny").manifests.values()
    }
    assert shares["train"] == 0.5
    assert os.listdir(Path(workspace.folders.store) / "witnesses") == []


@pytest.mark.faults
def test_waiting_has_an_end_and_a_reason(workspace: Workspace, grown: Grown) -> None:
    grown.add(0)
    ran = workspace.spawn("sweep", workspace.tiny(), *grown.options, "--wait-for-nodes", "0.05")
    assert ran.code == 3, ran.err
    assert "no node came in 3 s that has 1 CPU; the cluster has no node that may take jobs" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.faults
def test_a_node_of_another_version_is_left_out(workspace: Workspace, grown: Grown, tmp_path: Path) -> None:
    """It would compute other numbers under the same keys; the others go on."""
    other = tmp_path / "other" / "ddray-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: ddray\nVersion: 0.0.1\n")
    grown.add(0)
    grown.add(2, PYTHONPATH=str(other.parent))
    ran = workspace.spawn("sweep", workspace.tiny(), *grown.options)
    assert ran.code == 3, ran.err
    assert ran.err.count("left out: node ") == 1
    assert "It has another ddray; got 0.0.1; expected " in ran.err
    assert "no node of the cluster may take jobs" in ran.err
    grown.add(1)
    ran = workspace.spawn("sweep", workspace.tiny(), *grown.options)
    assert ran.code == 0, ran.err
    assert ran.err.count("left out: node ") == 1


@contextlib.contextmanager
def apart(grown: Grown, store: str) -> Iterator[None]:
    """A node that has a disk of its own where the store lies; the test is NOT RUN where nobody may mount one."""
    mounting = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
    joining = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={grown.cluster.address}"]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("NOT RUN: no disk can be mounted here")
    Path(store).mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mounting, store, *joining, "--num-cpus=2", "--block"],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.faults
def test_a_node_that_sees_another_store_is_left_out_even_when_it_joins_late(workspace: Workspace, grown: Grown) -> None:
    grown.add(1)
    path = workspace.tiny(distill_seeds=SEEDS, iterations=LONG)
    with workspace.start("sweep", path, *grown.options) as running:
        running.until(lambda: jobs_done(running) >= 1)
        with apart(grown, workspace.folders.store):
            running.until(lambda: "left out: node " in running.err)
            ran = running.wait()
    assert ran.code == 0, ran.err
    assert f"It does not see the store {workspace.folders.store}; got no file " in ran.err
    assert "died" not in ran.err
