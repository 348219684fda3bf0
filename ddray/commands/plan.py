"""`ddray plan`: the plan against what the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddray.collector import no_cycle_search
from ddray.plan.summary import plan_summary
from ddray.prepare import Prepared
from ddray.settings import Folders
from ddray.store.artifacts import Store


@no_cycle_search()
def plan_facts(prepared: Prepared, folders: Folders) -> dict[str, Any]:
    """The summary with the sweep's name. Creates nothing: a store that does not exist is an empty one."""
    done: set[str] = set()
    if "://" in folders.store or Path(folders.store).is_dir():
        store = Store(folders.store, folders.cache / "artifacts")
        done = store.keys() & prepared.plan.stages.keys()
    plan = prepared.plan
    used = {chain.point.dataset for chain in plan.chains if chain.point.hash in plan.selected}
    facts = {"sweep": prepared.sweep.name, "store": folders.store, "notes": list(prepared.notes)}
    unread = [name for name in prepared.unread if name in used]
    return {**facts, "unread_datasets": unread, **plan_summary(plan, done)}
