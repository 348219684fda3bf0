"""Branches: what audits and maps need beside a point's own path, who shares it, and which jobs it becomes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import worlds
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ddray.errors import RequestError
from ddray.plan.chains import make_chains
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, make_plan, runnable_jobs
from ddray.prepare import expanded
from trainables.attacks import EVERY_AUDIT, MEMBERSHIP_ATTACKS, ROBUSTNESS_ATTACKS
from trainables.configs import (
    DistillConfig,
    EnsembleConfig,
    OriginConfig,
    PrivacyConfig,
    SignalsConfig,
    TrainConfig,
    TsneConfig,
)

TEXT = """
ddray: 1
defaults: {protocol: quick}
grids:
  g:
    axes: {dataset: [DATASET], AXES}
    settings: {dm: {iterations: 7}, mtt: {num_experts: 7}}
    evaluations: ASKED
"""
PRIVACY = "{privacy: {audit: [seed, pool, one_run], rows: 6, shadows: 2, targets: 2}}"
POINT = "method: [dm], ipc: [1], origin_per_class: [400], init: [real]"


def text_of(axes: str = POINT, asked: str = PRIVACY, dataset: str = "cifar10") -> str:
    return TEXT.replace("AXES", axes).replace("ASKED", asked).replace("DATASET", dataset)


def plan_of(folder: Path, axes: str = POINT, asked: str = PRIVACY, dataset: str = "cifar10") -> Plan:
    return worlds.plan_of(worlds.sweep_of(folder, text_of(axes, asked, dataset)))


def only(plan: Plan) -> Chain:
    (chain,) = plan.chains
    return chain


def audit_of(chain: Chain) -> tuple[PrivacyConfig, dict[str, str]]:
    stage = chain.stage("privacy")
    assert stage is not None
    assert isinstance(stage.config, PrivacyConfig)
    return stage.config, dict(stage.inputs)


def behind(plan: Plan, key: str) -> list[Stage]:
    """A model's training and what it is built on."""
    stage = plan.stages[key]
    return [stage, *(each for _, needed in stage.inputs for each in behind(plan, needed))]


# --- audits -----------------------------------------------------------------------------------------------------------


