"""Bring MLflow's runs of a sweep up to date with its measurements."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddray.errors import EnvironmentProblem
from ddray.plan.graph import Chain
from ddray.plan.jobs import Plan
from ddray.plan.points import Sweep
from ddray.results import MEASUREMENTS_FILE, REPORT_HTML
from ddray.settings import Folders
from ddray.store.artifacts import Store
from ddray.tracking.links import write_links
from ddray.tracking.measured import MeasuredPoint, measured_points
from ddray.tracking.runs import PLANNED, REPORT, Place, Run, existing_runs, experiments
from ddray.tracking.schema import REMEDY, check_schema
from ddray.tracking.writer import Writer

LOCK_SECONDS = 60.0
_MODULES = ("mlflow", "sqlalchemy", "alembic", "requests", "urllib3", "psycopg2")
"""Whose errors tell of a database or server."""


@dataclass(frozen=True, slots=True)
class MirrorResult:
    """What a mirror did."""

    runs_created: int
    runs_updated: int
    stale: int
    """Runs of points that the sweep no longer plans; they are tagged, not deleted."""


def mirror(
    plan: Plan, sweep: Sweep, store: Store, folders: Folders, folder: Path, *, lock_seconds: float = LOCK_SECONDS
) -> MirrorResult:
    """Bring the runs of a sweep up to date.

    Points with a result or a failure get a run; pending ones get none until then. Nothing of MLflow is imported when
    nothing changed in a database of ours; a server is asked.

    Args:
        plan: The whole sweep.
        sweep: Gives the experiment its name, ``ddray/<sweep>``.
        store: Curves and pictures come from its artifacts.
        folders: Database and artifacts lie below home, unless an MLflow of others is named.
        folder: Holds the ``measurements.parquet`` just collected.
        lock_seconds: How long to wait for another mirror on the same database.

    Raises:
        EnvironmentProblem: MLflow is not installed, its database or server cannot be used, or another mirror takes too
            long.
    """
    points = measured_points(plan, folder / MEASUREMENTS_FILE)
    report = _report_digest(folder)
    place = Place.of(folders)

    def found() -> dict[str, list[Run]] | None:
        return existing_runs(place.database, f"ddray/{sweep.name}") if place.database is not None else None

    with _one_at_a_time(folders, lock_seconds), _understood(place):
        known = found()
        if known is not None:
            work = _compare(plan, points, known)
            if not work.chains and not work.left and _is_current(report, known):
                number = experiments(place.database).get(f"ddray/{sweep.name}") if place.database is not None else None
                _link(plan, sweep, folder, place, known, number)
                return MirrorResult(0, 0, work.stale)
        if place.database is not None:
            check_schema(place.database)
        writer = Writer(place, sweep, store)
        known = found()
        if known is None:
            known = writer.existing()
        work = _compare(plan, points, known)
        if report and not _is_current(report, known):
            writer.write_report(folder, report, known.get(REPORT, []))
        for run in work.left:
            writer.client.set_tag(run.id, PLANNED, "false")
        created = sum(
            writer.write(chain, points[chain.point.hash], known.get(chain.point.hash, [])) for chain in work.chains
        )
        _link(plan, sweep, folder, place, found() or writer.existing(), writer.experiment)
    return MirrorResult(created, len(work.chains) - created, work.stale)


def _link(
    plan: Plan, sweep: Sweep, folder: Path, place: Place, runs: Mapping[str, Sequence[Run]], experiment: str | None
) -> None:
    if experiment is not None:
        write_links(folder, sweep.name, plan.chains, runs, place, experiment)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done."""

    chains: list[Chain]
    """Points whose run is missing or says something else."""
    left: list[Run]
    """Runs of points that are no longer planned and not tagged so."""
    stale: int


def _compare(plan: Plan, points: Mapping[str, MeasuredPoint], known: Mapping[str, Sequence[Run]]) -> _Work:
    planned = {chain.point.hash for chain in plan.chains}
    stale = [run for point, runs in known.items() if point not in planned and point != REPORT for run in runs]
    chains = [
        chain for chain in plan.chains if _needs_writing(points.get(chain.point.hash), known.get(chain.point.hash, []))
    ]
    return _Work(chains, [run for run in stale if run.planned], len(stale))


def _report_digest(folder: Path) -> str:
    """Of the report as it is; "" where there is none."""
    try:
        return hashlib.sha256((folder / REPORT_HTML).read_bytes()).hexdigest()
    except OSError:
        return ""


def _is_current(report: str, known: Mapping[str, Sequence[Run]]) -> bool:
    return not report or [run.digest for run in known.get(REPORT, [])] == [report]


def _needs_writing(point: MeasuredPoint | None, runs: Sequence[Run]) -> bool:
    if point is None or (not runs and not point.measured):
        return False
    return len(runs) != 1 or runs[0].digest != point.digest or not runs[0].planned


@contextlib.contextmanager
def _one_at_a_time(folders: Folders, seconds: float) -> Iterator[None]:
    """One mirror on a database: its first use creates tables, and two that do so at once break it."""
    from filelock import FileLock, Timeout

    path = folders.mlflow_database.with_name(folders.mlflow_database.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=seconds)
    except Timeout:
        raise EnvironmentProblem(
            f"{path}: another mirror is writing to the database; waited {seconds:g} s. Try again when it has ended."
        ) from None
    except OSError as error:
        raise EnvironmentProblem(
            f"{path}: cannot be written; got {error}. Set DDRAY_HOME to a writable place."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _understood(place: Place) -> Iterator[None]:
    """Errors of MLflow and its database or server, with what to do about them."""
    try:
        yield
    except EnvironmentProblem:
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] not in (*_MODULES, "sqlite3"):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if place.database is None:
            first = first.replace(place.uri, str(place))
            raise EnvironmentProblem(
                f"MLFLOW_TRACKING_URI: MLflow at {place} cannot be used; got {first}. See that it runs and may be "
                "reached from here, or unset the variable to mirror to a database below DDRAY_HOME."
            ) from error
        raise EnvironmentProblem(f"{place}: MLflow cannot use its database; got {first}. {REMEDY}") from error
