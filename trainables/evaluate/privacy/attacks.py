"""Attacks on membership by name: one float64 score per candidate, higher for likelier members.

``score`` never sees who is a member of the target. The attacks ``data_release`` and ``blind`` look at pixels and stand
in ``release.py`` and ``blind.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from trainables.configs import MembershipAttackName
from trainables.evaluate.accuracy import Floats
from trainables.evaluate.privacy import lira, rmia, shokri
from trainables.evaluate.privacy.inputs import NotApplicable, ShadowRows, Shadows, Target
from trainables.evaluate.privacy.statistics import STATISTICS, log_confidence, phi

__all__ = [
    "NEEDS",
    "NotApplicable",
    "Scored",
    "ShadowRows",
    "Shadows",
    "Target",
    "memorisation",
    "score",
    "threat_of",
    "threshold_of",
]

Need = Literal["nothing", "rows", "shadows", "images"]
NEEDS: dict[MembershipAttackName, Need] = {
    "loss": "nothing",
    "conf": "nothing",
    "max_conf": "nothing",
    "entropy": "nothing",
    "mentropy": "nothing",
    "correct": "nothing",
    "loss_classwise": "rows",
    "entropy_classwise": "rows",
    "mentropy_classwise": "rows",
    "shokri": "rows",
    "lira_online": "shadows",
    "lira_offline": "shadows",
    "rmia": "shadows",
    "calib": "shadows",
    "data_release": "images",
    "blind": "images",
}
"""What an attack needs besides the target's logits: nothing; ``ShadowRows`` of any shadows; ``Shadows`` asked about the
same candidates; images instead of logits (not here)."""

THREATS: dict[MembershipAttackName, str] = {"correct": "label_only", "data_release": "data_release", "blind": "none"}
"""What an attacker sees, where it is not the model's logits: predicted classes alone, the distilled images, nothing."""

PER_EXAMPLE_FROM = 16
"""Shadows from which LiRA with per-example variances is worth a row of its own."""
PRACTICE = 4
"""Shadows that thresholds of attacks with shadows are chosen on, at most."""


@dataclass(frozen=True)
class Scored:
    """What an attack says of every candidate."""

    values: Floats
    """(n,) finite; higher: likelier a member."""
    settings: dict[str, Any] = field(default_factory=dict)
    """For the row: ``n_shadows``, ``variance_mode``, ``rmia_mode``, ``rmia_a``, ``rmia_population``, ``by_class``, …"""
    pooled: Floats | None = None
    """(n,) scores that mean the same for every target and may be pooled over targets: LiRA's ratios, RMIA's share,
    calibrated losses. None where a target's own level enters."""
    extra: dict[str, Floats] = field(default_factory=dict)
    """Further scores (n,), e.g. ``rmia_share``."""
    variants: tuple[Scored, ...] = ()
    """The same attack with another ``variance_mode``, where there are shadows enough."""


def score(
    attack: MembershipAttackName, target: Target, rows: ShadowRows | None = None, shadows: Shadows | None = None
) -> Scored:
    """Run one attack.

    Args:
        attack: Any but ``data_release`` and ``blind``.
        target: The attacked model's logits on n candidates; with a population, ``rmia`` also gives its share.
        rows: Learning rows, for attacks whose need is ``rows``.
        shadows: Of the same candidates without target and twin, for attacks whose need is ``shadows``. Candidates of
            the reserve (IN nowhere) may be among them, except for ``lira_online``; ``rmia`` is offline then.

    Raises:
        NotApplicable: There are no or too few rows or shadows.
    """
    need = NEEDS[attack]
    assert need != "images", f"{attack} has a module of its own"
    if need == "nothing":
        return Scored(STATISTICS[attack](target.logits, target.labels))
    if need == "rows":
        if rows is None:
            raise NotApplicable(f"{attack} learns from shadows, and there are none")
        return _learned(attack, target, rows)
    if shadows is None or shadows.num == 0:
        raise NotApplicable(f"{attack} needs shadows asked about the target's own candidates, and there are none")
    assert shadows.logits.shape[1:] == target.logits.shape
    assert (shadows.labels == target.labels).all()
    found = _BY_SHADOWS[attack](target, shadows)
    assert all(np.isfinite(each.values).all() for each in (found, *found.variants))
    return found


def threat_of(attack: MembershipAttackName) -> str:
    """The column ``threat_model``."""
    return THREATS.get(attack, "blackbox")


def threshold_of(
    attack: MembershipAttackName, rows: ShadowRows | None = None, shadows: Shadows | None = None
) -> float | None:
    """The threshold (score >= threshold: member) with the greatest balanced accuracy on shadows.

    Attacks without shadows and those that learn from rows: on the rows (``shokri``: held out). Attacks with shadows: on
    up to four shadows, each attacked with the others but its twin; the log-ratio of ``lira_online`` falls back to 0.

    Returns:
        None where there are no shadows, or too few to attack one of them.
    """
    need = NEEDS[attack]
    if need in ("nothing", "rows"):
        if rows is None or not 0 < rows.member.sum() < len(rows.member):
            return None
        try:
            return best_threshold(_practice_rows(attack, rows), rows.member)
        except NotApplicable:
            return None
    if shadows is None or need == "images":
        return None
    chosen = shadows.take(shadows.ever_in)
    values, member = [], []
    for index in range(min(chosen.num, PRACTICE)):
        rest = chosen.without(index)
        try:
            found = _BY_SHADOWS[attack](chosen.as_target(index), rest).values if rest.num else None
        except NotApplicable:
            found = None
        if found is not None:
            values.append(found)
            member.append(chosen.member[index])
    if not values:
        return 0.0 if attack == "lira_online" else None
    return best_threshold(np.concatenate(values), np.concatenate(member))


