"""Networks trained together are those that are trained one by one, to rounding, with fewer calls to the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ensembles import SEEDS, assert_agree, ensemble_config, one_by_one, trained
from support import (
    FakeContext,
    dataset_config,
    dispatches,
    folder_bytes,
    recipe,
    tiny_network,
    tiny_origin,
    tiny_test,
    train_config,
)
from torch.nn import functional as F

from trainables.configs import EnsembleConfig, NetworkConfig
from trainables.context import StageFailure
from trainables.data.pixels import Whitening
from trainables.models.network import build
from trainables.models.packed import member_states, pack
from trainables.networks import parse
from trainables.optimise import CHUNK
from trainables.payloads import TrainedEnsemble
from trainables.train import train, train_ensemble


def saved_bytes(folder: Path, models: TrainedEnsemble) -> dict[str, bytes]:
    folder.mkdir()
    models.save(folder)
    return folder_bytes(folder)


# --- packed networks ----------------------------------------------------------------------------------------------

NETWORKS = {
    "convnet3-w4": 8,
    "convnet3-w4-batch": 8,
    "convnet3-w4-group": 8,
    "convnet3-w4-layer": 8,
    "convnet3-w4-none": 8,
    "convnet3-d1-w4": 32,
    "resnet18-w4": 8,
    "resnet18-w4-instance": 16,
    "vgg16-w4": 32,
    "vgg16-w4-group": 32,
}
"""Every kind of layer, and maps on both sides of the size from which instance norm takes PyTorch's kernel."""


def networks(name: str, size: int, channels: int = 3) -> tuple[NetworkConfig, list[Any]]:
    config = NetworkConfig.of(parse(name), image_size=size, channels=channels, num_classes=3)
    return config, [build(config, "train", "network", seed) for seed in SEEDS]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_packed_network_is_its_members(name: str) -> None:
    """Logits, gradients and running statistics, each of its own images."""
    size = NETWORKS[name]
    _, members = networks(name, size)
    packed = pack(members)
    images = torch.randn(3, 4, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    logits = packed(images.transpose(0, 1).flatten(1, 2))
    assert logits.shape == (3, 4, 3)
    F.cross_entropy(logits.flatten(0, 1), labels.repeat(3), reduction="sum").backward()
    gradients = dict(packed.named_parameters())
    for index, (member, state) in enumerate(zip(members, member_states(packed, 3), strict=True)):
        expected = member(images[index])
        torch.testing.assert_close(logits[index], expected, atol=2e-4, rtol=2e-4)
        F.cross_entropy(expected, labels, reduction="sum").backward()
        largest = max(float(parameter.grad.abs().max()) for parameter in member.parameters())
        for part, parameter in member.named_parameters():
            assert torch.equal(state[part], parameter), "weights are taken over as they are"
            gradient = gradients[part].grad.chunk(3)[index]
            torch.testing.assert_close(gradient, parameter.grad, atol=2e-3 * largest, rtol=2e-3)
        for part, buffer in member.named_buffers():
            torch.testing.assert_close(state[part], buffer, atol=1e-4, rtol=1e-4)


def test_a_member_that_is_lost_leaves_the_others_alone() -> None:
    _, members = networks("convnet3-w4-batch", 8)
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.fill_(float("nan"))
    packed = pack(members)
    logits = packed(torch.randn(4, 9, 8, 8))
    logits.sum().backward()
    assert [bool(each.isfinite().all()) for each in logits] == [True, False, True]
    finite = [[bool(part.isfinite().all()) for part in each.grad.chunk(3)] for each in packed.parameters()]
    assert all(first and last for first, _, last in finite)
    assert not all(lost for _, lost, _ in finite)


def test_packing_leaves_the_networks_as_they_were() -> None:
    _, members = networks("resnet18-w4", 8)
    before = [{name: tensor.clone() for name, tensor in member.state_dict().items()} for member in members]
    pack(members)(torch.randn(4, 9, 8, 8))
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in member.state_dict().items())


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation, cutmix", [("none", 0.0), ("none", 1.0), ("dsa", 0.0), ("idc", 0.5)])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_members_are_what_they_are_alone(tmp_path: Path, norm: Any, augmentation: Any, cutmix: float) -> None:
    chosen = recipe(epochs=3, augmentation=augmentation, cutmix=cutmix)
    config = ensemble_config(chosen, network=tiny_network(norm=norm), dataset=dataset_config())
    together = trained(config, FakeContext(tmp_path))
    assert_agree(together, one_by_one(config, tmp_path))
    logits = [model.outputs["test"].logits for model in together.models.values()]
    assert all((logits[a] - logits[b]).abs().max() > 0.1 for a, b in ((0, 1), (0, 2), (1, 2))), "not one of each other"


