"""Accuracy and loss of one trained model, overall and by class. Pure functions of logits and labels, in float64.

Logits (n, K), labels (n,) positions in [0, K). ``class_id`` in a row is such a position.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from trainables.evaluate.intervals import Booleans, Floats, Integers, Row, student, wilson
from trainables.guarantee import PRIVATE
from trainables.payloads import TrainedModel

STATED = {"epsilon": "1", "delta": "1", "noise": "clip", "clip": "1", "rate": "fraction", "rounds": "releases"}
"""What a mechanism states of itself, and its unit."""


def losses(logits: Floats, labels: Integers) -> Floats:
    """Cross-entropy (n,) of each image, in nats."""
    logits = np.asarray(logits, dtype=np.float64)
    chosen: Floats = special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return chosen


def hits(logits: Floats, labels: Integers) -> Booleans:
    """Whether the largest logit is the true class's (n,). A tie goes to the lower class, as with argmax."""
    return np.asarray(np.argmax(logits, axis=1) == labels)


def checked(logits: Any, labels: Any, num_classes: int) -> tuple[Floats, Integers]:
    """Logits as float64 and labels as int64.

    Raises:
        ValueError: Shapes or labels do not fit, a class has no image, or a logit is not finite.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or logits.shape[1] != num_classes or len(labels) != len(logits) or len(labels) == 0:
        raise ValueError(
            f"accuracy: logits {logits.shape} and labels {labels.shape} do not fit; expected (n, {num_classes}) and "
            "(n,) with n >= 1. Check num_classes."
        )
    if set(np.unique(labels)) != set(range(num_classes)):
        raise ValueError(
            f"accuracy: classes with test images: got {np.unique(labels).tolist()}; expected every class from 0 to "
            f"{num_classes - 1}. Take a test split that has them all."
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            "accuracy: some logits are not finite; expected finite numbers. The training diverged: lower its lr."
        )
    return logits, labels


def accuracy_rows(logits: Any, labels: Any, num_classes: int, split: str = "test") -> list[Row]:
    """Accuracy and loss, overall and per class.

    Intervals are about the images of the split, for this one model: Wilson's for accuracies, Student's for mean
    losses (absent with fewer than two images).

    Args:
        logits: (n, K).
        labels: (n,).
        num_classes: K.
        split: Prefix of the metric names and value of the column.
    """
    logits, labels = checked(logits, labels, num_classes)
    correct, loss = hits(logits, labels), losses(logits, labels)
    rows = [_proportion(f"{split}_acc", correct, split), _mean(f"{split}_loss", loss, split)]
    for index in range(num_classes):
        members = labels == index
        rows.append({**_proportion(f"{split}_acc_class", correct[members], split), "class_id": index})
        rows.append({**_mean(f"{split}_loss_class", loss[members], split), "class_id": index})
    return rows


def training_rows(model: TrainedModel) -> list[Row]:
    """What the training itself left behind: ``train_acc``, ``train_loss``, ``optimism``, its rate and its length.

    ``optimism`` is the best minus the last accuracy of the recorded curve: what choosing the epoch by test accuracy
    would have added. Nothing is chosen by it. ``trained_lr`` is the learning rate that the training began with: the
    recipe's, or the one learned with the set. Where a teacher labelled the images: ``teacher_acc``,
    ``teacher_agreement``, ``teacher_entropy``, ``label_bytes`` (``train.taught``). Where noise gives a guarantee:
    ``dp_epsilon`` and the rest of ``guarantee.Guarantee``. Of a model that was trained
    elsewhere only its size is known.
    """
    facts = model.info
    size = _row("cost", "num_parameters", float(facts["num_parameters"]), "parameters", 1, "train")
    if "optimiser_steps" not in facts:
        return [size]
    rows: list[Row] = [
        _row("performance", "train_acc", facts["train_acc"], "fraction", facts["train_images"], "train"),
        _row("performance", "train_loss", facts["train_loss"], "nat", facts["train_images"], "train"),
    ]
    if curve := [point["test_acc"] for point in facts["curve"]]:
        rows.append(_row("performance", "optimism", max(curve) - curve[-1], "fraction", len(curve), "test"))
    if "trained_lr" in facts:  # not in models from before rates were learned
        rows.append(_row("performance", "trained_lr", facts["trained_lr"], "1", 1, "train"))
    if "teacher_acc" in facts:
        images = facts["train_images"]
        rows.append(_row("performance", "teacher_acc", facts["teacher_acc"], "fraction", 1, "test"))
        rows.append(_row("performance", "teacher_agreement", facts["teacher_agreement"], "fraction", images, "train"))
        rows.append(_row("performance", "teacher_entropy", facts["teacher_entropy"], "nat", images, "train"))
        rows.append(_row("cost", "label_bytes", float(facts["label_bytes"]), "bytes", images, "train"))
    if PRIVATE in facts:
        stated, images = facts[PRIVATE], facts["train_images"]
        for name, unit in STATED.items():
            rows.append(_row("privacy", f"dp_{name}", float(stated[name]), unit, images, "train"))
    rows.append(_row("cost", "optimiser_steps", float(facts["optimiser_steps"]), "steps", 1, "train"))
    return [*rows, size]


def _row(prop: str, metric: str, value: float, unit: str, n: int, split: str) -> Row:
    return {"property": prop, "metric": metric, "value": value, "unit": unit, "n": n, "split": split}


def _proportion(metric: str, correct: Booleans, split: str) -> Row:
    return {**_row("performance", metric, float(correct.mean()), "fraction", len(correct), split), **wilson(correct)}


def _mean(metric: str, values: Floats, split: str) -> Row:
    return {**_row("performance", metric, float(values.mean()), "nat", len(values), split), **student(values)}
