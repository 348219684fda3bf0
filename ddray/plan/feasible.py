"""Which points cannot be, as a table of rules: what a rule looks at, when it is broken, and what is said then."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from ddray.plan.annotations import at_ipc
from ddray.plan.audits import MOST_ROWS
from ddray.plan.kinds import ENCODER
from ddray.plan.points import Grid, GridPoint, Sweep
from ddray.plan.schema import EVALUATIONS
from trainables.configs import (
    MethodSettings,
    NetworkSettings,
    PrivacySettings,
    RecipeConfig,
    RobustnessSettings,
)
from trainables.data.known import KNOWN, KnownDataset, class_subset
from trainables.data.layout import known_dataset
from trainables.methods import EXTERNAL, METHODS
from trainables.networks import option_problem, parse, size_problem
from trainables.presets import completed
from trainables.protocols import PROTOCOLS
from trainables.teachers import parse as parse_teacher

ClassSize: TypeAlias = Callable[[str], int | None]
"""Data set's name -> training images in its smallest class, or None where it is not known yet."""
Complaint: TypeAlias = tuple[str, str]
"""Path below the grid, as ``axes.ipc.2``, and what is wrong there."""


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
        images: That are to be attacked.
        classes: That take part.
    """
    if images >= classes:
        return None
    return f"fewer images than classes; got {images}; expected at least {classes}, one of each class."


def recipe_problem(protocol: str, train: Mapping[str, Any]) -> str | None:
    """Why values given instead of a protocol's do not make a recipe, or None."""
    try:
        _recipe(protocol, train)
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    return None


def _recipe(protocol: str, train: Mapping[str, Any]) -> RecipeConfig:
    """A protocol's recipe with values of a sweep; steps take the place of its epochs."""
    given = {"epochs": None, **train} if "steps" in train else train
    return RecipeConfig.model_validate({**PROTOCOLS[protocol].recipe.model_dump(), **given})


def known_class_size(sweep: Sweep) -> ClassSize:
    """Class sizes of known data sets; None for declared folders, which have to be looked at."""

    def size(name: str) -> int | None:
        declared = sweep.datasets.get(name)
        if declared is None:
            return KNOWN[name].train_per_class
        return KNOWN[declared.like].train_per_class if declared.folder is None else None

    return size


def base_of(sweep: Sweep, dataset: str) -> str:
    """The known data set whose constants and presets apply."""
    declared = sweep.datasets.get(dataset)
    return declared.like if declared is not None else dataset


def constants_of(sweep: Sweep, dataset: str) -> KnownDataset:
    """The constants that apply to a data set: those of its base, with its own number of classes."""
    declared = sweep.datasets.get(dataset)
    return known_dataset(base_of(sweep, dataset), declared.classes if declared is not None else None)


@dataclass(frozen=True, slots=True)
class Case:
    """A combination to be judged, with what is known of it."""

    point: GridPoint
    grid: Grid
    """That asks for it."""
    dataset: KnownDataset
    """Whose constants apply."""
    image_size: int
    """Height = width, pixels."""
    class_size: int | None
    """Training images in the smallest class; None: not known yet."""
    settings: MethodSettings | str
    """Of the method, completed from presets and defaults; or why that cannot be."""
    requested: Any
    """Settings of the evaluation that the rule is about; None for other rules."""

    def path(self, axis: str) -> str:
        """The path of the point's value of an axis."""
        return path_of(self.grid, axis, getattr(self.point, axis))

    @property
    def recipe(self) -> RecipeConfig | None:
        """How the point's network is trained; None where the sweep's values make no recipe."""
        if recipe_problem(self.grid.protocol, self.point.train) is not None:
            return None
        return _recipe(self.grid.protocol, self.point.train)

    def images_refused(self, reason: str) -> str:
        """The message that a network cannot take the images."""
        return (
            f"cannot take the images of {self.point.dataset}; got {self.image_size} pixels; expected: {reason}. "
            "Exclude the pair, or declare the data set with another size (resize) under datasets."
        )

    def network_problem(self, architecture: str) -> str | None:
        return network_problem(architecture, self.image_size, self.dataset.channels)


Check: TypeAlias = Callable[[Case], Iterator[Complaint]]


class Rule(NamedTuple):
    """Something that holds of every combination."""

    looks_at: tuple[str, ...]
    """Axes. Points of the same grids that agree in them are judged once."""
    evaluation: str | None
    """Only points with this evaluation are judged."""
    check: Check
    """What is wrong with a combination: nothing, or where and what."""


