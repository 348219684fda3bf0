"""What the rest of a sweep costs on a machine: hours by kind, method and grid, the longest chain, the disk."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Job, Plan, longest_chain, runnable_jobs
from ddray.plan.shares import room_for
from ddray.price.devices import Machine
from ddray.price.estimates import FACTORS, Basis, Prices, head_starts
from ddray.price.fitting import held_by
from ddray.price.measured import Measured
from trainables.configs import KINDS, DistillConfig, ExpertConfig

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Priced:
    """One stage with its price."""

    stage: Stage
    seconds: float
    """By the clock."""
    hours: float
    """Of a whole card, or of a core."""
    basis: Basis


def bill(
    plan: Plan,
    done: Collection[str],
    machine: Machine,
    measured: Measured,
    checkpoints: Mapping[str, Iterable[int]],
) -> dict[str, Any]:
    """The cost of what the selected points still need.

    Args:
        plan: Of a sweep.
        done: Keys of its stages that are finished.
        machine: What it would run on.
        measured: What finished stages took.
        checkpoints: Lineage -> iterations of the checkpoints that the store has.

    Returns:
        JSON types, hours throughout. ``device``, ``count``; ``hours``: of whole cards, or of cores; ``factor``: within
        which the total is to be believed; ``basis``: basis -> hours; ``kinds``, ``methods``: name -> hours; ``grids``:
        name -> ``alone`` (if it were the only one) and ``adds`` (what no grid before it needs); ``privacy``: hours of
        stages that only audits need; ``longest_chain``: ``hours`` and ``labels``; ``wall``: no less than so many hours,
        by the work and by the longest chain; ``utilisation``: the share of the machine that then works;
        ``disk_bytes``; ``too_large``: ``jobs`` that may need more memory than a card has, with ``gib``.
    """
    jobs = runnable_jobs(plan, done)
    priced = priced_stages(jobs, Prices(machine.device, measured), checkpoints)
    total = sum(each.hours for each in priced.values())
    seconds = {job.name: sum(priced[stage.key].seconds for stage in job.stages) for job in jobs}
    chain = longest_chain(jobs, seconds)
    chain_hours = sum(seconds[job.name] for job in chain) / HOUR
    basis = _sums((each.basis, each.hours) for each in priced.values())
    kinds = _sums((each.stage.kind, each.hours) for each in priced.values())
    counts = Counter(each.stage.kind for each in priced.values())
    methods = _sums((_method(each.stage), each.hours) for each in priced.values())
    methods.pop("", None)
    wall = max(total / machine.count, chain_hours)
    return {
        "device": machine.device.name,
        "count": machine.count,
        "is_card": machine.device.is_card,
        "hours": total,
        "factor": _factor(basis, total),
        "basis": {name: basis[name] for name in FACTORS if basis.get(name)},
        "kinds": {kind: {"stages": counts[kind], "hours": kinds[kind]} for kind in KINDS if counts[kind]},
        "methods": dict(sorted(methods.items(), key=lambda each: -each[1])),
        "grids": _grids(plan, priced),
        "privacy": sum(priced[key].hours for key in _for_audits_alone(plan) & priced.keys()),
        "longest_chain": {"hours": chain_hours, "labels": [job.label for job in chain]},
        "wall": wall,
        "utilisation": total / (machine.count * wall) if wall else 1.0,
        "disk_bytes": sum(each.stage.size for each in priced.values()),
        "too_large": _too_large(jobs, machine, measured),
    }


def priced_stages(jobs: Sequence[Job], prices: Prices, checkpoints: Mapping[str, Iterable[int]]) -> dict[str, Priced]:
    """Key -> price, of the stages of jobs.

    Args:
        jobs: That are to run.
        prices: Of the device.
        checkpoints: Lineage -> iterations of the checkpoints that the store has.
    """
    starts = head_starts([stage for job in jobs for stage in job.stages], checkpoints)
    return {stage.key: _priced(stage, job, prices, starts) for job in jobs for stage in job.stages}


def _priced(stage: Stage, job: Job, prices: Prices, starts: Mapping[str, float]) -> Priced:
    """A stage on its job's share of a card; what a shorter budget of the same path has done is not done again."""
    estimate = prices.of(stage, job.gpu)
    seconds = estimate.seconds * (1 - starts.get(stage.key, 0.0))
    return Priced(stage, seconds, seconds * (job.gpu if prices.device.is_card else 1.0) / HOUR, estimate.basis)


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for name, value in pairs:
        sums[name] += value
    return dict(sums)


def _method(stage: Stage) -> str:
    """Whose making it is part of, "" where of none."""
    match stage.config:
        case DistillConfig(method=method):
            return method
        case ExpertConfig(method=method):
            return method
    return ""


def _factor(basis: Mapping[str, float], total: float) -> float:
    """Of the total: the factors of its parts, weighted by their hours."""
    if not total:
        return 1.0
    return sum(FACTORS[name] * basis.get(name, 0.0) for name in FACTORS) / total


