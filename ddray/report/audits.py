"""Membership inference as in the paper's Tables 1 and 2, gathered across blocks: origins are rows, draws are repeats.

One table per data set, network, recipe and audit; audits are never put together. A cell holds what each attack of the
audit's panel, registered beforehand, reached against one method, and which was the strongest; nothing here says that
anything is private.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import NormalDist, fmean
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.references import CHEN2023
from ddray.measurements.statistics import LEVEL
from ddray.report import leak_differences
from ddray.report.comparable import (
    ROW_AXES,
    SAME_IN_BLOCK,
    SAME_IN_CELL,
    RowKey,
    budgets_are_rows,
    name_variants,
    protocol_changes,
    refuse_mixed,
    row_keys,
    variant_order,
)
from ddray.report.repeats import combined, draws_of, in_common, smallest
from trainables.attacks import PANELS, Audit

METRICS = (
    "mia_auc",
    "mia_auc_null_low",
    "mia_auc_null_high",
    "mia_auc_strongest",
    "mia_auc_strongest_null_low",
    "mia_auc_strongest_null_high",
    "mia_k",
    "mia_tpr_at_fpr",
    "mia_roc_tpr",
    "mia_rho",
    "mia_auc_ceiling",
    "mia_auc_efficiency",
    "mia_target_test_acc",
    "mia_eps_lb",
    *leak_differences.METRICS,
)
AUDITS: tuple[Audit, ...] = ("seed", "pool", "one_run")
SOURCES = {"seed": "test_balanced", "pool": "pool", "one_run": "pool"}
"""Audit -> the non-members of its headline numbers."""
WIDE = {"seed": "test", "pool": "pool"}
"""Audit -> the non-members of its numbers at low false positive rates."""
FPR = 0.01
BASELINES = ("random", "full")

_TABLE = ("dataset", "architecture", "protocol")
_AXES = ("num_classes", "origin_per_class", *ROW_AXES)
"""What rows may vary by."""
_SAME_IN_TABLE = tuple(name for name in SAME_IN_BLOCK if name != "data_hash")
_SAME_IN_ROW = (
    "n_pos",
    "n_neg",
    "n_shadows",
    "n_agg",
    "threat_model",
    "shadow_fidelity",
    "variance_mode",
    "nonmember_source",
)
"""Parameters of an attack that the cells of a row must agree on; from row to row they follow from the data's size."""


