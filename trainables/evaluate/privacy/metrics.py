"""Rows about membership scores: how well they tell members of one or several targets from others, with intervals.

Here, and only here, scores meet the targets' true memberships. Fractions are in [0, 1]. Every interval names its unit:
``images`` for one target (``roc.py``), ``targets`` for means over several, about other targets and images
(``../student.py``). A number whose interval would not hold has none, and a ``reason``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.evaluate.intervals import CI_LEVEL, Booleans, Floats, Integers, Row
from trainables.evaluate.paired import STABLE
from trainables.evaluate.privacy import roc
from trainables.evaluate.privacy.roc import Curve, Estimate
from trainables.evaluate.student import FEWEST_TARGETS, error_over_targets
from trainables.files import CANARY, INIT, NON_MEMBER, OTHER, RESERVE, ROLES

FPRS = (0.01, 0.001)
PAUC_FPR = 0.01


@dataclass(frozen=True)
class Audited:
    """One attack's scores of one target, with the truth."""

    values: Floats
    """(n,) higher: likelier a member; finite."""
    member: Booleans
    """(n,)."""
    example_id: Integers
    """(n,) the same number for the same image in every target."""
    role: Integers
    """(n,) codes of ``ROLES``."""
    labels: Integers
    """(n,) positions of the classes."""
    target_row: int | None = None
    """Row of the membership matrix; None where there is no matrix."""
    threshold: float | None = None
    """Of ``threshold_of``; a score at or above it counts as member."""
    pooled: Floats | None = None
    """(n,) ``Scored.pooled``."""
    memorisation: Floats | None = None
    """(n,) of ``attacks.memorisation``: gives the rows about the most exposed tenth."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float64))
        object.__setattr__(self, "member", np.asarray(self.member, dtype=np.bool_))
        for name in ("example_id", "role", "labels"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
            assert getattr(self, name).shape == self.values.shape, name
        assert np.isfinite(self.values).all(), "scores must be finite"
        assert self.member[self.role <= OTHER].all(), "member roles of non-members"
        assert not self.member[(self.role == NON_MEMBER) | (self.role == RESERVE)].any(), "non-member roles of members"

    def take(self, chosen: Any) -> Audited:
        """The same target on some of the candidates."""
        return replace(
            self,
            values=self.values[chosen],
            member=self.member[chosen],
            example_id=self.example_id[chosen],
            role=self.role[chosen],
            labels=self.labels[chosen],
            pooled=None if self.pooled is None else self.pooled[chosen],
            memorisation=None if self.memorisation is None else self.memorisation[chosen],
        )

    def with_values(self, values: Floats) -> Audited:
        """The same candidates with other scores."""
        return replace(self, values=values)

    @property
    def main(self) -> Audited:
        """Without canaries and reserve."""
        return self.take(self.role <= NON_MEMBER)

    @property
    def two_sided(self) -> bool:
        """Whether it has members and others."""
        return bool(self.member.any() and not self.member.all())

    @property
    def curve(self) -> Curve:
        return Curve(self.values, self.member)


def membership_rows(
    scores: list[Audited],
    *,
    base: Row,
    per_class: float,
    ceiling: bool = False,
    taught_by: int = 0,
) -> list[Row]:
    """All rows of one attack against one or several targets.

    Headline rows have no ``member_role`` and no ``repeat``; with several targets they are means over targets (``agg``
    mean_targets, ``std`` and ``n_agg`` over targets), and each target's own ``mia_auc`` stands beside them with
    ``repeat`` and ``target_row``.

    * ``mia_auc``; ``mia_k`` = 2 n (AUC - 1/2), n members per class; ``mia_auc_class_mean`` (classes ranked apart);
    * ``mia_auc_null_low``, ``mia_auc_null_high``: where ``mia_auc`` lies 95 % of the time when nothing leaks;
    * ``mia_adv`` = TPR - FPR and ``mia_bacc`` = (1 + ``mia_adv``) / 2 at the threshold from shadows; ``mia_adv_max`` =
      max(TPR - FPR), chosen in-sample and so optimistic;
    * ``mia_tpr_at_fpr`` (column ``fpr``), ``mia_tpr_at_fpr0``, ``mia_pauc`` (standardised, to FPR 1 %);
    * ``mia_rho``, the share of members the distillation started from, and ``mia_auc`` by ``member_role``
      ``member_init`` and ``member_other``, each against all non-members: AUC = rho AUC_init + (1 - rho) AUC_other;
    * the same with ``member_role`` ``canary`` and ``top_decile`` (highest ``memorisation``), where there are any;
    * low false positive rates against the reserve (``nonmember_source`` reserve), where there is one;
    * of attacks that may be pooled, the scores of all targets as one (``agg`` pooled);
    * with ``ceiling``, the most any attack can reach on published real images and the share of it that was reached.

    Args:
        scores: One per target; of complementary rows at most one is a target.
        base: Columns that all rows share (``attack``, ``audit``, ``threat_model``, ``n_shadows``, ...).
        per_class: Members per class of a target.
        ceiling: Whether the set is ``mia_rho`` of the members themselves (method ``random``): adds the ceiling.
        taught_by: Of attacks whose record says ``dependent``, how many pairs of shadows each target has; else 0. See
            ``mia_auc_null_low``.

    Returns:
        Rows with ``prior``, ``n_pos`` and ``n_neg`` of one target. Values that the data cannot give are None with
        ``flag``.
    """
    assert scores
    mains = [each.main for each in scores]
    assert all(each.two_sided for each in mains), "a target without members or without non-members"
    sheet = _Sheet(base, len(mains))
    overall = _ranking(sheet.of(mains), mains, full=True)
    rows = [*overall, *_scaled(overall[0], per_class), *_null(sheet.of(mains), mains, taught_by)]
    if len(mains) > 1:
        rows += [_single(sheet.of([each]), each, index) for index, each in enumerate(mains)]
    rows += _strata(sheet, mains)
    rows += _subset(sheet, [each.take(each.role == CANARY) for each in scores], "canary")
    if all(each.memorisation is not None for each in mains):
        rows += _subset(sheet, [each.take(_top_decile(each)) for each in mains], "top_decile")
    rows += _against_reserve(sheet, scores)
    if len(mains) > 1 and all(each.pooled is not None for each in mains):
        rows += _pooled(sheet.of(mains), mains)
    if ceiling:
        rows += _ceiling(sheet.of(mains), mains, overall)
    return rows


def not_applicable_rows(reason: str, base: Row) -> list[Row]:
    """The row of an attack that cannot be run, with the reason under ``reason``."""
    empty: Row = {"value": None, "unit": "fraction", "n": 0, "flag": "not_applicable", "reason": reason}
    return [{**base, "property": "privacy", "metric": "mia_auc", **empty}]


@dataclass(frozen=True)
class _Sheet:
    """Writes rows: the columns they share, and how intervals are made."""

    base: Row
    num_targets: int
    counts: Row = field(default_factory=dict)

    def of(self, audits: list[Audited], **columns: Any) -> _Sheet:
        """The same for a subset of the candidates; ``n`` and the like are of one target."""
        m, n = _sizes(audits)
        # The fewest of each side need not be of one target: of few candidates both may be 0.
        prior = m / (m + n) if m + n else None
        counts = {"n": m + n, "n_pos": m, "n_neg": n, "prior": prior, "agg": self.agg}
        return replace(self, base={**self.base, **columns}, counts=counts)

    @property
    def agg(self) -> str:
        return "single" if self.num_targets == 1 else "mean_targets"

    def row(self, metric: str, value: float | None, unit: str = "fraction", **columns: Any) -> Row:
        return {
            **self.base,
            "property": "privacy",
            "metric": metric,
            "value": value,
            "unit": unit,
            **self.counts,
            **columns,
        }

    def mean(self, metric: str, audits: list[Audited], estimates: Sequence[Estimate], least: float = 0.0) -> Row:
        """The row of the mean of what the targets' candidates gave, with its interval or the reason there is none.

        Args:
            metric: Its name.
            audits: The candidates of each target.
            estimates: Of each target.
            least: The smallest value there can be; the greatest is 1.
        """
        if len(estimates) == 1:
            (only,) = estimates
            return _with_interval(self.row(metric, only.value), only, "images")
        values = np.array([each.value for each in estimates])
        spread: Row = {"std": float(values.std(ddof=1)), "n_agg": len(values)}
        value = float(values.mean())
        return _with_interval(self.row(metric, value, **spread), _mean_of(audits, estimates, value, least), "targets")


def _with_interval(row: Row, estimate: Estimate, unit: str) -> Row:
    if estimate.interval is None:
        return row if estimate.reason is None else {**row, "reason": f"no interval: {estimate.reason}"}
    low, high = estimate.interval
    limits: Row = {"ci_low": low, "ci_high": high, "ci_level": CI_LEVEL, "ci_method": estimate.method, "ci_unit": unit}
    return {**row, **limits}


def _mean_of(audits: list[Audited], estimates: Sequence[Estimate], value: float, least: float) -> Estimate:
    """Of several targets: Student's interval over targets and images."""
    known = [each.influence for each in estimates if each.influence is not None]
    if len(known) < len(estimates):
        return Estimate(value, None, None, "", next((each.reason for each in estimates if each.reason), None))
    if len(estimates) < FEWEST_TARGETS:
        return Estimate(value, None, None, "", f"{len(estimates)} targets say too little of how targets differ")
    ids, positions = np.unique(np.concatenate([each.example_id for each in audits]), return_inverse=True)
    influence, start = np.zeros((len(audits), len(ids))), 0
    for row, own in zip(influence, known, strict=True):
        np.add.at(row, positions[start : start + len(own)], own)
        start += len(own)
    error = error_over_targets(np.array([each.value for each in estimates]), influence, min(_sizes(audits)))
    if error is None:  # all at one end: what a single target would leave open
        ends = [each.interval for each in estimates if each.interval is not None]
        method = estimates[0].method
        widest = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
        return Estimate(value, None, widest, method)
    reach = error.reach(CI_LEVEL)
    return Estimate(value, None, (max(least, value - reach), min(1.0, value + reach)), "student_two_way")