def test_roles_of_an_audit(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    config, inputs = audit_of(only(plan))
    rows = {f"row.{row}.{what}" for row in range(6) for what in ("model", "set", "start")}
    shadows = {"shadow.1.model", "shadow.2.model"}
    assert inputs.keys() == rows | shadows | {"seed.model", "seed.set", "seed.start", "coin.model", "coin.set"}
    assert (config.rows, config.shadows, config.targets, config.start) == (6, 2, 2, True)
    own = only(plan)
    assert inputs["seed.model"] == worlds.stage_of(own, "train").key
    assert inputs["seed.set"] == worlds.stage_of(own, "distill").key
    for role, key in inputs.items():
        assert plan.stages[key].kind == ("distill" if role.endswith(".set") else "train")
        if role.endswith(".set") and role != "seed.set":
            model = plan.stages[inputs[role.replace(".set", ".model")]]
            assert dict(model.inputs)["set"] == key, "the model was trained on the set of its name"


EXPECTED_ORIGIN = {
    "row": lambda number, common: OriginConfig(kind="pool", row=number, **common),
    "shadow": lambda number, common: OriginConfig(kind="draw", block=number, **common),
    "coin": lambda number, common: OriginConfig(kind="coin", row=0, **common),
    "seed": lambda number, common: OriginConfig(kind="draw", **common),
}


@pytest.mark.parametrize("method", ["dm", "mtt", "random", "full"])
def test_every_model_is_made_from_the_images_of_its_role(tmp_path: Path, method: str) -> None:
    """Set, experts and what the model is asked about all belong to one and the same origin."""
    axes = POINT.replace("dm", method) + ", origin_draw: [3], num_classes: [5], seed: [2], distill_seed: [4]"
    plan = plan_of(tmp_path, axes)
    config, inputs = audit_of(only(plan))
    common: dict[str, Any] = {"per_class": 400, "draw": 3, "classes": (0, 1, 2, 3, 4)}
    assert config.origin == OriginConfig(kind="draw", **common)
    asked = SignalsConfig(population=400, reserve=1000)  # 2,000 of five classes
    assert config.signals == asked
    for role, key in inputs.items():
        name, _, number = role.partition(".")
        expected = EXPECTED_ORIGIN[name](int(number.split(".")[0]) if number.split(".")[0].isdigit() else 0, common)
        stages = [plan.stages[key]] if role.endswith(".set") else behind(plan, key)
        assert {stage.config.origin for stage in stages} == {expected}, role  # type: ignore[attr-defined]
        train = stages[0].config
        if isinstance(train, TrainConfig):
            assert train.signals == (asked if name in ("row", "coin") else SignalsConfig())
            assert train.on_origin == (method == "full")
            assert train.curve_points == (20 if role == "seed.model" else 0)
    starts = {role for role in inputs if role.endswith(".start")}
    assert len(starts) == (7 if method in ("dm", "mtt") else 0), "the other methods have no iteration 0"
    assert any(role.endswith(".set") for role in inputs) == (method != "full")


def test_a_start_takes_no_step_and_no_experts_and_begins_as_its_set_does(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, POINT.replace("dm", "mtt"))
    _, inputs = audit_of(only(plan))
    for role in ("seed", *(f"row.{row}" for row in range(6))):
        (start, made) = (
            plan.stages[dict(plan.stages[inputs[f"{role}.{what}"]].inputs)["set"]] for what in ("start", "model")
        )
        assert (start.budget, start.inputs, len(made.inputs)) == (0, (), 7)
        assert isinstance(start.config, DistillConfig)
        assert isinstance(made.config, DistillConfig)
        assert start.config.settings["iterations"] == 0
        settings = {**made.config.settings, "iterations": 0}
        assert start.config == made.config.model_copy(update={"settings": settings}), "the same seeds and images"
        one, two = (plan.stages[inputs[f"{role}.{what}"]].config for what in ("start", "model"))
        assert isinstance(one, TrainConfig)
        assert isinstance(two, TrainConfig)
        assert one.model_copy(update={"curve_points": 0}) == two.model_copy(update={"curve_points": 0})


def test_a_point_that_is_a_start_has_no_other(tmp_path: Path) -> None:
    text = text_of().replace("iterations: 7", "iterations: 0")
    config, inputs = audit_of(only(worlds.plan_of(worlds.sweep_of(tmp_path, text))))
    assert not config.start
    assert not [role for role in inputs if role.endswith(".start")]


def test_rows_and_blocks_have_seeds_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, POINT + ", seed: [0, 1], distill_seed: [0, 1]")
    seeds: dict[tuple[str, int], set[object]] = {}
    for chain in plan.chains:
        for role, key in audit_of(chain)[1].items():
            config = plan.stages[key].config
            made = isinstance(config, DistillConfig)
            value = config.distill_seed if made else config.seed  # type: ignore[attr-defined, union-attr]
            owner = chain.point.distill_seed if made else chain.point.seed
            group = role.rsplit(".", 1)[0]
            seeds.setdefault((f"{made}", value), set()).add((owner, "row.0" if group == "coin" else group))
    assert all(len(owners) == 1 for owners in seeds.values()), "no seed serves two roles or two repeats"


def test_networks_share_every_distilled_row(tmp_path: Path) -> None:
    one, two = plan_of(tmp_path, POINT + ", architecture: [convnet3, vgg16]").chains
    (_, first), (_, second) = audit_of(one), audit_of(two)
    for role in first:
        assert (first[role] == second[role]) == role.endswith(".set"), role
    for chain in (one, two):
        assert len({stage.key for stage in chain.all_stages if stage.kind == "distill"}) == 1 + 1 + 2 + 2 * 6 + 1


