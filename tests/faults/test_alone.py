"""Runs beside others: whom they wait for is said, and a plain sweep joins nobody's Ray."""

from __future__ import annotations

import json
import time

import pytest
from trials import LOCAL, Trial
from workspace import Workspace


@pytest.mark.faults
def test_waiting_is_said_once_with_whom_it_waits_for(trial: Trial) -> None:
    """Of a node whose clock is an hour ahead."""
    trial.finish()
    stage = trial.stages("accuracy")[0]
    trial.remove([stage])
    claim = trial.store / "claims" / f"{stage.key}.json"
    claim.parent.mkdir(parents=True, exist_ok=True)
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "heartbeat": time.time() + 3600, "token": "x"}))
    with trial.start(*LOCAL) as running:
        running.until(lambda: "waiting for" in running.err)
        time.sleep(5.0)
        claim.unlink()
        ran = running.wait()
    assert ran.code == 0, ran.err
    assert ran.err.count("which is computed elsewhere (process 1 on elsewhere") == 1


@pytest.mark.ray
@pytest.mark.faults
def test_a_plain_sweep_starts_a_ray_of_its_own_whatever_the_environment_says(workspace: Workspace) -> None:
    """RAY_ADDRESS as in pods and job scripts, and a TMPDIR that is longer than names of sockets may be."""
    long = workspace.folder / ("a-folder-of-a-batch-system-" * 4)
    long.mkdir()
    ran = workspace.spawn(
        *("sweep", workspace.tiny(), "--cpus", "1", "--no-mlflow"), RAY_ADDRESS="127.0.0.1:29999", TMPDIR=str(long)
    )
    assert ran.code == 0, ran.err
    assert "4 of 4 points done" in ran.err
