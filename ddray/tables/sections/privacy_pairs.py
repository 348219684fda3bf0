"""Which method leaks more: AUCs of one cell of a privacy table less those of others, on the same images and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ddray.tables.blocks import rank, title_of
from ddray.tables.derived.compare import ALPHA, adjusted
from ddray.tables.markdown import NOTHING, Facts, axes_header, interval, table
from ddray.tables.reading import Numbers, Row

METRICS = ("mia_auc_delta", "mia_auc_delta_p")
_AXES = ("init", "distill_aug", "iteration")
Combined = Callable[[Sequence[Row], Iterable[Row], float], dict[str, Any] | None]
"""``privacy.combined`` with the least possible value."""


def attack_of(points: Iterable[str], audit: str, attacks: Sequence[str], numbers: Numbers) -> str:
    """The first of the attacks that has differences; the first of all where none has."""
    known = {row["attack"] for row in numbers.of("mia_auc_delta", points) if row["audit"] == audit}
    return next((attack for attack in attacks if attack in known), attacks[0])


def differences(
    members: Sequence[Row], points: Mapping[str, Row], audit: str, attack: str, numbers: Numbers, combined: Combined
) -> dict[str, dict[str, Any]]:
    """What a cell's AUCs are compared with -> their mean difference, as ``combined``, with ``p``.

    Over several units (draws, distillations or trainings) p is Student's, of their paired differences; of a single
    point it is that of the table.

    Args:
        members: The cell's points.
        points: All points of the table, with their columns.
        audit: Of the table.
        attack: That is compared.
        numbers: Hold ``METRICS``.
        combined: Makes one number of several points.
    """
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for metric in METRICS:
        for row in numbers.of(metric, [member["point"] for member in members]):
            other = points.get(row["param"]["against_point"])
            if other is not None and row["audit"] == audit and row["attack"] == attack:
                found[_name(row["param"]["against"], other)][metric].append(row)
    result = {}
    for name, rows in found.items():
        difference = combined(members, rows["mia_auc_delta"], -1.0)
        if difference is not None:
            alone = [row["value"] for row in rows["mia_auc_delta_p"]]
            several = difference["sd"] is not None
            result[name] = {**difference, "p": _p(difference) if several else alone[0]}
    return result


def _name(against: Mapping[str, str | int], other: Row) -> str:
    """The other's column, or in what else it differs: ``init noise``, ``iteration 0``."""
    if "method" in against:
        return str(other["column"])
    return ", ".join(f"{axis} {value}" for axis, value in against.items())


def _p(difference: Mapping[str, Any]) -> float | None:
    """Two-sided, of Student's paired test over units."""
    from scipy.special import stdtr

    spread, count = difference["sd"], difference["count"]
    if not spread > 0:
        return None
    return float(2 * stdtr(count - 1, -abs(difference["value"]) / (spread / math.sqrt(count))))


def adjust(tables: Iterable[Mapping[str, Any]]) -> None:
    """Give every difference of all tables its ``p_adjusted`` (Benjamini and Hochberg)."""
    found = [
        entry
        for each in tables
        for row in each["rows"]
        for cell in row["cells"].values()
        for entry in cell["less"].values()
    ]
    for entry, p in zip(found, adjusted([entry["p"] for entry in found]), strict=True):
        entry["p_adjusted"] = p


def text(found: Facts, cells: Sequence[tuple[str, str, Facts]]) -> list[str]:
    """A table of differences: a line per cell, a column per what it is compared with.

    Args:
        found: A privacy table.
        cells: Its places, columns and contents, each once.
    """
    names = sorted(
        {name for *_, cell in cells for name in cell["less"]}, key=lambda name: (name.split()[0] in _AXES, rank(name))
    )
    if not names:
        return []
    rows = []
    for where, column, cell in cells:
        if cell["less"]:
            shown = (cell["less"].get(name) for name in names)
            rows.append([where, title_of(column), *(NOTHING if each is None else _marked(each) for each in shown)])
    header = [axes_header(found["row_axes"]), "method", *(f"less {title_of(name)}" for name in names)]
    compared = [each for *_, cell in cells for each in cell["less"].values()]
    units = ", ".join(sorted({each["level"] for each in compared}))
    which = "*:" if any(_told(each) for each in compared) else "None has"
    return [
        "", f"### Who leaks more: AUC of `{found['less_attack']}` less that of another, points (95 % interval)", "",
        *table(header, rows), "",
        f"Paired: the same members, others and seeds; intervals are over {units}. {which} p below {ALPHA}, adjusted "
        "for the number of differences in this report.",
    ]  # fmt: skip


def _told(entry: Facts) -> bool:
    return entry["p_adjusted"] is not None and bool(entry["p_adjusted"] < ALPHA)


def _marked(entry: Facts) -> str:
    return interval(entry, signed=True) + (" *" if _told(entry) else "")
