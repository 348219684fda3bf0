"""How far a sweep is: what became of each job that was released, and the time that is left. ``display`` shows it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job
from ddray.price.estimates import head_starts
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome

State = Literal["queued", "running"]
"""A job that an executor has: it waits for a worker, or a worker has begun it."""


@dataclass(slots=True)
class Released:
    """A job that an executor has and that has not ended."""

    job: Job
    since: float
    """Monotonic time of the last change of state."""
    state: State = "queued"
    stage: Mapping[str, Any] = field(default_factory=dict)
    """What the worker posted last: key and label of the stage it is at, iterations done and in all, values."""
    before: Mapping[str, Any] | None = None
    """What the board had of the job when it was released: a worker that died takes nothing back."""
    node: str = ""
    """Where its worker is, on Ray."""
    starts: dict[str, float] = field(default_factory=dict)
    """Key -> share of the stage that a checkpoint held already when the worker came to it."""

    def post(self, posted: Mapping[str, Any], now: float) -> None:
        """Take in what the board has of the job; a worker that is between two stages posts nothing of a stage."""
        if self.state == "queued":
            if posted == self.before:
                return
            self.state, self.since = "running", now
        self.node = posted.get("node", "")
        if "key" in posted:
            self.stage = posted
            if posted.get("total"):
                self.starts[posted["key"]] = posted.get("start", 0) / posted["total"]

    @property
    def reached(self) -> dict[str, float]:
        """Key -> share of the stage that is done, of the job's stages up to the current one."""
        keys = [stage.key for stage in self.job.stages]
        if self.stage.get("key") not in keys:
            return {}
        at = keys.index(self.stage["key"])
        total = self.stage.get("total")
        return {**dict.fromkeys(keys[:at], 1.0), keys[at]: min(1.0, self.stage["done"] / total) if total else 0.0}


