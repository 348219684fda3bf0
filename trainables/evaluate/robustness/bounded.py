"""Attacks within a budget, from foolbox: FGSM, and projected gradient descent (PGD) in Linf and L2.

Each runs anew for every budget. PGD follows the cross-entropy, whose gradient vanishes where a network is very sure:
by itself it then reports robustness that is not there (``zero_gradient_share``, and the alarms of ``summary.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from eagerpy.astensor import astensor
from eagerpy.tensor.tensor import Tensor as AnyTensor
from foolbox.attacks.fast_gradient_method import LinfFastGradientAttack
from foolbox.attacks.projected_gradient_descent import (
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)
from foolbox.criteria import Misclassification
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from trainables import seeds
from trainables.attacks import AttackSpec, LpNorm
from trainables.evaluate.robustness.minimal import check_within


class _LinfPGD(LinfProjectedGradientDescentAttack):
    """PGD that starts where it is told: foolbox draws from the global generator, for a batch at a time."""

    start: Tensor

    def get_random_start(self, x0: AnyTensor, epsilon: float) -> AnyTensor:
        return x0 + epsilon * astensor(self.start)


class _L2PGD(L2ProjectedGradientDescentAttack):
    """The same in L2."""

    start: Tensor

    def get_random_start(self, x0: AnyTensor, epsilon: float) -> AnyTensor:
        return x0 + epsilon * astensor(self.start)


def fgsm(network: nn.Module, pixels: Tensor, labels: Tensor, epsilons: Sequence[float]) -> Tensor:
    """One step along the sign of the gradient, for each budget by itself: (E, b) bool, not monotone in it.

    Args:
        network: Takes images in [0, 1]; frozen.
        pixels: (b, C, H, W) float32 in [0, 1], on the network's device, b >= 1.
        labels: (b,) int64.
        epsilons: E budgets.
    """
    attack = LinfFastGradientAttack(random_start=False)
    return torch.stack([_run(attack, network, pixels, labels, epsilon, "linf") for epsilon in epsilons])


def pgd(
    spec: AttackSpec,
    settings: dict[str, Any],
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    ids: Tensor,
    epsilons: Sequence[float],
) -> Tensor:
    """Projected gradient descent from random starts.

    An image that was misled is not attacked again, neither from another start nor with a larger budget, which holds
    the adversarial image that was found. So the result is monotone in the budget.

    Args:
        spec: Which attack.
        settings: ``steps``, ``rel_stepsize``, ``restarts``.
        network: Takes images in [0, 1]; frozen.
        pixels: (b, C, H, W) float32 in [0, 1], on the network's device, b >= 1.
        labels: (b,) int64.
        ids: (b,) canonical indices on the CPU: an image's starts are drawn for it alone.
        epsilons: E budgets, ascending.

    Returns:
        (E, b) bool.
    """
    kind = _LinfPGD if spec.norm == "linf" else _L2PGD
    attack = kind(rel_stepsize=settings["rel_stepsize"], steps=settings["steps"], random_start=True)
    found = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
    rows = []
    for epsilon in epsilons:
        for restart in range(settings["restarts"]):
            left = (~found).nonzero().squeeze(1)
            if len(left) == 0:
                break
            attack.start = starts(spec.norm, restart, ids[left.cpu()], pixels[left])
            found[left] = _run(attack, network, pixels[left], labels[left], epsilon, spec.norm)
        rows.append(found.clone())
    return torch.stack(rows)


def starts(norm: LpNorm, restart: int, ids: Tensor, like: Tensor) -> Tensor:
    """Random points of the unit ball, one for each image, uniform: float32 shaped and placed as ``like``.

    Drawn by the image's number, so that they depend neither on the batch nor on the model, and the global generator
    stays as it is.
    """
    size = like[0].numel()
    drawn = []
    for name in ids.tolist():
        generator = seeds.generator("attack", "start", norm, restart, name)
        if norm == "linf":
            drawn.append(torch.rand(size, generator=generator) * 2 - 1)
        else:
            direction = torch.randn(size, generator=generator)
            radius = torch.rand((), generator=generator, dtype=torch.float64) ** (1 / size)
            drawn.append(direction / direction.norm() * radius.float())
    return torch.stack(drawn).view(like.shape).to(like.device)


def _run(attack: Any, network: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float, norm: LpNorm) -> Tensor:
    model = PyTorchModel(network, bounds=(0, 1), device=pixels.device)
    criterion = Misclassification(labels)
    _, clipped, success = attack(model, pixels, criterion, epsilons=[epsilon])
    check_within(pixels, clipped[0], epsilon, norm)
    found: Tensor = success[0]
    return found