def _grids(plan: Plan, priced: Mapping[str, Priced]) -> dict[str, dict[str, float]]:
    """Grid -> hours alone, and hours that no grid before it needs."""
    keys: dict[str, set[str]] = defaultdict(set)
    for chain in _selected(plan):
        for grid in chain.point.grids:
            keys[grid].update(stage.key for stage in chain.all_stages)
    seen: set[str] = set()
    hours = {}
    for grid, needed in keys.items():
        mine = needed & priced.keys()
        hours[grid] = {
            "alone": sum(priced[key].hours for key in mine),
            "adds": sum(priced[key].hours for key in mine - seen),
        }
        seen |= mine
    return hours


def _selected(plan: Plan) -> Iterable[Chain]:
    return (chain for chain in plan.chains if chain.point.hash in plan.selected)


def _for_audits_alone(plan: Plan) -> set[str]:
    """Keys of the stages that nothing but membership inference needs."""
    stack = [stage.key for chain in _selected(plan) for stage in chain.stages if stage.kind != "privacy"]
    needed: set[str] = set()
    while stack:
        key = stack.pop()
        if key not in needed:
            needed.add(key)
            stack += [each for _, each in plan.stages[key].inputs]
    return plan.stages.keys() - needed


def _too_large(jobs: Iterable[Job], machine: Machine, measured: Measured) -> list[dict[str, Any]]:
    """Jobs that take more than a whole card, by GiB."""
    memory = machine.device.memory_gib
    if memory is None:
        return []
    wanted = (max((room_for(held_by(stage, measured)) / 1024 for stage in job.stages), default=0.0) for job in jobs)
    counts = Counter(round(gib, 1) for gib in wanted if memory < gib < math.inf)
    return [{"jobs": count, "gib": gib} for gib, count in sorted(counts.items())]


# --- as text ----------------------------------------------------------------------------------------------------------


def bill_lines(facts: Mapping[str, Any]) -> list[str]:
    """The bill for people.

    Args:
        facts: As ``bill`` gives them.
    """
    if not facts["kinds"]:
        return []
    unit = f"{facts['device']} card" if facts["is_card"] else "core"
    many = f"{facts['count']} x {facts['device']}" if facts["is_card"] else f"{facts['count']} cores"
    total, factor = facts["hours"], facts["factor"]
    lines = [
        f"cost on {many}: about {hours(total)} of one {unit}, at least {hours(facts['wall'])} by the clock "
        f"({_range(facts['wall'], factor)} would not surprise), "
        f"{'cards' if facts['is_card'] else 'cores'} busy {facts['utilisation']:.0%} of it at best",
        f"  rests on: {', '.join(f'{name} {share:.0%}' for name, share in _parts(facts['basis'], total))}",
        f"  kinds:    {', '.join(f'{name} {hours(value)}' for name, value in _largest(_kind_hours(facts)))}",
    ]
    if len(facts["methods"]) > 1:
        shown = ", ".join(f"{name} {hours(value)}" for name, value in _largest(facts["methods"]))
        lines.append(f"  distilling: {shown}")
    if len(facts["grids"]) > 1:
        width = max(len(name) for name in facts["grids"])
        lines.append(f"  {'grid':<{width}}{'alone':>10}{'adds':>10}")
        lines += [
            f"  {name:<{width}}{hours(each['alone']):>10}{hours(each['adds']):>10}"
            for name, each in facts["grids"].items()
        ]
    if facts["privacy"]:
        lines.append(f"  {hours(facts['privacy'])} of it for membership inference alone (shadows and audits)")
    chain = facts["longest_chain"]
    slowest = ", then ".join(chain["labels"][:2]) + (", ..." if len(chain["labels"]) > 2 else "")
    lines.append(f"  the longest chain takes {hours(chain['hours'])}: {slowest}")
    lines.append(f"  disk: about {facts['disk_bytes'] / 2**30:.1f} GiB")
    for each in facts["too_large"]:
        lines.append(
            f"  may not fit: {each['jobs']} jobs take {each['gib']:.0f} GiB of a card that has less; "
            "give them a larger card, or lower batch_real of their methods"
        )
    return lines


def hours(value: float) -> str:
    """``8,150 h``, ``12 h``, ``1.5 h``, ``34 min``, ``9 s``."""
    if value >= 10:
        return f"{value:,.0f} h"
    if value >= 1:
        return f"{value:.1f} h"
    if value * 60 >= 1:
        return f"{value * 60:.0f} min"
    return f"{value * 3600:.0f} s"


def _range(value: float, factor: float) -> str:
    return f"{hours(value / factor)} to {hours(value * factor)}"


def _parts(basis: Mapping[str, float], total: float) -> list[tuple[str, float]]:
    return [(name, value / total) for name, value in basis.items()] if total else []


def _kind_hours(facts: Mapping[str, Any]) -> dict[str, float]:
    return {name: each["hours"] for name, each in facts["kinds"].items()}


def _largest(named: Mapping[str, float]) -> list[tuple[str, float]]:
    """Those that make a difference, largest first."""
    least = 0.005 * sum(named.values())
    return sorted(((name, value) for name, value in named.items() if value > least), key=lambda each: -each[1])