RULES: list[Rule] = []
"""All rules, in the order in which they are judged."""


def rule(*looks_at: str, evaluation: str | None = None) -> Callable[[Check], Check]:
    """Make a function that checks a case a rule."""

    def register(check: Check) -> Check:
        RULES.append(Rule(looks_at, evaluation, check))
        return check

    return register


def impossible(sweep: Sweep, points: Sequence[GridPoint], class_size: ClassSize) -> list[str]:
    """Everything that is wrong with a sweep's combinations.

    Args:
        sweep: Validated.
        points: All of its points.
        class_size: Of its data sets.
    """
    grids = {grid.name: grid for grid in sweep.grids}

    @functools.cache
    def completed_settings(grid: str, dataset: str, method: str, ipc: int | None) -> MethodSettings | str:
        return _completed(method, base_of(sweep, dataset), ipc, at_ipc(grids[grid].settings.get(method, {}), ipc))

    # Most points differ in seeds alone, which no rule looks at: a few stand for all.
    few = _distinct(points, sorted({axis for rule in RULES for axis in rule.looks_at}))
    problems = _same_classes(sweep, points)
    for looks_at, evaluation, check in RULES:
        for point in _distinct(few, looks_at):
            grid, requested = point.grid, None
            if evaluation is not None:
                if evaluation not in point.evaluations:
                    continue
                grid = next(grids[name] for name in point.grids if evaluation in grids[name].evaluations)
                requested = EVALUATIONS[evaluation].model_validate_json(json.dumps(dict(point.evaluations[evaluation])))
            base, declared = constants_of(sweep, point.dataset), sweep.datasets.get(point.dataset)
            case = Case(
                point=point,
                grid=grid,
                dataset=base,
                image_size=(declared.resize if declared is not None else None) or base.image_size,
                class_size=class_size(point.dataset),
                settings=completed_settings(point.grid.name, point.dataset, point.method, point.ipc),
                requested=requested,
            )
            problems += [grid.say(path, what) for path, what in check(case)]
    return problems


def path_of(grid: Grid, axis: str, value: Any) -> str:
    """The path of an axis' value below a grid, as ``axes.ipc.2``."""
    values = grid.axes.get(axis, ())
    return f"axes.{axis}.{values.index(value)}" if value in values else f"axes.{axis}"


def _distinct(points: Iterable[GridPoint], axes: Sequence[str]) -> list[GridPoint]:
    """The first of the points that agree in their grids and in some axes."""
    first: dict[tuple[Any, ...], GridPoint] = {}
    for point in points:
        first.setdefault((point.grids, *(getattr(point, axis) for axis in axes)), point)
    return list(first.values())


def _completed(method: str, dataset: str, ipc: int | None, given: Mapping[str, Any]) -> MethodSettings | str:
    try:
        return completed(method, dataset, ipc, given)
    except ValidationError as error:
        causes = "; ".join(str(entry.get("ctx", {}).get("error", entry["msg"])) for entry in error.errors())
        return causes.rstrip(".")
    except ValueError as error:
        return str(error)


# --- points -------------------------------------------------------------------------------------------------------


@rule("dataset", "architecture")
def network_takes_the_images(case: Case) -> Iterator[Complaint]:
    reason = case.network_problem(case.point.architecture)
    if reason is not None:
        yield case.path("architecture"), case.images_refused(reason)


@rule("dataset", "method", "ipc")
def settings_go_with_the_presets(case: Case) -> Iterator[Complaint]:
    point = case.point
    if isinstance(case.settings, str):
        with_what = f"together with the presets of {point.dataset} at ipc {point.ipc}"
        yield f"settings.{point.method}", f"{case.settings}, {with_what} (ddray preset)."


@rule("dataset", "method", "ipc")
def matching_network_takes_the_images(case: Case) -> Iterator[Complaint]:
    method = case.point.method
    if not isinstance(case.settings, NetworkSettings):
        return
    network = case.settings.variant
    wrong = option_problem(network)
    if wrong is not None:
        yield f"settings.{method}", f"{method} cannot match on this network: {wrong}"
        return
    reason = case.network_problem(network.name)
    if reason is not None:
        given = at_ipc(case.grid.settings.get(method, {}), case.point.ipc)
        named = next((name for name in ("depth", "architecture") if name in given), None)
        path = f"settings.{method}.{named}" if named else case.path("method")
        yield path, case.images_refused(f"{method} matches on {reason}")


