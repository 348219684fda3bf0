"""Labels that a teacher makes: its names and recipes, the stage that learns of it, and the plan around both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import worlds
from support import FakeContext, digits_config, recipe
from torch.nn import functional as F
from workspace import Workspace

from ddray.errors import RequestError
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan
from ddray.plan.schema import json_schema
from trainables import stages
from trainables.configs import EnsembleConfig, NetworkConfig, OriginConfig, PrivacyConfig, TeacherConfig, TrainConfig
from trainables.data import augment
from trainables.labels import HardLabels, Lesson
from trainables.models.network import build
from trainables.optimise import mixed
from trainables.payloads import DistilledSet, TrainedModel
from trainables.protocols import PROTOCOLS
from trainables.teachers import PROTOCOL, SEED, STOPS, name_pattern, parse
from trainables.train import order_of, taught

# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, protocol, epochs, temperature",
    [
        ("teacher", PROTOCOL, None, 1.0),
        ("teacher-e7", PROTOCOL, 7, 1.0),
        ("teacher-dsa1000", "dsa1000", None, 1.0),
        ("teacher-dsa1000-e50-t4", "dsa1000", 50, 4.0),
        ("teacher-t0.5", PROTOCOL, None, 0.5),
        ("teacher-t20-online", PROTOCOL, None, 20.0),
        ("teacher-dsa1000-e50-online", "dsa1000", 50, 1.0),
    ],
)
def test_a_name_says_protocol_epochs_and_temperature(
    name: str, protocol: str, epochs: int | None, temperature: float
) -> None:
    teacher = parse(name)
    assert (teacher.protocol, teacher.epochs, teacher.temperature) == (protocol, epochs, temperature)
    assert teacher.name == name
    assert teacher.config == TeacherConfig(temperature=temperature, online=name.endswith("-online"))
    assert re.fullmatch(name_pattern(), name), "what an editor takes"


@pytest.mark.parametrize(
    "name, message",
    [
        ("teechr", r"unknown labels 'teechr'; known: null .*Did you mean 'teacher'"),
        ("soft", r"unknown labels 'soft'"),
        ("teacher-dsa100", r"unknown option 'dsa100' .*Did you mean 'teacher-dsa1000'"),
        ("teacher-t1", r"not how these labels are written; expected 'teacher'"),
        ("teacher-t4.0", r"expected 'teacher-t4'"),
        ("teacher-t0", r"unknown option 't0'"),
        ("teacher-t4-e5", r"expected 'teacher-e5-t4'"),
        ("teacher-online-t4", r"expected 'teacher-t4-online'"),
        ("teacher-onlin", r"unknown option 'onlin' .*Did you mean 'teacher-online'"),
        ("teacher-e5-e6", r"two options for the epochs"),
        (f"teacher-{PROTOCOL}", r"expected 'teacher'"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(name)
    assert not re.fullmatch(name_pattern(), name)


def test_published_stops_are_counted_in_steps_of_cifar() -> None:
    """methods2.md 1.5: epochs 20, 44, 128, 164 at 5e-4 and 13, 36, 125, 125 at 1e-2; an epoch is 196 batches."""
    for dataset, lr, epochs in (("cifar10", 5e-4, (20, 44, 128, 164)), ("cifar100", 1e-2, (13, 36, 125, 125))):
        for ipc, count in zip((1, 10, 50, 100), epochs, strict=True):
            assert parse("teacher").changes(dataset, ipc) == {"lr": lr, "steps": 196 * count}
    assert parse("teacher").changes("digits", 1) == parse("teacher").changes("cifar10", 1)
    assert parse("teacher").changes("cifar10", 20)["steps"] == 196 * 44, "the nearest by ratio: 10, not 50"
    assert parse("teacher").changes("cifar10", 30)["steps"] == 196 * 128
    assert parse("teacher-e9").changes("cifar100", 1) == {"lr": 1e-2, "epochs": 9}
    assert parse("teacher-dsa1000").changes("cifar100", 1) == {}
    recipe = PROTOCOLS[PROTOCOL].recipe
    assert (recipe.epochs, recipe.lr) == (STOPS["cifar10"].epochs[1], STOPS["cifar10"].lr)
    assert (recipe.milestones, recipe.schedule, recipe.momentum, recipe.weight_decay) == ((), "steps", 0.0, 0.0)


# --- the stage --------------------------------------------------------------------------------------------------------

CLASSES = (0, 1)
NETWORK = NetworkConfig(
    architecture="convnet3", norm="instance", width=8, depth=2, image_size=8, channels=1, num_classes=2
)


def config(*, seed: int = 0, on_origin: bool = False, epochs: int = 6, **other: Any) -> TrainConfig:
    values = {"dataset": digits_config(), "origin": OriginConfig(classes=CLASSES), "network": NETWORK, **other}
    values.setdefault("recipe", recipe(epochs=epochs, batch=64))
    return TrainConfig(seed=seed, on_origin=on_origin, curve_points=0, **values)  # type: ignore[arg-type]


def saved(payload: Any, folder: Path) -> Path:
    folder.mkdir(parents=True)
    payload.save(folder)
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A teacher of the digits 0 and 1, and a set of four images of two tiles each way, whose classes are swapped."""
    teacher = stages.run("train", config(on_origin=True, seed=SEED), {}, FakeContext(tmp_path / "teacher"))
    generator = torch.Generator().manual_seed(0)
    info = {"space": "pixel01", "factor": 2, "label_kind": "hard"}
    made = DistilledSet(
        torch.rand(4, 1, 8, 8, generator=generator),
        HardLabels(torch.tensor([0, 0, 1, 1])),
        torch.full((4,), -1),
        info,
    )
    return {"teacher": saved(teacher, tmp_path / "of_teacher"), "set": saved(made, tmp_path / "of_set")}


