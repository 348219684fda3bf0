"""Which jobs may run now, in which order, and what their outcomes do to the others. Both executors ask it."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ddray.plan.jobs import Job, Shape, restrict

LONG_GFLOP = 2000.0
"""A job of more work than this is worth the seconds that a new worker takes to start."""


class Schedule:
    """Which jobs may run now. Both executors ask it; it knows nothing of them.

    Earlier rounds come first, within a round jobs with the longest chain behind them, then plan order. A job whose
    chain takes as long as all that is not begun on all places there are is urgent whatever its round: the sweep would
    end later without it.

    Args:
        jobs: That are to run.
        done: Keys that are finished.
        seconds: What a job takes, about; None: in proportion to its work, and the longer the less of a card it has.
    """

    def __init__(
        self, jobs: Iterable[Job], done: Collection[str], seconds: Callable[[Job], float] | None = None
    ) -> None:
        self.seconds = seconds or (lambda job: job.work / (job.gpu or 1.0))
        """What a job takes, about."""
        self.places = 1.0
        """Cards, or cores where there are no cards: told by the executor."""
        self.jobs: dict[str, Job] = {job.name: job for job in jobs}
        self.running: set[str] = set()
        self.finished: dict[str, str] = {}
        """Job -> ``done``, ``failed`` or ``blocked``."""
        self.failed: dict[str, str] = {}
        """Key -> cause, of stages that failed."""
        self.blocked: dict[str, str] = {}
        """Key -> the failed key it waits for."""
        self._makers = {stage.key: job.name for job in self.jobs.values() for stage in job.stages}
        self._waits: dict[str, set[str]] = {}
        self._hard: dict[str, set[str]] = defaultdict(set)
        self._soft: dict[str, set[str]] = defaultdict(set)
        self._ready: set[str] = set()
        self._by_round: dict[Shape, list[tuple[int, float, int, str]]] = defaultdict(list)
        """A heap per shape: what fits, and which worker can go on without being started anew, depends on the shape.
        Entries of jobs that are no longer ready are dropped when they come to the top."""
        self._by_tail: dict[Shape, list[tuple[float, int, str]]] = defaultdict(list)
        self._order = {name: index for index, name in enumerate(self.jobs)}
        for name, job in self.jobs.items():
            waits = set()
            for key in job.needs:
                maker = self._makers.get(key)
                if maker is not None and maker != name and key not in done:
                    self._hard[key].add(name)
                    waits.add(key)
            for key in job.after:
                maker = self._makers.get(key)
                if maker is not None and maker != name and key not in done:
                    self._soft[key].add(name)
                    waits.add(key)
            self._waits[name] = waits
        self._tail = self._tails()
        self._left = sum(map(self._load, self.jobs.values()))
        """Seconds of places that are not begun."""
        for name, waits in self._waits.items():
            if not waits:
                self._push(name)

    @property
    def over(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return not self.running and not self.any_ready and len(self.finished) == len(self.jobs)

    @property
    def any_ready(self) -> bool:
        return bool(self._ready)

    def heads(self) -> list[Job]:
        """Of each shape the ready job that comes first, in the order in which they come."""
        first = []
        for shape in self._by_round:
            by_round, by_tail = (self._clean(heaps[shape], shape) for heaps in (self._by_round, self._by_tail))
            if by_tail and -by_tail[0][0] * self.places >= self._left:
                first.append((-1, *by_tail[0]))
            elif by_round:
                first.append(by_round[0])
        return [self.jobs[name] for *_, name in sorted(first)]

    def _clean(self, heap: list[Any], shape: Shape) -> list[Any]:
        while heap and (heap[0][-1] not in self._ready or self.jobs[heap[0][-1]].shape != shape):
            heapq.heappop(heap)
        return heap

    def take(self, fits: Callable[[Job], bool], rank: Callable[[Job], int] | None = None) -> Job | None:
        """Remove and return the next ready job that fits, or None.

        Args:
            fits: Whether there is room; it may look only at what the job asks for.
            rank: How costly it is to start a job of this shape now, 0 for nothing. Short jobs are taken in that
                order before their own; a long one does not wait for the sake of a start.
        """
        candidates = [job for job in self.heads() if fits(job)]
        if not candidates:
            return None
        job = candidates[0]
        if rank is not None and job.work < LONG_GFLOP:
            job = min(candidates, key=rank)  # the first of equals: the order of heads decides
        self._ready.discard(job.name)
        self._left -= self._load(job)
        self.running.add(job.name)
        return job

    def put_back(self, name: str) -> None:
        """A job was started but did not run (its worker died, an input was damaged); it is ready again."""
        self.running.discard(name)
        self._left += self._load(self.jobs[name])
        self._push(name)

    def waiting(self) -> list[Job]:
        """Jobs that have neither ended nor run now."""
        return [job for name, job in self.jobs.items() if name not in self.finished and name not in self.running]

    def change(self, job: Job) -> None:
        """A job that does not run asks for other resources from now on."""
        ready = job.name in self._ready
        if ready or self._waits[job.name]:
            self._left += self._load(job) - self._load(self.jobs[job.name])
        self.jobs[job.name] = job
        if ready:
            self._push(job.name)

    def finish(self, name: str, done: Collection[str], failed: Mapping[str, str]) -> None:
        """A job ended.

        Args:
            name: The job.
            done: Keys that now exist.
            failed: Key -> cause.
        """
        self.running.discard(name)
        job = self.jobs[name]
        self.finished[name] = "failed" if failed else "done"
        self.failed.update(failed)
        for key in done:
            self._settle(key)
        for stage in job.stages:
            if stage.key not in done:
                if stage.key not in failed:
                    lost = [key for _, key in stage.inputs if key in self.failed or key in self.blocked]
                    cause = lost[0] if lost else next(iter(failed), stage.key)
                    self.blocked[stage.key] = self.blocked.get(cause, cause)
                self._block(stage.key, self.blocked.get(stage.key, stage.key))

    def is_pending(self, key: str) -> bool:
        """Whether a job that has not ended is to make the key."""
        name = self._makers.get(key)
        return name is not None and name not in self.finished

    def add(self, job: Job) -> None:
        """Schedule a further job without inputs to wait for (recomputing a damaged artifact)."""
        self.jobs[job.name] = job
        self.finished.pop(job.name, None)
        self._waits[job.name] = set()
        self._order.setdefault(job.name, len(self._order))
        self._tail.setdefault(job.name, self.seconds(job))
        self._left += self._load(job)
        for stage in job.stages:
            self._makers[stage.key] = job.name
        self._push(job.name)

    def wait_for(self, name: str, key: str) -> None:
        """Hold a job back until a key, which is being computed again, exists."""
        self.running.discard(name)
        self._waits[name].add(key)
        self._hard[key].add(name)

    def _settle(self, key: str) -> None:
        for name in [*self._hard.pop(key, ()), *self._soft.pop(key, ())]:
            self._stop_waiting(name, key)

    def _stop_waiting(self, name: str, key: str) -> None:
        waits = self._waits[name]
        if key in waits:
            waits.discard(key)
            if not waits and name not in self.finished:
                self._push(name)

    def _block(self, key: str, cause: str) -> None:
        """Jobs that need the key cannot run; those that merely wanted it earlier can."""
        for name in self._soft.pop(key, ()):
            self._stop_waiting(name, key)
        for name in self._hard.pop(key, ()):
            if name not in self.finished and key in self._waits[name]:
                self._without(self.jobs[name], key, cause)

    def _without(self, job: Job, key: str, cause: str) -> None:
        """A job of which some stages need a key that will not come: the others need not suffer."""
        lost = {key: None}
        for stage in job.stages:
            if any(needed in lost for _, needed in stage.inputs):
                lost[stage.key] = None
                self.blocked[stage.key] = cause
        kept = [stage for stage in job.stages if stage.key not in lost]
        if kept:
            reduced = self.jobs[job.name] = restrict(job, kept, ())
            self._waits[job.name] &= {*reduced.needs, *reduced.after}
            if not self._waits[job.name]:
                self._push(job.name)
        else:
            self.finished[job.name] = "blocked"
            self._left -= self._load(job)
        for stage in job.stages:
            if stage.key in lost:
                self._block(stage.key, cause)

    def _push(self, name: str) -> None:
        job, entry = self.jobs[name], (-self._tail.get(name, 0.0), self._order[name], name)
        self._ready.add(name)
        heapq.heappush(self._by_round[job.shape], (job.round, *entry))
        heapq.heappush(self._by_tail[job.shape], entry)

    def _load(self, job: Job) -> float:
        """Seconds of a place that it takes: of a whole card by its share."""
        return self.seconds(job) * (job.gpu or 1.0)

    def _tails(self) -> dict[str, float]:
        """Job -> its seconds plus those of the longest chain of jobs behind it."""
        followers: dict[str, set[str]] = defaultdict(set)
        for index in (self._hard, self._soft):
            for key, names in index.items():
                followers[self._makers[key]] |= names
        tails: dict[str, float] = {}
        waiting = {name: len(followers[name]) for name in self.jobs}
        makers: dict[str, set[str]] = defaultdict(set)
        for maker, names in followers.items():
            for name in names:
                makers[name].add(maker)
        stack = [name for name, count in waiting.items() if count == 0]
        while stack:
            name = stack.pop()
            tails[name] = self.seconds(self.jobs[name]) + max((tails[after] for after in followers[name]), default=0.0)
            for maker in makers[name]:
                waiting[maker] -= 1
                if waiting[maker] == 0:
                    stack.append(maker)
        return tails
