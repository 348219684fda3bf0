"""Attacks on membership by name: scores, thresholds and memorisation. One float64 score per candidate.

What an attack is, and which function scores, says its record in ``trainables/attacks.py``. Nothing here sees who is a
member of the target. Attacks that look at images instead of logits stand in ``release.py`` and ``blind.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.attacks import MEMBERSHIP_ATTACKS, load
from trainables.evaluate.intervals import Floats
from trainables.evaluate.privacy.inputs import NotApplicable, Scored, ShadowOutputs, Shadows, Target
from trainables.evaluate.privacy.statistics import phi

PRACTICE = 4
"""Shadows that thresholds of attacks with shadows are chosen on, at most."""


def score(attack: str, target: Target, outputs: ShadowOutputs | None = None, shadows: Shadows | None = None) -> Scored:
    """Run one attack that looks at logits.

    Args:
        attack: Its name.
        target: The attacked model's logits on n candidates; with a population, ``rmia`` also gives its share.
        outputs: Learning rows, for attacks that need ``shadow_outputs``.
        shadows: Of the same candidates without target and twin, for attacks that need ``shadows``. Candidates of the
            reserve (IN nowhere) may be among them, unless the attack leaves them out.

    Raises:
        NotApplicable: There are no or too few rows or shadows.
    """
    record = MEMBERSHIP_ATTACKS[attack]
    function = load(record.score)
    if record.needs == "logits":
        return Scored(function(target.logits, target.labels))
    if record.needs == "shadow_outputs":
        if outputs is None:
            raise NotApplicable(f"{attack} learns from shadows, and there are none")
        learned: Scored = function(outputs).score(target.logits, target.labels)
        return learned
    assert record.needs == "shadows", f"{attack} looks at images"
    if shadows is None or shadows.num == 0:
        raise NotApplicable(f"{attack} needs shadows asked about the target's own candidates, and there are none")
    assert shadows.logits.shape[1:] == target.logits.shape
    assert (shadows.labels == target.labels).all()
    scored: Scored = function(target, shadows)
    assert all(np.isfinite(each.values).all() for each in (scored, *scored.variants.values()))
    return scored


def threshold_of(attack: str, outputs: ShadowOutputs | None = None, shadows: Shadows | None = None) -> float | None:
    """The threshold (score >= threshold: member) with the greatest balanced accuracy on shadows.

    Attacks without shadows and those that learn from rows: on the rows (attack classifiers: held out). Attacks with
    shadows: on up to four shadows, each attacked with the others but its twin; with too few of them the threshold that
    the attack's record gives.

    Returns:
        None where there are no shadows, too few to attack one of them, or none of which a candidate is a member.
    """
    record = MEMBERSHIP_ATTACKS[attack]
    if record.needs in ("logits", "shadow_outputs"):
        if outputs is None or not 0 < outputs.member.sum() < len(outputs.member):
            return None
        function = load(record.score)
        try:
            learns = record.needs == "shadow_outputs"
            values = function(outputs).held_out if learns else function(outputs.logits, outputs.labels)
            return best_threshold(values, outputs.member)
        except NotApplicable:
            return None
    if shadows is None or record.needs != "shadows" or not shadows.ever_in.any():
        return None
    chosen = shadows.take(shadows.ever_in)
    practised, member = [], []
    for index in range(min(chosen.num, PRACTICE)):
        rest = chosen.without(index)
        if rest.num == 0:
            continue
        try:
            practised.append(score(attack, chosen.as_target(index), shadows=rest).values)
            member.append(chosen.member[index])
        except NotApplicable:
            continue
    if not practised:
        return record.threshold
    return best_threshold(np.concatenate(practised), np.concatenate(member))


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
        NotApplicable: Some candidate is IN for all shadows, or none is for any.
    """
    values = shadows.apply(phi)
    chosen = shadows.ever_in
    if not chosen.any():
        raise NotApplicable("memorisation needs an IN shadow")
    member = shadows.member[:, chosen]
    if member.all(axis=0).any():
        raise NotApplicable("memorisation needs an OUT shadow of every candidate")
    stands_out = np.zeros(values.shape[1])
    inside = np.where(member, values[:, chosen], 0.0).sum(axis=0) / member.sum(axis=0)
    stands_out[chosen] = inside - np.where(member, 0.0, values[:, chosen]).sum(axis=0) / (~member).sum(axis=0)
    return stands_out