def trained(inputs: dict[str, Path], folder: Path, **other: Any) -> TrainedModel:
    model = stages.run("train", config(**other), inputs, FakeContext(folder))
    assert isinstance(model, TrainedModel)
    return model


def test_a_stage_learns_the_teacher_s_labels_of_each_decoded_image(inputs: dict[str, Path], tmp_path: Path) -> None:
    soft = trained(inputs, tmp_path / "soft", teacher=TeacherConfig())
    assert soft.info["train_images"] == 4 * 2**2
    assert (soft.info["label_loss"], soft.info["temperature"], soft.info["scaled"]) == ("soft_ce", 1.0, False)
    assert soft.info["label_bytes"] == 4 * 16 * 2
    assert 0 <= soft.info["teacher_agreement"] <= 1
    assert 0 < soft.info["teacher_entropy"] < 0.7
    outputs = TrainedModel.load_outputs(inputs["teacher"])["test"]
    assert soft.info["teacher_acc"] == float((outputs.logits.argmax(1) == outputs.labels).double().mean()) > 0.9
    hard = trained(inputs, tmp_path / "hard")
    assert "teacher_acc" not in hard.info
    assert not torch.allclose(soft.state["classifier.weight"], hard.state["classifier.weight"], atol=1e-4)


def test_labels_are_the_teacher_s_logits_of_images_as_it_sees_them(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Against the teacher run by hand, whose constants are not the student's."""
    teacher = TrainedModel.load(inputs["teacher"])
    pixels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    from trainables.evaluate.robustness.network import pixel_network

    with torch.no_grad():
        logits = pixel_network(teacher, "cpu")(pixels)
    classes = torch.tensor([0, 1, 0, 1, 0])

    def lesson_of(own: float = 1.0, **other: Any) -> Lesson:
        student = config(teacher=TeacherConfig(temperature=own), recipe=recipe(**other))
        return taught(teacher, student, pixels, classes, FakeContext(tmp_path))

    lesson = lesson_of(4.0)
    torch.testing.assert_close(lesson.learned, (logits / 4).softmax(1))
    assert lesson.classes.tolist() == classes.tolist()
    assert lesson.info["temperature"] == 4.0
    assert lesson.info["teacher_agreement"] == float((logits.argmax(1) == classes).double().mean())
    entropy = -(lesson.learned * lesson.learned.log()).sum(1).mean()
    assert lesson.info["teacher_entropy"] == pytest.approx(float(entropy), rel=1e-5)
    of_recipe = lesson_of(temperature=2.0)
    torch.testing.assert_close(of_recipe.learned, (logits / 2).softmax(1))
    assert of_recipe.info["teacher_entropy"] > lesson_of().info["teacher_entropy"]


def test_a_teacher_that_is_sure_teaches_as_its_classes_do(inputs: dict[str, Path], tmp_path: Path) -> None:
    """At a low temperature labels are one-hot: training on them is training on hard labels, to rounding."""
    teacher = TrainedModel.load(inputs["teacher"])
    made = DistilledSet.load(inputs["set"])
    from trainables.data.pixels import decode, normalise
    from trainables.models.network import build
    from trainables.train import predict

    network = build(teacher.network, "teacher")
    network.load_state_dict(teacher.state)
    said = predict(network, normalise(decode(made.images, 2), teacher.mean, teacher.std)).argmax(1)
    pieces = DistilledSet(decode(made.images, 2), HardLabels(said), torch.full((16,), -1), {**made.info, "factor": 1})
    inputs = {**inputs, "set": saved(pieces, tmp_path / "pieces")}
    hard = trained(inputs, tmp_path / "hard")
    # The student's logits are divided too, so it is the labels alone that are sharpened here.
    sure = TrainedModel(
        {name: 1e4 * tensor if name.startswith("classifier") else tensor for name, tensor in teacher.state.items()},
        teacher.network,
        teacher.mean,
        teacher.std,
        teacher.outputs,
        teacher.info,
    )
    soft = trained({**inputs, "teacher": saved(sure, tmp_path / "sure")}, tmp_path / "soft", teacher=TeacherConfig())
    assert soft.info["teacher_entropy"] == pytest.approx(0.0, abs=1e-6)
    for name, tensor in soft.state.items():
        torch.testing.assert_close(tensor, hard.state[name], atol=1e-4, rtol=1e-4)
    other = trained(inputs, tmp_path / "unsure", teacher=TeacherConfig())
    assert not torch.allclose(other.state["classifier.weight"], hard.state["classifier.weight"], atol=1e-4)


def test_repeats_together_learn_what_each_learns_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    base = config(teacher=TeacherConfig())
    together = stages.run("ensemble", EnsembleConfig(base=base, seeds=(0, 1)), inputs, FakeContext(tmp_path / "both"))
    for seed in (0, 1):
        alone = trained(inputs, tmp_path / f"alone{seed}", seed=seed, teacher=TeacherConfig())
        member = together.models[seed]  # type: ignore[union-attr]
        torch.testing.assert_close(
            F.normalize(member.state["classifier.weight"], dim=None),
            F.normalize(alone.state["classifier.weight"], dim=None),
            atol=1e-4,
            rtol=1e-3,
        )
        assert member.info["teacher_acc"] == alone.info["teacher_acc"]


# --- a teacher that is asked anew -------------------------------------------------------------------------------------


def online(inputs: dict[str, Path], folder: Path, temperature: float = 1.0, **of_recipe: Any) -> TrainedModel:
    learned = recipe(**{"epochs": 6, "batch": 64, **of_recipe})
    return trained(inputs, folder, teacher=TeacherConfig(temperature=temperature, online=True), recipe=learned)


def test_without_augmentation_it_says_each_time_what_it_says_once(inputs: dict[str, Path], tmp_path: Path) -> None:
    once = trained(inputs, tmp_path / "once", teacher=TeacherConfig(temperature=2.0))
    anew = online(inputs, tmp_path / "anew", 2.0)
    for name, tensor in anew.state.items():
        torch.testing.assert_close(tensor, once.state[name], atol=1e-5, rtol=1e-5)
    parameters = sum(tensor.numel() for tensor in TrainedModel.load(inputs["teacher"]).state.values())
    assert (once.info["label_bytes"], anew.info["label_bytes"]) == (4 * 16 * 2, 4 * parameters)
    for name in ("teacher_acc", "teacher_agreement", "teacher_entropy", "temperature", "label_loss"):
        assert anew.info[name] == once.info[name]


@pytest.mark.parametrize("mixing", [{"cutmix": 1.0}, {"mixup": 0.5}, {}], ids=["cutmix", "mixup", "none"])
def test_it_labels_what_the_network_sees(inputs: dict[str, Path], tmp_path: Path, mixing: dict[str, float]) -> None:
    """A step by hand: the gradient of the loss with the teacher's word on the augmented, mixed images themselves."""
    from trainables.data.pixels import decode, normalise
    from trainables.evaluate.robustness.network import pixel_network
    from trainables.train import augmentation, mix

    of_recipe = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.1, "milestones": (), "augmentation": "dsa"}
    student = config(recipe=recipe(**{"batch": 64, **of_recipe, **mixing}))
    teacher, made = TrainedModel.load(inputs["teacher"]), DistilledSet.load(inputs["set"])
    mean, std = student.dataset.mean, student.dataset.std
    order = order_of(student, 16, 0)
    images = normalise(decode(made.images, 2), mean, std)[order]
    images = augment.apply(images, augmentation(student, 16, 0))  # type: ignore[arg-type]
    images, _, kept = mixed(images, torch.zeros(16, dtype=torch.int64), mix(student, 0))
    assert (kept < 1) == bool(mixing)
    network = build(student.network, "train", "network", student.seed)
    with torch.no_grad():
        said = (pixel_network(teacher, "cpu")(images * torch.tensor(std) + torch.tensor(mean)) / 3).softmax(1)
    loss = F.kl_div((network(images) / 3).log_softmax(1), said, reduction="batchmean")
    loss.backward()
    found = online(inputs, tmp_path / "found", 3.0, label_loss="kl", **of_recipe, **mixing)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(found.state[name], (parameter - 0.1 * parameter.grad).detach(), atol=2e-6, rtol=1e-4)
    if mixing:  # the control: labels that are given once and mixed are others
        given = recipe(**{"batch": 64, "label_loss": "kl", **of_recipe, **mixing})
        once = trained(inputs, tmp_path / "once", teacher=TeacherConfig(temperature=3.0), recipe=given)
        assert not torch.allclose(once.state["classifier.weight"], found.state["classifier.weight"], atol=1e-5)


