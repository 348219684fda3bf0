"""Sweep -> grid points: product, exclusions, unused axes, merging of equal points; and filters on points.

What the file may say stands in ``schema.py``, what is known of an axis in ``axes.py``.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ddray.errors import RequestError, show, suggest
from ddray.plan.annotations import at_ipc
from ddray.plan.axes import AXES
from ddray.plan.feasible import ClassSize, constants_of, impossible, known_class_size
from ddray.plan.points import FrozenValues, Grid, GridPoint, Sweep
from ddray.plan.schema import EVALUATIONS
from trainables.configs import PrivacySettings
from trainables.methods import METHODS
from trainables.protocols import PROTOCOLS

MAX_COMBINATIONS = 1_000_000
"""Of one sweep, before exclusions. What is beyond was not meant."""

DRAWS = {name: axis.draws_from for name, axis in AXES.items() if axis.draws_from is not None}
"""Axis that numbers draws -> the axis that says how many are drawn."""


class Identity(NamedTuple):
    """What tells a point from others."""

    values: tuple[Any, ...]
    """Of the axes, in the order of ``AXES``."""
    settings: str
    """Of the method, as canonical JSON: mappings do not hash."""
    protocol: str
    train: str
    """Canonical JSON."""


def expand(sweep: Sweep, class_size: ClassSize | None = None) -> tuple[list[GridPoint], list[str]]:
    """All points of a sweep, each once, in the order in which the files name them (the last axis varies fastest).

    Args:
        sweep: As far as it could be read.
        class_size: How many training images the smallest class of a data set holds. Default: of the known ones.

    Returns:
        The points, and what is wrong with them: the sweep can be run if that is nothing.
    """
    problems: list[str] = []
    grids: dict[Identity, tuple[Grid, ...]] = {}
    """A point -> the grids that ask for it."""
    combinations = 0
    for grid in sweep.grids:
        combinations += math.prod(map(len, grid.axes.values()))
        if combinations > MAX_COMBINATIONS:
            what = f"too many combinations; got {combinations:,} up to here; expected at most {MAX_COMBINATIONS:,}."
            problems.append(grid.say("axes", f"{what} Split the sweep."))
            break
        for identity in _identities(sweep, grid, problems):
            grids[identity] = (*grids.get(identity, ()), grid)
    points = _points(grids, problems)
    problems += impossible(sweep, points, class_size or known_class_size(sweep))
    return points, list(dict.fromkeys(problems))


# --- one grid -----------------------------------------------------------------------------------------------------


def _identities(sweep: Sweep, grid: Grid, problems: list[str]) -> dict[Identity, None]:
    """Each point of one grid once. What says the same has one form: unused axes and values that null means are null."""
    methods = grid.axes.get("method", ())
    ready = _complete(grid, methods, problems)
    if not methods or not grid.axes.get("dataset"):
        return {}
    is_excluded = _exclusions(grid, problems)
    recipe = PROTOCOLS[grid.protocol].recipe
    train = _canonical(_differences(grid, problems))
    unused = {
        method: {name: None for name, axis in AXES.items() if not axis.used_by(name, METHODS[method])}
        for method in methods
    }
    null_means = {
        dataset: {
            name: axis.null_means(constants_of(sweep, dataset), recipe)
            for name, axis in AXES.items()
            if axis.null_means is not None
        }
        for dataset in grid.axes["dataset"]
    }

    @functools.cache
    def settings(method: str, ipc: int | None) -> str:
        return _canonical(at_ipc(grid.settings.get(method, {}), ipc))

    in_order = itemgetter(*AXES)
    identities: dict[Identity, None] = {}
    nothing_left = True
    for row in _combinations(grid):
        if is_excluded(row):
            continue
        nothing_left = False
        method = row["method"]
        if method not in ready:
            continue
        row |= unused[method]
        for axis, value in null_means[row["dataset"]].items():
            if row[axis] == value:
                row[axis] = None
        for draw, drawn in DRAWS.items():
            if row[drawn] is None:
                row[draw] = None
        identities[Identity(in_order(row), settings(method, row["ipc"]), grid.protocol, train)] = None
    if nothing_left and not grid.doubtful:
        problems.append(grid.say("exclude", "zero points; every combination is excluded. Leave some of them."))
    return identities


def _complete(grid: Grid, methods: Sequence[str], problems: list[str]) -> set[str]:
    """The methods that have what they need."""
    for axis in ("method", "dataset"):
        if axis not in grid.axes and axis not in grid.doubtful:
            problems.append(grid.say("axes", f"missing key '{axis}'; got no values; expected at least one."))
    without = [method for method in methods if "ipc" in METHODS[method].uses and "ipc" not in grid.axes]
    if without and "ipc" not in grid.doubtful:
        names = ", ".join(without)
        problems.append(
            grid.say(
                "axes", f"missing key 'ipc'; got method {names}; expected images per class. Add axes.ipc, as [10]."
            )
        )
    return set(methods) - set(without)


def _combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    """Every combination as axis -> value, the values of axes that the grid does not name filled in."""
    left_out = {
        method: {name: axis.left_out(METHODS[method]) for name, axis in AXES.items() if name not in grid.axes}
        for method in grid.axes["method"]
    }
    for values in itertools.product(*grid.axes.values()):
        row = dict(zip(grid.axes, values, strict=True))
        yield row | left_out[row["method"]]


def _exclusions(grid: Grid, problems: list[str]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a combination is excluded. Entries that match nothing are problems."""
    entries: list[Mapping[str, tuple[Any, ...]]] = []
    for number, entry in enumerate(grid.exclude):
        if not entry:
            problems.append(grid.say(f"exclude.{number}", "an empty entry; it would exclude everything. Name an axis."))
            continue
        matches = True
        for axis, values in entry.items():
            present = dict.fromkeys(_present(grid, axis))
            strange = [value for value in values if value not in present]
            matches = matches and len(strange) < len(values)
            if strange and not grid.exclude_inherited and axis not in grid.doubtful:
                shown = ", ".join(map(show, present)) or "nothing"
                problems.append(
                    grid.say(
                        f"exclude.{number}.{axis}",
                        f"matches nothing; got {', '.join(map(show, strange))}; expected values of the axis: {shown}.",
                    )
                )
        if matches:
            entries.append(entry)
    # Many short entries that name the same axes are one look-up; long ones are tried one after another.
    short: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}
    long: list[dict[str, frozenset[Any]]] = []
    for entry in entries:
        if math.prod(map(len, entry.values())) <= 64:
            short.setdefault(tuple(entry), set()).update(itertools.product(*entry.values()))
        else:
            long.append({axis: frozenset(values) for axis, values in entry.items()})

    def is_excluded(row: Mapping[str, Any]) -> bool:
        if any(tuple(map(row.__getitem__, axes)) in values for axes, values in short.items()):
            return True
        return any(all(row[axis] in values for axis, values in entry.items()) for entry in long)

    return is_excluded


