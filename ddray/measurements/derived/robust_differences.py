"""Robustness against the full-data model of the same block, image by image."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, unequal
from ddray.measurements.metrics import NORM, records
from ddray.measurements.statistics import LEVEL
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.attacks import SETTING_COLUMNS
from trainables.evaluate.paired import adv_delta, common_distances, crossover, robust_curve, shared

log = logging.getLogger(__name__)

_DELTA, _CROSS = records(
    "robustness",
    "robust_differences",
    (
        "adv_delta_full",
        "fraction",
        "higher",
        "robust accuracy less the mean of the full-data models', at each `epsilon`",
    ),
    (
        "eps_cross",
        NORM,
        "lower",
        "smallest epsilon above 0 at which the interval of that difference, made for all epsilons together "
        "(Bonferroni), is above 0 and both accuracies are at least 2 %; `not_shown`: there is none, which is not that "
        "they do not cross",
    ),
    mirrored=(),
)
_DISTANCES = records(
    "robustness",
    "robust_differences",
    (
        "adv_dist_median_common",
        NORM,
        "higher",
        "median distance over the images that this and the full-data model of the same seed both classify correctly",
    ),
    ("adv_dist_median_common_full", NORM, "", "the full-data model's over the same images"),
    ("adv_dist_q10_common", NORM, "higher", "10 % quantile of the distances over these images"),
    ("adv_dist_q10_common_full", NORM, "", "the full-data model's over the same images"),
    ("adv_dist_mean_common", NORM, "higher", "mean of the distances over these images"),
    ("adv_dist_mean_common_full", NORM, "", "the full-data model's over the same images"),
    (
        "adv_dist_farther_common",
        "fraction",
        "higher",
        "share of them that are farther from the border for this model; ties count one half",
    ),
    mirrored=(),
)
_METRICS = (_DELTA, _CROSS, *_DISTANCES)


@dataclass(frozen=True)
class _AttackResult:
    """What an attack did to the images of one model; see ``trainables.payloads.AttackResult``."""

    ids: NDArray[np.int64]
    correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    distance: NDArray[np.float32] | None
    info: dict[str, Any]

    @property
    def protocol(self) -> tuple[Any, ...]:
        """What two results must agree on to be compared."""
        return tuple(json.dumps(self.info[name], sort_keys=True) for name in ("attack", "norm", "epsilons", "settings"))


def robust_differences(points: Sequence[PointRecord], store: Store) -> None:
    """``adv_delta_full`` at every epsilon, ``eps_cross``, and ``adv_dist_*_common``, of every attack.

    Differences are to the mean over the full-data models, on the images that all have; distances, which are defined
    over the images that two models both classify correctly, to the full-data model of the same training seed, or the
    first. Intervals are about test images, for these models.
    """
    for members in grouped(points, lambda point: point.comparable).values():
        full = [point for point in members if point.method == "full"]
        others = [point for point in members if point.method != "full"]
        if not full or not others:
            continue
        attacks = dict.fromkeys(
            role for point in full for role, _ in point.inputs["robustness"] if role in point.artifacts
        )
        for role in attacks:
            references = [(point, result) for point in full if (result := _read(store, point, role)) is not None]
            for point in others if references else ():
                ours = _read(store, point, role)
                if ours is None:
                    continue
                like = [(full, theirs) for full, theirs in references if theirs.protocol == ours.protocol]
                if like:
                    _compare(point, ours, like)


def _compare(point: PointRecord, ours: _AttackResult, references: Sequence[tuple[PointRecord, _AttackResult]]) -> None:
    ids = ours.ids
    for _, reference in references:
        ids = np.intersect1d(ids, reference.ids, assume_unique=True)
    if len(ids) == 0:
        return
    epsilons = (0.0, *ours.info["epsilons"])
    robust = _robust(ours, ids)
    theirs = np.mean([_robust(reference, ids) for _, reference in references], axis=0)
    columns = _columns(ours) | {"n_agg": len(references), "split": "test"}
    flag = unequal(point.steps, *(full.steps for full, _ in references))
    for epsilon, delta in zip(epsilons, adv_delta(robust, theirs), strict=True):
        interval = {
            "ci_low": delta.ci_low,
            "ci_high": delta.ci_high,
            "ci_level": LEVEL,
            "ci_unit": "images",
            "ci_method": delta.method,
        }
        point.add(_DELTA, delta.value, delta.n, "robustness", **columns, **interval, epsilon=epsilon, **flag)
    cross = crossover(epsilons, robust, theirs)
    none = flag if cross is not None else {"flag": "not_shown"}
    point.add(_CROSS, cross, len(ids), "robustness", **columns, **none)
    own = [each for full, each in references if full.chain.point.seed == point.chain.point.seed]
    _distances(point, ours, own[0] if own else references[0][1], columns | {"n_agg": 1}, flag)


def _distances(point: PointRecord, ours: _AttackResult, reference: _AttackResult, columns: Row, flag: Row) -> None:
    if ours.distance is None or reference.distance is None:
        return
    here, there = shared(ours.ids, reference.ids)
    common = common_distances(
        ours.distance[here], reference.distance[there], ours.correct[here], reference.correct[there]
    )
    missing = {"flag": "not_converged" if common["n"] else "degenerate"}
    for metric, name in zip(
        _DISTANCES, ("median_a", "median_b", "q10_a", "q10_b", "mean_a", "mean_b", "farther_a"), strict=True
    ):
        value = common[name]
        point.add(metric, value, common["n"], "robustness", **columns, **(flag if value is not None else missing))


def _robust(result: _AttackResult, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(E + 1, n) of the given images."""
    at, _ = shared(result.ids, ids)
    return robust_curve(result.correct[at], result.success[:, at])


def _columns(result: _AttackResult) -> Row:
    info = result.info
    settings = {column: info["settings"].get(name) for column, name in SETTING_COLUMNS.items()}
    return {
        "attack": info["attack"],
        "norm": info["norm"],
        "adv_def": "clip",
        "attack_lib": info.get("library"),
        "attack_lib_version": info.get("library_version"),
        **{column: value for column, value in settings.items() if value is not None},
    }


def _read(store: Store, point: PointRecord, role: str) -> _AttackResult | None:
    """An attack's result, without torch; None with a warning where it cannot be read."""
    if role not in point.artifacts:
        return None
    key, entries = point.artifacts[role]
    try:
        tensors = files.load_arrays(store.file(key, files.ATTACK_TENSORS, entries[files.ATTACK_TENSORS]))
        info = files.load_json(store.file(key, files.ATTACK_INFO, entries[files.ATTACK_INFO]))
        return _AttackResult(tensors["ids"], tensors["correct"], tensors["success"], tensors.get("distance"), info)
    except (KeyError, DamagedArtifact, OSError, ValueError) as error:
        log.warning("%s of %s: not compared with the full data; %s", role, point.chain.point.hash[:12], error)
        return None


DERIVATION = Derivation(_METRICS, ("accuracy", "robustness"), robust_differences)
