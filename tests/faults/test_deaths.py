"""Processes that are killed, asked to stop, or not alone: the same command again ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import Any

import pytest
from clusters import Grown
from trials import LOCAL, RAY, Trial, claims
from workspace import Running

NOTICE_SECONDS = 30
"""Between TERM and KILL, as batch systems and clouds do it."""
WATCH_SECONDS = 25
MOMENTS = 10


def until_steps_are_kept(running: Running, trial: Trial, count: int = 1) -> None:
    """Until stages are finished or checkpoints written, this many more than there were."""
    before = trial.progress()
    running.until(lambda: trial.progress() >= before + count)


def stopped_in_a_job(running: Running, trial: Trial) -> int:
    """The process id of a worker, stopped while it holds a claim."""
    while True:
        running.until(lambda: claims(trial.store))
        for claim in claims(trial.store):
            os.kill(claim["pid"], signal.SIGSTOP)
            if claim in claims(trial.store):
                return int(claim["pid"])
            os.kill(claim["pid"], signal.SIGCONT)


@pytest.mark.ray
@pytest.mark.fault("worker killed")
def test_a_worker(trial: Trial) -> None:
    with trial.start(*RAY) as running:
        until_steps_are_kept(running, trial)
        os.kill(stopped_in_a_job(running, trial), signal.SIGKILL)
        before = trial.finished()
        ran = running.wait()
    assert ran.code == 0, ran.err
    assert "the job is tried again" in ran.err
    trial.compare(before)


@pytest.mark.ray
@pytest.mark.fault("node dies, node joins")
def test_a_node_that_joins_and_one_that_dies(trial: Trial, grown: Grown) -> None:
    """The first worked alone; the second takes its place.

    The first one's worker is stopped within a job, so that this job is never done before its node dies.
    """
    grown.add(0)
    first = grown.add(1, **trial.variables)
    with trial.start(*grown.options) as running:
        until_steps_are_kept(running, trial)
        worker = stopped_in_a_job(running, trial)
        grown.add(1, **trial.variables)
        running.until(lambda: "a node has joined: " in running.err)
        before = trial.finished()
        grown.kill(first)
        os.kill(worker, signal.SIGKILL)
        ran = running.wait()
    assert ran.code == 0, ran.err
    # Ray takes seconds to miss a node, and what is left may be done by then; the worker's end is told at once.
    assert "a node is gone: " in ran.err or "its node cannot be asked why; it may be gone" in ran.err
    assert "(tried" not in ran.err
    trial.compare(before)


@pytest.mark.ray
@pytest.mark.fault("driver killed")
def test_the_driver_at_ten_moments(trial: Trial) -> None:
    """One after another, from before it has begun on; each goes on where the one before was killed."""
    draw = random.Random(0)
    for moment in range(MOMENTS):
        steps, pause = draw.randrange(3), draw.uniform(0.0, 0.5)
        before, kept = trial.finished(), trial.progress()
        with trial.start(*(RAY if moment in (2, 6) else LOCAL)) as running:
            while running.process.poll() is None and trial.progress() < kept + steps:
                time.sleep(0.02)
            time.sleep(pause)
            running.send(signal.SIGKILL)
            running.wait()
        trial.kept(before)
    trial.again()


@pytest.mark.ray
@pytest.mark.parametrize(
    "process",
    [
        pytest.param("raylet/raylet", marks=pytest.mark.fault("raylet killed")),
        pytest.param("gcs_server", marks=pytest.mark.fault("GCS killed")),
    ],
)
def test_a_ray_that_dies_ends_the_run_with_what_is_missing(trial: Trial, process: str) -> None:
    """Ray itself waits: for minutes without its raylet, and without its control store until it aborts the driver."""
    with trial.start(*RAY) as running:
        until_steps_are_kept(running, trial)
        children = subprocess.run(
            ["pgrep", "-P", str(running.process.pid), "-f", process], capture_output=True, text=True, check=True
        )
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        at = time.monotonic()
        ran = running.wait()
    assert ran.code == 3, ran.err
    assert time.monotonic() - at < WATCH_SECONDS
    assert f"Ray's own process {process.split('/')[0]} on this machine ended" in ran.err
    assert "Run the same command again to continue" in ran.err
    assert "Traceback" not in ran.err
    trial.again()


@pytest.mark.ray
@pytest.mark.fault("TERM with 30 s notice")
@pytest.mark.parametrize("how", [LOCAL, RAY], ids=["local", "ray"])
def test_notice(trial: Trial, how: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are written in time, and running again takes the steps that are left and no others."""
    from trainables.distill import distributions

    with trial.start(*how) as running:
        until_steps_are_kept(running, trial)
        at = time.monotonic()
        running.send(signal.SIGTERM, group=True)
        ran = running.wait()
    assert time.monotonic() - at < NOTICE_SECONDS
    assert ran.code == 130, ran.err
    assert "Run the same command again to continue" in ran.err
    assert "Traceback" not in ran.err
    distillations = [stage for stage in trial.stages("distill") if stage.config.method == "dm"]
    left = [
        stage.config.settings["iterations"] - max(trial.workspace.checkpoints(stage.lineage), default=0)
        for stage in distillations
        if not trial.workspace.store.has(stage.key)
    ]
    assert claims(trial.store) == [], "given up, so nobody has to wait for their end"
    steps, match = [], distributions.match_distributions

    def counted(*given: Any, **named: Any) -> tuple[float, Any]:
        steps.append(1)
        return match(*given, **named)

    monkeypatch.setattr(distributions, "match_distributions", counted)
    trial.again()
    assert len(steps) == sum(left)


@pytest.mark.fault("two drivers on one store")
def test_two_drivers(trial: Trial) -> None:
    """They share the work: each stage once, none in vain."""
    homes = [str(trial.workspace.folder / name) for name in ("one", "two")]
    store = {"DDRAY_STORE": str(trial.store)}
    with (
        trial.start(*LOCAL, DDRAY_HOME=homes[0], **store) as one,
        trial.start(*LOCAL, DDRAY_HOME=homes[1], **store) as two,
    ):
        for running in (one, two):
            ran = running.wait()
            assert ran.code == 0, ran.err
            assert "8 of 8 points done" in ran.err
    trial.again()