@pytest.mark.parametrize("change", ["rows: 8", "shadows: 3", "targets: 1", "attacks: [loss]"])
def test_asking_for_more_changes_no_model(tmp_path: Path, change: str) -> None:
    usual = {"rows": "6", "shadows": "2", "targets": "2"}
    name, _, value = change.partition(": ")
    before, after = (
        plan_of(tmp_path, asked=f"{{privacy: {{{', '.join(f'{key}: {said}' for key, said in asked.items())}}}}}")
        for asked in (usual, {**usual, name: value})
    )
    gone = [before.stages[key].kind for key in before.stages.keys() - after.stages.keys()]
    assert gone == ["privacy"], "the audit is another, everything it is made from is there already"


def test_canaries_are_another_pool(tmp_path: Path) -> None:
    asked = "{privacy: {audit: [pool], rows: 4, canaries: CANARIES}}"
    none, some = (plan_of(tmp_path, asked=asked.replace("CANARIES", str(count))) for count in (0, 50))
    shared = none.stages.keys() & some.stages.keys()
    assert {none.stages[key].kind for key in shared} == {"distill", "train", "accuracy"}
    assert len(shared) == 3, "the point's own"
    made = [some.stages[key].config for key in audit_of(only(some))[1].values()]
    assert {config.origin.canaries for config in made} == {50}  # type: ignore[attr-defined]


def test_the_own_model_is_asked_about_its_origin_where_that_is_audited(tmp_path: Path) -> None:
    keys = {}
    for name, asked in (("none", "{}"), ("pool", "{privacy: {audit: [pool]}}"), ("seed", "{privacy: {audit: [seed]}}")):
        chain = only(plan_of(tmp_path, asked=asked))
        train = worlds.stage_of(chain, "train")
        assert isinstance(train.config, TrainConfig)
        assert train.config.signals == (SignalsConfig() if name == "seed" else None)
        keys[name] = (worlds.stage_of(chain, "distill").key, train.key)
    assert keys["none"] == keys["pool"]
    assert keys["seed"][0] == keys["none"][0]
    assert keys["seed"][1] != keys["none"][1]


def test_repeats_trained_together_are_those_that_are_asked_the_same(tmp_path: Path) -> None:
    text = """
ddray: 1
defaults: {protocol: quick, train: {ensemble: true}}
grids:
  plain: {axes: {dataset: [cifar10], method: [random], ipc: [1], origin_per_class: [400], seed: [0, 1]}}
  audited:
    axes: {dataset: [cifar10], method: [random], ipc: [1], origin_per_class: [400], seed: [2, 3]}
    evaluations: {privacy: {audit: [seed], shadows: 1}}
"""
    plan = worlds.plan_of(worlds.sweep_of(tmp_path, text))
    ensembles = [stage.config for stage in plan.stages.values() if isinstance(stage.config, EnsembleConfig)]
    groups = {config.seeds: config.base.signals for config in ensembles}
    assert groups == {(0, 1): None, (2, 3): SignalsConfig()}
    shadow = plan.stages[audit_of(plan.chains[2])[1]["shadow.1.model"]]
    assert isinstance(shadow.config, TrainConfig)
    assert not shadow.config.recipe.ensemble, "a shadow has no repeats"


def test_an_origin_too_large_for_a_pool_still_plans(tmp_path: Path) -> None:
    chain = only(plan_of(tmp_path, POINT.replace("400", "4000")))
    config, inputs = audit_of(chain)
    assert config.audit == ("seed",)
    assert set(config.unfit) == {"pool", "one_run"}
    assert inputs.keys() == {"seed.model", "seed.set", "seed.start"}
    chain = only(plan_of(tmp_path, POINT.replace("400", "4000"), "{privacy: {audit: [pool]}}"))
    config, inputs = audit_of(chain)
    assert (config.audit, inputs, chain.side_paths) == ((), {}, ())


def test_real_images_that_do_not_fit_a_row_are_refused_as_for_the_draw(tmp_path: Path) -> None:
    axes = "method: [idc], ipc: [10], origin_per_class: [39], init: [real]"
    with pytest.raises(RequestError, match="starts from 40 real images of each class"):
        plan_of(tmp_path, axes)
    config, _ = audit_of(only(plan_of(tmp_path, axes.replace("39", "40"))))
    assert config.audit == ("seed", "pool"), "a row holds exactly as many; coins may not"


# --- jobs -------------------------------------------------------------------------------------------------------------


