"""Which points cannot be: more images or classes than the data has, networks that cannot take the image size."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ddray.plan.audits import MOST_ROWS
from ddray.plan.points import Grid, Sweep
from ddray.plan.schema import EVALUATIONS, at_ipc
from trainables.configs import (
    Config,
    EmbeddingSettings,
    MethodSettings,
    NetworkSettings,
    PrivacySettings,
    RobustnessSettings,
)
from trainables.data.known import KNOWN, class_subset
from trainables.methods import METHODS
from trainables.networks import Variant, option_problem, parse, size_problem
from trainables.presets import completed

if TYPE_CHECKING:
    from ddray.plan.points import GridPoint

ENCODER = "convnet3"
"""The network in whose features sets are compared."""
ClassSize = Callable[[str], int | None]
"""Data set's name -> training images in its smallest class, or None where it is not known yet."""
NetworkProblem = Callable[[str, int, int], str | None]
"""(architecture's name, image size in pixels, channels) -> why it cannot be, or None."""


def network_problem(architecture: str, image_size: int, channels: int) -> str | None:
    """Why a network cannot take images, or None.

    Args:
        architecture: A network's name, with or without options.
        image_size: Height = width, pixels.
        channels: 1 or 3; all networks take both.
    """
    return size_problem(parse(architecture), image_size, channels)


def attacked_problem(images: int, classes: int) -> str | None:
    """Why so many test images cannot be attacked, or None.

    Args:
        images: That are asked for.
        classes: That take part.
    """
    if images >= classes:
        return None
    return f"fewer images than classes; got {images}; expected at least {classes}, one of each class."


def known_class_size(sweep: Sweep) -> ClassSize:
    """Class sizes of known data sets; None for declared folders, which have to be looked at."""

    def size(name: str) -> int | None:
        declared = sweep.datasets.get(name)
        if declared is None:
            return KNOWN[name].train_per_class
        return KNOWN[declared.like].train_per_class if declared.folder is None else None

    return size


@dataclass(frozen=True, slots=True)
class Facts:
    """A data set's constants."""

    num_classes: int
    image_size: int
    channels: int


def facts_of(sweep: Sweep, name: str) -> Facts:
    declared = sweep.datasets.get(name)
    known = KNOWN[declared.like if declared is not None else name]
    size = declared.resize if declared is not None else None
    return Facts(known.num_classes, size or known.image_size, known.channels)


