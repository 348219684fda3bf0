"""Differences of AUCs: against the definition, against scikit-learn, and how often the interval holds the truth."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from trainables.evaluate.paired import AucDifference, auc_difference, placements, usable

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
SCORES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=6, max_size=40).filter(
    lambda rows: 2 <= sum(inside for *_, inside in rows) <= len(rows) - 2
)
"""Two models' scores with many ties, and memberships."""


def arrays(rows: list[tuple[int, int, bool]]) -> tuple[Floats, Floats, Booleans]:
    first, second, member = zip(*rows, strict=True)
    return np.array(first, dtype=float), np.array(second, dtype=float), np.array(member)


def difference(first: Floats, second: Floats, member: Booleans) -> AucDifference:
    """Of scores (T, n)."""
    placed = [np.array([placements(*each) for each in zip(scores, member, strict=True)]) for scores in (first, second)]
    return auc_difference(placed[0], placed[1], member)


@given(SCORES)
def test_placements_average_to_the_auc_on_both_sides(rows: list[tuple[int, int, bool]]) -> None:
    values, _, member = arrays(rows)
    placed, wanted = placements(values, member), roc_auc_score(member, values)
    assert placed[member].mean() == pytest.approx(wanted)
    assert placed[~member].mean() == pytest.approx(wanted)


@given(SCORES)
def test_one_target_has_delongs_variance_of_correlated_aucs(rows: list[tuple[int, int, bool]]) -> None:
    """Against the covariance matrices of DeLong et al. 1988, from the kernel of every pair of images."""
    first, second, member = arrays(rows)
    by_member, by_other = [], []
    for values in (first, second):
        inside, outside = values[member][:, None], values[~member][None]
        kernel = (inside > outside) + 0.5 * (inside == outside)
        by_member.append(kernel.mean(axis=1))
        by_other.append(kernel.mean(axis=0))
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (np.cov(by_member) / member.sum() + np.cov(by_other) / (~member).sum()) @ contrast
    found = difference(first[None], second[None], member[None])
    assert found.value == pytest.approx(roc_auc_score(member, first) - roc_auc_score(member, second))
    if variance < 1e-15:
        assert found[1:] == (None, None, None)
        return
    freedom = min(member.sum(), (~member).sum()) - 1
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / np.sqrt(variance), freedom), rel=1e-6)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert found.ci_low == pytest.approx(max(-1, found.value - reach))
    assert found.ci_high == pytest.approx(min(1, found.value + reach))


@given(SCORES)
def test_the_other_way_round_is_the_opposite(rows: list[tuple[int, int, bool]]) -> None:
    first, second, member = (each[None] for each in arrays(rows))
    here, there = difference(first, second, member), difference(second, first, member)
    assert here.value == -there.value
    assert here.p == there.p
    if here.ci_low is not None and there.ci_high is not None:
        assert here.ci_low == pytest.approx(-there.ci_high)


def test_a_model_less_itself_says_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, member = rng.normal(size=(3, 50)), np.tile(np.arange(50) < 25, (3, 1))
    assert difference(scores, scores, member) == (0.0, None, None, None)


@given(st.integers(3, 6))
def test_a_target_that_stands_several_times_tells_no_more(times: int) -> None:
    rng = np.random.default_rng(1)
    first, second, member = rng.normal(size=(1, 80)), rng.normal(size=(1, 80)), np.arange(80)[None] < 40
    one = difference(first, second, member)
    many = difference(*(np.repeat(each, times, axis=0) for each in (first, second, member)))
    assert many == pytest.approx(one)


def test_what_images_add_to_both_models_falls_out() -> None:
    """The interval of the difference is narrower than those of the two AUCs would make it."""
    rng = np.random.default_rng(2)
    hardness, member = 3 * rng.normal(size=400), np.arange(400) < 200
    first, second = (hardness + effect * member + rng.normal(size=400) for effect in (1.0, 0.2))
    apart = [
        np.var(placements(values, member)[side], ddof=1) / 200
        for values in (first, second)
        for side in (member, ~member)
    ]
    found = difference(first[None], second[None], member[None])
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.p is not None
    assert (found.ci_high - found.ci_low) / 2 < 0.6 * 1.96 * np.sqrt(sum(apart))
    assert found.p < 0.01
    assert abs(found.value) < 1.96 * np.sqrt(sum(apart)), "two separate intervals do not tell these models apart"


def world(rng: np.random.Generator, targets: int, spread: float) -> tuple[Floats, Floats, Booleans]:
    """Two models of equal mean leak; their targets differ by ``spread``, images in hardness and in what they give away.

    160 images, of which each target has its own half.
    """
    count = 160
    hardness, exposed = rng.normal(size=count), rng.normal(size=(2, count))
    member = rng.permuted(np.tile(np.arange(count) < count // 2, (targets, 1)), axis=1)
    leak = 0.5 + spread * rng.normal(size=(2, targets, 1)) + exposed[:, None]
    first, second = hardness + member * leak + rng.normal(size=(2, targets, count))
    return first, second, member


@pytest.mark.parametrize("targets", [3, 8])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 0.6])
def test_the_interval_holds_the_truth(targets: int, spread: float) -> None:
    rng = np.random.default_rng([targets, int(10 * spread)])
    held = []
    for _ in range(300):
        found = difference(*world(rng, targets, spread))
        assert found.ci_low is not None
        assert found.ci_high is not None
        held.append(found.ci_low <= 0 <= found.ci_high)
    assert 0.91 <= np.mean(held) <= 1.0


def test_images_alone_would_claim_too_much_of_targets_that_differ() -> None:
    """What the part of the targets is for: without it every other interval misses."""
    rng = np.random.default_rng(3)
    missed = []
    for _ in range(200):
        first, second, member = world(rng, 3, 0.6)
        several, alone = difference(first, second, member), difference(first[:1], second[:1], member[:1])
        assert several.ci_low is not None
        assert several.ci_high is not None
        assert alone.ci_low is not None
        assert alone.ci_high is not None
        missed.append((not several.ci_low <= 0 <= several.ci_high, not alone.ci_low <= 0 <= alone.ci_high))
    of_targets, of_images = np.mean(missed, axis=0)
    assert of_images > 0.4 > 0.1 > of_targets


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_p_and_interval_agree(seed: int) -> None:
    found = difference(*world(np.random.default_rng(seed), 3, 0.3))
    assert found.ci_low is not None
    assert found.ci_high is not None
    assert found.p is not None
    assert (found.p < 0.05) == (not found.ci_low <= 0 <= found.ci_high)


def test_what_does_not_fit_is_refused() -> None:
    member = np.array([[True, True, False, False]])
    with pytest.raises(ValueError, match=r"got \(1, 4\), \(1, 3\)"):
        auc_difference(np.zeros((1, 4)), np.zeros((1, 3)), member)
    with pytest.raises(ValueError, match="got 1 members or others"):
        auc_difference(np.zeros((1, 4)), np.zeros((1, 4)), np.array([[True, True, True, False]]))
    assert usable(member)
    assert not usable(~member[:, :3])
    assert not usable(np.zeros((0, 4), dtype=bool))


def test_tables_can_use_it_without_torch() -> None:
    unwanted = "'torch' in sys.modules or 'scipy.stats' in sys.modules"
    code = f"import sys, ddray.measurements.derived.driver; sys.exit({unwanted})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