class Progress:
    """Follows the jobs of a schedule and says what becomes of them. Safe to call from several threads.

    Args:
        schedule: Which jobs there are, and which have ended.
        title: The sweep's name.
        quiet: Say nothing.
        checkpoints: Lineage -> iterations of the checkpoints that the store has.
        cost: What a stage is expected to take, in any unit.
    """

    def __init__(
        self,
        schedule: Schedule,
        title: str,
        *,
        quiet: bool = False,
        checkpoints: Mapping[str, Iterable[int]] | None = None,
        cost: Callable[[Stage], float],
    ) -> None:
        self.schedule = schedule
        self.title = title
        self.started_at = time.monotonic()
        self.released: dict[str, Released] = {}
        self.stopped: list[Released] = []
        """Jobs that were interrupted, as they were last."""
        self.failures: list[str] = []
        self._cost = cost
        self._starts = head_starts([stage for job in schedule.jobs.values() for stage in job.stages], checkpoints or {})
        self._board: Mapping[str, Mapping[str, Any]] = {}
        self._works: dict[Job, float] = {}
        self._first: float | None = None
        """When the first worker began: what came before says nothing about the speed."""
        self._done_work = 0.0
        """Of the jobs that have ended, in this run."""
        self._lock = threading.RLock()
        self.say: Callable[[str, str | None], None] = (lambda text, style: None) if quiet else _to_stderr
        """Prints a line, in a style; ``display`` puts it above its table."""

    def started(self, job: Job) -> None:
        """An executor has taken the job; a worker begins it when it can."""
        with self._lock:
            self.released[job.name] = Released(job, time.monotonic(), before=self._board.get(job.name))

    def update(self, board: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what workers have posted, job by job."""
        now = time.monotonic()
        with self._lock:
            self._board = board
            for name, posted in board.items():
                if (released := self.released.get(name)) is not None:
                    released.post(posted, now)
                    if self._first is None and released.state == "running":
                        self._first = now

    def ended(self, job: Job, outcome: Outcome) -> None:
        """The job is over: done, or failed."""
        with self._lock:
            if (released := self.released.pop(job.name, None)) is not None:
                if self._first is None:
                    self._first = released.since
                for stage in job.stages:
                    if stage.key in outcome.done:
                        self._done_work += self._cost(stage) * (1 - self._start(stage, released))
            for key, cause in outcome.failed.items():
                self.failures.append(f"{key[:12]} {cause}")
            at = f"[{len(self.schedule.finished)}/{len(self.schedule.jobs)}]"
            left = self.eta()
        if outcome.failed:
            key, cause = next(iter(outcome.failed.items()))
            self.say(f"{at} failed {job.label} ({key[:12]}): {cause}", "red")
        else:
            about = "" if left is None or left < 1 else f", about {duration(left)} left"
            self.say(f"{at} done   {job.label} ({outcome.seconds:.1f} s){about}", None)

    def interrupted(self, job: Job, outcome: Outcome) -> None:
        """The job stopped because that was asked for."""
        with self._lock:
            if (released := self.released.pop(job.name, None)) is not None:
                at = next((stage for stage in job.stages if stage.key not in outcome.done), job.stages[-1])
                if released.stage.get("key") != at.key:  # it came there after its last post
                    released.stage = {"key": at.key, "kind": at.kind}
                self.stopped.append(released)
        self.say(f"stopped {job.label}; its checkpoint is kept", None)

    def deferred(self, job: Job) -> None:
        """The executor has given the job back; it is released again later, if ever."""
        with self._lock:
            self.released.pop(job.name, None)

    def note(self, text: str) -> None:
        """A line that is neither a start nor an end."""
        self.say(text, "yellow")

    def jobs(self, state: State) -> list[Released]:
        """The released jobs in a state, those first that have been in it longest."""
        with self._lock:
            found = [released for released in self.released.values() if released.state == state]
        return sorted(found, key=lambda released: released.since)

    def counts(self) -> dict[str, int]:
        """Jobs in all, and by what became of them."""
        with self._lock:
            ended = list(self.schedule.finished.values())
            states = [released.state for released in self.released.values()]
            return {
                "total": len(self.schedule.jobs),
                **{name: ended.count(name) for name in ("done", "failed", "blocked")},
                "running": states.count("running"),
                "queued": states.count("queued"),
            }

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON types, for ``ddray status`` in another terminal."""
        with self._lock:
            now = time.monotonic()
            return {
                "jobs": self.counts(),
                "running": [_facts(each, now) for each in self.jobs("running")],
                "queued": [_facts(each, now) for each in self.jobs("queued")],
                "stopped": [_facts(each, now) for each in self.stopped],
                "elapsed": round(now - self.started_at, 1),
                "eta": self.eta(),
            }

    def eta(self) -> float | None:
        """Seconds left, at the speed of the work that was done in this run; None before a twentieth of it is done."""
        with self._lock:
            done, left = self._done_work, 0.0
            for name, job in list(self.schedule.jobs.items()):
                if name in self.schedule.finished:
                    continue
                if (released := self.released.get(name)) is None:
                    left += self._expected(job)
                    continue
                reached = released.reached
                for stage in job.stages:
                    start = self._start(stage, released)
                    at = max(start, reached.get(stage.key, 0.0))
                    done += self._cost(stage) * (at - start)
                    left += self._cost(stage) * (1 - at)
            if self._first is None or done <= 0 or done < (done + left) / 20:  # start-up would dominate the estimate
                return None
            return round((time.monotonic() - self._first) * left / done, 1)

    def _start(self, stage: Stage, released: Released) -> float:
        """The share of a stage that nobody has to do any more: what its worker found, else what is to be expected."""
        return released.starts.get(stage.key, self._starts.get(stage.key, 0.0))

    def _expected(self, job: Job) -> float:
        """The work of a job that nobody has begun; asked for again and again."""
        if job not in self._works:
            self._works[job] = sum(self._cost(stage) * (1 - self._starts.get(stage.key, 0.0)) for stage in job.stages)
        return self._works[job]


def _to_stderr(text: str, style: str | None) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _facts(released: Released, now: float) -> dict[str, Any]:
    job, shown = released.job, ("key", "kind", "done", "total", "unit")
    facts = {"job": job.name, "label": job.label, "state": released.state, "seconds": round(now - released.since, 1)}
    for stage in job.stages:
        if stage.key == released.stage.get("key"):
            facts |= {"label": stage.label, "lineage": stage.lineage, "budget": stage.budget}
    return facts | {name: value for name, value in released.stage.items() if name in shown}


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
