from __future__ import annotations

from pathlib import Path

import numpy as np
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
from torch import Tensor

from trainables.context import StageFailure
from trainables.data import augment
from trainables.distill import dsa, matching
from trainables.distill.matching import Sizes, match_gradients
from trainables.models.network import Network, build, uses_batch_statistics

PATHS = ("loop", "vectorised")


def gradients_of(network: Network, images: Tensor, label: int) -> dict[str, Tensor]:
    """The plain way: one backward pass of the mean loss."""
    loss = torch.nn.functional.cross_entropy(network(images), torch.full((len(images),), label))
    return dict(zip(dict(network.named_parameters()), torch.autograd.grad(loss, network.parameters()), strict=True))


def numpy_distance(own: dict[str, Tensor], real: dict[str, Tensor]) -> float:
    """The layer-wise distance of methods.md 3.3, written out row by row in NumPy."""
    total = 0.0
    for name, gradient in own.items():
        if gradient.ndim == 1:
            continue
        a = gradient.double().numpy().reshape(len(gradient), -1)
        b = real[name].double().numpy().reshape(len(gradient), -1)
        for x, y in zip(a, b, strict=True):
            total += 1 - float(x @ y) / (float(np.linalg.norm(x)) * float(np.linalg.norm(y)) + 1e-6)
    return total