@rule("dataset", "num_classes")
def there_are_so_many_classes(case: Case) -> Iterator[Complaint]:
    count, total = case.point.num_classes, case.dataset.num_classes
    if count is not None and count > total:
        what = f"more classes than {case.point.dataset} has; got {count}; expected 2 to {total}. Exclude the pair."
        yield case.path("num_classes"), what


@rule("dataset", "origin_per_class")
def a_class_holds_the_origin(case: Case) -> Iterator[Complaint]:
    origin, size = case.point.origin_per_class, case.class_size
    if origin is not None and size is not None and origin > size:
        yield (
            case.path("origin_per_class"),
            f"more images than the smallest class of {case.point.dataset} has; got {origin}; expected at most {size}. "
            "Exclude the pair, or use null for all of them.",
        )


@rule("dataset", "origin_per_class", "ipc", "method", "init")
def a_class_holds_the_real_images(case: Case) -> Iterator[Complaint]:
    """Methods that choose real images, or start from them, need as many of each class."""
    point, origin = case.point, case.point.origin_per_class
    limit = case.class_size if origin is None else origin
    chooses = point.init == "real" or "init" not in METHODS[point.method].uses
    if point.ipc is None or limit is None or not chooses or isinstance(case.settings, str):
        return
    needed = case.settings.real_images(point.ipc)
    if needed <= limit:
        return
    what = f"a class of {point.dataset}" if origin is None else f"a class of the origin (origin_per_class {origin})"
    if needed <= point.ipc:
        yield (
            case.path("ipc"),
            f"more images than {what} holds, for methods that choose real images or start from them; got {point.ipc}; "
            f"expected at most {limit}. Exclude the pair.",
        )
        return
    whole = "layout" in METHODS[point.method].settings.model_fields
    yield (
        case.path("ipc"),
        f"{point.method} starts from {needed} real images of each class, more than {what} holds; got ipc {point.ipc}; "
        f"expected at most {limit * point.ipc // needed}. Exclude the pair, start from noise"
        + (f", or set settings.{point.method}.layout: whole." if whole else "."),
    )


@rule()
def train_values_make_a_recipe(case: Case) -> Iterator[Complaint]:
    problem = recipe_problem(case.grid.protocol, case.point.train)
    if problem is not None:
        yield "train", problem


@rule("dataset", "method", "ipc", "labels")
def a_recipe_takes_the_labels(case: Case) -> Iterator[Complaint]:
    """A teacher's labels are logits, as are those that methods learn; a teacher's are read at one temperature."""
    labels, recipe = case.point.labels, case.recipe
    own_source = case.settings.label_source if isinstance(case.settings, MethodSettings) else None
    if recipe is None or (labels is None and own_source is None):
        return
    if recipe.label_loss == "l2":
        whose = "a teacher's labels" if labels is not None else f"{case.point.method}'s labels"
        what = f"is for targets of a regression, and {whose} are logits; got l2; expected soft_ce, kl or mse."
        yield "train.label_loss", what
    if labels is None:
        return
    own = parse_teacher(labels).temperature
    if own != 1 and recipe.temperature is not None:
        yield (
            case.path("labels"),
            f"two temperatures; got {own:g} in {labels} and {recipe.temperature:g} in the recipe; expected one. Leave "
            "one out.",
        )


@rule("method", "dataset", "ipc", "labels")
def an_online_teacher_sees_pixels(case: Case) -> Iterator[Complaint]:
    labels = case.point.labels
    if labels is not None and parse_teacher(labels).online and getattr(case.settings, "zca", False):
        yield (
            case.path("labels"),
            f"an online teacher labels what the network sees, and whitened images it does not know; got {labels} with "
            f"settings.{case.point.method}.zca: true; expected false, or labels that are given once. Exclude the pair.",
        )


@rule("method", "dataset", "ipc")
def a_method_of_groups_has_some(case: Case) -> Iterator[Complaint]:
    if isinstance(case.settings, MethodSettings) and case.settings.of_groups and case.dataset.made is None:
        known = ", ".join(name for name, dataset in KNOWN.items() if dataset.made is not None)
        yield (
            case.path("method"),
            f"{case.point.method} matches groups beside classes, of which these images have none; got dataset "
            f"{case.point.dataset}; expected one of {known}. Exclude the pair.",
        )


