"""Membership inference as in the paper's Tables 1 and 2, gathered across blocks: origins are rows, draws are repeats.

One table per data set, network, recipe and audit; audits are never put together. A cell holds what one attack, named
beforehand, reached against one method; nothing here says that anything is private.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import NormalDist, fmean, stdev
from typing import Any, NamedTuple

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.references import CHEN2023
from ddray.measurements.statistics import LEVEL
from ddray.report.blocks import IN_BLOCK, IN_CELL, name_columns, rank, refuse_mixed
from ddray.report.sections import privacy_pairs
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
    *privacy_pairs.METRICS,
)
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
                here = {key: row for key, row in by_point.items() if at.covers(_at(row, axes))}
                less = privacy_pairs.differences(own, here, by_point, audit, compared, numbers, _difference)
                cells[column] = {**_cell(own, audit, numbers), "less": less}
        keys = {row["point"] for row in members}
        _refuse_mixed_attacks(numbers, keys, audit, f"{where}: {at.text}")
        rows.append({**at._asdict(), "cells": cells, "null_band": _band(members, audit, numbers)})
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
        "methods": columns,
        "rows": rows,
        "missing_baselines": _missing(rows),
    }


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
    """Baseline -> rows of the table with numbers, but none of it."""
    found = {}
    known = [{cell["method"] for cell in row["cells"].values() if cell["done"]} for row in rows]
    for baseline in BASELINES:
        without = sum(bool(methods) and baseline not in methods for methods in known)
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

    common = in_common(members, audit, numbers)

    def mean(rows: Iterable[Row]) -> dict[str, Any] | None:
        return combined(members, rows, common=common)

    def of(metric: str, attack: str, source: str | None = main, **columns: Any) -> dict[str, Any] | None:
        found = [
            row
            for row in numbers.of(metric, points)
            if row["audit"] == audit
            and row["attack"] == attack
            and _headline(row, source)
            and not _start(row)
            and all(row[name] == value for name, value in columns.items())
        ]
        return mean(found)

    strata = {
        role: mean([row for row in own if _of_role(row, role, main) and not _start(row)])
        for role in ("member_init", "member_other")
    }
    started = [row for row in own if row["attack"] == PRIMARY_ATTACK and _headline(row, main) and _start(row)]
    accuracies = [row for row in numbers.of("mia_target_test_acc", points) if row["audit"] == audit and not _start(row)]
    published = CHEN2023.auc_of(first)
    bounds: dict[str, list[Row]] = defaultdict(list)
    for row in numbers.of("mia_eps_lb", points):
        if row["audit"] == audit and row["attack"] is not None:
            bounds[_name(row)].append(row)
    done = [key for key in points if any(row["point"] == key and row["value"] is not None for row in own)]
    if audit == "one_run":
        done = [key for key in points if any(row["value"] is not None for row in numbers.of("mia_eps_lb", [key]))]
    return {
        "method": first["method"],
        "planned": len(members),
        "done": len(done),
        "reasons": sorted({str(row["param"]["reason"]) for row in own if _refused(row)}),
        "attacks": {name: mean(rows) for name, rows in sorted(by_attack.items())},
        "k": of("mia_k", PRIMARY_ATTACK),
        "auc_all_test": of("mia_auc", PRIMARY_ATTACK, WIDE.get(audit)) if audit == "seed" else None,
        "tpr": {
            str(attack): of("mia_tpr_at_fpr", attack, WIDE.get(audit), fpr=FPR)
            for attack in (PRIMARY_ATTACK, SECONDARY_ATTACK)
        },
        "rho": of("mia_rho", PRIMARY_ATTACK),
        "strata": strata,
        "iteration_0": mean(started),
        "efficiency": of("mia_auc_efficiency", PRIMARY_ATTACK),
        "ceiling": of("mia_auc_ceiling", PRIMARY_ATTACK),
        "target_accuracy": combined(members, accuracies),
        "eps_lower_bound": {name: _smallest(rows) for name, rows in sorted(bounds.items())},
        "members": _single(row["n_pos"] for row in headline),
        "others": _single(row["n_neg"] for row in headline),
        "budget_fraction": first["budget_fraction"],
        "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None,
        "objections": CHEN2023.auc_objections(first, audit),
        "unpublished": first["param"].get("unpublished", {}),
    }


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


def _smallest(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Of several lower bounds the smallest: it holds at their level for its own run, which a mean of them does not."""
    known = {row["stage_key"]: row for row in rows if row["value"] is not None}
    if not known:
        return None
    least = min(known.values(), key=lambda row: row["value"])
    level = "1 run" if len(known) == 1 else f"smallest of {len(known)} runs"
    flags = sorted({row["flag"] for row in known.values() if row["flag"] is not None})
    return {
        "value": least["value"],
        "low": None,
        "high": None,
        "sd": None,
        "unit": "images",
        "count": len(known),
        "level": level,
        "flags": flags,
    }


