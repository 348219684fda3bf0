"""What several trainings have in common: variance between classes of their mean, persistent unfairness, confusions.

The latter two are read from the logits of the models, which takes long where there are many; above ``MOST_MODELS`` of
them no file is opened, and the rows say ``not_applicable``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, unequal
from ddray.measurements.metrics import Metric, records
from ddray.measurements.statistics import Floats, persistent
from ddray.plan.keys import short
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.evaluate.paired import halves

log = logging.getLogger(__name__)

MOST_MODELS = 2000

_METRICS = records(
    "fairness",
    "persistence",
    (
        "fair_var_acc_of_mean",
        "fraction^2",
        "lower",
        "variance over classes of the mean over trainings, which holds less of their noise",
    ),
    ("fair_var_loss_of_mean", "nat^2", "lower", "the same of losses"),
    (
        "fair_persistent",
        "fraction^2",
        "lower",
        "covariance over classes of two trainings, each on its own half of the test images, averaged over ordered "
        "pairs: the variance without the noise of either. Not read above 2,000 models (`not_applicable`)",
    ),
    ("fair_persistent_loss", "nat^2", "lower", "the same of losses"),
    (
        "fair_confusion_excess",
        "fraction",
        "lower",
        "largest P(j given c) - P*(j given c) over pairs of classes c, j; with `class_id`: of true class c",
    ),
    mirrored=(),
)
VAR_ACC_OF_MEAN, VAR_LOSS_OF_MEAN, PERSISTENT, PERSISTENT_LOSS, CONFUSION_EXCESS = _METRICS


class ClassMeans(NamedTuple):
    """What a model says of the test images, by class."""

    accuracy: Floats
    """(2, K): on either half of the images of each class; NaN where a half has none."""
    loss: Floats
    """(2, K), in nats."""
    confusion: Floats
    """(K, K): share of the images of a class (row) that were given to each class."""


def of_mean(points: Sequence[PointRecord]) -> None:
    """Variances over classes of what several trainings of one set average to: less of their noise than in the mean of
    their variances. One row per set, on its first point."""
    for trainings in grouped(points, lambda point: (point.comparable, point.set_key)).values():
        if len(trainings) < 2 or not len(trainings[0].class_accuracies):
            continue
        first = min(trainings, key=lambda point: point.order)
        for metric, by_class in (
            (VAR_ACC_OF_MEAN, np.array([point.class_accuracies for point in trainings])),
            (VAR_LOSS_OF_MEAN, np.array([point.class_losses for point in trainings])),
        ):
            value = float(by_class.mean(axis=0).var())
            first.add(metric, value, first.images, agg="mean_seeds", n_agg=len(trainings), split="test")


def from_logits(points: Sequence[PointRecord], store: Store) -> None:
    """``fair_persistent``, ``fair_persistent_loss`` of every set with several trainings, and the
    ``fair_confusion_excess`` of every point over the full-data models that it is comparable with."""
    kept = [point for point in points if "model" in point.artifacts]
    by_set = grouped(kept, lambda point: (point.comparable, point.set_key)).values()
    repeated = [trainings for trainings in by_set if len(trainings) > 1]
    with_full = {point.comparable for point in kept if point.method == "full"}
    compared = [point for point in kept if point.comparable in with_full]
    needed = {point for trainings in repeated for point in trainings} | set(compared)
    if len(needed) > MOST_MODELS:
        for trainings in repeated:
            for metric in (PERSISTENT, PERSISTENT_LOSS):
                _add_persistent(trainings, metric, None, {"flag": "not_applicable"})
        for point in compared:
            if point.method != "full":
                point.add(CONFUSION_EXCESS, None, point.images, flag="not_applicable")
        return
    for members in grouped((point for point in kept if point in needed), lambda point: point.comparable).values():
        _compare(members, store)


def _compare(members: Sequence[PointRecord], store: Store) -> None:
    """Comparable models, each read once: the full-data ones first, then set by set."""
    references: list[Floats] = []
    steps: list[float] = []
    full_first = sorted(members, key=lambda point: point.method != "full")
    for trainings in grouped(full_first, lambda point: point.set_key).values():
        read = [(point, means) for point in trainings if (means := _read(store, point)) is not None]
        if len(read) > 1:
            _persistent([point for point, _ in read], [means for _, means in read])
        for point, means in read:
            if point.method == "full":
                references.append(means.confusion)
                steps.append(point.steps)
            elif references:
                _confusion(point, means.confusion - np.mean(references, axis=0), len(references), steps)


def _persistent(points: Sequence[PointRecord], read: Sequence[ClassMeans]) -> None:
    for metric, halved in (
        (PERSISTENT, np.array([each.accuracy for each in read])),
        (PERSISTENT_LOSS, np.array([each.loss for each in read])),
    ):
        known = bool(np.isfinite(halved).all())
        value = persistent(halved[:, 0], halved[:, 1]) if known else None
        _add_persistent(points, metric, value, {} if known else {"flag": "low_resolution"})


def _add_persistent(points: Sequence[PointRecord], metric: Metric, value: float | None, flag: Row) -> None:
    first = min(points, key=lambda point: point.order)
    first.add(metric, value, first.images, agg="pooled", n_agg=len(points), split="test", **flag)


def _confusion(point: PointRecord, excess: Floats, models: int, steps: Sequence[float]) -> None:
    """The pair of classes that is confused most more often than by the full-data models: overall, and by true class."""
    excess = excess.copy()
    np.fill_diagonal(excess, -np.inf)
    worst = excess.max(axis=1)
    columns: Row = {"n_agg": models, "split": "test", **unequal(point.steps, *steps)}
    point.add(CONFUSION_EXCESS, float(worst.max()), point.images, **columns)
    for position, value in enumerate(worst.tolist()):
        point.add(CONFUSION_EXCESS, value, point.class_images[position], class_id=position, **columns)


def _read(store: Store, point: PointRecord) -> ClassMeans | None:
    key, entries = point.artifacts["model"]
    try:
        return class_means(store.file(key, files.OUTPUTS, entries[files.OUTPUTS]))
    except (KeyError, DamagedArtifact, OSError, ValueError) as error:
        log.warning("model %s: its logits are not compared; %s", short(key), error)
        return None


def class_means(path: Path) -> ClassMeans:
    """Class means and confusions of the test logits in a model's file.

    Raises:
        ValueError: It does not hold them.
    """
    outputs = files.load_arrays(path, ("test.logits", "test.labels"))
    logits = np.asarray(outputs["test.logits"], dtype=np.float64)
    labels = np.asarray(outputs["test.labels"], dtype=np.int64)
    classes = logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    given = np.argmax(logits, axis=1)
    first = halves(labels)
    by_half = labels + classes * ~first
    with np.errstate(invalid="ignore", divide="ignore"):
        counts = np.bincount(by_half, minlength=2 * classes)
        accuracy = np.bincount(by_half, weights=given == labels, minlength=2 * classes) / counts
        mean_loss = np.bincount(by_half, weights=loss, minlength=2 * classes) / counts
        confusion = np.bincount(labels * classes + given, minlength=classes**2).reshape(classes, classes)
        shares = confusion / confusion.sum(axis=1, keepdims=True)
    return ClassMeans(accuracy.reshape(2, -1), mean_loss.reshape(2, -1), shares)


def persistence(points: Sequence[PointRecord], store: Store) -> None:
    """All of them: the variances of means first."""
    of_mean(points)
    from_logits(points, store)


DERIVATION = Derivation(_METRICS, ("accuracy",), persistence)
