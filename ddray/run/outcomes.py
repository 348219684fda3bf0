"""What an outcome means for the rest of the sweep: the one judgement both executors share."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Mapping

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome

log = logging.getLogger(__name__)

DEFER_SECONDS = 2.0


class OutcomeHandler:
    """Settles finished jobs: done, failed, damaged inputs to recompute, claims of others to wait for."""

    def __init__(
        self, schedule: Schedule, stages: Mapping[str, Stage], progress: Progress, stop: threading.Event
    ) -> None:
        self.schedule = schedule
        self.stages = stages
        self.progress = progress
        self.stop = stop
        """Set here when no job could go on."""
        self.environment = ""
        """What then keeps them."""
        self.interrupted = False
        self.damaged: dict[str, str] = {}
        """Key -> message of every damaged artifact met."""
        self._deferred: list[tuple[float, str]] = []
        self._told: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether jobs wait for another driver's claim."""
        return bool(self._deferred)

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Move the schedule on."""
        if outcome.damaged:
            self._recompute(job, outcome)
        elif outcome.environment:
            self.environment = self.environment or outcome.environment
            self.stop.set()
            self.schedule.running.discard(job.name)
            self.progress.deferred(job)
        elif outcome.busy:
            self._tell(job, outcome.busy)
            heapq.heappush(self._deferred, (time.monotonic() + DEFER_SECONDS, job.name))
            self.schedule.running.discard(job.name)
            self.progress.deferred(job)
        elif outcome.interrupted:
            self.interrupted = True
            self.schedule.running.discard(job.name)
            self.progress.interrupted(job, outcome)
        else:
            self.schedule.finish(job.name, outcome.done, outcome.failed)
            self.progress.ended(job, outcome)

    def release_deferred(self, *, at_once: bool = False) -> None:
        """Make jobs ready again whose waiting time is over, or all of them."""
        now = time.monotonic()
        while self._deferred and (at_once or self._deferred[0][0] <= now):
            _, name = heapq.heappop(self._deferred)
            self.schedule.put_back(name)

    def _tell(self, job: Job, busy: Mapping[str, str]) -> None:
        for key, holder in busy.items():
            if holder and key not in self._told:
                self._told.add(key)
                label = next((stage.label for stage in job.stages if stage.key == key), job.label)
                self.progress.note(f"waiting for {label}, which is computed elsewhere ({holder})")

    def _recompute(self, job: Job, outcome: Outcome) -> None:
        """Compute a damaged or missing input again, once however many jobs met it, and then the job."""
        for key, message in outcome.damaged.items():
            self.progress.note(message)
            stage = self.stages.get(key)
            own = any(stage.key == key for stage in job.stages)
            if self.schedule.is_pending(key) and not own:
                self.schedule.wait_for(job.name, key)
            elif stage is None or key in self.damaged:  # damaged again right after being made: the disk, not the file
                failed = next(stage.key for stage in job.stages if key in dict(stage.inputs).values())
                self.schedule.finish(job.name, outcome.done, {failed: message})
                self.progress.ended(job, Outcome(failed={failed: message}))
                return
            elif own:
                self.schedule.put_back(job.name)
            else:
                self.schedule.wait_for(job.name, key)
                self.schedule.add(make_job([stage], points=job.points))
            self.damaged[key] = message
        self.progress.deferred(job)
