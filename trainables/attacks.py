"""The attacks by name, one record each: on robustness, then on membership. No torch: planning reads this.

A record names its computation as ``module:function``, which is imported when a stage runs it. To add an attack, add a
record here and its function there; the configurations take their names from these tables.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LpNorm = Literal["l2", "linf"]

EPSILONS_L2 = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)
"""In units of images in [0, 1]. Holds 0.5, which RobustBench and BEARD report."""
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

DEEPFOOL_STEPS = 6
"""That DeepFool takes, of the 50 it may: an image is usually across the border by then."""
AUTOATTACK_PASSES = 8000
"""Of an image and a budget: mostly the 5,000 queries of Square, which images that fell before are spared."""
APGD_STEPS = 100

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RobustnessAttack:
    """One attack on a trained model's predictions. There are two families, as in foolbox."""

    name: str
    title: str
    """As printed in tables and figures."""
    norm: LpNorm
    minimal: bool
    """The family. True: it looks for the smallest perturbation, so that one run gives the whole curve and a distance.
    False: it looks for any perturbation within a budget and runs anew for each."""
    run: str
    """``module:function``. Of minimal attacks: foolbox's class, made with the settings. Of the others: a function
    ``(attack, settings, network, batch, epsilons) -> (E, b) bool``, see ``robustness/foolbox_attacks.py``."""
    settings: Settings
    """Complete, as JSON types."""
    epsilons: tuple[float, ...]
    """Ascending, without 0, in units of images in [0, 1]."""
    library: str
    extra: str | None = None
    """Of ddray, that installs the library; None: it comes with ddray."""
    cross_entropy: bool = False
    """Whether it follows the gradient of the cross-entropy and no other: where that vanishes it sees nothing."""
    parts: str | None = None
    """``module:function`` of (settings, number of classes) -> names of the attacks it is made of; None: of itself."""
    passes: Callable[[Settings], float]
    """Rough cost on one image in forward passes, a gradient counting three; of attacks within a budget, for each."""

    def cost(self, settings: Settings, budgets: int) -> float:
        """Rough cost on one image, in forward passes, for so many budgets: the order of jobs and nothing else.

        A minimal attack runs once and tests each budget with one pass; the others run once for each.
        """
        own = float(self.passes(settings))
        return own + budgets if self.minimal else own * budgets


_DEEPFOOL: Settings = {"steps": 50, "candidates": 10, "overshoot": 0.02, "loss": "logits"}
# A step of foolbox's default (1/30 of epsilon, 40 steps) can be weaker than a single one of FGSM; 0.1 is above 2.5/40.
_PGD: Settings = {"steps": 40, "rel_stepsize": 0.1, "restarts": 5}
# foolbox would give up on a whole batch when its summed loss stalls: the result for an image would hang on the others.
# Its first constant (0.001) leaves no search step to refine, and its step (0.01) ends on the way where pixels are black
# or white: on digits the median distance is then 1.2 times DeepFool's, with these values 0.9 times.
_CW: Settings = {
    "binary_search_steps": 5,
    "steps": 200,
    "stepsize": 0.05,
    "confidence": 0.0,
    "initial_const": 1.0,
    "abort_early": False,
}
_AUTO: Settings = {"version": "standard"}
_APGD: Settings = {"restarts": 1}
_FMN: Settings = {"steps": 100, "max_stepsize": 1.0, "gamma": 0.05}


def _deepfool_passes(settings: Settings) -> float:
    return float(3 * DEEPFOOL_STEPS * ((settings["candidates"] or 10) - 1))


def _pgd_passes(settings: Settings) -> float:
    return float(3 * settings["steps"] * settings["restarts"])