def in_common(members: Sequence[Row], audit: str, numbers: Numbers) -> dict[str, float]:
    """The share of the variance about images that any two draws have in common, on average, as half of it is about
    members and half about others.

    Draws of the origin have members of their own, but in the audit ``seed`` their others are drawn from the same test
    images. Draws of the classes have all images of the classes that they share, if the draw of the origin is the same.

    Returns:
        What differs between the units (as ``combined`` names it) -> share; empty where there is one draw.
    """
    draws = {(row["class_draw"], row["origin_draw"]): row["class_ids"] for row in members}
    pairs = [
        _shared(one, other, classes, others)
        for (one, classes), (other, others) in itertools.combinations(draws.items(), 2)
    ]
    if not pairs:
        return {}
    tested = _share_of_test(members, numbers) if audit == "seed" else 0.0
    return {
        _what_differs(draws): fmean((inside + (outside or classes * tested)) / 2 for classes, inside, outside in pairs)
    }


def _shared(one: Any, other: Any, classes: Any, others: Any) -> tuple[float, float, float | None]:
    """Of two draws: the share of classes, of members and of others in common; None: where it hangs on the audit."""
    alike = 1.0 if classes is None or others is None else len({*classes} & {*others}) / max(len(classes), len(others))
    return (alike, alike, alike) if one[1] == other[1] else (alike, 0.0, None)


def _share_of_test(members: Sequence[Row], numbers: Numbers) -> float:
    """How much of the test images a target's balanced others are."""
    counts: dict[str, int] = {}
    for row in numbers.of("mia_auc", [row["point"] for row in members]):
        if row["audit"] == "seed" and row["n_neg"] and row["nonmember_source"] in ("test", "test_balanced"):
            counts.setdefault(row["nonmember_source"], row["n_neg"])
    return counts["test_balanced"] / counts["test"] if len(counts) == 2 else 1.0