def kinds(plan: Plan) -> Counter[tuple[str, ...]]:
    return Counter(tuple(stage.kind for stage in job.stages) for job in plan.jobs)


def test_a_branch_of_one_point_is_a_job_and_what_waits_for_it_another(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, asked="{privacy: {audit: [pool], rows: 4, start: false}, robustness: {}}")
    assert kinds(plan) == {
        ("distill", "train"): 4,
        ("distill", "train", "accuracy", "attack", "attack", "robustness"): 1,
        ("privacy",): 1,
    }
    (own,) = (job for job in plan.jobs if len(job.stages) == 6)
    assert not own.needs, "the point's own training waits for no branch"
    (privacy,) = (job for job in plan.jobs if job.stages[0].kind == "privacy")
    assert (len(privacy.needs), privacy.gpu) == (8, 0.0)


def test_shared_rows_are_jobs_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, POINT + ", seed: [0, 1]", "{privacy: {audit: [pool], rows: 4, start: false}}")
    assert kinds(plan) == {("distill",): 4 + 1, ("train",): 2 * 4, ("train", "accuracy"): 2, ("privacy",): 2}
    assert {job.points for job in plan.jobs if job.stages[0].kind == "distill"} == {2}


def test_experts_of_a_branch_go_five_to_a_job(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, POINT.replace("dm", "mtt"), "{privacy: {audit: [pool], rows: 4, start: false}}")
    experts = Counter(len(job.stages) for job in plan.jobs if job.stages[0].kind == "experts")
    assert experts == {5: 5, 2: 5}, "7 for each of 4 rows and for the point itself"


def test_every_stage_of_every_branch_is_in_one_job(tmp_path: Path) -> None:
    axes = POINT.replace("[dm]", "[dm, mtt, random, full]") + ", seed: [0, 1]"
    plan = plan_of(tmp_path, axes, PRIVACY[:-1] + ", robustness: {attacks: [fgsm]}, embedding: {}}")
    made = Counter(stage.key for job in plan.jobs for stage in job.stages)
    assert made == Counter(plan.stages.keys())
    assert plan.needed() == set(plan.stages)
    for job in plan.jobs:
        own = {stage.key for stage in job.stages}
        assert set(job.needs) == {key for stage in job.stages for _, key in stage.inputs} - own
        assert not any(key in own for key in job.after)
    starts = {stage.key for stage in plan.stages.values() if stage.budget == 0}
    assert starts
    assert not any(starts & set(job.after) for job in plan.jobs), "nothing continues a start, and so waits for it"


def test_filters_leave_branches_as_they_are(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, POINT + ", seed: [0, 1]")
    whole = {job.name: job for job in plan.jobs}
    first, second = plan.chains
    plan.selected = {first.point.hash}
    assert plan.needed() == {stage.key for stage in first.all_stages}
    for job in runnable_jobs(plan, ()):
        assert [stage.key for stage in job.stages] == [stage.key for stage in whole[job.name].stages]
    assert second.stage("privacy") is not None
    assert worlds.stage_of(second, "privacy").key not in plan.needed()


# --- embeddings -------------------------------------------------------------------------------------------------------

EMBED = "{embedding: {real_per_class: 50}}"


def maps_of(plan: Plan) -> list[TsneConfig]:
    return [stage.config for stage in plan.stages.values() if isinstance(stage.config, TsneConfig)]


def test_sets_of_a_kind_share_an_encoder_and_a_map(tmp_path: Path) -> None:
    axes = "method: [dm, random, full], ipc: [1, 10], init: [real], seed: [0, 1], architecture: [convnet3, vgg16]"
    plan = plan_of(tmp_path, axes, EMBED)
    counts = Counter(stage.kind for stage in plan.stages.values())
    assert (counts["embedding"], counts["tsne"]) == (4, 2), "one per set; one map for each number of images"
    assert [config.sources for config in maps_of(plan)] == [("dm", "random")] * 2
    for chain in plan.chains:
        embedding = chain.stage("embedding")
        assert (embedding is None) == (chain.point.method == "full")
        if embedding is not None:
            assert dict(embedding.inputs)["set"] == worlds.stage_of(chain, "distill").key
    full = next(chain for chain in plan.chains if chain.point.method == "full" and chain.point.seed == 0)
    encoders = {dict(stage.inputs)["encoder"] for stage in plan.stages.values() if stage.kind in ("embedding", "tsne")}
    assert encoders == {worlds.stage_of(full, "train").key}, "the full-data model of the sweep, trained once"


