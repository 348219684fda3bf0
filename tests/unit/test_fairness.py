from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trainables.evaluate.accuracy import losses
from trainables.evaluate.fairness import (
    by_class,
    fairness_rows,
    gini,
    halves_of,
    jain,
    less_noise,
    rescaled_losses,
    worst_elsewhere,
    worst_tenth,
)


def outcome(accuracies: list[float], each: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Logits with exactly these accuracies by class."""
    num_classes = len(accuracies)
    labels = np.repeat(np.arange(num_classes), each)
    right = np.concatenate([np.arange(each) < round(accuracy * each) for accuracy in accuracies])
    predicted = np.where(right, labels, (labels + 1) % num_classes)
    return 3.0 * np.eye(num_classes)[predicted], labels


def values(logits: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in fairness_rows(logits, labels, num_classes)}


def test_estimators_against_their_formulas() -> None:
    accuracies = [0.9, 0.5, 0.7, 0.2]
    logits, labels = outcome(accuracies)
    found, a, n = values(logits, labels, 4), np.array(accuracies), 100
    means = [losses(logits, labels)[labels == index].mean() for index in range(4)]
    within = [losses(logits, labels)[labels == index].var(ddof=1) for index in range(4)]
    differences = np.abs(a[:, None] - a[None, :]).sum() / (2 * 4 * a.sum())
    expected = {
        "fair_var_acc": a.var(),
        "fair_var_loss": np.var(means),
        "fair_var_acc_corr": a.var() - 0.75 * np.mean(a * (1 - a) / (n - 1)),
        "fair_var_loss_corr": np.var(means) - 0.75 * np.mean(np.array(within) / n),
        "fair_std_acc": a.std(),
        "fair_cv_acc": a.std() / a.mean(),
        "fair_worst_acc": 0.2,
        "fair_worst10pct_acc": 0.2,
        "fair_gap_acc": 0.7,
        "fair_gini_acc": differences,
        "fair_jain": a.sum() ** 2 / (4 * (a**2).sum()),
    }
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected)


def test_equal_classes_are_perfectly_fair() -> None:
    found = values(*outcome([0.6] * 5), 5)
    for metric in ("fair_var_acc", "fair_std_acc", "fair_cv_acc", "fair_gap_acc", "fair_gini_acc"):
        assert found[metric] == pytest.approx(0, abs=1e-12)
    assert found["fair_jain"] == pytest.approx(1)
    assert found["fair_worst_acc"] == found["fair_worst10pct_acc"] == 0.6


def test_indices_do_not_depend_on_the_scale_and_reach_their_bounds() -> None:
    a = np.array([0.1, 0.4, 0.2, 0.3])
    both = np.stack([a, a / 3, [0.0, 0.0, 0.0, 0.8]])
    assert gini(both) == pytest.approx(np.array([gini(a), gini(a), 0.75]))
    assert jain(both) == pytest.approx(np.array([jain(a), jain(a), 0.25]))
    assert worst_tenth(np.arange(100) / 100) == pytest.approx(0.045)
    assert worst_tenth(np.arange(11) / 10) == pytest.approx(0.05)


def test_a_model_that_is_always_wrong_is_flagged() -> None:
    rows = {row["metric"]: row for row in fairness_rows(*outcome([0.0, 0.0, 0.0]), 3)}
    for metric in ("fair_cv_acc", "fair_gini_acc", "fair_jain"):
        assert rows[metric]["value"] is None
        assert rows[metric]["flag"] == "degenerate"
    assert rows["fair_var_acc"]["value"] == 0.0


def test_one_image_per_class_cannot_be_corrected() -> None:
    rows = {row["metric"]: row for row in fairness_rows(np.eye(3), np.arange(3), 3)}
    assert rows["fair_var_acc_corr"]["value"] is None
    assert rows["fair_var_acc_corr"]["flag"] == "low_resolution"


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_the_correction_is_unbiased_where_the_plain_variance_is_not(spread: float) -> None:
    rng = np.random.default_rng(7)
    num_classes, each, repeats = 20, 25, 400
    truth = np.clip(0.5 + spread * stats.norm.ppf((np.arange(num_classes) + 0.5) / num_classes), 0, 1)
    labels = np.repeat(np.arange(num_classes), each)
    plain, corrected = [], []
    for _ in range(repeats):
        correct = (rng.random(len(labels)) < truth[labels]).astype(np.float64)
        plain.append(np.var([correct[labels == index].mean() for index in range(num_classes)]))
        shares = correct.reshape(num_classes, each).mean(axis=1)
        corrected.append(less_noise(shares, shares * (1 - shares) / (each - 1)))
    standard_error = np.std(corrected) / np.sqrt(repeats)
    assert abs(np.mean(corrected) - truth.var()) < 3 * standard_error
    assert np.mean(plain) - truth.var() > 10 * standard_error


def overconfident(rng: np.random.Generator, temperature: float, each: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a calibrated model of five classes, times the temperature."""
    labels = np.repeat(np.arange(5), each)
    logits = rng.normal(size=(len(labels), 5)) * 1.5
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=chance) for chance in chances])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_scaling_finds_the_temperature(temperature: float) -> None:
    logits, labels = overconfident(np.random.default_rng(3), temperature)
    halves = halves_of(labels, 5)
    found, fitted = rescaled_losses(logits, labels, halves)
    assert fitted == pytest.approx(temperature, rel=0.15)
    assert found is not None
    assert found.mean() < losses(logits, labels).mean() + 5e-3
    again, _ = rescaled_losses(logits * 7, labels, halves)
    assert again == pytest.approx(found, rel=1e-3, abs=1e-4)  # the scale of the logits is what it takes away


def test_each_half_is_measured_at_the_other_ones_temperature() -> None:
    logits, labels = overconfident(np.random.default_rng(4), 1.0)
    halves = halves_of(labels, 5)
    assert halves is not None
    mixed = np.where(halves[:, None], logits * 3, logits)
    found, _ = rescaled_losses(mixed, labels, halves)
    assert found is not None
    # Fitted on its own images, the first half would be at its best; it gets a temperature three times too low.
    assert found[halves].mean() > losses(logits[halves], labels[halves]).mean() + 0.1


def test_choosing_the_worst_class_on_other_images_takes_the_bias_away() -> None:
    """Classes that are equally good: the smallest of many accuracies is far below them, the split one is not."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(50), 40)
    halves = halves_of(labels, 50)
    smallest, split = [], []
    for _ in range(200):
        correct = (rng.random(len(labels)) < 0.6).astype(np.float64)
        smallest.append(correct.reshape(50, 40).mean(axis=1).min())
        sides = (by_class(correct[side], labels[side], 50) for side in (halves, ~halves))
        split.append(float(worst_elsewhere(*sides)))
    assert np.mean(smallest) < 0.48
    assert np.mean(split) == pytest.approx(0.6, abs=3 * np.std(split) / np.sqrt(200))


def test_halves_have_equally_many_of_each_class() -> None:
    labels = np.array([0, 1, 0, 1, 0, 0, 1, 1, 1])
    halves = halves_of(labels, 2)
    assert halves is not None
    assert np.bincount(labels[halves]).tolist() == [2, 3]
    assert halves_of(np.array([0, 0, 1]), 2) is None