def combined(
    members: Sequence[Row], rows: Iterable[Row], least: float = 0.0, common: Mapping[str, float] | None = None
) -> dict[str, Any] | None:
    """One number of several points: the mean at the highest level of repetition there is, and its interval.

    Draws of the origin (and of classes) are the units where there are several, then distillations, then trainings:
    Student's interval over units. What images add to all units alike does not show between them: it is taken from the
    points' own intervals, by the share in ``common``, and the wider interval counts. In simulations of 2, 3 and 5 units
    with nothing to everything in common, the mean was missed in 2 to 6 %; by Student's alone in up to all cases. Of a
    single point: the interval it came with.

    Args:
        members: The points.
        rows: At most one of each.
        least: The smallest value there can be of a fraction.
        common: What the units are -> share of the variance about images that they have in common; else 0.

    Returns:
        ``value``, ``low``, ``high``, ``sd``, ``unit``, ``count``, ``level`` (how to print unit and count), ``flags``,
        ``error`` and ``freedom`` (of Student's interval; None of a single point); None without a value.
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
            "value": row["value"],
            "low": row["ci_low"],
            "high": row["ci_high"],
            "sd": None,
            "unit": row["ci_unit"] or "images",
            "count": targets or 1,
            "level": level,
            "flags": flags,
            "error": None,
            "freedom": None,
        }
    sets = [[fmean(values) for values in draw.values()] for draw in by_draw.values()]
    trainings = [values for draw in by_draw.values() for values in draw.values()]
    if len(sets) > 1:
        units, unit = [fmean(values) for values in sets], _what_differs(by_draw)
    elif len(sets[0]) > 1:
        units, unit = sets[0], "distillations"
    else:
        units, unit = trainings[0], "trainings"
    mean, sd = fmean(units), stdev(units)
    shared = (common or {}).get(unit, 0.0) * fmean(_about_images(row) for row in known.values())
    error, freedom = _error(sd, len(units), shared)
    # With few units their scatter may be small by chance, and the sum would have too many degrees of freedom.
    reach = max(_quantile(freedom) * error, _quantile(len(units) - 1) * sd / math.sqrt(len(units)))
    low, high = mean - reach, mean + reach
    if all(row["unit"] == "fraction" for row in known.values()):
        low, high = max(least, low), min(1.0, high)
    return {
        "value": mean,
        "low": low,
        "high": high,
        "sd": sd,
        "unit": unit,
        "count": len(units),
        "level": f"{len(units)} {unit}",
        "flags": flags,
        "error": error,
        "freedom": freedom,
    }


def _difference(members: Sequence[Row], rows: Iterable[Row], audit: str, numbers: Numbers) -> dict[str, Any] | None:
    """Of rows about differences: trainings and distillations of one draw are asked about the same images."""
    common = {**in_common(members, audit, numbers), "trainings": 1.0, "distillations": 1.0}
    return combined(members, rows, -1.0, common)


def _about_images(row: Row) -> float:
    """Variance by a point's own interval."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return 0.0
    return float(((row["ci_high"] - row["ci_low"]) / (2 * NormalDist().inv_cdf((1 + LEVEL) / 2))) ** 2)


def _error(sd: float, count: int, shared: float) -> tuple[float, float]:
    """Standard error of a mean of units that share a variance, and its degrees of freedom (Satterthwaite's)."""
    own = sd**2 / count
    variance = own + shared
    return math.sqrt(variance), (count - 1) * (variance / own) ** 2 if own > 0 else math.inf


def _what_differs(draws: Iterable[tuple[Any, Any]]) -> str:
    draws = list(draws)
    if len({classes for classes, _ in draws}) == 1:
        return "origin draws"
    return "class draws" if len({origin for _, origin in draws}) == 1 else "draws"


def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit  # a tenth of the time that importing scipy.stats takes

    return float(stdtrit(min(freedom, 1e9), (1 + LEVEL) / 2))


def _band(members: Sequence[Row], audit: str, numbers: Numbers) -> dict[str, Any] | None:
    """Where the AUC of a single cell lies 95 % of the time when nothing leaks; over several draws it is narrower, by
    as much as their images differ."""
    ends: dict[str, list[float]] = {"low": [], "high": []}
    draws: dict[str, set[Any]] = defaultdict(set)
    for member in members:
        draws[member["column"]].add((member["class_draw"], member["origin_draw"]))
        for end, values in ends.items():
            values += [
                row["value"]
                for row in numbers.of(f"mia_auc_null_{end}", [member["point"]])
                if row["audit"] == audit
                and row["attack"] == PRIMARY_ATTACK
                and _headline(row, SOURCES[audit])
                and not _start(row)
                and row["value"] is not None
            ]
    if not ends["low"] or not ends["high"]:
        return None
    fewest = min(len(found) for found in draws.values())
    column = next(name for name, found in draws.items() if len(found) == fewest)
    shares = in_common([row for row in members if row["column"] == column], audit, numbers).values()
    share = next(iter(shares), 0.0)
    narrower = math.sqrt(share + (1 - share) / fewest)
    low, high = (0.5 + (fmean(values) - 0.5) * narrower for values in ends.values())
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
