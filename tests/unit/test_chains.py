"""Points become chains: which stages, what each one's key depends on, what this version cannot do."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from workspace import Workspace

from ddray.errors import RequestError
from ddray.plan.graph import Chain, Stage
from ddray.plan.kinds import STAGE_KINDS
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.configs import KINDS, AttackConfig, EnsembleConfig, NetworkConfig, RobustnessConfig, TrainConfig
from trainables.networks import parse

ALL = """
ddray: 1
defaults: {protocol: dc300, axes: {dataset: [cifar10], architecture: [convnet3]}}
grids:
  everything:
    axes: {method: [random, dm, mtt, full], ipc: [1, 10], init: [noise, real], seed: [0, 1], distill_seed: [0, 1],
           architecture: [convnet3, resnet18], origin_per_class: [100]}
    settings: {mtt: {num_experts: 7}}
    evaluations: {robustness: {attacks: [fgsm, deepfool_l2]}, privacy: {rows: 4, shadows: 1}, embedding: {}}
"""


def chains(workspace: Workspace, text: str) -> tuple[Chain, ...]:
    return tuple(workspace.prepare(workspace.write("sweep", text)).plan.chains)


def chain(workspace: Workspace, axes: str, rest: str = "", top: str = "") -> Chain:
    """The chain of a sweep with one point."""
    text = f"ddray: 1\n{top}\ngrids: {{g: {{protocol: dc300, axes: {{dataset: [cifar10], {axes}}}, {rest}}}}}\n"
    (only,) = chains(workspace, text)
    return only


def keys(found: Chain) -> dict[str, str]:
    return {stage.kind: stage.key for stage in found.stages}


def test_stages_come_after_what_they_need(workspace: Workspace) -> None:
    plan = workspace.prepare(workspace.write("sweep", ALL)).plan
    found = plan.chains
    assert len(found) == 2 * (2 * 2 * 2 + 2 * 2 * 2 * 2 + 2 * 2 * 2 * 2 + 2)
    for each in found:
        before: set[str] = set()
        for stage in each.all_stages:
            missing = {key for _, key in stage.inputs} - before
            assert not missing or stage.kind == "tsne", "what a stage needs is in its chain, earlier; maps: in others"
            before.add(stage.key)
        kinds = [stage.kind for stage in each.stages]
        evaluations = ["accuracy", "attack", "attack", "robustness", "privacy"]
        method = each.point.method
        making = [*["experts"] * (7 if method == "mtt" else 0), *(["distill"] if method != "full" else [])]
        assert kinds == [*making, "train", *evaluations, *(["embedding", "tsne"] if method != "full" else [])]
        roles: dict[str, Any] = {stage.kind: dict(stage.inputs).keys() for stage in each.stages}
        assert roles["train"] == ({"set"} if each.point.method != "full" else set())
        assert roles["accuracy"] == roles["attack"] == {"model"}
        assert roles["robustness"] == {"attack.deepfool_l2", "attack.fgsm"}
    before = set()
    for stage in plan.stages.values():
        assert {key for _, key in stage.inputs} <= before, "and is planned before it"
        before.add(stage.key)
    assert before == {stage.key for each in found for stage in each.all_stages}


def test_equal_stages_are_one(workspace: Workspace) -> None:
    found = chains(workspace, ALL)
    stages = {stage.key: stage for each in found for stage in each.all_stages}
    assert all(stages[stage.key] is stage for each in found for stage in each.all_stages)
    distilled = {stage.key for each in found for stage in each.stages if stage.kind == "distill"}
    # nothing of the training enters a distilled set: random 2 ipc x 2 seeds, the others with 2 starts
    assert len(distilled) == 2 * 2 + 2 * (2 * 2 * 2)


CHANGES: dict[str, tuple[dict[str, str], set[str]]] = {
    "seed": ({"seed": "[1]"}, {"train", "accuracy"}),
    "architecture": ({"architecture": "[resnet18]"}, {"train", "accuracy"}),
    "architecture's options": ({"architecture": "[convnet3-w64]"}, {"train", "accuracy"}),
    "train_aug": ({"train_aug": "[dsa]"}, {"train", "accuracy"}),
    "distill_seed": ({"distill_seed": "[1]"}, {"distill", "train", "accuracy"}),
    "distill_aug": ({"distill_aug": "[none]"}, {"distill", "train", "accuracy"}),
    "ipc": ({"ipc": "[2]"}, {"distill", "train", "accuracy"}),
    "init": ({"init": "[noise]"}, {"distill", "train", "accuracy"}),
    "origin_per_class": ({"origin_per_class": "[40]"}, {"distill", "train", "accuracy"}),
    "num_classes": ({"num_classes": "[2]"}, {"distill", "train", "accuracy"}),
}


@pytest.mark.parametrize("axis", CHANGES)
def test_an_axis_changes_the_stages_it_belongs_to(workspace: Workspace, axis: str) -> None:
    change, expected = CHANGES[axis]
    base = {"method": "[dm]", "ipc": "[1]", "init": "[real]"}
    one, two = (
        keys(chain(workspace, ", ".join(f"{name}: {value}" for name, value in values.items())))
        for values in (base, base | change)
    )
    assert {kind for kind in one if one[kind] != two[kind]} == expected


@pytest.mark.parametrize(
    "axes, rest, expected",
    [
        ("", "settings: {dm: {lr_img: 5}}", {"distill", "train", "accuracy"}),
        ("", "settings: {dm: {iterations: 5}}", {"distill", "train", "accuracy"}),
        ("", "settings: {dm: {lr_img: 1}}", set()),  # what the preset says anyway
        ("", "settings: {random: {}}", set()),
        ("", "train: {epochs: 5}", {"train", "accuracy"}),
        ("", "train: {epochs: 300}", set()),  # what the recipe says anyway
        ("", "evaluations: {robustness: {}}", set()),
    ],
)
def test_settings_change_the_stages_they_belong_to(
    workspace: Workspace, axes: str, rest: str, expected: set[str]
) -> None:
    one = keys(chain(workspace, "method: [dm], ipc: [1]" + axes))
    two = keys(chain(workspace, "method: [dm], ipc: [1]" + axes, rest))
    assert {kind for kind in one if one[kind] != two[kind]} == expected


def test_resources_are_not_part_of_a_key(workspace: Workspace) -> None:
    one = chain(workspace, "method: [dm], ipc: [1]")
    two = chain(workspace, "method: [dm], ipc: [1]", top="resources: {distill: {cpus: 4}, train: {gpu: 0.5}}")
    assert keys(one) == keys(two)
    assert [(stage.cpus, stage.share) for stage in two.stages] == [(4, 1 / 8), (1, 0.5), (1, None)]


def test_budgets_of_one_path_share_their_lineage(workspace: Workspace) -> None:
    def distill(iterations: int, other: str = "") -> Any:
        found = chain(workspace, "method: [dm], ipc: [1]", f"settings: {{dm: {{iterations: {iterations}{other}}}}}")
        return found.stages[0]

    short, long, elsewhere = distill(10), distill(20), distill(20, ", lr_img: 2")
    assert (short.budget, long.budget) == (10, 20)
    assert short.lineage == long.lineage
    assert short.lineage != elsewhere.lineage
    assert len({short.key, long.key, elsewhere.key, short.lineage}) == 4
    random = chain(workspace, "method: [random], ipc: [1]").stages[0]
    assert (random.budget, random.lineage) == (None, random.key)


def test_the_recipe_is_named_with_what_was_changed(workspace: Workspace) -> None:
    plain = chain(workspace, "method: [random], ipc: [1]")
    assert (plain.protocol, dict(plain.protocol_changes)) == ("dc300", {})
    changed = chain(workspace, "method: [random], ipc: [1], train_aug: [dsa]", "train: {lr: 0.02}")
    assert changed.protocol == "dc300*"
    assert changed.protocol_changes == {"lr": 0.02, "augmentation": "dsa"}
    steps = chain(workspace, "method: [random], ipc: [1]", "train: {steps: 7}")
    assert steps.protocol_changes == {"steps": 7}
    same = chain(workspace, "method: [random], ipc: [1], train_aug: [none]")
    assert same.protocol == "dc300"


# --- repeats that are trained together ----------------------------------------------------------------------------

REPEATS = """
ddray: 1
grids:
  g:
    protocol: dc300
    train: TRAIN
    axes: {dataset: [digits], method: [dm, full], ipc: [1, 10], seed: SEEDS, init: [real]}
    settings: {dm: {iterations: 5}}
