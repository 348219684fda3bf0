"""foolbox's attacks, in its two families: the smallest perturbation, and any perturbation within a budget.

Of the first: DeepFool, Carlini and Wagner's, FMN. foolbox runs them once, then shrinks the raw perturbation to each
budget (Linf: pixel by pixel; L2: as a whole) and asks the network again. Its ``L2FMNAttack`` never applies its bound
and is not offered here.

Of the second: FGSM, and projected gradient descent (PGD) in Linf and L2. Each runs anew for every budget. PGD follows
the cross-entropy, whose gradient vanishes where a network is very sure: by itself it then reports robustness that is
not there (``zero_gradient_share``, and the alarms of ``rows.py``).
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
from trainables.attacks import LpNorm, RobustnessAttack, load
from trainables.evaluate.robustness.network import Batch, check_within, norms


def smallest(
    attack: RobustnessAttack, settings: dict[str, Any], network: nn.Module, batch: Batch, epsilons: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Attack a batch by a minimal attack: ``attack.run`` names foolbox's class, which takes the settings.

    Args:
        attack: Its class and norm.
        settings: Its own.
        network: Takes images in [0, 1]; frozen.
        batch: b >= 1 images.
        epsilons: E budgets.

    Returns:
        (E, b) bool, whether the raw perturbation shrunk to each budget misleads; (b,) float32, the raw one's norm,
        infinite where it does not mislead.
    """
    model = PyTorchModel(network, bounds=(0, 1), device=batch.pixels.device)
    criterion = Misclassification(batch.labels)
    raw, clipped, success = load(attack.run)(**settings)(model, batch.pixels, criterion, epsilons=[*epsilons, None])
    for epsilon, adversarial in zip(epsilons, clipped, strict=False):
        check_within(batch.pixels, adversarial, epsilon, attack.norm)
    distance = torch.where(success[-1], norms(raw[-1] - batch.pixels, attack.norm), torch.inf)
    # Shrinking by a factor of 1 rounds, and the raw perturbation ends just behind the boundary.
    held = distance <= torch.tensor(epsilons, device=distance.device).unsqueeze(1)
    return success[:-1] | held, distance


def fgsm(
    attack: RobustnessAttack, settings: dict[str, Any], network: nn.Module, batch: Batch, epsilons: Sequence[float]
) -> Tensor:
    """One step along the sign of the gradient, for each budget by itself: (E, b) bool, not monotone in it."""
    step = LinfFastGradientAttack(random_start=False)
    return torch.stack(
        [_within(step, network, batch.pixels, batch.labels, epsilon, attack.norm) for epsilon in epsilons]
    )


def pgd(
    attack: RobustnessAttack, settings: dict[str, Any], network: nn.Module, batch: Batch, epsilons: Sequence[float]
) -> Tensor:
    """Projected gradient descent from random starts.

    An image that was misled is not attacked again, neither from another start nor with a larger budget, which holds
    the adversarial image that was found. So the result is monotone in the budget.

    Args:
        attack: Its norm.
        settings: ``steps``, ``rel_stepsize``, ``restarts``.
        network: Takes images in [0, 1]; frozen.
        batch: b >= 1 images; an image's starts are drawn for it alone, by its id.
        epsilons: E budgets, ascending.

    Returns:
        (E, b) bool.
    """
    pixels, labels = batch.pixels, batch.labels
    kind = _LinfPGD if attack.norm == "linf" else _L2PGD
    descent = kind(rel_stepsize=settings["rel_stepsize"], steps=settings["steps"], random_start=True)
    misled = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
    within = []
    for epsilon in epsilons:
        for restart in range(settings["restarts"]):
            left = (~misled).nonzero().squeeze(1)
            if len(left) == 0:
                break
            descent.start = starts(attack.norm, restart, batch.ids[left.cpu()], pixels[left])
            misled[left] = _within(descent, network, pixels[left], labels[left], epsilon, attack.norm)
        within.append(misled.clone())
    return torch.stack(within)


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


def _within(attack: Any, network: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float, norm: LpNorm) -> Tensor:
    """Whether foolbox's ``attack`` misleads each image (b,) within one budget."""
    model = PyTorchModel(network, bounds=(0, 1), device=pixels.device)
    _, clipped, success = attack(model, pixels, Misclassification(labels), epsilons=[epsilon])
    check_within(pixels, clipped[0], epsilon, norm)
    misled: Tensor = success[0]
    return misled