def impossible(
    sweep: Sweep, points: Sequence[GridPoint], class_size: ClassSize, network_problem: NetworkProblem
) -> list[str]:
    """Each combination that cannot be, once per grid. Grids are few, so their names stand for them in sets."""
    grids = {grid.name: grid for grid in sweep.grids}
    facts = {name: facts_of(sweep, name) for name in dict.fromkeys(point.dataset for point in points)}
    sizes = {name: class_size(name) for name in facts}
    problems = []
    for name, dataset, architecture in dict.fromkeys((p.grid.name, p.dataset, p.architecture) for p in points):
        grid, image = grids[name], facts[dataset]
        reason = network_problem(architecture, image.image_size, image.channels)
        if reason is not None:
            problems.append(_too_small(grid, _place(grid, "architecture", architecture), reason, dataset, image))
    complete: dict[tuple[str, str, str, int | None], MethodSettings] = {}
    """Settings with presets and defaults, of the combinations that can be."""
    for at in dict.fromkeys((p.grid.name, p.dataset, p.method, p.ipc) for p in points):
        name, dataset, method, ipc = at
        grid, image = grids[name], facts[dataset]
        given = at_ipc(grid.settings.get(method, {}), ipc)
        try:
            complete[at] = completed(method, _base(sweep, dataset), ipc, given)
        except ValidationError as error:
            causes = "; ".join(str(entry.get("ctx", {}).get("error", entry["msg"])) for entry in error.errors())
            with_what = f"together with the presets of {dataset} at ipc {ipc}"
            problems.append(grid.say(f"settings.{method}", f"{causes.rstrip('.')}, {with_what} (ddray preset)."))
            continue
        matched = _matching_network(complete[at])
        if matched is None:
            continue
        wrong = option_problem(matched)
        if wrong is not None:
            problems.append(grid.say(f"settings.{method}", f"{method} cannot match on this network: {wrong}"))
            continue
        reason = network_problem(matched.name, image.image_size, image.channels)
        if reason is not None:
            named = next((name for name in ("depth", "architecture") if name in given), None)
            path = f"settings.{method}.{named}" if named else _place(grid, "method", method)
            problems.append(_too_small(grid, path, f"{method} matches on {reason}", dataset, image))
    for name, dataset, wanted in dict.fromkeys((p.grid.name, p.dataset, p.num_classes) for p in points):
        total = facts[dataset].num_classes
        if wanted is not None and wanted > total:
            grid = grids[name]
            problems.append(
                grid.say(
                    _place(grid, "num_classes", wanted),
                    f"more classes than {dataset} has; got {wanted}; expected 2 to {total}. Exclude the pair.",
                )
            )
    problems += _same_classes(grids, facts, points)
    for name, dataset, origin in dict.fromkeys((p.grid.name, p.dataset, p.origin_per_class) for p in points):
        size = sizes[dataset]
        if origin is not None and size is not None and origin > size:
            grid = grids[name]
            problems.append(
                grid.say(
                    _place(grid, "origin_per_class", origin),
                    f"more images than the smallest class of {dataset} has; got {origin}; expected at most {size}. "
                    "Exclude the pair, or use null for all of them.",
                )
            )
    drawn = dict.fromkeys(
        (p.grid.name, p.dataset, p.origin_per_class, p.ipc, p.method)
        for p in points
        if p.ipc is not None and (p.init == "real" or "init" not in METHODS[p.method].uses)
    )
    for name, dataset, origin, ipc, method in drawn:
        size = sizes[dataset]
        limit = size if origin is None else origin
        if limit is None or ipc is None:
            continue
        grid = grids[name]
        settings = complete.get((name, dataset, method, ipc))
        needed = settings.real_images(ipc) if settings is not None else 0
        if needed <= limit:
            continue
        what = f"a class of {dataset}" if origin is None else f"a class of the origin (origin_per_class {origin})"
        problem = (
            f"more images than {what} holds, for methods that choose real images or start from them; got {ipc}; "
            f"expected at most {limit}. Exclude the pair."
        )
        if needed > ipc:
            problem = (
                f"{method} starts from {needed} real images of each class, more than {what} holds; got ipc {ipc}; "
                f"expected at most {limit * ipc // needed}. Exclude the pair, start from noise"
            )
            whole = "layout" in METHODS[method].settings.model_fields
            problem += f", or set settings.{method}.layout: whole." if whole else "."
        problems.append(grid.say(_place(grid, "ipc", ipc), problem))
    return problems + _unmeasurable(grids, facts, points, network_problem)


def _same_classes(grids: Mapping[str, Grid], facts: Mapping[str, Facts], points: Sequence[GridPoint]) -> list[str]:
    """Draws of classes that are the same classes: a table would count one network as two independent ones."""
    problems = []
    first: dict[tuple[str, str, tuple[int, ...]], int] = {}
    for name, dataset, count, draw in dict.fromkeys(
        (p.grid.name, p.dataset, p.num_classes, p.class_draw) for p in points
    ):
        if count is None or draw is None or not 2 <= count <= facts[dataset].num_classes:
            continue
        classes = class_subset(facts[dataset].num_classes, count, draw)
        other = first.setdefault((name, dataset, classes), draw)
        if other != draw:
            problems.append(
                grids[name].say(
                    _place(grids[name], "class_draw", draw),
                    f"the same classes twice; got draws {other} and {draw}, both of which are {list(classes)} of "
                    f"{dataset}; expected draws that differ. Replace one by another number.",
                )
            )
    return problems


