"""Which method leaks more: AUCs of one cell of a privacy table less those of others, on the same images and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.statistics import ALPHA, adjusted
from ddray.report.blocks import MixedBlock, rank, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, interval, table

METRICS = ("mia_auc_delta", "mia_auc_delta_p")
_AXES = ("init", "distill_aug", "iteration")
Combine = Callable[[Sequence[Row], Iterable[Row], str, Numbers], dict[str, Any] | None]
"""Of a cell's points, rows of them, the audit, and all numbers."""


def attack_of(points: Iterable[str], audit: str, attacks: Sequence[str], numbers: Numbers) -> str:
    """The first of the attacks that has differences; the first of all where none has."""
    known = {row["attack"] for row in numbers.of("mia_auc_delta", points) if row["audit"] == audit}
    return next((attack for attack in attacks if attack in known), attacks[0])


def differences(
    members: Sequence[Row],
    here: Mapping[str, Row],
    points: Mapping[str, Row],
    audit: str,
    attack: str,
    numbers: Numbers,
    combine: Combine,
) -> dict[str, dict[str, Any]]:
    """What a cell's AUCs are compared with -> their mean difference, as ``privacy.combined``, with ``p``.

    Over several units (draws, distillations or trainings) p is Student's, of their paired differences, with what
    images add to all of them; of a single point it is that of the table. Where one model is compared with several
    there is none: what training it once more would change is not known.

    Args:
        members: The cell's points.
        here: The points of its row; other methods are compared there alone.
        points: All points of the table, with their columns.
        audit: Of the table.
        attack: That is compared.
        numbers: Hold ``METRICS``.
        combine: Makes one number of several points.

    Raises:
        MixedBlock: A point has two differences of one name.
    """
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    p_of: dict[tuple[str, str], float | None] = {}
    for row in numbers.of("mia_auc_delta_p", [member["point"] for member in members]):
        if row["audit"] == audit and row["attack"] == attack:
            p_of[row["point"], row["param"]["against_point"]] = row["value"]
    for row in numbers.of("mia_auc_delta", [member["point"] for member in members]):
        against, key = row["param"]["against"], row["param"]["against_point"]
        other = (here if "method" in against else points).get(key)
        if other is None or row["audit"] != audit or row["attack"] != attack:
            continue
        name = _name(against, other)
        if row["point"] in found[name]:
            raise MixedBlock(
                f"privacy, audit {audit}: two differences of point {row['point'][:12]} from {name}; expected one. Give "
                "the settings in which they differ an axis, or take one out of the sweep."
            )
        found[name][row["point"]] = row
    result = {}
    for name, by_point in found.items():
        difference = combine(members, by_point.values(), audit, numbers)
        if difference is None:
            continue
        compared = {row["param"]["against_point"] for row in by_point.values()}
        if len(by_point) == 1:
            p = next(p_of.get((point, key)) for point in by_point for key in compared)
        else:
            p = _p(difference) if len(compared) == len(by_point) else None
        result[name] = {**difference, "p": p}
    return result


def _name(against: Mapping[str, str | int], other: Row) -> str:
    """The other's column, or in what else it differs: ``init noise``, ``iteration 0``."""
    if "method" in against:
        return str(other["column"])
    return ", ".join(f"{axis} {value}" for axis, value in against.items())


def _p(difference: Mapping[str, Any]) -> float | None:
    """Two-sided, of Student's paired test over units, with what they have in common: the larger of both."""
    from scipy.special import stdtr

    value, count = abs(difference["value"]), difference["count"]
    both = (difference["error"], difference["freedom"]), (difference["sd"] / math.sqrt(count), count - 1)
    if not min(error for error, _ in both) > 0:
        return None
    return max(float(2 * stdtr(min(freedom, 1e9), -value / error)) for error, freedom in both)


def adjust(tables: Iterable[Mapping[str, Any]]) -> None:
    """Give every difference of all tables its ``p_adjusted`` (Benjamini and Hochberg).

    A method without an axis stands in several rows with the same numbers: they are one test.
    """
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for index, each in enumerate(tables):
        for row in each["rows"]:
            for column, cell in row["cells"].items():
                for name, entry in cell["less"].items():
                    found[index, column, name, entry["value"], entry["p"]].append(entry)
    for same, p in zip(found.values(), adjusted([same[0]["p"] for same in found.values()]), strict=True):
        for entry in same:
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
    without = " No p where one model is compared with several." if any(each["p"] is None for each in compared) else ""
    return [
        "",
        f"### Who leaks more: AUC of `{found['less_attack']}` less that of another, points (95 % interval)",
        "",
        *table(header, rows),
        "",
        f"Paired: the same members, others and seeds; intervals are over {units}. {which} p below {ALPHA}, adjusted "
        f"for the number of differences in this report.{without}",
    ]


def _told(entry: Facts) -> bool:
    return entry["p_adjusted"] is not None and bool(entry["p_adjusted"] < ALPHA)


def _marked(entry: Facts) -> str:
    return interval(entry, signed=True) + (" *" if _told(entry) else "")
