"""The attacks on robustness by name: norm, settings, budgets. No torch: planning reads this.

How each is run: ``trainables/evaluate/robustness/``. Epsilons are in units of images in [0, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Attack = Literal[
    "deepfool_l2", "deepfool_linf", "fgsm", "pgd_linf", "pgd_l2", "cw_l2", "fmn_linf", "autoattack", "apgd_ce"
]
LpNorm = Literal["l2", "linf"]

EPSILONS_L2 = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Holds 0.5, which RobustBench and BEARD report."""
EPSILONS_LINF = tuple(step / 255 for step in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16))
"""Holds 8/255 (RobustBench, BEARD) and 2/255, 4/255 (DD-RobustBench)."""
FEW_L2 = (0.25, 0.5)
FEW_LINF = (2 / 255, 4 / 255, 8 / 255)
"""For attacks that have to run anew for each budget."""
SETTING_COLUMNS = {
    "attack_steps": "steps",
    "rel_stepsize": "rel_stepsize",
    "overshoot": "overshoot",
    "candidates": "candidates",
    "restarts": "restarts",
}
"""Column of the table of measurements -> setting of the attack that it shows."""


@dataclass(frozen=True)
class AttackSpec:
    """One attack as the planner sees it."""

    name: Attack
    title: str
    """As printed in tables and figures."""
    norm: LpNorm
    minimal: bool
    """Whether it looks for the smallest perturbation: one run then gives the whole curve and a distance."""
    settings: dict[str, Any]
    """Complete, as JSON types."""
    epsilons: tuple[float, ...]
    """Ascending, without 0."""
    library: str
    extra: str | None = None
    """Of ddray, that installs the library; None: it comes with ddray."""
    cross_entropy: bool = False
    """Whether it follows the gradient of the cross-entropy and no other: where that vanishes it sees nothing."""


_DEEPFOOL: dict[str, Any] = {"steps": 50, "candidates": 10, "overshoot": 0.02, "loss": "logits"}
# A step of foolbox's default (1/30 of epsilon, 40 steps) can be weaker than a single one of FGSM; 0.1 is above 2.5/40.
_PGD: dict[str, Any] = {"steps": 40, "rel_stepsize": 0.1, "restarts": 5}
# foolbox would give up on a whole batch when its summed loss stalls: the result for an image would hang on the others.
# Its first constant (0.001) leaves no search step to refine, and its step (0.01) ends on the way where pixels are black
# or white: on digits the median distance is then 1.2 times DeepFool's, with these values 0.9 times.
_CW: dict[str, Any] = {
    "binary_search_steps": 5,
    "steps": 200,
    "stepsize": 0.05,
    "confidence": 0.0,
    "initial_const": 1.0,
    "abort_early": False,
}
_AUTO: dict[str, Any] = {"version": "standard"}
_APGD: dict[str, Any] = {"restarts": 1}
_FMN: dict[str, Any] = {"steps": 100, "max_stepsize": 1.0, "gamma": 0.05}

SPECS: dict[str, AttackSpec] = {
    spec.name: spec
    for spec in (
        AttackSpec("deepfool_l2", "DeepFool (L2)", "l2", True, _DEEPFOOL, EPSILONS_L2, "foolbox"),
        AttackSpec("deepfool_linf", "DeepFool (Linf)", "linf", True, _DEEPFOOL, EPSILONS_LINF, "foolbox"),
        AttackSpec("fgsm", "FGSM", "linf", False, {}, EPSILONS_LINF, "foolbox", cross_entropy=True),
        AttackSpec("pgd_linf", "PGD (Linf)", "linf", False, _PGD, FEW_LINF, "foolbox", cross_entropy=True),
        AttackSpec("pgd_l2", "PGD (L2)", "l2", False, _PGD, FEW_L2, "foolbox", cross_entropy=True),
        AttackSpec("cw_l2", "C&W (L2)", "l2", True, _CW, EPSILONS_L2, "foolbox"),
        AttackSpec("fmn_linf", "FMN (Linf)", "linf", True, _FMN, EPSILONS_LINF, "foolbox"),
        AttackSpec("autoattack", "AutoAttack (Linf)", "linf", False, _AUTO, FEW_LINF, "pyautoattack", "strong"),
        AttackSpec(
            "apgd_ce", "APGD-CE (Linf)", "linf", False, _APGD, FEW_LINF, "pyautoattack", "strong", cross_entropy=True
        ),
    )
}
"""By name, in the order of tables."""
assert set(SPECS) == set(get_args(Attack))


def attack_settings(name: str) -> dict[str, Any]:
    """The settings of an attack: a copy, complete.

    Args:
        name: A key of ``SPECS``.
    """
    return copy.deepcopy(SPECS[name].settings)


def epsilons_for(
    name: str, epsilons_l2: Sequence[float] | None = None, epsilons_linf: Sequence[float] | None = None
) -> tuple[float, ...]:
    """The budgets of an attack: those given for its norm, else its own. Ascending, each once, without 0.

    Args:
        name: A key of ``SPECS``.
        epsilons_l2: For attacks in L2.
        epsilons_linf: For attacks in Linf.
    """
    spec = SPECS[name]
    given = epsilons_l2 if spec.norm == "l2" else epsilons_linf
    return spec.epsilons if given is None else tuple(sorted({float(epsilon) for epsilon in given} - {0.0}))
