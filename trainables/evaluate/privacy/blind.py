"""The control that looks at no model: can members be told from their pixels and labels alone?

If so, members and non-members come from different distributions, and every other attack's number is suspect (Das et
al., arXiv 2406.16201). n images, K classes, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional as F

from trainables.evaluate.intervals import CI_LEVEL, Booleans, Floats, Integers, Row
from trainables.evaluate.privacy.inputs import NotApplicable
from trainables.evaluate.privacy.metrics import Audited, membership_rows
from trainables.evaluate.privacy.roc import Z
from trainables.seeds import derive

SIDE = 4
"""Height and width to which images are averaged down."""
FOLDS = 5
RIDGE = 10.0
"""Weight of the squared coefficients, in images."""
PERMUTATIONS = 200
"""Behind the band, whose width they give to about 5 %."""
_BATCH = 50
"""Permutations at a time."""
_CHUNK = 2048
"""Images at a time."""


class Blind(NamedTuple):
    """Scores of the control and its own band."""

    scores: Floats
    """(n,) higher = more likely a member; each image is judged by a classifier that was fitted on others."""
    centre: float
    reach: float
    """The AUC lies within centre +- reach 95 % of the time when memberships say nothing."""


def blind_scores(
    images: NDArray[np.uint8],
    labels: Integers,
    member: Booleans,
    *,
    seed_parts: tuple[int | str, ...],
) -> Blind:
    """Tell members by a linear classifier on small images and labels, cross-fitted over five folds.

    Least squares with a ridge on standardised features, which is linear in the memberships: so the same fit on
    permuted ones is almost free, and the band comes from those instead of a formula. The AUC of cross-fitted scores
    spreads by about a third more than that of scores that were fixed beforehand, because folds judge each other. Folds
    are stratified by class and membership together, and memberships are permuted within a fold's class: given its
    counts every arrangement is equally likely. The band takes the permuted AUCs for normal.

    Args:
        images: (n, C, H, W) in 0 ... 255; averaged down to at most 4 x 4.
        labels: (n,) positions.
        member: (n,) what is to be told.
        seed_parts: Of the seed of folds and permutations.

    Raises:
        NotApplicable: A class has fewer than five members or non-members.
    """
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)  # of the classes that are there
    classes = int(labels.max()) + 1
    strata = 2 * labels + member
    if min(np.bincount(strata, minlength=2 * classes)) < FOLDS:
        raise NotApplicable(f"a class has fewer than {FOLDS} members or non-members")
    rng = np.random.default_rng(derive("privacy", "blind", *seed_parts))
    fold = _folds(strata, rng)
    features = np.concatenate([_small(images), np.eye(classes)[labels]], axis=1)
    features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-12)
    cells = [np.flatnonzero((labels == label) & (fold == part)) for label in range(classes) for part in range(FOLDS)]
    solved = [_solved(features, fold, part) for part in range(FOLDS)]
    scores = _judge(features, fold, solved, member[:, None].astype(np.float64))[:, 0]
    aucs = []
    for _ in range(PERMUTATIONS // _BATCH):
        shuffled = np.repeat(member[:, None], _BATCH, axis=1)
        for cell in cells:
            shuffled[cell] = rng.permuted(shuffled[cell], axis=0)
        judged = _judge(features, fold, solved, shuffled.astype(np.float64))
        aucs.append(_aucs(judged, shuffled))
    permuted = np.concatenate(aucs)
    return Blind(scores, float(permuted.mean()), Z * float(permuted.std(ddof=1)))


def blind_rows(scores: list[Audited], bands: list[Blind], base: Row) -> list[Row]:
    """The control's AUC and its own band, in place of the one for scores that were fixed beforehand.

    An AUC outside its band is flagged ``outside_band``: then members and non-members differ as images, and no other
    attack's number means what it says.
    """
    wanted = ("mia_auc", "mia_auc_null_low", "mia_auc_null_high")
    rows = membership_rows(scores, base=base, per_class=1.0)
    rows = [row for row in rows if row["metric"] in wanted and "member_role" not in row and "fpr" not in row]
    rows = [row for row in rows if row.get("nonmember_source") == base.get("nonmember_source")]
    centre = float(np.mean([band.centre for band in bands]))
    reach = float(np.sqrt(np.sum([band.reach**2 for band in bands]))) / len(bands)
    for row in rows:
        if row["metric"] == "mia_auc_null_low":
            row |= {"value": max(0.0, centre - reach), "band": "permutation"}
        elif row["metric"] == "mia_auc_null_high":
            row |= {"value": min(1.0, centre + reach), "band": "permutation"}
        else:
            row.pop("reason", None)
            own = (centre, reach) if "repeat" not in row else (bands[row["repeat"]].centre, bands[row["repeat"]].reach)
            row |= {
                "ci_low": max(0.0, row["value"] - own[1]),
                "ci_high": min(1.0, row["value"] + own[1]),
                "ci_level": CI_LEVEL,
                "ci_method": "permutation",
                "ci_unit": "images",
            }
            if abs(row["value"] - own[0]) > own[1]:
                row["flag"] = "outside_band"
    return rows


def _folds(strata: Integers, rng: np.random.Generator) -> Integers:
    fold = np.empty(len(strata), dtype=np.int64)
    for stratum in np.unique(strata):
        order = rng.permutation(np.flatnonzero(strata == stratum))
        fold[order] = (np.arange(len(order)) + rng.integers(FOLDS)) % FOLDS
    return fold


def _solved(features: Floats, fold: Integers, part: int) -> Floats:
    """Judged features times the inverse of the fitted ones' ridge matrix: (judged, F)."""
    fitted, judged = features[fold != part], features[fold == part]
    matrix = fitted.T @ fitted + RIDGE * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(matrix, judged.T).T, dtype=np.float64)


def _judge(features: Floats, fold: Integers, solved: list[Floats], member: Floats) -> Floats:
    """Scores (n, p) under p memberships (n, p)."""
    scores = np.empty_like(member)
    for part in range(FOLDS):
        fitted = fold != part
        mean = member[fitted].mean(0)
        scores[~fitted] = mean + solved[part] @ (features[fitted].T @ (member[fitted] - mean))
    return scores


def _aucs(scores: Floats, member: Booleans) -> Floats:
    """(p,) from the ranks of members."""
    ranks = stats.rankdata(scores, axis=0)
    num = member.sum(0)
    wins = (ranks * member).sum(0) - num * (num + 1) / 2
    return np.asarray(wins / (num * (len(member) - num)), dtype=np.float64)


def _small(images: NDArray[np.uint8]) -> Floats:
    side = min(SIDE, images.shape[-1])
    parts = (images[start : start + _CHUNK] / 255 for start in range(0, len(images), _CHUNK))
    out = [F.adaptive_avg_pool2d(torch.from_numpy(part), side).flatten(1).numpy() for part in parts]
    return np.concatenate(out)