def test_a_set_with_other_constants_is_shown_as_the_teacher_knows_images(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Sets of MTT and IDC on CIFAR-100 are normalised as CIFAR-10."""
    teacher = TrainedModel.load(inputs["teacher"])
    pixels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    dataset = digits_config().model_copy(update={"mean": (0.1,), "std": (0.7,)})
    student = config(teacher=TeacherConfig(online=True), dataset=dataset)
    lesson = taught(teacher, student, pixels, torch.zeros(5, dtype=torch.int64), FakeContext(tmp_path))
    assert lesson.answers is not None
    from trainables.evaluate.robustness.network import pixel_network

    with torch.no_grad():
        said = pixel_network(teacher, "cpu")(pixels).softmax(1)
    torch.testing.assert_close(lesson.answers((pixels - 0.1) / 0.7), said, atol=1e-5, rtol=1e-5)


def test_repeats_together_are_answered_as_each_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    base = config(
        teacher=TeacherConfig(temperature=2.0, online=True), recipe=recipe(batch=8, augmentation="rrc_flip", cutmix=1.0)
    )
    together = stages.run("ensemble", EnsembleConfig(base=base, seeds=(0, 1)), inputs, FakeContext(tmp_path / "both"))
    for seed in (0, 1):
        alone = stages.run("train", base.model_copy(update={"seed": seed}), inputs, FakeContext(tmp_path / str(seed)))
        assert isinstance(alone, TrainedModel)
        member = together.models[seed]  # type: ignore[union-attr]
        for name in ("classifier.weight", "classifier.bias"):
            torch.testing.assert_close(member.state[name], alone.state[name], atol=1e-4, rtol=1e-3)


def test_whitened_images_are_not_for_a_teacher_that_is_asked_anew(inputs: dict[str, Path], tmp_path: Path) -> None:
    student, classes = config(teacher=TeacherConfig(online=True)), torch.zeros(2, dtype=torch.int64)
    arguments = TrainedModel.load(inputs["teacher"]), student, torch.rand(2, 1, 8, 8), classes, FakeContext(tmp_path)
    taught(*arguments)
    with pytest.raises(ValueError, match="an online teacher labels what the network sees"):
        taught(*arguments, whitened=True)
    axes = "method: [mtt], labels: [teacher, teacher-online]"
    plan_of(tmp_path, axes)
    with pytest.raises(RequestError, match=r"axes.labels: an online teacher labels what the network sees.*mtt.zca"):
        plan_of(tmp_path, axes, "settings: {mtt: {zca: true}}")


def test_asking_anew_is_work_and_memory_and_another_key(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "method: [random], labels: [teacher, teacher-online], seed: [0]")
    once, anew = (train_of(chain) for chain in plan.chains)
    assert isinstance(anew.config, TrainConfig)
    assert dict(once.inputs) == dict(anew.inputs), "one teacher"
    assert once.key != anew.key
    assert "online" not in once.config.key_json
    gflop = (anew.work - once.work) / (100 * 10)  # of an image: it passes the teacher too, in every step
    assert once.work == pytest.approx((3 * 100 * 10 + 10_000) * gflop)
    assert anew.held_mib > once.held_mib


def test_an_origin_has_labels_of_its_own() -> None:
    with pytest.raises(ValueError, match="the origin has labels of its own"):
        config(on_origin=True, teacher=TeacherConfig())


# --- the plan ---------------------------------------------------------------------------------------------------------

TEXT = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [DATASET], ipc: [1], seed: [0, 1]}
grids:
  g:
    axes: {AXES}
    REST
"""
FOUR = "method: [random, dm], labels: [null, teacher]"


def plan_of(folder: Path, axes: str = FOUR, rest: str = "{}", dataset: str = "cifar10") -> Plan:
    rest = rest if rest != "{}" else ""
    text = TEXT.replace("AXES", axes).replace("REST", rest).replace("DATASET", dataset)
    return worlds.plan_of(worlds.sweep_of(folder, text))


def train_of(chain: Chain) -> Stage:
    stage = chain.stage("train")
    assert stage is not None
    return stage


def teachers_of(plan: Plan) -> set[str]:
    return {key for stage in plan.stages.values() for role, key in stage.inputs if role == "teacher"}


def test_a_teacher_is_an_input_and_hard_points_keep_their_keys(tmp_path: Path) -> None:
    plan, without = plan_of(tmp_path), plan_of(tmp_path, "method: [random, dm]")
    assert len(plan.chains) == 2 * len(without.chains) == 8
    assert without.stages.keys() < plan.stages.keys(), "nothing of what there was changes"
    hard = {chain.point.hash for chain in without.chains}
    assert hard == {chain.point.hash for chain in plan.chains if chain.point.labels is None}
    (key,) = teachers_of(plan)
    for chain in plan.chains:
        assert isinstance(train_of(chain).config, TrainConfig)
        roles = dict(train_of(chain).inputs)
        assert roles.keys() == ({"set", "teacher"} if chain.point.labels else {"set"})
    teacher = plan.stages[key]
    assert isinstance(teacher.config, TrainConfig)
    assert (teacher.kind, teacher.inputs, teacher.config.on_origin, teacher.config.seed) == ("train", (), True, SEED)
    assert teacher.config.origin == OriginConfig(classes=tuple(range(10)))
    assert (teacher.config.recipe.steps, teacher.config.recipe.lr) == (20 * 196, 5e-4)
    of_dm = [train_of(chain) for chain in plan.chains if (chain.point.method, chain.point.seed) == ("dm", 0)]
    assert len({stage.key for stage in of_dm}) == 2
    assert dict(of_dm[0].inputs)["set"] == dict(of_dm[1].inputs)["set"], "the same images"


def test_another_teacher_is_another_student(tmp_path: Path) -> None:
    names = ("teacher", "teacher-e3", "teacher-quick", "teacher-t4", "teacher-e3-t4")
    plan = plan_of(tmp_path, f"method: [random], labels: [{', '.join(names)}]")
    first = {chain.point.labels: train_of(chain) for chain in plan.chains if chain.point.seed == 0}
    assert len({stage.key for stage in first.values()}) == len(names)
    teacher = {name: dict(stage.inputs)["teacher"] for name, stage in first.items()}
    assert teacher["teacher"] == teacher["teacher-t4"], "what labels are read at is the student's affair"
    assert len(set(teacher.values())) == 3
    assert len({stage.label for stage in plan.stages.values()}) == len(plan.stages)


def test_all_methods_have_one_teacher_with_the_data_set_s_own_constants(tmp_path: Path) -> None:
    """Sets of MTT and IDC are normalised with the constants of CIFAR-10 on CIFAR-100, as in their programs."""
    plan = plan_of(tmp_path, "method: [random, mtt, herding], labels: [teacher]", dataset="cifar100")
    (key,) = teachers_of(plan)
    teacher = plan.stages[key].config
    assert isinstance(teacher, TrainConfig)
    means = {
        stage.config.dataset.mean for chain in plan.chains if isinstance((stage := train_of(chain)).config, TrainConfig)
    }
    assert len(means) == 2
    assert teacher.recipe.lr == 1e-2


def test_full_has_no_teacher(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "method: [full, random], labels: [null, teacher]")
    of_full = [chain for chain in plan.chains if chain.point.method == "full"]
    assert [chain.point.labels for chain in of_full] == [None, None], "a point for each seed"
    assert train_of(of_full[0]).key not in teachers_of(plan), "it would begin with the teacher's weights"


def test_repeats_that_are_trained_together_have_one_teacher(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, rest="train: {ensemble: true}")
    ensembles = [stage for stage in plan.stages.values() if stage.kind == "ensemble"]
    assert len(ensembles) == 4
    (key,) = teachers_of(plan)
    assert sum(("teacher", key) in stage.inputs for stage in ensembles) == 2
    assert plan.stages[key].config.ensemble is None  # type: ignore[attr-defined]


AUDITED = "evaluations: {privacy: {audit: [seed, pool, one_run], rows: 6, shadows: 2, targets: 2}}"


@pytest.mark.parametrize("method", ["random", "dm"])
def test_each_world_of_an_audit_has_a_teacher_of_its_own_images(tmp_path: Path, method: str) -> None:
    """Else what labels tell of the members would stand in every shadow alike."""
    axes = f"method: [{method}], labels: [teacher], origin_per_class: [40], seed: [0]"
    plan = plan_of(tmp_path, axes, AUDITED)
    (chain,) = plan.chains
    audit = chain.stage("privacy")
    assert audit is not None
    seen: dict[str, str] = {}
    for role, key in audit.inputs:
        if not role.endswith((".model", ".start")):
            continue
        model = plan.stages[key]
        teacher = plan.stages[dict(model.inputs)["teacher"]]
        assert isinstance(model.config, TrainConfig)
        assert isinstance(teacher.config, TrainConfig)
        assert teacher.config.origin == model.config.origin, role
        assert teacher.config.signals is None
        seen[role] = teacher.key
        if role.endswith(".model") and not role.startswith("shadow"):
            assert dict(audit.inputs)[role.replace(".model", ".teacher")] == teacher.key, "what is published"
    worlds_of = {role.rpartition(".")[0] for role in seen}
    assert len(set(seen.values())) == len(worlds_of) == 1 + 2 + 6 + 1
    seeds = [plan.stages[key].config.seed for key in set(seen.values())]  # type: ignore[attr-defined]
    assert min(seeds) == SEED
    for world in worlds_of:  # a start is labelled by the teacher that labels its set
        assert len({key for role, key in seen.items() if role.rpartition(".")[0] == world}) == 1
    assert set(seen.values()) == teachers_of(plan)
    hard = plan_of(tmp_path, axes.replace("[teacher]", "[null]"), AUDITED)
    (other,) = hard.chains
    assert not teachers_of(hard)
    assert len(hard.stages) + len(set(seen.values())) == len(plan.stages)
    assert isinstance(audit.config, PrivacyConfig)
    assert audit.config.teacher == TeacherConfig()
    assert other.stage("privacy").key != audit.key  # type: ignore[union-attr]


def test_every_stage_is_in_one_job_that_runs_after_its_teacher(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert sorted(stage.key for job in plan.jobs for stage in job.stages) == sorted(plan.stages)
    (key,) = teachers_of(plan)
    waiting = [job for job in plan.jobs if key in job.needs]
    assert len(waiting) == 4
    (own,) = (job for job in plan.jobs if any(stage.key == key for stage in job.stages))
    assert own.points == 4


@pytest.mark.parametrize(
    "axes, rest, message",
    [
        ("method: [random], labels: [teecher]", "{}", r":\d+: grids.g.axes.labels: unknown labels 'teecher'"),
        ("method: [random], labels: [teacher]", "train: {label_loss: l2}", r"train.label_loss: is for targets"),
        (
            "method: [random], labels: [null, teacher-t4]",
            "train: {temperature: 2}",
            r"axes.labels: two temperatures; got 4 in teacher-t4 and 2 in the recipe",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path: Path, axes: str, rest: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        plan_of(tmp_path, axes, rest)


def test_a_recipe_s_temperature_is_that_of_the_labels(tmp_path: Path) -> None:
    """Else two names would be one network, counted twice in every mean."""
    plan = plan_of(tmp_path, "method: [random], labels: [null, teacher]", "train: {temperature: 4}")
    configs = [train_of(chain).config for chain in plan.chains if chain.point.labels]
    assert [config.teacher for config in configs] == [TeacherConfig(temperature=4.0)] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "axes, only, lacking",
    [
        ("method: [random, dm], labels: [null, teacher]", {}, []),
        ("method: [random, dm], labels: [teacher]", {}, []),
        ("method: [dm], labels: [null]", {}, []),
        ("method: [dm, herding], labels: [null, teacher]", {}, [("dm, herding", "teacher", "1, 10")]),
        ("method: [random, dm], labels: [null, teacher]", {"only": ["method=dm"]}, []),  # it is in the sweep
        ("method: [dm], labels: [teacher]", {"only": ["ipc=10"]}, [("dm", "teacher", "10")]),
        (
            "method: [dm, random], labels: [null, teacher, teacher-e3]",
            {"exclude": "{method: random, labels: teacher-e3}"},
            [("dm", "teacher-e3", "1, 10")],
        ),
    ],
)
def test_a_plan_says_where_the_control_is_missing(
    workspace: Workspace, axes: str, only: dict[str, Any], lacking: list[tuple[str, str, str]]
) -> None:
    only = dict(only)
    exclude = f"exclude: [{only.pop('exclude')}]" if "exclude" in only else ""
    text = TEXT.replace("AXES", axes).replace("ipc: [1]", "ipc: [1, 10]").replace("DATASET", "digits")
    notes = workspace.prepare(workspace.write("sweep", text.replace("REST", exclude)), **only).notes
    assert len(notes) == len(lacking)
    for note, (methods, labels, ipcs) in zip(notes, lacking, strict=True):
        assert re.search(r"sweep.yaml:\d+: grids.g.axes.labels: no control; ", note)
        assert f"got {methods} with labels {labels} on digits at ipc {ipcs}; expected random with the same" in note


def test_editors_know_the_axis() -> None:
    entry = json_schema()["$defs"]["Axes"]["properties"]["labels"]
    assert repr(name_pattern()) in repr(entry)
