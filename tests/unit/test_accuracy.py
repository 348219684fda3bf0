from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from support import tiny_network

from trainables.evaluate.accuracy import accuracy_rows, training_rows
from trainables.payloads import TrainedModel


def simulated(n: int = 300, num_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    logits = rng.normal(size=(n, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    return logits.astype(np.float32), labels


def value(rows: list[dict[str, Any]], metric: str, class_id: int | None = None) -> Any:
    (row,) = [row for row in rows if row["metric"] == metric and row.get("class_id") == class_id]
    return row["value"]


def test_values_against_scikit_learn() -> None:
    logits, labels = simulated()
    rows = accuracy_rows(logits, labels, 4)
    probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    predicted = logits.argmax(1)
    assert value(rows, "test_acc") == metrics.accuracy_score(labels, predicted)
    assert value(rows, "test_loss") == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-9)
    recalls = metrics.recall_score(labels, predicted, average=None)
    for index in range(4):
        members = labels == index
        assert value(rows, "test_acc_class", index) == pytest.approx(recalls[index])
        expected = metrics.log_loss(labels[members], probabilities[members], labels=range(4))
        assert value(rows, "test_loss_class", index) == pytest.approx(expected, rel=1e-9)
    assert all(row["n"] == (75 if "class_id" in row else 300) for row in rows)


def test_a_perfect_and_a_constant_model() -> None:
    labels = np.arange(40) % 4
    perfect = accuracy_rows(100.0 * np.eye(4)[labels], labels, 4)
    assert value(perfect, "test_acc") == 1.0
    assert value(perfect, "test_loss") < 1e-12
    constant = accuracy_rows(np.zeros((40, 4)), labels, 4)
    assert value(constant, "test_acc") == 0.25
    assert value(constant, "test_loss") == pytest.approx(np.log(4))


def test_adding_a_number_to_all_logits_of_an_image_changes_nothing_even_a_huge_one() -> None:
    logits, labels = simulated(40)
    shifted = logits.astype(np.float64) + 1e4 * np.arange(40)[:, None]
    first, second = accuracy_rows(logits, labels, 4), accuracy_rows(shifted, labels, 4)
    for one, other in zip(first, second, strict=True):
        assert one["value"] == pytest.approx(other["value"], abs=1e-9)


def test_wilson_intervals_by_the_formula_and_their_coverage() -> None:
    logits, labels = simulated(300)
    row = accuracy_rows(logits, labels, 4)[0]
    p, n, z = row["value"], 300, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((centre - reach, centre + reach))
    assert (row["ci_method"], row["ci_unit"], row["ci_level"]) == ("wilson", "images", 0.95)


def test_loss_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = accuracy_rows(*simulated(100_000, seed=99), 4)[1]["value"]
    covered = 0
    for seed in range(200):
        row = accuracy_rows(*simulated(200, seed=seed), 4)[1]
        covered += row["ci_low"] <= truth <= row["ci_high"]
    assert 180 <= covered <= 199


def test_optimism_is_best_minus_last() -> None:
    curve = [{"epoch": 1, "steps": 1, "test_acc": acc} for acc in (0.2, 0.6, 0.5)]
    facts = {
        "train_acc": 0.9,
        "train_loss": 0.1,
        "train_images": 30,
        "curve": curve,
        "optimiser_steps": 12,
        "num_parameters": 99,
    }
    rows = training_rows(TrainedModel({}, tiny_network(), (0.5,), (0.2,), {}, facts))
    assert value(rows, "optimism") == pytest.approx(0.1)
    assert value(rows, "train_acc") == 0.9
    assert [(row["metric"], row["value"]) for row in rows if row["property"] == "cost"] == [
        ("optimiser_steps", 12.0),
        ("num_parameters", 99.0),
    ]
    rows = training_rows(TrainedModel({}, tiny_network(), (0.5,), (0.2,), {}, {**facts, "curve": []}))
    assert "optimism" not in {row["metric"] for row in rows}


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.zeros((3, 2)), np.array([0, 1, 2]), r"expected \(n, 3\)"),
        (np.zeros((3, 3)), np.array([0, 1, 1]), "expected every class from 0 to 2"),
        (np.full((3, 3), np.nan), np.array([0, 1, 2]), "not finite"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(logits, labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy_rows(logits, labels, 3)
