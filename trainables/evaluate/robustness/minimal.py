"""Attacks that look for the smallest perturbation, from foolbox: DeepFool, Carlini and Wagner's, FMN.

foolbox runs them once, then shrinks the raw perturbation to each budget (Linf: pixel by pixel; L2: as a whole) and asks
the network again. Its ``L2FMNAttack`` never applies its bound and is not offered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
from foolbox.attacks.deepfool import L2DeepFoolAttack, LinfDeepFoolAttack
from foolbox.attacks.fast_minimum_norm import LInfFMNAttack
from foolbox.criteria import Misclassification
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from trainables.attacks import AttackSpec, LpNorm

TOLERANCE = {"linf": 1e-6, "l2": 1e-5}
"""By how much rounding may carry a perturbation beyond its budget."""


def smallest(
    spec: AttackSpec,
    settings: dict[str, Any],
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Attack a batch.

    Args:
        spec: Which attack.
        settings: Its own.
        network: Takes images in [0, 1]; frozen.
        pixels: (b, C, H, W) float32 in [0, 1], on the network's device, b >= 1.
        labels: (b,) int64.
        epsilons: E budgets.

    Returns:
        (E, b) bool, whether the raw perturbation shrunk to each budget misleads; (b,) float32, the raw one's norm,
        infinite where it does not mislead.
    """
    model = PyTorchModel(network, bounds=(0, 1), device=pixels.device)
    criterion = Misclassification(labels)
    raw, clipped, success = _attack(spec.name, settings)(model, pixels, criterion, epsilons=[*epsilons, None])
    for epsilon, adversarial in zip(epsilons, clipped, strict=False):
        check_within(pixels, adversarial, epsilon, spec.norm)
    distance = torch.where(success[-1], norms(raw[-1] - pixels, spec.norm), torch.inf)
    # Shrinking by a factor of 1 rounds, and the raw perturbation ends just behind the boundary.
    held = distance <= torch.tensor(epsilons, device=distance.device).unsqueeze(1)
    return success[:-1] | held, distance


def norms(perturbation: Tensor, norm: LpNorm) -> Tensor:
    """L2 or Linf norm (b,) of each perturbation."""
    flat = perturbation.flatten(1)
    found: Tensor = flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1)
    return found


def check_within(pixels: Tensor, adversarial: Tensor, epsilon: float, norm: LpNorm) -> None:
    """Make sure of the budget, and of the bounds [0, 1].

    Raises:
        AssertionError: An attack broke its own rules.
    """
    furthest = float(norms((adversarial - pixels).double(), norm).max())
    assert furthest <= epsilon + TOLERANCE[norm], f"{norm} {furthest} > {epsilon}"
    assert -1e-6 <= float(adversarial.min()) <= float(adversarial.max()) <= 1 + 1e-6, "outside [0, 1]"


def _attack(name: str, settings: dict[str, Any]) -> Any:
    match name:
        case "deepfool_l2":
            return L2DeepFoolAttack(**settings)
        case "deepfool_linf":
            return LinfDeepFoolAttack(**settings)
        case "cw_l2":
            return L2CarliniWagnerAttack(**settings)
        case "fmn_linf":
            return LInfFMNAttack(**settings)
        case _:
            raise AssertionError(name)