def _sizes(audits: list[Audited]) -> tuple[int, int]:
    """Members and others of a target; the fewest of any."""
    return min(int(each.member.sum()) for each in audits), min(int((~each.member).sum()) for each in audits)


def _resolution(sheet: _Sheet, audits: list[Audited]) -> int:
    """Distinct non-members that a false positive rate is counted over: of all targets when scores are pooled, else of
    the target with the fewest."""
    ids = [each.example_id[~each.member] for each in audits]
    if sheet.counts["agg"] == "pooled":
        return len(np.unique(np.concatenate(ids)))
    return min(len(np.unique(each)) for each in ids)


def _ranking(sheet: _Sheet, audits: list[Audited], full: bool) -> list[Row]:
    """The metrics of one set of candidates, ``mia_auc`` first; with ``full`` also those after TPR at FPR 0."""
    rows = [_auc_row(sheet, audits), *(_recall_row(sheet, audits, fpr) for fpr in (*FPRS, 0.0))]
    if not full:
        return rows

    def mean(metric: str, estimate: Callable[[Audited], Estimate]) -> Row:
        return sheet.mean(metric, audits, [estimate(each) for each in audits])

    rows.append(mean("mia_adv_max", lambda each: roc.greatest_advantage(each.curve)))
    rows.append(mean("mia_pauc", lambda each: roc.partial_area_estimate(each.curve, PAUC_FPR)))
    if _resolution(sheet, audits) < STABLE / PAUC_FPR:
        rows[-1]["flag"] = "low_resolution"
    rows.append(mean("mia_auc_class_mean", lambda each: roc.class_mean_estimate(each.values, each.member, each.labels)))
    return rows + _at_threshold(sheet, audits)


