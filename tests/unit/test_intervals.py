"""Intervals of fairness numbers: do they hold the truth, and would simpler ones have?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trainables.evaluate.fairness import (
    drawn_from,
    estimates,
    fairness_rows,
    halves_of,
    observed_means,
)
from trainables.evaluate.intervals import DRAWS, LEAST, drawn_means, drawn_shares, recentred

Floats = NDArray[np.float64]


class Simulated:
    """Test sets of ``each`` images of every class, with known accuracies and mean losses.

    Attributes:
        truth: By estimator, what its interval is about.
    """

    def __init__(self, accuracies: Floats, means: Floats, each: int, seed: int) -> None:
        self.accuracies, self.means, self.rng = accuracies, means, np.random.default_rng(seed)
        self.labels = np.repeat(np.arange(len(means)), each)
        self.counts = np.full(len(means), each)
        self.first = halves_of(self.labels, len(means))
        sets = [estimates(observed_means(*self.draw())) for _ in range(max(200, 1_500_000 // len(self.labels)))]
        self.truth = {name: float(np.mean([found[name] for found in sets])) for name in sets[0]}
        self.truth |= {"fair_var_acc_corr": float(accuracies.var()), "fair_var_loss_corr": float(means.var())}

    def draw(self) -> tuple[Any, ...]:
        """A test set, as ``observed_means`` takes it."""
        correct = (self.rng.random(len(self.labels)) < self.accuracies[self.labels]).astype(float)
        losses = self.rng.exponential(self.means[self.labels])
        groups = [losses[self.labels == index][:, None] for index in range(len(self.means))]
        return correct, groups, self.labels, self.first, self.counts


def spread_out(num: int, spread: float) -> Floats:
    return np.asarray(0.5 + spread * stats.norm.ppf((np.arange(num) + 0.5) / num))


@pytest.mark.parametrize(
    ("num", "each", "spread", "trials"),
    [(5, 100, 0.05, 200), (5, 1000, 0.02, 100), (10, 100, 0.15, 200), (10, 1000, 0.05, 100), (10, 100, 0.0, 150)],
)
def test_intervals_hold_what_they_are_about(num: int, each: int, spread: float, trials: int) -> None:
    made = Simulated(spread_out(num, spread), np.exp(2 * spread_out(num, spread)), each, num * each)
    missed = dict.fromkeys(made.truth, 0)
    for _ in range(trials):
        one = made.draw()
        found, draws = estimates(observed_means(*one)), estimates(drawn_from(*one))
        for name, truth in made.truth.items():
            ends = recentred(float(found[name]), draws[name])
            missed[name] += not ends["ci_low"] <= truth <= ends["ci_high"]
    for name, count in missed.items():
        # 5 % are meant; up to 7 or 8 % is what a bootstrap does between near-equal classes.
        assert stats.binomtest(count, trials, 0.07, alternative="greater").pvalue > 1e-3, (name, count)


def test_percentiles_as_they_are_would_miss_the_truth() -> None:
    """Why draws are moved: the noise is in the estimate once and in its draws twice."""
    each, num, truth = 100, 50, 0.0
    rng, counts, plain, moved = np.random.default_rng(1), np.full(50, 100), 0, 0
    for _ in range(100):
        shares = rng.binomial(each, 0.6, num) / each
        draws = drawn_shares(shares, counts, "test")
        noise = (num - 1) / num * (draws * (1 - draws)).mean(axis=1) / (each - 1)
        corrected = draws.var(axis=1) - noise
        found = float(shares.var() - (num - 1) / num * (shares * (1 - shares)).mean() / (each - 1))
        plain += not np.quantile(corrected, 0.025) <= truth <= np.quantile(corrected, 0.975)
        ends = recentred(found, corrected)
        moved += not ends["ci_low"] <= truth <= ends["ci_high"]
    assert plain > 90
    assert moved <= 8


def test_a_smallest_accuracy_near_0_keeps_an_end_near_0() -> None:
    """There is only an interval where it came out too high, and its draws are far below it."""
    rng, shares, counts = np.random.default_rng(6), np.linspace(0.02, 0.3, 10), np.full(10, 20)
    truth = (rng.binomial(20, shares, (20_000, 10)) / 20).min(axis=1).mean()
    given = missed = shifted = 0
    for _ in range(300):
        found = rng.binomial(20, shares) / 20
        draws = drawn_shares(found, counts, "test").min(axis=1)
        if ends := recentred(float(found.min()), draws, 0.0, 1.0):
            given += 1
            missed += not ends["ci_low"] <= truth <= ends["ci_high"]
            shifted += float(np.quantile(draws, 0.025)) + found.min() - draws.mean() > truth
    assert given > 30
    assert missed <= 0.08 * given
    assert shifted == given, "moved alone, every one would miss"


def test_draws_are_those_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(2)
    groups = [rng.exponential(size=(n, 2)) for n in (30, 200, 57)]
    means, noises = drawn_means(groups, "test")
    assert means.shape == noises.shape == (DRAWS, 3, 2)
    for index, group in enumerate(groups):
        copies = group[rng.integers(0, len(group), (4000, len(group)))]
        assert means[:, index].mean(axis=0) == pytest.approx(group.mean(axis=0), abs=0.02)
        assert means[:, index].std(axis=0) == pytest.approx(copies.mean(axis=1).std(axis=0), rel=0.1)
        expected = copies.var(axis=1, ddof=1) / len(group)
        assert noises[:, index].mean(axis=0) == pytest.approx(expected.mean(axis=0), rel=0.1)
        assert noises[:, index].std(axis=0) == pytest.approx(expected.std(axis=0), rel=0.2)
    shares = drawn_shares(np.array([0.2, 1.0]), np.array([50, 30]), "test")
    assert shares.shape == (DRAWS, 2)
    assert shares[:, 0].std() == pytest.approx((0.2 * 0.8 / 50) ** 0.5, rel=0.1)
    assert (shares[:, 1] == 1).all()


def test_classes_share_weights_and_are_independent_all_the_same() -> None:
    """Classes with the very same losses: in one order of the draws they would go up and down together."""
    group = np.random.default_rng(3).exponential(size=(100, 1))
    means = drawn_means([group, group, group], "test")[0][..., 0]
    assert sorted(means[:, 0]) == sorted(means[:, 1])
    assert abs(np.corrcoef(means.T)[np.triu_indices(3, 1)]).max() < 0.12
    assert means.var(axis=1).mean() == pytest.approx(2 / 3 * group.var() / 100, rel=0.1)


def test_an_interval_that_cannot_be_had_is_not_there() -> None:
    rng = np.random.default_rng(4)
    draws = rng.normal(3, 1, DRAWS)
    ends = recentred(1.0, draws)
    assert (ends["ci_low"], ends["ci_high"]) == pytest.approx((1 - 1.96, 1 + 1.96), abs=0.2)
    assert (ends["ci_unit"], ends["ci_level"]) == ("images", 0.95)
    assert recentred(1.0, draws, low=0.0)["ci_low"] == 0.0
    assert recentred(0.9, draws, high=1.0)["ci_high"] == 1.0
    assert recentred(1.0, np.full(DRAWS, 2.0)) == {}
    assert recentred(1.0, np.where(np.arange(DRAWS) == 5, np.nan, draws)) == {}
    lonely = recentred(0.0, (np.arange(DRAWS) == 5) * 100.0)  # the mean of the draws is above nearly all of them
    assert lonely["ci_low"] < lonely["ci_high"] == 0.0


def outcome(accuracies: list[float], each: int) -> tuple[Floats, NDArray[np.int64]]:
    labels = np.repeat(np.arange(len(accuracies)), each)
    right = np.concatenate([np.arange(each) < round(accuracy * each) for accuracy in accuracies])
    logits = np.random.default_rng(5).normal(size=(len(labels), len(accuracies)))
    logits[np.arange(len(labels)), labels] = np.where(right, logits.max(axis=1) + 1, logits.min(axis=1) - 1)
    return logits, labels


def test_every_fairness_row_but_the_temperature_has_an_interval() -> None:
    rows = fairness_rows(*outcome([0.9, 0.5, 0.7, 0.2], 60), 4)
    assert {row["metric"] for row in rows if "ci_low" not in row} == {"temperature"}
    for row in rows:
        if row["metric"] != "temperature":
            assert row["ci_low"] <= row["value"] <= row["ci_high"], row
            assert row["ci_low"] < row["ci_high"]
            assert (row["ci_level"], row["ci_method"], row["ci_unit"]) == (0.95, "bootstrap_recentred", "images")
            assert row["ci_low"] >= 0 or row["metric"].endswith("_corr")
    assert rows == fairness_rows(*outcome([0.9, 0.5, 0.7, 0.2], 60), 4)


def test_more_images_make_intervals_narrower() -> None:
    few, many = (
        {row["metric"]: row for row in fairness_rows(*outcome([0.9, 0.5, 0.7, 0.2], each), 4)} for each in (50, 800)
    )
    for metric in ("fair_var_acc", "fair_var_loss_corr", "fair_gap_acc", "fair_jain"):
        widths = [row[metric]["ci_high"] - row[metric]["ci_low"] for row in (few, many)]
        assert widths[0] / widths[1] == pytest.approx(4, rel=0.35), metric


def test_where_nothing_varies_or_a_class_is_tiny_there_is_none() -> None:
    tiny = fairness_rows(*outcome([0.9, 0.5, 0.7], LEAST - 1), 3)
    assert not [row for row in tiny if "ci_low" in row]
    right = {row["metric"]: row for row in fairness_rows(*outcome([1.0, 1.0, 1.0], 50), 3)}
    assert "ci_low" not in right["fair_var_acc"]  # of accuracies of 100 % the draws are 100 %
    assert "ci_low" in right["fair_var_loss"]
    wrong = {row["metric"]: row for row in fairness_rows(*outcome([0.0, 0.0, 0.0], 50), 3)}
    assert (wrong["fair_jain"]["value"], wrong["fair_jain"]["flag"]) == (None, "degenerate")
    assert "ci_low" not in wrong["fair_jain"]
