from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import (
    FakeContext,
    conformance_folder,
    dispatches,
    distil,
    distill_config,
    network_of,
    result_bytes,
    tiny_network,
    tiny_origin,
    vectors,
    with_prefix,
)
from torch import nn

from trainables.context import StageFailure
from trainables.data import augment
from trainables.data.pixels import normalise
from trainables.distill import distributions
from trainables.distill.context import DistillContext
from trainables.distill.matching import Sizes
from trainables.models.network import build


class IdentityEmbedding(nn.Module):
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_no_distance_between_a_set_and_itself() -> None:
    origin = tiny_origin()
    network = build(tiny_network(), 0).requires_grad_(False)
    omegas = augment.sample_each(augment.strategy_for(True), 3, generator=torch.Generator().manual_seed(1))
    for params in (None, omegas):
        loss, gradient = distributions.match_distributions(
            network, origin.images, origin.by_class, origin.images, 12, params
        )
        assert loss < 1e-9
        assert gradient.abs().max() < 1e-4


def test_the_loss_is_the_sum_over_classes_of_squared_distances_of_means() -> None:
    origin, synthetic = tiny_origin(), torch.randn(6, 1, 8, 8)
    network = build(tiny_network(), 0).requires_grad_(False)
    batches = [members[:size] for members, size in zip(origin.by_class, (3, 12, 7), strict=True)]
    expected, leaf = torch.zeros(()), synthetic.clone().requires_grad_()
    for index, members in enumerate(batches):
        real = network.embed(origin.images[members]).mean(0)
        expected = expected + ((real - network.embed(leaf[2 * index : 2 * index + 2]).mean(0)) ** 2).sum()
    expected.backward()
    loss, gradient = distributions.match_distributions(network, origin.images, batches, synthetic, 2, None)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert leaf.grad is not None
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_grouping_changes_nothing(monkeypatch: pytest.MonkeyPatch, norm) -> None:
    origin, synthetic = tiny_origin(each=9), torch.randn(6, 1, 8, 8)
    network = build(tiny_network(norm=norm), 0).requires_grad_(False)
    omegas = augment.sample_each(augment.strategy_for(True), 3, generator=torch.Generator().manual_seed(2))
    found = []
    for sizes in (Sizes(1, 1, 4), Sizes(18, 18, 5), Sizes(1000, 1000, 1000)):
        monkeypatch.setitem(distributions.SIZES, "cpu", sizes)
        found.append(distributions.match_distributions(network, origin.images, origin.by_class, synthetic, 2, omegas))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-4)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-5)


