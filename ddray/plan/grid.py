"""Sweep -> grid points: product, exclusions, unused axes, merging of equal points; and filters on points.

What the file may say stands in ``schema.py``; what a point needs computed, in ``pipeline.py``.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from ddray.errors import RequestError, show, suggest
from ddray.plan.feasible import ClassSize, NetworkProblem, facts_of, impossible, known_class_size, network_problem
from ddray.plan.points import Grid, GridPoint, Sweep
from ddray.plan.schema import AXES, EVALUATIONS, at_ipc
from trainables.configs import PrivacySettings
from trainables.methods import METHODS
from trainables.protocols import PROTOCOLS

MAX_COMBINATIONS = 1_000_000
"""Of one sweep, before exclusions. What is beyond was not meant."""

COMMON = frozenset({"method", "dataset", "architecture", "seed", "origin_per_class", "num_classes", "train_aug"})
"""Axes of every point; ``Method.uses`` adds to them. Draws are used where there is something to draw."""
DEFAULTS: dict[str, Any] = {
    "architecture": "convnet3",
    "seed": 0,
    "distill_seed": 0,
    "origin_draw": 0,
    "class_draw": 0,
    "distill_aug": "dsa",
}
"""Values of axes that are left out. ``init`` is the method's own; the rest is null."""


def expand(
    sweep: Sweep, *, class_size: ClassSize | None = None, network_problem: NetworkProblem = network_problem
) -> list[GridPoint]:
    """All points of a sweep, each once, in the order in which the files name them (the last axis varies fastest).

    Args:
        sweep: The validated sweep.
        class_size: How many training images the smallest class of a data set holds. Default: of the known ones.
        network_problem: Which image sizes a network takes.

    Raises:
        RequestError: With every combination that cannot be.
    """
    points, problems = _expand(sweep, class_size or known_class_size(sweep), network_problem)
    if problems:
        raise RequestError(problems)
    return points


def infeasible(sweep: Sweep) -> list[str]:
    """What ``expand`` would complain of, judged by the sizes of the known data sets."""
    return _expand(sweep, known_class_size(sweep), network_problem)[1]


def _expand(sweep: Sweep, class_size: ClassSize, network_problem: NetworkProblem) -> tuple[list[GridPoint], list[str]]:
    problems: list[str] = []
    grids: dict[tuple[Any, ...], tuple[Grid, ...]] = {}
    """Values of the axes and the rest of the identity -> the grids that ask for the point."""
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
    problems += impossible(sweep, points, class_size, network_problem)
    return points, list(dict.fromkeys(problems))


# --- one grid -----------------------------------------------------------------------------------------------------


def _identities(sweep: Sweep, grid: Grid, problems: list[str]) -> Iterable[tuple[Any, ...]]:
    """Each point of one grid once: the axes' values, then method settings, protocol and train as canonical JSON.

    What says the same has one form, or two points would be one network, counted twice in every mean: all classes of the
    data set and the protocol's own augmentation are null.
    """
    methods = grid.axes.get("method", ())
    ready = _complete(grid, methods, problems)
    if not methods or not grid.axes.get("dataset"):
        return ()
    keep = _exclusions(grid, problems)
    train = _canonical(_differences(grid, problems))
    settings: dict[tuple[str, int | None], str] = {}
    """By method and ipc, on which settings may depend."""
    nulled = {method: _nulled(method) for method in methods}
    classes = {name: facts_of(sweep, name).num_classes for name in grid.axes["dataset"]}
    found: dict[tuple[Any, ...], None] = {}
    recipes_own = PROTOCOLS[grid.protocol].recipe.augmentation
    left = 0
    for values in _product(grid):
        if keep is not None and not keep(values):
            continue
        left += 1
        method = values[_METHOD]
        if method not in ready:
            continue
        row = list(values)
        for place in nulled[method]:
            row[place] = None
        if row[_ORIGIN] is None:
            row[_ORIGIN_DRAW] = None
        if row[_CLASSES] == classes[values[_DATASET]]:
            row[_CLASSES] = None
        if row[_CLASSES] is None or row[_CLASSES] > classes[values[_DATASET]]:
            row[_CLASS_DRAW] = None
        if row[_TRAIN_AUG] == recipes_own:
            row[_TRAIN_AUG] = None
        at = method, row[_IPC]
        if at not in settings:
            settings[at] = _canonical(at_ipc(grid.settings.get(method, {}), row[_IPC]))
        found[(*row, settings[at], grid.protocol, train)] = None
    if not left and not grid.doubtful:
        problems.append(grid.say("exclude", "zero points; every combination is excluded. Leave some of them."))
    return found


