from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, dataset_config, folder_bytes, tiny_network, tiny_origin, to_its_end
from torch import Tensor
from torch.nn import functional as F

from trainables import experts, seeds
from trainables.configs import ExpertConfig, OriginConfig
from trainables.context import StageFailure
from trainables.data import augment, pixels
from trainables.data.origins import Origin
from trainables.experts import train_expert
from trainables.models.network import build
from trainables.payloads import Expert, StoredExpert, load_tensors


def expert_config(index: int = 0, **other: Any) -> ExpertConfig:
    values: dict[str, Any] = {
        "dataset": dataset_config(flip=False),
        "origin": OriginConfig(classes=(0, 1, 2)),
        "network": tiny_network(),
        "snapshots": 3,
        "snapshot_steps": 4,
        "lr": 0.05,
        "batch": 16,
        "augmentation": "dsa",
        **other,
    }
    return ExpertConfig(index=index, **values)


def trained(config: ExpertConfig, context: FakeContext, origin: Origin | None = None) -> Expert:
    """The expert, started again whenever it is interrupted."""
    return to_its_end(lambda: train_expert(config, origin or tiny_origin(), context))


def saved(expert: Expert, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    expert.save(folder)
    return folder_bytes(folder)


@pytest.mark.parametrize("momentum, decay", [(0.0, 0.0), (0.9, 1e-3)])
def test_snapshots_are_those_of_the_training_written_out_by_hand(tmp_path: Path, momentum, decay) -> None:
    origin = tiny_origin()
    config = expert_config(augmentation="none", momentum=momentum, weight_decay=decay)
    expert = train_expert(config, origin, FakeContext(tmp_path))
    network = build(config.network, "expert", 0, "network").double()
    speeds = [torch.zeros_like(weight) for weight in network.parameters()]
    rows = torch.cat([torch.randperm(36, generator=seeds.generator("expert", 0, "order", epoch)) for epoch in range(4)])
    batches = [part for epoch in rows.split(36) for part in epoch.split(16)]
    assert [len(part) for part in batches[:3]] == [16, 16, 4]
    for step in range(13):
        if step % 4 == 0:
            flat = torch.cat([weight.detach().reshape(-1) for _, weight in network.named_parameters()])
            torch.testing.assert_close(expert.snapshots[step // 4], flat.float(), atol=1e-4, rtol=1e-3)
        part = batches[min(step, 11)]
        loss = torch.nn.functional.cross_entropy(network(origin.images[part].double()), origin.labels[part])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for weight, speed, gradient in zip(network.parameters(), speeds, gradients, strict=True):
                speed.mul_(momentum).add_(gradient + decay * weight)
                weight.sub_(config.lr * speed)


def test_no_two_snapshots_are_the_same_memory(tmp_path: Path) -> None:
    """The authors' program keeps references when it trains on a CPU: all snapshots become the last (trap 19)."""
    expert = train_expert(expert_config(), tiny_origin(), FakeContext(tmp_path))
    assert expert.snapshots.shape == (4, sum(torch.Size(shape).numel() for _, shape in expert.parameters))
    off_diagonal = expert.distances[~torch.eye(4, dtype=torch.bool)]
    assert off_diagonal.min() > 1e-4
    first = expert.snapshots[0].double()
    torch.testing.assert_close(expert.distances[0], (expert.snapshots.double() - first).square().sum(1))
    assert torch.equal(expert.distances, expert.distances.T)


def test_rows_are_in_module_order_whatever_the_layout_in_memory(tmp_path: Path) -> None:
    config = expert_config()
    expert = train_expert(config, tiny_origin(), FakeContext(tmp_path))
    network = build(config.network, "expert", 0, "network")
    assert [(name, list(weight.shape)) for name, weight in network.named_parameters()] == expert.parameters
    first_kernel = network.get_parameter("features.0.weight")
    assert torch.equal(expert.snapshots[0, : first_kernel.numel()].view(first_kernel.shape), first_kernel)


def test_train_accuracy_is_of_the_snapshot_without_augmentation(tmp_path: Path) -> None:
    origin, config = tiny_origin(), expert_config(snapshots=6, snapshot_steps=20)
    expert = train_expert(config, origin, FakeContext(tmp_path))
    network, found = build(config.network, "anything"), []
    for row in expert.snapshots:
        torch.nn.utils.vector_to_parameters(row, list(network.parameters()))
        found.append(float((network(origin.images).argmax(1) == origin.labels).double().mean()))
    assert expert.info["train_acc"] == pytest.approx(found)
    assert found[-1] > 0.9 > found[0], "it has learned something"
    assert (expert.info["steps"], expert.info["accuracy_images"]) == ([0, 20, 40, 60, 80, 100, 120], 36)


def test_of_a_large_origin_some_images_of_every_class_are_looked_at(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(experts, "ACCURACY_IMAGES", 10)
    expert = train_expert(expert_config(), tiny_origin(), FakeContext(tmp_path))
    assert expert.info["accuracy_images"] == 9


@pytest.mark.parametrize(
    "each, batch, steps", [(12, 256, 50), (12, 16, 50), (40, 2, 60)], ids=["one batch", "three", "sixty"]
)
def test_snapshots_by_epochs_unless_epochs_are_short(tmp_path: Path, each: int, batch: int, steps: int) -> None:
    config = expert_config(snapshots=2, snapshot_steps=None, batch=batch)
    expert = train_expert(config, tiny_origin(each=each), FakeContext(tmp_path))
    assert expert.info["steps"] == [0, steps, 2 * steps]


@pytest.mark.parametrize("other", [{}, {"momentum": 0.9}, {"network": tiny_network(norm="batch")}, {"zca": True}])
def test_interruptions_leave_no_trace(tmp_path: Path, other: dict[str, Any]) -> None:
    config = expert_config(**other)
    whole = saved(trained(config, FakeContext(tmp_path / "a")), tmp_path / "whole")
    for stop_after in (1, 3, 4, 5):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert saved(trained(config, context), tmp_path / f"parts{stop_after}") == whole
        assert context.counted == list(range(12)), "nothing is computed twice"


def test_the_number_of_the_expert_decides(tmp_path: Path) -> None:
    first, again, other = (
        trained(expert_config(index), FakeContext(tmp_path / str(place))) for place, index in enumerate((1, 1, 2))
    )
    assert torch.equal(first.snapshots, again.snapshots)
    assert not torch.equal(first.snapshots[0], other.snapshots[0])


def test_the_augmentation_can_be_switched_off(tmp_path: Path) -> None:
    with_it, without = (
        trained(expert_config(augmentation=name), FakeContext(tmp_path / name)) for name in ("dsa", "none")
    )
    assert torch.equal(with_it.snapshots[0], without.snapshots[0])
    assert not torch.equal(with_it.snapshots[1], without.snapshots[1])


def test_each_image_has_an_augmentation_of_its_own(tmp_path: Path, monkeypatch) -> None:
    asked = []
    sample = augment.sample
    monkeypatch.setattr(augment, "sample", lambda *args, **named: asked.append((args, named)) or sample(*args, **named))
    train_expert(expert_config(), tiny_origin(), FakeContext(tmp_path))
    assert [args[1] for args, _ in asked[:3]] == [16, 16, 4]
    assert all(not named["shared"] for _, named in asked)
    assert all("flip" not in args[0].order for args, _ in asked), "digits are not mirrored"


def test_whitened_experts_are_experts_of_the_whitened_origin(tmp_path: Path) -> None:
    origin, config = tiny_origin(), expert_config(zca=True)
    mean, std = config.dataset.mean, config.dataset.std
    images = pixels.fit_whitening(origin.images, mean, std).whiten(origin.images, mean, std)
    expected = train_expert(
        expert_config(), Origin(images, origin.labels, origin.indices, origin.by_class), FakeContext(tmp_path / "a")
    )
    assert torch.equal(train_expert(config, origin, FakeContext(tmp_path / "b")).snapshots, expected.snapshots)
    assert torch.equal(origin.images, tiny_origin().images), "the origin is left alone"


def test_divergence_names_epoch_and_step(tmp_path: Path) -> None:
    config = expert_config(3, lr=1e30, network=tiny_network(norm="none"), snapshot_steps=100)
    with pytest.raises(
        StageFailure, match=r"expert 3: .* not finite in epoch 17 \(step 50\).* settings\.mtt\.lr_expert"
    ):
        train_expert(config, tiny_origin(), FakeContext(tmp_path))


def test_one_snapshot_is_read_without_the_others(tmp_path: Path, monkeypatch) -> None:
    expert = train_expert(expert_config(), tiny_origin(), FakeContext(tmp_path / "a"))
    saved(expert, tmp_path / "expert")
    loaded = Expert.load(tmp_path / "expert")
    assert torch.equal(loaded.snapshots, expert.snapshots)
    assert (loaded.parameters, loaded.info) == (expert.parameters, expert.info)
    monkeypatch.setattr("trainables.payloads.load_file", None)  # what reads a whole file
    with pytest.raises(TypeError):
        load_tensors(tmp_path / "expert" / "expert.safetensors")
    stored = StoredExpert(tmp_path / "expert")
    assert (len(stored), stored.parameters, stored.info) == (4, expert.parameters, expert.info)
    assert torch.equal(stored.distances, expert.distances)
    for index, row in enumerate(expert.snapshots):
        assert torch.equal(stored.snapshot(index), row)


# --- experts that look for flat places --------------------------------------------------------------------------------


def test_without_a_radius_it_is_the_same_stage_and_the_same_expert(tmp_path: Path) -> None:
    """FTD's experts at rho 0 are MTT's: one key, so one artifact."""
    plain, named = expert_config(), expert_config(method="ftd")
    assert plain.key_json == named.key_json
    assert plain.key_json != expert_config(method="ftd", radius=0.05).key_json
    assert "radius" not in plain.key_json
    one = train_expert(plain, tiny_origin(), FakeContext(tmp_path / "a"))
    assert torch.equal(one.snapshots, train_expert(named, tiny_origin(), FakeContext(tmp_path / "b")).snapshots)


@pytest.mark.parametrize("alignment", [0.0, 0.3, 1.0])
def test_the_gradient_of_a_flatter_place_is_that_of_the_formula(alignment: float) -> None:
    """Of all parameters as one vector, in float64."""
    network = build(tiny_network(), "flat").double()
    origin, radius = tiny_origin(), 0.05
    images, labels = origin.images.double(), origin.labels

    def gradient() -> Tensor:
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        return loss.detach()

    def slope_at(place: Tensor) -> Tensor:
        put(place)
        network.zero_grad()
        gradient()
        found = torch.cat([weight.grad.reshape(-1) for weight in network.parameters() if weight.grad is not None])
        network.zero_grad()
        return found

    def put(place: Tensor) -> None:
        sizes = [weight.numel() for weight in network.parameters()]
        for weight, part in zip(network.parameters(), place.split(sizes), strict=True):
            weight.data.copy_(part.reshape(weight.shape))

    theta = experts.flat_parameters(network).clone()
    g = slope_at(theta)
    e = radius * theta**2 * g / ((theta.abs() * g).norm() + 1e-12)
    there = slope_at(theta + e)
    cosine = (g @ there) / (g.norm() * there.norm())
    v = g - cosine * g.norm() * there / there.norm()
    assert abs(float(v @ there)) < 1e-12, "v is orthogonal to the gradient there"
    assert float(v.norm()) > 1e-6
    put(theta)
    loss = experts.sharpness_aware(network, gradient, radius, alignment)
    found = torch.cat([weight.grad.reshape(-1) for weight in network.parameters() if weight.grad is not None])
    torch.testing.assert_close(found, there - alignment * v, rtol=1e-9, atol=1e-12)
    assert torch.equal(experts.flat_parameters(network), theta), "the place is the same"
    assert float(loss) == pytest.approx(F.cross_entropy(network(images), labels).item())


def test_flat_experts_go_another_way_and_leave_no_trace_of_interruptions(tmp_path: Path) -> None:
    config = expert_config(method="ftd", radius=0.05, alignment=0.3)
    expert = trained(config, FakeContext(tmp_path / "a"))
    plain = trained(expert_config(), FakeContext(tmp_path / "b"))
    assert torch.equal(expert.snapshots[0], plain.snapshots[0])
    assert not torch.allclose(expert.snapshots[-1], plain.snapshots[-1])
    parts = trained(config, FakeContext(tmp_path / "c", stop_after=5))
    assert saved(parts, tmp_path / "parts") == saved(expert, tmp_path / "whole")


def test_divergence_names_the_methods_own_setting(tmp_path: Path) -> None:
    config = expert_config(method="ftd", radius=0.05, lr=1e20)
    with pytest.raises(StageFailure, match=r"Lower settings\.ftd\.lr_expert"):
        train_expert(config, tiny_origin(), FakeContext(tmp_path))