def test_with_the_identity_as_embedding_images_become_class_means(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(DistillContext, "network", lambda *args: IdentityEmbedding())
    config = distill_config(ipc=1, iterations=60, batch_real=100, lr_img=0.1, augmentation="none")
    origin = tiny_origin()
    distilled = distil(config, FakeContext(tmp_path), origin)
    means = torch.stack([origin.images[members].mean(0) for members in origin.by_class])
    torch.testing.assert_close(
        normalise(distilled.images, config.dataset.mean, config.dataset.std), means, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("augmentation", ["dsa", "none"])
def test_interruptions_leave_no_trace(tmp_path: Path, augmentation) -> None:
    config = distill_config(iterations=4, augmentation=augmentation)
    expected = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    for stop_after in (1, 3):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert result_bytes(tmp_path / f"parts{stop_after}", config, context) == expected
        assert context.counted == [0, 1, 2, 3], "nothing is computed twice"


def test_a_longer_budget_continues_a_shorter_one(tmp_path: Path) -> None:
    whole = result_bytes(tmp_path / "whole", distill_config(iterations=5), FakeContext(tmp_path / "a"))
    context = FakeContext(tmp_path / "b", stop_after=2)
    result_bytes(tmp_path / "short", distill_config(iterations=3), context)
    assert context.counted == [0, 1, 2]
    assert result_bytes(tmp_path / "long", distill_config(iterations=5), context) == whole
    assert context.counted == [0, 1, 2, 2, 3, 4], "it starts from what the shorter one saved after iteration 2"


def test_the_switch_of_the_augmentation_changes_the_result(tmp_path: Path) -> None:
    found = {
        name: result_bytes(tmp_path / name, distill_config(augmentation=name), FakeContext(tmp_path / f"c{name}"))
        for name in ("dsa", "none")
    }
    assert found["dsa"]["set.safetensors"] != found["none"]["set.safetensors"]


def test_divergence_names_the_iteration(tmp_path: Path) -> None:
    config = distill_config(lr_img=1e30, iterations=30, network=tiny_network(norm="none"))
    with pytest.raises(StageFailure, match=r"loss is (nan|inf) at iteration \d+; .* Lower settings\.dm\.lr_img"):
        distil(config, FakeContext(tmp_path))


def test_batch_norm_works_with_fewer_real_images_than_asked_for(tmp_path: Path) -> None:
    network = tiny_network(norm="batch")
    config = distill_config(network=network, batch_real=256, iterations=2)
    context = FakeContext(tmp_path)
    distilled = distil(config, context, tiny_origin(each=5))
    assert distilled.images.isfinite().all()
    assert all(values["loss"] > 0 for values in context.measured)


def test_real_batches_are_drawn_without_replacement_from_their_class(tmp_path: Path) -> None:
    origin = tiny_origin(each=10)
    context = DistillContext(distill_config(), FakeContext(tmp_path))
    batches = context.real_batches(origin, 7, 3)
    for index, batch in enumerate(batches):
        assert len(batch.unique()) == 7
        assert (origin.labels[batch] == index).all()
    assert [len(batch) for batch in context.real_batches(origin, 256, 3)] == [10, 10, 10]
    assert not torch.equal(batches[0], context.real_batches(origin, 7, 4)[0])


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("augmented", [True, False])
def test_both_ways_give_the_same_numbers(norm, augmented: bool) -> None:
    origin, synthetic = tiny_origin(), torch.randn(6, 1, 8, 8)
    network = build(tiny_network(norm=norm), 0).requires_grad_(False)
    omegas = augment.sample_each(augment.strategy_for(True), 3, generator=torch.Generator().manual_seed(4))
    batches = [members[:size] for members, size in zip(origin.by_class, (5, 12, 7), strict=True)]
    found = [
        distributions.match_distributions(
            network, origin.images, batches, synthetic, 2, omegas if augmented else None, path
        )
        for path in ("loop", "vectorised")
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


def test_all_classes_together_need_a_fifth_of_the_calls() -> None:
    origin, synthetic = tiny_origin(num_classes=10), torch.randn(10, 1, 8, 8)
    network = build(tiny_network(num_classes=10), 0).requires_grad_(False)
    omegas = augment.sample_each(augment.strategy_for(True), 10, generator=torch.Generator().manual_seed(3))

    def step(first: int, last: int) -> None:
        distributions.match_distributions(
            network,
            origin.images,
            origin.by_class[first:last],
            synthetic[first:last],
            1,
            omegas.rows(first, last),
            "vectorised",
        )

    together = dispatches(lambda: step(0, 10))
    one_by_one = dispatches(lambda: [step(index, index + 1) for index in range(10)])
    assert one_by_one >= 5 * together, (one_by_one, together)


@pytest.mark.conformance
def test_conformance_of_loss_and_gradient() -> None:
    recorded = vectors(conformance_folder() / "matching.npz")
    state = with_prefix(recorded, "param.")
    real, synthetic = recorded["real"], recorded["syn"]
    network = build(network_of(state, real.shape[2], real.shape[1]), 0).requires_grad_(False)
    network.load_state_dict(state)
    batches = [torch.arange(len(real))]
    loss, gradient = distributions.match_distributions(network, real, batches, synthetic, len(synthetic), None)
    expected = recorded["distribution_matching.grad_syn"]
    assert loss == pytest.approx(float(recorded["distribution_matching.loss"]), rel=1e-3)
    assert (gradient - expected).norm() <= 1e-3 * expected.norm()
