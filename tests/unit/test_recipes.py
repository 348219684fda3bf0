"""What a recipe may say beyond stochastic gradient descent in steps: AdamW, cosines, warm-up, Mixup (methods2.md 2)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ensembles import assert_agree, ensemble_config, one_by_one
from ensembles import trained as trained_together
from pydantic import ValidationError
from scipy import stats
from support import FakeContext, folder_bytes, recipe, tiny_network, tiny_origin, tiny_test, to_its_end, train_config
from torch import nn

from trainables.configs import RecipeConfig
from trainables.data import augment
from trainables.models.network import build
from trainables.optimise import Learner, Mix, batch_gradient, mixed
from trainables.payloads import TrainedModel
from trainables.protocols import PROTOCOLS
from trainables.train import learning_rate, rate_learned_for, train

ADAM = {"optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.01}


def rates(chosen: RecipeConfig, per_epoch: int, steps: int) -> list[float]:
    return [learning_rate(chosen, step, per_epoch) for step in range(steps)]


# --- learning rates ---------------------------------------------------------------------------------------------------


def test_a_cosine_falls_to_nothing_and_half_a_cosine_to_a_half() -> None:
    whole = rates(recipe(epochs=300, lr=0.001, schedule="cosine", milestones=()), 1, 300)
    half = rates(recipe(epochs=300, lr=0.001, schedule="half_cosine", milestones=()), 1, 300)
    assert whole == pytest.approx([0.0005 * (1 + math.cos(math.pi * epoch / 300)) for epoch in range(300)])
    assert half == pytest.approx([0.0005 * (1 + math.cos(math.pi * epoch / 600)) for epoch in range(300)])
    assert whole[0] == half[0] == 0.001
    assert whole[-1] < 1e-7
    assert half[-1] / 0.001 == pytest.approx(0.503, abs=5e-4), "methods2.md 2, calculated there"


def test_a_cosine_stays_for_an_epoch() -> None:
    found = rates(recipe(epochs=4, schedule="cosine", milestones=()), 3, 12)
    assert [step for step in range(1, 12) if found[step] != found[step - 1]] == [3, 6, 9]
    in_steps = rates(recipe(epochs=None, steps=12, schedule="cosine", milestones=()), 3, 12)
    assert len(set(in_steps)) == 12


def test_a_warm_up_rises_in_equal_parts_and_ends_in_the_schedule() -> None:
    plain = rates(recipe(epochs=10, lr=0.2), 1, 10)
    warm = rates(recipe(epochs=10, lr=0.2, warmup=4), 1, 10)
    assert warm[:4] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert warm[3:] == plain[3:]


def test_ncfm_halves_at_each_fifth() -> None:
    found = rates(PROTOCOLS["ncfm"].recipe, 1, 2000)
    assert [step for step in range(1, 2000) if found[step] != found[step - 1]] == [400, 800, 1200, 1600]
    assert found[-1] == pytest.approx(1e-3 / 16)


# --- AdamW ------------------------------------------------------------------------------------------------------------


def steps_of(optimiser: torch.optim.Optimizer, network: nn.Module, count: int = 5) -> list[torch.Tensor]:
    """Parameters after some steps on the same images."""
    origin = tiny_origin()
    for _ in range(count):
        optimiser.zero_grad()
        batch_gradient(network, origin.images, origin.labels)  # type: ignore[arg-type]
        optimiser.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_without_decay_it_is_adam() -> None:
    ours = Learner.of(build(tiny_network(), 0), lr=1e-3, momentum=0.9, weight_decay=0.0, optimiser="adamw")
    plain = build(tiny_network(), 0)
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3, betas=(0.9, 0.999))
    for one, other in zip(steps_of(ours.optimiser, ours.network), steps_of(adam, plain), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_decay_is_beside_the_step() -> None:
    """theta <- (1 - lr wd) theta - lr m / (sqrt(v) + eps), written out."""
    network, plain = (build(tiny_network(norm="none"), 0) for _ in range(2))  # behind norms biases follow rounding
    ours = Learner.of(network, lr=0.01, momentum=0.8, weight_decay=0.1, optimiser="adamw")
    origin = tiny_origin()
    means = [torch.zeros_like(each) for each in plain.parameters()]
    squares = [torch.zeros_like(each) for each in plain.parameters()]
    for step in range(1, 4):
        plain.zero_grad()
        batch_gradient(plain, origin.images, origin.labels)
        with torch.no_grad():
            for parameter, mean, square in zip(plain.parameters(), means, squares, strict=True):
                assert parameter.grad is not None
                mean.mul_(0.8).add_(0.2 * parameter.grad)
                square.mul_(0.999).add_(0.001 * parameter.grad**2)
                parameter *= 1 - 0.01 * 0.1
                parameter -= 0.01 * (mean / (1 - 0.8**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    for one, other in zip(steps_of(ours.optimiser, network, 3), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_matrices_decay_and_vectors_do_not(optimiser: Any) -> None:
    """With gradients of nothing only decay moves a parameter."""
    network = build(tiny_network(), 0)
    learner = Learner.of(network, lr=0.1, momentum=0.9, weight_decay=0.5, optimiser=optimiser, decay_on="matrices")
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
    learner.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.endswith("weight") and before[name].ndim > 1}
    assert {"classifier.bias", "features.1.weight"}.isdisjoint(moved), "biases and scales of norms"


def test_a_rate_that_was_learned_for_gradient_descent_is_not_for_adamw() -> None:
    info = {"learned_lr": 0.02, "network": tiny_network().model_dump(mode="json")}
    assert rate_learned_for(train_config(recipe()), info) == 0.02
    assert rate_learned_for(train_config(recipe(**ADAM)), info) is None
    assert rate_learned_for(train_config(recipe(**ADAM, learned_lr="always")), info) is None


# --- Mixup ------------------------------------------------------------------------------------------------------------


def test_the_share_is_drawn_from_beta() -> None:
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.3, 0.8, 4.0):
        kept = [augment.mixup(images, labels, alpha, generator)[2] for _ in range(2000)]
        assert stats.kstest(kept, stats.beta(alpha, alpha).cdf).pvalue > 1e-3, alpha


def test_images_and_labels_are_mixed_in_that_share() -> None:
    images, labels = torch.rand(5, 3, 4, 4), torch.arange(5)
    found, partners, kept = augment.mixup(images, labels, 0.8, torch.Generator().manual_seed(4))
    assert sorted(partners.tolist()) == list(range(5))
    torch.testing.assert_close(found, kept * images + (1 - kept) * images[partners])


def test_a_share_of_one_is_the_batch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.special.betaincinv", lambda *_: 1.0)
    images, labels = torch.rand(5, 3, 4, 4), torch.arange(5)
    found, _, kept = mixed(images, labels, Mix(0.0, 1.0, torch.Generator()))
    assert kept == 1.0
    torch.testing.assert_close(found, images, rtol=0, atol=0)


def test_the_loss_of_a_mixed_batch_is_the_mixture_of_losses() -> None:
    origin, network = tiny_origin(), build(tiny_network(), 0)
    loss = batch_gradient(network, origin.images, origin.labels, mix=Mix(0.0, 0.8, torch.Generator().manual_seed(1)))
    images, partners, kept = augment.mixup(origin.images, origin.labels, 0.8, torch.Generator().manual_seed(1))
    logits = network(images)
    expected = kept * nn.functional.cross_entropy(logits, origin.labels)
    expected += (1 - kept) * nn.functional.cross_entropy(logits, partners)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


# --- trainings --------------------------------------------------------------------------------------------------------

NEW: list[dict[str, Any]] = [
    ADAM,
    {**ADAM, "decay_on": "matrices", "schedule": "half_cosine", "milestones": (), "cutmix": 1.0},
    {"schedule": "cosine", "milestones": (), "mixup": 0.8},
    {"warmup": 5, "decay_on": "matrices"},
]


@pytest.mark.parametrize("said", NEW)
def test_members_of_an_ensemble_are_what_they_are_alone(tmp_path: Path, said: dict[str, Any]) -> None:
    config = ensemble_config(recipe(epochs=3, augmentation="dsa", **said), network=tiny_network(norm="none"))
    assert_agree(trained_together(config, FakeContext(tmp_path)), one_by_one(config, tmp_path), tolerance=1e-3)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("said", NEW)
def test_so_is_what_they_say_behind_norms(tmp_path: Path, norm: Any, said: dict[str, Any]) -> None:
    """AdamW moves a bias before a norm by rounding, as far as any other parameter; the norm takes it out again."""
    config = ensemble_config(recipe(epochs=3, augmentation="dsa", **said), network=tiny_network(norm=norm))
    together, alone = trained_together(config, FakeContext(tmp_path)), one_by_one(config, tmp_path)
    for seed, model in together.models.items():
        torch.testing.assert_close(
            model.outputs["test"].logits, alone[seed].outputs["test"].logits, atol=2e-2, rtol=2e-2
        )


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("said", NEW)
def test_interruptions_leave_no_trace(tmp_path: Path, said: dict[str, Any], together: bool) -> None:
    chosen = recipe(epochs=3, augmentation="dsa", **said)

    def saved(name: str, context: FakeContext) -> dict[str, bytes]:
        origin = tiny_origin(each=7)
        model: Any = (
            trained_together(ensemble_config(chosen), context)
            if together
            else to_its_end(
                lambda: train(train_config(chosen), origin.images, origin.labels, tiny_test(origin), context)
            )
        )
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
        return folder_bytes(tmp_path / name)

    whole = saved("whole", FakeContext(tmp_path / "a"))
    for stop_after in (1, 4):
        assert saved(f"parts{stop_after}", FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)) == whole


def test_adamw_learns(tmp_path: Path) -> None:
    origin = tiny_origin(each=7)
    config = train_config(recipe(**{**ADAM, "lr": 0.01}, epochs=40))
    model: TrainedModel = train(config, origin.images, origin.labels, tiny_test(origin), FakeContext(tmp_path))
    assert model.info["train_acc"] >= 0.95


# --- what a recipe may say --------------------------------------------------------------------------------------------


def test_recipes_without_the_new_fields_have_the_keys_they_had() -> None:
    said = recipe().key_material()
    assert {"optimiser", "decay_on", "schedule", "warmup", "mixup", "crop_area"}.isdisjoint(said)
    others = {"optimiser": "adamw", "decay_on": "matrices", "warmup": 3, "mixup": 0.2, "crop_area": 0.5}
    for field, value in others.items():
        assert recipe(**{field: value}).key_material() == {**said, field: value}, "the control"


@pytest.mark.parametrize(
    "said, told",
    [
        ({"schedule": "cosine"}, "schedule cosine has no milestones; give milestones: [] beside it"),
        ({"mixup": 0.8, "cutmix": 0.5}, "mixup and cutmix both mix a batch; set one of them to 0"),
        ({"optimiser": "adam"}, "Input should be 'sgd' or 'adamw'"),
        ({"mixup": -1}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_go_together_is_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told.split(";")[0]) as refused:
        recipe(**said)
    assert told in str(refused.value)


def test_what_others_train_like_is_what_methods2_says() -> None:
    ncfm, datadam, datm, qin, rded = (PROTOCOLS[name].recipe for name in ("ncfm", "datadam", "datm", "qin", "rded"))
    assert (rded.epochs, rded.optimiser, rded.lr, rded.weight_decay, rded.batch) == (300, "adamw", 1e-3, 0.01, 50)
    assert (rded.decay_on, rded.cutmix, rded.label_loss, rded.temperature) == ("matrices", 1.0, "kl", 20.0)
    assert (rded.augmentation, rded.crop_area, rded.scaled) == ("rrc_flip", 1.0, False), "the whole image: factor 1"
    assert rates(rded, 1, 300)[299] == pytest.approx(0.503 * 1e-3, rel=1e-3)
    assert (ncfm.epochs, ncfm.optimiser, ncfm.lr, ncfm.weight_decay, ncfm.batch) == (2000, "adamw", 1e-3, 0.01, 128)
    assert (ncfm.decay_on, ncfm.cutmix, ncfm.augmentation) == ("all", 0.5, "idc")
    assert (datadam.epochs, datadam.batch, datadam.augmentation) == (1800, 64, "dsa")
    assert (datm.batch, datm.label_loss, datm.temperature) == (128, "soft_ce", 1.0)
    assert rates(qin, 1, 3000)[2999] == pytest.approx(0.01 * 0.3**3)
    assert np.isclose(qin.lr, 0.01)
