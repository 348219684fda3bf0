"""The band of AUCs without a leak: memberships and logits that have nothing to do with each other, many times over.

Other tests look at one draw of many attacks and allow 1.6 times the band; these count how often it is left.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trainables.attacks import MEMBERSHIP_ATTACKS
from trainables.configs import MembershipAttackName
from trainables.evaluate.privacy.attacks import score
from trainables.evaluate.privacy.designs import learning_outputs
from trainables.evaluate.privacy.inputs import Shadows, Target
from trainables.evaluate.privacy.metrics import Audited, membership_rows
from trainables.evaluate.privacy.roc import auc

Floats = NDArray[np.float64]
IMAGES, CLASSES = 60, 3
LABELS = np.arange(IMAGES) % CLASSES
OTHERS: tuple[MembershipAttackName, ...] = ("lira_offline", "rmia", "calib", "entropy_classwise")


def matrix(rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Complementary pairs of rows, each class in halves."""
    member = np.zeros((rows, IMAGES), dtype=bool)
    for row in range(0, rows, 2):
        for index in range(CLASSES):
            own = np.flatnonzero(index == LABELS)
            member[row, rng.permutation(own)[: len(own) // 2]] = True
        member[row + 1] = ~member[row]
    return member


@cache
def mean_aucs(attacks: tuple[MembershipAttackName, ...], rows: int, targets: int, trials: int) -> dict[str, Floats]:
    """Of each attack, the mean AUC over targets (trials,); networks differ in how sharp their logits are."""
    rng = np.random.default_rng(rows)
    found: dict[str, list[float]] = {attack: [] for attack in attacks}
    for _ in range(trials):
        logits = rng.normal(size=(rows, IMAGES, CLASSES)) * np.exp(0.4 * rng.normal(size=(rows, 1, 1)))
        member = matrix(rows, rng)
        values: dict[str, list[float]] = {attack: [] for attack in attacks}
        for row in range(0, 2 * targets, 2):
            kept = [other for other in range(rows) if other // 2 != row // 2]
            shadows, target = Shadows(logits[kept], LABELS, member[kept]), Target(logits[row], LABELS)
            learned = learning_outputs(shadows)
            for attack in attacks:
                values[attack].append(auc(score(attack, target, learned, shadows).values, member[row]))
        for attack in attacks:
            found[attack].append(float(np.mean(values[attack])))
    return {attack: np.array(each) for attack, each in found.items()}


def reach(rows: int, targets: int, taught: bool) -> float:
    """How far the rows say that the mean AUC may be from 1/2."""
    scores = []
    for pair in range(targets):
        member = matrix(2, np.random.default_rng(pair))[0]
        role = np.where(member, 1, 2)
        scores.append(Audited(np.arange(IMAGES), member, np.arange(IMAGES), role, LABELS, 2 * pair))
    told = membership_rows(
        scores,
        base={"attack": "any"},
        per_class=10,
        taught_by=rows // 2 - 1 if taught else 0,
    )
    low, high = (
        next(row["value"] for row in told if row["metric"] == f"mia_auc_null_{end}") for end in ("low", "high")
    )
    assert (low + high) / 2 == pytest.approx(0.5)
    return float(high - low) / 2


def p_of_more_than(share: float, aucs: Floats, allowed: float) -> float:
    left = int((abs(aucs - 0.5) > allowed).sum())
    return float(stats.binomtest(left, len(aucs), share, alternative="greater").pvalue)


@pytest.mark.parametrize(("rows", "targets", "trials"), [(6, 3, 800), (16, 6, 300), (16, 8, 250)])
def test_shadows_that_teach_make_targets_dependent_and_the_band_knows(rows: int, targets: int, trials: int) -> None:
    aucs = mean_aucs(("lira_online",), rows, targets, trials)["lira_online"]
    narrow = reach(rows, targets, taught=False)
    assert aucs.std() > 1.08 * narrow / 1.96
    if targets == rows // 2:  # with all pairs as targets 8 to 10 % lie outside
        assert p_of_more_than(0.05, aucs, narrow) < 0.02
    assert p_of_more_than(0.05, aucs, reach(rows, targets, taught=True)) > 0.05
    assert reach(rows, targets, taught=True) == pytest.approx(narrow * (1 + (targets - 1) / (rows // 2 - 1)) ** 0.5)


@pytest.mark.parametrize("attack", OTHERS)
def test_attacks_to_which_members_and_others_are_alike_keep_the_narrow_band(attack: MembershipAttackName) -> None:
    assert not MEMBERSHIP_ATTACKS[attack].dependent
    aucs = mean_aucs(OTHERS, 6, 3, 400)[attack]
    narrow = reach(6, 3, taught=False)
    assert p_of_more_than(0.05, aucs, narrow) > 0.01
    assert aucs.std() == pytest.approx(narrow / 1.96, rel=0.1)


def test_one_target_has_nobody_to_depend_on() -> None:
    assert reach(6, 1, taught=True) == reach(6, 1, taught=False)
    aucs = mean_aucs(("lira_online",), 6, 1, 800)["lira_online"]
    assert p_of_more_than(0.05, aucs, reach(6, 1, taught=False)) > 0.01
