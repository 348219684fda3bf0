"""Overhead per job: a thousand jobs that do almost nothing, store commit included.

    python -m benchmarks.overhead [--jobs 1000] [--shapes 1|3]

The jobs draw one real image per class of the digits (a few milliseconds). Overhead is (wall time from the first
job's start to the last job's end) / jobs; with several shapes the jobs alternate between shares of a logical GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ddray.plan.jobs import Job, make_job
from ddray.prepare import prepare
from ddray.request import Request
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.signals import StopRequest
from ddray.run.stage import Outcome, WorkerEnv, code_state
from ddray.settings import Folders, set_environment
from trainables.data.cache import build

SWEEP = """
ddray: 1
grids:
  noop:
    axes: {{method: [random], dataset: [digits], ipc: [1], distill_seed: {seeds}}}
    protocol: quick
"""
SHARES = {1: (0.0,), 3: (1 / 8, 1 / 4, 1 / 2)}


class Clock(Progress):
    """Records when jobs start and end instead of showing it."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule, "overhead", quiet=True)
        self.ends: list[float] = []

    def ended(self, job: Job, outcome: Outcome) -> None:
        super().ended(job, outcome)
        assert not outcome.failed, outcome.failed
        self.ends.append(time.monotonic())


def measure(jobs: int, shapes: int, cpus: int) -> dict[str, float]:
    """Milliseconds per job, and start-up in seconds."""
    from ddray.run import tune

    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as folder:
        home = Path(folder)
        folders = Folders(home=home, store=str(home / "store"), data=home / "data", cache=home / "cache")
        path = home / "noop.yaml"
        path.write_text(SWEEP.format(seeds=list(range(jobs))))
        prepared = prepare(Request(path), folders, build, read=("digits",))
        distills = [stage for stage in prepared.plan.stages.values() if stage.kind == "distill"]
        shares = SHARES[shapes]
        chosen = [
            make_job([replace(stage, share=shares[number % len(shares)])], points=1)
            for number, stage in enumerate(distills)
        ]
        schedule = Schedule(chosen, set())
        clock = Clock(schedule)
        env = WorkerEnv(store=folders.store, data=str(folders.data), cache=str(folders.cache), code=code_state())
        started = time.monotonic()
        stop = StopRequest()
        tune.execute(
            schedule,
            OutcomeHandler(schedule, prepared.plan.stages, clock, stop),
            env,
            clock,
            stop,
            sweep="overhead",
            run_folder=home / "run",
            address=None,
            cpus=cpus,
            gpus=None if shapes == 1 else 1,
            on_start=lambda url: None,
        )
        assert len(clock.ends) == jobs, f"{len(clock.ends)} of {jobs} jobs ended"
        first = clock.ends[0]
        return {
            "jobs": jobs,
            "shapes": shapes,
            "cpus": cpus,
            "startup_seconds": round(first - started, 2),
            "ms_per_job": round(1000 * (clock.ends[-1] - first) / (jobs - 1), 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--shapes", type=int, choices=sorted(SHARES), default=1)
    parser.add_argument("--cpus", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.jobs, arguments.shapes, arguments.cpus)))


if __name__ == "__main__":
    set_environment()
    main()
