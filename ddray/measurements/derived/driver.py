"""All derivations, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ddray.measurements.derived import (
    auc_differences,
    frontier,
    persistence,
    relative_accuracy,
    retention,
    robust_differences,
    roc_curves,
    transfer,
)
from ddray.measurements.derived.records import Derivation, PointRecord, grouped
from ddray.store.artifacts import Store

DERIVATIONS: tuple[Derivation, ...] = (
    relative_accuracy.DERIVATION,
    transfer.DERIVATION,
    retention.DERIVATION,
    persistence.DERIVATION,
    robust_differences.DERIVATION,
    auc_differences.DERIVATION,
    roc_curves.DERIVATION,
    frontier.DERIVATION,
)
"""In the order in which their rows stand in the table."""


def derive(points: Sequence[PointRecord], store: Store) -> None:
    """Fill ``derived`` of every point.

    A model that is behind several points (their settings say the same in other words) is compared once.

    Args:
        points: All of the sweep that have a finished accuracy evaluation, in the order of the plan.
        store: Holds the single images.
    """
    points = once(points)
    for derivation in DERIVATIONS:
        derivation.derive([point for point in points if point.stages.keys() >= set(derivation.reads)], store)


def once(points: Sequence[PointRecord]) -> list[PointRecord]:
    """Of the points that a model is behind the one with the most evaluations, or the first of those: counted twice, it
    would narrow every interval."""
    by_model = grouped(points, lambda point: (point.comparable, point.model_key)).values()
    return [max(same, key=lambda point: len(point.stages)) for same in by_model]