_METHOD, _DATASET, _IPC, _INIT = (AXES.index(axis) for axis in ("method", "dataset", "ipc", "init"))
_ORIGIN, _ORIGIN_DRAW = AXES.index("origin_per_class"), AXES.index("origin_draw")
_CLASSES, _CLASS_DRAW = AXES.index("num_classes"), AXES.index("class_draw")
_TRAIN_AUG = AXES.index("train_aug")


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


def _nulled(method: str) -> tuple[int, ...]:
    used = COMMON | METHODS[method].uses | {"origin_draw", "class_draw"}
    return tuple(place for place, axis in enumerate(AXES) if axis not in used)


def _product(grid: Grid) -> Iterable[tuple[Any, ...]]:
    """Every combination as a tuple in the order of ``AXES``, defaults filled in."""
    named = list(grid.axes)
    left_out = [axis for axis in AXES if axis not in grid.axes]
    names = [*named, *left_out]
    lists = [*grid.axes.values(), *((DEFAULTS.get(axis),) for axis in left_out)]
    ordered = map(itemgetter(*(names.index(axis) for axis in AXES)), itertools.product(*lists))
    if "init" in grid.axes:
        return ordered
    starts = {method: METHODS[method].init for method in grid.axes["method"]}
    return ((*row[:_INIT], starts[row[_METHOD]], *row[_INIT + 1 :]) for row in ordered)


def _exclusions(grid: Grid, problems: list[str]) -> Callable[[tuple[Any, ...]], bool] | None:
    """Whether a combination stays; None when all of them do. Entries that match nothing are problems."""
    rules: list[dict[int, frozenset[Any]]] = []
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
            rules.append({AXES.index(axis): frozenset(values) for axis, values in entry.items()})
    if not rules:
        return None
    # Many short entries that name the same axes are one look-up; long ones are tried one after another.
    short: dict[tuple[int, ...], set[tuple[Any, ...]]] = {}
    long: list[dict[int, frozenset[Any]]] = []
    for rule in rules:
        if math.prod(map(len, rule.values())) <= 64:
            short.setdefault(tuple(rule), set()).update(itertools.product(*rule.values()))
        else:
            long.append(rule)

    def keep(row: tuple[Any, ...]) -> bool:
        if any(tuple(row[place] for place in places) in values for places, values in short.items()):
            return False
        return not any(all(row[place] in values for place, values in rule.items()) for rule in long)

    return keep


def _present(grid: Grid, axis: str) -> tuple[Any, ...]:
    """The values that an axis takes in the product."""
    if axis in grid.axes:
        return grid.axes[axis]
    if axis == "init":
        return tuple(dict.fromkeys(METHODS[method].init for method in grid.axes["method"]))
    return (DEFAULTS.get(axis),)


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


def _points(grids: Mapping[tuple[Any, ...], tuple[Grid, ...]], problems: list[str]) -> list[GridPoint]:
    """Points with what is shared by many of them made once."""
    decoded: dict[str, Any] = {}
    united: dict[tuple[str, ...], tuple[tuple[str, ...], Mapping[str, Mapping[str, Any]]]] = {}
    points = []
    make: Callable[..., GridPoint] = GridPoint
    for identity, holders in grids.items():
        *values, settings, protocol, train = identity
        for text in (settings, train):
            if text not in decoded:
                decoded[text] = json.loads(text)
        names = tuple(grid.name for grid in holders)
        if names not in united:
            united[names] = (names, _unite(holders, problems))
        names, evaluations = united[names]
        points.append(make(*values, decoded[settings], protocol, decoded[train], evaluations, names, holders[0]))
    return points


def _unite(grids: Sequence[Grid], problems: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """The evaluations that any of the grids asks for; lists of attacks and audits unite, other values must agree."""
    together: dict[str, Mapping[str, Any]] = {}
    origin: dict[str, Grid] = {}
    for grid in grids:
        for kind, asked in grid.evaluations.items():
            if kind not in together or together[kind] == asked:
                together.setdefault(kind, asked)
                origin.setdefault(kind, grid)
                continue
            first, second = _with_defaults(kind, together[kind]), _with_defaults(kind, asked)
            merged: dict[str, Any] = {}
            for name in first:
                if name not in together[kind] and name not in asked:
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
            together[kind] = merged
    return together


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
    """Whether a setting has a meaning beside the audits that are asked for; it cannot disagree where it has none."""
    return name not in _OF_AUDITS or not _OF_AUDITS[name].isdisjoint(settings["audit"])


def _with_defaults(kind: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, and what has several names (a tier's rows, budgets in another order) in one form."""
    complete = EVALUATIONS[kind].model_validate_json(json.dumps(dict(asked)))
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
    found: dict[str, set[str]] = {}
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
            found.setdefault(axis, set()).update(values)
    return found


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
