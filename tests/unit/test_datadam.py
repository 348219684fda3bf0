"""DataDAM against its formula, and what its features promise."""

from __future__ import annotations

import pytest
import torch
from support import tiny_network, tiny_origin
from torch import Tensor, nn

from trainables.data import augment
from trainables.distill import datadam, distributions, matching
from trainables.models.network import Network, build


def network(seed: int = 0, **other: object) -> Network:
    return build(tiny_network(**other), seed).requires_grad_(False)  # type: ignore[arg-type]


def features(power: int = 1, balance: float = 0.01) -> distributions.FeaturesOf:
    return lambda made: datadam.attention_and_embedding(made, power=power, balance=balance)


def relu_outputs(made: Network, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """What each block of a ConvNet puts out before its pooling, and the embedding, layer by layer."""
    found = []
    for layer in made.features:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            found.append(images.clone())
    return found, images.flatten(1)


def published(made: Network, real: Tensor, batches: list[Tensor], leaf: Tensor, ipc: int, p: int, lam: float) -> Tensor:
    """The loss as the specification writes it, term by term."""
    total = torch.zeros((), dtype=leaf.dtype)
    for index, members in enumerate(batches):
        sides = []
        for images in (real[members], leaf[ipc * index : ipc * (index + 1)]):
            outputs, embedded = relu_outputs(made, images)
            maps = []
            for output in outputs[:-1]:
                flat = (output.abs() ** p).sum(dim=1).reshape(len(images), -1)
                maps.append((flat / (flat**2).sum(1, keepdim=True).sqrt()).mean(0))
            sides.append((maps, embedded.mean(0)))
        (of_real, psi_real), (of_set, psi_set) = sides
        for one, other in zip(of_real, of_set, strict=True):
            total = total + 100 * ((one - other) ** 2).sum()
        total = total + 100 * lam * ((psi_real - psi_set) ** 2).sum()
    return total


@pytest.mark.parametrize("path", ["loop", "vectorised"])
@pytest.mark.parametrize(("power", "balance"), [(1, 0.01), (4, 0.01), (1, 0.0), (2, 3.0)])
def test_it_is_distribution_matching_of_other_features(path: str, power: int, balance: float) -> None:
    """The sum over layers and classes, in float64, and its gradient."""
    origin = tiny_origin()
    made = network(depth=2).double()
    real = origin.images.double()
    synthetic = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    batches = [members[:size] for members, size in zip(origin.by_class, (3, 12, 7), strict=True)]
    leaf = synthetic.clone().requires_grad_()
    expected = published(made, real, batches, leaf, 2, power, balance)
    expected.backward()
    given = (made, real, batches, synthetic, 2, None, path)
    loss, gradient = distributions.match_distributions(*given, features=features(power, balance))  # type: ignore[arg-type]
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert leaf.grad is not None
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-6, atol=1e-9)


def test_no_distance_between_a_set_and_itself() -> None:
    origin = tiny_origin()
    omegas = augment.sample_each(augment.strategy_for(True), 3, generator=torch.Generator().manual_seed(1))
    given = (network(), origin.images, origin.by_class, origin.images, 12, omegas)
    loss, _ = distributions.match_distributions(*given, features=features())  # type: ignore[arg-type]
    assert loss < 1e-6


@pytest.mark.parametrize("power", [1, 4])
def test_attention_has_norm_1_and_no_scale(power: int) -> None:
    maps = torch.rand(5, 7, 4, 4, generator=torch.Generator().manual_seed(2))
    attended = datadam.attention(maps, power)
    torch.testing.assert_close(attended.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(datadam.attention(3.7 * maps, power), attended)
    assert not torch.allclose(datadam.attention(maps, power), datadam.attention(maps.flip(3), power))


def test_without_attention_it_is_distribution_matching_times_the_balance() -> None:
    """What lambda adds is 100 lambda times DM's loss, for any network."""
    origin, synthetic = tiny_origin(), torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    batches = [members[:6] for members in origin.by_class]
    given = (network(), origin.images, batches, synthetic, 2, None)
    plain, _ = distributions.match_distributions(*given)
    losses = [distributions.match_distributions(*given, features=features(1, each))[0] for each in (0.0, 0.01, 1.0)]
    assert losses[1] - losses[0] == pytest.approx(100 * 0.01 * plain, rel=1e-3)
    assert losses[2] - losses[0] == pytest.approx(100 * plain, rel=1e-3)


def test_the_last_relu_is_left_out() -> None:
    """A network of one block has its embedding alone; of two, the first block's map beside it."""
    images = torch.randn(3, 1, 8, 8)
    for depth, maps in ((1, 0), (2, 64)):
        made = network(depth=depth)
        assert features()(made)(images).shape == (3, maps + made.embedding_size)


def test_hooks_are_gone_afterwards() -> None:
    made = network()
    features()(made)(torch.randn(2, 1, 8, 8))
    assert all(not module._forward_hooks for module in made.modules())


def test_batch_norm_sees_all_classes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of a class do not depend on how classes are grouped."""
    origin, synthetic = tiny_origin(each=9), torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    given = (network(norm="batch"), origin.images, origin.by_class, synthetic, 2, None)
    found = []
    for group in (1, 1000):
        monkeypatch.setitem(distributions.SIZES, "cpu", matching.Sizes(group, group, group))
        found.append(distributions.match_distributions(*given, features=features()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
