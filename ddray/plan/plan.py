"""The plan: all chains of a sweep merged, grouped into jobs, and the order in which jobs may run. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddray.plan.chain import Chain, Stage
from ddray.plan.keys import digest

LONG_GFLOP = 2000.0
"""A job of more work than this is worth the seconds that a new worker takes to start."""

EXPERTS_PER_JOB = 5
"""Experts trained one after the other in one job: minutes on a GPU, and enough jobs for a cluster. Not in any key."""

ALONE = frozenset({"privacy", "embedding", "tsne"})
"""Kinds that start a job of their own: they wait for branches, and a point's training must not wait with them."""

Shape = tuple[float, float]
"""CPUs and share of a GPU: what a job asks for."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What one Ray Tune trial runs: one or more stages, in order, with one request for resources."""

    name: str
    """Stable and unique in a plan."""
    stages: tuple[Stage, ...]
    needs: tuple[str, ...]
    """Keys that must be finished first."""
    after: tuple[str, ...]
    """Keys that are better finished first: shorter budgets of the same path. Their failure does not block."""
    cpus: float
    gpu: float
    work: float
    points: int
    """Points that need the job."""

    @property
    def label(self) -> str:
        """The longest stage's label."""
        return max(self.stages, key=lambda stage: stage.work).label


@dataclass(slots=True, eq=False)
class Plan:
    """Everything a sweep asks for."""

    chains: list[Chain]
    stages: dict[str, Stage]
    jobs: list[Job]
    """In plan order. Grouping is judged on the whole sweep, so that filters and finished work never regroup."""
    selected: set[str] = field(default_factory=set)
    """Hashes of the points that are to be run; all of them unless a filter narrowed it."""

    def needed(self) -> set[str]:
        """Keys of the stages that the selected points need. A map of several points' sets is needed once all of them
        are selected: that one point is wanted is no reason to distil the others' sets."""
        chains = [chain for chain in self.chains if chain.point.hash in self.selected]
        keys = {stage.key for chain in chains for stage in chain.all_stages}
        maps = {chain.stages[-1].key: chain.stages[-1] for chain in chains if chain.stages[-1].kind == "tsne"}
        return keys - {key for key, stage in maps.items() if any(needed not in keys for _, needed in stage.inputs)}

    def summary(self, done: Collection[str]) -> dict[str, Any]:
        """Counts: ``points``, ``jobs`` (with something to do), ``stages`` per kind, reasons for blocked ones."""
        needed = self.needed()
        blocked = blocked_stages(self.stages, done)
        per_kind: dict[str, dict[str, int]] = {}
        reasons: Counter[str] = Counter()
        for key, stage in self.stages.items():
            if key not in needed:
                continue
            counts = per_kind.setdefault(stage.kind, {"total": 0, "cached": 0, "todo": 0, "blocked": 0})
            counts["total"] += 1
            if key in done:
                counts["cached"] += 1
            elif key in blocked:
                counts["blocked"] += 1
                reasons[blocked[key]] += 1
            else:
                counts["todo"] += 1
        return {
            "points": len(self.selected),
            "jobs": len(runnable_jobs(self, done)),
            "stages": per_kind,
            "blocked": dict(reasons.most_common()),
        }


def make_plan(chains: Sequence[Chain], stages: Mapping[str, Stage]) -> Plan:
    """Merge chains into a plan.

    The rule for jobs: a stage that lies on several paths, of one point or of several, is a job of its own; the stages
    of one path alone form one job, cut where the GPU share changes. Experts do not depend on each other, so a few of
    them form a job whoever needs them.
    """
    users = Counter(stage.key for chain in chains for stage in chain.all_stages)
    points = users
    if any(chain.branches for chain in chains):
        points = Counter(key for chain in chains for key in {stage.key for stage in chain.all_stages})
    shorter = _shorter_budgets(stages.values())
    jobs: list[Job] = []
    seen: set[str] = set()
    for path in (path for chain in chains for path in chain.paths):
        group: list[Stage] = []
        experts = [stage for stage in path if stage.kind == "experts" and stage.key not in seen]
        for start in range(0, len(experts), EXPERTS_PER_JOB):
            few = experts[start : start + EXPERTS_PER_JOB]
            seen.update(stage.key for stage in few)
            jobs.append(make_job(few, points[few[0].key], shorter))
        for stage in path:
            if stage.kind == "experts":
                continue
            if users[stage.key] > 1:
                if stage.key not in seen:
                    seen.add(stage.key)
                    jobs.append(make_job([stage], points[stage.key], shorter))
            else:
                if group and _cut(group, stage):
                    jobs.append(make_job(group, 1, shorter))
                    group = []
                group.append(stage)
        if group:
            jobs.append(make_job(group, 1, shorter))
    return Plan(list(chains), dict(stages), jobs, {chain.point.hash for chain in chains})


