"""`ddray plan`: the plan against what the store holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddray.collector import no_cycle_search
from ddray.plan.jobs import Plan
from ddray.plan.summary import plan_summary, summary_text
from ddray.prepare import Prepared
from ddray.price.bill import bill, bill_lines
from ddray.price.devices import Machine
from ddray.price.measured import Measured, measured_in
from ddray.settings import Folders
from ddray.store.artifacts import Store


@no_cycle_search()
def plan_facts(prepared: Prepared, folders: Folders, machine: Machine) -> dict[str, Any]:
    """The summary with the sweep's name, and what is left to pay. Creates nothing: a store that does not exist is an
    empty one."""
    done: set[str] = set()
    measured, checkpoints = Measured(), dict[str, list[int]]()
    if "://" in folders.store or Path(folders.store).is_dir():
        store = Store(folders.store, folders.cache / "artifacts")
        done = store.keys() & prepared.plan.stages.keys()
        measured, checkpoints = measured_in(store), store.checkpointed()
    plan = prepared.plan
    used = {chain.point.dataset for chain in plan.chains if chain.point.hash in plan.selected}
    facts = {"sweep": prepared.sweep.name, "store": folders.store, "notes": list(prepared.notes)}
    unread = [name for name in prepared.unread if name in used]
    return {
        **facts,
        "unread_datasets": unread,
        **plan_summary(plan, done),
        "cost": bill(plan, done, machine, measured, checkpoints),
    }


def plan_text(plan: Plan, facts: Mapping[str, Any], show_points: bool) -> str:
    """The plan for people: counts, then the bill."""
    return "\n".join([summary_text(plan, facts, show_points), "", *bill_lines(facts["cost"])]).rstrip()
