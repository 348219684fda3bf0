"""What several trainings have in common, from the logits of the models: persistent unfairness, and confusions.

Reading logits takes long where there are many models; above ``MOST_MODELS`` of them no file is opened, and the rows say
``not_applicable``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddray.measurements.derived.notes import Noted, Row, grouped, unequal
from ddray.measurements.statistics import Floats, persistent
from ddray.plan.keys import short
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.evaluate.halves import halves

log = logging.getLogger(__name__)

MOST_MODELS = 2000


class _Answers(NamedTuple):
    """What a model answered to the test images, by class."""

    accuracy: Floats
    """(2, K): on either half of the images of each class; NaN where a half has none."""
    loss: Floats
    """(2, K), in nats."""
    confusion: Floats
    """(K, K): share of the images of a class (row) that were given to each class."""


def seeds(points: Sequence[Noted], store: Store) -> None:
    """``fair_persistent``, ``fair_persistent_loss`` of every set with several trainings, and the
    ``fair_confusion_excess`` of every point over the full-data models of its block.

    Args:
        points: All of the sweep.
        store: Holds the models.
    """
    wanted = [point for point in points if "model" in point.artifacts]
    sets = [found for found in grouped(wanted, lambda point: (point.block, point.made)).values() if len(found) > 1]
    with_full = {point.block for point in wanted if point.method == "full"}
    compared = [point for point in wanted if point.block in with_full]
    models = {id(point) for found in sets for point in found} | {id(point) for point in compared}
    if len(models) > MOST_MODELS:
        for found in sets:
            for metric, unit in (("fair_persistent", "fraction^2"), ("fair_persistent_loss", "nat^2")):
                _add_persistent(found, metric, unit, None, {"flag": "not_applicable"})
        for point in compared:
            if point.method != "full":
                point.add("fairness", "fair_confusion_excess", None, "fraction", point.images, flag="not_applicable")
        return

    def of(point: Noted) -> _Answers | None:
        return _answers(store, point)

    for members in grouped([point for point in wanted if id(point) in models], lambda point: point.block).values():
        _block(members, of)


def _block(members: Sequence[Noted], read: Callable[[Noted], _Answers | None]) -> None:
    """A block's models, each read once: the full-data ones first, then set by set."""
    references: list[Floats] = []
    steps: list[float] = []
    by_set = grouped(sorted(members, key=lambda point: point.method != "full"), lambda point: point.made)
    for found in by_set.values():
        answers = [(point, answer) for point in found if (answer := read(point)) is not None]
        if len(answers) > 1:
            _persistent([point for point, _ in answers], [answer for _, answer in answers])
        for point, answer in answers:
            if point.method == "full":
                references.append(answer.confusion)
                steps.append(point.steps)
            elif references:
                _confusion(point, answer.confusion - np.mean(references, axis=0), len(references), steps)


def _persistent(points: Sequence[Noted], answers: Sequence[_Answers]) -> None:
    for metric, unit, means in (
        ("fair_persistent", "fraction^2", np.array([each.accuracy for each in answers])),
        ("fair_persistent_loss", "nat^2", np.array([each.loss for each in answers])),
    ):
        known = bool(np.isfinite(means).all())
        value = persistent(means[:, 0], means[:, 1]) if known else None
        _add_persistent(points, metric, unit, value, {} if known else {"flag": "low_resolution"})


def _add_persistent(points: Sequence[Noted], metric: str, unit: str, value: float | None, flag: Row) -> None:
    first = min(points, key=lambda point: point.order)
    first.add("fairness", metric, value, unit, first.images, agg="pooled", n_agg=len(points), split="test", **flag)


def _confusion(point: Noted, excess: Floats, models: int, steps: Sequence[float]) -> None:
    """The pair of classes that is confused most more often than by the full-data models: overall, and by true class."""
    excess = excess.copy()
    np.fill_diagonal(excess, -np.inf)
    worst = excess.max(axis=1)
    said: Row = {"n_agg": models, "split": "test", **unequal(point.steps, *steps)}
    point.add("fairness", "fair_confusion_excess", float(worst.max()), "fraction", point.images, **said)
    for position, value in enumerate(worst.tolist()):
        n = point.class_images[position]
        point.add("fairness", "fair_confusion_excess", value, "fraction", n, class_id=position, **said)


def _answers(store: Store, point: Noted) -> _Answers | None:
    key, entries = point.artifacts["model"]
    try:
        return answers(store.file(key, files.OUTPUTS, entries[files.OUTPUTS]))
    except (KeyError, DamagedArtifact, OSError, ValueError) as error:
        log.warning("model %s: its logits are not compared; %s", short(key), error)
        return None


def answers(path: Path) -> _Answers:
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
    return _Answers(accuracy.reshape(2, -1), mean_loss.reshape(2, -1), shares)
