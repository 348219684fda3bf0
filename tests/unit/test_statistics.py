"""Statistics over seeds, draws and classes against SciPy, brute force and simulated truth."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ddray.measurements.derived.relative_accuracy import dd_score
from ddray.measurements.statistics import (
    ALPHA,
    Excess,
    Floats,
    Integers,
    Sets,
    adjusted,
    by_seed,
    cv,
    excess,
    kendall,
    log_slope,
    paired,
    permutation_p,
    persistent,
    ranks,
    spearman,
    spread,
)
from trainables.evaluate.paired import halves

_VALUES = st.lists(st.lists(st.integers(0, 4).map(float), min_size=4, max_size=4), min_size=1, max_size=5).map(np.array)
BY_SEED = st.dictionaries(
    st.integers(0, 5),
    st.dictionaries(st.integers(0, 5), st.floats(0, 1), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)

# --- means and paired differences over seeds --------------------------------------------------------------------------


def test_one_distilled_set_scatters_over_trainings() -> None:
    found = spread({0: {0: 0.1, 1: 0.2, 2: 0.6}})
    assert found is not None
    assert (found.mean, found.unit, found.seed_level, found.short) == (
        pytest.approx(0.3),
        "trainings",
        "n=3 trainings",
        "n=3",
    )
    assert found.sd == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))


def test_several_sets_count_once_each_whatever_their_trainings() -> None:
    found = spread({0: {0: 0.2, 1: 0.4, 2: 0.3}, 1: {0: 0.5}}, "draws")
    assert found is not None
    assert found.mean == pytest.approx((0.3 + 0.5) / 2)
    assert found.sd == pytest.approx(stats.tstd([0.3, 0.5]))
    assert found.seed_level == "n=2 draws × 1-3 trainings"


def test_a_single_number_has_no_scatter() -> None:
    found = spread({None: {0: 0.5}})
    assert found is not None
    assert (found.sd, found.seed_level) == (None, "n=1 training")
    assert spread({}) is None
    assert spread({0: {}}) is None


@given(BY_SEED, st.floats(-1, 1))
def test_shifting_all_shifts_the_mean_alone(values: dict[int, dict[int, float]], shift: float) -> None:
    moved = {key: {seed: value + shift for seed, value in inner.items()} for key, inner in values.items()}
    before, after = spread(values), spread(moved)
    assert before is not None
    assert after is not None
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert (after.sd is None) == (before.sd is None)
    assert after.sd is None or after.sd == pytest.approx(before.sd, abs=1e-9)
    assert (after.unit, after.count) == (before.unit, before.count)


@given(BY_SEED, BY_SEED)
def test_a_difference_is_antisymmetric(one: dict[int, dict[int, float]], two: dict[int, dict[int, float]]) -> None:
    forth, back = paired(one, two), paired(two, one)
    if forth is None or back is None:
        assert forth is back is None
        return
    assert back.mean == pytest.approx(-forth.mean, abs=1e-12)
    assert back.pairs == forth.pairs
    assert (forth.low is None) == (forth.pairs == 1)
    if forth.low is not None and forth.high is not None:
        assert back.low == pytest.approx(-forth.high, abs=1e-12)
        assert forth.low <= forth.mean <= forth.high


def test_pairs_remove_what_both_sides_share() -> None:
    luck = {0: 0.0, 1: 0.2, 2: 0.4}
    other = {key: {0: 0.3 + shared} for key, shared in luck.items()}
    ours = {key: {0: 0.35 + shared + 0.001 * key} for key, shared in luck.items()}
    found = paired(ours, other)
    assert found is not None
    assert found.low is not None
    assert found.low > 0.04
    differences = [0.05, 0.051, 0.052]
    low, high = stats.t.interval(0.95, 2, loc=0.051, scale=stats.sem(differences))
    assert (found.mean, found.low, found.high) == (pytest.approx(0.051), pytest.approx(low), pytest.approx(high))


def test_a_pair_uses_the_trainings_both_sides_have() -> None:
    found = paired({0: {0: 0.5, 1: 0.9}}, {0: {1: 0.4, 2: 0.0}})
    assert found is not None
    assert (found.mean, found.pairs, found.trainings) == (pytest.approx(0.5), 1, (1, 1))
    assert paired({0: {0: 0.5}}, {0: {1: 0.4}}) is None


def test_a_set_that_no_seed_made_is_compared_with_every_draw() -> None:
    """Draw 0 alone would say that herding is better, and all of them say that it is not."""
    random = {0: {0: 0.2}, 1: {0: 0.3}, 2: {0: 0.4}}
    found = paired({0: {0: 0.25}}, random, seeded=False)
    assert found is not None
    assert (found.mean, found.pairs) == (pytest.approx(-0.05), 3)
    assert found.low is not None
    alone = paired({0: {0: 0.25}}, random)
    assert alone is not None
    assert alone.mean == pytest.approx(0.05)
    assert paired({}, random, seeded=False) is None
    assert paired({0: {0: 0.5}}, {1: {0: 0.4}}) is None


def test_seeds_nest() -> None:
    assert by_seed([(0, 0, 0.1), (0, 1, 0.2), (None, 0, 0.3)]) == {0: {0: 0.1, 1: 0.2}, None: {0: 0.3}}


# --- ranks and permutations -------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(_VALUES, _VALUES)
def test_ranks_and_rank_correlations_are_scipys(first: Floats, second: Floats) -> None:
    assert np.array_equal(ranks(first), stats.rankdata(first, axis=1))
    count = min(len(first), len(second))
    for ours, theirs in ((spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        for index, found in enumerate(ours(first[:count], second[:count])):
            constant = np.ptp(first[index]) == 0 or np.ptp(second[index]) == 0
            expected = np.nan if constant else theirs(first[index], second[index]).statistic
            assert found == pytest.approx(expected, nan_ok=True, abs=1e-12)


def tau_with(ours: Floats, theirs: Floats) -> float | None:
    return permutation_p(lambda orders: kendall(np.broadcast_to(ours, orders.shape), theirs[orders]), len(ours), 1)


def test_p_values_are_exact_where_all_orders_are_tried() -> None:
    ours, theirs = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 3, 2, 5, 4])
    every = [stats.kendalltau(ours, order).statistic for order in itertools.permutations(theirs)]
    found = stats.kendalltau(ours, theirs).statistic
    expected = 2 * np.mean([value >= found - 1e-9 for value in every])
    assert tau_with(ours, theirs) == pytest.approx(expected)
    assert tau_with(ours, ours) == pytest.approx(2 / 120)
    assert tau_with(ours, ours[::-1].copy()) == pytest.approx(2 / 120), "both sides count"


def test_there_is_no_p_where_none_could_be_small() -> None:
    """Four methods have 24 orders: two-sided, the smallest p there is is 1 in 12."""
    assert ALPHA < 2 / 24
    assert tau_with(np.arange(4.0), np.arange(4.0)) is None
    assert tau_with(np.arange(5.0), np.arange(5.0)) is not None
    assert tau_with(np.arange(5.0), np.array([1.0, 1, 1, 1, 2])) is None, "ties have fewer orders"


def test_random_orders_keep_the_level_and_repeat() -> None:
    random, x = np.random.default_rng(0), np.arange(9.0)

    def p_of(order: Integers) -> float | None:
        return permutation_p(lambda orders: spearman(np.broadcast_to(x, orders.shape), x[order][orders]), 9, 3)

    found = [p_of(random.permutation(9)) for _ in range(200)]
    assert all(value is not None and value > 0 for value in found)
    share = np.mean([value <= 0.1 for value in found if value is not None])
    assert abs(share - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 200)
    assert p_of(np.arange(9)) == p_of(np.arange(9)) == pytest.approx(2 / 5000)


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    values = [0.01, None, 0.04, 0.03, 0.5]
    known = sorted(value for value in values if value is not None)
    by_hand = {p: min(q * len(known) / (known.index(q) + 1) for q in known if q >= p) for p in known}
    assert adjusted(values) == pytest.approx([by_hand[p] if p is not None else None for p in values])
    assert adjusted([None, None]) == [None, None]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_the_slope_is_the_exponent_of_a_power_law() -> None:
    star = np.array([0.2, 0.5, 0.7, 0.9])
    found = log_slope(star, np.array([0.5 * star**1.7, 0.3 * star, np.full(4, 0.4), [0.0, 0.1, 0.1, 0.1]]))
    assert found[:3] == pytest.approx([1.7, 1.0, 0.0])
    assert np.isnan(found[3])
    assert np.isnan(log_slope(np.full(4, 0.5), star[None])).all()


def test_the_coefficient_of_variation_has_no_scale() -> None:
    accuracies = np.array([[0.1, 0.2, 0.6]])
    assert cv(accuracies) == pytest.approx(cv(accuracies / 2))
    assert np.isnan(cv(np.zeros((1, 3)))).all()


def test_halves_split_every_class() -> None:
    labels = np.array([1, 0, 1, 1, 0, 2, 1])
    first = halves(labels)
    assert first.tolist() == [True, True, False, True, False, True, False]


def test_persistent_unfairness_is_free_of_both_noises() -> None:
    """Simulated: 10 classes, 20 images each, three trainings whose class accuracies scatter. The plain variance holds
    the noise of images and of trainings, which the covariance between trainings and halves does not."""
    random, classes, images, worlds = np.random.default_rng(1), 10, 20, 3000
    for unequal in (0.0, 0.1):
        true = 0.5 + unequal * np.linspace(-1, 1, classes)
        plain, free = [], []
        for _ in range(worlds):
            of_training = np.clip(true + random.normal(0, 0.05, (3, classes)), 0, 1)
            sides = random.binomial(images // 2, np.stack([of_training, of_training]), (2, 3, classes)) / (images // 2)
            plain.append(sides.mean(axis=0).var(axis=1).mean())
            free.append(persistent(sides[0], sides[1]))
        error = np.std(free) / np.sqrt(worlds)
        assert abs(np.mean(free) - true.var()) < 3 * error
        assert np.mean(plain) - true.var() > 20 * error, "the control: this is what is avoided"


# --- DD-Ranking -------------------------------------------------------------------------------------------------------


def test_dd_scores_are_in_the_unit_interval_for_fractions() -> None:
    assert dd_score(-1) == 0
    assert dd_score(1) == pytest.approx(1)
    assert dd_score(0) == pytest.approx(0.269, abs=5e-4)
    assert dd_score(-15) < 0, "what percent in the exponential gives"
    assert dd_score(5) > 1


# --- the frontier -----------------------------------------------------------------------------------------------------


def knot(accuracy: float, value: float, draws: int = 3, scatter: float = 0.0, seed: int = 0) -> Sets:
    noise = np.random.default_rng(seed).normal(0, scatter, (2, draws)) if scatter else np.zeros((2, draws))
    noise -= noise.mean(axis=1, keepdims=True)
    return Sets(accuracy + noise[0], value + noise[1], 100.0)


def over(knots: list[Sets], accuracy: float, value: float = 0.0, **scatter: Any) -> Excess:
    found = excess(knots, knot(accuracy, value, **scatter))
    assert found is not None
    return found


def test_the_frontier_is_linear_between_its_knots_and_nothing_outside() -> None:
    knots = [knot(0.4, 3.0), knot(0.1, 1.0), knot(0.2, 2.0)]  # means of three 0.1 are not 0.1
    found = [over(knots, accuracy) for accuracy in (0.1, 0.15, 0.2, 0.3, 0.4, 0.09, 0.41)]
    assert [each.value for each in found[:5]] == pytest.approx([-1, -1.5, -2, -2.5, -3])
    assert [each.draws for each in found] == [3, 6, 3, 6, 3, 0, 0]
    assert [each.apart for each in found] == pytest.approx([0, 0.1, 0, 0.2, 0, 0, 0])
    assert all(math.isnan(each.value) and math.isnan(each.reach) for each in found[5:])
    for one, accuracy in zip(found, (0.1, 0.15, 0.2, 0.3, 0.4, 0.09, 0.41), strict=True):
        other = over(knots[::-1], accuracy)
        assert (other.value, other.reach) == pytest.approx((one.value, one.reach), nan_ok=True)
        assert (other.reason, other.draws, other.steps) == (one.reason, one.draws, one.steps)


def test_one_accuracy_is_no_frontier() -> None:
    assert excess([knot(0.4, 3.0)], knot(0.4, 0.0)) is None
    assert excess([knot(0.4, 3.0), knot(0.4, 5.0)], knot(0.4, 0.0)) is None
    assert over([knot(0.4, 3.0), knot(0.4, 5.0), knot(0.5, 5.0)], 0.4).value == pytest.approx(-4.0)


def test_a_single_draw_or_model_gives_no_interval_and_says_so() -> None:
    knots = [knot(0.1, 1.0, scatter=0.01), knot(0.4, 3.0, draws=1)]
    assert over(knots, 0.1).reach > 0
    assert over(knots, 0.1).reason is None
    for accuracy in (0.2, 0.4):
        found = over(knots, accuracy)
        assert math.isnan(found.reach)
        assert found.reason == "one draw of real images: how much draws scatter is not known"
    alone = over(knots, 0.1, draws=1)
    assert math.isnan(alone.reach)
    assert alone.reason == "one model: how much models scatter is not known"


def test_what_lies_on_one_line_leaves_no_doubt() -> None:
    """What scatters along the frontier scatters in accuracy alone."""
    low, high, own = np.array([0.10, 0.12, 0.14]), np.array([0.30, 0.32, 0.34]), np.array([0.2, 0.22])
    found = excess([Sets(low, 5 * low, 1.0), Sets(high, 5 * high, 1.0)], Sets(own, 5 * own + 1, 1.0))
    assert found is not None
    assert (found.value, found.reach) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))


def test_seeds_outside_the_frontier_are_not_left_out() -> None:
    """A mean over those that real images happen to reach would be chosen by their own accuracy."""
    knots = [knot(0.1, 1.0), knot(0.3, 3.0)]
    found = excess(knots, Sets(np.array([0.2, 0.28, 0.33]), np.array([2.1, 2.9, 3.4]), 100.0))
    assert found is not None
    assert found.value == pytest.approx(0.1, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_units_of_the_property_do_not_matter(scale: float, shift: float) -> None:
    sides = [knot(0.1, 1.0, 4, 0.02, 1), knot(0.3, 2.0, 5, 0.02, 2), knot(0.15, 0.5, 3, 0.02, 3)]
    moved = [Sets(each.accuracy, scale * each.value + shift, each.steps) for each in sides]
    one, other = excess(sides[:2], sides[2]), excess(moved[:2], moved[2])
    assert one is not None
    assert other is not None
    assert other.value == pytest.approx(scale * one.value)
    assert other.reach == pytest.approx(scale * one.reach)