@pytest.mark.parametrize("name, size", [("resnet18-w4", 8), ("vgg16-w4", 32), ("convnet3-w4-layer", 8)])
def test_so_are_those_of_other_networks(tmp_path: Path, name: str, size: int) -> None:
    network = NetworkConfig.of(parse(name), image_size=size, channels=1, num_classes=3)
    chosen = recipe(epochs=2, lr=0.01, augmentation="dsa", batch=4)
    config = ensemble_config(chosen, network=network, dataset=dataset_config(size=size, flip=False))
    # nine images in batches of 4: with batch norm the last joins the batch before
    together, separate = trained(config, FakeContext(tmp_path), 3), one_by_one(config, tmp_path, 3)
    assert_agree(together, separate, tolerance=5e-3)
    assert {model.info["optimiser_steps"] for model in together.models.values()} == {6 if "layer" in name else 4}


def test_members_start_from_the_weights_of_their_seeds(tmp_path: Path) -> None:
    """Exactly: a step at a rate of next to nothing changes nothing but zeros."""
    config = ensemble_config(recipe(epochs=None, steps=1, lr=1e-30, weight_decay=0.0), curve_points=0)
    for seed, model in trained(config, FakeContext(tmp_path)).models.items():
        fresh = build(config.base.network, "train", "network", seed).state_dict()
        for name, tensor in model.state.items():
            torch.testing.assert_close(tensor, fresh[name], atol=1e-20, rtol=0)


def test_the_other_members_do_not_matter(tmp_path: Path) -> None:
    pair = trained(ensemble_config(recipe(augmentation="dsa"), (4, 9)), FakeContext(tmp_path))
    trio = trained(ensemble_config(recipe(augmentation="dsa")), FakeContext(tmp_path))
    assert_agree(TrainedEnsemble({4: pair.models[4]}), {4: trio.models[4]})


def test_a_rate_and_a_whitening_that_come_with_the_set(tmp_path: Path) -> None:
    config = ensemble_config(recipe(epochs=2))
    whitening = Whitening(torch.zeros(64), torch.eye(64))
    given = {"learned_lr": 0.011, "whitening": whitening}
    together = trained(config, FakeContext(tmp_path), **given)
    assert_agree(together, one_by_one(config, tmp_path, **given))
    assert all(model.info["trained_lr"] == 0.011 for model in together.models.values())
    assert all(model.whitening is whitening for model in together.models.values())


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_computing_a_batch_in_parts_changes_nothing(tmp_path: Path, monkeypatch: Any, cutmix: float) -> None:
    config = ensemble_config(recipe(epochs=2, cutmix=cutmix), curve_points=0)
    found = []
    for chunk in (1, 7, 1000):
        monkeypatch.setitem(CHUNK, "cpu", chunk)
        found.append(trained(config, FakeContext(tmp_path / str(chunk))))
    for other in found[1:]:
        assert_agree(found[0], other.models)


@pytest.mark.parametrize("norm, augmentation, cutmix", [("instance", "idc", 0.5), ("batch", "dsa", 0.0)])
def test_interruptions_leave_no_trace(tmp_path: Path, norm: Any, augmentation: Any, cutmix: float) -> None:
    chosen = recipe(epochs=3, augmentation=augmentation, cutmix=cutmix)
    config = ensemble_config(chosen, network=tiny_network(norm=norm))
    whole = saved_bytes(tmp_path / "whole", trained(config, FakeContext(tmp_path / "a")))
    for stop_after in (1, 4):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert saved_bytes(tmp_path / f"parts{stop_after}", trained(config, context)) == whole
        assert context.counted == list(range(9))


