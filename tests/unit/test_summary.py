"""What sharing saves: counted anew by building every point alone, and by the arithmetic of the design without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import worlds
from workspace import Workspace

from ddray.plan.chains import make_chains
from ddray.plan.jobs import Plan
from ddray.plan.summary import sharing

TABLE1 = """
ddray: 1
defaults: {protocol: quick}
grids:
  g:
    axes: {dataset: [cifar10], method: METHODS, ipc: [10], init: [noise, real], origin_per_class: [40, 80, 200, 400],
           AXES}
    settings: {dm: {iterations: 7}, mtt: {num_experts: 5}}
    evaluations: {privacy: {audit: [pool], rows: 16, targets: 3, start: false}}
"""


def plan_of(folder: Path, methods: str = "[dsa, dm, idc]", axes: str = "seed: [0]", **asked: str) -> Plan:
    text = TABLE1.replace("METHODS", methods).replace("AXES", axes)
    for name, value in asked.items():
        text = text.replace(*{"audit": ("[pool]", value), "start": ("start: false", f"start: {value}")}[name])
    return worlds.plan_of(worlds.sweep_of(folder, text))


def needs(plan: Plan) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = sharing(plan)["privacy"]["needs"]
    return found


def test_table_1_costs_what_the_specification_says(tmp_path: Path) -> None:
    """3 methods x 4 origins x 2 starts, R = 16, T = 3: 384 distillations instead of 1,152."""
    found = needs(plan_of(tmp_path))
    assert found["distill"] == {"stages": 384, "unshared": 1152, "saved": 768}
    assert found["train"] == {"stages": 384, "unshared": 1152, "saved": 768}
    assert "experts" not in found


def test_networks_and_seeds_share_distillations_but_no_training(tmp_path: Path) -> None:
    one = needs(plan_of(tmp_path))
    several = needs(plan_of(tmp_path, axes="seed: [0, 1], architecture: [convnet3, vgg16]"))
    assert several["distill"]["stages"] == one["distill"]["stages"]
    assert several["distill"]["unshared"] == 4 * one["distill"]["unshared"]
    assert several["train"]["stages"] == 4 * one["train"]["stages"]


def test_starts_cost_trainings_and_no_distillation(tmp_path: Path) -> None:
    without, with_them = needs(plan_of(tmp_path)), needs(plan_of(tmp_path, start="true"))
    assert with_them["distill"] == without["distill"]
    assert with_them["train"]["stages"] == 2 * without["train"]["stages"]


def test_full_distils_nothing_and_experts_count(tmp_path: Path) -> None:
    assert needs(plan_of(tmp_path, "[full]")).keys() == {"train"}
    found = needs(plan_of(tmp_path, "[mtt]"))
    assert found["distill"]["stages"] == 8 * 16
    assert found["experts"]["stages"] == 4 * 16 * 5, "both starts of a row learn from the same experts"
    assert found["experts"]["unshared"] == 3 * 8 * 16 * 5


@pytest.mark.parametrize("audit", ["[seed, pool]", "[one_run]", "[seed, pool, one_run]"])
def test_alone_is_the_sum_over_sweeps_of_one_point(tmp_path: Path, audit: str) -> None:
    """Each point planned by itself, by the same code but from scratch."""
    plan = plan_of(tmp_path, "[dm, random]", "seed: [0, 1]", audit=audit)
    alone = 0
    for chain in plan.chains:
        alone += len(make_chains([chain.point], {"cifar10": worlds.facts_of("cifar10")}, {})[1])
    facts = sharing(plan)["sharing"]
    assert facts == {"stages": len(plan.stages), "alone": alone}
    assert facts["alone"] > facts["stages"]


def test_a_filter_counts_what_is_selected(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    plan.selected = {chain.point.hash for chain in plan.chains if chain.point.method == "dm"}
    facts = sharing(plan)
    assert facts["privacy"]["points"] == 8
    assert facts["privacy"]["needs"]["distill"]["stages"] == 8 * 16
    assert facts["sharing"]["stages"] == len(plan.needed())


PLAN = """
ddray: 1
defaults: {protocol: quick}
grids:
  g:
    axes: {dataset: [cifar10], method: [random, dm], ipc: [1], origin_per_class: [400, 4000], seed: [0, 1]}
    evaluations: ASKED
"""


def shown(workspace: Workspace, asked: str) -> tuple[str, dict[str, Any]]:
    path = workspace.write("sweep", PLAN.replace("ASKED", asked))
    text, facts = workspace.run("plan", path), workspace.run("plan", path, "--json")
    assert (text.code, facts.code) == (0, 0), text.err + facts.err
    return text.out, json.loads(facts.out)


def test_the_plan_says_what_privacy_costs_and_what_cannot_be(workspace: Workspace) -> None:
    text, facts = shown(workspace, "{privacy: {rows: 6, targets: 2, shadows: 1}}")
    assert facts["privacy"]["points"] == 8
    counts = facts["privacy"]["needs"]["distill"]
    # pool: 2 methods of 6 rows, origin 400; seed: a shadow each. Unshared: 2 seeds, 2 targets, and a shadow each.
    assert counts == {"stages": 2 * 6 + 2, "unshared": 2 * (2 * 2 * 6) + 4, "saved": 38}
    assert f"  distill     {14:>12}{52:>12}{38:>12}" in text.splitlines()
    ((reason, points),) = facts["privacy"]["not_applicable"].items()
    assert (reason[:5], points) == ("pool:", 4)
    assert f"not applicable at 4 points: {reason}" in text
    assert facts["privacy"]["reduced"] == {"seed: 0 of 1 shadows fit, origin_per_class 4000": 4}
    sharing = facts["sharing"]
    assert f"sharing: {sharing['stages']:,} stages; {sharing['alone']:,} if every point" in text


def test_nothing_is_said_of_privacy_where_nobody_asked(workspace: Workspace) -> None:
    text, facts = shown(workspace, "{}")
    assert "privacy" not in text
    assert facts["privacy"] == {"points": 0, "needs": {}, "not_applicable": {}, "reduced": {}}
    assert facts["sharing"]["alone"] == 8 * 3
