from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import (
    FakeContext,
    dataset_config,
    folder_bytes,
    recipe,
    tiny_network,
    tiny_origin,
    tiny_test,
    to_its_end,
    train_config,
)

from trainables.configs import NetworkConfig, OriginConfig, RecipeConfig, TrainConfig
from trainables.context import StageFailure
from trainables.networks import parse
from trainables.optimise import CHUNK, batches_per_epoch
from trainables.payloads import TrainedModel
from trainables.protocols import PROTOCOLS
from trainables.train import learning_rate, predict, train


def trained(config: TrainConfig, context: FakeContext, each: int = 7) -> TrainedModel:
    """A training that is started again whenever it is interrupted."""
    origin = tiny_origin(each=each)
    return to_its_end(lambda: train(config, origin.images, origin.labels, tiny_test(origin), context))


def saved_bytes(folder: Path, model: TrainedModel) -> dict[str, bytes]:
    folder.mkdir()
    model.save(folder)
    return folder_bytes(folder)


def test_a_network_learns_classes_that_can_be_told_apart(tmp_path: Path) -> None:
    model = trained(train_config(recipe(epochs=40)), FakeContext(tmp_path))
    assert model.info["train_acc"] >= 0.95
    signals = model.outputs["test"]
    assert (signals.logits.argmax(1) == signals.labels).float().mean() >= 0.9
    assert model.info["train_loss"] < 0.5


def test_what_is_recorded(tmp_path: Path) -> None:
    model = trained(train_config(recipe(epochs=7, batch=8), curve_points=3), FakeContext(tmp_path))
    assert model.info["optimiser_steps"] == 7 * 3  # 21 images in batches of 8, 8 and 5
    assert [point["epoch"] for point in model.info["curve"]] == [3, 5, 7]
    assert [point["steps"] for point in model.info["curve"]] == [9, 15, 21]
    assert model.info["num_parameters"] == sum(tensor.numel() for tensor in model.state.values())
    signals = model.outputs["test"]
    assert signals.logits.shape == (21, 3)
    assert signals.logits.dtype == torch.float32
    assert signals.ids.tolist() == list(range(21))


def test_logits_are_those_of_the_saved_state(tmp_path: Path) -> None:
    from trainables.models.network import build

    model = trained(train_config(recipe()), FakeContext(tmp_path))
    network = build(model.network, "anything")
    network.load_state_dict(model.state)
    torch.testing.assert_close(predict(network, tiny_test(tiny_origin(each=7)).images), model.outputs["test"].logits)


@pytest.mark.parametrize("augmentation, cutmix", [("none", 0.0), ("dsa", 0.0), ("idc", 0.5)])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_interruptions_leave_no_trace(tmp_path: Path, augmentation, cutmix: float, norm) -> None:
    config = train_config(recipe(epochs=3, augmentation=augmentation, cutmix=cutmix), network=tiny_network(norm=norm))
    whole = saved_bytes(tmp_path / "whole", trained(config, FakeContext(tmp_path / "a")))
    for stop_after in (1, 4):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert saved_bytes(tmp_path / f"parts{stop_after}", trained(config, context)) == whole
        assert context.counted == list(range(9))


SMALL_MAPS = {"image_size": 8, "channels": 1, "num_classes": 3}
"""ResNet18's last maps of 8-pixel images are single pixels: batch norm needs two images at least."""


def test_interruptions_leave_no_trace_in_running_statistics(tmp_path: Path) -> None:
    network = NetworkConfig.of(parse("resnet18-w4"), **SMALL_MAPS)  # type: ignore[arg-type]
    config = train_config(recipe(epochs=2, augmentation="dsa"), network=network)
    model = trained(config, FakeContext(tmp_path / "a"))
    counted = [value for name, value in model.state.items() if name.endswith("num_batches_tracked")]
    assert {int(value) for value in counted} == {6}, "two epochs of three batches, and no looks at the test split"
    whole = saved_bytes(tmp_path / "whole", model)
    assert saved_bytes(tmp_path / "parts", trained(config, FakeContext(tmp_path / "b", stop_after=2))) == whole


@given(st.integers(2, 60), st.integers(2, 20), st.booleans())
def test_batches_cover_a_set_and_statistics_get_two_images(images: int, batch: int, statistics: bool) -> None:
    count = batches_per_epoch(images, batch, batch_statistics=statistics)
    last = images - (count - 1) * batch
    assert (2 if statistics else 1) <= last <= batch + statistics
    if not statistics or images % batch != 1:
        assert count == -(-images // batch)


def test_a_single_image_left_over_joins_the_batch_before(tmp_path: Path) -> None:
    origin = tiny_origin(each=3)  # nine images in batches of 4: 4 and 5 with batch norm, 4, 4 and 1 without
    for name, steps in (("resnet18-w4", 2), ("resnet18-w4-group", 3)):
        network = NetworkConfig.of(parse(name), **SMALL_MAPS)  # type: ignore[arg-type]
        config = train_config(recipe(epochs=1, batch=4), network=network, curve_points=1)
        model = train(config, origin.images, origin.labels, tiny_test(origin), FakeContext(tmp_path / name))
        assert model.info["optimiser_steps"] == steps
        assert [point["epoch"] for point in model.info["curve"]] == [1]
        assert all(value.isfinite().all() for value in model.state.values())


def test_batch_norm_of_one_image_is_refused(tmp_path: Path) -> None:
    from trainables.models.network import build

    network = NetworkConfig.of(parse("resnet18-w4"), **SMALL_MAPS)  # type: ignore[arg-type]
    origin = tiny_origin(each=1)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):  # what it keeps people from
        build(network, 0)(origin.images[:1])
    config = train_config(recipe(batch=1), network=network)
    with pytest.raises(ValueError, match=r"got 3 images in batches of 1; expected 2 or more of both\. Raise"):
        train(config, origin.images, origin.labels, tiny_test(origin), FakeContext(tmp_path))