@pytest.mark.parametrize("augmentation", ["none", "dsa", "idc"])
def test_a_step_of_three_hands_over_less_than_half_the_operators(tmp_path: Path, augmentation: Any) -> None:
    """Counted over whole trainings less their ends: eight steps more are eight steps."""
    origin = tiny_origin(each=3)
    test = tiny_test(origin)

    def counted(steps: int) -> tuple[int, int]:
        chosen = recipe(epochs=None, steps=steps, augmentation=augmentation, batch=9)
        config = ensemble_config(chosen, curve_points=0, dataset=dataset_config())
        images, labels, context = origin.images, origin.labels, FakeContext(tmp_path)
        together = dispatches(lambda: train_ensemble(config, images, labels, test, context))
        alone = sum(
            dispatches(lambda seed=seed: train(config.member(seed), images, labels, test, context)) for seed in SEEDS
        )
        return together, alone

    (few, few_alone), (more, more_alone) = counted(2), counted(10)
    assert 2 * (more - few) <= more_alone - few_alone


def test_divergence_names_the_seed_and_the_step(tmp_path: Path, monkeypatch: Any) -> None:
    def poisoned(network: NetworkConfig, *parts: Any, **other: Any) -> Any:
        made = build(network, *parts, **other)
        if parts[-1] == SEEDS[1]:
            torch.nn.init.constant_(made.classifier.weight, float("inf"))
        return made

    monkeypatch.setattr("trainables.train.build", poisoned)
    config = ensemble_config(recipe(epochs=None, steps=2))
    with pytest.raises(StageFailure, match=r"ensemble: seed 4: .* not finite in epoch 1 \(step \d\); .* Lower the"):
        trained(config, FakeContext(tmp_path))


def test_batch_norm_of_one_image_is_refused(tmp_path: Path) -> None:
    config = ensemble_config(recipe(batch=1), network=tiny_network(norm="batch"))
    with pytest.raises(ValueError, match=r"got 21 images in batches of 1; expected 2 or more of both"):
        trained(config, FakeContext(tmp_path))


# --- what is handed on --------------------------------------------------------------------------------------------


def test_a_member_is_read_without_the_others(tmp_path: Path) -> None:
    together = trained(ensemble_config(recipe(epochs=1)), FakeContext(tmp_path / "a"))
    whitening = Whitening(torch.zeros(64), torch.eye(64))
    folder = tmp_path / "folder"
    saved = TrainedEnsemble({seed: replace(model, whitening=whitening) for seed, model in together.models.items()})
    names = set(saved_bytes(folder, saved))
    assert len(names) == 3 * 3 + 1, "a whitening may be as large as all models together"
    for name in names:
        if name.startswith(("seed-1.", "seed-5.")):
            (folder / name).unlink()
    member = TrainedEnsemble.load_member(folder, 4)
    assert member.info == together.models[4].info
    assert member.whitening is not None
    assert torch.equal(member.whitening.matrix, whitening.matrix)
    alone = tmp_path / "alone"
    alone.mkdir()
    member.save(alone)
    for name, content in folder_bytes(alone).items():
        assert (folder / (name if name == "zca.safetensors" else f"seed-4.{name}")).read_bytes() == content


@pytest.mark.parametrize("seeds, first", [((2, 1), 2), ((1, 1), 1), ((1, 2), 2)])
def test_seeds_ascend_from_that_of_the_base(seeds: tuple[int, ...], first: int) -> None:
    with pytest.raises(ValueError, match=r"seeds must ascend|base is the first"):
        EnsembleConfig(base=train_config(recipe(), seed=first), seeds=seeds)
    with pytest.raises(ValueError, match="seed 3 is not one of"):
        train_config(recipe(), seed=3, ensemble=(1, 2))
