"""Shares that pack, requests that win by how specific they are, estimates that grow with the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.plan.resources import (
    DISTILL,
    NETWORK,
    SHARES,
    convnet3_gflop,
    distill_work,
    requested,
    share,
    size,
    work,
)
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.configs import KINDS
from trainables.methods import METHODS

ON_STORED = ("accuracy", "robustness")
ASKED = st.tuples(
    st.sampled_from([kind for kind in KINDS if kind not in ON_STORED]),
    st.sampled_from([*METHODS, "unheard_of"]),
    st.sampled_from(sorted(NETWORK)),
    st.sampled_from([8, 28, 32, 64]),
    st.sampled_from([2, 10, 100, 200]),
    st.none() | st.integers(1, 5000),
)


@dataclass
class Asks:
    cpus: float | None = None
    gpu: float | None = None


@given(ASKED)
def test_shares_are_powers_of_two_of_a_card(asked: Any) -> None:
    kind, method, *_ = asked
    if kind == "distill" and method in ("random", "herding", "kmeans"):
        assert share(*asked) == 0, "choosing images needs no card"
    elif kind in ("privacy", "tsne"):
        assert share(*asked) == 0, "scikit-learn and SciPy compute on the CPU"
    else:
        assert share(*asked) in SHARES


@given(ASKED, ASKED)
def test_more_images_never_ask_for_less(one: Any, two: Any) -> None:
    kind, method, architecture, size, classes, ipc = one
    more = (kind, method, architecture, max(size, two[3]), max(classes, two[4]), max(ipc or 0, two[5] or 0))
    smaller, larger = share(kind, method, architecture, size, classes, ipc or 0), share(*more)
    assert smaller is not None
    assert larger is not None
    assert smaller <= larger


@given(ASKED, st.integers(1, 100))
def test_an_ensemble_takes_the_share_of_its_members(asked: Any, members: int) -> None:
    one, all_of_them = share("ensemble", *asked[1:]), share("ensemble", *asked[1:], members)
    assert one == share("train", *asked[1:])
    assert one is not None
    assert all_of_them is not None
    assert all_of_them in SHARES
    assert min(1.0, one * members) <= all_of_them < 2 * one * members


def test_an_unknown_method_takes_a_card_and_accuracy_that_of_its_job() -> None:
    assert share("distill", "unheard_of", "convnet3", 32, 10, 1) == 1
    assert {share(kind, "dm", "convnet3", 32, 10, 1) for kind in ON_STORED} == {None}
    assert set(DISTILL) <= set(METHODS)
    assert set(DISTILL) == set(METHODS) - {"full"}


def test_requests_by_how_specific_they_are() -> None:
    requests = {
        "distill": Asks(cpus=2, gpu=0.5),
        "dm": Asks(gpu=0.25),
        "distill.dm": Asks(cpus=3),
        "train": Asks(cpus=4),
    }
    assert requested(requests, "distill", "dm", 1.0) == (3, 0.25)
    assert requested(requests, "distill", "random", 0.0) == (2, 0.5)
    assert requested(requests, "experts", "dm", 1.0) == (1, 0.25), "a method's entry is for the stages it owns"
    assert requested(requests, "train", "dm", 0.125) == (4, 0.125)
    assert requested(requests, "attack", "dm", 0.125) == (1, 0.125)
    assert requested({"distill": Asks(gpu=0)}, "distill", "dm", 1.0) == (1, 0), "0 is an answer"


SIZES = st.fixed_dictionaries(
    {
        "gflop": st.floats(0.001, 10),
        "images": st.integers(1, 10**5),
        "steps": st.integers(1, 10**5),
        "batch": st.integers(1, 512),
        "test_images": st.integers(1, 10**4),
        "passes": st.floats(0, 10**4),
    }
)


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=SIZES, data=st.data())
def test_estimates_are_positive_and_grow(kind: str, sizes: dict[str, Any], data: st.DataObject) -> None:
    before = work(kind, **sizes)
    assert before > 0
    grown = data.draw(st.sampled_from(sorted(sizes)))
    assert work(kind, **{**sizes, grown: sizes[grown] * 2}) >= before


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
def test_what_is_kept_beside_counts(kind: str) -> None:
    def bytes_of(numbers: int) -> int:
        return size(kind, architecture="convnet3", num_classes=10, ipc=1, pixels=64, test_images=100, numbers=numbers)

    assert bytes_of(0) > 0
    assert bytes_of(1000) - bytes_of(0) == (0 if kind == "distill" else 4000)


LEARNERS = sorted(name for name, method in METHODS.items() if method.settings.budget)


@pytest.mark.parametrize("method", LEARNERS)
@given(
    st.integers(2, 200),
    st.integers(1, 100),
    st.integers(1, 5000),
    st.integers(1, 100),
    st.sampled_from(["num_classes", "ipc", "iterations"]),
)
def test_the_work_of_a_distillation_grows(
    method: str, num_classes: int, ipc: int, per_class: int, iterations: int, grown: str
) -> None:
    def estimate(**values: int) -> float:
        settings = METHODS[method].settings(iterations=values["iterations"])
        return distill_work(method, settings, 0.1, values["num_classes"], values["ipc"], per_class)

    sizes = {"num_classes": num_classes, "ipc": ipc, "iterations": iterations}
    assert 0 < estimate(**sizes) <= estimate(**{**sizes, grown: 2 * sizes[grown]})


def test_the_work_of_gradient_matching_counts_the_training_of_its_networks() -> None:
    one, ten = (
        distill_work("dsa", METHODS["dsa"].settings(iterations=10, loops=loops), 0.1, 10, 10, 5000)
        for loops in ((1, 50), (10, 50))
    )
    assert ten > 10 * one, "ten updates, and nine trainings between them"


def test_work_of_a_network() -> None:
    # ConvNet3 on 32 px, 3 channels: 3 convolutions of 9 weights per pair of channels at 32, 16 and 8 px
    by_hand = 2 * 9 * (3 * 128 * 1024 + 128 * 128 * 256 + 128 * 128 * 64) / 1e9
    assert convnet3_gflop(32, 3) == pytest.approx(by_hand)
    assert convnet3_gflop(32, 1) < convnet3_gflop(32, 3) < convnet3_gflop(64, 3)
