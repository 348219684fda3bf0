"""Robustness against the full-data model of the same block, image by image."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddray.measurements.derived.notes import Noted, Row, grouped, unequal
from ddray.measurements.statistics import LEVEL
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.attacks import SETTING_COLUMNS
from trainables.evaluate.paired import adv_delta, common_distances, crossover, robust_curve, shared

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attacked:
    """What an attack did to the images of one model; see ``trainables.payloads.AttackResult``."""

    ids: NDArray[np.int64]
    correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    distance: NDArray[np.float32] | None
    facts: dict[str, Any]

    @property
    def protocol(self) -> tuple[Any, ...]:
        """What two results must agree on to be compared."""
        return tuple(
            json.dumps(self.facts[name], sort_keys=True) for name in ("attack", "norm", "epsilons", "settings")
        )


def robustness(points: Sequence[Noted], store: Store) -> None:
    """``adv_delta_full`` at every epsilon, ``eps_cross``, and ``adv_dist_*_common``, of every attack.

    Differences are to the mean over the full-data models, on the images that all have; distances, which are defined
    over the images that two models both classify correctly, to the full-data model of the same training seed, or the
    first. Intervals are about test images, for these models.
    """
    for members in grouped(points, lambda point: point.block).values():
        full = [point for point in members if point.method == "full" and "robustness" in point.stages]
        others = [point for point in members if point.method != "full" and "robustness" in point.stages]
        if not full or not others:
            continue
        names = dict.fromkeys(
            role for point in full for role, _ in point.inputs["robustness"] if role in point.artifacts
        )
        for role in names:
            references = [(point, found) for point in full if (found := _read(store, point, role)) is not None]
            for point in others if references else ():
                found = _read(store, point, role)
                like = [each for each in references if found is not None and each[1].protocol == found.protocol]
                if found is not None and like:
                    _compare(point, found, like)


def _compare(point: Noted, ours: _Attacked, references: Sequence[tuple[Noted, _Attacked]]) -> None:
    ids = ours.ids
    for _, reference in references:
        ids = np.intersect1d(ids, reference.ids, assume_unique=True)
    if len(ids) == 0:
        return
    epsilons = (0.0, *ours.facts["epsilons"])
    robust = _robust(ours, ids)
    theirs = np.mean([_robust(reference, ids) for _, reference in references], axis=0)
    row = _columns(ours) | {"agg": "single", "n_agg": len(references), "split": "test"}
    flag = unequal(point.steps, *(full.steps for full, _ in references))
    derived = point.derived["robustness"]
    for epsilon, found in zip(epsilons, adv_delta(robust, theirs), strict=True):
        derived.append(
            {
                **row,
                "metric": "adv_delta_full",
                "value": found.value,
                "unit": "fraction",
                "n": found.n,
                "ci_low": found.ci_low,
                "ci_high": found.ci_high,
                "ci_level": LEVEL,
                "ci_unit": "images",
                "ci_method": found.method,
                "epsilon": epsilon,
                **flag,
            }
        )
    cross = crossover(epsilons, robust, theirs)
    none = flag if cross is not None else {"flag": "not_applicable"}
    derived.append({**row, "metric": "eps_cross", "value": cross, "unit": ours.facts["norm"], "n": len(ids), **none})
    own = [each for full, each in references if full.chain.point.seed == point.chain.point.seed]
    _distances(point, ours, own[0] if own else references[0][1], row, flag)


def _distances(point: Noted, ours: _Attacked, reference: _Attacked, row: Row, flag: Row) -> None:
    if ours.distance is None or reference.distance is None:
        return
    here, there = shared(ours.ids, reference.ids)
    found = common_distances(
        ours.distance[here], reference.distance[there], ours.correct[here], reference.correct[there]
    )
    row = {**row, "n": found["n"], "n_agg": 1}
    norm, missing = ours.facts["norm"], {"flag": "not_converged" if found["n"] else "degenerate"}
    for name in ("median", "q10", "mean"):
        for side, suffix in (("a", ""), ("b", "_full")):
            value = found[f"{name}_{side}"]
            said = {"metric": f"adv_dist_{name}_common{suffix}", "value": value, "unit": norm}
            point.derived["robustness"].append({**row, **said, **(flag if value is not None else missing)})
    value = found["farther_a"]
    said = {"metric": "adv_dist_farther_common", "value": value, "unit": "fraction"}
    point.derived["robustness"].append({**row, **said, **(flag if value is not None else missing)})


def _robust(result: _Attacked, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(E + 1, n) of the given images."""
    at, _ = shared(result.ids, ids)
    return robust_curve(result.correct[at], result.success[:, at])


def _columns(result: _Attacked) -> Row:
    facts = result.facts
    settings = {column: facts["settings"].get(name) for column, name in SETTING_COLUMNS.items()}
    return {
        "property": "robustness",
        "attack": facts["attack"],
        "norm": facts["norm"],
        "adv_def": "clip",
        "attack_lib": facts.get("library"),
        "attack_lib_version": facts.get("library_version"),
        **{column: value for column, value in settings.items() if value is not None},
    }


def _read(store: Store, point: Noted, role: str) -> _Attacked | None:
    """An attack's result, without torch; None with a warning where it cannot be read."""
    if role not in point.artifacts:
        return None
    key, entries = point.artifacts[role]
    try:
        tensors = files.load_arrays(store.file(key, files.ATTACK_TENSORS, entries[files.ATTACK_TENSORS]))
        facts = files.load_json(store.file(key, files.ATTACK_INFO, entries[files.ATTACK_INFO]))
        return _Attacked(tensors["ids"], tensors["correct"], tensors["success"], tensors.get("distance"), facts)
    except (KeyError, DamagedArtifact, OSError, ValueError) as error:
        log.warning("%s of %s: not compared with the full data; %s", role, point.chain.point.hash[:12], error)
        return None
