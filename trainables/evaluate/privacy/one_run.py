"""A lower bound on epsilon from a single training (Steinke, Nasr & Jagielski 2023, arXiv 2305.08846).

Each of m images was included by its own fair coin. From the scores we guess the coins of those we are surest of. If the
whole pipeline were (epsilon, delta) differentially private, more than a certain number of right guesses would be
unlikely; the bound is the greatest epsilon that is thereby refuted. It says how much leaks at least, never how little.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

from trainables.evaluate.intervals import CI_LEVEL, Booleans, Floats, Row, clopper_pearson
from trainables.seeds import derive

DELTA = 1e-5
SHARES = (0.02, 0.1, 0.5)
"""Shares of the images that are guessed, half of them from either end of the ranking. Registered here, before any score
is seen; the level is divided among them."""
EPSILON_MAX = 100.0


def eps_lower_bound(correct: int, guesses: int, delta: float, alpha: float, total: int | None = None) -> float:
    """Greatest epsilon that ``correct`` of ``guesses`` refute at level ``alpha``; 0 when none is.

    Args:
        correct: Right guesses, 0 to ``guesses``.
        guesses: Guesses made, abstentions not counted.
        delta: Of the guarantee that is refuted, in [0, 1].
        alpha: Chance of a bound above the truth, e.g. 0.05.
        total: m, all images whose coins could have been guessed; left out: ``guesses``. Matters with delta > 0 alone.
    """
    total = guesses if total is None else total
    assert 0 <= correct <= guesses <= total
    if guesses == 0 or _p_value(0.0, correct, guesses, delta, total) > alpha:
        return 0.0
    low, high = 0.0, EPSILON_MAX
    if _p_value(high, correct, guesses, delta, total) <= alpha:
        return high
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _p_value(middle, correct, guesses, delta, total) <= alpha else (low, middle)
    return low


def guess(values: Floats, guesses: int, seed_parts: tuple[int | str, ...]) -> tuple[Booleans, Booleans]:
    """Guess the coins of the highest and the lowest scores.

    Args:
        values: (m,) scores.
        guesses: How many, rounded down to an even number.
        seed_parts: What the order among ties is drawn for; it must not follow the coins.

    Returns:
        Who is guessed a member (m,), who a non-member (m,).
    """
    half = guesses // 2
    rng = np.random.default_rng(derive(*seed_parts, "one_run", "ties"))
    order = np.lexsort((rng.random(len(values)), values))
    members, others = np.zeros(len(values), dtype=np.bool_), np.zeros(len(values), dtype=np.bool_)
    others[order[:half]] = True
    members[order[len(values) - half :]] = True
    return members, others


def one_run_rows(
    values: Floats,
    coin: Booleans,
    *,
    seed_parts: tuple[int | str, ...],
    base: Row,
    delta: float = DELTA,
    shares: tuple[float, ...] = SHARES,
) -> list[Row]:
    """``mia_eps_lb``, the greatest bound of the registered shares, each at its part of the level (Bonferroni).

    One-sided: with probability 0.95 over coins and training the value does not exceed the true epsilon; ``ci_low`` is
    the value, ``ci_high`` None. Beside it the guesses of every share: ``mia_guess_acc``.

    Args:
        values: (m,) scores, higher: likelier a member.
        coin: (m,) who was included, each by a fair coin of its own (origin kind ``coin``; fixed halves do not do).
        seed_parts: For ties.
        base: Columns that all rows share.
        delta: Of the guarantee.
        shares: Of images guessed, chosen without a look at the scores.

    Returns:
        Rows with ``n`` guesses; ``delta``, ``guess_share`` and ``guesses`` go with the settings.
    """
    total, alpha = len(values), (1 - CI_LEVEL) / len(shares)
    rows: list[Row] = []
    best: tuple[float, float, int] = (0.0, shares[0], 0)
    for share in shares:
        members, others = guess(values, int(share * total), seed_parts)
        made = int(members.sum() + others.sum())
        right = int((members & coin).sum() + (others & ~coin).sum())
        rows.append(_guess_row(right, made, share, base))
        if made:
            best = max(best, (eps_lower_bound(right, made, delta, alpha, total), share, made))
    bound: Row = {
        **base,
        "property": "privacy",
        "metric": "mia_eps_lb",
        "value": best[0],
        "unit": "nat",
        "n": total,
        "n_pos": int(coin.sum()),
        "n_neg": int((~coin).sum()),
        "ci_low": best[0],
        "ci_high": None,
        "ci_level": CI_LEVEL,
        "ci_method": "steinke2023",
        "ci_unit": "images",
        "delta": delta,
        "guess_shares": list(shares),
    }
    return [bound, *rows]


def _guess_row(right: int, made: int, share: float, base: Row) -> Row:
    """Share of right guesses, with Clopper and Pearson's interval about the coins."""
    row: Row = {
        **base,
        "property": "privacy",
        "n": made,
        "guess_share": share,
        "metric": "mia_guess_acc",
        "value": None,
        "unit": "fraction",
    }
    if made == 0:
        return {**row, "flag": "degenerate"}
    low, high = clopper_pearson(right, made)
    limits: Row = {"ci_low": low, "ci_high": high, "ci_level": CI_LEVEL, "ci_method": "clopper_pearson"}
    return {**row, "value": right / made, **limits, "ci_unit": "images"}


def _p_value(epsilon: float, correct: int, guesses: int, delta: float, total: int) -> float:
    """Chance of at least ``correct`` right guesses under (epsilon, delta): with B ~ Binomial(guesses, q) and
    q = e^epsilon / (e^epsilon + 1), P(B >= v) + 2 m delta max_i P(v - i <= B < v) / i."""
    q = float(special.expit(epsilon))
    tail = float(stats.binom.sf(correct - 1, guesses, q))
    if delta == 0 or correct == 0:
        return min(tail, 1.0)
    below = np.cumsum(stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, q))
    worst = float((below / np.arange(1, correct + 1)).max())
    return min(math.fsum([tail, 2 * total * delta * worst]), 1.0)
