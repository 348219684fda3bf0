"""Rows about membership scores: how well they tell members of one or several targets from others, with intervals.

Here, and only here, scores meet the targets' true memberships. Fractions are in [0, 1]. Every interval names its unit:
``images`` for one target, ``targets`` for means over several (bootstrap over pairs and images, ``roc.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.evaluate.intervals import CI_LEVEL, Booleans, Floats, Integers, Row, clopper_pearson
from trainables.evaluate.privacy import roc
from trainables.evaluate.privacy.roc import Resampler, percentile_interval
from trainables.files import CANARY, INIT, NON_MEMBER, OTHER, RESERVE, ROLES

FPRS = (0.01, 0.001)
PAUC_FPR = 0.01
STABLE = 10
"""Non-members per false positive below which a TPR is flagged."""


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
    pair: int = 0
    """Number of the complementary pair the target belongs to."""
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


def membership_rows(
    scores: list[Audited],
    *,
    resamples: int,
    seed_parts: tuple[int | str, ...],
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
        scores: One per target, of distinct pairs where possible.
        resamples: Of the bootstrap; fewer when there are millions of scores.
        seed_parts: What the random numbers are for; equal parts give equal draws, which pairs attacks.
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
    sheet = _Sheet(base, resamples, (*seed_parts,), len(mains))
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
    resamples: int
    seed_parts: tuple[int | str, ...]
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

    def resampler(self, audits: list[Audited]) -> Resampler:
        ids, pairs = [each.example_id for each in audits], [each.pair for each in audits]
        return Resampler(ids, pairs, self.resamples, self.seed_parts)

    def interval(self, row: Row, limits: roc.Interval | None, method: str, unit: str | None = None) -> Row:
        if limits is None:
            return row
        unit = unit or ("images" if self.num_targets == 1 else "targets")
        low, high = limits
        return {**row, "ci_low": low, "ci_high": high, "ci_level": CI_LEVEL, "ci_method": method, "ci_unit": unit}


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


def _statistics(audit: Audited, weights: roc.Weights, full: bool) -> Floats:
    """(b, columns): AUC, TPR at FPRS and at 0; with ``full`` also greatest advantage, partial and class-mean area,
    balanced accuracy."""
    curve = roc.curves(audit.values, audit.member, weights)
    columns = [roc.area(curve), *(roc.recall(curve, fpr) for fpr in (*FPRS, 0.0))]
    if full:
        columns += [roc.advantage(curve), roc.partial_area(curve, PAUC_FPR), _class_mean(audit, weights)]
        columns.append(_balanced_accuracy(audit, weights))
    return np.column_stack(columns)


def _class_mean(audit: Audited, weights: roc.Weights) -> Floats:
    areas = []
    for index in np.unique(audit.labels):
        own = audit.labels == index
        if audit.member[own].any() and not audit.member[own].all():
            areas.append(roc.area(roc.curves(audit.values[own], audit.member[own], weights[:, own])))
    return np.asarray(np.mean(areas, axis=0) if areas else np.full(len(weights), 0.5), dtype=np.float64)


def _balanced_accuracy(audit: Audited, weights: roc.Weights) -> Floats:
    if audit.threshold is None:
        return np.full(len(weights), 0.5)
    right = (audit.values >= audit.threshold) == audit.member
    sides = []
    for side in (audit.member, ~audit.member):
        total = weights[:, side].sum(axis=1, dtype=np.float64)
        hits = weights[:, side & right].sum(axis=1, dtype=np.float64)
        sides.append(np.divide(hits, total, out=np.full(len(total), 0.5), where=total > 0))
    return np.asarray((sides[0] + sides[1]) / 2, dtype=np.float64)


def _each(audits: list[Audited], statistic: Callable[[Audited, roc.Weights], Floats]) -> Floats:
    """(T, columns) of the targets as they are."""
    return np.concatenate([statistic(each, np.ones((1, len(each.values)))) for each in audits])


def _ranking(sheet: _Sheet, audits: list[Audited], full: bool) -> list[Row]:
    """The metrics of one set of candidates, ``mia_auc`` first."""

    def statistic(audit: Audited, weights: roc.Weights) -> Floats:
        return _statistics(audit, weights, full)

    single = len(audits) == 1
    observed = _each(audits, statistic)
    samples = None
    if full or not single:
        samples = sheet.resampler(audits).means(lambda t, weights: statistic(audits[t], weights), observed.shape[1])
    rows = [_auc_row(sheet, audits, observed[:, 0], samples)]
    rows += [
        _recall_row(sheet, audits, fpr, observed[:, 1 + at], None if single else samples, 1 + at)
        for at, fpr in enumerate((*FPRS, 0.0))
    ]
    if not full:
        return rows
    assert samples is not None
    method = "bootstrap" if single else "bootstrap_two_way"
    for offset, metric in enumerate(("mia_adv_max", "mia_pauc", "mia_auc_class_mean", "mia_bacc")):
        column = observed.shape[1] - 4 + offset
        if metric == "mia_bacc" and any(each.threshold is None for each in audits):
            reason = _why_no_threshold(sheet.base)
            rows += [sheet.row(name, None, flag="not_applicable", reason=reason) for name in ("mia_bacc", "mia_adv")]
            continue
        row = _spread(sheet.row(metric, float(observed[:, column].mean())), observed[:, column])
        if metric == "mia_pauc" and _resolution(sheet, audits) < STABLE / PAUC_FPR:
            row["flag"] = "low_resolution"
        rows.append(sheet.interval(row, percentile_interval(samples[:, column]), method))
        if metric == "mia_bacc":
            rows.append({**_above_chance(rows[-1], 2), "metric": "mia_adv"})
    return rows


def _why_no_threshold(base: Row) -> str:
    """The reason of a missing ``mia_bacc``, from the columns that tell attacks and their variants apart."""
    if base.get("threat_model") == "data_release":
        return "thresholds are chosen on what shadows' models say; the released sets of shadows are not attacked"
    if base.get("variance_mode") == "per_example" or base.get("rmia_mode") == "offline":
        return "a threshold is chosen for the attack's first variant alone"
    if base.get("n_shadows"):
        return "too few shadows to attack one of them with the others"
    return "no shadows to choose a threshold on"


def _auc_row(sheet: _Sheet, audits: list[Audited], values: Floats, samples: Floats | None) -> Row:
    if len(audits) == 1:
        return _delong(sheet, audits[0])
    row = _spread(sheet.row("mia_auc", float(values.mean())), values)
    if all(each.values.min() == each.values.max() for each in audits):
        return {**row, "flag": "degenerate"}
    if extreme := roc.extreme_interval(row["value"], *_sizes(audits)):
        return sheet.interval(row, extreme, "exact")
    assert samples is not None
    return sheet.interval(row, percentile_interval(samples[:, 0]), "bootstrap_two_way")


def _delong(sheet: _Sheet, audit: Audited) -> Row:
    """``mia_auc`` of one target with its interval about the images, see ``roc.auc_interval``."""
    value, limits, method = roc.auc_interval(audit.values, audit.member)
    row = sheet.interval(sheet.row("mia_auc", value), limits, method, "images")
    if limits is None:
        row["flag"] = "degenerate" if audit.values.min() == audit.values.max() else "low_resolution"
    return row


def _recall_row(
    sheet: _Sheet, audits: list[Audited], fpr: float, values: Floats, samples: Floats | None, column: int
) -> Row:
    """TPR at one FPR.

    Of several targets the bootstrap's interval, of the mean over targets and images. Of one target Clopper and
    Pearson's, of the members' share at this threshold: the threshold, an order statistic of the non-members, is taken
    as known. So it covers less than 95 % of the true TPR at the FPR: 74 % of 400 members and 400 others in simulations,
    47 to 84 % of thousands.
    """
    others, members = _resolution(sheet, audits), _sizes(audits)[0]
    columns: Row = {"fpr": fpr} if fpr else {}
    metric = "mia_tpr_at_fpr" if fpr else "mia_tpr_at_fpr0"
    if fpr and others * fpr < 1 - 1e-9:
        return sheet.row(metric, None, flag="low_resolution", **columns)
    if fpr and others * fpr < STABLE - 1e-9:
        columns["flag"] = "low_resolution"
    value = float(values.mean())
    row = _spread(sheet.row(metric, value, **columns), values)
    if samples is not None and value not in (0.0, 1.0):
        return sheet.interval(row, percentile_interval(samples[:, column]), "bootstrap_two_way")
    # A bootstrap of all or nothing has no width; the bound for one target's members does.
    return sheet.interval(row, clopper_pearson(round(value * members), members), "clopper_pearson")


def _spread(row: Row, values: Floats) -> Row:
    return row if len(values) == 1 else {**row, "std": float(values.std(ddof=1)), "n_agg": len(values)}


def _single(sheet: _Sheet, audit: Audited, index: int) -> Row:
    row = {**_delong(sheet, audit), "agg": "single", "repeat": index}
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
    targets = len({each.pair for each in audits})
    reach = roc.null_reach(*_sizes(audits)) / math.sqrt(targets)
    if taught_by:
        reach *= math.sqrt(1 + (targets - 1) / taught_by)
    return [
        sheet.row("mia_auc_null_low", max(0.0, 0.5 - reach)),
        sheet.row("mia_auc_null_high", min(1.0, 0.5 + reach)),
    ]


def _strata(sheet: _Sheet, mains: list[Audited]) -> list[Row]:
    shares = np.array([(each.role == INIT).sum() / each.member.sum() for each in mains])
    rows = [_spread(sheet.of(mains).row("mia_rho", float(shares.mean())), shares)]
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
    """Scores of all targets as one ranking; its bootstrap draws pairs of targets and images, as that of the means."""
    values = np.concatenate([each.pooled for each in mains if each.pooled is not None])
    ids = np.concatenate([each.example_id for each in mains])
    member, labels = (np.concatenate([getattr(each, name) for each in mains]) for name in ("member", "labels"))
    together = Audited(values, member, ids, np.where(member, OTHER, NON_MEMBER), labels)

    def statistic(weights: roc.Weights) -> Floats:
        return _statistics(together, weights, full=False)

    observed = statistic(np.ones((1, len(values))))
    samples = sheet.resampler(mains).of_pooled(statistic, observed.shape[1])
    counts = {"n": len(values), "n_pos": int(member.sum()), "n_neg": int((~member).sum()), "agg": "pooled"}
    part = replace(sheet, counts={**sheet.counts, **counts, "n_agg": len(mains)})
    row = part.row("mia_auc", float(observed[0, 0]))
    if extreme := roc.extreme_interval(row["value"], *_sizes(mains)):
        rows = [part.interval(row, extreme, "exact")]
    else:
        rows = [part.interval(row, percentile_interval(samples[:, 0]), "bootstrap_two_way")]
    for at, fpr in enumerate((*FPRS, 0.0)):
        rows.append({**_recall_row(part, mains, fpr, observed[:, 1 + at], samples, 1 + at), "n_agg": len(mains)})
    return rows


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
            low, high = ((row[end] - chance) / (top - chance) for end in ("ci_low", "ci_high"))
            share = sheet.interval(share, (low, high), row["ci_method"], row["ci_unit"])
            if row["ci_low"] > top:
                share["flag"] = "above_ceiling"
        rows.append(share)
    return rows
