"""INT, TERM and HUP, at every moment of a run and on every executor: checkpoint, exit code 130, the same command again.

All of it on real processes. `make test-faults` takes rows with each executor, moment and signal, `make test-signals`
all the others.
"""

from __future__ import annotations

import itertools
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workspace import Running, Workspace

STOP_SECONDS = 25
LONG = 100_000
"""Iterations or epochs that no test waits for."""

HELD = """
import os, pathlib, sys, time
import ddray.run.sweep as sweep
from ddray import cli

def held(*arguments, **options):
    pathlib.Path(os.environ["MARKER"]).touch()
    time.sleep(120)

setattr(sweep, os.environ["HELD"], held)
sys.argv[0] = "ddray"
cli.main()
"""
"""ddray that stays in one of its steps, so that a signal meets it there."""

STEPS = {"prepare": "prepare", "tables": "rebuild"}
"""Moment -> the function of ``ddray.run.sweep`` that is held."""

EXECUTORS = ("ray", "local", "evaluate", "evaluate local")
MOMENTS = ("prepare", "ray starts", "job", "tables")
SIGNALS = list(itertools.product(("INT", "TERM", "HUP"), (1, 2)))
PAIRS = [
    (executor, moment)
    for executor, moment in itertools.product(EXECUTORS, MOMENTS)
    if moment != "ray starts" or "local" not in executor
]
OFTEN = [pair for pair in PAIRS if "evaluate" not in pair[0] or pair[1] == "job"]
"""Each executor and each moment: every signal once and twice by turns. The other rows are ``every_row``."""
BY_TURNS = {(pair, SIGNALS[number % len(SIGNALS)]) for number, pair in enumerate(OFTEN)}


def arguments(workspace: Workspace, executor: str, moment: str) -> list[object]:
    """A command that takes long where it is to be met."""
    how = ["--no-mlflow", *(["--local"] if "local" in executor else ["--cpus", "2"])]
    length = LONG if moment in ("job", "ray starts") else 2
    if executor in ("ray", "local"):
        return ["sweep", workspace.tiny(iterations=length), *how]
    file = workspace.folder / "brought.npz"
    generator = np.random.default_rng(0)
    np.savez(file, images=generator.random((20, 1, 8, 8), dtype=np.float32), labels=np.arange(20) % 10)
    return [
        *("evaluate", "--set", file, "--dataset", "digits", "--space", "pixel01", "--architecture", "convnet3-d2-w8"),
        *("--robustness", "none", "--protocol", "quick", "--train", f"steps={length}", *how),
    ]


def until_a_job_runs(running: Running, workspace: Workspace) -> None:
    """Until one has done some steps, by what `ddray status` reads."""

    def steps_are_done() -> bool:
        for path in workspace.folders.runs.glob("*/*/status.json"):
            jobs = json.loads(path.read_text())["running"]
            if any(job.get("done", 0) > 0 and job.get("total") == LONG for job in jobs):
                return True
        return False

    running.until(steps_are_done)


@pytest.mark.ray
@pytest.mark.parametrize(
    "name, executor, moment, times",
    [
        pytest.param(
            *(name, *pair, times),
            marks=pytest.mark.faults if (pair, (name, times)) in BY_TURNS else pytest.mark.every_row,
            id=f"{name} {' '.join(pair)} {times}",
        )
        for pair, (name, times) in itertools.product(PAIRS, SIGNALS)
    ],
)
def test_a_signal_ends_the_command_with_130(
    workspace: Workspace, name: str, executor: str, moment: str, times: int
) -> None:
    number = signal.Signals[f"SIG{name}"]
    held: dict[str, Any] = {}
    marker = workspace.folder / "marker"
    if moment in STEPS:
        held = {"script": HELD, "HELD": STEPS[moment], "MARKER": str(marker)}
    with workspace.start(*arguments(workspace, executor, moment), **held) as running:
        if moment in STEPS:
            running.until(marker.exists)
        elif moment == "ray starts":
            running.until(lambda: "starting Ray" in running.err)
            time.sleep(2.0)
        else:
            until_a_job_runs(running, workspace)
        at = time.monotonic()
        for repeated in range(times):
            if repeated:
                time.sleep(1.5)
            if running.process.poll() is None:
                running.send(number, group=True)  # as terminals and batch systems do: workers and Ray's daemons too
        ran = running.wait()
        took = time.monotonic() - at
    assert ran.code == 130, ran.err
    assert took < STOP_SECONDS
    assert "interrupted" in ran.err
    assert "Run the same command again to continue" in ran.err
    assert "Traceback" not in ran.err
    assert "***" not in ran.err, "a trace of native code"
    if moment == "job" and (times == 1 or name != "INT"):  # a second Ctrl-C does not wait for checkpoints
        assert checkpoints(workspace), "its steps are kept"


def checkpoints(workspace: Workspace) -> list[Path]:
    return [path for path in (Path(workspace.folders.store) / "checkpoints").glob("*/*/*") if path.is_dir()]


@pytest.mark.faults
def test_a_signal_that_was_ignored_stays_ignored(workspace: Workspace) -> None:
    """``nohup ddray sweep`` goes on when the terminal closes."""
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + HELD
    marker = workspace.folder / "marker"
    command = arguments(workspace, "local", "tables")
    with workspace.start(*command, script=script, HELD="rebuild", MARKER=str(marker)) as running:
        running.until(marker.exists)
        running.send(signal.SIGHUP)
        time.sleep(1.0)
        assert running.process.poll() is None
        running.send(signal.SIGTERM)
        assert running.wait().code == 130


DYING = """
import sys

class Crash:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "trainables.distill.dm":
            import ctypes
            ctypes.string_at(0)

sys.meta_path.insert(0, Crash)
"""
"""A ``sitecustomize``: a process dies of a segmentation fault when a stage of DM begins in it."""


@pytest.mark.ray
@pytest.mark.faults
def test_a_worker_that_dies_twice_at_one_stage_fails_it_with_its_cause(workspace: Workspace) -> None:
    (workspace.folder / "sitecustomize.py").write_text(DYING)
    ran = workspace.spawn(*("sweep", workspace.tiny(), "--cpus", "1", "--no-mlflow"), PYTHONPATH=str(workspace.folder))
    assert ran.code == 1, ran.err
    assert "2 of 4 points done" in ran.err, "random does not need the stage"
    assert "its worker died: segmentation fault in string_at (" in ran.err
    assert ran.err.count("the job is tried again") == 1
    (failure,) = (workspace.store.failure(key) for key in workspace.store.failures())
    assert failure is not None
    assert failure["cause"].startswith("its worker died: segmentation fault in string_at")
    assert failure["cause"].endswith("(tried 2 times)")
    assert "ddray doctor" in failure["cause"]