@pytest.mark.parametrize("name, size", [("resnet18-w4", 8), ("vgg16-w4", 32), ("convnet3-w4-batch", 8)])
def test_one_image_of_each_of_two_classes_is_enough(tmp_path: Path, name: str, size: int) -> None:
    origin = tiny_origin(num_classes=2, each=1, size=size)
    config = train_config(
        recipe(epochs=3),
        network=NetworkConfig.of(parse(name), image_size=size, channels=1, num_classes=2),
        dataset=dataset_config(num_classes=2, size=size, flip=False),
        origin=OriginConfig(classes=(0, 1)),
    )
    model = train(config, origin.images, origin.labels, tiny_test(origin), FakeContext(tmp_path))
    assert model.info["optimiser_steps"] == 3
    assert model.outputs["test"].logits.shape == (2, 2)
    assert model.outputs["test"].logits.isfinite().all()


@pytest.mark.parametrize("name, size", [("resnet18-w4", 16), ("vgg16-w8", 32)])
def test_networks_with_batch_norm_learn(tmp_path: Path, name: str, size: int) -> None:
    origin = tiny_origin(each=8, size=size)
    config = train_config(
        recipe(epochs=60, batch=12),
        network=NetworkConfig.of(parse(name), image_size=size, channels=1, num_classes=3),
        dataset=dataset_config(size=size, flip=False),
        curve_points=0,
    )
    model = train(config, origin.images, origin.labels, tiny_test(origin), FakeContext(tmp_path))
    signals = model.outputs["test"]
    assert (signals.logits.argmax(1) == signals.labels).float().mean() >= 0.9, "judged in evaluation mode"


def test_a_recipe_in_steps_ends_after_them(tmp_path: Path) -> None:
    model = trained(train_config(recipe(epochs=None, steps=10), curve_points=2), FakeContext(tmp_path))
    assert model.info["optimiser_steps"] == 10
    assert [point["steps"] for point in model.info["curve"]] == [5, 10]
    equal = trained(train_config(recipe(epochs=None, steps=12), curve_points=0), FakeContext(tmp_path / "steps"))
    epochs = trained(train_config(recipe(epochs=4), curve_points=0), FakeContext(tmp_path / "epochs"))
    for name, tensor in equal.state.items():
        assert torch.equal(tensor, epochs.state[name]), "twelve steps are four epochs of three"


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_computing_a_batch_in_parts_changes_nothing(tmp_path: Path, monkeypatch, norm, cutmix: float) -> None:
    config = train_config(recipe(epochs=2, cutmix=cutmix), network=tiny_network(norm=norm), curve_points=0)
    found = []
    for chunk in (3, 1000):
        monkeypatch.setitem(CHUNK, "cpu", chunk)
        found.append(trained(config, FakeContext(tmp_path / str(chunk))).state)
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-4, rtol=1e-3)


def test_the_seed_decides(tmp_path: Path) -> None:
    first, again, other = (
        trained(train_config(recipe(augmentation="dsa"), seed=seed), FakeContext(tmp_path / str(index)))
        for index, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(first.outputs["test"].logits, again.outputs["test"].logits)
    assert not torch.equal(first.outputs["test"].logits, other.outputs["test"].logits)


def rates(chosen: RecipeConfig, per_epoch: int, steps: int) -> list[float]:
    return [learning_rate(chosen, step, per_epoch) for step in range(steps)]


def test_learning_rates_follow_the_milestones() -> None:
    assert rates(recipe(epochs=4, lr=0.01), 2, 8) == pytest.approx([0.01] * 4 + [0.001] * 4)
    assert rates(recipe(epochs=5, lr=0.01), 1, 5) == pytest.approx([0.01] * 2 + [0.001] * 3)
    idc = PROTOCOLS["idc"].recipe
    found = rates(idc, 1, 1000)
    assert [step for step in range(1, 1000) if found[step] != found[step - 1]] == [666, 833]
    assert sorted(set(found)) == pytest.approx([0.0004, 0.002, 0.01])
    in_steps = recipe(epochs=None, steps=300, milestones=(2 / 3, 5 / 6), gamma=0.2)
    found = rates(in_steps, 7, 300)
    assert [step for step in range(1, 300) if found[step] != found[step - 1]] == [200, 250]


def test_divergence_names_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(StageFailure, match=r"not finite in epoch \d+ .* Lower the recipe's lr"):
        trained(train_config(recipe(lr=1e30, epochs=20), network=tiny_network(norm="none")), FakeContext(tmp_path))


def test_the_momentum_step_is_pytorchs_and_the_batches_cover_every_epoch(tmp_path: Path) -> None:
    """One whole-batch epoch against the update written out by hand."""
    from trainables.models.network import build

    origin = tiny_origin(each=4)
    config = train_config(recipe(epochs=2, batch=100, milestones=()), curve_points=0)
    model = train(config, origin.images, origin.labels, tiny_test(origin), FakeContext(tmp_path))
    network = build(config.network, "train", "network", config.seed).double()
    velocity = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(network(origin.images.double()), origin.labels)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, speed, gradient in zip(network.parameters(), velocity, gradients, strict=True):
                speed.mul_(0.9).add_(gradient + 5e-4 * parameter)
                parameter.sub_(0.05 * speed)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(model.state[name], tensor.float(), atol=1e-4, rtol=1e-3)
