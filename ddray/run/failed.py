"""What of a sweep failed: by cause, and as the points to run again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from ddray.errors import RequestError
from ddray.plan.graph import Stage
from ddray.prepare import Prepared
from ddray.run.causes import ERROR
from ddray.store.artifacts import Store


def failures_facts(prepared: Prepared, store: Store) -> dict[str, Any]:
    """What of a sweep failed, by kind of cause and cause.

    Returns:
        ``sweep``, and ``causes``, those with most stages first: ``kind`` (of ``causes.py``), ``cause``, how many
        ``points`` are not complete because of it, how many stages are ``waiting`` behind it, and its ``stages``:
        ``key``, ``label``, ``host``, ``at`` (seconds since 1970), what it had of ``cpus`` and ``gpu``.
    """
    stages = prepared.plan.stages
    failed = {key: store.failure(key) or {} for key in sorted(store.failures() & stages.keys()) if not store.has(key)}
    behind = _behind(stages, failed)
    points: dict[str, set[str]] = defaultdict(set)
    for chain in prepared.plan.chains:
        for stage in chain.all_stages:
            if stage.key in failed:
                points[stage.key].add(chain.point.hash)
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, record in failed.items():
        groups[record.get("cause_kind", ERROR), record.get("cause", "")].append(key)
    causes = [
        {
            "kind": kind,
            "cause": cause,
            "points": len(set().union(*(points[key] for key in keys))),
            "waiting": sum(behind[key] for key in keys),
            "stages": [
                {"key": key, "label": stages[key].label}
                | {name: failed[key].get(name) for name in ("host", "at", "cpus", "gpu")}
                for key in keys
            ],
        }
        for (kind, cause), keys in sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    ]
    return {"sweep": prepared.sweep.name, "causes": causes}


def points_that_failed(prepared: Prepared, store: Store, kinds: Collection[str]) -> set[str]:
    """Hashes of the selected points with a stage that failed for causes of these kinds; all kinds where none is named.

    Raises:
        RequestError: There is none.
    """
    known = store.failures()
    failed = {
        key
        for key in prepared.plan.stages
        if key in known and (not kinds or (store.failure(key) or {}).get("cause_kind", ERROR) in kinds)
    }
    chains = [chain for chain in prepared.plan.chains if chain.point.hash in prepared.plan.selected]
    points = {chain.point.hash for chain in chains if any(stage.key in failed for stage in chain.all_stages)}
    if not points:
        found = Counter(
            (store.failure(key) or {}).get("cause_kind", ERROR) for key in known & prepared.plan.stages.keys()
        )
        had = ", ".join(f"{kind} ({count})" for kind, count in found.most_common()) or "none at all"
        asked = " or ".join(sorted(kinds)) or "any cause"
        raise RequestError(f"{prepared.sweep.name}: no stage failed for {asked}; got failures for {had}.")
    return points


def _behind(stages: Mapping[str, Stage], failed: Collection[str]) -> Counter[str]:
    """Failed key -> stages that wait for it, each counted at the first failure it waits for."""
    blamed = {key: key for key in failed}
    counts: Counter[str] = Counter()
    for key, stage in stages.items():  # inputs come before what needs them
        if key in blamed:
            continue
        if lost := next((blamed[needed] for _, needed in stage.inputs if needed in blamed), None):
            blamed[key] = lost
            counts[lost] += 1
    return counts
