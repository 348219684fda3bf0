"""Which method leaks more: AUCs of one cell of a privacy table less those of others, on the same images and seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.statistics import adjusted
from ddray.report.comparable import MixedBlock
from ddray.report.repeats import combined, in_common

METRICS = ("mia_auc_delta", "mia_auc_delta_p")


def differences(
    members: Sequence[Row],
    here: Mapping[str, Row],
    points: Mapping[str, Row],
    audit: str,
    attack: str,
    numbers: Numbers,
) -> dict[str, dict[str, Any]]:
    """What a cell's AUCs are compared with -> their mean difference, as of ``repeats.combined``, with ``p``.

    Over several units (draws, distillations or trainings) p is Student's, of their paired differences, with what
    images add to all of them; of a single point it is that of the table. Where one model is compared with several
    there is none: what training it once more would change is not known.

    Args:
        members: The cell's points.
        here: The points of its row; other methods are compared there alone.
        points: All points of the table, with their variants.
        audit: Of the table.
        attack: That is compared.
        numbers: Hold ``METRICS``.

    Raises:
        MixedBlock: A point has two differences of one name.
    """
    keys = [member["point"] for member in members]
    by_name: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in numbers.of("mia_auc_delta", keys):
        against = row["param"]["against"]
        other = (here if "method" in against else points).get(row["param"]["against_point"])
        if other is None or row["audit"] != audit or row["attack"] != attack:
            continue
        name = _name(against, other)
        if row["point"] in by_name[name]:
            raise MixedBlock(
                f"privacy, audit {audit}: two differences of point {row['point'][:12]} from {name}; expected one. Give "
                "the settings in which they differ an axis, or take one out of the sweep."
            )
        by_name[name][row["point"]] = row
    p_values = {
        (row["point"], row["param"]["against_point"]): row["value"]
        for row in numbers.of("mia_auc_delta_p", keys)
        if row["audit"] == audit and row["attack"] == attack
    }
    # Trainings and distillations of one draw are tested on the same images.
    common = {**in_common(members, audit, numbers), "trainings": 1.0, "distillations": 1.0}
    result = {}
    for name, by_point in by_name.items():
        difference = combined(members, by_point.values(), -1.0, common)
        if difference is not None:
            result[name] = {**difference, "p": _p(difference, by_point, p_values)}
    return result


def _name(against: Mapping[str, str | int], other: Row) -> str:
    """The other's variant, or in what else it differs: ``init noise``, ``iteration 0``."""
    if "method" in against:
        return str(other["variant"])
    return ", ".join(f"{axis} {value}" for axis, value in against.items())


def _p(
    difference: Mapping[str, Any], by_point: Mapping[str, Row], p_values: Mapping[tuple[str, str], float | None]
) -> float | None:
    pairs = [(point, row["param"]["against_point"]) for point, row in by_point.items()]
    if difference["error"] is None:  # of a single point, or of one set
        return p_values.get(pairs[0])
    if len({other for _, other in pairs}) < len(pairs):
        return None
    return _students(difference)


def _students(difference: Mapping[str, Any]) -> float | None:
    """Two-sided, of Student's paired test over units, with what they have in common: the larger of both."""
    from scipy.special import stdtr

    value, count = abs(difference["value"]), difference["count"]
    both = (difference["error"], difference["freedom"]), (difference["sd"] / math.sqrt(count), count - 1)
    if not min(error for error, _ in both) > 0:
        return None
    return max(float(2 * stdtr(min(freedom, 1e9), -value / error)) for error, freedom in both)


def adjust(tables: Iterable[Mapping[str, Any]]) -> int:
    """Give every difference of all tables its ``p_adjusted`` (Benjamini and Hochberg) over all attacks and comparisons.

    What is the same comparison is one test: a method without an axis stands in several rows with the same numbers, and
    a set that starts from real images is compared with the same model as ``random`` and as its own start.

    Returns:
        How many tests there are.
    """
    tests: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for index, table in enumerate(tables):
        for row in table["rows"]:
            for variant, cell in row["cells"].items():
                for attack, found in cell["by_attack"].items():
                    for entry in found["less"].values():
                        tests[index, variant, attack, entry["value"], entry["p"]].append(entry)
    p_values = [same[0]["p"] for same in tests.values()]
    for same, p in zip(tests.values(), adjusted(p_values), strict=True):
        for entry in same:
            entry["p_adjusted"] = p
    return sum(p is not None for p in p_values)