def _unmeasurable(
    grids: Mapping[str, Grid], facts: Mapping[str, Facts], points: Sequence[GridPoint], network_problem: NetworkProblem
) -> list[str]:
    """Evaluations that cannot be, once per grid that asks for them."""
    problems = []
    asking = dict.fromkeys(
        (_asking(grids, p, kind), kind, p.dataset, p.method, p.origin_per_class, p.num_classes, id(p.evaluations))
        for p in points
        for kind in p.evaluations
    )
    settings: dict[tuple[str, int], Config] = {}
    given = {id(point.evaluations): point.evaluations for point in points}
    for name, kind, dataset, method, origin, num_classes, evaluations in asking:
        at = (kind, evaluations)
        if at not in settings:
            settings[at] = EVALUATIONS[kind].model_validate_json(json.dumps(dict(given[evaluations][kind])))
        grid, image, asked = grids[name], facts[dataset], settings[at]
        classes = num_classes or image.num_classes
        path = f"evaluations.{kind}"
        if isinstance(asked, RobustnessSettings) and (what := attacked_problem(asked.images, classes)) is not None:
            problems.append(grid.say(f"{path}.images", what))
        if isinstance(asked, EmbeddingSettings) and METHODS[method].distils:
            reason = network_problem(ENCODER, image.image_size, image.channels)
            if reason is not None:
                what = f"sets are compared in the features of {reason}"
                problems.append(_too_small(grid, path, what, dataset, image))
        if isinstance(asked, PrivacySettings):
            for setting, count, most in (
                ("rows", asked.num_rows, MOST_ROWS),
                ("shadows", asked.shadows, MOST_ROWS - 1),
            ):
                if count > most:
                    what = f"more than a point may have; got {count}; expected at most {most}."
                    problems.append(grid.say(f"{path}.{setting}", what))
            if origin is None:
                what = (
                    "members are told from images that were left out, and here none are; got origin_per_class null; "
                    "expected a number. Set axes.origin_per_class, as [400], or leave privacy out of this grid."
                )
                problems.append(grid.say(path, what))
            elif asked.canaries and "pool" not in asked.audit:
                shown = ", ".join(asked.audit)
                what = f"canaries are images of a pool; got audit {shown}; expected pool among them. Add it, or drop"
                problems.append(grid.say(f"{path}.canaries", f"{what} canaries."))
            elif asked.canaries > 2 * origin * classes:
                what = (
                    f"more canaries than the pool of origin_per_class {origin} has images; got {asked.canaries}; "
                    f"expected at most {2 * origin * classes}."
                )
                problems.append(grid.say(f"{path}.canaries", what))
    return problems


def _asking(grids: Mapping[str, Grid], point: GridPoint, kind: str) -> str:
    """The first of a point's grids that asks for an evaluation."""
    return next(name for name in point.grids if kind in grids[name].evaluations)


def _place(grid: Grid, axis: str, value: Any) -> str:
    """The path of an axis' value."""
    values = grid.axes.get(axis, ())
    return f"axes.{axis}.{values.index(value)}" if value in values else f"axes.{axis}"


def _base(sweep: Sweep, dataset: str) -> str:
    """The known data set whose presets apply."""
    declared = sweep.datasets.get(dataset)
    return declared.like if declared is not None else dataset


def _too_small(grid: Grid, path: str, reason: str, dataset: str, image: Facts) -> str:
    return grid.say(
        path,
        f"cannot take the images of {dataset}; got {image.image_size} pixels; expected: {reason}. "
        "Exclude the pair, or declare the data set with another size (resize) under datasets.",
    )


def _matching_network(settings: MethodSettings) -> Variant | None:
    """The network that a method distils with, where it has one."""
    if not isinstance(settings, NetworkSettings):
        return None
    return settings.variant
