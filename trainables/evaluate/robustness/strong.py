"""AutoAttack (Croce and Hein, ICML 2020) and its first member APGD-CE, from ``pyautoattack``: the extra ``strong``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables import seeds
from trainables.attacks import AttackSpec
from trainables.evaluate.robustness.minimal import check_within

STANDARD_TARGETS = 9
"""Target classes of the targeted attacks in the standard version, where there are as many."""


def require(spec: AttackSpec) -> None:
    """Make sure that the library of an attack is there.

    Raises:
        ValueError: It comes with an extra that is not installed.
    """
    if spec.extra is not None and importlib.util.find_spec(spec.library) is None:
        raise ValueError(
            f"attack {spec.name}: {spec.library} is not installed; expected it on every node that runs this attack. "
            f"Install ddray[{spec.extra}], or leave the attack out."
        )


def composition(spec: AttackSpec, num_classes: int) -> list[str]:
    """What is run, one after the other on the images that are left.

    The standard version has targeted attacks with the difference-of-logits-ratio loss, which takes four logits; its
    untargeted form takes three. With fewer classes we run the nearest that is defined.
    """
    if spec.name == "apgd_ce":
        return ["apgd-ce"]
    if num_classes >= 4:
        return ["apgd-ce", "apgd-t", "fab-t", "square"]
    return ["apgd-ce", "apgd-dlr", "fab", "square"] if num_classes == 3 else ["apgd-ce", "fab", "square"]


def strong(
    spec: AttackSpec,
    settings: dict[str, Any],
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    ids: Tensor,
    epsilons: Sequence[float],
    num_classes: int,
) -> Tensor:
    """Attack a batch; images that were misled are not attacked again with a larger budget.

    Differs from the library: at most ``num_classes`` - 1 target classes, where its standard version asks for 9 and
    fails; and seeds of our own, where it takes the clock.

    Args:
        spec: Which attack.
        settings: Its own: ``restarts`` of APGD-CE.
        network: Takes images in [0, 1]; frozen.
        pixels: (b, C, H, W) float32 in [0, 1], on the network's device, b >= 1.
        labels: (b,) int64.
        ids: (b,) canonical indices on the CPU.
        epsilons: E budgets, ascending.
        num_classes: K.

    Returns:
        (E, b) bool, monotone in the budget.
    """
    library = importlib.import_module(spec.library)
    device = pixels.device
    found = torch.zeros(len(pixels), dtype=torch.bool, device=device)
    rows = []
    for epsilon in epsilons:
        left = (~found).nonzero().squeeze(1)
        if len(left):
            runner = library.AutoAttack(
                network,
                norm="Linf" if spec.norm == "linf" else "L2",
                eps=epsilon,
                version="custom",
                attacks=composition(spec, num_classes),
                device=device,
                seed=seeds.derive("attack", spec.name, repr(epsilon), int(ids[0])),
            )
            _configure(runner, settings, num_classes)
            # It seeds the global generators.
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                adversarial, _ = runner.run_standard_evaluation(pixels[left], labels[left], batch_size=len(left))
            check_within(pixels[left], adversarial, epsilon, spec.norm)
            with torch.no_grad():
                found[left] = network(adversarial).argmax(1) != labels[left]
        rows.append(found.clone())
    return torch.stack(rows)


def _configure(runner: Any, settings: dict[str, Any], num_classes: int) -> None:
    """The standard version's numbers, with no more targets than there are other classes."""
    targets = min(STANDARD_TARGETS, num_classes - 1)
    runner.apgd.n_restarts = settings.get("restarts", 1)
    runner.apgd_targeted.n_restarts, runner.apgd_targeted.n_target_classes = 1, targets
    if num_classes >= 4:
        runner.fab.n_restarts = 1  # fewer classes: untargeted, with the library's 5
    runner.fab.n_target_classes = targets
    runner.square.n_queries = 5000