def _present(grid: Grid, axis: str) -> tuple[Any, ...]:
    """The values that an axis takes in the product."""
    if axis in grid.axes:
        return grid.axes[axis]
    return tuple(dict.fromkeys(AXES[axis].left_out(METHODS[method]) for method in grid.axes["method"]))


def _differences(grid: Grid, problems: list[str]) -> dict[str, Any]:
    """What ``train`` changes in the protocol's recipe: a value equal to the recipe's own is no change."""
    if "augmentation" in grid.train and "train_aug" in grid.axes:
        problems.append(
            grid.say(
                "train.augmentation",
                f"set twice; got axes.train_aug at {grid.where('axes.train_aug')}; expected one of them. Drop one.",
            )
        )
    recipe = PROTOCOLS[grid.protocol].recipe.model_dump(mode="json")
    return {name: value for name, value in grid.train.items() if value != recipe[name]}


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


# --- all grids ----------------------------------------------------------------------------------------------------


def _points(grids: Mapping[Identity, tuple[Grid, ...]], problems: list[str]) -> list[GridPoint]:
    """The points; what many of them hold is one object."""
    decode = functools.cache(lambda text: FrozenValues(json.loads(text)))
    united: dict[tuple[str, ...], tuple[tuple[str, ...], Mapping[str, Mapping[str, Any]]]] = {}
    points = []
    for (values, settings, protocol, train), asking in grids.items():
        names = tuple(grid.name for grid in asking)
        if names not in united:
            united[names] = (names, _unite(asking, problems))
        names, evaluations = united[names]
        points.append(
            GridPoint(
                **dict(zip(AXES, values, strict=True)),
                settings=decode(settings),
                protocol=protocol,
                train=decode(train),
                evaluations=evaluations,
                grids=names,
                grid=asking[0],
            )
        )
    return points