def omegas(classes: int, seed: int = 1) -> augment.Params:
    return augment.sample_each(augment.strategy_for(True), classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", PATHS)
def test_the_distance_is_the_one_of_the_paper(path: matching.Path) -> None:
    origin, network = tiny_origin(), build(tiny_network(), 0)
    synthetic = torch.randn(6, 1, 8, 8)
    weights = dsa.matched_weights(network, "ours")
    found, _ = match_gradients(
        network, weights, dsa.layer_distance, origin.images, origin.by_class, synthetic, None, path=path
    )
    for index, members in enumerate(origin.by_class):
        own = gradients_of(network, synthetic[2 * index : 2 * index + 2], index)
        real = gradients_of(network, origin.images[members], index)
        assert float(found[index]) == pytest.approx(numpy_distance(own, real), rel=1e-4)


@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
def test_the_gradient_is_that_of_the_distance(distance: str) -> None:
    """Central differences in float64, through both derivatives."""
    origin = tiny_origin(each=4)
    network = build(tiny_network(width=4, depth=1), 0).double()
    synthetic = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    weights = dsa.matched_weights(network, distance)

    def value(images: Tensor) -> tuple[float, Tensor]:
        found, slope = match_gradients(
            network, weights, dsa.DISTANCES[distance], origin.images.double(), origin.by_class, images, omegas(3)
        )
        return float(found.double().sum()), slope

    _, gradient = value(synthetic)
    direction = torch.randn_like(synthetic)
    step = 1e-7  # small: the gradients that are compared jump where an activation changes its sign
    difference = (value(synthetic + step * direction)[0] - value(synthetic - step * direction)[0]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
@pytest.mark.parametrize("sizes", [(12, 12, 12), (5, 9, 12)])
def test_both_ways_give_the_same_numbers(distance: str, sizes: tuple[int, ...]) -> None:
    origin, network = tiny_origin(), build(tiny_network(), 0)
    batches = [members[:size] for members, size in zip(origin.by_class, sizes, strict=True)]
    synthetic = torch.randn(6, 1, 8, 8)
    weights = dsa.matched_weights(network, distance)
    found = [
        match_gradients(
            network, weights, dsa.DISTANCES[distance], origin.images, batches, synthetic, omegas(3), path=path
        )
        for path in PATHS
    ]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


def test_grouping_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    origin, network = tiny_origin(), build(tiny_network(), 0)
    synthetic = torch.randn(6, 1, 8, 8)
    found = []
    for sizes in (Sizes(99, 12, 5), Sizes(99, 24, 7), Sizes(1, 1000, 1000)):
        monkeypatch.setitem(matching.SIZES, "cpu", sizes)
        for path in PATHS:
            found.append(
                match_gradients(
                    network,
                    dsa.matched_weights(network, "ours"),
                    dsa.layer_distance,
                    origin.images,
                    origin.by_class,
                    synthetic,
                    omegas(3),
                    path=path,
                )
            )
    for distances, gradient in found[1:]:
        torch.testing.assert_close(distances, found[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-4)


def test_the_vectorised_way_needs_a_fifth_of_the_calls() -> None:
    origin, network = tiny_origin(num_classes=10), build(tiny_network(num_classes=10), 0)
    synthetic = torch.randn(10, 1, 8, 8)
    counts = [
        dispatches(
            lambda path=path: match_gradients(
                network,
                dsa.matched_weights(network, "ours"),
                dsa.layer_distance,
                origin.images,
                origin.by_class,
                synthetic,
                omegas(10),
                path=path,
            )
        )
        for path in PATHS
    ]
    assert counts[0] >= 5 * counts[1], counts


@pytest.mark.parametrize("path", PATHS)
def test_a_set_and_itself_are_apart_by_the_guard_of_the_denominator_alone(path: matching.Path) -> None:
    """experiments.md section 1: the sum over rows of 1e-6 / (|g|^2 + 1e-6), not zero."""
    origin, network = tiny_origin(), build(tiny_network(), 0).double()
    images = origin.images.double()
    weights = dsa.matched_weights(network, "ours")
    found, _ = match_gradients(
        network, weights, dsa.layer_distance, images, origin.by_class, images, omegas(3), path=path
    )
    for index, members in enumerate(origin.by_class):
        augmented = augment.apply(images[members], omegas(3).rows(index, index + 1))
        real = gradients_of(network, augmented, index)
        squares = torch.cat([real[name].flatten(1).square().sum(1) for name in weights])
        assert float(found[index]) == pytest.approx(float((1e-6 / (squares + 1e-6)).sum()), rel=1e-3)


def test_the_augmentation_is_shared_by_real_and_distilled_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = augment.apply

    def spy(images: Tensor, params: augment.Params) -> Tensor:
        seen.append(params.draws)
        return original(images, params)

    monkeypatch.setattr(augment, "apply", spy)
    origin, network = tiny_origin(), build(tiny_network(), 0)
    match_gradients(
        network,
        ["classifier.weight"],
        dsa.layer_distance,
        origin.images,
        origin.by_class,
        torch.randn(3, 1, 8, 8),
        omegas(3),
        path="loop",
    )
    assert len(seen) == 6
    for real, synthetic in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(real, synthetic)
        assert len(real) == 1
    assert not torch.equal(seen[0], seen[2]), "each class has its own"


def test_the_network_is_trained_between_updates_and_never_after_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained: list[tuple[int, int, int]] = []
    original = dsa._train_epoch
    monkeypatch.setattr(dsa, "_train_epoch", lambda *args: (trained.append(args[-1]), original(*args)))
    networks: list[int] = []
    original_network = dsa.DistillContext.network
    monkeypatch.setattr(
        dsa.DistillContext, "network", lambda self, *at: (networks.append(at[0]), original_network(self, *at))[1]
    )
    distil(distill_config("dsa", iterations=2, loops=(3, 2)), FakeContext(tmp_path))
    assert networks == [0, 1]
    assert trained == [(i, turn, epoch) for i in (0, 1) for turn in (0, 1) for epoch in (0, 1)]


@pytest.mark.parametrize("method", ["dsa", "dc"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_interruptions_leave_no_trace_within_an_iteration_either(tmp_path: Path, method: str, norm: str) -> None:
    config = distill_config(method, iterations=2, loops=(3, 2), network=tiny_network(norm=norm))

    whole = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    for stop_after in (1, 2, 4):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert result_bytes(tmp_path / f"parts{stop_after}", config, context) == whole
        assert context.counted == list(range(6)), "nothing is computed twice"


def test_dc_is_dsa_without_augmentation(tmp_path: Path) -> None:
    """Apart from their names, which seeds are derived from: with DC's name, DSA without augmentation gives its set."""
    plain = distil(distill_config("dc", init="real"), FakeContext(tmp_path / "a"))
    config = distill_config("dsa", augmentation="none").model_copy(update={"method": "dc"})
    same = distil(config, FakeContext(tmp_path / "b"))
    other = distil(config.model_copy(update={"augmentation": "dsa"}), FakeContext(tmp_path / "c"))
    assert torch.equal(plain.images, same.images)
    assert not torch.equal(plain.images, other.images)


def test_batch_norm_takes_its_statistics_from_real_images_and_is_matched_in_evaluation_mode(tmp_path: Path) -> None:
    config = distill_config("dsa", network=tiny_network(norm="batch"))
    context = dsa.DistillContext(config, FakeContext(tmp_path))
    network = context.network(0)
    assert uses_batch_statistics(network)
    origin = tiny_origin()
    dsa._set_statistics(network, origin, context, 0, 0)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(module.training for module in norms)
    first = network.features[0](origin.images)  # type: ignore[index, operator]
    # The origin has fewer than 16 images of each class, so all of them set the statistics.
    torch.testing.assert_close(norms[0].running_mean, first.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert norms[0].momentum == 0.1


def test_divergence_names_the_iteration(tmp_path: Path) -> None:
    config = distill_config("dsa", lr_img=1e30, iterations=30, network=tiny_network(norm="none"))
    with pytest.raises(StageFailure, match=r"dsa: the loss is (nan|inf) at iteration \d+; .* settings\.dsa\.lr_img"):
        distil(config, FakeContext(tmp_path))


@pytest.mark.conformance
@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
@pytest.mark.parametrize("path", PATHS)
def test_conformance_of_loss_and_gradient(distance: str, path: matching.Path) -> None:
    recorded = vectors(conformance_folder() / "matching.npz")
    state = with_prefix(recorded, "param.")
    real, synthetic, label = recorded["real"], recorded["syn"], int(recorded["label"])
    network = build(network_of(state, real.shape[2], real.shape[1]), 0)
    network.load_state_dict(state)
    # The recorded pair belongs to one class; the classes before it get the same images, under their own labels.
    found, gradient = match_gradients(
        network,
        dsa.matched_weights(network, distance),
        dsa.DISTANCES[distance],
        real,
        [torch.arange(len(real))] * (label + 1),
        synthetic.repeat(label + 1, 1, 1, 1),
        None,
        path=path,
    )
    expected = recorded[f"gradient_matching.{distance}.grad_syn"]
    assert float(found[label]) == pytest.approx(float(recorded[f"gradient_matching.{distance}.loss"]), rel=1e-3)
    assert (gradient[-len(synthetic) :] - expected).norm() <= 1e-3 * expected.norm()
