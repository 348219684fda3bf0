"""Membership inference as in the paper's Tables 1 and 2, gathered across blocks: origins are rows, draws are repeats.

One table per data set, network, recipe and audit; audits are never put together. A cell holds what one attack, named
beforehand, reached against one method; nothing here says that anything is private.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ddray.tables import paper
from ddray.tables.blocks import IN_BLOCK, IN_CELL, name_columns, rank, refuse_mixed
from ddray.tables.cells import LEVEL
from ddray.tables.reading import Numbers, Row
from ddray.tables.sections import privacy_pairs
from trainables.configs import PRIMARY_ATTACK, SECONDARY_ATTACK

METRICS = (
    "mia_auc", "mia_auc_null_low", "mia_auc_null_high", "mia_k", "mia_tpr_at_fpr", "mia_rho", "mia_auc_ceiling",
    "mia_auc_efficiency", "mia_target_test_acc", "mia_eps_lb", *privacy_pairs.METRICS,
)  # fmt: skip
AUDITS = ("seed", "pool", "one_run")
SOURCES = {"seed": "test_balanced", "pool": "pool", "one_run": "pool"}
"""Audit -> the non-members that its headline numbers are told from."""
WIDE = {"seed": "test", "pool": "pool"}
"""Audit -> those of its numbers at low false positive rates."""
FPR = 0.01
BASELINES = ("random", "full")

_TABLE = ("dataset", "architecture", "protocol")
_AXES = ("num_classes", "origin_per_class", "ipc", "init", "distill_aug", "distill_iters")
_SAME_IN_TABLE = tuple(name for name in IN_BLOCK if name != "data_hash")
_SAME_IN_ROW = ("n_pos", "n_neg", "n_shadows", "n_agg", "threat_model", "shadow_fidelity", "variance_mode",
                "nonmember_source")  # fmt: skip
"""Parameters of an attack that the cells of a row must agree on; from row to row they follow from the data's size."""


class At(NamedTuple):
    """A row of the table; None: not an axis of it, or not used by the method."""

    num_classes: int | None
    origin_per_class: int | None
    ipc: int | None
    init: str | None
    distill_aug: str | None
    distill_iters: int | None

    def covers(self, other: At) -> bool:
        """Whether the other is the same where it says anything."""
        return all(theirs is None or ours == theirs for ours, theirs in zip(self, other, strict=True))

    @property
    def text(self) -> str:
        """``origin_per_class 40, init real``."""
        return ", ".join(f"{name} {value}" for name, value in self._asdict().items() if value is not None)


