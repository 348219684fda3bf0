"""What an outcome means for the rest of the sweep: the one judgement both executors share."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job
from ddray.run.causes import CAUSES, ERROR, GPU_MEMORY, HOST_MEMORY
from ddray.run.ladder import Ladder, climbed
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome
from ddray.store.artifacts import Store

log = logging.getLogger(__name__)

DEFER_SECONDS = 2.0


class OutcomeHandler:
    """Settles finished jobs: done, failed, failures to try again, damaged inputs to recompute, claims of others to wait
    for.

    Args:
        schedule: What may run when.
        stages: Of the plan, by key.
        progress: Hears what became of jobs.
        stop: Set here when no job could go on.
        store: Has the records of failures.
        ladder: What stages get that ran out of memory.
    """

    def __init__(
        self,
        schedule: Schedule,
        stages: Mapping[str, Stage],
        progress: Progress,
        stop: threading.Event,
        store: Store | None = None,
        ladder: Ladder | None = None,
    ) -> None:
        self.store = store
        self.ladder = ladder if ladder is not None else Ladder()
        self.schedule = schedule
        self.stages = stages
        self.progress = progress
        self.stop = stop
        self.environment = ""
        """What then keeps them."""
        self.interrupted = False
        self.damaged: dict[str, str] = {}
        """Key -> message of every damaged artifact met."""
        self._tries: Counter[str] = Counter()
        """Key -> how often it was tried again with what it had."""
        self._failed: Counter[str] = Counter()
        """Key -> how often it failed."""
        self._deferred: list[tuple[float, str]] = []
        self._told: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether jobs wait for another driver's claim, or before they are tried again."""
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
            self._defer(job, DEFER_SECONDS)
        elif outcome.interrupted:
            self.interrupted = True
            self.schedule.running.discard(job.name)
            self.progress.interrupted(job, outcome)
        elif (pause := self._again(job, outcome)) is not None:
            self._defer(job, pause)
        else:
            self.schedule.finish(job.name, outcome.done, outcome.failed)
            self.progress.ended(job, outcome)

    def forgive(self, key: str, times: int) -> None:
        """So many failures of a stage turned out to say nothing of it."""
        for counted in (self._tries, self._failed):
            counted[key] = max(0, counted[key] - times)

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

    def _defer(self, job: Job, seconds: float) -> None:
        """A job that ran is ready again after some seconds."""
        heapq.heappush(self._deferred, (time.monotonic() + seconds, job.name))
        self.schedule.running.discard(job.name)
        self.progress.deferred(job)

    def _again(self, job: Job, outcome: Outcome) -> float | None:
        """Seconds after which a job with failures is to be tried again; None where that would not help."""
        pauses = [self._pause(job, key, outcome) for key in outcome.failed]
        found = [pause for pause in pauses if pause is not None]
        return max(found, default=None)

    def _pause(self, job: Job, key: str, outcome: Outcome) -> float | None:
        kind, stage = outcome.kinds.get(key, ERROR), next(stage for stage in job.stages if stage.key == key)
        cause = CAUSES.get(kind, CAUSES[ERROR])
        self._failed[key] += 1
        pause, more = 0.0, ""
        if self._tries[key] < cause.retries:
            pause = cause.pause * 2 ** self._tries[key]
            self._tries[key] += 1
        elif not (more := self._more(job, stage, kind)):
            self._give_up(key, kind, outcome)
            return None
        self.progress.note(f"{stage.label}: {outcome.failed[key]}; the job is tried again{more}")
        if self.store is not None:
            self.store.forget_failure(key)
        return pause

    def _more(self, job: Job, stage: Stage, kind: str) -> str:
        """Give a stage that ran out of memory, and those alike that do not run, more of it; what, or "" for nothing."""
        if kind == GPU_MEMORY:
            share = self.ladder.more_of_a_card(stage, job.gpu) if job.gpu > 0 else None
            given = f"with {share:g} of a card instead of {job.gpu:g}" if share is not None else ""
        elif kind == HOST_MEMORY:
            room = self.ladder.more_room(stage, job.room, job.cpus)
            given = f"with the memory of {room * job.cpus:g} CPUs instead of {job.room * job.cpus:g}" if room else ""
        else:
            return ""
        if not given:
            return ""
        self.schedule.running.discard(job.name)
        changed = climbed(self.ladder, self.schedule.waiting())
        for each in changed:
            self.schedule.change(each)
        alike = len(changed) - (job.name in {each.name for each in changed})
        return f" {given}" + (f", and {alike} like it" if alike else "")

    def _give_up(self, key: str, kind: str, outcome: Outcome) -> None:
        """Say in the record of a failure what was tried, and what could help."""
        tried = self._failed[key]
        cause = outcome.failed[key] + (f" (tried {tried} times)" if tried > 1 else "")
        if kind in (GPU_MEMORY, HOST_MEMORY):
            cause += f"; {CAUSES[kind].advice.rpartition('too little: ')[2]}"
        if cause != outcome.failed[key] and self.store is not None:
            self.store.record_failure(key, {**(self.store.failure(key) or {}), "cause": cause})
        outcome.failed[key] = cause

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
