"""The plan as people and programs see it: what is to do, what was filled in, and what is saved because equal stages are
one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, runnable_jobs
from trainables.configs import KINDS, PrivacyConfig, PrivacySettings

NEEDS = ("experts", "distill", "train")
"""Kinds of stages that audits need beside the points' own."""


def plan_summary(plan: Plan, done: Collection[str]) -> dict[str, Any]:
    """Counts of the selected points and of what they need.

    Args:
        plan: Of a sweep.
        done: Keys of its stages that are finished.

    Returns:
        What ``Plan.summary`` says; ``unpublished_settings``; ``gpu_shares``: jobs to run by share; ``sharing`` and
        ``privacy``: as of ``sharing``.
    """
    return {
        **plan.summary(done),
        "unpublished_settings": _unpublished(plan),
        "gpu_shares": _shares(plan, done),
        **sharing(plan),
    }


def summary_text(plan: Plan, summary: Mapping[str, Any], show_points: bool) -> str:
    """A table of stages, then what blocks and what was filled in."""
    lines = [f"{summary['sweep']}: {summary['points']} points, {summary['jobs']} jobs to run", ""]
    lines.append(f"{'stages':<12}{'total':>8}{'cached':>8}{'to do':>8}{'blocked':>9}")
    for kind in KINDS:
        if kind in summary["stages"]:
            counts = summary["stages"][kind]
            row = "".join(f"{counts[name]:>8}" for name in ("total", "cached", "todo"))
            lines.append(f"{kind:<12}{row}{counts['blocked']:>9}")
    if summary["blocked"]:
        lines += ["", "blocked:", *(f"  {count:>6} stages: {reason}" for reason, count in summary["blocked"].items())]
    if summary["gpu_shares"]:
        lines += [
            "",
            "shares of a GPU (jobs to run): "
            + ", ".join(f"{count} x {share}" for share, count in summary["gpu_shares"].items()),
        ]
    lines += ["", *_sharing_lines(summary)]
    if summary["notes"]:
        lines += ["", *(f"note: {note}" for note in summary["notes"])]
    if summary["unread_datasets"]:
        lines += ["", f"not read on this machine yet: {', '.join(summary['unread_datasets'])}"]
    if summary["unpublished_settings"]:
        lines += ["", "settings without a published value:"]
        alike: dict[tuple[str, ...], list[str]] = {}
        for entry in summary["unpublished_settings"]:
            values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in entry["settings"].items())
            said = (f"{entry['method']} {entry['dataset']}", values, entry["source"])
            alike.setdefault(said, []).append(str(entry["ipc"]))
        for (what, values, source), ipcs in alike.items():
            lines += [f"  {what} ipc={','.join(ipcs)}: {values}", f"      {source}"]
    if show_points:
        lines += ["", "points:"]
        lines += [
            f"  {chain.point.hash[:12]} {stage.label}"
            for chain in plan.chains
            if chain.point.hash in plan.selected and (stage := chain.stage("accuracy")) is not None
        ]
    return "\n".join(lines)


def _unpublished(plan: Plan) -> list[dict[str, Any]]:
    """What was filled in for the selected points without a published value: one entry per combination and source."""
    settings: dict[tuple[str, str, int | None, str], dict[str, Any]] = {}
    for chain in plan.chains:
        if chain.point.hash not in plan.selected:
            continue
        for chosen in chain.unpublished:
            combination = (chain.point.method, chain.point.dataset, chain.point.ipc, chosen.source)
            settings.setdefault(combination, {})[chosen.setting] = chosen.value
    return [
        {"method": method, "dataset": dataset, "ipc": ipc, "settings": values, "source": source}
        for (method, dataset, ipc, source), values in settings.items()
    ]


def _sharing_lines(summary: Mapping[str, Any]) -> list[str]:
    sharing = summary["sharing"]
    saved = 1 - sharing["stages"] / sharing["alone"]
    lines = [
        f"sharing: {sharing['stages']:,} stages; {sharing['alone']:,} if every point were computed alone "
        f"({saved:.0%} saved)"
    ]
    privacy = summary["privacy"]
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


