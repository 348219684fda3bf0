"""Published settings by (method, data set, images per class), each value with its source. No torch.

What a sweep does not set comes from the table in ``published.py``, then from the settings model's own defaults. A
combination without a published value takes the nearest one and says so. ``departures`` says where settings are not what
a source states for a combination.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from trainables.configs import PRESET, MethodSettings, canonical_json
from trainables.methods import METHODS
from trainables.published import CONSTANTS, PRESETS, PROGRAMS, Constants, Preset

__all__ = ["PRESETS", "Chosen", "Departure", "Preset", "candidates", "choose", "departures"]

STAND_IN = "cifar10"
"""Whose values serve data sets without any."""


@dataclass(frozen=True)
class Chosen:
    """The value taken for one setting and why."""

    setting: str
    value: Any
    source: str
    """As people read it: where it is published; which combination it was borrowed from; or that it is ours, and why."""
    kind: Literal["published", "nearest", "ours"]
    note: str = ""
    """What else to know of the row it is from."""
    agrees: tuple[str, ...] = ()
    """Who states it for this very combination: names of ``published.SAID_BY``."""

    @property
    def exact(self) -> bool:
        """Whether the value is published for this very combination."""
        return self.kind == "published"


def choose(method: str, dataset: str, ipc: int | None, settings: Mapping[str, Any] | None = None) -> tuple[Chosen, ...]:
    """The preset of every setting that has one.

    Settings that were published together come from one row. Of the rows that give them, the nearest is taken: one that
    names the data set before one for any, before CIFAR-10's, before the others; then the ipc with the smallest ratio,
    the smaller one at a tie; then the one with more conditions. Rows of an alternative count where the sweep names it,
    and then before all others.

    Args:
        dataset: A known data set's name (``like`` for declared folders).
        settings: What the sweep sets, and under ``preset`` the alternative it names. Some rows count only together
            with certain values of other settings; what is not set has the model's default there.

    Raises:
        ValueError: The alternative has no row for the data set.
    """
    given = settings or {}
    declared = METHODS.get(method)
    fields = declared.settings.model_fields if declared is not None else {}
    known = {
        name: given[name] if name in given else fields[name].get_default()
        for name in _conditions(method, len(PRESETS))
        if name in given or name in fields
    }
    return _choose(method, dataset, ipc, given.get(PRESET), canonical_json(known), len(PRESETS))


def alternatives(method: str) -> tuple[str, ...]:
    """Names of the method's presets that count only where a sweep names them."""
    return tuple(dict.fromkeys(row.name for row in PRESETS if row.method == method and row.name is not None))


def constants(method: str, dataset: str) -> Constants | None:
    """The constants of the method's program for a data set; None: the data set's own.

    Args:
        dataset: A known data set's name (``like`` for declared folders).
    """
    return CONSTANTS.get((method, dataset))


class Departure(NamedTuple):
    """A setting whose value a source does not state for a combination."""

    setting: str
    value: Any
    instead: Chosen | None
    """What was looked up: the value that is stated, or the one that was borrowed because none is. None: the setting has
    no preset."""

    @property
    def borrowed(self) -> bool:
        """Whether the value is what presets give where the source states none."""
        return self.instead is not None and canonical_json(self.value) == canonical_json(self.instead.value)


def departures(
    method: str, dataset: str, ipc: int | None, settings: Mapping[str, Any], source: str
) -> tuple[Departure, ...]:
    """Settings that are not what a source states, wherever they are from.

    The budget is left out: a shorter path has a column of its own, ``budget_fraction``.

    Args:
        method: A method's name.
        dataset: A known data set's name.
        settings: All settings that are in force, as JSON types.
        source: A name of ``published.SAID_BY``.
    """
    declared = METHODS[method].settings
    stated = {entry.setting: entry for entry in choose(method, dataset, ipc, settings)}
    found = []
    for name, value in settings.items():
        entry = stated.get(name)
        if name == declared.budget or name not in declared.model_fields:
            continue
        usual = entry.value if entry is not None else declared.model_fields[name].get_default()
        same = canonical_json(value) == canonical_json(usual)
        if not same or (entry is not None and source not in entry.agrees):
            found.append(Departure(name, value, entry))
    return tuple(found)