def test_an_encoder_sees_all_images_of_the_point_s_classes(tmp_path: Path) -> None:
    axes = "method: [dm], ipc: [1], origin_per_class: [40], num_classes: [3], class_draw: [1], architecture: [vgg16]"
    chain = only(plan_of(tmp_path, axes, EMBED))
    ((encoder,),) = chain.side_paths
    own = worlds.stage_of(chain, "train").config
    assert isinstance(encoder.config, TrainConfig)
    assert isinstance(own, TrainConfig)
    assert encoder.config.origin == OriginConfig(classes=own.origin.classes)
    assert (encoder.config.network.architecture, encoder.config.on_origin, encoder.config.seed) == ("convnet3", True, 0)
    assert encoder.config.recipe == own.recipe
    assert encoder.label.startswith("train full cifar10 classes=3/1 convnet3")


@pytest.mark.parametrize(
    "axes, sources",
    [
        ("init: [noise, real]", ("dm noise", "dm real", "random")),
        (
            "init: [noise], distill_seed: [0, 1]",
            ("dm distill_seed=0", "dm distill_seed=1", "random distill_seed=0", "random distill_seed=1"),
        ),
        ("init: [real], distill_aug: [dsa, none]", ("dm aug=dsa", "dm aug=none", "random")),
    ],
)
def test_names_tell_sets_apart(tmp_path: Path, axes: str, sources: tuple[str, ...]) -> None:
    plan = plan_of(tmp_path, f"method: [random, dm], ipc: [1], {axes}", EMBED)
    assert [config.sources for config in maps_of(plan)] == [sources]


def test_sets_that_differ_in_settings_are_named_by_their_grids(tmp_path: Path) -> None:
    text = text_of("method: [dm], ipc: [1]", EMBED) + text_of("method: [dm], ipc: [1]", EMBED).partition("grids:\n")[
        2
    ].replace("  g:", "  longer:").replace("iterations: 7", "iterations: 8")
    (config,) = maps_of(worlds.plan_of(worlds.sweep_of(tmp_path, text)))
    assert config.sources == ("dm g", "dm longer")


def test_a_map_does_not_depend_on_the_order_of_the_sweep(tmp_path: Path) -> None:
    one, two = (
        plan_of(tmp_path, f"method: {methods}, ipc: [1], init: [real]", EMBED)
        for methods in ("[dm, random, idc]", "[idc, random, dm]")
    )
    assert set(one.stages) == set(two.stages)


def test_a_filter_distils_nothing_for_the_sake_of_a_map(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "method: [dm, random], ipc: [1]", EMBED)
    tsne = next(stage for stage in plan.stages.values() if stage.kind == "tsne")
    assert tsne.key in plan.needed()
    first, second = plan.chains
    plan.selected = {first.point.hash}
    assert plan.needed() == {stage.key for stage in first.all_stages} - {tsne.key}
    assert worlds.stage_of(second, "distill").key not in plan.needed()


# --- the order of planning --------------------------------------------------------------------------------------------


def test_points_of_any_order_give_the_same_stages(tmp_path: Path) -> None:
    axes = "method: [dm, full, random], ipc: [1], init: [real], origin_per_class: [40, 400], seed: [0, 1]"
    sweep = worlds.sweep_of(tmp_path, text_of(axes, PRIVACY[:-1] + ", embedding: {}}"))
    points = expanded(sweep)
    found = []
    for order in (points, list(reversed(points))):
        plan = make_plan(*make_chains(order, {"cifar10": worlds.facts_of("cifar10")}, {}))
        before: set[str] = set()
        for stage in plan.stages.values():
            assert {key for _, key in stage.inputs} <= before
            before.add(stage.key)
        found.append(({key: stage.config for key, stage in plan.stages.items()}, {job.name for job in plan.jobs}))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]