@rule("method", "architecture")
def a_private_recipe_trains_on_the_images_it_protects(case: Case) -> Iterator[Complaint]:
    """Noise on gradients protects what they are of, and no image may change what the network makes of another."""
    method, recipe = case.point.method, case.recipe
    if recipe is None or recipe.private is None:
        return
    if METHODS[method].of_sets:
        yield (
            case.path("method"),
            f"networks are trained on a set, and the noise of protocol {case.grid.protocol} is for a training on the "
            f"real images themselves; got {method}; expected full. Give the sets a grid with another protocol; dpdm "
            "makes sets with a guarantee.",
        )
    if parse(case.point.architecture).norm == "batch":
        yield (
            case.path("architecture"),
            "an image changes what batch norm makes of all others, and no clipping bounds that; got "
            f"{case.point.architecture} with protocol {case.grid.protocol}; expected a network without batch norm. "
            "Exclude the pair.",
        )


# --- evaluations --------------------------------------------------------------------------------------------------


@rule("dataset", "num_classes", evaluation="robustness")
def an_image_of_each_class_is_attacked(case: Case) -> Iterator[Complaint]:
    requested: RobustnessSettings = case.requested
    problem = attacked_problem(requested.images, case.point.num_classes or case.dataset.num_classes)
    if problem is not None:
        yield "evaluations.robustness.images", problem


@rule("dataset", "method", evaluation="embedding")
def the_encoder_takes_the_images(case: Case) -> Iterator[Complaint]:
    reason = case.network_problem(ENCODER)
    if METHODS[case.point.method].distils and reason is not None:
        yield "evaluations.embedding", case.images_refused(f"sets are compared in the features of {reason}")


@rule(evaluation="privacy")
def an_audit_has_a_size_limit(case: Case) -> Iterator[Complaint]:
    requested: PrivacySettings = case.requested
    limits = (("rows", requested.num_rows, MOST_ROWS), ("shadows", requested.shadows, MOST_ROWS - 1))
    for setting, count, most in limits:
        if count > most:
            what = f"more than a point may have; got {count}; expected at most {most}."
            yield f"evaluations.privacy.{setting}", what


@rule("dataset", "method", "origin_per_class", "num_classes", evaluation="privacy")
def an_audit_has_images_to_tell_apart(case: Case) -> Iterator[Complaint]:
    requested: PrivacySettings = case.requested
    origin, classes = case.point.origin_per_class, case.point.num_classes or case.dataset.num_classes
    if case.point.method == EXTERNAL:  # its file of members says
        return
    if origin is None:
        yield (
            "evaluations.privacy",
            "members are told from images that were left out, and here none are; got origin_per_class null; "
            "expected a number. Set axes.origin_per_class, as [400], or leave privacy out of this grid.",
        )
    elif requested.canaries and "pool" not in requested.audit:
        shown = ", ".join(requested.audit)
        what = f"canaries are images of a pool; got audit {shown}; expected pool among them. Add it, or drop canaries."
        yield "evaluations.privacy.canaries", what
    elif requested.canaries > 2 * origin * classes:
        yield (
            "evaluations.privacy.canaries",
            f"more canaries than the pool of origin_per_class {origin} has images; got {requested.canaries}; "
            f"expected at most {2 * origin * classes}.",
        )


# --- pairs of points ----------------------------------------------------------------------------------------------


def _same_classes(sweep: Sweep, points: Iterable[GridPoint]) -> list[str]:
    """Draws of classes that are the same classes: a table would count one network as two independent ones."""
    problems = []
    first: dict[tuple[str, str, tuple[int, ...]], int] = {}
    for point in _distinct(points, ("dataset", "num_classes", "class_draw")):
        count, draw, total = point.num_classes, point.class_draw, constants_of(sweep, point.dataset).num_classes
        if count is None or draw is None or not 2 <= count <= total:
            continue
        classes = class_subset(total, count, draw)
        other = first.setdefault((point.grid.name, point.dataset, classes), draw)
        if other != draw:
            problems.append(
                point.grid.say(
                    path_of(point.grid, "class_draw", draw),
                    f"the same classes twice; got draws {other} and {draw}, both of which are {list(classes)} of "
                    f"{point.dataset}; expected draws that differ. Replace one by another number.",
                )
            )
    return problems
