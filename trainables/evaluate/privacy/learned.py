"""Attacks that learn from outputs of shadows: classifiers (Shokri et al. 2017, arXiv 1610.05820), class-wise centring.

Differs from the paper: logistic regression instead of a network; beside the sorted probabilities the features name what
later work found telling; scores are log-odds calibrated by class on shadows that the classifier did not see, so that
classes can be ranked together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainables.evaluate.intervals import Floats, Integers
from trainables.evaluate.privacy.inputs import NotApplicable, Scored, ShadowOutputs
from trainables.evaluate.privacy.statistics import (
    correctness,
    log_confidence,
    log_odds,
    negative_entropy,
    negative_modified_entropy,
)

TOP = 10
"""Sorted probabilities among the features, at most."""
ROWS_PER_CLASS = 200
"""Learning rows of a class from which it gets a classifier of its own."""
FOLDS = 5
SLOPE_FLOOR = 1e-6
"""Least slope of a class's calibration: where the classifier tells nothing it must not turn the order round."""


class Learned(Protocol):
    """What an attack of this family has learned."""

    @property
    def held_out(self) -> Floats:
        """(r,) scores of the learning rows, which a threshold may be chosen on."""

    def score(self, logits: Floats, labels: Integers) -> Scored:
        """Scores of a target's candidates, from its logits (n, K) and their labels (n,)."""


def features(logits: Floats, labels: Integers) -> Floats:
    """(n, F): the greatest min(K, 10) probabilities in descending order, p_y, loss, entropy, modified entropy, whether
    it is right."""
    shares = np.exp(-np.logaddexp(0.0, -log_odds(logits)))
    columns = -np.sort(-shares, axis=1)[:, :TOP]
    loss = -log_confidence(logits, labels)
    rest = [np.exp(-loss), loss, -negative_entropy(logits, labels), -negative_modified_entropy(logits, labels)]
    return np.column_stack([columns, *rest, correctness(logits, labels)])


@dataclass(frozen=True)
class AttackClassifier:
    """A fitted attack: log-odds of being a member, calibrated by class."""

    models: dict[int | None, Any]
    """By class; the key None: one for all, which sees the class one-hot."""
    calibration: Floats
    """(K, 2): slope and offset of each class."""
    held_out: Floats
    """(r,) calibrated log-odds of the learning rows, each from a classifier that did not see its shadow."""
    calibrated: bool
    """False when all rows are of one shadow: then nothing could be held out and ``held_out`` is in-sample."""

    @property
    def by_class(self) -> bool:
        """Whether each class has a classifier of its own."""
        return None not in self.models

    def score(self, logits: Floats, labels: Integers) -> Scored:
        """(n,) log-odds; those of a probability ``predict_proba[:, 1]``, without its ties near 0 and 1."""
        raw = _decide(self.models, features(logits, labels), labels, logits.shape[1])
        values = np.asarray(self.calibration[labels, 0] * raw + self.calibration[labels, 1], dtype=np.float64)
        rows = len(self.held_out)
        return Scored(values, {"by_class": self.by_class, "calibrated": self.calibrated, "learning_rows": rows})