def audit_tables(points: Iterable[Row], numbers: Numbers, sweep: str) -> list[dict[str, Any]]:
    """The tables of all audits.

    Raises:
        MixedBlock: A cell, or a row, would mix two values of a parameter that is not an axis.
    """
    tables: dict[tuple[Any, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    waiting: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for point in points:
        rows = [row for metric in ("mia_auc", "mia_eps_lb") for row in numbers.of(metric, [point["point"]])]
        key = (*(point[name] for name in _TABLE), protocol_changes(point))
        audited = {row["audit"] for row in rows} - {None}
        for audit in audited:
            tables[key][audit].append(dict(point))
        if rows and not audited:  # failed or pending: which audits it was to have is not in the table
            waiting[key].append(point)
    made = [
        _table(tables[key][audit] + [dict(point) for point in waiting[key]], audit, numbers, sweep)
        for key in sorted(tables)
        for audit in AUDITS
        if audit in tables[key]
    ]
    compared = leak_differences.adjust(made)
    return [{**table, "differences": compared} for table in made]


def _table(points: list[Row], audit: Audit, numbers: Numbers, sweep: str) -> dict[str, Any]:
    first = points[0]
    title = f"{first['dataset']}, {first['architecture']}, protocol {first['protocol']}"
    where = f"{sweep}: privacy, audit {audit}, {title}"
    refuse_mixed(points, _SAME_IN_TABLE, where)
    axes = _row_axes(points)
    name_variants(points, "distill_iters" in axes, axes)
    variants = sorted({point["variant"] for point in points}, key=variant_order)
    by_point = {point["point"]: point for point in points}
    rows = []
    for key in row_keys(points, axes, _AXES):
        members = [point for point in points if key.covers(RowKey.of(point, axes, _AXES))]
        here = {point["point"]: point for point in members}
        cells = {}
        for variant in variants:
            own = [point for point in members if point["variant"] == variant]
            if own:
                refuse_mixed(own, SAME_IN_CELL, f"{where}: {variant}, {key.text}")
                cells[variant] = _cell(own, audit, numbers)
                for attack, found in cells[variant]["by_attack"].items():
                    found["less"] = leak_differences.differences(own, here, by_point, audit, attack, numbers)
        _refuse_mixed_attacks(members, audit, numbers, f"{where}: {key.text}")
        rows.append({**key.facts, "cells": cells, "null_band": _widest(cells.values())})
    return {
        "title": title,
        "audit": audit,
        "panel": _panel(audit, rows),
        "nonmember_source": SOURCES[audit],
        **{name: first[name] for name in (*_TABLE, *_SAME_IN_TABLE)},
        "protocol_changes": first["param"].get("protocol_changes", {}),
        "row_axes": axes,
        "methods": variants,
        "rows": rows,
        "missing_baselines": _missing_baselines(rows),
    }


def _panel(audit: Audit, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The attacks of the panel that reached something anywhere; of an audit that measures no AUC, all."""
    seen = {attack for row in rows for cell in row["cells"].values() for attack in cell["by_attack"]}
    return [attack for attack in PANELS[audit] if attack in seen or audit == "one_run"]


def _row_axes(points: Sequence[Row]) -> list[str]:
    """The origin's size always, another axis where points differ in it."""
    axes = [
        name
        for name in _AXES
        if name != "distill_iters"
        and (name == "origin_per_class" or len({point[name] for point in points} - {None}) > 1)
    ]
    if any(point["class_draw"] is not None for point in points) and "num_classes" not in axes:
        axes.insert(0, "num_classes")
    return [*axes, "distill_iters"] if budgets_are_rows(points, axes) else axes


def _missing_baselines(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Baseline -> rows of the table with numbers, but none of it."""
    known = [{cell["method"] for cell in row["cells"].values() if cell["done"]} for row in rows]
    without = {name: sum(bool(methods) and name not in methods for methods in known) for name in BASELINES}
    return {name: count for name, count in without.items() if count}


def _refuse_mixed_attacks(members: Sequence[Row], audit: str, numbers: Numbers, where: str) -> None:
    by_attack = defaultdict(list)
    for row in numbers.of("mia_auc", sorted(member["point"] for member in members)):
        if row["audit"] == audit and row["value"] is not None and _is_headline(row, SOURCES[audit]):
            by_attack[_attack_name(row)].append(row)
    for name, rows in by_attack.items():
        refuse_mixed(rows, _SAME_IN_ROW, f"{where}: attack {name}")


# --- cells ------------------------------------------------------------------------------------------------------------


def _cell(members: Sequence[Row], audit: Audit, numbers: Numbers) -> dict[str, Any]:
    first, main, stated = members[0], SOURCES[audit], numbers.plain.get("dp_epsilon", {})
    points = [member["point"] for member in members]
    common = in_common(members, audit, numbers)

    def rows(metric: str) -> list[Row]:
        return [row for row in numbers.of(metric, points) if row["audit"] == audit]

    def mean(rows: Iterable[Row]) -> dict[str, Any] | None:
        return combined(members, rows, common=common)

    aucs = rows("mia_auc")
    headline = [row for row in aucs if _is_headline(row, main)]
    by_attack = {name: own for name, own in _by_attack(headline).items() if name in PANELS[audit]}
    published = CHEN2023.auc_of(first)
    strongest = _strongest(members, by_attack, common, rows)
    done = numbers.of("mia_eps_lb", points) if audit == "one_run" else aucs
    return {
        "method": first["method"],
        "ipc": first["ipc"],
        "planned": len(members),
        "done": len({row["point"] for row in done if row["value"] is not None}),
        "reasons": sorted({str(row["param"]["reason"]) for row in aucs if row["attack"] is None and _is_refused(row)}),
        "without": {
            row["attack"]: str(row["param"]["reason"])
            for row in aucs
            if row["attack"] in PANELS[audit] and _is_refused(row)
        },
        "strongest": strongest,
        "attacks": {name: mean(rows) for name, rows in _by_attack(headline).items()},
        "by_attack": {
            name: _behind(audit, name, mean, rows)
            for name in by_attack
            if any(row["value"] is not None for row in by_attack[name])
        },
        "roc": _roc(strongest, rows("mia_roc_tpr")),
        "rho": mean(row for row in _of_one(rows("mia_rho")) if _is_headline(row, main)),
        "as_published": _as_published(first),
        "target_accuracy": combined(members, (row for row in rows("mia_target_test_acc") if not _of_start(row))),
        "stated_epsilon": max((stated[point] for point in points if point in stated), default=None),
        "eps_lower_bound": {name: smallest(rows) for name, rows in _by_attack(rows("mia_eps_lb")).items()},
        "members": _single(row["n_pos"] for row in headline),
        "others": _single(row["n_neg"] for row in headline),
        "budget_fraction": first["budget_fraction"],
        "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None,
        "objections": CHEN2023.auc_objections(first, audit),
        "unpublished": first["param"].get("unpublished", {}),
    }


def _behind(
    audit: Audit,
    attack: str,
    mean: Callable[[Iterable[Row]], dict[str, Any] | None],
    rows: Callable[[str], list[Row]],
) -> dict[str, Any]:
    """What belongs to the AUC of an attack of the panel."""
    main, wide = SOURCES[audit], WIDE.get(audit)

    def own(metric: str) -> list[Row]:
        return [row for row in rows(metric) if row["attack"] is not None and _attack_name(row) == attack]

    def of(rows: Iterable[Row], source: str | None = main) -> dict[str, Any] | None:
        return mean(row for row in rows if _is_headline(row, source))

    aucs = own("mia_auc")
    return {
        "k": of(own("mia_k")),
        "auc_all_test": of(aucs, wide) if audit == "seed" else None,
        "tpr": of((row for row in own("mia_tpr_at_fpr") if row["fpr"] == FPR), wide),
        "strata": {
            role: mean(row for row in aucs if _is_about(row, main, role)) for role in ("member_init", "member_other")
        },
        "iteration_0": mean(row for row in aucs if _is_about(row, main, None, start=True)),
        "efficiency": of(own("mia_auc_efficiency")),
        "ceiling": of(own("mia_auc_ceiling")),
        "null_band": _band(own("mia_auc_null_low"), own("mia_auc_null_high"), main),
    }


def _strongest(
    members: Sequence[Row],
    by_attack: Mapping[str, Sequence[Row]],
    common: Mapping[str, float],
    rows: Callable[[str], list[Row]],
) -> dict[str, Any] | None:
    """The largest AUC of the panel, whose it is, an interval that knows that it was chosen, its null band, and k.

    It is the attack with the largest mean over the points: a mean of each point's largest would be no attack's, and
    too large by as much as points scatter. The interval is at the level at which all of the panel hold together in 95 %
    (Bonferroni); attacks that are missing at a point are left out.
    """
    values = {name: {row["point"] for row in own if row["value"] is not None} for name, own in by_attack.items()}
    most = max(map(len, values.values()), default=0)
    level = 1 - (1 - LEVEL) / max(1, sum(len(points) == most for points in values.values()))
    means = {
        name: combined(members, own, common=common, level=level)
        for name, own in by_attack.items()
        if most and len(values[name]) == most
    }
    known = {name: found for name, found in means.items() if found is not None}
    if not known:
        return None
    name = max(known, key=lambda each: known[each]["value"])
    source = next(iter(by_attack[name]))["nonmember_source"]
    found = known[name]
    if found["error"] is None:  # of one point, or the same at all: the audit has an interval at that level
        told = [row for row in rows("mia_auc_strongest") if _is_headline(row, source) and row["attack"] == name]
        found = combined(members, told) or _widened(found, level)
    per_class = next(row["n_pos"] for row in by_attack[name]) / members[0]["num_classes"]
    band = _band(rows("mia_auc_strongest_null_low"), rows("mia_auc_strongest_null_high"), source)
    if band is not None:
        # Over several draws it is narrower, by as much as their images differ.
        draws = draws_of(members)
        share = next(iter(common.values()), 0.0)
        narrower = math.sqrt(share + (1 - share) / draws)
        band = {end: 0.5 + (band[end] - 0.5) * narrower for end in ("low", "high")} | {"draws": draws}
    why = {row["param"].get("reason") for row in by_attack[name]} - {None} if found["low"] is None else set()
    return {
        **found,
        "attack": name,
        "panel": len(known),
        "null_band": band,
        "k": _k(found, per_class),
        "without_interval": sorted(why),
    }


def _widened(found: dict[str, Any], level: float) -> dict[str, Any]:
    """An interval of 95 % about images, at a higher level: so many normal deviations."""
    if found["low"] is None or found["high"] is None:
        return found
    wider = _deviations(level) / _deviations(LEVEL)
    low, high = (found["value"] + wider * (found[end] - found["value"]) for end in ("low", "high"))
    return {**found, "low": max(0.0, low), "high": min(1.0, high)}


def _deviations(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _k(auc: Mapping[str, Any], per_class: float) -> dict[str, Any]:
    """``mia_k`` of an AUC and of the ends of its interval."""
    ends = ("value", "low", "high")
    return {end: None if auc[end] is None else 2 * per_class * (auc[end] - 0.5) for end in ends}


def _band(low: Iterable[Row], high: Iterable[Row], source: str | None) -> dict[str, float] | None:
    """Where a single AUC lies 95 % of the time when nothing leaks: the mean over points."""
    ends = [
        [row["value"] for row in rows if _is_headline(row, source) and row["value"] is not None] for rows in (low, high)
    ]
    return {"low": fmean(ends[0]), "high": fmean(ends[1])} if all(ends) else None


def _widest(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One null band for the cells of a row, of which each lies within."""
    bands = [cell["strongest"]["null_band"] for cell in cells if cell["strongest"]]
    known = [band for band in bands if band]
    if not known:
        return None
    return {
        "low": min(band["low"] for band in known),
        "high": max(band["high"] for band in known),
        "draws": min(band["draws"] for band in known),
    }


def _roc(strongest: Mapping[str, Any] | None, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The curve of the strongest attack: at each false positive rate that all points have, the mean over them."""
    by_rate: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        if strongest is not None and row["attack"] == strongest["attack"] and row["value"] is not None:
            by_rate[row["fpr"]].append(row)
    most = max(map(len, by_rate.values()), default=0)
    return [
        {
            "fpr": fpr,
            "tpr": fmean(row["value"] for row in own),
            "members": min(row["n_pos"] for row in own),
            "others": min(row["n_neg"] for row in own),
            "targets": sum(row["n_agg"] or 1 for row in own),
        }
        for fpr, own in sorted(by_rate.items())
        if len(own) == most
    ]


def null_recall(fpr: float, members: int, others: int) -> tuple[float, float]:
    """Where the recall of one target lies in 95 % of cases when its members score as its non-members do.

    With k false positives allowed, members above the threshold are those above the (k + 1)-th highest non-member: a
    beta-binomial number.
    """
    from scipy import stats  # takes half a second, and most reports have no such figure

    allowed = int(fpr * others + 1e-9)
    if allowed >= others:
        return 1.0, 1.0
    chance = stats.betabinom(members, allowed + 1, others - allowed)
    low, high = chance.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low) / members, float(high) / members


def most_compatible(epsilon: float) -> float:
    """The largest AUC that an attack can reach on one image in place of another against what is epsilon-private of one
    image added or removed: of the first two changes, hence 2 epsilon. From TPR <= e^(2 epsilon) FPR and its mirror;
    delta, as small as it is, adds nothing that shows."""
    return 1 / (1 + math.exp(-2 * epsilon))


def _as_published(point: Row) -> float | None:
    """The largest AUC that any attack can reach when as many real images as the set holds are published: k is ipc."""
    if point["ipc"] is None or point["origin_per_class"] is None:
        return None
    return min(1.0, 0.5 + float(point["ipc"]) / (2 * float(point["origin_per_class"])))


def _of_one(rows: Iterable[Row]) -> list[Row]:
    """Of a number that every attack's rows repeat, one row per point."""
    return list({row["point"]: row for row in rows if _is_main(row)}.values())


def _by_attack(rows: Iterable[Row]) -> dict[str, list[Row]]:
    by_attack: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["attack"] is not None:
            by_attack[_attack_name(row)].append(row)
    return dict(sorted(by_attack.items()))


def _attack_name(row: Row) -> str:
    """The attack, and its variant: ``lira_online per_example``, ``data_release relative``."""
    return " ".join([str(row["attack"]), *([row["param"]["variant"]] if "variant" in row["param"] else [])])


def _is_main(row: Row) -> bool:
    return row["attack"] is not None and "variant" not in row["param"]


def _is_headline(row: Row, source: str | None) -> bool:
    """Whether a number is about all members of a target, or of the targets on average."""
    return _is_about(row, source, None)


def _is_about(row: Row, source: str | None, role: str | None, start: bool = False) -> bool:
    """Whether a number is about the members of a role (None: all members) and these non-members.

    Args:
        start: Whether of a model trained on the undistilled start; else of one trained on the distilled set.
    """
    same = row["member_role"] == role and row["nonmember_source"] == source and _of_start(row) == start
    return bool(same and row["agg"] != "pooled")


def _of_start(row: Row) -> bool:
    return bool(row["param"].get("iteration") == 0)


def _is_refused(row: Row) -> bool:
    """Whether the audit, or the row's attack, could not be run at all."""
    return bool(row["flag"] == "not_applicable" and row["n"] == 0 and "reason" in row["param"] and not _of_start(row))


def _single(values: Iterable[int | None]) -> int | None:
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None