ROBUSTNESS_ATTACKS: dict[str, RobustnessAttack] = {
    attack.name: attack
    for attack in (
        RobustnessAttack(
            name="deepfool_l2",
            title="DeepFool (L2)",
            norm="l2",
            minimal=True,
            run="foolbox.attacks.deepfool:L2DeepFoolAttack",
            settings=_DEEPFOOL,
            epsilons=EPSILONS_L2,
            library="foolbox",
            passes=_deepfool_passes,
        ),
        RobustnessAttack(
            name="deepfool_linf",
            title="DeepFool (Linf)",
            norm="linf",
            minimal=True,
            run="foolbox.attacks.deepfool:LinfDeepFoolAttack",
            settings=_DEEPFOOL,
            epsilons=EPSILONS_LINF,
            library="foolbox",
            passes=_deepfool_passes,
        ),
        RobustnessAttack(
            name="fgsm",
            title="FGSM",
            norm="linf",
            minimal=False,
            run="trainables.evaluate.robustness.foolbox_attacks:fgsm",
            settings={},
            epsilons=EPSILONS_LINF,
            library="foolbox",
            cross_entropy=True,
            passes=lambda settings: 3,
        ),
        RobustnessAttack(
            name="pgd_linf",
            title="PGD (Linf)",
            norm="linf",
            minimal=False,
            run="trainables.evaluate.robustness.foolbox_attacks:pgd",
            settings=_PGD,
            epsilons=FEW_LINF,
            library="foolbox",
            cross_entropy=True,
            passes=_pgd_passes,
        ),
        RobustnessAttack(
            name="pgd_l2",
            title="PGD (L2)",
            norm="l2",
            minimal=False,
            run="trainables.evaluate.robustness.foolbox_attacks:pgd",
            settings=_PGD,
            epsilons=FEW_L2,
            library="foolbox",
            cross_entropy=True,
            passes=_pgd_passes,
        ),
        RobustnessAttack(
            name="cw_l2",
            title="C&W (L2)",
            norm="l2",
            minimal=True,
            run="foolbox.attacks.carlini_wagner:L2CarliniWagnerAttack",
            settings=_CW,
            epsilons=EPSILONS_L2,
            library="foolbox",
            passes=lambda settings: 3 * settings["steps"] * settings["binary_search_steps"],
        ),
        RobustnessAttack(
            name="fmn_linf",
            title="FMN (Linf)",
            norm="linf",
            minimal=True,
            run="foolbox.attacks.fast_minimum_norm:LInfFMNAttack",
            settings=_FMN,
            epsilons=EPSILONS_LINF,
            library="foolbox",
            passes=lambda settings: 3 * settings["steps"],
        ),
        RobustnessAttack(
            name="autoattack",
            title="AutoAttack (Linf)",
            norm="linf",
            minimal=False,
            run="trainables.evaluate.robustness.autoattack:run",
            settings=_AUTO,
            epsilons=FEW_LINF,
            library="pyautoattack",
            extra="strong",
            parts="trainables.evaluate.robustness.autoattack:parts",
            passes=lambda settings: AUTOATTACK_PASSES,
        ),
        RobustnessAttack(
            name="apgd_ce",
            title="APGD-CE (Linf)",
            norm="linf",
            minimal=False,
            run="trainables.evaluate.robustness.autoattack:run",
            settings=_APGD,
            epsilons=FEW_LINF,
            library="pyautoattack",
            extra="strong",
            cross_entropy=True,
            parts="trainables.evaluate.robustness.autoattack:parts",
            passes=lambda settings: 3 * APGD_STEPS * settings["restarts"],
        ),
    )
}
"""By name, in the order of tables."""


def attack_settings(name: str) -> Settings:
    """The settings of an attack on robustness: a copy, complete."""
    return copy.deepcopy(ROBUSTNESS_ATTACKS[name].settings)


def epsilons_for(
    name: str, epsilons_l2: Sequence[float] | None = None, epsilons_linf: Sequence[float] | None = None
) -> tuple[float, ...]:
    """The budgets of an attack: those given for its norm, else its own. Ascending, each once, without 0."""
    attack = ROBUSTNESS_ATTACKS[name]
    given = epsilons_l2 if attack.norm == "l2" else epsilons_linf
    return attack.epsilons if given is None else tuple(sorted({float(epsilon) for epsilon in given} - {0.0}))


Audit = Literal["seed", "pool", "one_run"]
Need = Literal["logits", "shadow_outputs", "shadows", "distilled_set", "truth"]
ThreatModel = Literal["blackbox", "label_only", "data_release", "none"]
EVERY_AUDIT: tuple[Audit, ...] = ("seed", "pool", "one_run")


@dataclass(frozen=True, kw_only=True)
class MembershipAttack:
    """One attack on membership: what it looks at, and the function that gives each candidate a score."""

    name: str
    title: str
    """As printed in tables and figures."""
    needs: Need
    """What it looks at beside candidates and labels, hence how ``score`` is called (``privacy/attacks.py``):

    * ``logits``: the target's own, ``(logits, labels) -> (n,)``;
    * ``shadow_outputs``: also outputs of any shadows with known memberships, to learn from,
      ``(ShadowOutputs) -> Learned``;
    * ``shadows``: also shadows that were queried about the target's own candidates, ``(Target, Shadows) -> Scored``;
    * ``distilled_set``: the released images and no model,
      ``(images, labels, sets, dataset, poll) -> [{variant: Scored}]``;
    * ``truth``: images, labels and who is a member: a control and no attack,
      ``(images, labels, member, seed_parts) -> Blind``.
    """
    score: str
    """``module:function``; scores are float64, higher for likelier members."""
    threat_model: ThreatModel = "blackbox"
    """What the attacker sees: logits, predicted classes alone, the distilled images alone, nothing."""
    audits: tuple[Audit, ...] = EVERY_AUDIT
    """Those it is part of. An audit that lacks what the attack needs has a row that says so."""
    panel: tuple[Audit, ...] = ()
    """Audits whose headline it may be. Leakage is a worst case: of an audit's panel the strongest attack speaks, with
    an interval and a null band that know that it was chosen among all of them (``privacy/panel.py``)."""
    paper: bool = False
    """Whether it is of the kind that the numbers of Chen et al. 2023 are of."""
    reserve: Literal["scored", "variant", "left_out"] = "scored"
    """Images that are never members are scored with the others; by a variant of the attack, because their presence
    changes how all are scored; or not at all."""
    dependent: bool = False
    """Whether members and non-members of the shadows play different parts in the score. Then two targets that are each
    other's shadows have dependent AUCs even when nothing leaks, and the null band of their mean is wider. Class-wise
    centres, online RMIA and calibration give both the same weight."""
    threshold: float | None = None
    """Score at or above which a candidate counts as a member, where there are too few shadows to choose one."""
    report_variants: tuple[str, ...] = ()
    """Variants with columns of their own in the report's table of other attacks."""
    note: str | None = None
    """What the report says beneath that table."""


