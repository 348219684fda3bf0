"""The plan: all chains of a sweep merged and grouped into jobs. Pure."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ddray.plan.graph import Chain, Stage
from ddray.plan.keys import digest
from ddray.plan.kinds import STAGE_KINDS
from trainables.configs import Kind

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
    round: int = 0
    """Lower ones come first: see ``rounds_of``."""
    room: float = 1.0
    """Times its CPUs are asked for, and left idle but for the first: host memory goes with them."""

    @property
    def shape(self) -> Shape:
        return self.cpus * self.room, self.gpu

    def asks(self, use_gpus: bool) -> Shape:
        """What it asks of a machine; without GPUs everything runs on CPUs."""
        return self.cpus * self.room, self.gpu if use_gpus else 0.0

    @property
    def label(self) -> str:
        """The longest stage's label."""
        return max(self.stages, key=lambda stage: stage.work).label

    def spec(self) -> dict[str, Any]:
        """Everything a worker needs, as JSON types."""
        return {
            "name": self.name,
            "label": self.label,
            "stages": [stage.spec() for stage in self.stages],
            "cpus": self.cpus,
            "gpu": self.gpu,
        }


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
        last = {chain.stages[-1].key: chain.stages[-1] for chain in chains}
        of_all = {key: stage for key, stage in last.items() if STAGE_KINDS[stage.kind].of_all}
        return keys - {key for key, stage in of_all.items() if any(needed not in keys for _, needed in stage.inputs)}

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
    if any(chain.side_paths for chain in chains):
        points = Counter(key for chain in chains for key in {stage.key for stage in chain.all_stages})
    shorter = _shorter_budgets(stages.values())
    rounds = rounds_of(chains)
    jobs: list[Job] = []
    seen: set[str] = set()

    def add(group: Sequence[Stage], count: int) -> None:
        jobs.append(make_job(group, count, shorter, min(rounds[stage.key] for stage in group)))

    for path in (path for chain in chains for path in chain.paths):
        group: list[Stage] = []
        for few in _batches(stage for stage in path if stage.key not in seen):
            seen.update(stage.key for stage in few)
            add(few, points[few[0].key])
        for stage in path:
            if STAGE_KINDS[stage.kind].per_job:
                continue
            if users[stage.key] > 1:
                if stage.key not in seen:
                    seen.add(stage.key)
                    add([stage], points[stage.key])
            else:
                if group and _cut(group, stage):
                    add(group, 1)
                    group = []
                group.append(stage)
        if group:
            add(group, 1)
    return Plan(list(chains), dict(stages), jobs, {chain.point.hash for chain in chains})


COMPARED_WITH = ("random", "full")
"""Methods that others are compared with."""


def rounds_of(chains: Iterable[Chain]) -> dict[str, int]:
    """Key -> its round. The first repeat of every cell of a table comes before any second one, and in each repeat what
    others are compared with comes first: a sweep that is stopped has the broadest table that it could have."""
    repeats: Counter[tuple[Any, ...]] = Counter()
    rounds: dict[str, int] = {}
    for chain in chains:
        cell = chain.point.cell
        number = 2 * repeats[cell] + (chain.point.method not in COMPARED_WITH)
        repeats[cell] += 1
        for stage in chain.all_stages:
            rounds[stage.key] = min(number, rounds.get(stage.key, number))
    return rounds


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
            reduced.append(restrict(job, stages, done))
    return reduced


def longest_chain(jobs: Sequence[Job], seconds: Mapping[str, float]) -> list[Job]:
    """The jobs of the chain that takes longest, in order: no number of cards makes the sweep shorter."""
    length: dict[str, float] = {}
    before: dict[str, Job | None] = {}
    for job, needed in in_order(jobs):
        earlier = max(needed, key=lambda each: length[each.name], default=None)
        length[job.name] = seconds[job.name] + (length[earlier.name] if earlier is not None else 0.0)
        before[job.name] = earlier
    at = max(jobs, key=lambda job: length[job.name], default=None)
    chain: list[Job] = []
    while at is not None:
        chain.append(at)
        at = before[at.name]
    return chain[::-1]


def in_order(jobs: Sequence[Job]) -> list[tuple[Job, list[Job]]]:
    """Every job after those that it waits for, and with them."""
    makers = {stage.key: job for job in jobs for stage in job.stages}
    needed = {
        job.name: [
            maker for key in (*job.needs, *job.after) if (maker := makers.get(key)) is not None and maker is not job
        ]
        for job in jobs
    }
    found: list[tuple[Job, list[Job]]] = []
    seen: set[str] = set()
    for job in jobs:
        stack = [(job, False)]
        while stack:
            each, ready = stack.pop()
            if ready:
                found.append((each, needed[each.name]))
            elif each.name not in seen:
                seen.add(each.name)
                stack.append((each, True))
                stack += [(other, False) for other in needed[each.name] if other.name not in seen]
    return found


def _batches(stages: Iterable[Stage]) -> Iterator[list[Stage]]:
    """Stages of kinds of which a few form a job, few by few."""
    kinds: dict[Kind, list[Stage]] = defaultdict(list)
    for stage in stages:
        if STAGE_KINDS[stage.kind].per_job:
            kinds[stage.kind].append(stage)
    for kind, members in kinds.items():
        size = STAGE_KINDS[kind].per_job
        assert size is not None
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _cut(group: Sequence[Stage], stage: Stage) -> bool:
    """Whether a stage must leave the group: what it waits for, other CPUs (and so other numerics), or another share of
    the GPU."""
    if STAGE_KINDS[stage.kind].alone or STAGE_KINDS[group[-1].kind].alone:
        return True
    if stage.cpus != group[0].cpus:
        return True
    shares = [member.share for member in group if member.share is not None]
    return stage.share is not None and bool(shares) and stage.share != shares[0]


def make_job(
    stages: Sequence[Stage], points: int, shorter: Mapping[str, tuple[str, ...]] | None = None, in_round: int = 0
) -> Job:
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
        round=in_round,
    )


def restrict(job: Job, stages: Sequence[Stage], done: Collection[str]) -> Job:
    """A job with fewer stages: what it still waits for and its work follow from those that are left."""
    own = {stage.key for stage in stages}
    needs = dict.fromkeys(key for stage in stages for _, key in stage.inputs if key not in own and key not in done)
    return replace(
        job,
        stages=tuple(stages),
        needs=tuple(needs),
        after=tuple(key for key in job.after if key not in done),
        work=sum(stage.work for stage in stages),
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
