"""Points become chains: which stages, what each one's key depends on, what this version cannot do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from workspace import Workspace

from ddray.errors import RequestError
from ddray.plan.pipeline import Chain, Stage
from ddray.run.stage import CONFIGS
from trainables.configs import TrainConfig
from trainables.networks import network_of

ALL = """
ddray: 1
defaults: {protocol: dc300, axes: {dataset: [cifar10], architecture: [convnet3]}}
grids:
  everything:
    axes: {method: [random, dm, mtt, full], ipc: [1, 10], init: [noise, real], seed: [0, 1], distill_seed: [0, 1],
           architecture: [convnet3, resnet18]}
    evaluations: {robustness: {}, privacy: {rows: 4}, embedding: {}}
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
    found = chains(workspace, ALL)
    assert len(found) == 2 * (2 * 2 * 2 + 2 * 2 * 2 * 2 + 2 * 2 * 2 * 2 + 2)
    for each in found:
        before: set[str] = set()
        for stage in each.stages:
            assert {key for _, key in stage.inputs} <= before, "everything a stage needs is in its chain, earlier"
            before.add(stage.key)
        kinds = [stage.kind for stage in each.stages]
        evaluations = ["accuracy", "robustness", "privacy", "embedding"]
        method = each.point.method
        making = [*["experts"] * (100 if method == "mtt" else 0), *(["distill"] if method != "full" else [])]
        assert kinds == [*making, "train", *evaluations]
        roles: dict[str, Any] = {stage.kind: dict(stage.inputs).keys() for stage in each.stages}
        assert roles["train"] == ({"set"} if each.point.method != "full" else set())
        assert all(roles[kind] == {"model"} for kind in evaluations)


def test_equal_stages_are_one(workspace: Workspace) -> None:
    found = chains(workspace, ALL)
    stages = {stage.key: stage for each in found for stage in each.stages}
    assert all(stages[stage.key] is stage for each in found for stage in each.stages)
    distilled = {key for key, stage in stages.items() if stage.kind == "distill"}
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


def test_recipes_that_cannot_be_are_refused_with_their_place(workspace: Workspace) -> None:
    with pytest.raises(RequestError, match=r"sweep.yaml:\d+: .*train.*epochs and steps"):
        chain(workspace, "method: [random], ipc: [1]", "train: {steps: 7, epochs: 3}")


def test_settings_without_a_published_value_are_named(workspace: Workspace) -> None:
    assert not chain(workspace, "method: [dm], ipc: [10]").unpublished
    (chosen,) = chain(workspace, "method: [dm], ipc: [20]").unpublished
    assert (chosen.setting, chosen.exact) == ("lr_img", False)
    assert not chain(workspace, "method: [dm], ipc: [20]", "settings: {dm: {lr_img: 3}}").unpublished


def test_what_this_version_cannot_do_is_said(workspace: Workspace) -> None:
    reasons = {
        (stage.kind, stage.unavailable)
        for each in chains(workspace, ALL)
        for stage in each.stages
        if stage.unavailable is not None
    }
    assert {kind for kind, _ in reasons} <= {"robustness", "privacy", "embedding"}
    assert all(f"evaluation {kind}" in reason for kind, reason in reasons)
    random = chain(workspace, "method: [random], ipc: [1]")
    assert all(stage.unavailable is None for stage in random.stages)


def test_workers_rebuild_the_configuration_they_were_sent(workspace: Workspace) -> None:
    for each in chains(workspace, ALL):
        for stage in each.stages:
            if stage.unavailable is None:
                spec = json.loads(json.dumps(stage.spec()))
                rebuilt = CONFIGS[stage.kind].model_validate(spec["config"])
                assert rebuilt == stage.config
                assert stage.config is not None
                assert rebuilt.key_material() == stage.config.key_material()
                assert (spec["key"], spec["inputs"]) == (stage.key, dict(stage.inputs))


def test_the_trained_network_is_the_one_that_is_named(workspace: Workspace) -> None:
    found: dict[str, Stage] = {}
    for name in ("convnet3", "resnet18", "resnet18-w32-instance", "resnet18-w128", "convnet3-d4"):
        each = chain(workspace, f"method: [random], ipc: [1], architecture: [{name}]")
        stage = each.stage("train")
        assert stage is not None
        assert isinstance(stage.config, TrainConfig)
        assert stage.config.network == network_of(name, image_size=32, channels=3, num_classes=10)
        assert stage.unavailable is None
        assert name in stage.label
        found[name] = stage
    narrow, plain, wide = (found[name] for name in ("resnet18-w32-instance", "resnet18", "resnet18-w128"))
    assert narrow.share == plain.share == wide.share, "shares are those of the base"
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
    stages = {stage.key: stage for each in chains(workspace, text) for stage in each.stages}
    assert len({stage.label for stage in stages.values()}) == len(stages)
