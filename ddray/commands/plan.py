"""The plan as people and programs see it."""

from __future__ import annotations

import json
from typing import Any

from ddray.collector import no_cycle_search
from ddray.plan.jobs import runnable_jobs
from ddray.plan.sharing import sharing_facts
from ddray.prepare import Prepared
from ddray.settings import Places
from ddray.store.artifacts import Store
from trainables.configs import KINDS


@no_cycle_search()
def plan_facts(prepared: Prepared, places: Places) -> dict[str, Any]:
    """Counts against what the store holds. Creates nothing: a store that does not exist is an empty one."""
    done: set[str] = set()
    if "://" in places.store or places_exists(places):
        store = Store(places.store, places.cache / "artifacts")
        done = store.keys() & prepared.plan.stages.keys()
    facts = {"sweep": prepared.sweep.name, "store": places.store, **prepared.plan.summary(done)}
    facts["unread_datasets"] = list(prepared.unread)
    facts["unpublished_settings"] = _unpublished(prepared)
    facts["gpu_shares"] = _shares(prepared, done)
    return {**facts, **sharing_facts(prepared.plan)}


def places_exists(places: Places) -> bool:
    """Whether the local store exists."""
    from pathlib import Path

    return Path(places.store).is_dir()


def plan_text(prepared: Prepared, facts: dict[str, Any], show_points: bool) -> str:
    """A table of stages, then what blocks and what was filled in."""
    lines = [f"{facts['sweep']}: {facts['points']} points, {facts['jobs']} jobs to run", ""]
    lines.append(f"{'stages':<12}{'total':>8}{'cached':>8}{'to do':>8}{'blocked':>9}")
    for kind in KINDS:
        if kind in facts["stages"]:
            counts = facts["stages"][kind]
            row = "".join(f"{counts[name]:>8}" for name in ("total", "cached", "todo"))
            lines.append(f"{kind:<12}{row}{counts['blocked']:>9}")
    if facts["blocked"]:
        lines += ["", "blocked:", *(f"  {count:>6} stages: {reason}" for reason, count in facts["blocked"].items())]
    if facts["gpu_shares"]:
        lines += [
            "",
            "shares of a GPU (jobs to run): "
            + ", ".join(f"{count} x {share}" for share, count in facts["gpu_shares"].items()),
        ]
    lines += ["", *_sharing_lines(facts)]
    if facts["unread_datasets"]:
        lines += ["", f"not read on this machine yet: {', '.join(facts['unread_datasets'])}"]
    if facts["unpublished_settings"]:
        lines += ["", "settings without a published value:"]
        alike: dict[tuple[str, ...], list[str]] = {}
        for entry in facts["unpublished_settings"]:
            values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in entry["settings"].items())
            said = (f"{entry['method']} {entry['dataset']}", values, entry["source"])
            alike.setdefault(said, []).append(str(entry["ipc"]))
        for (what, values, source), ipcs in alike.items():
            lines += [f"  {what} ipc={','.join(ipcs)}: {values}", f"      {source}"]
    if show_points:
        lines += ["", "points:"]
        lines += [
            f"  {chain.point.hash[:12]} {stage.label}"
            for chain in prepared.plan.chains
            if chain.point.hash in prepared.plan.selected and (stage := chain.stage("accuracy")) is not None
        ]
    return "\n".join(lines)


def _unpublished(prepared: Prepared) -> list[dict[str, Any]]:
    """What was filled in without a published value: one entry per combination and source."""
    found: dict[tuple[str, str, int | None, str], dict[str, Any]] = {}
    for chain in prepared.plan.chains:
        for chosen in chain.unpublished:
            place = (chain.point.method, chain.point.dataset, chain.point.ipc, chosen.source)
            found.setdefault(place, {})[chosen.setting] = chosen.value
    return [
        {"method": method, "dataset": dataset, "ipc": ipc, "settings": values, "source": source}
        for (method, dataset, ipc, source), values in found.items()
    ]


def _sharing_lines(facts: dict[str, Any]) -> list[str]:
    sharing = facts["sharing"]
    saved = 1 - sharing["stages"] / sharing["alone"]
    lines = [
        f"sharing: {sharing['stages']:,} stages; {sharing['alone']:,} if every point were computed alone "
        f"({saved:.0%} saved)"
    ]
    privacy = facts["privacy"]
    if privacy["points"]:
        lines.append(f"privacy of {privacy['points']:,} points: the audits need")
        lines.append(f"  {'':<12}{'stages':>12}{'unshared':>12}{'saved':>12}")
        for kind, counts in privacy["needs"].items():
            numbers = (counts["stages"], counts["unshared"], counts["saved"])
            lines.append(f"  {kind:<12}" + "".join(f"{number:>12,}" for number in numbers))
        lines.append("  (unshared: fresh shadows for every target of every point)")
        notes = (("not applicable", privacy["not_applicable"]), ("reduced", privacy["reduced"]))
        lines += [f"  {what} at {count:,} points: {why}" for what, entries in notes for why, count in entries.items()]
    return lines


def _shares(prepared: Prepared, done: set[str]) -> dict[str, int]:
    names = {0.0: "no GPU", 0.125: "1/8", 0.25: "1/4", 0.5: "1/2", 1.0: "1"}
    counts: dict[str, int] = {}
    for job in runnable_jobs(prepared.plan, done):
        name = names.get(job.gpu, f"{job.gpu:g}")
        counts[name] = counts.get(name, 0) + 1
    return counts