def test_evaluations_do_not_touch_what_others_share(tmp_path: Path) -> None:
    """A point that is not audited has the stages it would have in a sweep of its own."""
    axes = POINT.replace("[dm]", "[dm, random]")
    plain = plan_of(tmp_path, axes, "{}")
    sweep = worlds.sweep_of(tmp_path, text_of(axes))
    points = [replace(point, evaluations={}) if point.method == "dm" else point for point in expanded(sweep)]
    mixed, _ = make_chains(points, {"cifar10": worlds.facts_of("cifar10")}, {})
    for one, two in zip(plain.chains, mixed, strict=True):
        if two.point.method == "dm":
            assert [stage.key for stage in one.stages] == [stage.key for stage in two.stages]
            assert two.side_paths == ()


# --- hostile requests -------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.just([]),
    st.just({}),
    st.just(10**12),
)


def some_of(names: Any) -> st.SearchStrategy[Any]:
    return st.lists(st.sampled_from(list(names)), min_size=1, max_size=3, unique=True)


def near(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(*[values] * 15, JUNK) for name, values in fields.items()}
    )


EVALUATIONS_ASKED = st.fixed_dictionaries(
    {},
    optional={
        "privacy": near(
            audit=some_of(EVERY_AUDIT),
            rows=st.sampled_from(["smoke", "standard", 4, 8]),
            targets=st.integers(1, 9),
            shadows=st.integers(0, 9),
            attacks=some_of(MEMBERSHIP_ATTACKS),
            canaries=st.sampled_from([0, 0, 3, 300]),
            population=st.integers(1, 300),
            reserve=st.integers(0, 300),
            start=st.booleans(),
        ),
        "robustness": near(
            attacks=some_of(ROBUSTNESS_ATTACKS),
            images=st.integers(8, 2000),
            epsilons_l2=st.lists(st.floats(0.1, 2), min_size=1, max_size=3),
        ),
        "embedding": near(perplexity=st.floats(1, 100), real_per_class=st.integers(10, 500)),
    },
)
ORIGINS = st.lists(st.sampled_from([5, 12, 30, 41, 50, 62, 63, 124, 1, 125, None]), min_size=1, max_size=2, unique=True)


@settings(max_examples=150)
@given(EVALUATIONS_ASKED, some_of(["random", "dm", "idc", "full", "herding"]), ORIGINS, st.integers(1, 6))
def test_any_request_plans_or_is_refused_in_our_words(
    tmp_path_factory: pytest.TempPathFactory, asked: Any, methods: list[str], origins: Any, ipc: int
) -> None:
    """What is accepted is complete: every input is planned before what needs it, every model has its images."""
    axes = {"dataset": "digits", "method": methods, "ipc": ipc, "origin_per_class": origins, "num_classes": [2, None]}
    text = json.dumps({"ddray": 1, "grids": {"g": {"protocol": "quick", "axes": axes, "evaluations": asked}}})
    refused: tuple[str, ...] = ()
    try:
        plan = worlds.plan_of(worlds.sweep_of(tmp_path_factory.getbasetemp(), text, "hostile"))
    except RequestError as error:
        refused = tuple(error.problems)
        plan = Plan([], {}, [])
    assert all(re.match(r".*hostile.yaml:1: grids\.g", problem) for problem in refused), refused
    assert "pydantic" not in "".join(refused)
    event("planned" if plan.chains else "refused")
    assert bool(plan.chains) != bool(refused)
    before: set[str] = set()
    for stage in plan.stages.values():
        assert {key for _, key in stage.inputs} <= before
        before.add(stage.key)
        if isinstance(stage.config, TrainConfig) and (signals := stage.config.signals) is not None:
            origin = stage.config.origin
            assert origin.per_class is not None
            taken = {"draw": (origin.block + 2) if origin.block else 1}.get(origin.kind, 2) * origin.per_class
            assert taken + signals.population + signals.reserve <= 124
    assert Counter(stage.key for job in plan.jobs for stage in job.stages) == Counter(plan.stages.keys())
