"""Shares that pack, requests that win by how specific they are, estimates that grow with the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st

from ddray.plan.chains import make_chains
from ddray.plan.kinds import STAGE_KINDS, Load, reservation, work_of
from ddray.plan.shares import LEAST, SHARES, room_for, share_of
from ddray.prepare import expanded
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.configs import (
    KINDS,
    AttackConfig,
    DistillConfig,
    EnsembleConfig,
    ExpertConfig,
    Held,
    Kind,
    MethodSettings,
    NetworkConfig,
    OriginConfig,
    StageConfig,
    TrainConfig,
)
from trainables.methods import METHODS
from trainables.networks import NETWORKS, convnet3_gflop, parse
from trainables.protocols import PROTOCOLS
from trainables.registry import method

ON_STORED = ("accuracy", "robustness")


def load_of(
    name: str, architecture: str = "convnet3", size: int = 32, classes: int = 10, ipc: int | None = 1, **other: Any
) -> Load:
    settings = METHODS[name].settings() if name in METHODS else MethodSettings()
    values: dict[str, Any] = {
        "method": name,
        "settings": settings,
        "ipc": ipc,
        "network": parse(architecture),
        "image_size": size,
        "channels": 3,
        "num_classes": classes,
        "test_images": 100 * classes,
        "origin_images": 500,
        "train_images": ipc or 500,
        **other,
    }
    return Load(**values)


def config_of(kind: Kind, load: Load, members: int = 1, **other: Any) -> Any:
    """Of a stage of the kind; kinds whose cost does not depend on it have none."""
    dataset = worlds.facts_of("cifar10").config.model_copy(update={"image_size": load.image_size})
    origin = OriginConfig(classes=tuple(range(load.num_classes)))
    network = NetworkConfig.of(
        load.network, image_size=load.image_size, channels=3, num_classes=max(2, load.num_classes)
    )
    common: dict[str, Any] = {"dataset": dataset, "origin": origin, "network": network}
    train = TrainConfig(**common, on_origin=False, recipe=PROTOCOLS["quick"].recipe, seed=0)
    match kind:
        case "experts":
            values = {"index": 0, "snapshots": 3, "lr": 0.1, "batch": 16, "augmentation": None, **other}
            return ExpertConfig(**common, **values)
        case "distill":
            values = {"settings": load.settings.key_material(), "distill_seed": 0, "init": None, "augmentation": None}
            return DistillConfig(**common, method=load.method, method_version=1, ipc=load.ipc or 1, **values)
        case "ensemble":
            return EnsembleConfig(base=train.model_copy(update=other), seeds=tuple(range(members)))
        case "train":
            return train.model_copy(update=other)
        case "attack":
            values = {"attack": "fgsm", "images": 100, "epsilons": (0.1, 0.2), "settings": {}, **other}
            return AttackConfig(dataset=dataset, classes=origin.classes, **values)
    return _planned(kind)


def _planned(kind: Kind) -> StageConfig:
    """Of a sweep that has every kind."""
    return next(config for name, config in PLANNED if name == kind)


@pytest.fixture(scope="module", autouse=True)
def planned(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = """
ddray: 1
grids:
  all:
    axes: {method: [dm], dataset: [digits], ipc: [1], origin_per_class: [20]}
    protocol: quick
    evaluations: {robustness: {attacks: [fgsm]}, privacy: {rows: 4}, embedding: {}}
