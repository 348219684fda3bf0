"""Likelihood-ratio attack (Carlini et al. 2022, arXiv 2112.03570) for few shadows.

Differs from the authors' scripts: the offline score is one-sided (theirs is a density, so that an image the target is
surer of than any shadow loses points); variances are of residuals about each image's own mean, separately for IN and
OUT (their fixed variance is the spread over all images, IN's for both); and between their two variances stands a
shrunken one, which needs no switch at some number of shadows.
Legend: phi (n,) of the target, shadow_phi (S, n), member (S, n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from trainables.evaluate.intervals import Booleans, Floats
from trainables.evaluate.privacy import statistics
from trainables.evaluate.privacy.inputs import NotApplicable, Scored, Shadows, Target

VarianceMode = Literal["per_example", "pooled", "shrunk"]
NU0 = 4.0
"""Weight of the pooled variance, in shadows; 4 to 8 is the useful range."""
PER_EXAMPLE_FROM = 16
"""Shadows from which per-example variances are worth a row of their own."""


def score_online(target: Target, shadows: Shadows) -> Scored:
    """``online`` on phi, with the shrunken variance and, where there are shadows enough, with per-example ones."""
    own, others = statistics.phi(target.logits, target.labels), shadows.apply(statistics.phi)
    return _by_variance(shadows, lambda mode: online(own, others, shadows.member, mode))


def score_offline(target: Target, shadows: Shadows) -> Scored:
    """``offline`` likewise, with the OUT shadows of each candidate."""
    own, others, out = statistics.phi(target.logits, target.labels), shadows.apply(statistics.phi), shadows.out
    return _by_variance(shadows, lambda mode: offline(own, others, out, mode))


def _by_variance(shadows: Shadows, run: Callable[[VarianceMode], Floats]) -> Scored:
    def scored(mode: VarianceMode, variants: dict[str, Scored]) -> Scored:
        values = run(mode)
        return Scored(values, {"n_shadows": shadows.num, "variance_mode": mode}, pooled=values, variants=variants)

    enough = shadows.num >= PER_EXAMPLE_FROM
    return scored("shrunk", {"_per_example": scored("per_example", {})} if enough else {})


def online(
    phi: Floats, shadow_phi: Floats, member: Booleans, mode: VarianceMode = "shrunk", nu0: float = NU0
) -> Floats:
    """log N(phi; mu_in, var_in) - log N(phi; mu_out, var_out) of each candidate.

    Args:
        phi: (n,) the target's.
        shadow_phi: (S, n).
        member: (S, n), each candidate IN and OUT at least twice.
        mode: Which variance, see ``moments``.
        nu0: Weight of the pooled variance.

    Raises:
        NotApplicable: Some candidate has fewer than two shadows on a side.
    """
    mean_in, var_in = moments(shadow_phi, member, mode, nu0, "IN")
    mean_out, var_out = moments(shadow_phi, ~member, mode, nu0, "OUT")
    ratio = np.log(var_out / var_in) + (phi - mean_out) ** 2 / var_out - (phi - mean_in) ** 2 / var_in
    return np.asarray(ratio / 2, dtype=np.float64)


def offline(phi: Floats, shadow_phi: Floats, out: Booleans, mode: VarianceMode = "shrunk", nu0: float = NU0) -> Floats:
    """(phi - mu_out) / sd_out: ranks as the one-sided tail probability does.

    Args:
        phi: (n,) the target's.
        shadow_phi: (S, n).
        out: (S, n) the shadows to use for each candidate, equally many and at least two.
        mode: Which variance.
        nu0: Weight of the pooled variance.

    Raises:
        NotApplicable: Some candidate has fewer than two shadows.
    """
    mean, variance = moments(shadow_phi, out, mode, nu0, "OUT")
    return np.asarray((phi - mean) / np.sqrt(variance), dtype=np.float64)


def moments(values: Floats, used: Booleans, mode: VarianceMode, nu0: float, side: str) -> tuple[Floats, Floats]:
    """Mean and variance of each candidate (n,) over the shadows that ``used`` (S, n) names.

    ``per_example``: SS_i / (n_i - 1). ``pooled``: sum_i SS_i / sum_i (n_i - 1). ``shrunk``: the posterior-like
    (nu0 pooled + SS_i) / (nu0 + n_i - 1). The mean is the arithmetic one, about which SS_i is smallest; the authors'
    script takes the median, with two or three shadows nearly the same number.

    Raises:
        NotApplicable: Some candidate has fewer than two.
    """
    counts = used.sum(axis=0)
    if counts.min() < 2:
        raise NotApplicable(f"a variance needs two {side} shadows of every candidate, got {int(counts.min())}")
    means = np.where(used, values, 0.0).sum(axis=0) / counts
    squares = (np.where(used, values - means, 0.0) ** 2).sum(axis=0)
    pooled = squares.sum() / (counts - 1).sum()
    if mode == "per_example":
        variances = squares / (counts - 1)
    elif mode == "pooled":
        variances = np.full(len(means), pooled)
    else:
        variances = (nu0 * pooled + squares) / (nu0 + counts - 1)
    # Shadows that agree to the last bit have no variance; any positive one keeps the score finite.
    return means, np.maximum(variances, max(1e-9 * pooled, 1e-12))
