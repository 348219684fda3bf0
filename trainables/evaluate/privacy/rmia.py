"""Relative membership inference (Zarifzadeh et al. 2024, arXiv 2312.03262), and calibration by difficulty.

With one population Z for all candidates, the share of z with r_x / r_z > gamma rises with r_x alone, for any gamma: so
the score is log r_x, which has no ties, and the share is given beside it. r = p_y of the target over p(x).
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from trainables.evaluate.intervals import Booleans, Floats
from trainables.evaluate.privacy.inputs import NotApplicable, Scored, Shadows, Target
from trainables.evaluate.privacy.statistics import log_confidence

GAMMA = 1.0
A_GRID = tuple(step / 10 for step in range(11))
A_UNTUNED = 1.0
"""Takes p(x) for the mean over OUT shadows, which assumes nothing; for when there are too few shadows to tune."""
REFERENCES = 8
"""Shadows that a is tuned on at most."""


def score(target: Target, shadows: Shadows) -> Scored:
    """log r_x of each candidate: online where all of them are members of some shadow, else offline with a tuned a.

    With a population, the share of it that a candidate's ratio exceeds is the score that may be pooled over targets.

    Raises:
        NotApplicable: Some candidate has no OUT shadow.
    """
    own, others, out = log_confidence(target.logits, target.labels), shadows.apply(log_confidence), shadows.out
    if out.sum(axis=0).min() < 1:
        raise NotApplicable("rmia needs an OUT shadow of every candidate")
    a, tuned = 1.0, {}
    settings = {"n_shadows": shadows.num, "rmia_mode": "online"}
    if shadows.ever_in.all():
        values = log_ratio_online(own, others, shadows.member, out)
    else:
        a = tuned_a(shadows) if shadows.ever_in.any() else A_UNTUNED
        settings["rmia_mode"], tuned = "offline", {"rmia_a": a}
        values = log_ratio_offline(own, others, out, a)
    if target.population is None or target.population_labels is None or shadows.population is None:
        return Scored(values, settings, tuned)
    labels = target.population_labels
    log_z = log_confidence(shadows.population, np.broadcast_to(labels, shadows.population.shape[:2]))
    everywhere = np.ones(log_z.shape, dtype=np.bool_)  # no shadow was trained on any z
    ratios = log_ratio_offline(log_confidence(target.population, labels), log_z, everywhere, a)
    above = share(values, ratios)
    settings |= {"rmia_population": len(labels), "rmia_gamma": GAMMA}
    return Scored(values, settings, tuned, above, {"rmia_share": above})


def score_calibrated(target: Target, shadows: Shadows) -> Scored:
    """``calibrated`` with the OUT shadows of each candidate."""
    own, others = log_confidence(target.logits, target.labels), shadows.apply(log_confidence)
    values = calibrated(own, others, shadows.out)
    return Scored(values, {"n_shadows": shadows.num}, pooled=values)


def log_ratio_online(log_target: Floats, log_shadows: Floats, member: Booleans, out: Booleans) -> Floats:
    """log r_x with p(x) = (mean over IN shadows + mean over OUT shadows) / 2 of p_y.

    Args:
        log_target: (n,) log p_y of the target.
        log_shadows: (S, n).
        member: (S, n), at least one per candidate.
        out: (S, n), the OUT shadows to use, at least one per candidate.
    """
    weights = member / (2.0 * member.sum(axis=0)) + out / (2.0 * out.sum(axis=0))
    return log_target - log_mean(log_shadows, weights)


def log_ratio_offline(log_target: Floats, log_shadows: Floats, out: Booleans, a: float) -> Floats:
    """log r_x with p(x) = ((1 + a) mean over OUT shadows + (1 - a)) / 2, a in [0, 1]."""
    log_out = log_mean(log_shadows, out / out.sum(axis=0, dtype=np.float64))
    if a == 1.0:
        return log_target - log_out
    return np.asarray(log_target - np.log1p((1 + a) / 2 * np.expm1(log_out)), dtype=np.float64)


def log_mean(logs: Floats, weights: Floats) -> Floats:
    """log sum_s w_s exp(l_s) for logs <= 0 (S, n) and weights (S, n) that sum to 1.

    Near 0 through expm1, so that probabilities which differ from 1 by less than 1e-16 still differ.
    """
    with np.errstate(divide="ignore"):  # in the branch that is not taken
        far = special.logsumexp(logs, axis=0, b=weights)
        near = np.log1p(np.maximum((weights * np.expm1(logs)).sum(axis=0), -1.0))
    return np.asarray(np.where(far > -0.5, near, far), dtype=np.float64)


def share(log_ratios: Floats, log_population: Floats, gamma: float = GAMMA) -> Floats:
    """Share of the population (m,) with r_x / r_z > gamma, for each candidate (n,)."""
    below = np.searchsorted(np.sort(log_population), log_ratios - np.log(gamma), side="left")
    return np.asarray(below / len(log_population), dtype=np.float64)


def tuned_a(shadows: Shadows, grid: tuple[float, ...] = A_GRID) -> float:
    """The a of the grid with the greatest mean AUC when shadows are attacked instead of the target.

    Up to ``REFERENCES`` shadows, each attacked with all others but its twin. Neither the target nor its twin is among
    them, so nothing of the target enters. Ties go to the smaller a.

    Returns:
        ``A_UNTUNED`` when no shadow would have an OUT shadow of every candidate left.
    """
    chosen = shadows.take(shadows.ever_in)
    logs = chosen.apply(log_confidence)
    totals, used = np.zeros(len(grid)), 0
    for index in range(min(chosen.num, REFERENCES)):
        others = np.flatnonzero(chosen.pairs != chosen.pairs[index])
        others = others[others != index]
        out, member = ~chosen.member[others], chosen.member[index]
        if not len(others) or out.sum(axis=0).min() < 1 or not 0 < member.sum() < len(member):
            continue
        for position, a in enumerate(grid):
            ranks = stats.rankdata(log_ratio_offline(logs[index], logs[others], out, a))
            totals[position] += ranks[member].mean()  # rises with the AUC; the same line for every a
        used += 1
    return grid[int(np.argmax(totals))] if used else A_UNTUNED


def calibrated(log_target: Floats, log_shadows: Floats, out: Booleans) -> Floats:
    """log p_y of the target less its mean over OUT shadows (difficulty calibration, Watson et al. 2022).

    Raises:
        NotApplicable: Some candidate has no OUT shadow.
    """
    counts = out.sum(axis=0)
    if counts.min() < 1:
        raise NotApplicable("needs an OUT shadow of every candidate, got none")
    return np.asarray(log_target - np.where(out, log_shadows, 0.0).sum(axis=0) / counts, dtype=np.float64)
