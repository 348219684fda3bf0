"""The strongest attack of a panel: how well it tells members, knowing that it was chosen among all of them.

What leaks is what the best attack finds, so of the attacks that an audit's panel names (``PANELS`` in
``trainables/attacks.py``) the one with the largest AUC speaks. Chosen by its own outcome it looks stronger than it is,
also where nothing leaks at all: its interval holds for all attacks of the panel at once, and the null band is that of
the largest of them.

Legend: A attacks, T targets, n candidates, the same for every attack and target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from trainables.evaluate.intervals import CI_LEVEL, Booleans, Floats, Row
from trainables.evaluate.paired import auc_difference, placements, usable
from trainables.evaluate.privacy.metrics import Audited
from trainables.evaluate.privacy.roc import Interval
from trainables.seeds import derive

DRAWS = 1 << 14
"""Of the largest deviation: its quantiles then err by 2 % of a standard deviation."""


def panel_rows(
    attacked: Mapping[str, Sequence[Audited]],
    *,
    base: Row,
    columns: Mapping[str, Row],
    taught_by: Mapping[str, int],
) -> list[Row]:
    """``mia_auc_strongest`` of a panel, with the band in which it lies when nothing leaks.

    * ``mia_auc_strongest``: the largest ``mia_auc`` (mean over targets) of the panel, ``attack`` whose it is. Its
      interval is one of ``len(attacked)`` that hold together in 95 % (Bonferroni), so that it holds for whichever was
      chosen.
    * ``mia_auc_strongest_null_low``, ``mia_auc_strongest_null_high``: see ``null_band``.

    Args:
        attacked: Attack -> its scores of each target, without canaries and reserve; the same candidates for all.
        base: Columns that all rows share; ``panel`` names the attacks.
        columns: Attack -> further columns of a row about it.
        taught_by: Attack -> as ``taught_by`` of ``membership_rows``.

    Returns:
        Nothing without an attack.
    """
    if not attacked:
        return []
    first = next(iter(attacked.values()))
    member = np.stack([each.member for each in first])
    targets, inside = len(first), int(member.sum(axis=1).min())
    shared: Row = {
        **base,
        "property": "privacy",
        "unit": "fraction",
        "n": member.shape[1],
        "n_pos": inside,
        "n_neg": member.shape[1] - inside,
        "agg": "single" if targets == 1 else "mean_targets",
        "panel": list(attacked),
    }
    if targets > 1:
        shared["n_agg"] = targets
    values = {name: np.stack([each.values for each in audits]) for name, audits in attacked.items()}
    placed = {
        name: np.stack([placements(*each) for each in zip(own, member, strict=True)]) for name, own in values.items()
    }
    aucs = {
        name: [float(row[side].mean()) for row, side in zip(own, member, strict=True)] for name, own in placed.items()
    }
    strongest = max(aucs, key=lambda name: float(np.mean(aucs[name])))
    row: Row = {**shared, **columns[strongest], "attack": strongest, "metric": "mia_auc_strongest"}
    row["value"] = float(np.mean(aucs[strongest]))
    if targets > 1:
        row["std"] = float(np.std(aucs[strongest], ddof=1))
    if limits := interval_of_mean(placed[strongest], member, 1 - (1 - CI_LEVEL) / len(attacked)):
        row |= {
            "ci_low": limits[0],
            "ci_high": limits[1],
            "ci_level": CI_LEVEL,
            "ci_method": "delong_bonferroni" if targets == 1 else "delong_two_way_bonferroni",
            "ci_unit": "images" if targets == 1 else "targets",
        }
    widths = np.array(
        [math.sqrt(1 + (targets - 1) / taught) if (taught := taught_by[name]) else 1.0 for name in attacked]
    )
    low, high = null_band(np.stack(list(values.values())), member, widths)
    ends = (("mia_auc_strongest_null_low", low), ("mia_auc_strongest_null_high", high))
    return [row, *({**shared, "metric": metric, "value": value} for metric, value in ends)]


def interval_of_mean(placed: Floats, member: Booleans, level: float) -> Interval | None:
    """Interval of the mean AUC over targets: that of ``auc_difference`` from scores that tie everywhere.

    Args:
        placed: (T, n) ``placements``.
        member: (T, n).
        level: Of the interval.

    Returns:
        None where it cannot be had: fewer than two images on a side, or no image tells anything.
    """
    if not usable(member):
        return None
    found = auc_difference(placed, np.full_like(placed, 0.5), member, level)
    if found.ci_low is not None and found.ci_high is not None:
        return max(0.0, 0.5 + found.ci_low), min(1.0, 0.5 + found.ci_high)
    inside = member.sum(axis=1)
    bound = float((1 - level) ** (1 / min(inside.min(), (member.shape[1] - inside).min())))
    return {0.5: (bound, 1.0), -0.5: (0.0, 1 - bound)}.get(found.value)


def null_band(values: Floats, member: Booleans, widths: Floats) -> Interval:
    """Where the largest of several attacks' mean AUCs lies 95 % of the time when nothing leaks.

    Given all scores, whoever is a member was drawn: every choice of so many candidates is equally likely, for each
    target on its own. An AUC is then a sum of ranks over a draw without replacement, and what two attacks have in
    common follows from the ranks that they give the same images,

        Cov(AUC_a, AUC_b) = S_ab / (n m (n - m)),  S_ab the covariance of the n ranks (divisor n - 1),

    for m members; of one attack without ties the variance of ``roc.null_reach``. Sums of so many ranks are normal, so
    the band lies between the 2.5 % and 97.5 % quantiles of the largest of A normal deviations with the mean over
    targets of these covariances. One attack's own band is lower at both ends. In simulations of six attacks on images
    that nothing is known of (60 images, 4 shadows, ``tests/unit/test_privacy_panel.py``) the largest AUC was within in
    96 %, and above the upper end of one attack's band in 10 % (one target) and 13 % (three) instead of 2.5 %.

    Args:
        values: (A, T, n) scores.
        member: (T, n).
        widths: (A,) by how much the mean over targets varies more than independent ones would; see ``_null`` in
            ``metrics.py``.
    """
    attacks, targets, count = values.shape
    covariance = np.zeros((attacks, attacks))
    for index in range(targets):
        inside = int(member[index].sum())
        ranks = stats.rankdata(values[:, index], axis=1)
        covariance += np.atleast_2d(np.cov(ranks)) / (count * inside * (count - inside))
    covariance *= np.outer(widths, widths) / targets**2
    sizes, directions = np.linalg.eigh(covariance)
    normal: Any = np.random.default_rng(derive("privacy", "panel", attacks)).standard_normal((DRAWS // 2, attacks))
    drawn = normal @ (directions * np.sqrt(np.maximum(sizes, 0.0))).T
    largest = np.concatenate([drawn.max(axis=1), (-drawn).max(axis=1)])
    low, high = np.quantile(largest, [(1 - CI_LEVEL) / 2, (1 + CI_LEVEL) / 2])
    return max(0.0, 0.5 + float(low)), min(1.0, 0.5 + float(high))