"""


def repeats(workspace: Workspace, seeds: str = "[2, 0, 1]", train: str = "{ensemble: true}", **request: Any) -> Any:
    text = REPEATS.replace("SEEDS", seeds).replace("TRAIN", train)
    return workspace.prepare(workspace.write("sweep", text), **request).plan


def test_repeats_of_a_point_share_an_ensemble(workspace: Workspace) -> None:
    plan = repeats(workspace)
    assert len(plan.chains) == 3 * 3
    for each in plan.chains:
        making = ["distill"] if each.point.method == "dm" else []
        assert [stage.kind for stage in each.stages] == [*making, "ensemble", "train", "accuracy"]
        ensemble, train = each.stage("ensemble"), each.stage("train")
        assert isinstance(ensemble.config, EnsembleConfig)
        assert ensemble.config.seeds == (0, 1, 2)
        assert ensemble.config.base.seed == 0
        assert ensemble.label.endswith("convnet3 seeds=0,1,2")
        assert dict(ensemble.inputs).keys() == ({"set"} if making else set())
        assert (train.config.seed, train.config.ensemble) == (each.point.seed, (0, 1, 2))
        assert train.inputs == (("ensemble", ensemble.key),)
        assert (train.share, ensemble.share) == (None, 1 / 8), "it copies; the smallest share is enough for three"
        assert ensemble.work > 100 * train.work
    counts = Counter(stage.kind for stage in plan.stages.values())
    assert counts == {"distill": 2, "ensemble": 3, "train": 9, "accuracy": 9}
    jobs = Counter((tuple(stage.kind for stage in job.stages), job.gpu) for job in plan.jobs)
    assert jobs == {(("distill",), 0.125): 2, (("ensemble",), 1 / 8): 3, (("train", "accuracy"), 0.0): 9}


def test_an_ensemble_is_another_training_of_the_same_recipe(workspace: Workspace) -> None:
    """Nothing of a sweep that does not ask for ensembles changes, and what is trained otherwise is named otherwise."""
    plain, off, on = (repeats(workspace, train=train) for train in ("{}", "{ensemble: false}", "{ensemble: true}"))
    assert set(plain.stages) == set(off.stages)
    assert [each.point.hash for each in plain.chains] == [each.point.hash for each in off.chains]
    for one, two in zip(plain.chains, on.chains, strict=True):
        assert one.point.hash != two.point.hash
        assert (two.protocol, dict(two.protocol_changes)) == ("dc300", {})
        before, after = keys(one), keys(two)
        assert {kind for kind in before if before[kind] != after[kind]} == {"train", "accuracy"}
    changed = repeats(workspace, train="{ensemble: true, lr: 0.02}").chains[0]
    assert (changed.protocol, dict(changed.protocol_changes)) == ("dc300*", {"lr": 0.02})


def test_a_single_repeat_is_trained_on_its_own(workspace: Workspace) -> None:
    assert set(repeats(workspace, "[1]").stages) == set(repeats(workspace, "[1]", "{}").stages)


def test_other_seeds_are_another_ensemble(workspace: Workspace) -> None:
    two, three = repeats(workspace, "[0, 1]"), repeats(workspace, "[0, 1, 2]")
    shared = {plan.stages[key].kind for plan in (two, three) for key in two.stages.keys() & three.stages.keys()}
    assert shared == {"distill"}
    assert set(repeats(workspace, "[1, 0]").stages) == set(two.stages), "whatever their order"


@pytest.mark.parametrize("narrowed", [{"only": ("seed=0",)}, {"skip": ("seed=0", "method=full")}, {"limit": 1}])
def test_filters_leave_ensembles_as_they_are(workspace: Workspace, narrowed: dict[str, Any]) -> None:
    whole, part = repeats(workspace), repeats(workspace, **narrowed)
    assert set(part.stages) == set(whole.stages)
    ensembles = {key for key, stage in whole.stages.items() if stage.kind == "ensemble"}
    assert part.needed() & ensembles, "of which one seed is enough to need all"


def test_repeats_of_several_grids_are_trained_together(workspace: Workspace) -> None:
    """Whatever grid asks for them, and however a grid says the same recipe."""
    common = "protocol: dsa1000, axes: {dataset: [digits], method: [full], seed"
    (one, two, three, four) = chains(
        workspace,
        f"""
