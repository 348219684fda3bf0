"""The one-run audit on mechanisms whose epsilon is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trainables.evaluate.privacy.one_run import SHARES, eps_lower_bound, guess, one_run_rows

ALPHA = 0.05


def randomised_response(
    epsilon: float, delta: float, m: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each coin shown rightly with probability e^epsilon / (1 + e^epsilon), and openly, as +-2, with ``delta``."""
    rng = np.random.default_rng(seed)
    coin = rng.random(m) < 0.5
    truthful = rng.random(m) < 1 / (1 + math.exp(-epsilon))
    sign = np.where(coin, 1.0, -1.0)
    return np.where(rng.random(m) < delta, 2 * sign, np.where(truthful, sign, -sign)), coin


def bounds(epsilon: float, delta: float, assumed: float, m: int, repeats: int) -> NDArray[np.float64]:
    found = []
    for seed in range(repeats):
        rows = one_run_rows(*randomised_response(epsilon, delta, m, seed), seed_parts=(seed,), base={}, delta=assumed)
        found.append(rows[0]["value"])
    return np.array(found)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 4.0])
def test_the_bound_is_below_the_truth(epsilon: float) -> None:
    found = bounds(epsilon, 0.0, 0.0, 1000, 200)
    above = int((found > epsilon).sum())
    assert stats.binomtest(above, 200, ALPHA, alternative="greater").pvalue > 0.01
    if epsilon:
        assert np.median(found) > 0.5 * epsilon


def test_the_bound_approaches_the_truth() -> None:
    for epsilon in (0.5, 1.0, 3.0):
        found = []
        for m in (100, 1000, 10_000, 100_000):
            expected = round(m / (1 + math.exp(-epsilon)))
            found.append(eps_lower_bound(expected, m, 0.0, ALPHA))
        assert found == sorted(found)
        assert 0.95 * epsilon < found[-1] < epsilon


def test_without_a_leak_the_bound_is_zero() -> None:
    assert (bounds(0.0, 0.0, 1e-5, 500, 100) == 0).mean() >= 1 - ALPHA
    assert eps_lower_bound(500, 1000, 1e-5, ALPHA) == 0
    assert eps_lower_bound(0, 1000, 1e-5, ALPHA) == 0


def test_what_delta_allows_is_not_held_against_epsilon() -> None:
    careless, careful = bounds(0.0, 0.04, 0.0, 1000, 100), bounds(0.0, 0.04, 0.04, 1000, 100)
    assert (careless > 0.5).mean() > 0.9  # a few coins shown openly look like a large epsilon
    assert (careful == 0).mean() >= 1 - ALPHA
    found = bounds(2.0, 0.01, 0.01, 1000, 100)
    assert (found > 2.0).mean() <= ALPHA


def test_delta_zero_is_the_binomial_interval() -> None:
    for correct, guesses in ((60, 100), (99, 100), (100, 100), (5300, 10_000)):
        q = stats.binomtest(correct, guesses, alternative="greater").proportion_ci(1 - ALPHA, method="exact").low
        expected = max(0.0, math.log(q / (1 - q)))
        assert eps_lower_bound(correct, guesses, 0.0, ALPHA) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("correct", "guesses", "total", "delta"), [(70, 100, 100, 1e-3), (18, 20, 500, 1e-4)])
def test_the_correction_against_its_formula(correct: int, guesses: int, total: int, delta: float) -> None:
    found = eps_lower_bound(correct, guesses, delta, ALPHA, total)

    def chance(epsilon: float) -> float:
        q = math.exp(epsilon) / (1 + math.exp(epsilon))
        pmf = [math.comb(guesses, k) * q**k * (1 - q) ** (guesses - k) for k in range(guesses + 1)]
        worst = max(sum(pmf[max(correct - i, 0) : correct]) / i for i in range(1, total + 1))
        return sum(pmf[correct:]) + 2 * total * delta * worst

    assert found > 0
    assert chance(found) == pytest.approx(ALPHA, abs=1e-6)


def test_the_bound_moves_as_it_must() -> None:
    by_correct = [eps_lower_bound(correct, 200, 1e-5, ALPHA) for correct in range(100, 201, 10)]
    assert by_correct == sorted(by_correct)
    by_delta = [eps_lower_bound(180, 200, delta, ALPHA) for delta in (0.0, 1e-5, 1e-3, 1e-2)]
    assert by_delta == sorted(by_delta, reverse=True)
    assert by_delta[0] > by_delta[-1]
    by_total = [eps_lower_bound(180, 200, 1e-4, ALPHA, total) for total in (200, 2000, 20_000)]
    assert by_total == sorted(by_total, reverse=True)
    assert eps_lower_bound(200, 200, 0.0, ALPHA) < 10  # all right: still a finite number
    assert eps_lower_bound(0, 0, 0.0, ALPHA) == 0


def test_guesses_come_from_both_ends() -> None:
    members, others = guess(np.array([0.3, -1.0, 5.0, 0.2, 0.1, 9.0]), 4, ())
    assert np.flatnonzero(members).tolist() == [2, 5]
    assert np.flatnonzero(others).tolist() == [1, 4]
    assert not guess(np.arange(5.0), 1, ())[0].any()


def test_ties_do_not_follow_the_order_of_the_images() -> None:
    """Members listed first and scores all equal: guessing in order of the list would be right every time."""
    coin = np.arange(1000) < 500
    members, others = guess(np.zeros(1000), 1000, ("ties",))
    assert 0.4 < (members[coin].mean() + others[~coin].mean()) / 2 < 0.6
    assert one_run_rows(np.zeros(1000), coin, seed_parts=("ties",), base={})[0]["value"] == 0


def test_rows() -> None:
    values, coin = randomised_response(2.0, 0.0, 1000, 1)
    bound, *shares = one_run_rows(values, coin, seed_parts=("rows",), base={"attack": "loss", "audit": "one_run"})
    assert (bound["metric"], bound["unit"], bound["n"], bound["ci_low"]) == ("mia_eps_lb", "nat", 1000, bound["value"])
    assert bound["n_pos"] == coin.sum()
    assert [row["guess_share"] for row in shares] == list(SHARES)
    assert [row["n"] for row in shares] == [20, 100, 500]
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in shares)
    # Each share on its own at a third of the level; the row is the best of them.
    single = [eps_lower_bound(round(row["value"] * row["n"]), row["n"], 1e-5, ALPHA / 3, 1000) for row in shares]
    assert bound["value"] == max(single) > 0
    few = one_run_rows(values[:10], coin[:10], seed_parts=("rows",), base={})
    assert few[1]["flag"] == "degenerate"
