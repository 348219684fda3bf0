from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trainables.evaluate.accuracy import losses
from trainables.evaluate.fairness import corrected_variance, fairness_rows, gini, jain, worst_tenth


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
        "fair_var_acc": a.var(), "fair_var_loss": np.var(means),
        "fair_var_acc_corr": a.var() - 0.75 * np.mean(a * (1 - a) / (n - 1)),
        "fair_var_loss_corr": np.var(means) - 0.75 * np.mean(np.array(within) / n),
        "fair_std_acc": a.std(), "fair_cv_acc": a.std() / a.mean(), "fair_worst_acc": 0.2,
        "fair_worst10pct_acc": 0.2, "fair_gap_acc": 0.7, "fair_gini_acc": differences,
        "fair_jain": a.sum() ** 2 / (4 * (a**2).sum()),
    }  # fmt: skip
    assert found == pytest.approx(expected)


def test_equal_classes_are_perfectly_fair() -> None:
    found = values(*outcome([0.6] * 5), 5)
    for metric in ("fair_var_acc", "fair_std_acc", "fair_cv_acc", "fair_gap_acc", "fair_gini_acc"):
        assert found[metric] == pytest.approx(0, abs=1e-12)
    assert found["fair_jain"] == pytest.approx(1)
    assert found["fair_worst_acc"] == found["fair_worst10pct_acc"] == 0.6


def test_indices_do_not_depend_on_the_scale_and_reach_their_bounds() -> None:
    a = np.array([0.1, 0.4, 0.2, 0.3])
    assert (gini(a), jain(a)) == pytest.approx((gini(a / 3), jain(a / 3)))
    alone = np.array([0.0, 0.0, 0.0, 0.8])
    assert (gini(alone), jain(alone)) == pytest.approx((0.75, 0.25))
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
        corrected.append(corrected_variance(correct, labels, num_classes))
    standard_error = np.std(corrected) / np.sqrt(repeats)
    assert abs(np.mean(corrected) - truth.var()) < 3 * standard_error
    assert np.mean(plain) - truth.var() > 10 * standard_error
