"""The real-data frontier: what random real images of the same accuracy give.

"Fairer", "more robust", "leaks less" follow from a low accuracy alone. The ``random`` points of a block, over all their
ipc, give each property as a function of accuracy; a distilled point's excess is its own value less the frontier's at
its accuracy. Nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddray.measurements.derived.notes import Noted, grouped, parsed, unequal
from ddray.measurements.statistics import LEVEL, Knot, on_frontier

_KINDS = {"robustness": "robustness", "privacy": "privacy"}
"""Property -> the evaluation that measures it, where that is not the accuracy's."""


def frontier(points: Sequence[Noted]) -> None:
    """``excess_<metric>`` of every distilled point: of ``test_loss``, four estimators of fairness, ``adv_acc`` of the
    primary attack at each epsilon, and ``mia_auc`` of the primary attack.

    The interval is about the draws of real images (see ``on_frontier``); the point's own value is taken as measured.
    Flagged ``unequal_steps`` where a neighbouring knot was trained for another number of steps than the point; without
    a value, ``outside_frontier`` where no random images are as good, or as bad, and ``not_applicable`` where a block
    has no frontier of a property though another block of the sweep has one.
    """
    blocks = [
        ([point for point in members if point.method == "random"], [point for point in members if point.distilled])
        for members in grouped(points, lambda point: point.block).values()
    ]
    if not any(len({point.chain.point.ipc for point in random}) > 1 for random, _ in blocks):
        return  # the sweep asks for no frontier
    for random, distilled in blocks:
        for identity in dict.fromkeys(name for point in distilled for name in point.properties):
            _excess([point for point in distilled if identity in point.properties], random, identity)


def _excess(points: Sequence[Noted], random: Sequence[Noted], identity: str) -> None:
    known = [point for point in random if identity in point.properties]
    knots = [_knot(draws, identity) for draws in grouped(known, lambda point: point.chain.point.ipc).values()]
    found = on_frontier(knots, np.array([point.accuracy for point in points]))
    row = parsed(identity)
    row["metric"] = f"excess_{row['metric']}"
    kind = _KINDS.get(row["property"], "accuracy")
    if found is None:
        for point in points:
            point.derived[kind].append({**row, "value": None, "n": 0, "agg": "single", "flag": "not_applicable"})
        return
    columns = (found.value.tolist(), found.reach.tolist(), found.draws.tolist(), found.steps.tolist())
    for point, value, reach, draws, steps in zip(points, *columns, strict=True):
        derived = {**row, "n": draws, "agg": "single"}
        if value != value:
            derived |= {"value": None, "flag": "outside_frontier"}
        else:
            excess = point.properties[identity] - value
            derived |= {"value": excess, **unequal(point.steps, *steps)}
            if reach == reach:
                derived |= {
                    "ci_low": excess - reach,
                    "ci_high": excess + reach,
                    "ci_level": LEVEL,
                    "ci_method": "t",
                    "ci_unit": "distillations",
                }
        point.derived[kind].append(derived)


def _knot(points: Sequence[Noted], identity: str) -> Knot:
    """The draws of one ipc, each by the mean over its trainings."""
    draws = grouped(points, lambda point: point.made).values()
    return Knot(
        np.array([np.mean([point.accuracy for point in trainings]) for trainings in draws]),
        np.array([np.mean([point.properties[identity] for point in trainings]) for trainings in draws]),
        float(np.mean([point.steps for point in points])),
    )