def blocked_stages(stages: Mapping[str, Stage], done: Collection[str]) -> dict[str, str]:
    """Unfinished stages that cannot run here, or that wait for one, with the reason."""
    reasons: dict[str, str] = {}
    for key, stage in stages.items():  # inputs come before what needs them
        if key in done:
            continue
        if stage.unavailable is not None:
            reasons[key] = stage.unavailable
            continue
        for _, needed in stage.inputs:
            if needed in reasons:
                reasons[key] = reasons[needed]
                break
    return reasons


def runnable_jobs(plan: Plan, done: Collection[str]) -> list[Job]:
    """The plan's jobs reduced to stages that are selected, unfinished and possible; empty jobs left out.

    Everything that a selected point consists of is wanted, an input that got lost too: tables show facts of all.
    """
    needed = plan.needed().difference(done)
    blocked = blocked_stages(plan.stages, done)
    reduced = []
    for job in plan.jobs:
        stages = [stage for stage in job.stages if stage.key in needed and stage.key not in blocked]
        if not done and len(stages) == len(job.stages):
            reduced.append(job)
        elif stages:
            reduced.append(_restrict(job, stages, done))
    return reduced


class Schedule:
    """Which jobs may run now. Both executors ask it; it knows nothing of them.

    Jobs with the longest chain of work behind them come first, then plan order.
    """

    def __init__(self, jobs: Iterable[Job], done: Collection[str]) -> None:
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
        self._ready: dict[Shape, list[tuple[float, int, str]]] = defaultdict(list)
        """A heap per shape: what fits, and which worker can go on without being started anew, depends on the shape."""
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
        for name, waits in self._waits.items():
            if not waits:
                self._push(name)

    @property
    def over(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return not self.running and not self.any_ready and len(self.finished) == len(self.jobs)

    @property
    def any_ready(self) -> bool:
        return any(self._ready.values())

    def take(self, fits: Callable[[Job], bool], rank: Callable[[Job], int] | None = None) -> Job | None:
        """Remove and return the next ready job that fits, or None.

        Args:
            fits: Whether there is room; it may look only at what the job asks for.
            rank: How costly it is to start a job of this shape now, 0 for nothing. Short jobs are taken in that
                order before their own; a long one does not wait for the sake of a start.
        """
        heads = sorted(heap[0] for heap in self._ready.values() if heap)
        candidates = [self.jobs[name] for _, _, name in heads if fits(self.jobs[name])]
        if not candidates:
            return None
        found = candidates[0]
        if rank is not None and found.work < LONG_GFLOP:
            found = min(candidates, key=rank)  # the first of equals: the order of heads decides
        heapq.heappop(self._ready[_shape(found)])
        self.running.add(found.name)
        return found

    def put_back(self, name: str) -> None:
        """A job was started but did not run (its worker died, an input was damaged); it is ready again."""
        self.running.discard(name)
        self._push(name)

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

    def making(self, key: str) -> bool:
        """Whether a job that has not ended is to make the key."""
        name = self._makers.get(key)
        return name is not None and name not in self.finished

    def add(self, job: Job) -> None:
        """Schedule a further job without inputs to wait for (recomputing a damaged artifact)."""
        self.jobs[job.name] = job
        self.finished.pop(job.name, None)
        self._waits[job.name] = set()
        self._order.setdefault(job.name, len(self._order))
        self._tail.setdefault(job.name, job.work)
        for stage in job.stages:
            self._makers[stage.key] = job.name
        self._push(job.name)

    def wait_for(self, name: str, key: str) -> None:
        """Hold a job back until a key, which is being computed again, exists."""
        self.running.discard(name)
        self._waits[name].add(key)
        self._hard[key].add(name)

    def remaining_work(self) -> float:
        """GFLOP of the jobs that have not ended."""
        return sum(job.work for name, job in self.jobs.items() if name not in self.finished)

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
            reduced = self.jobs[job.name] = _restrict(job, kept, ())
            self._waits[job.name] &= {*reduced.needs, *reduced.after}
            if not self._waits[job.name]:
                self._push(job.name)
        else:
            self.finished[job.name] = "blocked"
        for stage in job.stages:
            if stage.key in lost:
                self._block(stage.key, cause)

    def _push(self, name: str) -> None:
        entry = (-self._tail.get(name, 0.0), self._order[name], name)
        heapq.heappush(self._ready[_shape(self.jobs[name])], entry)

    def _tails(self) -> dict[str, float]:
        """Job -> its work plus that of the longest chain of jobs behind it."""
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
            tails[name] = self.jobs[name].work + max((tails[after] for after in followers[name]), default=0.0)
            for maker in makers[name]:
                waiting[maker] -= 1
                if waiting[maker] == 0:
                    stack.append(maker)
        return tails


def _shape(job: Job) -> Shape:
    return job.cpus, job.gpu


def _cut(group: Sequence[Stage], stage: Stage) -> bool:
    """Whether a stage must leave the group: what it waits for, other CPUs (and so other numerics), or another share of
    the GPU."""
    if stage.kind in ALONE or group[-1].kind in ALONE:
        return True
    if stage.cpus != group[0].cpus:
        return True
    shares = [member.share for member in group if member.share is not None]
    return stage.share is not None and bool(shares) and stage.share != shares[0]


def make_job(stages: Sequence[Stage], points: int, shorter: Mapping[str, tuple[str, ...]] | None = None) -> Job:
    """A job of the given stages; ``shorter`` names the smaller budgets it is better run after."""
    shorter = shorter or {}
    own = {stage.key for stage in stages}
    needs = dict.fromkeys(key for stage in stages for _, key in stage.inputs if key not in own)
    after = dict.fromkeys(
        key for stage in stages for key in shorter.get(stage.key, ()) if key not in own and key not in needs
    )
    shares = [stage.share for stage in stages if stage.share is not None]
    return Job(
        name=digest([stage.key for stage in stages])[:12],
        stages=tuple(stages),
        needs=tuple(needs),
        after=tuple(after),
        cpus=max(stage.cpus for stage in stages),
        gpu=max(shares, default=0.0),
        work=sum(stage.work for stage in stages),
        points=points,
    )


def _restrict(job: Job, stages: Sequence[Stage], done: Collection[str]) -> Job:
    own = {stage.key for stage in stages}
    needs = dict.fromkeys(key for stage in stages for _, key in stage.inputs if key not in own and key not in done)
    return Job(
        name=job.name,
        stages=tuple(stages),
        needs=tuple(needs),
        after=tuple(key for key in job.after if key not in done),
        cpus=job.cpus,
        gpu=job.gpu,
        work=sum(stage.work for stage in stages),
        points=job.points,
    )


def _shorter_budgets(stages: Iterable[Stage]) -> dict[str, tuple[str, ...]]:
    """Key -> keys of the same path with the next smaller budget."""
    paths: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages:
        if stage.budget:  # nothing continues a start
            paths[stage.lineage].append(stage)
    shorter: dict[str, tuple[str, ...]] = {}
    for members in paths.values():
        ordered = sorted(members, key=lambda stage: stage.budget or 0)
        for before, stage in itertools.pairwise(ordered):
            shorter[stage.key] = (before.key,)
    return shorter
