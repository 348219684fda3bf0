"""FairDD: every group of a class pulls alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import worlds
from support import FakeContext, distil, distill_config, tiny_network, tiny_origin
from torch import Tensor

from ddray.errors import RequestError
from trainables.data.origins import Origin
from trainables.distill import fairdd
from trainables.distill.context import DistillContext
from trainables.methods import FairDDSettings
from trainables.models.network import build


def leaning(share: int = 9) -> Origin:
    """Of each class's twelve images so many are of group 0 and brighter, the others of group 1."""
    origin = tiny_origin()
    members = (torch.arange(36) % 12 >= share).long()
    brighter = torch.where(members == 0, 1.5, -1.5)[:, None, None, None]
    return replace(origin, images=origin.images + brighter, groups=members)


def test_with_one_group_it_is_distribution_matching(tmp_path: Path) -> None:
    """Under DM's name, so that networks, batches and augmentations are the same."""
    config = distill_config("dm", batch_real=12)
    made = [distil(config, FakeContext(tmp_path / "dm"), tiny_origin())]
    for number, members in enumerate((None, torch.full((36,), 4))):
        context = DistillContext(config, FakeContext(tmp_path / str(number)))
        settings = FairDDSettings.model_validate(config.settings)
        made.append(fairdd.distill(replace(tiny_origin(), groups=members), settings, context))
    for each in made[1:]:
        torch.testing.assert_close(each.images, made[0].images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("summed", [True, False])
def test_a_step_goes_down_the_sum_over_groups(summed: bool, tmp_path: Path) -> None:
    """Against the formula by autograd; without the sum, towards the mean of the groups."""
    origin, rate = leaning(), 0.5
    config = distill_config(
        "fairdd", batch_real=12, iterations=1, lr_img=rate, summed=summed, augmentation="none", distill_seed=2
    )
    made = distil(config, FakeContext(tmp_path / "made"), origin)
    start = distil(
        config.model_copy(update={"settings": {**config.settings, "iterations": 0}}), FakeContext(tmp_path), origin
    )
    leaf = ((start.images - 0.4) / 0.3).requires_grad_()
    network = build(tiny_network(), "fairdd", "network", 2, 0).requires_grad_(False)
    loss = torch.zeros(())
    for label in range(3):
        own = network.embed(leaf[2 * label : 2 * label + 2]).mean(0)
        means = [_mean(network.embed(origin.images[_rows(origin, label, group)])) for group in (0, 1)]
        if summed:
            loss = loss + sum((mean - own).square().sum() for mean in means)
        else:
            loss = loss + (torch.stack(means).mean(0) - own).square().sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close((made.images - 0.4) / 0.3, leaf.detach() - rate * gradient, atol=1e-4, rtol=1e-3)


def _mean(features: Tensor) -> Tensor:
    return features.mean(0).detach()


def _rows(origin: Origin, label: int, group: int) -> Tensor:
    assert origin.groups is not None
    return ((origin.labels == label) & (origin.groups == group)).nonzero().flatten()


def test_a_rare_group_counts_as_a_common_one(tmp_path: Path) -> None:
    """Images end as bright as the middle of the two groups, where those of DM lean to the common one."""
    origin = leaning(11)
    bright = {
        method: float(
            distil(
                distill_config(method, batch_real=12, iterations=120, lr_img=2.0, init="noise", augmentation="none"),
                FakeContext(tmp_path / method),
                origin,
            ).images.mean()
        )
        for method in ("dm", "fairdd")
    }
    assert bright["fairdd"] < bright["dm"] - 0.05


def test_batches_are_cut_into_the_groups_that_they_have() -> None:
    batches = [torch.tensor([0, 5, 2]), torch.tensor([1, 4])]
    parts, counts = fairdd.by_group(batches, torch.tensor([1, 3, 1, 0, 3, 0]))
    assert [part.tolist() for part in parts] == [[5], [0, 2], [1, 4]]
    assert counts == [2, 1]
    assert fairdd.by_group(batches, None)[1] == [1, 1]


def test_data_without_groups_are_refused(tmp_path: Path) -> None:
    text = "ddray: 1\ngrids: {g: {axes: {method: [fairdd], dataset: [DATA], ipc: [10]}}}\n"
    worlds.plan_of(worlds.sweep_of(tmp_path, text.replace("DATA", "cifar10_s")))
    with pytest.raises(
        RequestError, match="matches groups beside classes, of which these images have none; got dataset"
    ):
        worlds.plan_of(worlds.sweep_of(tmp_path, text.replace("DATA", "cifar10")))
