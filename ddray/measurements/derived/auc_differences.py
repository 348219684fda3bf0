"""Which of two models leaks more: differences of their AUCs on the same members and non-members.

Comparable points with the same seeds have the same draws of members, so both attacks are about the same images, and
what an image adds to both falls out of the difference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddray.measurements.derived.records import Derivation, PointRecord, Row, grouped, no_p, unequal
from ddray.measurements.metrics import records
from ddray.measurements.statistics import LEVEL, adjusted
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.attacks import MEMBERSHIP_ATTACKS, PANELS, Audit
from trainables.configs import PrivacyConfig
from trainables.evaluate.paired import auc_difference, placements, usable
from trainables.files import CANARY

log = logging.getLogger(__name__)

_METRICS = records(
    "privacy",
    "auc_differences",
    ("mia_auc_delta", "fraction", "lower", "the point's `mia_auc` less the other's"),
    ("mia_auc_delta_p", "p", "", "its two-sided p, of no difference"),
    (
        "mia_auc_delta_p_adjusted",
        "p",
        "",
        "that p adjusted over all attacks and comparisons of the sweep (Benjamini-Hochberg), each counted once",
    ),
    mirrored=(),
)
_DELTA, _DELTA_P, _DELTA_P_ADJUSTED = _METRICS

_Placed = dict[str, NDArray[np.float64]]
"""Attack -> placements (T, n)."""


@dataclass(frozen=True)
class _Scored:
    """What an audit says of its candidates: T targets, n images."""

    who: NDArray[np.int64]
    """(n,) example ids, those of test images below 0."""
    targets: NDArray[np.int64]
    """(T,) rows of the membership matrix."""
    member: NDArray[np.bool_]
    """(T, n)."""
    shadows: int
    """That attacks had."""
    placed: _Placed
    """Of the models."""
    start: _Placed
    """Of models trained on the undistilled start; empty where there are none."""

    def like(self, other: _Scored) -> bool:
        """Whether both are about the same candidates, targets and members."""
        return all(
            np.array_equal(ours, theirs)
            for ours, theirs in ((self.who, other.who), (self.targets, other.targets), (self.member, other.member))
        )


@dataclass(frozen=True)
class _Difference:
    """A difference of two AUCs."""

    value: float
    n: int
    """Candidates."""
    columns: Row
    interval: Row
    p: float | None


def auc_differences(points: Sequence[PointRecord], store: Store) -> None:
    """``mia_auc_delta`` with its p, of each attack of the panels of the audits ``seed`` and ``pool``.

    A point's AUC less that of ``random`` with the same ipc and seeds, of ``full`` with the same training seed, and of
    the points before it that differ in method, init, distill_aug or labels alone. Methods may have settings of their
    own; points of one method share theirs, budget and all. ``against`` in ``param_json`` says in what the other
    differs, ``against_point`` which it is. Against the point's own undistilled start: iteration 0. Attacks that need
    shadows are compared where they had as many.

    All attacks are compared, and p is adjusted for that: an attack that was chosen for its outcome would always differ.
    A set that starts from real images starts as ``random`` of its seeds is: then two comparisons are one, and count as
    one among those that p is adjusted for.
    """
    tested: list[tuple[PointRecord, Row, _Difference]] = []
    audited = [point for point in points if "privacy" in point.artifacts]
    for members in grouped(audited, lambda point: point.comparable._replace(labels="")).values():
        scores = {point: _read(store, point) for point in members}
        for point in members:
            columns: Row = {"against": {"iteration": 0}, "against_point": point.chain.point.hash}
            for audit, own in scores[point].items():
                tested += [(point, columns, each) for each in _differences(audit, own, own, start=True)]
        for point, other, against in _pairs(members):
            ours, theirs = scores[point], scores[other]
            columns = {"against": against, "against_point": other.chain.point.hash, **unequal(point.steps, other.steps)}
            for audit in sorted(ours.keys() & theirs.keys()):
                if ours[audit].like(theirs[audit]):
                    compared = _differences(audit, ours[audit], theirs[audit], of_set="labels" not in against)
                    tested += [(point, columns, each) for each in compared]
    numbers: dict[tuple[Any, ...], float | None] = {_number(point, each): each.p for point, _, each in tested}
    corrected = dict(zip(numbers, adjusted(list(numbers.values())), strict=True))
    for point, columns, difference in tested:
        q = corrected[_number(point, difference)]
        columns = columns | difference.columns
        point.add(_DELTA, difference.value, difference.n, "privacy", **columns, **difference.interval)
        columns = columns | no_p(0.0, difference.p)
        for metric, p in ((_DELTA_P, difference.p), (_DELTA_P_ADJUSTED, q)):
            point.add(metric, p, difference.n, "privacy", **columns)


def _number(point: PointRecord, difference: _Difference) -> tuple[Any, ...]:
    """Equal for comparisons that are the same, to the last digit: of one point with one model by one attack, and of one
    set by an attack that looks at nothing else."""
    about = difference.columns
    whose = point.set_key if about["threat_model"] == "data_release" else point.chain.point.hash
    return whose, about["audit"], about["attack"], difference.value, difference.p


def _pairs(members: Sequence[PointRecord]) -> Iterator[tuple[PointRecord, PointRecord, dict[str, str]]]:
    """A point, another, and in what that differs."""
    random = {(_seeds(point), point.comparable.labels): point for point in members if point.method == "random"}
    full = [point for point in members if point.method == "full"]
    before: list[PointRecord] = []
    for point in members:
        if point.method == "full":
            continue
        if point.distilled and (drawn := random.get((_seeds(point), point.comparable.labels))) is not None:
            yield point, drawn, {"method": "random"}
        for other in full:
            if other.chain.point.seed == point.chain.point.seed:
                yield point, other, {"method": "full"}
        for other in before:
            if _seeds(other) != _seeds(point) or len(differs := _differing(point, other)) != 1:
                continue
            if "labels" in differs or (point.distilled and other.distilled):  # random has had its turn
                yield point, other, differs
        before.append(point)


def _seeds(point: PointRecord) -> tuple[int | None, int, int]:
    at = point.chain.point
    return at.ipc, at.distill_seed or 0, at.seed


def _differing(point: PointRecord, other: PointRecord) -> dict[str, str]:
    """Axis -> the other's value, of the axes that both use with different values; for a method with other settings
    nothing that could be named."""
    differing = {}
    for name in ("method", "init", "distill_aug"):
        ours, theirs = getattr(point.chain.point, name), getattr(other.chain.point, name)
        if ours is not None and theirs is not None and ours != theirs:
            differing[name] = str(theirs)
    if point.comparable.labels != other.comparable.labels:
        differing["labels"] = other.comparable.labels or other.label_kind
    return differing if "method" in differing or _settings(point) == _settings(other) else {}


def _settings(point: PointRecord) -> Any:
    distill = point.chain.stage("distill")
    return getattr(distill.config, "settings", None) if distill is not None else None


def _differences(
    audit: str, ours: _Scored, theirs: _Scored, *, start: bool = False, of_set: bool = True
) -> Iterator[_Difference]:
    """Of each attack; with ``start`` less what the other's start gives away, without ``of_set`` of those alone that
    look at models: other labels leave the images of a set as they are."""
    targets, images = ours.member.shape
    inside = int(ours.member.sum(axis=1).min())
    columns: Row = {
        "audit": audit,
        "nonmember_source": "test_balanced" if audit == "seed" else "pool",
        "n_pos": inside,
        "n_neg": images - inside,
        "agg": "single" if targets == 1 else "mean_targets",
    }
    if targets > 1:
        columns["n_agg"] = targets
    for attack, placed in ours.placed.items():
        other = (theirs.start if start else theirs.placed).get(attack)
        if other is None:
            continue
        record = MEMBERSHIP_ATTACKS[attack]
        if not of_set and record.threat_model == "data_release":
            continue
        about: Row = {"attack": attack, "threat_model": record.threat_model}
        if record.needs in ("shadow_outputs", "shadows"):
            if ours.shadows != theirs.shadows:
                continue
            about["n_shadows"] = ours.shadows
            if start and audit == "seed":
                about["shadow_fidelity"] = "unequal"  # the start is attacked with shadows that were distilled
        difference = auc_difference(placed, other, ours.member, LEVEL)
        interval: Row = {}
        if difference.ci_low is not None:
            interval = {
                "ci_low": difference.ci_low,
                "ci_high": difference.ci_high,
                "ci_level": LEVEL,
                "ci_method": "delong" if targets == 1 else "delong_two_way",
                "ci_unit": "images" if targets == 1 else "targets",
            }
        yield _Difference(difference.value, images, {**columns, **about}, interval, difference.p)


def _read(store: Store, point: PointRecord) -> dict[str, _Scored]:
    """Audit -> its scores, without torch; empty with a warning where they cannot be read."""
    key, entries = point.artifacts["privacy"]
    try:
        path = store.file(key, files.DETAILS, entries[files.DETAILS])
        kept = files.load_arrays(path, _WANTED & set(files.array_names(path)))
    except (KeyError, DamagedArtifact, OSError, ValueError) as error:
        log.warning("audit of %s: not compared with others; %s", point.chain.point.hash[:12], error)
        return {}
    stage = point.chain.stage("privacy")
    assert stage is not None
    assert isinstance(stage.config, PrivacyConfig)
    by_audit = {}
    if "seed.is_member" in kept:
        by_audit["seed"] = _of_seed(kept, stage.config.shadows)
    if "pool.member" in kept:
        by_audit["pool"] = _of_pool(kept)
    return {audit: scored for audit, scored in by_audit.items() if scored is not None}


_COMPARED: tuple[Audit, ...] = ("seed", "pool")
_WANTED = {
    *(f"seed.{name}" for name in ("example_id", "from_test", "is_member", "balanced")),
    *(f"pool.{name}" for name in ("example_id", "member", "role", "target_row")),
    *(
        f"{audit}{models}.scores.{attack}"
        for audit in _COMPARED
        for models in ("", ".start")
        for attack in PANELS[audit]
    ),
}


_Kept = Mapping[str, NDArray[np.generic]]


def _of_seed(kept: _Kept, shadows: int) -> _Scored | None:
    chosen = kept["seed.balanced"].astype(bool)
    ids = kept["seed.example_id"].astype(np.int64)
    who = np.where(kept["seed.from_test"].astype(bool), -1 - ids, ids)[chosen]
    member = kept["seed.is_member"].astype(bool)[None, chosen]
    target = np.zeros(1, dtype=np.int64)
    if not usable(member):
        return None
    models = [_placements(kept, "seed", start, chosen, member) for start in ("", ".start")]
    return _Scored(who, target, member, shadows, *models)


def _of_pool(kept: _Kept) -> _Scored | None:
    """The pool without canaries, whose labels are wrong."""
    chosen = (kept["pool.role"] != CANARY).all(axis=0)
    targets = kept["pool.target_row"].astype(np.int64)
    member = kept["pool.member"].astype(bool)[targets][:, chosen]
    who = kept["pool.example_id"].astype(np.int64)[chosen]
    if not usable(member):
        return None
    models = [_placements(kept, "pool", start, chosen, member) for start in ("", ".start")]
    return _Scored(who, targets, member, len(kept["pool.member"]) - 2, *models)


def _placements(kept: _Kept, audit: Audit, start: str, chosen: NDArray[np.bool_], member: NDArray[np.bool_]) -> _Placed:
    """Of each attack of a panel on some models, for the chosen candidates."""
    placed = {}
    for attack in PANELS[audit]:
        values = kept.get(f"{audit}{start}.scores.{attack}")
        if values is not None:
            scores = np.atleast_2d(values.astype(np.float64))[:, chosen]
            placed[attack] = np.array([placements(*each) for each in zip(scores, member, strict=True)])
    return placed


DERIVATION = Derivation(_METRICS, ("accuracy", "privacy"), auc_differences)