def completed(method: str, dataset: str, ipc: int | None, settings: Mapping[str, Any]) -> MethodSettings:
    """A method's settings as they will be: what is given, then presets, then the model's defaults.

    Args:
        dataset: A known data set's name (``like`` for declared folders).
        settings: What the sweep sets.

    Raises:
        ValidationError: They do not fit together.
        ValueError: As ``choose``.
    """
    values = {entry.setting: entry.value for entry in choose(method, dataset, ipc, settings)} | dict(settings)
    values.pop(PRESET, None)
    return METHODS[method].settings.model_validate(values)


def candidates(method: str, dataset: str, known: Mapping[str, Any], name: str | None = None) -> list[list[Preset]]:
    """For each set of settings that belong together, the rows from which one is chosen.

    Args:
        dataset: A known data set's name.
        known: Values of the settings that rows have conditions on, as JSON types.
        name: Of an alternative, whose rows count before the others.

    Raises:
        ValueError: It has no row for the data set.
    """
    together: dict[frozenset[str], list[Preset]] = {}
    for row in PRESETS:
        if row.method == method and all(known.get(setting, value) == value for setting, value in row.when):
            together.setdefault(frozenset(row.values), []).append(row)
    pools = []
    for every in together.values():
        alternative = [row for row in every if row.name == name and name is not None and dataset in row.datasets]
        rows = [row for row in every if row.name is None]
        named = [row for row in rows if dataset in row.datasets]
        general = [row for row in rows if not row.datasets]
        if pool := alternative or named or general or [row for row in rows if STAND_IN in row.datasets] or rows:
            pools.append(pool)
    if name is not None and not any(row.name == name for pool in pools for row in pool):
        theirs = [row for row in PRESETS if (row.method, row.name) == (method, name)]
        there = dict.fromkeys(dataset for row in theirs for dataset in row.datasets)
        raise ValueError(
            f"preset {name} has no values; got {dataset}; expected one of {', '.join(there)}. Name it where they are"
        )
    return pools


@lru_cache(maxsize=4096)
def _choose(method: str, dataset: str, ipc: int | None, name: str | None, known: str, table: int) -> tuple[Chosen, ...]:
    """``table``: its size, so that a table that grew is looked at again."""
    chosen = []
    for rows in candidates(method, dataset, json.loads(known), name):
        row, ratio, at = min(
            ((row, *_distance(row, ipc)) for row in rows), key=lambda entry: (*entry[1:], -len(entry[0].when))
        )
        kind, source = _said(row, dataset, ipc, at, hit=ratio == 1.0)
        note = row.note if kind != "ours" else ""
        agrees = row.agrees if kind == "published" else ()
        chosen += [Chosen(setting, value, source, kind, note, agrees) for setting, value in row.values.items()]
    return tuple(chosen)


def _said(
    row: Preset, dataset: str, ipc: int | None, at: int, *, hit: bool
) -> tuple[Literal["published", "nearest", "ours"], str]:
    if row.source is None:
        return "ours", f"no published value; ours: {row.note}"
    given_for = row.datasets or PROGRAMS.get(row.method, (dataset,))
    of_this = dataset in given_for
    if of_this and hit:
        return "published", row.source
    repository, _, _ = row.source.partition(" ")
    if not row.datasets and not row.ipcs and "/" in repository:  # without the file, so that many settings are one line
        return "nearest", f"nearest: {repository}, for {STAND_IN}; it does not read {dataset}, none published for it"
    whose = dataset if of_this else STAND_IN if STAND_IN in given_for else given_for[0]
    named = bool(row.datasets) or not of_this
    lent = " ".join(part for part in (whose if named else "", f"ipc {at}" if row.ipcs else "") if part)
    wanted = [dataset, *([f"ipc {ipc}"] if ipc is not None and row.ipcs else [])]
    wanted += [f"{name} {str(value).lower()}" for name, value in row.when if name != "architecture"]
    return "nearest", f"nearest: {row.source}, for {lent}; none published for {' '.join(wanted)}"


@lru_cache(maxsize=256)
def _conditions(method: str, table: int) -> tuple[str, ...]:
    """Settings that the method's rows have conditions on."""
    return tuple(dict.fromkeys(name for row in PRESETS if row.method == method for name, _ in row.when))


def _distance(row: Preset, ipc: int | None) -> tuple[float, int]:
    """(ratio to the nearest published ipc, that ipc); ratio 1 is a hit."""
    if not row.ipcs or ipc is None:
        return 1.0, min(row.ipcs, default=0)
    return min((max(ipc, other) / min(ipc, other), other) for other in row.ipcs)
