"""`ddray plan`: the plan against what the store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddray.collector import no_cycle_search
from ddray.plan.jobs import Plan, runnable_jobs
from ddray.plan.summary import plan_summary, summary_text
from ddray.prepare import Prepared
from ddray.price.bill import bill, bill_lines, hours
from ddray.price.devices import Machine
from ddray.price.estimates import Prices
from ddray.price.fitting import fit
from ddray.price.measured import Measured, measured_in
from ddray.run.limits import limit_text
from ddray.run.simulate import NO_LIMIT, Limit, seconds_of, simulate, simulation_facts
from ddray.settings import Folders
from ddray.store.artifacts import Store


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is asked about the run that is to come."""

    simulate: bool = False
    limit: Limit = NO_LIMIT
    gantt: Path | None = None

    @property
    def asked(self) -> bool:
        return self.simulate or self.gantt is not None or self.limit != NO_LIMIT


NOTHING_AHEAD = Ahead()


@no_cycle_search()
def plan_facts(prepared: Prepared, folders: Folders, machine: Machine, ahead: Ahead = NOTHING_AHEAD) -> dict[str, Any]:
    """The summary with the sweep's name, and what is left to pay. Creates nothing in the store: one that does not exist
    is an empty one.

    Args:
        prepared: The sweep.
        folders: Where its store is.
        machine: What it would run on.
        ahead: With something asked, ``simulation`` is there: as of ``simulation_facts``.
    """
    done: set[str] = set()
    measured, checkpoints = Measured(), dict[str, list[int]]()
    if "://" in folders.store or Path(folders.store).is_dir():
        store = Store(folders.store, folders.cache / "artifacts")
        done = store.keys() & prepared.plan.stages.keys()
        measured, checkpoints = measured_in(store), store.checkpointed()
    plan = prepared.plan
    fit(plan, done, machine, measured)
    used = {chain.point.dataset for chain in plan.chains if chain.point.hash in plan.selected}
    facts = {"sweep": prepared.sweep.name, "store": folders.store, "notes": list(prepared.notes)}
    unread = [name for name in prepared.unread if name in used]
    found = {
        **facts,
        "unread_datasets": unread,
        **plan_summary(plan, done),
        "cost": bill(plan, done, machine, measured, checkpoints),
    }
    if ahead.asked:
        jobs = runnable_jobs(plan, done)
        seconds = seconds_of(jobs, Prices(machine.device, measured), checkpoints)
        simulation = simulate(jobs, done, machine, seconds, ahead.limit)
        found["simulation"] = simulation_facts(plan, done, simulation, jobs=ahead.simulate)
        found["simulation"]["limit"] = limit_text(ahead.limit)
        if ahead.gantt is not None:
            from ddray.commands.gantt import write_gantt

            write_gantt(simulation, ahead.gantt)
    return found


def plan_text(plan: Plan, facts: Mapping[str, Any], show_points: bool) -> str:
    """The plan for people: counts, then the bill."""
    lines = [summary_text(plan, facts, show_points), "", *bill_lines(facts["cost"])]
    if "simulation" in facts:
        lines += ["", *_simulation_lines(facts["simulation"], facts["points"], facts["cost"])]
    return "\n".join(lines).rstrip()


SHOWN_HOURS = (1, 6, 12, 24, 48, 72, 168, 336, 672)
"""When a simulation is looked at."""


def _simulation_lines(simulated: Mapping[str, Any], points: int, cost: Mapping[str, Any]) -> list[str]:
    """How the run would go, and how many points there would be when."""
    what = f"{cost['count']} x {cost['device']}" if cost["is_card"] else f"{cost['count']} cores"
    there, end = simulated["points"], simulated["makespan_hours"]
    idle = 1 - simulated["utilisation"]
    lines = [
        f"simulated on {what}: done after {hours(end)}; no order takes less than "
        f"{hours(simulated['lower_bound_hours'])}; {idle:.0%} of the {'cards' if cost['is_card'] else 'cores'} idle",
        "  a job takes what its stages are estimated to, in proportion to its share of a card; starting workers is not "
        "in it",
    ]
    shown = [each for each in SHOWN_HOURS if each < end]
    if shown:
        counts = ", ".join(f"{sum(at <= each for at in there)} after {each} h" for each in shown)
        lines.append(f"  points there: {counts}, {len(there)} at the end")
    if simulated["limit"]:
        lines.append(
            f"{simulated['limit']}: {len(there)} of {points} points will be there; {simulated['left_out']} jobs are "
            "left for later. The first repeat of every cell comes first."
        )
    return lines