ddray: 1
defaults: {{train: {{ensemble: true}}}}
grids:
  one: {{{common}: [0]}}}}
  two: {{{common}: [1], train_aug: [dsa]}}}}
  other: {{{common}: [0, 1]}}, train: {{batch: 7}}}}
""",
    )
    assert one.stage("ensemble") is two.stage("ensemble") is not None
    assert three.stage("ensemble") is four.stage("ensemble") is not one.stage("ensemble")


def test_resources_of_an_ensemble_are_its_own(workspace: Workspace) -> None:
    text = REPEATS.replace("SEEDS", "[0, 1]").replace("TRAIN", "{ensemble: true}")
    text += "resources: {ensemble: {gpu: 0.125, cpus: 2}, train: {gpu: 1}}\n"
    asked = {(stage.kind, stage.cpus, stage.share) for each in chains(workspace, text) for stage in each.stages[-3:-1]}
    assert asked == {("ensemble", 2, 0.125), ("train", 1, None)}


# --- attacks ----------------------------------------------------------------------------------------------------------


def attacked(workspace: Workspace, asked: str, axes: str = "method: [random], ipc: [1]") -> Chain:
    return chain(workspace, axes, f"evaluations: {{robustness: {asked}}}")


def test_another_attack_changes_no_other_key(workspace: Workspace) -> None:
    one, two = attacked(workspace, "{attacks: [fgsm]}"), attacked(workspace, "{attacks: [fgsm, cw_l2]}")
    before, after = ({stage.key for stage in each.stages} for each in (one, two))
    added = [stage for stage in two.stages if stage.key not in before]
    assert [stage.kind for stage in added] == ["attack", "robustness"]
    assert len(before - after) == 1, "only the summary is another"
    assert not chain(workspace, "method: [random], ipc: [1]").stage("attack")


def test_how_attacks_are_listed_makes_no_difference(workspace: Workspace) -> None:
    one, two = (attacked(workspace, f"{{attacks: {names}}}") for names in ("[fgsm, pgd_l2]", "[pgd_l2, fgsm]"))
    assert [stage.key for stage in one.stages] == [stage.key for stage in two.stages]
    summary = one.stage("robustness")
    assert summary is not None
    assert isinstance(summary.config, RobustnessConfig)
    assert set(summary.config.attacks) == {"fgsm", "pgd_l2"}
    assert [role for role, _ in summary.inputs] == [f"attack.{name}" for name in summary.config.attacks]


def configs_of(found: Chain) -> dict[str, Any]:
    return {stage.config.attack: stage.config for stage in found.stages if isinstance(stage.config, AttackConfig)}


def test_an_attack_is_complete(workspace: Workspace) -> None:
    """Nothing is left to the worker: settings, budgets of its norm, images that exist."""
    found = configs_of(attacked(workspace, "{attacks: [deepfool_l2, pgd_linf], epsilons_linf: [0.1, 0.02]}"))
    assert found["deepfool_l2"].settings == attack_settings("deepfool_l2")
    assert found["deepfool_l2"].epsilons == ROBUSTNESS_ATTACKS["deepfool_l2"].epsilons
    assert found["pgd_linf"].epsilons == (0.02, 0.1)
    assert {config.images for config in found.values()} == {1000}
    few = "dataset: [digits], method: [random], ipc: [1], num_classes: [2]"
    text = f"ddray: 1\ngrids: {{g: {{axes: {{{few}}}, evaluations: {{robustness: {{}}}}}}}}\n"
    (only,) = chains(workspace, text)
    for config in configs_of(only).values():
        assert (config.images, config.classes) == (2 * 50, (0, 1)), "50 test images of a class are all there are"


def test_attacks_of_a_point_run_in_the_job_of_its_model(workspace: Workspace) -> None:
    text = "ddray: 1\ngrids: {g: {axes: {dataset: [digits], method: [full]}, evaluations: {robustness: {}}}}\n"
    plan = workspace.prepare(workspace.write("sweep", text)).plan
    (job,) = plan.jobs
    assert [stage.kind for stage in job.stages] == ["train", "accuracy", "attack", "attack", "robustness"]
    assert (job.gpu, job.needs) == (1 / 8, ())


def test_recipes_that_cannot_be_are_refused_with_their_place(workspace: Workspace) -> None:
    with pytest.raises(RequestError, match=r"sweep.yaml:\d+: .*train.*epochs and steps"):
        chain(workspace, "method: [random], ipc: [1]", "train: {steps: 7, epochs: 3}")


def test_settings_without_a_published_value_are_named(workspace: Workspace) -> None:
    assert not chain(workspace, "method: [dm], ipc: [10]").unpublished
    (chosen,) = chain(workspace, "method: [dm], ipc: [20]").unpublished
    assert (chosen.setting, chosen.exact) == ("lr_img", False)
    assert not chain(workspace, "method: [dm], ipc: [20]", "settings: {dm: {lr_img: 3}}").unpublished


def test_workers_rebuild_the_configuration_they_were_sent(workspace: Workspace) -> None:
    kinds = set()
    for plan in (workspace.prepare(workspace.write("sweep", ALL)).plan, repeats(workspace)):
        for stage in plan.stages.values():
            spec = json.loads(json.dumps(stage.spec()))
            rebuilt = STAGE_KINDS[stage.kind].config.model_validate(spec["config"])
            assert rebuilt == stage.config
            assert rebuilt.key_material() == stage.config.key_material()
            assert (spec["key"], spec["inputs"]) == (stage.key, dict(stage.inputs))
            kinds.add(stage.kind)
    assert kinds == set(KINDS), "all of them were tried"


def test_the_trained_network_is_the_one_that_is_named(workspace: Workspace) -> None:
    found: dict[str, Stage] = {}
    for name in ("convnet3", "resnet18", "resnet18-w32-instance", "resnet18-w128", "convnet3-d4"):
        each = chain(workspace, f"method: [random], ipc: [1], architecture: [{name}]")
        stage = each.stage("train")
        assert stage is not None
        assert isinstance(stage.config, TrainConfig)
        assert stage.config.network == NetworkConfig.of(parse(name), image_size=32, channels=3, num_classes=10)
        assert stage.unavailable is None
        assert name in stage.label
        found[name] = stage
    narrow, plain, wide = (found[name] for name in ("resnet18-w32-instance", "resnet18", "resnet18-w128"))
    assert narrow.held_mib < plain.held_mib < wide.held_mib
    # Width counts in both channels of a convolution; the estimates are rough, their order is what is used.
    assert wide.work == pytest.approx(4 * plain.work)
    assert narrow.work == pytest.approx(plain.work / 4)
    assert narrow.size < plain.size < wide.size
    assert found["convnet3-d4"].work == found["convnet3"].work


def test_labels_tell_stages_apart(workspace: Workspace) -> None:
    axes = (
        "dataset: [cifar10], method: [dm], ipc: [1], seed: [0, 1], distill_seed: [0, 1], "
        "origin_per_class: [40, null], origin_draw: [0, 1], num_classes: [2, null]"
    )
    text = f"ddray: 1\ngrids: {{g: {{protocol: dc300, axes: {{{axes}}}}}}}\n"
    stages = {stage.key: stage for each in chains(workspace, text) for stage in each.all_stages}
    assert len({stage.label for stage in stages.values()}) == len(stages)
    stages = workspace.prepare(workspace.write("sweep", ALL)).plan.stages
    assert len({stage.label for stage in stages.values()}) == len(stages), "those of branches too"
