"""AutoAttack (Croce and Hein, ICML 2020) and its first member APGD-CE, from ``pyautoattack``: the extra ``strong``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables import seeds
from trainables.attacks import RobustnessAttack
from trainables.evaluate.robustness.network import Batch, check_within

STANDARD_TARGETS = 9
"""Target classes of the targeted attacks in the standard version, where there are as many."""


def parts(settings: dict[str, Any], num_classes: int) -> list[str]:
    """What is run, one after the other on the images that are left: with ``version`` standard all of AutoAttack,
    without a version APGD-CE alone.

    The standard version has targeted attacks with the difference-of-logits-ratio loss, which takes four logits; its
    untargeted form takes three. With fewer classes we run the nearest that is defined.
    """
    if "version" not in settings:
        return ["apgd-ce"]
    if num_classes >= 4:
        return ["apgd-ce", "apgd-t", "fab-t", "square"]
    return ["apgd-ce", "apgd-dlr", "fab", "square"] if num_classes == 3 else ["apgd-ce", "fab", "square"]


def run(
    attack: RobustnessAttack, settings: dict[str, Any], network: nn.Module, batch: Batch, epsilons: Sequence[float]
) -> Tensor:
    """Attack a batch; images that were misled are not attacked again with a larger budget.

    Differs from the library: at most K - 1 target classes, where its standard version asks for 9 and fails; and seeds
    of our own, where it takes the clock.

    Args:
        attack: Its name and norm.
        settings: ``version``, or ``restarts`` of APGD-CE.
        network: Takes images in [0, 1]; frozen.
        batch: b >= 1 images.
        epsilons: E budgets, ascending.

    Returns:
        (E, b) bool, monotone in the budget.
    """
    library = importlib.import_module(attack.library)
    pixels, labels, device = batch.pixels, batch.labels, batch.pixels.device
    misled = torch.zeros(len(pixels), dtype=torch.bool, device=device)
    within = []
    for epsilon in epsilons:
        left = (~misled).nonzero().squeeze(1)
        if len(left):
            runner = library.AutoAttack(
                network,
                norm="Linf" if attack.norm == "linf" else "L2",
                eps=epsilon,
                version="custom",
                attacks=parts(settings, batch.num_classes),
                device=device,
                seed=seeds.derive("attack", attack.name, repr(epsilon), int(batch.ids[0])),
            )
            _configure(runner, settings, batch.num_classes)
            # It seeds the global generators.
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                adversarial, _ = runner.run_standard_evaluation(pixels[left], labels[left], batch_size=len(left))
            check_within(pixels[left], adversarial, epsilon, attack.norm)
            with torch.no_grad():
                misled[left] = network(adversarial).argmax(1) != labels[left]
        within.append(misled.clone())
    return torch.stack(within)


def _configure(runner: Any, settings: dict[str, Any], num_classes: int) -> None:
    """The standard version's numbers, with no more targets than there are other classes."""
    targets = min(STANDARD_TARGETS, num_classes - 1)
    runner.apgd.n_restarts = settings.get("restarts", 1)
    runner.apgd_targeted.n_restarts, runner.apgd_targeted.n_target_classes = 1, targets
    if num_classes >= 4:
        runner.fab.n_restarts = 1  # fewer classes: untargeted, with the library's 5
    runner.fab.n_target_classes = targets
    runner.square.n_queries = 5000
