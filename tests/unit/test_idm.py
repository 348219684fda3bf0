"""IDM against its formula and a loop as its program has it, and what its queue promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, distil, distill_config, result_bytes, tiny_network, tiny_origin
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data import augment
from trainables.data.pixels import decode
from trainables.distill import idm
from trainables.distill.context import DistillContext
from trainables.distill.distributions import match_distributions
from trainables.methods import IDMSettings
from trainables.models.network import build

BATCHES = [torch.arange(12 * label, 12 * label + 9) for label in range(3)]


def contexts(folder: Path, **settings: Any) -> tuple[IDMSettings, DistillContext]:
    config = distill_config("idm", **settings)
    return IDMSettings.model_validate(config.settings), DistillContext(config, FakeContext(folder))


def omegas() -> augment.Params:
    return augment.sample_each(augment.strategy_for(False), 3, generator=torch.Generator().manual_seed(4))


def shown(images: Tensor, factor: int) -> Tensor:
    """Decoded in pixel space."""
    return (decode(images * 0.3 + 0.4, factor) - 0.4) / 0.3


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("weight", [0.0, 30.0])
def test_a_class_s_loss_is_the_formula(factor: int, weight: float, tmp_path: Path) -> None:
    settings, context = contexts(tmp_path, factor=factor)
    origin, network = tiny_origin(), build(tiny_network(), "any").eval()
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    both = omegas()
    losses, gradient = idm._matching(network, weight, origin, BATCHES, both, settings, context)(images)
    leaf = images.clone().requires_grad_()
    expected = []
    for label, rows in enumerate(BATCHES):
        omega = both.rows(label, label + 1)
        own = augment.apply(shown(leaf[2 * label : 2 * label + 2], factor), omega)
        real = augment.apply(origin.images[rows], omega)
        distance = (network.embed(real).mean(0).detach() - network.embed(own).mean(0)).square().sum()
        missed = F.cross_entropy(network(own), torch.full((len(own),), label))
        expected.append(distance + weight * missed)
    torch.testing.assert_close(losses, torch.stack(expected).detach(), rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad(torch.stack(expected).sum(), leaf)
    torch.testing.assert_close(gradient, found, rtol=1e-4, atol=1e-6)


def test_without_cross_entropy_and_decoding_it_is_distribution_matching(tmp_path: Path) -> None:
    settings, context = contexts(tmp_path)
    origin, network, both = tiny_origin(), build(tiny_network(), "any").eval().requires_grad_(False), omegas()
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    losses, gradient = idm._matching(network, 0.0, origin, BATCHES, both, settings, context)(images)
    total, expected = match_distributions(network, origin.images, BATCHES, images, 2, both)
    assert float(losses.sum()) == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_iterations_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """The program's way: a step after every class, by PyTorch's optimiser, and networks that are trained between."""
    config = distill_config("idm", ipc=2, factor=2, iterations=5, lr_img=0.3, momentum_img=0.5, ce_weight=0.05)
    made = distil(config, FakeContext(tmp_path / "found"), tiny_origin())
    settings, context = IDMSettings.model_validate(config.settings), DistillContext(config, FakeContext(tmp_path))
    origin = tiny_origin()
    start, _ = context.initial_tiles(origin, 2)
    leaf = start.clone().requires_grad_()
    optimiser = torch.optim.SGD([leaf], lr=0.3, momentum=0.5)
    leaf.grad = torch.zeros_like(leaf)
    queue = [_Plain(number, context) for number in range(settings.first_networks)]
    for iteration in range(5):
        if iteration % settings.net_interval == 0:
            queue.append(_Plain(settings.first_networks + iteration // settings.net_interval, context))
            queue = queue[-settings.queue :]
        order = torch.randperm(len(queue), generator=context.generator("network", iteration))
        member = queue[int(order[0])]
        batches, both = context.real_batches(origin, settings.batch_real, iteration), context.omegas(iteration)
        assert both is not None
        for label, rows in enumerate(batches):
            omega = both.rows(label, label + 1)
            own = augment.apply(shown(leaf[2 * label : 2 * label + 2], 2), omega)
            real = augment.apply(origin.images[rows], omega)
            loss = (member.network.embed(real).mean(0).detach() - member.network.embed(own).mean(0)).square().sum()
            loss = loss + 0.05 * member.percent * F.cross_entropy(member.network(own), torch.full((len(own),), label))
            (gradient,) = torch.autograd.grad(loss, leaf)
            leaf.grad = gradient
            optimiser.step()
        order = torch.randperm(len(queue), generator=context.generator("trained", iteration))
        for index in order[: settings.networks_trained]:
            queue[int(index)].train(origin, settings, context, iteration)
    assert any(member.seen for member in queue)
    torch.testing.assert_close(made.images, (leaf * 0.3 + 0.4).detach(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made.images, start * 0.3 + 0.4, atol=1e-2)


class _Plain:
    """A network of the queue, with PyTorch's optimiser."""

    def __init__(self, number: int, context: DistillContext) -> None:
        self.number, self.right, self.seen = number, 0, 0
        self.network = context.network(number)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    @property
    def percent(self) -> float:
        return 100 * self.right / self.seen if self.seen else 0.0

    def train(self, origin: Any, settings: IDMSettings, context: DistillContext, iteration: int) -> None:
        order = torch.randperm(len(origin.labels), generator=context.generator("batches", iteration, self.number))
        for rows in order[: settings.net_steps * settings.batch_net].split(settings.batch_net):
            self.optimiser.zero_grad()
            logits = self.network(origin.images[rows])
            nn.functional.cross_entropy(logits, origin.labels[rows]).backward()
            self.right += int((logits.argmax(1) == origin.labels[rows]).sum())
            self.seen += len(rows)
            self.optimiser.step()


def test_the_queue_grows_and_the_oldest_leaves(tmp_path: Path) -> None:
    """min(most, first + floor(i / interval) + 1) of them after iteration i."""
    settings, context = contexts(tmp_path, queue=6, first_networks=3, net_interval=4)
    queue = idm.Queue(settings, context)
    for iteration in range(20):
        queue.grow(iteration)
        assert len(queue.members) == min(6, 3 + iteration // 4 + 1)
        numbers = [member.number for member in queue.members]
        assert numbers == list(range(numbers[0], 3 + iteration // 4 + 1))
    weights = {float(member.network.classifier.weight.detach().sum()) for member in queue.members}
    assert len(weights) == 6, "each begins with weights of its own"


def test_what_a_network_was_right_about_counts(tmp_path: Path) -> None:
    settings, context = contexts(tmp_path, net_steps=4, batch_net=9, networks_trained=1, first_networks=1, queue=1)
    queue, origin = idm.Queue(settings, context), tiny_origin()
    (member,) = queue.members
    assert member.percent == 0
    for iteration in range(30):
        queue.train(origin, iteration)
    assert member.seen == 30 * 36
    assert 60 < member.percent <= 100
    assert not member.network.training


def test_interrupted_anywhere_it_is_the_same(tmp_path: Path) -> None:
    config = distill_config("idm", iterations=7)
    whole = result_bytes(tmp_path / "a", config, FakeContext(tmp_path / "whole"))
    parts = result_bytes(tmp_path / "b", config, FakeContext(tmp_path / "parts", stop_after=2))
    assert parts == whole


def test_a_tile_of_one_colour_decodes_to_it() -> None:
    assert shown(torch.full((1, 1, 8, 8), 0.7), 2).sub(0.7).abs().max() < 1e-6
