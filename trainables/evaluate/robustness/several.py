"""What several attacks on one model say together: the worst case, and how far to trust each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from trainables.evaluate.accuracy import CI_LEVEL, Row, interval
from trainables.evaluate.robustness.curves import Curve
from trainables.evaluate.robustness.paired import Booleans, paired_difference
from trainables.payloads import AttackResult

ENSEMBLE = "ensemble_fb"
"""Each image's worst case over foolbox's attacks in one norm: what stands in for AutoAttack where that is not there."""
MEMBERS: dict[str, tuple[str, ...]] = {
    "linf": ("fgsm", "pgd_linf", "fmn_linf", "deepfool_linf"),
    "l2": ("pgd_l2", "cw_l2", "deepfool_l2"),
}
RR_EPSILON = {"l2": 0.5, "linf": 8 / 255}
"""BEARD's."""


def ensemble_of(curves: Mapping[str, Curve], norm: str) -> Curve | None:
    """Each image's worst case over the members that are there, at every epsilon that one of them has.

    What one found within a smaller epsilon counts, so that it is nowhere above any of them.

    Args:
        curves: By attack.
        norm: ``l2`` or ``linf``.

    Returns:
        None with fewer than two members.
    """
    members = {name: curves[name] for name in MEMBERS[norm] if name in curves}
    if len(members) < 2:
        return None
    first, *_ = members.values()
    epsilons = tuple(sorted({epsilon for curve in members.values() for epsilon in curve.epsilons}))
    robust = [
        np.logical_and.reduce(
            [curve.robust[sum(known <= epsilon for known in curve.epsilons) - 1] for curve in members.values()]
        )
        for epsilon in epsilons
    ]
    columns = {name: first.columns[name] for name in ("norm", "adv_def", "attack_lib", "attack_lib_version")}
    return Curve(
        epsilons, np.stack(robust), first.labels, {**columns, "attack": ENSEMBLE, "of_attacks": "+".join(members)}
    )


def gap_rows(curves: Mapping[str, Curve], norm: str) -> Iterator[Row]:
    """``adv_gap_strong``: robust accuracy by DeepFool less that by the strongest attack there is, hence how optimistic
    DeepFool is; where AutoAttack is missing, the ensemble at the epsilons that another member has, never below 0."""
    deepfool = curves.get(f"deepfool_{norm}")
    strong = curves["autoattack"] if norm == "linf" and "autoattack" in curves else ensemble_of(curves, norm)
    if deepfool is None or strong is None:
        return
    others = [
        curves[name] for name in ("autoattack", *MEMBERS[norm]) if name in curves and curves[name] is not deepfool
    ]
    for epsilon in strong.epsilons[1:]:
        ours, theirs = deepfool.at(epsilon), strong.at(epsilon)
        if ours is not None and theirs is not None and any(other.at(epsilon) is not None for other in others):
            value, limits = _paired(ours, theirs)
            yield deepfool.row(
                "adv_gap_strong", value, epsilon=epsilon, strong_attack=strong.columns["attack"], **limits
            )


def beard_rows(curves: Mapping[str, Curve], norm: str) -> Iterator[Row]:
    """``rr_beard`` = 1 - (c - mean a_k) / (c - min a_k) over at least two attacks k with robust accuracy a_k, c clean
    (BEARD's toolkit, arXiv 2411.09265). For comparison alone: it is normalised by the model's own worst attack, hence
    no ranking of models."""
    epsilon = RR_EPSILON[norm]
    found = {
        name: float(robust.mean())
        for name, curve in curves.items()
        if curve.columns["norm"] == norm and (robust := curve.at(epsilon)) is not None
    }
    if len(found) < 2:
        return
    first = curves[next(iter(found))]
    clean, lowest = float(first.robust[0].mean()), min(found.values())
    value = 1 - (clean - float(np.mean(list(found.values())))) / (clean - lowest) if clean > lowest else None
    plain = Curve(first.epsilons, first.robust, first.labels, {"norm": norm, "adv_def": "clip"})
    row = plain.row("rr_beard", value, "ratio", epsilon=epsilon, of_attacks="+".join(sorted(found)))
    yield row if value is not None else {**row, "flag": "degenerate"}


def alarm_rows(pgd: Curve, fgsm: AttackResult) -> Iterator[Row]:
    """``adv_pgd_weaker_than_fgsm``: robust accuracy by PGD less that by one step of FGSM at the same epsilon.

    Many steps that find less than one are an error of the protocol (step size, gradients that vanish) and no
    robustness: the row is flagged where the interval is above 0.
    """
    correct = fgsm.correct.numpy()
    for epsilon, misled in zip(fgsm.facts["epsilons"], fgsm.success.numpy(), strict=True):
        robust = pgd.at(epsilon)
        if robust is not None:
            value, limits = _paired(robust, correct & ~misled)
            row = pgd.row("adv_pgd_weaker_than_fgsm", value, epsilon=epsilon, **limits)
            yield {**row, "flag": "not_converged"} if limits["ci_low"] > 0 else row


def _paired(ours: Booleans, theirs: Booleans) -> tuple[float, Row]:
    found = paired_difference(ours, theirs, CI_LEVEL)
    return found.value, interval(found.ci_low, found.ci_high, "bonett-price")
