"""Too little memory on a real Ray: of a card (a logical one), and of the machine."""

from __future__ import annotations

import json

import pytest
from workspace import Workspace

TOO_SMALL = """
import sys

class Small:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("trainables.distill.dm", "trainables.distill.dsa"):
            import os, ray
            has = ray.get_runtime_context().get_assigned_resources()
            if name.endswith("dm") and sum(has[each] for each in has if each.startswith("GPU")) < 0.5:
                import torch
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            if name.endswith("dsa") and sum(has[each] for each in has if each.startswith("CPU")) < 2:
                os.kill(os.getpid(), 9)

sys.meta_path.insert(0, Small)
"""
"""A ``sitecustomize``: DM needs half of a card, and DSA as much of the machine as two CPUs stand for."""
ANOTHER_RAY = """
import time, ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
time.sleep(300)
"""
SWEEP = """
ddray: 1
resources: {distill: {gpu: 0.125}, train: {gpu: 0.125}}
defaults:
  protocol: quick
  train: {epochs: 1}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [2], ipc: [1], init: [real]}
grids:
  dm:
    axes: {method: [dm], distill_seed: [0, 1]}
    settings: {dm: {iterations: 2, batch_real: 8, width: 8}}
  dsa:
    axes: {method: [dsa]}
    settings: {dsa: {iterations: 2, batch_real: 8, width: 8}}
"""


@pytest.mark.faults
@pytest.mark.ray
def test_a_stage_that_runs_out_of_memory_gets_more_and_the_sweep_ends_well(workspace: Workspace) -> None:
    (workspace.folder / "sitecustomize.py").write_text(TOO_SMALL)
    sweep = workspace.write("tight", SWEEP)
    said = ("sweep", sweep, "--cpus", "2", "--gpus", "1", "--no-mlflow")
    with workspace.start(*said, PYTHONPATH=str(workspace.folder)) as running:
        running.until(lambda: "Ray dashboard" in running.err)
        with workspace.start(
            script=ANOTHER_RAY
        ):  # that of somebody else, which Ray's tools would ask about our workers
            ran = running.wait()
    assert ran.code == 0, ran.err
    assert "3 of 3 points done" in ran.err
    assert "the job is tried again with 0.25 of a card instead of 0.125" in ran.err
    assert "the job is tried again with 0.5 of a card instead of 0.25" in ran.err
    assert "the job is tried again with the memory of 2 CPUs instead of 1" in ran.err
    assert workspace.store.failures() == set()
    shares = {
        (manifest.label.split()[1], manifest.provenance["gpu_share"], manifest.provenance["cpus"])
        for manifest in map(workspace.store.manifest, workspace.store.keys())
        if manifest.kind == "distill"
    }
    assert shares == {("dm", 0.5, 1.0), ("dsa", 0.125, 1.0)}, "as many threads as ever"
    hint = json.loads(workspace.store.hint("shares.json") or b"{}")
    (remembered,) = hint["devices"].values()
    assert list(remembered.values()) == [0.5]