MEMBERSHIP_ATTACKS: dict[str, MembershipAttack] = {
    attack.name: attack
    for attack in (
        MembershipAttack(
            name="loss",
            title="Loss",
            needs="logits",
            score="trainables.evaluate.privacy.statistics:log_confidence",
            panel=EVERY_AUDIT,
            paper=True,
        ),
        MembershipAttack(
            name="conf",
            title="Confidence",
            needs="logits",
            score="trainables.evaluate.privacy.statistics:phi",
        ),
        MembershipAttack(
            name="max_conf",
            title="Largest confidence",
            needs="logits",
            score="trainables.evaluate.privacy.statistics:max_log_odds",
        ),
        MembershipAttack(
            name="entropy",
            title="Entropy",
            needs="logits",
            score="trainables.evaluate.privacy.statistics:negative_entropy",
        ),
        MembershipAttack(
            name="mentropy",
            title="Modified entropy",
            needs="logits",
            score="trainables.evaluate.privacy.statistics:negative_modified_entropy",
        ),
        MembershipAttack(
            name="correct",
            title="Correctness",
            needs="logits",
            score="trainables.evaluate.privacy.statistics:correctness",
            threat_model="label_only",
        ),
        MembershipAttack(
            name="loss_classwise",
            title="Loss by class",
            needs="shadow_outputs",
            score="trainables.evaluate.privacy.learned:loss_centres",
        ),
        MembershipAttack(
            name="entropy_classwise",
            title="Entropy by class",
            needs="shadow_outputs",
            score="trainables.evaluate.privacy.learned:entropy_centres",
        ),
        MembershipAttack(
            name="mentropy_classwise",
            title="Modified entropy by class",
            needs="shadow_outputs",
            score="trainables.evaluate.privacy.learned:mentropy_centres",
        ),
        MembershipAttack(
            name="shokri",
            title="Attack classifier",
            needs="shadow_outputs",
            score="trainables.evaluate.privacy.learned:attack_classifier",
            panel=("seed", "pool"),
            paper=True,
            dependent=True,
        ),
        MembershipAttack(
            name="lira_online",
            title="LiRA, online",
            needs="shadows",
            score="trainables.evaluate.privacy.lira:score_online",
            panel=("pool",),
            reserve="left_out",
            dependent=True,
            threshold=0.0,  # the score is a log-ratio of likelihoods
        ),
        MembershipAttack(
            name="lira_offline",
            title="LiRA, offline",
            needs="shadows",
            score="trainables.evaluate.privacy.lira:score_offline",
            panel=("seed", "pool"),
        ),
        MembershipAttack(
            name="rmia",
            title="RMIA",
            needs="shadows",
            score="trainables.evaluate.privacy.rmia:score",
            panel=("seed", "pool"),
            reserve="variant",  # with images that are IN nowhere it averages over OUT shadows alone, for all alike
            report_variants=("offline",),
        ),
        MembershipAttack(
            name="calib",
            title="Difficulty calibration",
            needs="shadows",
            score="trainables.evaluate.privacy.rmia:score_calibrated",
            panel=("seed", "pool"),
        ),
        MembershipAttack(
            name="data_release",
            title="Distance to the set",
            needs="distilled_set",
            score="trainables.evaluate.privacy.release:score",
            threat_model="data_release",
            panel=("seed", "pool"),
            report_variants=("relative", "features", "labels"),
            note="`data_release` sees the distilled images alone: their distance in pixels; relative: over that to the "
            "whole set; features: the same between features of random networks.",
        ),
        MembershipAttack(
            name="blind",
            title="No model",
            needs="truth",
            score="trainables.evaluate.privacy.blind:blind_scores",
            threat_model="none",
            # In one run members are chosen by coins of our own: there are no two distributions to tell apart.
            audits=("seed", "pool"),
            note="`blind` sees no model: away from 50 it says that members and others differ as images.",
        ),
    )
}
"""By name, in the order of rows."""

PANELS: dict[Audit, tuple[str, ...]] = {
    audit: tuple(name for name, attack in MEMBERSHIP_ATTACKS.items() if audit in attack.panel) for audit in EVERY_AUDIT
}
"""Audit -> the attacks of its panel, registered beforehand, in the order of rows. Each by its own score: variants stand
beside it and are in no panel."""


def load(path: str) -> Any:
    """What ``module:name`` names; imports the module."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
