"""Mistakes in training that no result would betray: chosen by the test split, repeats alike, augmented when tested."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import FakeContext, folder_bytes, recipe, tiny_network, tiny_origin, tiny_test, train_config
from torch import Tensor

from trainables import seeds
from trainables.configs import EnsembleConfig, TrainConfig
from trainables.data import augment
from trainables.data.origins import TestSet
from trainables.models.network import build
from trainables.payloads import TrainedModel
from trainables.train import augmentation, predict, train, train_ensemble


def training(**other: Any) -> TrainConfig:
    """Twelve epochs that are all looked at; batch norm, so that a look could leave something behind."""
    chosen = {"lr": 0.1, "augmentation": "dsa", **other.pop("recipe", {})}
    values = {"network": tiny_network(norm="batch"), "curve_points": 12, "curve_images": 36, **other}
    return train_config(recipe(epochs=12, **chosen), **values)


def trained(config: TrainConfig, folder: Path, test: TestSet | None = None) -> TrainedModel:
    origin = tiny_origin()
    return train(config, origin.images, origin.labels, test or tiny_test(origin), FakeContext(folder))


def same_state(one: TrainedModel, two: TrainedModel) -> bool:
    return all(torch.equal(tensor, two.state[name]) for name, tensor in one.state.items())


# --- 1: nothing is chosen by the test split ---------------------------------------------------------------------------


def exams(seed: int = 1) -> tuple[TestSet, TestSet, TestSet]:
    """A test split that is hard, the same with its labels permuted, and one of other images."""
    origin, generator = tiny_origin(each=30), torch.Generator().manual_seed(seed)
    noisy = origin.images + 2 * torch.randn(origin.images.shape, generator=generator)
    plain = TestSet(noisy, origin.labels, torch.arange(len(noisy)))
    permuted = plain._replace(labels=plain.labels[torch.randperm(len(noisy), generator=generator)])
    return plain, permuted, plain._replace(images=torch.randn(noisy.shape, generator=generator))


def best_epoch(model: TrainedModel) -> int:
    """What somebody who chooses by the test split would take."""
    return int(np.argmax([point["test_acc"] for point in model.info["curve"]]))


@pytest.mark.parametrize("together", [False, True])
def test_the_test_split_decides_nothing_of_the_trained_model(together: bool, tmp_path: Path) -> None:
    config, origin = training(), tiny_origin()
    models = []
    for index, test in enumerate(exams()):
        context = FakeContext(tmp_path / str(index))
        if together:
            ensemble = EnsembleConfig(base=config, seeds=(0, 1))
            models.append(train_ensemble(ensemble, origin.images, origin.labels, test, context).models[0])
        else:
            models.append(train(config, origin.images, origin.labels, test, context))
    plain, *others = models
    for other in others:
        assert best_epoch(other) != best_epoch(plain), "the control: whoever chose by it would choose otherwise"
        assert same_state(plain, other)
        changed = {name for name in plain.info if plain.info[name] != other.info[name]}
        assert changed == {"curve"}
    assert torch.equal(plain.outputs["test"].logits, others[0].outputs["test"].logits)


# --- 19: repeats differ, and in nothing but their seed ----------------------------------------------------------------

PARTS = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=4), max_size=4)


@given(PARTS, PARTS)
def test_seeds_are_equal_when_their_parts_are(one: list[int | str], two: list[int | str]) -> None:
    assert (seeds.derive(*one) == seeds.derive(*two)) == (one == two)
    assert 0 <= seeds.derive(*one) < 2**63


def test_repeats_begin_and_end_with_weights_of_their_own(tmp_path: Path) -> None:
    starts = [build(tiny_network(), "train", "network", seed).state_dict()["features.0.weight"] for seed in range(4)]
    ends = [trained(training(seed=seed), tmp_path / str(seed)).state["classifier.weight"] for seed in range(4)]
    for found in (starts, ends):
        for one in range(4):
            for two in range(one):
                assert float((found[one] - found[two]).abs().max()) > 1e-2


def test_neither_the_clock_nor_global_state_enters_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in (1, 2):
        monkeypatch.setattr(time, "time", lambda number=number: 1e9 * number)
        monkeypatch.setattr(time, "time_ns", lambda number=number: 10**18 * number)
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002 - global state is what this is about
        model = trained(training(recipe={"augmentation": "idc", "cutmix": 0.5}), tmp_path / str(number))
        (tmp_path / f"saved{number}").mkdir()
        model.save(tmp_path / f"saved{number}")
        found.append((folder_bytes(tmp_path / f"saved{number}"), torch.rand(1)))
    assert found[0][1] != found[1][1], "the control: the global state did differ"
    assert found[0][0] == found[1][0]


# --- 26: no augmentation when a network is asked ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["dsa", "idc"])
def test_clean_logits_of_two_passes_are_identical(how: str, tmp_path: Path) -> None:
    config = training(recipe={"augmentation": how, "cutmix": 0.5})
    test = exams()[0]
    model = trained(config, tmp_path, test)
    network = build(config.network, "any", "network", 0)
    network.load_state_dict(model.state)
    network.train()  # as a training leaves it
    passes: list[Tensor] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        passes.append(predict(network, test.images))
    assert torch.equal(passes[0], passes[1])
    assert torch.equal(passes[0], model.outputs["test"].logits)
    params = augmentation(config, len(test.images), step=0)
    assert params is not None
    augmented = predict(network, augment.apply(test.images, params))
    assert float((augmented - passes[0]).abs().max()) > 0.1, "the control: augmented images would show"
    with torch.no_grad():
        batchwise = network(test.images)
    assert float((batchwise - passes[0]).abs().max()) > 0.1, "the control: and so would statistics of the batch"
