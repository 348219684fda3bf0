"""What the audits have in common: from scores to rows, from rows to a payload. Nothing here knows of folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.attacks import Audit
from trainables.configs import MembershipAttackName, PrivacyConfig
from trainables.evaluate.accuracy import CI_LEVEL, Row, hits, wilson
from trainables.evaluate.privacy.attacks import NEEDS, NotApplicable, Scored
from trainables.evaluate.privacy.blind import Blind, blind_scores
from trainables.evaluate.privacy.metrics import TAUGHT, Audited, membership_rows, not_applicable_rows
from trainables.evaluate.privacy.signals import Asked

Images = NDArray[np.uint8]
Parts = tuple[int | str, ...]

_OF_RESULTS = ("rmia_a",)
"""Settings that were found by looking at scores: they are numbers of their own, and no part of a row's identity."""


@dataclass
class Findings:
    """Rows and details, as they come."""

    rows: list[Row] = field(default_factory=list)
    details: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, name: str, values: Any) -> None:
        """Remember an array example by example; truth values and codes as one byte."""
        array = np.asarray(values)
        small = array.dtype == np.bool_
        self.details[name] = torch.from_numpy(np.ascontiguousarray(array.astype(np.uint8) if small else array))


@dataclass(frozen=True)
class Attacked:
    """What one attack said of one target."""

    scored: Scored
    threshold: float | None = None


def shared_settings(found: Iterable[Scored]) -> Row:
    """Settings on which all targets agree, for the rows."""
    first, *others = (each.settings for each in found)
    return {
        name: value
        for name, value in first.items()
        if name not in _OF_RESULTS and all(other.get(name) == value for other in others)
    }


def tuned_rows(found: list[Scored], base: Row) -> list[Row]:
    """Settings that were tuned on shadows, as means over targets."""
    rows: list[Row] = []
    for name in _OF_RESULTS:
        values = [each.settings[name] for each in found if name in each.settings]
        if values:
            measured: Row = {"metric": f"mia_{name}", "value": float(np.mean(values)), "unit": "1", "n": len(values)}
            rows.append({**base, "property": "privacy", **measured})
    return rows


def shadow_columns(config: PrivacyConfig, attack: MembershipAttackName, num: int, fidelity: str = "full") -> Row:
    """Columns about the shadows of an attack that needs any."""
    if NEEDS[attack] not in ("rows", "shadows"):
        return {}
    # What is trained on the origin itself has shadows that are, too; their likes for a distilled target would be weak.
    kind = "direct" if config.method == "full" else "distilled"
    return {"shadow_kind": kind, "shadow_fidelity": fidelity, "n_shadows": num}


def rows_of(
    config: PrivacyConfig, scores: list[Audited], base: Row, seed_parts: Parts, members: float | None = None
) -> list[Row]:
    """``membership_rows`` with what follows from the point.

    Args:
        config: Of the stage.
        scores: One per target.
        base: Columns that all rows share.
        seed_parts: From ``parts_of``.
        members: Of a target, where those that are looked at stand for more; None: those.
    """
    members = float(np.mean([each.main.member.sum() for each in scores])) if members is None else members
    several = len(scores) > 1 and base["attack"] in TAUGHT
    return membership_rows(
        scores,
        resamples=config.resamples,
        seed_parts=seed_parts,
        base=base,
        per_class=members / len(config.origin.classes),
        ceiling=config.method == "random",
        taught_by=config.rows // 2 - 1 if several else 0,
    )


def blind_rows(scores: list[Audited], bands: list[Blind], base: Row) -> list[Row]:
    """The control's AUC and its own band, in place of the one for scores that were fixed beforehand.

    An AUC outside its band is flagged ``outside_band``: then members and non-members differ as images, and no other
    attack's number means what it says.
    """
    wanted = ("mia_auc", "mia_auc_null_low", "mia_auc_null_high")
    rows = membership_rows(scores, resamples=100, seed_parts=("blind",), base=base, per_class=1.0)
    rows = [row for row in rows if row["metric"] in wanted and "member_role" not in row and "fpr" not in row]
    rows = [row for row in rows if row.get("nonmember_source") == base.get("nonmember_source")]
    centre = float(np.mean([band.centre for band in bands]))
    reach = float(np.sqrt(np.sum([band.reach**2 for band in bands]))) / len(bands)
    for row in rows:
        if row["metric"] == "mia_auc_null_low":
            row |= {"value": max(0.0, centre - reach), "band": "permutation"}
        elif row["metric"] == "mia_auc_null_high":
            row |= {"value": min(1.0, centre + reach), "band": "permutation"}
        else:
            own = (centre, reach) if "repeat" not in row else (bands[row["repeat"]].centre, bands[row["repeat"]].reach)
            row |= {
                "ci_low": max(0.0, row["value"] - own[1]),
                "ci_high": min(1.0, row["value"] + own[1]),
                "ci_level": CI_LEVEL,
                "ci_method": "permutation",
                "ci_unit": row.get("ci_unit", "images"),
            }
            if abs(row["value"] - own[0]) > own[1]:
                row["flag"] = "outside_band"
    return rows


def control_rows(audit: Audit, asked: Iterable[tuple[Audited, Images, Parts]], base: Row) -> list[Row]:
    """The attack without a model, on each target's candidates.

    Args:
        audit: Which.
        asked: Candidates whose scores do not matter, their images, and what the random numbers are for; one per target.
        base: Columns that all rows share.
    """
    scores, bands = [], []
    for truth, images, parts in asked:
        try:
            blind = blind_scores(images, truth.labels, truth.member, seed_parts=parts)
        except NotApplicable as reason:
            return unfit_rows(audit, str(reason), base)
        bands.append(blind)
        scores.append(replace(truth, values=blind.scores))
    return blind_rows(scores, bands, base)


def parts_of(config: PrivacyConfig, audit: Audit) -> Parts:
    """What random numbers of an audit depend on: the draw, not the method, so that methods can be compared in pairs."""
    return (audit, config.origin.per_class or 0, config.origin.draw or 0, len(config.origin.classes))


def accuracy_rows(tests: list[Asked], base: Row, target_rows: list[int] | None = None) -> list[Row]:
    """``mia_target_test_acc``: what the attacked models are worth, to be read beside what they leak."""
    rows: list[Row] = []
    for index, test in enumerate(tests):
        correct = hits(test.logits.astype(np.float64), test.labels)
        row: Row = {
            **base,
            "property": "privacy",
            "metric": "mia_target_test_acc",
            "value": float(correct.mean()),
            "unit": "fraction",
            "n": len(correct),
            "split": "test",
            "agg": "single",
            **wilson(correct),
        }
        rows.append(row if target_rows is None else {**row, "repeat": index, "target_row": target_rows[index]})
    if target_rows is not None:
        values = [row["value"] for row in rows]
        mean: Row = {
            **base,
            "property": "privacy",
            "metric": "mia_target_test_acc",
            "value": float(np.mean(values)),
            "unit": "fraction",
            "n": rows[0]["n"],
            "split": "test",
            "agg": "mean_targets",
            "n_agg": len(values),
        }
        if len(values) > 1:
            mean["std"] = float(np.std(values, ddof=1))
        rows.append(mean)
    return rows


def unfit_rows(audit: str, reason: str, base: Row) -> list[Row]:
    """The one row of an audit, or of an attack of it, that cannot be had."""
    (row,) = not_applicable_rows(reason, {**base, "audit": audit})
    return [{**row, "metric": "mia_eps_lb", "unit": "nat"} if audit == "one_run" else row]
