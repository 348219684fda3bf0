"""NCFM against its formula, and what its optimiser, its networks and its rate promise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import FakeContext, dataset_config, distil, distill_config, losses, tiny_experts, tiny_network, tiny_origin
from torch import Tensor

from trainables.configs import ExpertConfig, OriginConfig
from trainables.distill import ncfm
from trainables.distill.context import DistillContext
from trainables.experts import flat_parameters, train_expert
from trainables.methods import NCFMSettings
from trainables.optimise import drops
from trainables.payloads import Expert


def embedded(count: int, seed: int, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, size, dtype=torch.float64, generator=generator)


def phi(points: Tensor, frequencies: Tensor) -> Any:
    """The definition, with complex numbers."""
    unit = points / points.norm(dim=1, keepdim=True)
    return np.exp(1j * (unit @ frequencies.T).numpy()).mean(0)


def test_the_distance_is_that_of_complex_numbers() -> None:
    """At equal weights of sizes and phases it is 300 / sqrt(2) times the mean distance."""
    real, own, frequencies = embedded(9, 0), embedded(4, 1), embedded(50, 2)
    expected = 300 * np.abs(phi(real, frequencies) - phi(own, frequencies)).mean() / math.sqrt(2)
    assert float(ncfm.characteristic_distance(real, own, frequencies)) == pytest.approx(expected, rel=1e-12)


def test_a_set_is_at_the_floor_from_itself_and_nothing_is_beyond_the_bound() -> None:
    points, frequencies = embedded(7, 3), embedded(40, 4)
    assert float(ncfm.characteristic_distance(points, points, frequencies)) == pytest.approx(300 * math.sqrt(5e-13))
    opposite = ncfm.characteristic_distance(points[:1], -points[:1], 40 * frequencies)
    assert 100 < float(opposite) <= 300 * math.sqrt(2)
    nothing = ncfm.characteristic_distance(points, embedded(3, 5), torch.zeros(1, 6, dtype=torch.float64))
    assert float(nothing) == pytest.approx(300 * math.sqrt(5e-13)), "at t = 0 all sets are alike"


def test_its_gradient_is_that_of_finite_differences() -> None:
    real, own, frequencies = embedded(5, 6), embedded(3, 7).requires_grad_(), embedded(20, 8)
    assert torch.autograd.gradcheck(lambda each: ncfm.characteristic_distance(real, each, frequencies), (own,))


def test_lengths_of_embeddings_make_no_difference() -> None:
    real, own, frequencies = embedded(5, 9), embedded(3, 10), embedded(20, 11)
    once, twice = (ncfm.characteristic_distance(real, factor * own, frequencies) for factor in (1.0, 7.0))
    assert float(once) == pytest.approx(float(twice), rel=1e-12)


# --- what is learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_every_turn_moves_the_images_of_all_classes(optimiser: Any) -> None:
    """One optimiser over all of them: stale moments, and decay that shrinks pixels."""
    settings = NCFMSettings(optimiser=optimiser, lr_img=0.1, weight_decay_img=0.2)
    start = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    learned, leaf = ncfm.Learned(start, settings), start.clone().requires_grad_()
    other: torch.optim.Optimizer = (
        torch.optim.AdamW([leaf], lr=0.1, weight_decay=0.2)
        if optimiser == "adamw"
        else torch.optim.SGD([leaf], lr=0.1, momentum=0.5)
    )
    for rows in (slice(0, 2), slice(2, 4), slice(0, 2)):
        learned.step(learned.images[rows].square().sum())
        other.zero_grad()
        leaf[rows].square().sum().backward()
        other.step()
    torch.testing.assert_close(learned.images, leaf, rtol=0, atol=0)
    assert not torch.equal(learned.images[2:].detach(), start[2:])


def test_the_rate_is_halved_as_pytorchs_scheduler_does_it() -> None:
    learned = ncfm.Learned(torch.rand(2, 1, 2, 2), NCFMSettings(patience=3, lr_img=1.0))
    leaf = torch.zeros(1, requires_grad=True)
    other = torch.optim.SGD([leaf], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(other, factor=0.5, patience=3)
    random = np.random.default_rng(0)
    for step in range(120):
        loss = math.exp(-step / 10) + 0.3 * float(random.random())
        learned.judge(loss)
        scheduler.step(loss)
        assert learned.rate == other.param_groups[0]["lr"]
    assert learned.rate < 0.1


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_checkpoint_holds_all_that_decides_the_next_step(optimiser: Any, tmp_path: Path) -> None:
    settings = NCFMSettings(optimiser=optimiser, patience=1)
    whole = ncfm.Learned(torch.rand(2, 1, 3, 3), settings)

    def move(learned: ncfm.Learned, count: int) -> None:
        for _ in range(count):
            learned.step(learned.images.square().sum())
            learned.judge(1.0)

    move(whole, 3)
    whole.save(tmp_path)
    again = ncfm.Learned(torch.zeros(2, 1, 3, 3), settings)
    again.load(tmp_path)
    move(whole, 4)
    move(again, 4)
    assert torch.equal(again.images, whole.images)
    assert again.rate == whole.rate < settings.lr_img


def test_images_stay_within_black_and_white(tmp_path: Path) -> None:
    made = distil(distill_config("ncfm", lr_img=0.5, init="noise"), FakeContext(tmp_path))
    assert float(made.images.min()) == 0
    assert float(made.images.max()) == 1


def test_the_loss_falls_on_the_same_frequencies(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    distil(distill_config("ncfm", init="noise", iterations=60, lr_img=0.02, frequencies=64, calibration=0.0), context)
    found = losses(context)
    assert sum(found[-10:]) < 0.8 * sum(found[:10])


def test_calibration_moves_images_to_what_a_trained_network_takes_them_for(tmp_path: Path) -> None:
    def agreement(calibration: float) -> float:
        config = distill_config(
            "ncfm", init="noise", iterations=20, lr_img=0.05, calibration=calibration, frequencies=8
        )
        folder = tmp_path / f"{calibration}"
        made = distil(config, FakeContext(folder))
        expert = Expert.load(next(iter(tiny_experts(config, folder / "experts").values())))
        network = _network(expert)
        with torch.no_grad():
            logits = network((made.images - 0.4) / 0.3)
        return float(torch.nn.functional.cross_entropy(logits, made.labels.classes))

    assert agreement(100.0) < 0.5 * agreement(0.0)


def _network(expert: Expert) -> Any:
    from trainables.models.network import build

    made = build(tiny_network(), "any")
    torch.nn.utils.vector_to_parameters(expert.snapshots[-1], made.parameters())
    return made


# --- networks ---------------------------------------------------------------------------------------------------------


def test_an_iteration_takes_a_network_between_two_ends(tmp_path: Path) -> None:
    config = distill_config("ncfm")
    inputs = tiny_experts(config, tmp_path)
    settings = NCFMSettings.model_validate(config.settings)
    pairs = ncfm.Pairs(settings, DistillContext(config, FakeContext(tmp_path), inputs))
    ends = [Expert.load(folder).snapshots for folder in inputs.values()]
    shares, taken = [], set()
    for iteration in range(30):
        between, trained = (flat_parameters(network) for network in pairs.at(iteration))
        (which,) = [number for number, (_, last) in enumerate(ends) if torch.equal(last, trained)]
        first, last = ends[which][0], ends[which][-1]
        at = (between - last) @ (first - last) / (first - last).square().sum()
        torch.testing.assert_close(between, at * first + (1 - at) * last, rtol=1e-4, atol=1e-5)
        shares.append(float(at))
        taken.add(which)
    assert taken == {0, 1}
    assert 0 <= min(shares) < 0.2
    assert 0.8 < max(shares) <= 1


def expert(**other: Any) -> ExpertConfig:
    values: dict[str, Any] = {
        "dataset": dataset_config(flip=False),
        "origin": OriginConfig(classes=(0, 1, 2)),
        "network": tiny_network(),
        "index": 0,
        "snapshots": 1,
        "lr": 0.05,
        "batch": 6,
        "augmentation": None,
    }
    return ExpertConfig(**{**values, **other})


def test_networks_are_trained_for_so_many_epochs_and_their_rate_drops(tmp_path: Path) -> None:
    """And with nothing of it they have the keys and the bytes of MTT's experts."""
    settings = NCFMSettings(num_networks=2, epochs_net=30)
    config = distill_config("ncfm")
    made = settings.experts(config.dataset, config.origin, config.network, "dsa")  # type: ignore[arg-type]
    assert [each.steps_between(10) for each in made] == [300, 300]
    assert (made[0].milestones, made[0].gamma, made[0].cutmix) == ((2 / 3, 5 / 6), 0.2, 0.5)
    assert made[0].operations == "color_crop"
    trained = [
        train_expert(expert(snapshot_epochs=20, **given), tiny_origin(), FakeContext(tmp_path / str(number)))
        for number, given in enumerate(({}, {"milestones": (0.5,), "gamma": 1e-9}, {"cutmix": 1.0}))
    ]
    assert [each.info["steps"] for each in trained] == [[0, 120]] * 3
    plain, dropped, mixed = (each.snapshots[-1] for each in trained)
    half = train_expert(expert(snapshot_steps=60), tiny_origin(), FakeContext(tmp_path / "half")).snapshots[-1]
    torch.testing.assert_close(dropped, half, rtol=0, atol=1e-6)
    assert not torch.equal(plain, mixed)
    assert "snapshot_epochs" not in expert().key_json
    assert "milestones" not in expert().key_json


def test_drops() -> None:
    assert [drops(step, 300, (2 / 3, 5 / 6), 0.2) for step in (0, 199, 200, 249, 250)] == pytest.approx(
        [1, 1, 0.2, 0.2, 0.04]
    )


def test_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="no statistics of a batch norm"):
        NCFMSettings(norm="batch")