@lru_cache(maxsize=1)  # the score and its threshold ask for the same one
def attack_classifier(rows: ShadowOutputs) -> AttackClassifier:
    """Learn the attack from shadows.

    One classifier per class when every class has at least 200 rows, else one for all with the class one-hot. Held-out
    log-odds come from folds that keep complementary shadows together; a logistic regression on them calibrates each
    class (slope at least 1e-6, so that no class is turned round).

    Raises:
        NotApplicable: Some class lacks members or non-members.
    """
    num_classes = rows.logits.shape[1]
    check_classes(rows)
    inputs = features(rows.logits, rows.labels)
    counts = np.bincount(rows.labels, minlength=num_classes)
    by_class = bool(counts[counts > 0].min() >= ROWS_PER_CLASS)
    models = _learn(inputs, rows.labels, rows.member, num_classes, by_class)
    groups = np.unique(rows.shadow)
    calibration = np.tile([1.0, 0.0], (num_classes, 1))
    if len(groups) < 2:
        return AttackClassifier(models, calibration, _decide(models, inputs, rows.labels, num_classes), False)
    raw = np.empty(len(inputs))
    for seen, held in GroupKFold(min(FOLDS, len(groups))).split(inputs, groups=rows.shadow):
        fold = _learn(inputs[seen], rows.labels[seen], rows.member[seen], num_classes, by_class)
        raw[held] = _decide(fold, inputs[held], rows.labels[held], num_classes)
    for index in np.flatnonzero(counts):
        chosen = rows.labels == index
        line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        line.fit(raw[chosen, None], rows.member[chosen])
        low, high = line.decision_function([[0.0], [1.0]])
        calibration[index] = max(high - low, SLOPE_FLOOR), low
    held_out = calibration[rows.labels, 0] * raw + calibration[rows.labels, 1]
    return AttackClassifier(models, calibration, held_out, True)


@dataclass(frozen=True)
class Centres:
    """A statistic less the midpoint between the medians of its class's members and non-members, on shadows.

    Differs from Song & Mittal 2021, whose class thresholds maximise accuracy: on a few hundred rows the best threshold
    jumps about on a flat top, which would add noise between classes; for two alike distributions both are one number.
    """

    statistic: Callable[[Floats, Integers], Floats]
    by_class: Floats
    """(K,) the midpoints; 0 for classes without rows."""
    held_out: Floats
    """(r,) centred statistics of the learning rows, in-sample."""

    def score(self, logits: Floats, labels: Integers) -> Scored:
        """(n,) centred statistics, which mean the same for every target."""
        values = self.statistic(logits, labels) - self.by_class[labels]
        return Scored(values, {"learning_rows": len(self.held_out)}, pooled=values)


def centres(statistic: Callable[[Floats, Integers], Floats], rows: ShadowOutputs) -> Centres:
    """Learn the centres of a statistic.

    Raises:
        NotApplicable: Some class lacks members or non-members.
    """
    check_classes(rows)
    values = statistic(rows.logits, rows.labels)
    by_class = np.zeros(rows.logits.shape[1])
    for index in np.unique(rows.labels):
        own = rows.labels == index
        by_class[index] = np.median(values[own & rows.member]) / 2 + np.median(values[own & ~rows.member]) / 2
    return Centres(statistic, by_class, values - by_class[rows.labels])


loss_centres = partial(centres, log_confidence)
entropy_centres = partial(centres, negative_entropy)
mentropy_centres = partial(centres, negative_modified_entropy)


def check_classes(rows: ShadowOutputs) -> None:
    """Raises NotApplicable unless each class that appears has members and non-members among the rows."""
    if len(rows.labels) == 0:
        raise NotApplicable("needs shadow outputs to learn from, got none")
    for index in np.unique(rows.labels):
        own = rows.member[rows.labels == index]
        if own.all() or not own.any():
            raise NotApplicable(f"class {index} has no {'non-' if own.all() else ''}members among the shadow outputs")


def _learn(inputs: Floats, labels: Integers, member: Any, num_classes: int, by_class: bool) -> dict[int | None, Any]:
    if not by_class:
        return {None: _classifier().fit(_with_class(inputs, labels, num_classes), member)}
    return {
        int(index): _classifier().fit(inputs[labels == index], member[labels == index]) for index in np.unique(labels)
    }


def _decide(models: dict[int | None, Any], inputs: Floats, labels: Integers, num_classes: int) -> Floats:
    if None in models:
        return np.asarray(models[None].decision_function(_with_class(inputs, labels, num_classes)), dtype=np.float64)
    log_odds_in = np.empty(len(inputs))
    for index in np.unique(labels):
        log_odds_in[labels == index] = models[int(index)].decision_function(inputs[labels == index])
    return log_odds_in


def _classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _with_class(inputs: Floats, labels: Integers, num_classes: int) -> Floats:
    return np.column_stack([inputs, np.eye(num_classes)[labels]])
