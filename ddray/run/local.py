"""One job at a time, in this process: for a laptop, a debugger, and as the reference the Ray executor must equal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ddray.plan.jobs import Job
from ddray.run.board import Board
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome, WorkerEnv, between_jobs, run_job


def execute(
    schedule: Schedule,
    handler: OutcomeHandler,
    env: WorkerEnv,
    progress: Progress,
    stop: threading.Event,
    after_job: Callable[[], None] = lambda: None,
) -> None:
    """Run every job of the schedule, or until a stop is asked for.

    Args:
        schedule: What may run when.
        handler: Turns outcomes into the schedule's next state.
        env: Folders and device.
        progress: The display.
        stop: Set by the signal handler.
        after_job: Called after each job.
    """
    board = Board()
    while not schedule.over and not stop.is_set():
        handler.release_deferred()
        job = schedule.take(lambda _: True)
        if job is None:
            time.sleep(0.2)  # everything left waits for another driver's claim
            continue
        progress.started(job)
        with between_jobs():
            outcome = run_one(job, env, board, stop, progress)
        handler.settle(job, outcome)
        after_job()


def run_one(job: Job, env: WorkerEnv, board: Board, stop: threading.Event, progress: Progress | None = None) -> Outcome:
    """Run one job here, passing the stop on to its stages."""

    def tick(name: str, shown: dict[str, Any] | None) -> bool:
        stopping = board.tick(name, shown) or stop.is_set()
        if progress is not None:
            progress.update(board.look())
        return stopping

    return run_job(job.spec(), env, tick)
