"""What a plan saves because equal stages are one: of the whole sweep, and of its audits of privacy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan
from trainables.configs import PrivacyConfig, PrivacySettings

NEEDS = ("experts", "distill", "train")
"""Kinds of stages that audits need beside the points' own."""


def sharing_facts(plan: Plan) -> dict[str, Any]:
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
        len({stage.key for stage in chain.all_stages}) if chain.shadows else len(chain.stages) for chain in chains
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
            if role != "seed.model" and not role.endswith(".set"):
                times = stage.config.targets if role.startswith("row.") else 1
                found = behind.of(key)
                shared.add(found.keys)
                for kind, count in found.kinds.items():
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
        self._found: dict[str, _Built] = {}

    def of(self, key: str) -> _Built:
        """The stage's key and those it builds on, without starts: they cost no distillation."""
        if key not in self._found:
            keys, stack = {key}, [key]
            while stack:
                for _, needed in self.stages[stack.pop()].inputs:
                    if needed not in keys:
                        keys.add(needed)
                        stack.append(needed)
            cost = frozenset(each for each in keys if self.stages[each].budget != 0)
            self._found[key] = _Built(cost, Counter(self.stages[each].kind for each in cost))
        return self._found[key]


def _reduced(chain: Chain, config: PrivacyConfig) -> Iterable[str]:
    """What a point gets less of than it asks for, because the data have fewer images."""
    asked = PrivacySettings.model_validate(dict(chain.point.evaluations["privacy"]))
    if "seed" in config.audit and config.shadows < asked.shadows:
        per_class = config.origin.per_class
        yield f"seed: {config.shadows} of {asked.shadows} shadows fit, origin_per_class {per_class}"
    if "pool" in config.audit or "one_run" in config.audit:
        population = asked.population_of(len(config.origin.classes))
        for name, wanted in (("population", population), ("reserve", asked.reserve)):
            got = getattr(config.signals, name)
            if got < wanted:
                yield f"{name}: {got} of {wanted} images per class are left beside the pool"