def _shares(plan: Plan, done: Collection[str]) -> dict[str, int]:
    names = {0.0: "no GPU", 1 / 16: "1/16", 0.125: "1/8", 0.25: "1/4", 0.5: "1/2", 1.0: "1"}
    counts: dict[str, int] = {}
    for job in runnable_jobs(plan, done):
        name = names.get(job.gpu, f"{job.gpu:g}")
        counts[name] = counts.get(name, 0) + 1
    return counts


# --- sharing ----------------------------------------------------------------------------------------------------------


def sharing(plan: Plan) -> dict[str, Any]:
    """Counts of the selected points, finished stages included.

    Returns:
        ``sharing``: ``stages`` as planned, and ``alone``: the sum over points, each as if it were the only one.
        ``privacy``: ``points``; ``needs`` by kind: ``stages`` that the audits have beside the points' own, starts of
        iteration 0 apart, ``unshared``: the design without sharing, in which every target of every point has fresh
        shadows (T * R for T targets and R rows), and what is ``saved``; ``not_applicable`` and ``reduced``: reason ->
        points.
    """
    chains = [chain for chain in plan.chains if chain.point.hash in plan.selected]
    alone = sum(
        len({stage.key for stage in chain.all_stages}) if chain.side_paths else len(chain.stages) for chain in chains
    )
    return {"sharing": {"stages": len(plan.needed()), "alone": alone}, "privacy": _privacy(plan.stages, chains)}


def _privacy(stages: Mapping[str, Stage], chains: Iterable[Chain]) -> dict[str, Any]:
    behind = _Behind(stages)
    shared: set[frozenset[str]] = set()
    unshared: Counter[str] = Counter()
    unfit: Counter[str] = Counter()
    reduced: Counter[str] = Counter()
    points = 0
    for chain in chains:
        stage = chain.stage("privacy") if "privacy" in chain.point.evaluations else None
        if stage is None:
            continue
        points += 1
        assert isinstance(stage.config, PrivacyConfig)
        unfit.update(stage.config.unfit.values())
        reduced.update(_reduced(chain, stage.config))
        for role, key in stage.inputs:
            if role != "seed.model" and not role.endswith((".set", ".teacher")):
                times = stage.config.targets if role.startswith("row.") else 1
                built_on = behind.of(key)
                shared.add(built_on.keys)
                for kind, count in built_on.kinds.items():
                    unshared[kind] += times * count
    needed: Counter[str] = Counter(stages[key].kind for key in frozenset[str]().union(*shared))
    needs = {
        kind: {"stages": needed[kind], "unshared": unshared[kind], "saved": unshared[kind] - needed[kind]}
        for kind in NEEDS
        if needed[kind]
    }
    return {"points": points, "needs": needs, "not_applicable": dict(unfit), "reduced": dict(reduced)}


class _Built(NamedTuple):
    """What has to be computed for a model."""

    keys: frozenset[str]
    kinds: Mapping[str, int]


class _Behind:
    """Remembers what models are built on, because points share it."""

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self.stages = stages
        self._built: dict[str, _Built] = {}

    def of(self, key: str) -> _Built:
        """The stage's key and those it builds on, without starts: they cost no distillation."""
        if key not in self._built:
            keys, stack = {key}, [key]
            while stack:
                for _, needed in self.stages[stack.pop()].inputs:
                    if needed not in keys:
                        keys.add(needed)
                        stack.append(needed)
            cost = frozenset(each for each in keys if self.stages[each].budget != 0)
            self._built[key] = _Built(cost, Counter(self.stages[each].kind for each in cost))
        return self._built[key]


def _reduced(chain: Chain, config: PrivacyConfig) -> Iterable[str]:
    """What a point gets less of than it asks for, because the data have fewer images."""
    requested = PrivacySettings.model_validate(dict(chain.point.evaluations["privacy"]))
    if "seed" in config.audit and config.shadows < requested.shadows:
        per_class = config.origin.per_class
        yield f"seed: {config.shadows} of {requested.shadows} shadows fit, origin_per_class {per_class}"
    if "pool" in config.audit or "one_run" in config.audit:
        population = requested.population_of(len(config.origin.classes))
        for name, wanted in (("population", population), ("reserve", requested.reserve)):
            got = getattr(config.signals, name)
            if got < wanted:
                yield f"{name}: {got} of {wanted} images per class are left beside the pool"