def _at_threshold(sheet: _Sheet, audits: list[Audited]) -> list[Row]:
    """``mia_bacc`` and ``mia_adv``, of the same decisions."""
    estimates = [
        roc.advantage_estimate(each.values, each.member, each.threshold)
        for each in audits
        if each.threshold is not None
    ]
    if len(estimates) < len(audits):
        missing: Row = {"flag": "not_applicable", "reason": _why_no_threshold(sheet.base)}
        return [sheet.row(name, None, **missing) for name in ("mia_bacc", "mia_adv")]
    advantage = sheet.mean("mia_adv", audits, estimates, -1.0)
    balanced: Row = {name: (1 + advantage[name]) / 2 for name in ("value", "ci_low", "ci_high") if name in advantage}
    if "std" in advantage:
        balanced["std"] = advantage["std"] / 2
    return [{**advantage, **balanced, "metric": "mia_bacc"}, advantage]


def _why_no_threshold(base: Row) -> str:
    """The reason of a missing ``mia_bacc``, from the columns that tell attacks and their variants apart."""
    if base.get("threat_model") == "data_release":
        return "thresholds are chosen on what shadows' models say; the released sets of shadows are not attacked"
    if base.get("variant"):
        return "a threshold is chosen for the attack's first variant alone"
    if base.get("n_shadows"):
        return "too few shadows to attack one of them with the others, or none that was trained on a candidate"
    return "no shadows to choose a threshold on"


