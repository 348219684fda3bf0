"""Membership inference as in the paper's Tables 1 and 2, gathered across blocks: origins are rows, draws are repeats.

One table per data set, network, recipe and audit; audits are never put together. A cell holds what one attack, named
beforehand, reached against one method; nothing here says that anything is private.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.references import CHEN2023
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
from trainables.attacks import PRIMARY_ATTACK, SECONDARY_ATTACK

METRICS = (
    "mia_auc",
    "mia_auc_null_low",
    "mia_auc_null_high",
    "mia_k",
    "mia_tpr_at_fpr",
    "mia_rho",
    "mia_auc_ceiling",
    "mia_auc_efficiency",
    "mia_target_test_acc",
    "mia_eps_lb",
    *leak_differences.METRICS,
)
AUDITS = ("seed", "pool", "one_run")
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
        for audit in sorted(tables[key], key=AUDITS.index)
    ]
    leak_differences.adjust(made)
    return made


def _table(points: list[Row], audit: str, numbers: Numbers, sweep: str) -> dict[str, Any]:
    first = points[0]
    title = f"{first['dataset']}, {first['architecture']}, protocol {first['protocol']}"
    where = f"{sweep}: privacy, audit {audit}, {title}"
    refuse_mixed(points, _SAME_IN_TABLE, where)
    axes = _row_axes(points)
    name_variants(points, "distill_iters" in axes, axes)
    variants = sorted({point["variant"] for point in points}, key=variant_order)
    attack = SECONDARY_ATTACK if audit == "one_run" else PRIMARY_ATTACK
    by_point = {point["point"]: point for point in points}
    compared = leak_differences.attack_of(by_point, audit, (attack, SECONDARY_ATTACK), numbers)
    rows = []
    for key in row_keys(points, axes, _AXES):
        members = [point for point in points if key.covers(RowKey.of(point, axes, _AXES))]
        here = {point["point"]: point for point in members}
        cells = {}
        for variant in variants:
            own = [point for point in members if point["variant"] == variant]
            if own:
                refuse_mixed(own, SAME_IN_CELL, f"{where}: {variant}, {key.text}")
                less = leak_differences.differences(own, here, by_point, audit, compared, numbers)
                cells[variant] = {**_cell(own, audit, numbers), "less": less}
        _refuse_mixed_attacks(members, audit, numbers, f"{where}: {key.text}")
        rows.append({**key.facts, "cells": cells, "null_band": _null_band(members, audit, numbers)})
    return {
        "title": title,
        "audit": audit,
        "attack": attack,
        "secondary": SECONDARY_ATTACK,
        "less_attack": compared,
        "nonmember_source": SOURCES[audit],
        **{name: first[name] for name in (*_TABLE, *_SAME_IN_TABLE)},
        "protocol_changes": first["param"].get("protocol_changes", {}),
        "row_axes": axes,
        "methods": variants,
        "rows": rows,
        "missing_baselines": _missing_baselines(rows),
    }


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


def _cell(members: Sequence[Row], audit: str, numbers: Numbers) -> dict[str, Any]:
    first, main, wide = members[0], SOURCES[audit], WIDE.get(audit)
    points = [member["point"] for member in members]
    common = in_common(members, audit, numbers)

    def rows(metric: str) -> list[Row]:
        return [row for row in numbers.of(metric, points) if row["audit"] == audit]

    def mean(rows: Iterable[Row]) -> dict[str, Any] | None:
        return combined(members, rows, common=common)

    def of(rows: Iterable[Row], attack: str = PRIMARY_ATTACK, source: str | None = main) -> dict[str, Any] | None:
        return mean(row for row in rows if row["attack"] == attack and _is_headline(row, source))

    aucs = rows("mia_auc")
    tprs = [row for row in rows("mia_tpr_at_fpr") if row["fpr"] == FPR]
    headline = [row for row in aucs if _is_headline(row, main)]
    published = CHEN2023.auc_of(first)
    done = numbers.of("mia_eps_lb", points) if audit == "one_run" else aucs
    return {
        "method": first["method"],
        "planned": len(members),
        "done": len({row["point"] for row in done if row["value"] is not None}),
        "reasons": sorted({str(row["param"]["reason"]) for row in aucs if _is_refused(row)}),
        "attacks": {name: mean(rows) for name, rows in _by_attack(headline).items()},
        "k": of(rows("mia_k")),
        "auc_all_test": of(aucs, source=wide) if audit == "seed" else None,
        "tpr": {str(attack): of(tprs, attack, wide) for attack in (PRIMARY_ATTACK, SECONDARY_ATTACK)},
        "rho": of(rows("mia_rho")),
        "strata": {
            role: mean(row for row in aucs if row["attack"] == PRIMARY_ATTACK and _is_about(row, main, role))
            for role in ("member_init", "member_other")
        },
        "iteration_0": mean(
            row for row in aucs if row["attack"] == PRIMARY_ATTACK and _is_about(row, main, None, start=True)
        ),
        "efficiency": of(rows("mia_auc_efficiency")),
        "ceiling": of(rows("mia_auc_ceiling")),
        "target_accuracy": combined(members, (row for row in rows("mia_target_test_acc") if not _of_start(row))),
        "eps_lower_bound": {name: smallest(rows) for name, rows in _by_attack(rows("mia_eps_lb")).items()},
        "members": _single(row["n_pos"] for row in headline),
        "others": _single(row["n_neg"] for row in headline),
        "budget_fraction": first["budget_fraction"],
        "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None,
        "objections": CHEN2023.auc_objections(first, audit),
        "unpublished": first["param"].get("unpublished", {}),
    }


def _by_attack(rows: Iterable[Row]) -> dict[str, list[Row]]:
    by_attack: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["attack"] is not None:
            by_attack[_attack_name(row)].append(row)
    return dict(sorted(by_attack.items()))


def _attack_name(row: Row) -> str:
    """The attack, and its variant where it has several: ``lira_online per_example``, ``data_release relative``."""
    variant = (row["variance_mode"], row["param"].get("rmia_mode"), row["param"].get("distance"))
    usual = ("shrunk", "online", "pixel", None)
    return " ".join([str(row["attack"]), *(str(value) for value in variant if value not in usual)])


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
    """Whether the audit, or its primary attack, could not be run at all."""
    empty = row["attack"] in (None, PRIMARY_ATTACK) and row["flag"] == "not_applicable" and row["n"] == 0
    return bool(empty and "reason" in row["param"] and not _of_start(row))


def _single(values: Iterable[int | None]) -> int | None:
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


def _null_band(members: Sequence[Row], audit: str, numbers: Numbers) -> dict[str, Any] | None:
    """Where the AUC of a single cell lies 95 % of the time when nothing leaks; over several draws it is narrower, by
    as much as their images differ."""

    def values(end: str) -> list[float]:
        return [
            row["value"]
            for row in numbers.of(f"mia_auc_null_{end}", [member["point"] for member in members])
            if row["audit"] == audit
            and row["attack"] == PRIMARY_ATTACK
            and _is_headline(row, SOURCES[audit])
            and row["value"] is not None
        ]

    ends = values("low"), values("high")
    if not all(ends):
        return None
    by_variant: dict[str, list[Row]] = defaultdict(list)
    for member in members:
        by_variant[member["variant"]].append(member)
    fewest = min(by_variant.values(), key=draws_of)  # the cell whose AUC scatters most
    draws = draws_of(fewest)
    share = next(iter(in_common(fewest, audit, numbers).values()), 0.0)
    narrower = math.sqrt(share + (1 - share) / draws)
    low, high = (0.5 + (fmean(end) - 0.5) * narrower for end in ends)
    return {"low": low, "high": high, "draws": draws}
