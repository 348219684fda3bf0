"""The real-data frontier: what random real images of the same accuracy give.

"Fairer", "more robust", "leaks less" follow from a low accuracy alone. The comparable ``random`` points, over all
their ipc, give each property as a function of accuracy; a distilled point's excess is its own value less the
frontier's at its accuracy. Nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, parsed, unequal
from ddray.measurements.metrics import records
from ddray.measurements.statistics import LEVEL, Knot, on_frontier

_METRICS = (
    *records("performance", "frontier", ("excess_test_loss", "nat", "lower", "excess of `test_loss`"), mirrored=()),
    *records(
        "fairness",
        "frontier",
        ("excess_fair_var_acc", "fraction^2", "lower", "excess of `fair_var_acc`"),
        ("excess_fair_var_acc_corr", "fraction^2", "lower", "excess of `fair_var_acc_corr`"),
        ("excess_fair_var_loss", "nat^2", "lower", "excess of `fair_var_loss`"),
        ("excess_fair_cv_acc", "ratio", "lower", "excess of `fair_cv_acc`"),
        mirrored=(),
    ),
    *records(
        "robustness",
        "frontier",
        (
            "excess_adv_acc",
            "fraction",
            "higher",
            "excess of `adv_acc` by `deepfool_l2` (`adv_def` clip) at each epsilon above 0",
        ),
        mirrored=(),
    ),
    *records(
        "privacy",
        "frontier",
        (
            "excess_mia_auc",
            "fraction",
            "lower",
            "excess of `mia_auc` of the registered primary attack (`shokri`), per audit",
        ),
        mirrored=(),
    ),
)
_BY_ID = {metric.id: metric for metric in _METRICS}


def frontier(points: Sequence[PointRecord]) -> None:
    """``excess_<metric>`` of every distilled point: of ``test_loss``, four estimators of fairness, ``adv_acc`` of the
    primary attack at each epsilon, and ``mia_auc`` of the primary attack.

    The interval is about the draws of real images (see ``on_frontier``); the point's own value is taken as measured.
    Flagged ``unequal_steps`` where a neighbouring knot was trained for another number of steps than the point; without
    a value, ``outside_frontier`` where no random images are as good, or as bad, and ``not_applicable`` where comparable
    points have no frontier of a property though others of the sweep have one.
    """
    groups = [
        ([point for point in members if point.method == "random"], [point for point in members if point.distilled])
        for members in grouped(points, lambda point: point.comparable).values()
    ]
    if not any(len({point.chain.point.ipc for point in random}) > 1 for random, _ in groups):
        return  # the sweep has no frontier
    for random, distilled in groups:
        for identity in dict.fromkeys(name for point in distilled for name in point.properties):
            _excess([point for point in distilled if identity in point.properties], random, identity)


def _excess(points: Sequence[PointRecord], random: Sequence[PointRecord], identity: str) -> None:
    known = [point for point in random if identity in point.properties]
    knots = [_knot(draws, identity) for draws in grouped(known, lambda point: point.chain.point.ipc).values()]
    real = on_frontier(knots, np.array([point.accuracy for point in points]))
    own = parsed(identity)
    metric = _BY_ID[f"excess_{own['metric']}"]
    columns = {name: value for name, value in own.items() if name not in ("property", "metric", "unit", "n")}
    # The accuracy evaluation measures fairness too.
    kind = metric.property if metric.property in ("robustness", "privacy") else "accuracy"
    if real is None:
        for point in points:
            point.add(metric, None, 0, kind, **columns, flag="not_applicable")
        return
    arrays = (real.value.tolist(), real.reach.tolist(), real.draws.tolist(), real.steps.tolist())
    for point, value, reach, draws, steps in zip(points, *arrays, strict=True):
        if value != value:
            point.add(metric, None, draws, kind, **columns, flag="outside_frontier")
            continue
        excess = point.properties[identity] - value
        interval: Row = {}
        if reach == reach:
            interval = {
                "ci_low": excess - reach,
                "ci_high": excess + reach,
                "ci_level": LEVEL,
                "ci_method": "t",
                "ci_unit": "distillations",
            }
        point.add(metric, excess, draws, kind, **columns, **interval, **unequal(point.steps, *steps))


def _knot(points: Sequence[PointRecord], identity: str) -> Knot:
    """The draws of one ipc, each by the mean over its trainings."""
    draws = grouped(points, lambda point: point.set_key).values()
    return Knot(
        np.array([np.mean([point.accuracy for point in trainings]) for trainings in draws]),
        np.array([np.mean([point.properties[identity] for point in trainings]) for trainings in draws]),
        float(np.mean([point.steps for point in points])),
    )


DERIVATION = Derivation(_METRICS, ("accuracy",), lambda points, store: frontier(points))
