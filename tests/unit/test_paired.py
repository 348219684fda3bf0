"""Differences of two models, checked against SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainables.evaluate.paired import (
    adv_delta,
    censored_quantile,
    common_distances,
    crossover,
    mcnemar,
    paired_difference,
    robust_curve,
    shared,
)


def test_a_curve_is_cumulative_and_begins_with_the_clean_images() -> None:
    success = [[True, False, False, True], [False, True, False, True]]  # the first not monotone, the last wrong at 0
    curve = robust_curve([True, True, True, False], success)
    assert curve.tolist() == [[True, True, True, False], [False, True, True, False], [False, False, True, False]]


def test_shared_images_in_one_order() -> None:
    a, b = shared(np.array([2, 5, 7, 9]), np.array([1, 5, 9, 11]))
    assert (a.tolist(), b.tolist()) == ([1, 3], [1, 2])


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_binomial_test(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_difference_turns_with_its_sides(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.value == -back.value == pytest.approx(a.mean() - b.mean())
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low))
    assert -1 <= there.ci_low <= there.value <= there.ci_high <= 1
    assert there.n == len(pairs)
    assert there.p_value == back.p_value


@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.10, 0.02), (0.25, 0.15)])
def test_the_interval_keeps_its_level(shares: tuple[float, float]) -> None:
    random, n, inside = np.random.default_rng(0), 200, 0
    for _ in range(400):
        kind = random.random(n)
        only_a, only_b = kind < shares[0], (kind >= shares[0]) & (kind < sum(shares))
        found = paired_difference(only_a, only_b)
        inside += found.ci_low <= shares[0] - shares[1] <= found.ci_high
    assert inside / 400 >= 0.92


def test_few_discordant_images_are_no_difference() -> None:
    """Five to none: a bootstrap's percentiles would exclude 0, the exact test does not."""
    a = np.ones(500, dtype=bool)
    b = a.copy()
    b[:5] = False
    found = paired_difference(a, b)
    assert found.p_value == pytest.approx(0.0625)
    assert found.ci_low < 0
    draws = np.random.default_rng(0).binomial(500, 0.01, 4000)
    assert np.quantile(draws, 0.025) > 0  # the control


def test_pairing_is_worth_it() -> None:
    """The same accuracies on images in another order leave a wider interval."""
    a, b = np.arange(300) < 200, np.arange(300) < 185
    shuffled = np.random.default_rng(0).permutation(b)
    assert paired_difference(a, b).ci_low > 0 > paired_difference(a, shuffled).ci_low


def test_means_over_several_models() -> None:
    random = np.random.default_rng(0)
    a, b = random.random((3, 80)) < 0.7, random.random((3, 80)) < 0.5
    found = paired_difference(a.mean(0), b.mean(0))
    expected = stats.norm.interval(0.95, (a.mean(0) - b.mean(0)).mean(), stats.sem(a.mean(0) - b.mean(0)))
    assert (found.ci_low, found.ci_high) == pytest.approx(expected)
    assert found.p_value is None


def curves(counts: list[int], n: int = 400) -> np.ndarray:
    """Nested sets of robust images."""
    return np.array([np.arange(n) < count for count in counts])


EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4)


def test_equal_models_do_not_cross_more_often_than_one_interval_errs() -> None:
    """Twelve budgets, each with an interval of its own, would find a crossing in every fifth pair of equal models."""
    rng, epsilons = np.random.default_rng(0), (0.0, *np.linspace(0.1, 1.2, 12).tolist())
    found = single = 0
    for _ in range(300):
        common = rng.normal(-0.6, 0.6, 400)
        one, other = (np.exp(common + rng.normal(0, 0.4, 400)) > np.array(epsilons)[:, None] for _ in range(2))
        found += crossover(epsilons, one, other) is not None
        single += any(
            paired_difference(a, b).ci_low > 0 and min(a.mean(), b.mean()) >= 0.02
            for a, b in zip(one[1:], other[1:], strict=True)
        )
    assert found <= 15 < 30 < single


def test_crossover() -> None:
    full = curves([380, 200, 40, 4, 0])
    assert crossover(EPSILONS, curves([300, 190, 80, 30, 10]), full) == 0.2
    assert crossover(EPSILONS, full, full) is None
    assert crossover(EPSILONS, curves([400, 100, 20, 2, 0]), full) is None
    assert crossover(EPSILONS, curves([300, 190, 42, 30, 10]), full) is None  # 42 to 40 is nothing, 30 to 4 too low
    assert crossover(EPSILONS, curves([300, 190, 42, 30, 10]), full, floor=0.01) == 0.3
    # Better from the start: 0 itself is no crossover, the first budget is.
    assert crossover(EPSILONS, curves([400, 300, 80, 30, 10]), full) == 0.1


def test_two_models_at_zero_do_not_cross() -> None:
    gone = curves([300, 0, 0, 0, 0])
    assert crossover(EPSILONS, gone, gone, floor=0.0) is None


def test_crossover_takes_means_of_several_models() -> None:
    several = np.stack([curves([300, 190, count, 30, 10]) for count in (70, 80, 90)]).mean(0)
    assert crossover(EPSILONS, several, curves([380, 200, 40, 4, 0]).astype(float)) == 0.2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0"):
        crossover(EPSILONS[1:], curves([1, 1, 1, 1]), curves([1, 1, 1, 1]))
    with pytest.raises(ValueError, match="equally many"):
        crossover(EPSILONS, curves([1, 1]), curves([1, 1]))
    with pytest.raises(ValueError, match="images that both have"):
        paired_difference([True], [True, False])


def test_delta_at_each_epsilon() -> None:
    found = adv_delta(curves([300, 100]), curves([200, 100]))
    assert [difference.value for difference in found] == [0.25, 0.0]
    assert found[0].ci_low > 0 > found[1].ci_low


def test_distances_over_common_images() -> None:
    """A model that keeps only far images looks robust by itself; over the common ones it does not."""
    distance = np.linspace(0.1, 1.0, 10)
    strong, weak = np.ones(10, dtype=bool), distance > 0.5
    assert np.median(distance[weak] * 0.9) > np.median(distance[strong])
    found = common_distances(np.where(weak, distance * 0.9, 0), distance, weak, strong)
    assert found["n"] == 5
    assert found["median_a"] == pytest.approx(0.9 * found["median_b"])
    assert found["mean_a"] < found["mean_b"]
    assert found["farther_a"] == 0.0


def test_undefined_distances() -> None:
    inf, yes = np.inf, np.ones(4, dtype=bool)
    found = common_distances([0.1, 0.2, inf, inf], [0.1, 0.3, 0.4, inf], yes, yes)
    assert (found["median_a"], found["mean_a"], found["mean_b"]) == (None, None, None)
    assert found["median_b"] == pytest.approx(0.35)
    assert found["farther_a"] == pytest.approx((0.5 + 0 + 1 + 0.5) / 4)
    none = common_distances([0.1], [0.1], [False], [True])
    assert (none["n"], none["median_a"], none["mean_b"], none["farther_a"]) == (0, None, None, None)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0, 1))
def test_a_finite_quantile_is_numpys(values: list[float], share: float) -> None:
    assert censored_quantile(values, share) == pytest.approx(float(np.quantile(values, share)), abs=1e-12)
    assert censored_quantile([*values, np.inf], 1.0) is None
