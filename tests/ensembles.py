"""Networks that are trained together, and the same one by one: what several files of tests compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, tiny_origin, tiny_test, to_its_end, train_config

from trainables.configs import EnsembleConfig, RecipeConfig
from trainables.payloads import TrainedEnsemble, TrainedModel
from trainables.train import train, train_ensemble

SEEDS = (1, 4, 5)


def ensemble_config(recipe: RecipeConfig, seeds: tuple[int, ...] = SEEDS, **other: Any) -> EnsembleConfig:
    return EnsembleConfig(base=train_config(recipe, seed=seeds[0], **other), seeds=seeds)


def trained(config: EnsembleConfig, context: FakeContext, each: int = 7, **given: Any) -> TrainedEnsemble:
    """A training that is started again whenever it is interrupted."""
    origin = tiny_origin(each=each, size=config.base.network.image_size)
    return to_its_end(lambda: train_ensemble(config, origin.images, origin.labels, tiny_test(origin), context, **given))


def one_by_one(config: EnsembleConfig, folder: Path, each: int = 7, **given: Any) -> dict[int, TrainedModel]:
    origin = tiny_origin(each=each, size=config.base.network.image_size)
    return {
        seed: train(config.member(seed), origin.images, origin.labels, tiny_test(origin), FakeContext(folder), **given)
        for seed in config.seeds
    }


def assert_agree(together: TrainedEnsemble, separate: dict[int, TrainedModel], tolerance: float = 2e-4) -> None:
    assert together.models.keys() == separate.keys()
    for seed, model in together.models.items():
        other = separate[seed]
        assert model.state.keys() == other.state.keys()
        for name, tensor in model.state.items():
            torch.testing.assert_close(tensor, other.state[name], atol=tolerance, rtol=tolerance)
        ours, theirs = model.outputs["test"], other.outputs["test"]
        torch.testing.assert_close(ours.logits, theirs.logits, atol=10 * tolerance, rtol=10 * tolerance)
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.ids, theirs.ids)
        assert model.info.keys() == other.info.keys()
        for name in ("optimiser_steps", "trained_lr", "epochs", "train_images", "num_parameters"):
            assert model.info[name] == other.info[name]
        assert model.info["train_loss"] == pytest.approx(other.info["train_loss"], abs=10 * tolerance)
        places = [[(point["epoch"], point["steps"]) for point in each.info["curve"]] for each in (model, other)]
        assert places[0] == places[1]
