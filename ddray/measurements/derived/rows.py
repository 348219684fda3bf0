"""All derived rows of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from ddray.measurements.derived.architectures import architectures
from ddray.measurements.derived.fairness import fairness, of_mean
from ddray.measurements.derived.frontier import frontier
from ddray.measurements.derived.notes import Noted, grouped
from ddray.measurements.derived.privacy import privacy
from ddray.measurements.derived.relative import relative
from ddray.measurements.derived.robustness import robustness
from ddray.measurements.derived.seeds import seeds
from ddray.store.artifacts import Store


def derive(points: Sequence[Noted], store: Store) -> None:
    """Fill ``derived`` of every point. Rows of one point come in the order of the calls here.

    A model that is behind several points (their settings say the same in other words) is compared once.

    Args:
        points: All of the sweep that have a finished accuracy evaluation, in the order of the plan.
        store: Read for logits, for what attacks did to single images and said of them, and for nothing else.
    """
    points = once(points)
    relative(points)
    architectures(points)
    fairness(points)
    of_mean(points)
    seeds(points, store)
    robustness(points, store)
    privacy(points, store)
    frontier(points)


def once(points: Sequence[Noted]) -> list[Noted]:
    """Of the points that a model is behind the one with the most evaluations, or the first of those: counted twice, it
    would narrow every interval."""
    by_model = grouped(points, lambda point: (point.block, point.model)).values()
    return [max(same, key=lambda point: len(point.stages)) for same in by_model]