def _unite(grids: Sequence[Grid], problems: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """The evaluations that any of the grids asks for; lists of attacks and audits unite, other values must agree."""
    united: dict[str, Mapping[str, Any]] = {}
    origin: dict[str, Grid] = {}
    for grid in grids:
        for kind, given in grid.evaluations.items():
            if kind not in united or united[kind] == given:
                united.setdefault(kind, given)
                origin.setdefault(kind, grid)
                continue
            first, second = _with_defaults(kind, united[kind]), _with_defaults(kind, given)
            merged: dict[str, Any] = {}
            for name in first:
                if name not in united[kind] and name not in given:
                    continue
                merged[name] = first[name]
                if name in _UNITING:
                    merged[name] = list(dict.fromkeys((*first[name], *second[name])))
                elif not _matters(name, first) and _matters(name, second):
                    merged[name] = second[name]
                elif first[name] != second[name] and _matters(name, second):
                    other = origin[kind]
                    problems.append(
                        grid.say(
                            f"evaluations.{kind}.{name}",
                            f"grids {show(other.name)} and {show(grid.name)} share points and differ; got "
                            f"{_canonical(second[name])} here and {_canonical(first[name])} at "
                            f"{other.where(f'evaluations.{kind}.{name}')}; expected the same. Change one of them.",
                        )
                    )
            united[kind] = merged
    return {kind: FrozenValues(given) for kind, given in united.items()}


_UNITING = frozenset({"attacks", "audit"})
"""Settings of evaluations that say what else is measured, not how."""
_OF_AUDITS = {
    "rows": {"pool"},
    "targets": {"pool"},
    "canaries": {"pool"},
    "population": {"pool", "one_run"},
    "reserve": {"pool", "one_run"},
    "shadows": {"seed"},
}
"""Settings of privacy that matter to some audits only."""


def _matters(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting has a meaning beside the audits of the same settings; it cannot disagree where it has none."""
    return name not in _OF_AUDITS or not _OF_AUDITS[name].isdisjoint(settings["audit"])


def _with_defaults(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, and what has several names (a tier's rows, budgets in another order) in one form."""
    complete = EVALUATIONS[kind].model_validate_json(json.dumps(dict(given)))
    values = complete.model_dump(mode="json")
    if isinstance(complete, PrivacySettings):
        values["rows"] = complete.num_rows
    for name, value in values.items():
        if isinstance(value, list) and name not in _UNITING:
            values[name] = sorted(value)
    return values


# --- filters ------------------------------------------------------------------------------------------------------


def select(
    points: Sequence[GridPoint], only: Sequence[str] = (), skip: Sequence[str] = (), limit: int | None = None
) -> list[GridPoint]:
    """The points that are to be run. What the sweep covers stays as it is.

    Args:
        points: All points of the sweep.
        only: ``axis=a,b`` each: keeps points with one of the values; of several axes all must hold. ``null`` is the
            value of an axis that the method does not use.
        skip: The same form: drops points for which any of them holds.
        limit: How many points to keep, the first ones; None keeps all.

    Raises:
        RequestError: An unknown axis, a value that no point has, or nothing left.
    """
    problems: list[str] = []
    wanted = _filters(points, "--only", only, problems)
    unwanted = _filters(points, "--skip", skip, problems)
    if limit is not None and limit < 1:
        problems.append(f"--limit: out of range; got {limit}; expected an integer >= 1.")
    if problems:
        raise RequestError(problems)
    chosen = [
        point
        for point in points
        if all(_text(getattr(point, axis)) in values for axis, values in wanted.items())
        and not any(_text(getattr(point, axis)) in values for axis, values in unwanted.items())
    ]
    if not chosen:
        raise RequestError(
            f"--only, --skip: no point is left of {len(points)}; every value occurs, but not together. Drop a filter."
        )
    return chosen[:limit]


def _filters(
    points: Sequence[GridPoint], option: str, filters: Sequence[str], problems: list[str]
) -> dict[str, set[str]]:
    """Axis -> values; filters on one axis unite."""
    accepted: dict[str, set[str]] = {}
    for text in filters:
        axis, equals, listed = text.partition("=")
        values = [value.strip() for value in listed.split(",")]
        axis = axis.strip()
        if not equals or not all(values):
            problems.append(f"{option}: not axis=value,value; got {show(text)}; expected for example method=dm,random.")
        elif axis not in AXES:
            known = ", ".join(AXES)
            problems.append(f"{option}: unknown axis {show(axis)}; known: {known}. {suggest(axis, AXES)}".rstrip())
        else:
            present = sorted({getattr(point, axis) for point in points}, key=lambda value: (value is None, value))
            texts = list(map(_text, present))
            for value in values:
                if value not in texts:
                    hint = suggest(value, texts)
                    problems.append(
                        f"{option}: {axis}: matches no point; got {show(value)}; "
                        f"present: {', '.join(texts)}. {hint}".rstrip()
                    )
            accepted.setdefault(axis, set()).update(values)
    return accepted


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
