"""What a sweep would do on a machine, hour by hour: the schedule and the books of the executors, without the work.

A job starts as soon as it is its turn and there is room, and takes what its stages are estimated to take on its share
of a card (a card that is full of jobs does the work of one job that has it whole). What starting workers, reading data
and a busy network cost is not in it.

With a limit it says which part of a sweep fits: nothing is started that would not end in time, or that the budget does
not hold; what is smaller and comes later still may be.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ddray.plan.jobs import Job, Plan, longest_chain
from ddray.price.bill import priced_stages
from ddray.price.devices import Machine
from ddray.price.estimates import Prices
from ddray.run.ledger import Ledger, Node, next_job
from ddray.run.schedule import Schedule

CPUS_PER_CARD = 8
"""Of a machine with cards that is not this one."""
HOUR = 3600.0


class Limit(NamedTuple):
    """What a run may take."""

    seconds: float | None = None
    """By the clock, from its start."""
    budget: float | None = None
    """Hours of whole cards, or of cores."""


NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True)
class Run:
    """One job of a simulation."""

    job: Job
    card: int | None
    """From 0; None: on a core."""
    share: float
    """Of the card."""
    start: float
    """Seconds."""
    end: float


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would run when.

    Attributes:
        machine: On what.
        runs: In the order of their starts.
        left_out: Jobs that the limit does not hold, and those that wait for one.
    """

    machine: Machine
    runs: list[Run] = field(default_factory=list)
    left_out: list[Job] = field(default_factory=list)

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return max((run.end for run in self.runs), default=0.0)

    @property
    def work(self) -> float:
        """Seconds of whole cards, or of cores."""
        return sum(self._load(run) for run in self.runs)

    @property
    def utilisation(self) -> float:
        """The share of the machine that worked, from start to end."""
        return self.work / (self.machine.count * self.makespan) if self.makespan else 0.0

    def lower_bound(self) -> float:
        """Seconds that no order beats: all work on all cards, or the longest chain."""
        seconds = {run.job.name: run.end - run.start for run in self.runs}
        chain = sum(seconds[job.name] for job in longest_chain([run.job for run in self.runs], seconds))
        return max(self.work / self.machine.count, chain)

    def ends(self) -> dict[str, float]:
        """Key -> seconds until the stage is there."""
        return {stage.key: run.end for run in self.runs for stage in run.job.stages}

    def _load(self, run: Run) -> float:
        return (run.end - run.start) * (run.share if self.machine.device.is_card else run.job.cpus)


def simulate(
    jobs: Sequence[Job],
    done: Collection[str],
    machine: Machine,
    seconds: Callable[[Job], float],
    limit: Limit = NO_LIMIT,
) -> Simulation:
    """Run jobs on a made-up clock.

    Args:
        jobs: As ``runnable_jobs`` gives them.
        done: Keys that are finished.
        machine: What there is of cards or cores.
        seconds: What a job takes.
        limit: What it may take in all.
    """
    cards = machine.device.is_card
    cpus = machine.count * (CPUS_PER_CARD if cards else 1)
    ledger = Ledger([Node("0", cpus, machine.count if cards else 0)])
    schedule = Schedule(jobs, done, seconds)
    schedule.places = machine.count
    simulation = Simulation(machine)
    running: list[tuple[float, int, Run]] = []
    numbers = itertools.count()
    now = spent = 0.0
    while True:
        while (job := next_job(schedule, ledger, cards, now=now)) is not None:
            took = seconds(job)
            slot = ledger.fit(job.asks(cards), now + took)
            assert slot is not None
            cost = took * (slot.share if cards else job.cpus) / HOUR
            if _is_over(limit, now + took, spent + cost):
                simulation.left_out.append(job)
                schedule.finish(job.name, (), {job.stages[0].key: "left out"})
                continue
            spent += cost
            ledger.take(job.name, slot)
            run = Run(job, slot.gpu, slot.share, now, now + took)
            simulation.runs.append(run)
            heapq.heappush(running, (run.end, next(numbers), run))
        if not running:
            break
        now, _, run = heapq.heappop(running)
        ledger.release(run.job.name)
        schedule.finish(run.job.name, [stage.key for stage in run.job.stages], {})
    begun = {run.job.name for run in simulation.runs} | {job.name for job in simulation.left_out}
    simulation.left_out.extend(job for job in jobs if job.name not in begun)
    return simulation


def _is_over(limit: Limit, end: float, spent: float) -> bool:
    late = limit.seconds is not None and end > limit.seconds
    return late or (limit.budget is not None and spent > limit.budget)


# --- what there will be -----------------------------------------------------------------------------------------------


def points_by(plan: Plan, done: Collection[str], simulation: Simulation) -> list[float]:
    """Seconds until each selected point that will be there is complete, ascending."""
    ends = simulation.ends()
    times = []
    for chain in plan.chains:
        if chain.point.hash in plan.selected:
            known = [0.0 if stage.key in done else ends.get(stage.key) for stage in chain.all_stages]
            if all(end is not None for end in known):
                times.append(max(end for end in known if end is not None))
    return sorted(times)


def simulation_facts(plan: Plan, done: Collection[str], simulation: Simulation, jobs: bool) -> dict[str, Any]:
    """A simulation as JSON types, in hours.

    Args:
        plan: Of the sweep.
        done: Keys that were finished before.
        simulation: Of its jobs.
        jobs: Whether to list every job.

    Returns:
        ``makespan_hours``, ``lower_bound_hours``, ``utilisation``, ``work_hours``, ``points`` (hours until the first,
        the second, ... is complete), ``left_out`` (jobs), ``jobs``: ``key``, ``label``, ``gpu`` (share), ``hours``,
        ``after`` (jobs it waits for), ``card``, ``start``, ``end``.
    """
    makers = {stage.key: run.job.name for run in simulation.runs for stage in run.job.stages}
    listed = [
        {
            "key": run.job.name,
            "label": run.job.label,
            "gpu": run.share,
            "hours": (run.end - run.start) / HOUR,
            "after": sorted({makers[key] for key in (*run.job.needs, *run.job.after) if key in makers}),
            "card": run.card,
            "start": run.start / HOUR,
            "end": run.end / HOUR,
        }
        for run in (simulation.runs if jobs else ())
    ]
    return {
        "makespan_hours": simulation.makespan / HOUR,
        "lower_bound_hours": simulation.lower_bound() / HOUR,
        "utilisation": simulation.utilisation,
        "work_hours": simulation.work / HOUR,
        "points": [seconds / HOUR for seconds in points_by(plan, done, simulation)],
        "left_out": len(simulation.left_out),
        "jobs": listed,
    }


def within(simulation: Simulation, jobs: Iterable[Job]) -> list[Job]:
    """The jobs that a limited simulation runs, in plan order."""
    chosen = {run.job.name for run in simulation.runs}
    return [job for job in jobs if job.name in chosen]


def seconds_of(jobs: Sequence[Job], prices: Prices, checkpoints: Mapping[str, Iterable[int]]) -> Callable[[Job], float]:
    """What a job takes: what a checkpoint holds is not done again.

    Args:
        jobs: That are to run; one that is added later, because an artifact was damaged, begins from nothing.
        prices: Of the device.
        checkpoints: Lineage -> iterations of the checkpoints that the store has.
    """
    priced = priced_stages(jobs, prices, checkpoints)
    known = {job.name: sum(priced[stage.key].seconds for stage in job.stages) for job in jobs}

    def seconds(job: Job) -> float:
        if job.name in known:
            return known[job.name]
        return sum(prices.of(stage, job.gpu).seconds for stage in job.stages)

    return seconds