def best_threshold(values: Floats, member: Any) -> float:
    """Midpoint between neighbouring scores where TPR - FPR is greatest; the lowest one on ties.

    Args:
        values: (r,) scores.
        member: (r,) bool, with both kinds.
    """
    levels, position = np.unique(values, return_inverse=True)
    gained = np.bincount(position, weights=member, minlength=len(levels)) / member.sum()
    lost = np.bincount(position, weights=~member, minlength=len(levels)) / (~member).sum()
    advantage = np.cumsum((gained - lost)[::-1])[::-1]  # of "score >= level"
    best = int(np.argmax(advantage))
    return float(levels[best] if best == 0 else levels[best - 1] / 2 + levels[best] / 2)


def memorisation(shadows: Shadows) -> Floats:
    """(n,) mean phi of a candidate's IN shadows less that of its OUT shadows: how much it stands out, without a look at
    the target (leave-one-out memorisation). 0 for the reserve.

    Raises:
        NotApplicable: Some candidate is IN for all shadows.
    """
    values = _shadow_phi(shadows)
    chosen = shadows.ever_in
    member = shadows.member[:, chosen]
    if member.all(axis=0).any():
        raise NotApplicable("memorisation needs an OUT shadow of every candidate")
    found = np.zeros(values.shape[1])
    inside = np.where(member, values[:, chosen], 0.0).sum(axis=0) / member.sum(axis=0)
    found[chosen] = inside - np.where(member, 0.0, values[:, chosen]).sum(axis=0) / (~member).sum(axis=0)
    return found


def _learned(attack: str, target: Target, rows: ShadowRows) -> Scored:
    if attack == "shokri":
        classifier = shokri.fit(rows)
        settings = {
            "by_class": classifier.by_class,
            "calibrated": classifier.calibrated,
            "learning_rows": len(rows.member),
        }
        return Scored(classifier.score(target.logits, target.labels), settings)
    name = attack.removesuffix("_classwise")
    values = STATISTICS[name](target.logits, target.labels) - shokri.centres(name, rows)[target.labels]
    return Scored(values, {"learning_rows": len(rows.member)}, pooled=values)


def _practice_rows(attack: str, rows: ShadowRows) -> Floats:
    if attack == "shokri":
        return shokri.fit(rows).held_out
    name = attack.removesuffix("_classwise")
    values = STATISTICS[name](rows.logits, rows.labels)
    return values if name == attack else values - shokri.centres(name, rows)[rows.labels]


def _lira_online(target: Target, shadows: Shadows) -> Scored:
    own, others = phi(target.logits, target.labels), _shadow_phi(shadows)
    return _by_variance(shadows, lambda mode: lira.online(own, others, shadows.member, mode))


def _lira_offline(target: Target, shadows: Shadows) -> Scored:
    own, others, out = phi(target.logits, target.labels), _shadow_phi(shadows), shadows.out
    return _by_variance(shadows, lambda mode: lira.offline(own, others, out, mode))


def _by_variance(shadows: Shadows, run: Any) -> Scored:
    def scored(mode: str, variants: tuple[Scored, ...] = ()) -> Scored:
        values = run(mode)
        return Scored(values, {"n_shadows": shadows.num, "variance_mode": mode}, values, variants=variants)

    return scored("shrunk", (scored("per_example"),) if shadows.num >= PER_EXAMPLE_FROM else ())


def _rmia(target: Target, shadows: Shadows) -> Scored:
    own, others = log_confidence(target.logits, target.labels), _shadow_log_confidence(shadows)
    out, settings = shadows.out, {"n_shadows": shadows.num, "rmia_mode": "online"}
    if out.sum(axis=0).min() < 1:
        raise NotApplicable("rmia needs an OUT shadow of every candidate")
    a = 1.0
    if shadows.ever_in.all():
        values = rmia.log_ratio_online(own, others, shadows.member, out)
    else:
        a = rmia.tuned_a(shadows) if shadows.ever_in.any() else rmia.A_UNTUNED
        settings |= {"rmia_mode": "offline", "rmia_a": a}
        values = rmia.log_ratio_offline(own, others, out, a)
    if target.population is None or target.population_labels is None or shadows.population is None:
        return Scored(values, settings)
    labels = target.population_labels
    log_z = log_confidence(shadows.population, np.broadcast_to(labels, shadows.population.shape[:2]))
    everywhere = np.ones(log_z.shape, dtype=np.bool_)  # no shadow was trained on any z
    ratios = rmia.log_ratio_offline(log_confidence(target.population, labels), log_z, everywhere, a)
    share = rmia.share(values, ratios)
    settings |= {"rmia_population": len(labels), "rmia_gamma": rmia.GAMMA}
    return Scored(values, settings, share, {"rmia_share": share})


def _calib(target: Target, shadows: Shadows) -> Scored:
    own, others = log_confidence(target.logits, target.labels), _shadow_log_confidence(shadows)
    values = rmia.calibrated(own, others, shadows.out)
    return Scored(values, {"n_shadows": shadows.num}, values)


def _shadow_phi(shadows: Shadows) -> Floats:
    return phi(shadows.logits, np.broadcast_to(shadows.labels, shadows.member.shape))


def _shadow_log_confidence(shadows: Shadows) -> Floats:
    return log_confidence(shadows.logits, np.broadcast_to(shadows.labels, shadows.member.shape))


_BY_SHADOWS = {"lira_online": _lira_online, "lira_offline": _lira_offline, "rmia": _rmia, "calib": _calib}
