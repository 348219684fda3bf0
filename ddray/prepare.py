"""Request -> Prepared: what every command begins with, for sweep files and for imported files. Light."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ddray.collector import no_cycle_search
from ddray.errors import RequestError
from ddray.external.evaluation import FILE, load_evaluation
from ddray.external.planning import imports_of, info_of, points_of, subject_of, sweep_of
from ddray.plan.chains import make_chains
from ddray.plan.controls import control_notes
from ddray.plan.datasets import Build, DatasetInfo, class_sizes, resolve
from ddray.plan.feasible import ClassSize
from ddray.plan.grammar import in_file_order, read
from ddray.plan.grid import expand, select
from ddray.plan.imported import Imported
from ddray.plan.jobs import Plan, make_plan
from ddray.plan.keys import digest
from ddray.plan.points import GridPoint, Sweep
from ddray.plan.splits import split_notes
from ddray.request import Request
from ddray.settings import Folders


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated sweep with its plan."""

    request: Request
    sweep: Sweep
    datasets: Mapping[str, DatasetInfo]
    plan: Plan
    unread: tuple[str, ...] = field(default=())
    """Data sets whose content digest is not known yet on this machine."""
    notes: tuple[str, ...] = field(default=())
    """What is allowed and perhaps not meant."""

    @property
    def digest(self) -> str:
        """Covers every planned stage: equal digests mean equal plans."""
        points = sorted(chain.point.hash for chain in self.plan.chains)
        return digest([self.sweep.name, *sorted(self.plan.stages), *points])


def prepare(request: Request, folders: Folders, build: Build, *, read: Collection[str] = ()) -> Prepared:
    """Load, validate, expand and plan: a sweep file, or what ``ddray evaluate`` imported before.

    Args:
        request: The sweep and what narrows it.
        folders: Where data and caches are.
        build: Decodes a data set (see ``ddray.plan.datasets``).
        read: Data sets to decode that have not been read yet; planning alone does without.

    Raises:
        RequestError: Everything that is wrong, at once.
        EnvironmentProblem: One that is to be read is missing.
    """
    with no_cycle_search():
        if request.path.name == FILE:
            content = _imported(request, folders, build, read)
        else:
            content = _swept(request, folders, build, read)
        sweep, points, datasets, imported = content
        plan = make_plan(*make_chains(points, datasets, sweep.resources, imported))
        plan.selected = {point.hash for point in select(points, request.only, request.skip, request.limit)}
        notes = (*_notes(request, points, plan.selected), *control_notes(points, plan.selected))
    used = sorted({chain.point.dataset for chain in plan.chains if chain.point.hash in plan.selected})
    unread = tuple(name for name in used if not datasets[name].read)
    return Prepared(request, sweep, datasets, plan, unread, notes)


def load(path: Path, *, sets: Sequence[str] = (), profiles: Sequence[str] = ()) -> Sweep:
    """Read a sweep file.

    When something is wrong, what could be read is expanded all the same, so that the error also names the combinations
    that cannot be. (Of a file that reads, ``expanded`` says that.)

    Args:
        path: The file.
        sets: ``PATH=VALUE`` each.
        profiles: Names of profiles, each laid over the ones before it.

    Raises:
        RequestError: With everything that is wrong, as ``file:line: path: what``.
    """
    sweep, problems = read(path, sets=sets, profiles=profiles)
    if sweep is not None and not problems:
        return sweep
    raise RequestError(in_file_order([*problems, *(expand(sweep)[1] if sweep is not None else ())]))


def expanded(sweep: Sweep, class_size: ClassSize | None = None) -> list[GridPoint]:
    """The points of a sweep.

    Args:
        sweep: From ``load``.
        class_size: Of its data sets. Default: of the known ones.

    Raises:
        RequestError: With every combination that cannot be.
    """
    points, problems = expand(sweep, class_size)
    if problems:
        raise RequestError(in_file_order(problems))
    return points


class _Content(NamedTuple):
    """What a request is about."""

    sweep: Sweep
    points: Sequence[GridPoint]
    datasets: dict[str, DatasetInfo]
    imported: dict[str | None, Imported]


def _swept(request: Request, folders: Folders, build: Build, read: Collection[str]) -> _Content:
    """The points of a sweep file."""
    sweep = load(request.path, sets=request.sets, profiles=request.profiles)
    names = {str(name) for grid in sweep.grids for name in grid.axes.get("dataset", ())}
    datasets = resolve(sweep, sorted(names), folders.data, folders.cache, build, read=read)
    points = expanded(sweep, class_sizes(datasets).get)
    points, imported = imports_of(points, datasets, folders, build)
    return _Content(sweep, points, datasets, imported)


def _notes(request: Request, points: Sequence[GridPoint], selected: Collection[str]) -> tuple[str, ...]:
    """What ``--set`` does to points that grids share; the file is read again without it."""
    if not request.sets:
        return ()
    sweep, problems = read(request.path, profiles=request.profiles)
    if sweep is None or problems:  # it is whole with --set alone: there is nothing to compare with
        return ()
    before, _ = expand(sweep)
    return tuple(split_notes(before, points, request.sets, selected))


def _imported(request: Request, folders: Folders, build: Build, read: Collection[str]) -> _Content:
    """The points of an imported set or model."""
    if request.sets or request.profiles:
        raise RequestError(f"{request.path}: has no values to change and no profiles. Run ddray evaluate again.")
    evaluation = load_evaluation(request.path)
    if evaluation.content is None:
        raise RequestError(f"{request.path}: does not say what its files hold. Run ddray evaluate again.")
    sweep = sweep_of(evaluation, request.path)
    info = info_of(evaluation, folders, build, read=evaluation.dataset in read)
    points = list(points_of(evaluation, info, sweep.grids[0]))
    return _Content(sweep, points, {evaluation.dataset: info}, {None: subject_of(evaluation, info)})
