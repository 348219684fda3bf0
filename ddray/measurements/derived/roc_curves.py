"""Receiver operating characteristics of the attacks on membership, down to low false positive rates (Carlini et al.,
S&P 2022: an attack that is sure of a few members is worse for these than its AUC tells)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ddray.measurements.derived.records import Derivation, PointRecord, Row
from ddray.measurements.metrics import records
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.attacks import MEMBERSHIP_ATTACKS, PANELS, Audit
from trainables.configs import PrivacyConfig
from trainables.evaluate.paired import STABLE, recall, usable
from trainables.files import CANARY

log = logging.getLogger(__name__)

_METRICS = records(
    "privacy",
    "roc_curves",
    (
        "mia_roc_tpr",
        "fraction",
        "lower",
        "true positive rate of an attack of the panel at the false positive rate `fpr`, each target at a threshold of "
        "its own, nothing interpolated; of the audit `seed` against all test images",
    ),
    mirrored=(),
)
(_TPR,) = _METRICS
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""False positive rates; those at which less than one non-member is expected are left out."""
_SOURCES: dict[Audit, str] = {"seed": "test", "pool": "pool"}
_WANTED = {
    "seed.is_member",
    *(f"pool.{name}" for name in ("member", "role", "target_row")),
    *(f"{audit}.scores.{attack}" for audit in _SOURCES for attack in PANELS[audit]),
}


def roc_curves(points: Sequence[PointRecord], store: Store) -> None:
    """``mia_roc_tpr`` of each attack of the panels of the audits ``seed`` and ``pool``."""
    for point in points:
        if "privacy" not in point.artifacts:
            continue
        stage = point.chain.stage("privacy")
        assert stage is not None
        assert isinstance(stage.config, PrivacyConfig)
        kept = _read(store, point)
        shadows = {"seed": stage.config.shadows, "pool": len(kept["pool.member"]) - 2 if "pool.member" in kept else 0}
        for audit, scores in _scored(kept):
            for attack, (values, member) in scores.items():
                columns = _columns(audit, attack, member, shadows[audit])
                for fpr, value, flag in _curve(values, member):
                    point.add(_TPR, value, member.shape[1], "privacy", fpr=fpr, **columns, **flag)


def _read(store: Store, point: PointRecord) -> Mapping[str, NDArray[np.generic]]:
    """What an audit kept of its candidates, without torch; nothing with a warning where it cannot be read."""
    key, entries = point.artifacts["privacy"]
    try:
        path = store.file(key, files.DETAILS, entries[files.DETAILS])
        return files.load_arrays(path, _WANTED & set(files.array_names(path)))
    except (KeyError, DamagedArtifact, OSError, ValueError) as error:
        log.warning("audit of %s: no curves of its attacks; %s", point.chain.point.hash[:12], error)
        return {}


Scores = dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]
"""Attack -> scores (T, n) of T targets, and who of them is a member."""


def _scored(kept: Mapping[str, NDArray[np.generic]]) -> Iterator[tuple[Audit, Scores]]:
    """Of each audit: ``seed`` with all of its test images, ``pool`` without canaries, whose labels are wrong."""
    for audit in _SOURCES:
        if audit == "seed" and "seed.is_member" in kept:
            member = kept["seed.is_member"].astype(bool)[None]
            chosen = np.ones(member.shape[1], dtype=np.bool_)
        elif audit == "pool" and "pool.member" in kept:
            chosen = (kept["pool.role"] != CANARY).all(axis=0)
            member = kept["pool.member"].astype(bool)[kept["pool.target_row"].astype(np.int64)][:, chosen]
        else:
            continue
        if usable(member):
            named = ((attack, kept.get(f"{audit}.scores.{attack}")) for attack in PANELS[audit])
            yield (
                audit,
                {
                    attack: (np.atleast_2d(values.astype(np.float64))[:, chosen], member)
                    for attack, values in named
                    if values is not None
                },
            )


def _columns(audit: Audit, attack: str, member: NDArray[np.bool_], shadows: int) -> Row:
    targets, inside, others = len(member), int(member.sum(axis=1).min()), int((~member).sum(axis=1).min())
    record = MEMBERSHIP_ATTACKS[attack]
    columns: Row = {
        **{"audit": audit, "attack": attack, "threat_model": record.threat_model},
        **{"nonmember_source": _SOURCES[audit], "n_pos": inside, "n_neg": others},
        "agg": "single" if targets == 1 else "mean_targets",
    }
    if targets > 1:
        columns["n_agg"] = targets
    if record.needs in ("shadow_outputs", "shadows"):
        columns["n_shadows"] = shadows
    return columns


def _curve(values: NDArray[np.float64], member: NDArray[np.bool_]) -> Iterator[tuple[float, float, Row]]:
    """Rate, mean recall of the targets there, and a flag where few false positives stand behind it."""
    others = int((~member).sum(axis=1).min())
    for fpr in RATES:
        allowed = int(fpr * others + 1e-9)
        if allowed >= 1:
            flag: Row = {"flag": "low_resolution"} if allowed < STABLE else {}
            recalls = [recall(*each, allowed) for each in zip(values, member, strict=True)]
            yield fpr, float(np.mean(recalls)), flag


DERIVATION = Derivation(_METRICS, ("accuracy", "privacy"), roc_curves)