def _auc_row(sheet: _Sheet, audits: list[Audited]) -> Row:
    row = sheet.mean("mia_auc", audits, [roc.auc_estimate(each.values, each.member) for each in audits])
    if all(each.values.min() == each.values.max() for each in audits):
        return {**row, "flag": "degenerate"}
    return {**row, "flag": "low_resolution"} if min(_sizes(audits)) < 2 and "ci_low" not in row else row


def _recall_row(sheet: _Sheet, audits: list[Audited], fpr: float) -> Row:
    """TPR at one FPR; at FPR 0 without an interval, as the threshold is the single highest non-member."""
    others = _resolution(sheet, audits)
    metric = "mia_tpr_at_fpr" if fpr else "mia_tpr_at_fpr0"
    columns: Row = {"fpr": fpr} if fpr else {}
    if fpr and others * fpr < 1 - 1e-9:
        return sheet.row(metric, None, flag="low_resolution", **columns)
    if fpr and others * fpr < STABLE - 1e-9:
        columns["flag"] = "low_resolution"
    estimates = [roc.recall_estimate(each.curve, fpr, others) for each in audits]
    return {**sheet.mean(metric, audits, estimates), **columns}


def _single(sheet: _Sheet, audit: Audited, index: int) -> Row:
    row = {**_auc_row(sheet, [audit]), "agg": "single", "repeat": index}
    return row if audit.target_row is None else {**row, "target_row": audit.target_row}


def _scaled(overall: Row, per_class: float) -> list[Row]:
    """``mia_k``: fully exposed members per class that would give the same AUC; the AUC's interval, moved along."""
    return [{**_above_chance(overall, 2 * per_class), "metric": "mia_k", "unit": "images"}]


def _above_chance(row: Row, factor: float) -> Row:
    """The row of ``factor`` times what a value is above 1/2."""
    moved: Row = {name: factor * (row[name] - 0.5) for name in ("value", "ci_low", "ci_high") if name in row}
    if "std" in row:
        moved["std"] = factor * row["std"]
    return {**row, **moved}


def _null(sheet: _Sheet, audits: list[Audited], taught_by: int) -> list[Row]:
    """The band of ``mia_auc`` under no leak.

    Given the scores, memberships of T pairs are T independent draws, and the mean over targets varies 1 / sqrt(T)
    as much as one; also where the scores know the shadows' memberships, if members and others play the same part in
    them. An attack that P - 1 pairs of shadows teach what members look like (``dependent``) adds up what target and
    shadow have in common, and two targets that are each other's shadows both count it: with nothing else in the
    scores, the mean's variance is 1 + (T - 1) / (P - 1) times as large, with anything else less. The band is the
    widest. Measured with 6 rows, 3 targets and no leak, its root is 1.14 to 1.2 for ``lira_online``, 1.1 to 1.2 for
    ``shokri``, 1 for all others; the bound is 1.41. ``lira_online`` left the narrow band in 10 % of cases and
    leaves this one in 2 %.
    """
    targets = len(audits)
    reach = roc.null_reach(*_sizes(audits)) / math.sqrt(targets)
    if taught_by:
        reach *= math.sqrt(1 + (targets - 1) / taught_by)
    return [
        sheet.row("mia_auc_null_low", max(0.0, 0.5 - reach)),
        sheet.row("mia_auc_null_high", min(1.0, 0.5 + reach)),
    ]


def _strata(sheet: _Sheet, mains: list[Audited]) -> list[Row]:
    shares = [float((each.role == INIT).sum() / each.member.sum()) for each in mains]
    rows = [sheet.of(mains).mean("mia_rho", mains, [Estimate(share, None, None, "") for share in shares])]
    for code in (INIT, OTHER):
        audits = [each.take((each.role == code) | (each.role == NON_MEMBER)) for each in mains]
        rows += _subset(sheet, audits, ROLES[code], only_auc=True, always=True)
    return rows


