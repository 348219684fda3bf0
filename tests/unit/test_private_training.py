"""DP-SGD: the gradient of a step against a loop over its images, and what a training with noise promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from support import FakeContext, folder_bytes, recipe, tiny_network, tiny_origin, tiny_test, to_its_end, train_config
from torch import Tensor

from trainables.configs import OriginConfig, RecipeConfig, TrainConfig
from trainables.data import augment
from trainables.guarantee import PRIVATE, Guarantee, epsilon_of
from trainables.models.network import Network, build
from trainables.optimise import GradientNoise, batch_gradient, private_gradient
from trainables.payloads import TrainedModel
from trainables.protocols import PROTOCOLS
from trainables.train import train


def noise(clip: float = 1.0, sigma: float = 0.0, rate: float = 0.5, expected: float = 18.0) -> GradientNoise:
    return GradientNoise(Guarantee(epsilon=1, delta=1e-5, noise=sigma, clip=clip, rate=rate, rounds=1), expected)


def step(network: Network, images: Tensor, labels: Tensor, given: GradientNoise, seed: int = 0) -> list[Tensor]:
    """The gradient of a step, tensor by tensor."""
    network.zero_grad()
    private_gradient(network, images, labels, given, torch.Generator().manual_seed(seed))
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([each.square().sum() for each in tensors]).sum().sqrt())


def one_by_one(network: Network, images: Tensor, labels: Tensor, clip: float, expected: float) -> list[Tensor]:
    """The sum of the specification, an image at a time."""
    total = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for index in range(len(images)):
        network.zero_grad()
        batch_gradient(network, images[index : index + 1], labels[index : index + 1])
        own = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
        for sums, each in zip(total, own, strict=True):
            sums += min(1.0, clip / (norm(own) + 1e-6)) * each / expected
    return total


@pytest.mark.parametrize("norm_layer", ["instance", "group", "layer", "none"])
@pytest.mark.parametrize("clip", [0.3, 1.0, 1e6])
def test_a_step_is_the_sum_of_shortened_gradients(norm_layer: str, clip: float) -> None:
    origin = tiny_origin(each=30)  # more images than are held at once
    network = build(tiny_network(norm=norm_layer), 0)
    got = step(network, origin.images, origin.labels, noise(clip))
    expected = one_by_one(network, origin.images, origin.labels, clip, 18.0)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    if clip == 1e6:  # nothing is shortened: the gradient of the mean, but for the number of images
        network.zero_grad()
        batch_gradient(network, origin.images, origin.labels)
        for one, parameter in zip(got, network.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(one * 18.0 / 90, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [0.05, 0.7])
def test_one_image_more_changes_the_sum_by_no_more_than_clip(clip: float) -> None:
    origin = tiny_origin()
    network = build(tiny_network(), 0)
    whole = step(network, origin.images, origin.labels, noise(clip, expected=1.0))
    for left_out in (0, 17, 35):
        kept = [index for index in range(36) if index != left_out]
        other = step(network, origin.images[kept], origin.labels[kept], noise(clip, expected=1.0))
        assert norm([one - two for one, two in zip(whole, other, strict=True)]) <= clip * (1 + 1e-4)


def test_a_step_without_images_is_noise_alone() -> None:
    network = build(tiny_network(width=32), 0)
    nothing = torch.zeros(0, 1, 8, 8)
    drawn = step(network, nothing, torch.zeros(0, dtype=torch.int64), noise(0.5, sigma=3.0, expected=2.0))
    numbers = torch.cat([each.flatten() for each in drawn])
    assert float(numbers.std()) == pytest.approx(3.0 * 0.5 / 2.0, rel=0.05)
    assert float(numbers.mean()) == pytest.approx(0.0, abs=0.05)


def test_noise_is_added_to_what_there_is_without_it() -> None:
    """And it is that of the generator alone, whatever the images."""
    origin = tiny_origin()
    network = build(tiny_network(), 0)
    some = [
        [
            noisy - bare
            for noisy, bare in zip(
                step(network, origin.images[rows], origin.labels[rows], noise(sigma=2.0), seed=4),
                step(network, origin.images[rows], origin.labels[rows], noise()),
                strict=True,
            )
        ]
        for rows in (slice(0, 5), slice(5, 30))
    ]
    for one, other in zip(*some, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert norm(some[0]) > 0


def test_each_image_has_an_augmentation_of_its_own_before_its_gradient_is_shortened() -> None:
    origin = tiny_origin()
    network = build(tiny_network(), 0)
    generator = torch.Generator().manual_seed(3)
    params = augment.sample(augment.strategy_for(False), 36, shared=False, generator=generator)
    network.zero_grad()
    private_gradient(network, origin.images, origin.labels, noise(0.3), torch.Generator(), params=params)
    got = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    expected = one_by_one(network, augment.apply(origin.images, params), origin.labels, 0.3, 18.0)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_coins_choose_each_image_as_often_as_the_rate_says() -> None:
    coins = torch.Generator().manual_seed(0)
    chosen = [noise(rate=0.2).rows(50, coins) for _ in range(2000)]
    counts = torch.bincount(torch.cat(chosen), minlength=50)
    assert (counts.double() / 2000 - 0.2).abs().max() < 0.04  # 4.5 standard deviations
    sizes = torch.tensor([len(rows) for rows in chosen], dtype=torch.double)
    assert float(sizes.var()) == pytest.approx(50 * 0.2 * 0.8, rel=0.15), "independent: sizes of batches vary"


# --- a training -------------------------------------------------------------------------------------------------------


def private_recipe(epsilon: float = 8.0, **other: object) -> RecipeConfig:
    values: dict[str, object] = {"private": {"epsilon": epsilon, "delta": 1e-3, "clip": 1.0}, "weight_decay": 0.0}
    return recipe(**{**values, **other})


def private_config(given: RecipeConfig, **other: object) -> TrainConfig:
    return train_config(given, on_origin=True, **other)


def trained(config: TrainConfig, context: FakeContext, each: int = 12) -> TrainedModel:
    origin = tiny_origin(each=each)
    return to_its_end(lambda: train(config, origin.images, origin.labels, tiny_test(origin), context))


def test_what_a_training_states(tmp_path: Path) -> None:
    model = trained(private_config(private_recipe(epochs=4, batch=9)), FakeContext(tmp_path))
    stated = model.info[PRIVATE]
    assert model.info["optimiser_steps"] == stated["rounds"] == 16
    assert (stated["rate"], stated["delta"], stated["clip"]) == (9 / 36, 1e-3, 1.0)
    assert stated["epsilon"] <= 8.0
    assert stated["epsilon"] == epsilon_of(stated["noise"], delta=1e-3, rate=0.25, rounds=16)


def test_an_origin_chosen_by_coins_counts_as_large_as_it_was_to_be(tmp_path: Path) -> None:
    """How many images the coins kept tells of them."""
    origin = OriginConfig(kind="coin", per_class=20, draw=0, row=0, classes=(0, 1, 2))
    model = trained(private_config(private_recipe(batch=6), origin=origin), FakeContext(tmp_path))
    assert model.info[PRIVATE]["rate"] == 6 / 60


def test_interruptions_leave_no_trace_and_seeds_differ_in_noise(tmp_path: Path) -> None:
    def saved(name: str, seed: int = 0, **given: int) -> dict[str, bytes]:
        config = private_config(private_recipe(epochs=3), seed=seed)
        (tmp_path / name).mkdir()
        trained(config, FakeContext(tmp_path / f"{name}-scratch", **given)).save(tmp_path / name)
        return folder_bytes(tmp_path / name)

    whole = saved("whole")
    assert saved("parts", stop_after=2) == whole
    assert saved("other", seed=1)["model.safetensors"] != whole["model.safetensors"]


def test_less_noise_learns_what_can_be_learned(tmp_path: Path) -> None:
    shares = [
        trained(private_config(private_recipe(epsilon, epochs=40)), FakeContext(tmp_path / f"{epsilon}")).info[
            "train_acc"
        ]
        for epsilon in (0.05, 1000.0)
    ]
    assert shares[1] >= 0.9
    assert shares[0] < shares[1]


def test_batch_norm_is_refused(tmp_path: Path) -> None:
    config = private_config(private_recipe(), network=tiny_network(norm="batch"))
    with pytest.raises(ValueError, match="an image changes what batch norm makes of all others"):
        trained(config, FakeContext(tmp_path))


def test_what_cannot_be_private_is_no_recipe() -> None:
    with pytest.raises(ValueError, match="a mixed image tells of two"):
        private_recipe(cutmix=0.5)
    with pytest.raises(ValueError, match="a mixed image tells of two"):
        private_recipe(mixup=0.2)
    with pytest.raises(ValueError, match="noise is drawn for one network"):
        private_recipe(ensemble=True)
    with pytest.raises(ValueError, match="those of a set are made of others"):
        train_config(private_recipe())


def test_recipes_without_noise_have_the_keys_they_had() -> None:
    for name, protocol in PROTOCOLS.items():
        assert ("private" in protocol.recipe.key_material()) == name.startswith("dpsgd")
