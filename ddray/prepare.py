"""Request -> Prepared: what every command begins with, for sweep files and for imported files. Light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ddray.collector import no_cycle_search
from ddray.errors import RequestError
from ddray.external.evaluation import FILE
from ddray.external.evaluation import load as load_evaluation
from ddray.external.planning import facts_of, points_of, subject_of, sweep_of
from ddray.plan.datasets import Build, DatasetFacts, class_sizes, resolve
from ddray.plan.external import ExternalPipeline
from ddray.plan.grammar import load
from ddray.plan.grid import expand, select
from ddray.plan.jobs import Plan, make_plan
from ddray.plan.keys import digest
from ddray.plan.pipeline import Pipeline, recipe_problem
from ddray.plan.points import GridPoint, Sweep
from ddray.request import Request
from ddray.settings import Places


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated sweep with its plan."""

    request: Request
    sweep: Sweep
    facts: dict[str, DatasetFacts]
    plan: Plan
    unread: tuple[str, ...] = field(default=())
    """Data sets whose content digest is not known yet on this machine."""

    @property
    def digest(self) -> str:
        """Covers every planned stage: equal digests mean equal plans."""
        points = sorted(chain.point.hash for chain in self.plan.chains)
        return digest([self.sweep.name, *sorted(self.plan.stages), *points])


def prepare(request: Request, places: Places, build: Build, *, read_all: bool = False) -> Prepared:
    """Load, validate, expand and plan: a sweep file, or what ``ddray evaluate`` imported before.

    Args:
        request: The sweep and what narrows it.
        places: Where data and caches are.
        build: Decodes a data set (see ``ddray.plan.datasets``).
        read_all: Decode every data set that has not been read yet; planning alone does without.

    Raises:
        RequestError: Everything that is wrong, at once.
        EnvironmentProblem: ``read_all`` and a data set is missing.
    """
    if request.path.name == FILE:
        return _prepare_evaluation(request, places, build, read_all)
    sweep = load(request.path, sets=request.sets, profiles=request.profiles)
    names = {str(name) for grid in sweep.grids for name in grid.axes.get("dataset", ())}
    facts = resolve(sweep, sorted(names), places.data, places.cache, build, read_all=read_all)
    sizes = class_sizes(facts)
    with no_cycle_search():
        points = expand(sweep, class_size=sizes.get)
        _check_recipes(points)
        return _planned(request, sweep, facts, points, Pipeline(facts, sweep.resources))


def _prepare_evaluation(request: Request, places: Places, build: Build, read_all: bool) -> Prepared:
    if request.sets or request.profiles:
        raise RequestError(f"{request.path}: has no values to change and no profiles. Run ddray evaluate again.")
    evaluation = load_evaluation(request.path)
    sweep = sweep_of(evaluation, request.path)
    facts = facts_of(evaluation, places, build, read_all=read_all)
    points = list(points_of(evaluation, facts, sweep.grids[0]))
    datasets = {evaluation.dataset: facts}
    return _planned(request, sweep, datasets, points, ExternalPipeline(datasets, {}, subject_of(evaluation, facts)))


def _planned(
    request: Request, sweep: Sweep, facts: dict[str, DatasetFacts], points: Sequence[GridPoint], pipeline: Pipeline
) -> Prepared:
    plan = make_plan(pipeline.chains(points), pipeline.stages)
    plan.selected = {point.hash for point in select(points, request.only, request.skip, request.limit)}
    used = {point.dataset for point in points}
    return Prepared(request, sweep, facts, plan, tuple(name for name in sorted(used) if not facts[name].read))


def _check_recipes(points: Sequence[GridPoint]) -> None:
    seen: dict[tuple[str, str], str | None] = {}
    problems = []
    for point in points:
        memo = (point.protocol, repr(sorted(point.train.items())))
        if memo not in seen:
            seen[memo] = recipe_problem(point)
            if seen[memo] is not None:
                problems.append(f"{point.grid.where('train')}: grids.{point.grid.name}.train: {seen[memo]}")
    if problems:
        raise RequestError(problems)