def facts(points: Iterable[Row], numbers: Numbers, where: str) -> list[dict[str, Any]]:
    """The tables of all audits.

    Raises:
        MixedBlock: A cell, or a row, would mix two values of a parameter that is not an axis.
    """
    tables: dict[tuple[Any, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    waiting: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for point in points:
        rows = [row for metric in ("mia_auc", "mia_eps_lb") for row in numbers.of(metric, [point["point"]])]
        changes = json.dumps(point["param"].get("protocol_changes", {}), sort_keys=True)
        key = (*(point[name] for name in _TABLE), changes)
        audited = {row["audit"] for row in rows} - {None}
        for audit in audited:
            tables[key][audit].append(dict(point))
        if rows and not audited:  # failed or pending: which audits it was to have is not in the table
            waiting[key].append(point)
    found = []
    for key in sorted(tables):
        for audit in sorted(tables[key], key=AUDITS.index):
            together = tables[key][audit] + [dict(point) for point in waiting[key]]
            found.append(_table(together, audit, numbers, where))
    privacy_pairs.adjust(found)
    return found


def _table(points: list[Row], audit: str, numbers: Numbers, where: str) -> dict[str, Any]:
    first = points[0]
    title = f"{first['dataset']}, {first['architecture']}, protocol {first['protocol']}"
    where = f"{where}: privacy, audit {audit}, {title}"
    refuse_mixed(points, _SAME_IN_TABLE, where)
    axes = _axes(points)
    name_columns(points, axes, lambda row: tuple(_at(row, axes)))
    columns = sorted({row["column"] for row in points}, key=rank)
    by_place = {at: [row for row in points if at.covers(_at(row, axes))] for at in _places(points, axes)}
    attack = SECONDARY_ATTACK if audit == "one_run" else PRIMARY_ATTACK
    by_point = {row["point"]: row for row in points}
    compared = privacy_pairs.attack_of(by_point, audit, (attack, SECONDARY_ATTACK), numbers)
    rows = []
    for at, members in by_place.items():
        cells = {}
        for column in columns:
            own = [row for row in members if row["column"] == column]
            if own:
                refuse_mixed(own, IN_CELL, f"{where}: {column}, {at.text}")
                less = privacy_pairs.differences(own, by_point, audit, compared, numbers, combined)
                cells[column] = {**_cell(own, audit, numbers), "less": less}
        keys = {row["point"] for row in members}
        _refuse_mixed_attacks(numbers, keys, audit, f"{where}: {at.text}")
        rows.append({**at._asdict(), "cells": cells, "null_band": _band(members, audit, numbers)})
    return {
        "title": title, "audit": audit, "attack": attack, "secondary": SECONDARY_ATTACK, "less_attack": compared,
        "nonmember_source": SOURCES[audit], **{name: first[name] for name in (*_TABLE, *_SAME_IN_TABLE)},
        "protocol_changes": first["param"].get("protocol_changes", {}),
        "row_axes": axes, "methods": columns, "rows": rows,
        "missing_baselines": _missing(rows),
    }  # fmt: skip


def _axes(points: Sequence[Row]) -> list[str]:
    found = []
    for name in _AXES[:-1]:
        if name == "origin_per_class" or len({row[name] for row in points} - {None}) > 1:
            found.append(name)
    if any(row["class_draw"] is not None for row in points) and "num_classes" not in found:
        found.insert(0, "num_classes")
    learned = {row["method"] for row in points if row["distill_iters"]}
    budgets = defaultdict(set)
    for row in points:
        budgets[row["method"], *(row[name] for name in found)].add(row["distill_iters"])
    if len(learned) < 2 and any(len(values) > 1 for values in budgets.values()):
        found.append("distill_iters")
    return found


def _at(row: Row, axes: Sequence[str]) -> At:
    return At(**{name: row[name] if name in axes else None for name in _AXES})


def _places(points: Iterable[Row], axes: Sequence[str]) -> list[At]:
    found = {_at(row, axes) for row in points}
    own = [at for at in found if not any(other != at and other.covers(at) for other in found)]
    return sorted(own, key=lambda at: tuple((value is None, value) for value in at))


def _missing(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Baseline -> rows of the table without a number of it."""
    found = {}
    for baseline in BASELINES:
        without = sum(
            not any(cell["method"] == baseline and cell["done"] for cell in row["cells"].values()) for row in rows
        )
        if without:
            found[baseline] = without
    return found


def _refuse_mixed_attacks(numbers: Numbers, points: set[str], audit: str, where: str) -> None:
    by_attack = defaultdict(list)
    for row in numbers.of("mia_auc", sorted(points)):
        if row["audit"] == audit and row["value"] is not None and _headline(row, SOURCES[audit]) and not _start(row):
            by_attack[_name(row)].append(row)
    for name, rows in by_attack.items():
        refuse_mixed(rows, _SAME_IN_ROW, f"{where}: attack {name}")


# --- cells ------------------------------------------------------------------------------------------------------------


def _cell(members: Sequence[Row], audit: str, numbers: Numbers) -> dict[str, Any]:
    first = members[0]
    points = [row["point"] for row in members]
    main = SOURCES[audit]
    own = [row for row in numbers.of("mia_auc", points) if row["audit"] == audit]
    headline = [row for row in own if _headline(row, main) and not _start(row)]
    by_attack: dict[str, list[Row]] = defaultdict(list)
    for row in headline:
        if row["attack"] is not None:
            by_attack[_name(row)].append(row)

    def of(metric: str, attack: str, source: str | None = main, **columns: Any) -> dict[str, Any] | None:
        found = [
            row
            for row in numbers.of(metric, points)
            if row["audit"] == audit and row["attack"] == attack and _headline(row, source) and not _start(row)
            and all(row[name] == value for name, value in columns.items())
        ]  # fmt: skip
        return combined(members, found)

    strata = {
        role: combined(members, [row for row in own if _of_role(row, role, main) and not _start(row)])
        for role in ("member_init", "member_other")
    }
    started = [row for row in own if row["attack"] == PRIMARY_ATTACK and _headline(row, main) and _start(row)]
    accuracies = [row for row in numbers.of("mia_target_test_acc", points) if row["audit"] == audit and not _start(row)]
    published = paper.auc_of(first)
    bounds = {
        str(attack): combined(members, [row for row in rows if row["attack"] == attack])
        for rows in [[row for row in numbers.of("mia_eps_lb", points) if row["audit"] == audit]]
        for attack in sorted({row["attack"] for row in rows} - {None})
    }
    done = [key for key in points if any(row["point"] == key and row["value"] is not None for row in own)]
    if audit == "one_run":
        done = [key for key in points if any(row["value"] is not None for row in numbers.of("mia_eps_lb", [key]))]
    return {
        "method": first["method"], "planned": len(members), "done": len(done),
        "reasons": sorted({str(row["param"]["reason"]) for row in own if _refused(row)}),
        "attacks": {name: combined(members, rows) for name, rows in sorted(by_attack.items())},
        "k": of("mia_k", PRIMARY_ATTACK),
        "auc_all_test": of("mia_auc", PRIMARY_ATTACK, WIDE.get(audit)) if audit == "seed" else None,
        "tpr": {
            str(attack): of("mia_tpr_at_fpr", attack, WIDE.get(audit), fpr=FPR)
            for attack in (PRIMARY_ATTACK, SECONDARY_ATTACK)
        },
        "rho": of("mia_rho", PRIMARY_ATTACK), "strata": strata, "iteration_0": combined(members, started),
        "efficiency": of("mia_auc_efficiency", PRIMARY_ATTACK), "ceiling": of("mia_auc_ceiling", PRIMARY_ATTACK),
        "target_accuracy": combined(members, accuracies), "eps_lower_bound": bounds,
        "members": _single(row["n_pos"] for row in headline), "others": _single(row["n_neg"] for row in headline),
        "budget_fraction": first["budget_fraction"], "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None, "objections": paper.auc_objections(first, audit),
        "unpublished": first["param"].get("unpublished", {}),
    }  # fmt: skip


def _headline(row: Row, source: str | None) -> bool:
    """Whether a number is about all members of a target, or of the targets on average."""
    return bool(row["member_role"] is None and row["agg"] != "pooled" and row["nonmember_source"] == source)


def _of_role(row: Row, role: str, source: str) -> bool:
    same = row["attack"] == PRIMARY_ATTACK and row["agg"] != "pooled" and row["nonmember_source"] == source
    return bool(same and row["member_role"] == role)


def _refused(row: Row) -> bool:
    """Whether the audit, or its primary attack, could not be run at all."""
    told = row["attack"] in (None, PRIMARY_ATTACK) and row["flag"] == "not_applicable" and row["n"] == 0
    return bool(told and "reason" in row["param"] and not _start(row))


def _start(row: Row) -> bool:
    """Whether it is about a model trained on the undistilled start."""
    return bool(row["param"].get("iteration") == 0)


def _name(row: Row) -> str:
    """The attack, and its variant where it has several: ``lira_online per_example``, ``data_release relative``."""
    variant = (row["variance_mode"], row["param"].get("rmia_mode"), row["param"].get("distance"))
    usual = ("shrunk", "online", "pixel", None)
    return " ".join([str(row["attack"]), *(str(value) for value in variant if value not in usual)])


def _single(values: Iterable[int | None]) -> int | None:
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def combined(members: Sequence[Row], rows: Iterable[Row], least: float = 0.0) -> dict[str, Any] | None:
    """One number of several points: the mean at the highest level of repetition there is, and its interval.

    Draws of the origin (and of classes) are the units where there are several, then distillations, then trainings:
    Student's interval over units. Of a single point: the interval it came with.

    Args:
        members: The points.
        rows: At most one of each.
        least: The smallest value there can be of a fraction.

    Returns:
        ``value``, ``low``, ``high``, ``sd``, ``unit``, ``count``, ``level`` (how to print unit and count), ``flags``;
        None without a value.
    """
    # An audit that is behind several points counts once: it would look like so many draws that agree.
    known = {row["stage_key"]: row for row in rows if row["value"] is not None}
    known = {row["point"]: row for row in known.values()}
    by_draw: dict[Any, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        if (row := known.get(member["point"])) is not None:
            draw = (member["class_draw"], member["origin_draw"])
            by_draw[draw][member["distill_seed"]].append(row["value"])
    if not by_draw:
        return None
    flags = sorted({row["flag"] for row in known.values() if row["flag"] is not None})
    if len(known) == 1:
        (row,) = known.values()
        targets = row["n_agg"] if row["agg"] == "mean_targets" else None
        level = f"{targets} targets" if targets else "1 model"
        return {
            "value": row["value"], "low": row["ci_low"], "high": row["ci_high"], "sd": None,
            "unit": row["ci_unit"] or "images", "count": targets or 1, "level": level, "flags": flags,
        }  # fmt: skip
    sets = [[fmean(values) for values in draw.values()] for draw in by_draw.values()]
    trainings = [values for draw in by_draw.values() for values in draw.values()]
    if len(sets) > 1:
        units, unit = [fmean(values) for values in sets], _what_differs(by_draw)
    elif len(sets[0]) > 1:
        units, unit = sets[0], "distillations"
    else:
        units, unit = trainings[0], "trainings"
    mean, sd = fmean(units), stdev(units)
    low, high = mean - (reach := _reach(sd, len(units))), mean + reach
    if all(row["unit"] == "fraction" for row in known.values()):
        low, high = max(least, low), min(1.0, high)
    return {
        "value": mean, "low": low, "high": high, "sd": sd, "unit": unit, "count": len(units),
        "level": f"{len(units)} {unit}", "flags": flags,
    }  # fmt: skip


def _what_differs(draws: Iterable[tuple[Any, Any]]) -> str:
    draws = list(draws)
    if len({classes for classes, _ in draws}) == 1:
        return "origin draws"
    return "class draws" if len({origin for _, origin in draws}) == 1 else "draws"


def _reach(sd: float, count: int) -> float:
    from scipy.special import stdtrit  # a tenth of the time that importing scipy.stats takes

    return float(stdtrit(count - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(count)


def _band(members: Sequence[Row], audit: str, numbers: Numbers) -> dict[str, Any] | None:
    """Where the AUC of a single cell lies 95 % of the time when nothing leaks; over several draws of the origin it is
    narrower by the root of their number, as their members are other images."""
    ends: dict[str, list[float]] = {"low": [], "high": []}
    draws: dict[str, set[Any]] = defaultdict(set)
    for member in members:
        draws[member["column"]].add((member["class_draw"], member["origin_draw"]))
        for end, values in ends.items():
            values += [
                row["value"]
                for row in numbers.of(f"mia_auc_null_{end}", [member["point"]])
                if row["audit"] == audit and row["attack"] == PRIMARY_ATTACK and _headline(row, SOURCES[audit])
                and not _start(row) and row["value"] is not None
            ]  # fmt: skip
    if not ends["low"] or not ends["high"]:
        return None
    fewest = min(len(found) for found in draws.values())
    low, high = (0.5 + (fmean(values) - 0.5) / math.sqrt(fewest) for values in ends.values())
    return {"low": low, "high": high, "draws": fewest}


# --- alarms -----------------------------------------------------------------------------------------------------------


def alarms(tables: Iterable[Mapping[str, Any]], numbers: Numbers) -> list[str]:
    """Baselines that are missing, numbers above what is possible, controls outside their band."""
    found = []
    for table in tables:
        for baseline, rows in table["missing_baselines"].items():
            found.append(
                f"privacy, audit {table['audit']}, {table['title']}: no {baseline} beside {rows} of "
                f"{len(table['rows'])} rows; without it an AUC says little"
            )
    above = [row for row in _all(numbers, "mia_auc_efficiency") if row["flag"] == "above_ceiling"]
    if above:
        attacks = ", ".join(sorted({str(row["attack"]) for row in above}))
        found.append(
            f"{len(above)} AUCs of random are above the ceiling of published images ({attacks}): something else leaks"
        )
    controls = [row for row in _all(numbers, "mia_auc") if row["attack"] == "blind" and row["value"] is not None]
    outside = [row for row in controls if row["flag"] == "outside_band"]
    if outside:
        expected = 0.05 * len(controls)
        found.append(
            f"the control `blind`, which sees no model, is outside its 95 % band in {len(outside)} of {len(controls)} "
            f"cases ({expected:.1f} by chance): there members and others may differ as images"
        )
    return found


def _all(numbers: Numbers, metric: str) -> list[Row]:
    return [row for rows in numbers.rows.get(metric, {}).values() for row in rows]