def _subset(sheet: _Sheet, audits: list[Audited], role: str, only_auc: bool = False, always: bool = False) -> list[Row]:
    """The metrics of some of the candidates; none, or with ``always`` an empty one, where a side is missing."""
    part = sheet.of(audits, member_role=role) if any(len(each.values) for each in audits) else sheet
    if not all(each.two_sided for each in audits):
        if always:
            return [part.row("mia_auc", None, flag="not_applicable", reason=f"no candidate is {role}")]
        return [part.row("mia_auc", None, flag="low_resolution")] if part is not sheet else []
    rows = _ranking(part, audits, full=False)
    return rows[:1] if only_auc else rows


def _top_decile(audit: Audited) -> NDArray[np.int64]:
    """The tenth of the candidates that stands out most on shadows; ties in order of id."""
    assert audit.memorisation is not None
    ranked = np.lexsort((audit.example_id, -audit.memorisation))
    return np.sort(ranked[: max(1, len(ranked) // 10)])


def _against_reserve(sheet: _Sheet, scores: list[Audited]) -> list[Row]:
    audits = [each.take((each.role <= OTHER) | (each.role == RESERVE)) for each in scores]
    if not all(each.two_sided for each in audits):
        return []
    return _ranking(sheet.of(audits, nonmember_source="reserve"), audits, full=False)


def _pooled(sheet: _Sheet, mains: list[Audited]) -> list[Row]:
    """Scores of all targets as one ranking; without intervals, for targets and images both make these dependent."""
    values = np.concatenate([each.pooled for each in mains if each.pooled is not None])
    member = np.concatenate([each.member for each in mains])
    curve = Curve(values, member)
    counts = {"n": len(values), "n_pos": int(member.sum()), "n_neg": int((~member).sum()), "agg": "pooled"}
    part = replace(sheet, counts={**sheet.counts, **counts, "n_agg": len(mains)})
    why: Row = {"reason": "no interval: scores of several targets in one ranking are dependent"}
    rows = [part.row("mia_auc", roc.auc(values, member), **why)]
    others = _resolution(part, mains)
    for fpr in FPRS:
        flag: Row = {"flag": "low_resolution"} if others * fpr < STABLE - 1e-9 else {}
        value = roc.recall_estimate(curve, fpr).value if others * fpr >= 1 - 1e-9 else None
        rows.append(part.row("mia_tpr_at_fpr", value, fpr=fpr, **flag, **({} if value is None else why)))
    return [*rows, part.row("mia_tpr_at_fpr0", curve.recall(0), **why)]


def _ceiling(sheet: _Sheet, mains: list[Audited], overall: list[Row]) -> list[Row]:
    """The most any attack can reach when a share rho of the members is published and nothing else of them is: AUC
    1/2 + rho/2, TPR rho + (1 - rho) FPR; and the share of the way from chance that was gone, whose interval is the
    AUC's or TPR's moved along: rho is known."""
    rho = float(np.mean([(each.role == INIT).sum() / each.member.sum() for each in mains]))
    tops: list[tuple[Row, float, float]] = [(overall[0], 0.5, 0.5 + rho / 2)]
    tops += [(row, row["fpr"], rho + (1 - rho) * row["fpr"]) for row in overall if row["metric"] == "mia_tpr_at_fpr"]
    rows = []
    for row, chance, top in tops:
        columns = {"fpr": row["fpr"]} if "fpr" in row else {}
        rows.append(sheet.row(f"{row['metric']}_ceiling", top, **columns))
        share = sheet.row(f"{row['metric']}_efficiency", None, "ratio", **columns)
        if rho == 0 or row["value"] is None:
            rows.append({**share, "flag": "degenerate" if rho == 0 else row["flag"]})
            continue
        share["value"] = (row["value"] - chance) / (top - chance)
        if "ci_low" in row:
            share |= {end: (row[end] - chance) / (top - chance) for end in ("ci_low", "ci_high")}
            share |= {name: row[name] for name in ("ci_level", "ci_method", "ci_unit")}
            if row["ci_low"] > top:
                share["flag"] = "above_ceiling"
        else:
            share |= {name: row[name] for name in ("reason", "flag") if name in row}
        rows.append(share)
    return rows
