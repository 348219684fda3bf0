"""What people call stages and points (labels, names of MLflow runs, hashes) -> those of sweeps that were run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ddray.errors import DdrayError, RequestError
from ddray.plan.axes import run_name
from ddray.plan.graph import Chain, Stage
from ddray.plan.keys import short
from ddray.prepare import prepare
from ddray.results import find_sweep
from ddray.settings import Folders
from trainables.data.cache import build

LISTED = 20
"""Matches that are listed when a name is ambiguous."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a sweep that was run here."""

    sweep: str
    chain: Chain

    @property
    def name(self) -> str:
        """As MLflow calls its run."""
        return run_name(self.chain.point)

    @property
    def hash(self) -> str:
        return self.chain.point.hash


Named = Stage | Point
Rule = Callable[[str], bool]


def find(folders: Folders, name: str) -> Named:
    """The stage or point of a name: a whole label or run name, else one that begins so, else one with all of its words.

    Raises:
        RequestError: There is none, or there are several; they are listed.
    """
    points = _points(folders)
    words = set(name.split())
    rules: tuple[Rule, ...] = (
        lambda text: text == name,
        lambda text: text.startswith(name),
        lambda text: words <= set(text.split()),
    )
    for rule in rules:
        found: dict[str, Named] = {}
        for point in points:
            if rule(point.name) or rule(point.hash):
                found.setdefault(point.hash, point)
            found |= {stage.key: stage for stage in point.chain.all_stages if rule(stage.label) or rule(stage.key)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            lines = [f"  {short(key)}  {_described(each)}" for key, each in list(found.items())[:LISTED]]
            more = [f"  and {len(found) - LISTED} more"] if len(found) > LISTED else []
            raise RequestError("\n".join([f"{name}: {len(found)} match; take the beginning of one:", *lines, *more]))
    raise RequestError(
        f"{name}: no finished or failed stage has a key that begins so, and no stage or point of a sweep that was run "
        f"with home {folders.home} is called so. `ddray plan SWEEP --points` lists points."
    )


def _points(folders: Folders) -> list[Point]:
    """The points of all sweeps that were run here and whose files can still be read."""
    points = []
    for sweep in sorted(entry.name for entry in folders.results.iterdir()) if folders.results.is_dir() else []:
        try:
            plan = prepare(find_sweep(folders, sweep), folders, build).plan
        except (DdrayError, OSError):  # its file is gone or was changed: keys still find what it left
            continue
        points += [Point(sweep, chain) for chain in plan.chains]
    return points


def _described(named: Named) -> str:
    return f"{named.name} (sweep {named.sweep})" if isinstance(named, Point) else named.label
