"""The real-data frontier: what random real images of the same accuracy give.

"Fairer", "more robust", "leaks less" follow from a low accuracy alone. The comparable ``random`` points, over all
their ipc, give each property as a function of accuracy; the excess of a distilled cell is its own value less
the frontier's at its accuracy. Nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddray.measurements.derived.records import Derivation, PointRecord, grouped, parsed, unequal
from ddray.measurements.metrics import records
from ddray.measurements.statistics import LEVEL, Sets, excess

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
            "excess of `mia_auc`, of each attack of the audit's panel",
        ),
        mirrored=(),
    ),
)
_BY_ID = {metric.id: metric for metric in _METRICS}


def frontier(points: Sequence[PointRecord]) -> None:
    """``excess_<metric>`` of every distilled cell: of ``test_loss``, four estimators of fairness, ``adv_acc`` of the
    primary attack at each epsilon, and ``mia_auc`` of each attack of a panel.

    A row is about all seeds of a cell at their mean accuracy, and stands on the first of its points: single models are
    not chosen by their own accuracy. The interval is about the models' seeds and the draws of real images (see
    ``excess``); a row without one has a ``reason``. ``knots_apart`` says how far apart in accuracy the real images are
    between which a line was drawn. Flagged ``unequal_steps`` where a neighbouring knot was trained for another number
    of steps than the models; without a value, ``outside_frontier`` where no random images are as good, or as bad, and
    ``not_applicable`` where comparable points have no frontier of a property though others of the sweep have one.
    """
    groups = [
        ([point for point in members if point.method == "random"], [point for point in members if point.distilled])
        for members in grouped(points, lambda point: point.comparable).values()
    ]
    if not any(len({point.chain.point.ipc for point in random}) > 1 for random, _ in groups):
        return  # the sweep has no frontier
    for random, distilled in groups:
        cells = grouped(distilled, lambda point: point.cell).values()
        for identity in dict.fromkeys(name for point in distilled for name in point.properties):
            known = [point for point in random if identity in point.properties]
            knots = [_sets(draws, identity) for draws in grouped(known, lambda point: point.chain.point.ipc).values()]
            for cell in cells:
                if measured := [point for point in cell if identity in point.properties]:
                    _excess(measured, knots, identity)


def _excess(points: Sequence[PointRecord], knots: Sequence[Sets], identity: str) -> None:
    own = parsed(identity)
    metric = _BY_ID[f"excess_{own['metric']}"]
    columns = {name: value for name, value in own.items() if name not in ("property", "metric", "unit", "n")}
    # The accuracy evaluation measures fairness too.
    kind = metric.property if metric.property in ("robustness", "privacy") else "accuracy"
    first = min(points, key=lambda point: point.order)
    if len(points) > 1:
        columns |= {"agg": "mean_seeds", "n_agg": len(points)}
    sets = _sets(points, identity, of_one=True)
    found = excess(knots, sets)
    if found is None or found.value != found.value:
        flag = "not_applicable" if found is None else "outside_frontier"
        first.add(metric, None, 0, kind, **columns, flag=flag)
        return
    columns |= {"knots_apart": found.apart, **unequal(sets.steps, *found.steps)}
    if found.reason is not None:
        columns["reason"] = f"no interval: {found.reason}"
    else:
        columns |= {
            "ci_low": found.value - found.reach,
            "ci_high": found.value + found.reach,
            "ci_level": LEVEL,
            "ci_method": "t",
            "ci_unit": "distillations" if len({point.set_key for point in points}) > 1 else "trainings",
        }
    first.add(metric, found.value, found.draws, kind, **columns)


def _sets(points: Sequence[PointRecord], identity: str, of_one: bool = False) -> Sets:
    """Points that differ in seeds, each set by the mean over its trainings.

    Args:
        points: At least one.
        identity: The property.
        of_one: Where there is a single set, its trainings are what scatters.
    """
    by_set = list(grouped(points, lambda point: point.set_key).values())
    if of_one and len(by_set) == 1:
        by_set = [[point] for point in points]
    return Sets(
        np.array([np.mean([point.accuracy for point in trainings]) for trainings in by_set]),
        np.array([np.mean([point.properties[identity] for point in trainings]) for trainings in by_set]),
        float(np.mean([point.steps for point in points])),
    )


DERIVATION = Derivation(_METRICS, ("accuracy",), lambda points, store: frontier(points))
