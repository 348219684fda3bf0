"""Jobs ask for shares of the cards that are there.

As much as their stages hold: what was seen, else what the plan estimates. No less than pays, where it was tried how
many jobs a card takes to advantage. And more, where a chain of jobs would take too large a part of what all the work
takes on all cards: a job runs as fast as its share says, and in the end everything would wait for that chain.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, Plan, in_order, runnable_jobs
from ddray.plan.shares import LEAST, SHARES, share_of
from ddray.price.devices import Machine
from ddray.price.estimates import Prices
from ddray.price.measured import Measured

PAYS = 1.1
"""Company pays from so many times the work of one process."""
LONGEST = 1 / 20
"""Of the hours that all the work takes on all cards: what a chain may take in a sweep of many jobs. Where all jobs run
at once it may take all of them (``python -m benchmarks.simulation``)."""
NEARLY = 0.95
"""Of the most work that jobs together do, what a smaller number of them may do as well."""


def fit(plan: Plan, done: Collection[str], machine: Machine, measured: Measured) -> None:
    """Let the plan's jobs ask for shares of this machine's cards; without a card nothing changes.

    Shares that the sweep asks for stay as they are.

    Args:
        plan: Its jobs are replaced.
        done: Keys of its stages that are finished.
        machine: What it runs on.
        measured: What finished stages took.
    """
    device = machine.device
    if device.memory_gib is None:
        return
    least = least_share(measured.company.get(device.measured_as, {}))
    plan.jobs = [_fitted(job, device.memory_gib, least, measured) for job in plan.jobs]
    wider = widened(runnable_jobs(plan, done), machine.count, Prices(device, measured))
    plan.jobs = [replace(job, gpu=wider[job.name]) if job.name in wider else job for job in plan.jobs]


def widened(jobs: Sequence[Job], cards: int, prices: Prices) -> dict[str, float]:
    """Name -> larger share, of jobs on chains that would take more than their part of the time.

    Args:
        jobs: That are to run.
        cards: How many.
        prices: Of one of them.
    """
    order = in_order(jobs)
    shares = {job.name: job.gpu for job in jobs}
    free = {
        job.name for job in jobs if 0 < job.gpu < 1 and all(stage.held_mib or not stage.share for stage in job.stages)
    }
    part = min(1.0, max(LONGEST, cards / LEAST / len(free))) if free else 1.0
    wider: dict[str, float] = {}
    for _ in SHARES:
        took = {job.name: sum(prices.of(stage, shares[job.name]).seconds for stage in job.stages) for job in jobs}
        bound = sum(took[name] * share for name, share in shares.items()) / cards
        through = _through(order, took)
        late = [name for name in free if through[name] > part * bound * (1 + 1e-9) and shares[name] < 1]
        if not late:
            break
        for name in late:
            wider[name] = shares[name] = min(share for share in SHARES if share > shares[name])
    return wider


def _through(order: Sequence[tuple[Job, list[Job]]], took: Mapping[str, float]) -> dict[str, float]:
    """Name -> seconds of the longest chain that the job is part of."""
    until: dict[str, float] = {}
    behind = dict.fromkeys(took, 0.0)
    for job, needed in order:
        until[job.name] = took[job.name] + max((until[each.name] for each in needed), default=0.0)
    for job, needed in reversed(order):
        for each in needed:
            behind[each.name] = max(behind[each.name], took[job.name] + behind[job.name])
    return {name: until[name] + behind[name] for name in took}


def least_share(company: Mapping[int, float]) -> float:
    """The smallest share that jobs should ask for.

    Args:
        company: Processes at once -> their work in that of one, as ``ddray calibrate`` saw it; empty: not known.
    """
    if not company:
        return LEAST
    most = max(company.values())
    if most < PAYS:
        return 1.0
    together = min(count for count, work in company.items() if work >= NEARLY * most)
    return max(share for share in SHARES if share * together <= 1)


def held_by(stage: Stage, measured: Measured) -> float:
    """MiB of a card that the tensors of a stage hold; 0 where that decides nothing. Seen on a card, else estimated."""
    if stage.held_mib == 0:
        return 0.0
    seen = measured.peak_of(stage)
    return seen if seen is not None else stage.held_mib


def _fitted(job: Job, card_gib: float, least: float, measured: Measured) -> Job:
    shares = [_share(stage, card_gib, least, measured) for stage in job.stages if stage.share is not None]
    share = max(shares, default=0.0)
    return job if math.isclose(share, job.gpu) else replace(job, gpu=share)


def _share(stage: Stage, card_gib: float, least: float, measured: Measured) -> float:
    if stage.held_mib == 0:
        return stage.share or 0.0
    return share_of(held_by(stage, measured), card_gib, least)