"""
    plan = worlds.plan_of(worlds.sweep_of(tmp_path_factory.mktemp("kinds"), text))
    PLANNED[:] = [(stage.kind, stage.config) for stage in plan.stages.values()]


PLANNED: list[tuple[str, Any]] = []


def share(kind: Kind, name: str, *rest: Any, members: int = 1) -> float | None:
    load = load_of(name, *rest)
    return reservation(kind, config_of(kind, load, members), load, {}).share


ASKED = st.tuples(
    st.sampled_from([kind for kind in KINDS if kind not in ON_STORED]),
    st.sampled_from([*METHODS, "unheard_of"]),
    st.sampled_from(sorted(NETWORKS)),
    st.sampled_from([8, 28, 32, 64]),
    st.sampled_from([2, 10, 100, 200]),
    st.none() | st.integers(1, 5000),
)


@given(ASKED)
def test_shares_are_powers_of_two_of_a_card(asked: Any) -> None:
    kind, name, *_ = asked
    if kind == "distill" and name in ("random", "herding", "kmeans"):
        assert share(*asked) == 0, "choosing images needs no card"
    elif kind in ("privacy", "tsne"):
        assert share(*asked) == 0, "scikit-learn and SciPy compute on the CPU"
    else:
        assert share(*asked) in SHARES


@given(ASKED, ASKED)
def test_more_images_never_ask_for_less(one: Any, two: Any) -> None:
    kind, name, architecture, size, classes, ipc = one
    # None is the whole data for a training and no image for a set: of those neither is more than the other.
    ipcs = ipc if ipc is None or two[5] is None else max(ipc, two[5])
    more = (kind, name, architecture, max(size, two[3]), max(classes, two[4]), ipcs or 0)
    smaller, larger = share(kind, name, architecture, size, classes, ipc or 0), share(*more)
    assert smaller is not None
    assert larger is not None
    assert smaller <= larger


def held(kind: Kind, name: str, *rest: Any, members: int = 1) -> float | None:
    load = load_of(name, *rest)
    return STAGE_KINDS[kind].memory(config_of(kind, load, members), load)


@given(ASKED, st.integers(1, 100))
def test_an_ensemble_holds_what_its_members_do(asked: Any, members: int) -> None:
    """Images are there once, and the look at test images takes one network at a time."""
    one, all_of_them = held("ensemble", *asked[1:]), held("ensemble", *asked[1:], members=members)
    assert one == held("train", *asked[1:])
    assert one is not None
    assert all_of_them is not None
    assert one <= all_of_them <= one * members
    assert share("ensemble", *asked[1:], members=members) in SHARES


def test_an_unknown_method_takes_a_card_and_accuracy_that_of_its_job() -> None:
    assert share("distill", "unheard_of") == 1
    assert {share(kind, "dm") for kind in ON_STORED} == {None}  # type: ignore[arg-type]
    ours = [each for each in METHODS.values() if each.distils and each.card]
    assert all(each.settings().held(10, 1, 5000, False) is not None for each in ours), "ours say what they take"


@given(st.floats(0.1, 1e6), st.floats(0.1, 1e6), st.sampled_from([16.0, 32.0, 80.0]))
def test_a_share_is_enough_and_no_larger_than_needed(one: float, two: float, gib: float) -> None:
    found, room = share_of(one, gib), room_for(one) / 1024
    assert found in SHARES
    assert found * gib >= room or found == 1
    assert found == LEAST or (found / 2) * gib < room, "half of it would not do"
    assert found <= share_of(max(one, two), gib)
    assert share_of(one, 2 * gib) <= found
    assert share_of(one, gib, least=1 / 2) == max(found, 1 / 2)
    assert share_of(0, gib) == 0


@dataclass
class Asks:
    cpus: float | None = None
    gpu: float | None = None


def test_requests_by_how_specific_they_are() -> None:
    requests = {
        "distill": Asks(cpus=2, gpu=0.5),
        "dm": Asks(gpu=0.25),
        "distill.dm": Asks(cpus=3),
        "train": Asks(cpus=4),
    }

    def asks(kind: Kind, name: str, requests: Any = requests) -> tuple[float, float | None]:
        load = load_of(name)
        return reservation(kind, config_of(kind, load), load, requests)[:2]

    assert asks("distill", "dm") == (3, 0.25)
    assert asks("distill", "random") == (2, 0.5)
    assert asks("experts", "dm") == (1, 0.25), "a method's entry is for the stages it owns"
    assert asks("train", "dm") == (4, 0.125)
    assert asks("attack", "dm") == (1, 0.125)
    assert asks("distill", "dm", {"distill": Asks(gpu=0)}) == (1, 0), "0 is an answer"


def test_a_stage_that_copies_takes_no_card_whatever_is_asked_for() -> None:
    load = load_of("dm")
    config = config_of("train", load, ensemble=(0, 1))
    assert reservation("train", config, load, {"train": Asks(gpu=0.5)}) == (1, None, 0)
    assert work_of("train", config, load) < work_of("train", config_of("train", load), load)


SIZES = st.fixed_dictionaries(
    {
        "size": st.integers(16, 64),
        "ipc": st.integers(1, 500),
        "test_images": st.integers(1, 10**4),
        "train_images": st.integers(1, 10**3),
        "origin_images": st.integers(1, 10**3),
    }
)


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=SIZES, data=st.data())
def test_estimates_are_positive_and_grow(kind: Kind, sizes: dict[str, Any], data: st.DataObject) -> None:
    def work(sizes: dict[str, Any]) -> float:
        load = load_of("dm", **sizes)
        return work_of(kind, config_of(kind, load), load)

    before = work(sizes)
    assert before > 0
    grown = data.draw(st.sampled_from(sorted(sizes)))
    assert work({**sizes, grown: sizes[grown] * 2}) >= before


@pytest.mark.parametrize("attack", ROBUSTNESS_ATTACKS)
def test_stronger_attacks_cost_more(attack: Any) -> None:
    """Settings that make an attack longer are part of the estimate, and budgets cost a run or a test each."""
    settings = attack_settings(attack)
    usual = ROBUSTNESS_ATTACKS[attack].cost(settings, 3)
    assert usual > 0
    for name in ("restarts", "binary_search_steps", *(["steps"] if "deepfool" not in attack else [])):
        if name in settings:
            assert ROBUSTNESS_ATTACKS[attack].cost({**settings, name: 2 * settings[name]}, 3) > 1.9 * (usual - 3)
    more = ROBUSTNESS_ATTACKS[attack].cost(settings, 6)
    assert more == (usual + 3 if ROBUSTNESS_ATTACKS[attack].minimal else 2 * usual)


def test_the_order_of_attacks_by_cost() -> None:
    cost = {name: spec.cost(spec.settings, 3) for name, spec in ROBUSTNESS_ATTACKS.items()}
    assert cost["fgsm"] < cost["deepfool_l2"] < cost["pgd_l2"] < cost["cw_l2"] < cost["autoattack"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_takes_room(kind: Kind) -> None:
    load = load_of("dm")
    assert STAGE_KINDS[kind].size(config_of(kind, load), load) > 0


def test_what_is_kept_beside_counts() -> None:
    load = load_of("dm")

    def bytes_of(**changes: Any) -> int:
        return STAGE_KINDS["attack"].size(config_of("attack", load, **changes), load)

    assert bytes_of(images=200) - bytes_of(images=100) == 4 * 100 * (2 + 6), "each image at each budget"
    one, three = (STAGE_KINDS["ensemble"].size(config_of("ensemble", load, members), load) for members in (1, 3))
    assert three == 3 * one == 3 * STAGE_KINDS["train"].size(config_of("train", load), load)


LEARNERS = sorted(name for name, each in METHODS.items() if each.settings.budget)


def distillation(name: str, settings: MethodSettings, classes: int = 10, ipc: int = 10, images: int = 5000) -> float:
    load = replace(load_of(name, classes=classes, ipc=ipc, origin_images=images), settings=settings)
    return work_of("distill", config_of("distill", load), load)


@pytest.mark.parametrize("name", LEARNERS)
@given(
    st.integers(2, 200),
    st.integers(1, 100),
    st.integers(1, 5000),
    st.integers(1, 100),
    st.sampled_from(["classes", "ipc", "iterations"]),
)
def test_the_work_of_a_distillation_grows(
    name: str, classes: int, ipc: int, images: int, iterations: int, grown: str
) -> None:
    def estimate(classes: int, ipc: int, iterations: int) -> float:
        return distillation(name, METHODS[name].settings(iterations=iterations), classes, ipc, images)

    sizes = {"classes": classes, "ipc": ipc, "iterations": iterations}
    assert 0 < estimate(**sizes) <= estimate(**{**sizes, grown: 2 * sizes[grown]})


def test_the_work_of_gradient_matching_counts_the_training_of_its_networks() -> None:
    one, ten = (
        distillation("dsa", METHODS["dsa"].settings(iterations=10, loops=loops)) for loops in ((1, 50), (10, 50))
    )
    assert ten > 10 * one, "ten updates, and nine trainings between them"


def test_work_of_a_network() -> None:
    # ConvNet3 on 32 px, 3 channels: 3 convolutions of 9 weights per pair of channels at 32, 16 and 8 px
    by_hand = 2 * 9 * (3 * 128 * 1024 + 128 * 128 * 256 + 128 * 128 * 64) / 1e9
    assert convnet3_gflop(32, 3) == pytest.approx(by_hand)
    assert convnet3_gflop(32, 1) < convnet3_gflop(32, 3) < convnet3_gflop(64, 3)
    assert parse("convnet3").forward_gflop(32, 3) == convnet3_gflop(32, 3)
    assert parse("resnet18-w32").forward_gflop(32, 3) == parse("resnet18").forward_gflop(32, 3) / 4


def test_a_method_of_another_package_says_what_it_takes(tmp_path: Path) -> None:
    """Memory, work and bytes are those of its own record, not of a method that we know."""

    class Foreign(MethodSettings):
        budget: ClassVar[str | None] = "iterations"
        iterations: int = 7

        def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
            return 1000.0 * ipc

        def stored_bytes(self, num_classes: int, ipc: int, numbers: int) -> int:
            return 12345

        def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
            return Held(graph=100.0 if ipc < 6 else 7000.0)

    try:
        method("foreign", title="F", function="no.where:distill", uses=frozenset({"ipc"}))(Foreign)
        text = "ddray: 1\ngrids: {g: {axes: {method: [dm], dataset: [cifar10], ipc: [5, 6]}, protocol: quick}}"
        points = [replace(point, method="foreign", init=None) for point in expanded(worlds.sweep_of(tmp_path, text))]
        _, stages = make_chains(points, {"cifar10": worlds.facts_of("cifar10")}, {})
        five, six = (stage for stage in stages.values() if stage.kind == "distill")
    finally:
        METHODS.pop("foreign", None)
    assert (five.share, six.share) == (1 / 8, 1)
    assert six.held_mib > five.held_mib + 6900 * 2
    assert six.work == pytest.approx(7 * 6000 * convnet3_gflop(32, 3), rel=1e-3)
    assert five.size == six.size == 12345


def test_kinds_are_the_configurations_of_their_names(tmp_path: Path) -> None:
    assert tuple(STAGE_KINDS) == KINDS
    assert len({kind.config for kind in STAGE_KINDS.values()}) == len(KINDS)
    for point in expanded(worlds.sweep_of(tmp_path)):
        assert point.method in METHODS
