"""What ``--set`` takes apart: points that several grids share, and that are several points once one grid is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from ddray.plan.axes import AXES
from ddray.plan.points import GridPoint

Groups = tuple[tuple[str, ...], ...]
"""Names of grids: those that still ask for one point together, group by group."""


def split_notes(
    before: Sequence[GridPoint], after: Sequence[GridPoint], sets: Sequence[str], selected: Collection[str]
) -> list[str]:
    """One sentence for all grids that shared points and do so no more.

    Args:
        before: All points of the sweep as its file says.
        after: The same with ``--set``.
        sets: What was set, ``PATH=VALUE`` each.
        selected: Hashes of those points of ``after`` that are to be run; splits of others are not told.
    """
    now: dict[tuple[object, ...], dict[str, str]] = {}
    for point in after:
        now.setdefault(_axes(point), {}).update(dict.fromkeys(point.grids, point.hash))
    splits: Counter[Groups] = Counter()
    for point in before:
        if len(point.grids) > 1:
            groups: dict[str, list[str]] = {}
            for grid, hash in now.get(_axes(point), {}).items():
                if grid in point.grids:
                    groups.setdefault(hash, []).append(grid)
            if len(groups) > 1 and not groups.keys().isdisjoint(selected):
                splits[tuple(tuple(names) for names in groups.values())] += 1
    changed = " ".join(f"--set {each}" for each in sets)
    return [
        f"{changed}: grids {' and '.join(', '.join(names) for names in groups)} no longer share "
        f"{count} point{'s'[: count > 1]}: only what was set tells them apart, and each grid's are computed by "
        f"themselves ({len(before)} points of the sweep became {len(after)}). Set it for all of these grids to keep "
        "them together."
        for groups, count in splits.items()
    ]


def _axes(point: GridPoint) -> tuple[object, ...]:
    return tuple(getattr(point, axis) for axis in AXES)
