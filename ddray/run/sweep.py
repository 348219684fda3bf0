"""`ddray sweep`: data, plan, executor, tables, mirror, summary, exit code."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ddray.errors import EnvironmentProblem
from ddray.plan.datasets import resolve
from ddray.plan.jobs import Job, blocked_stages, runnable_jobs
from ddray.plan.keys import short
from ddray.prepare import Prepared, prepare
from ddray.price.devices import CARDS, Machine, cards_here, core, cores_here, device_here, machine
from ddray.price.estimates import Prices
from ddray.price.fitting import fit
from ddray.price.measured import learn, measured_in
from ddray.report.page import first_page
from ddray.request import Request
from ddray.results import REPORT_HTML, REPORT_MD, RUNS_HTML, Results, results_of
from ddray.run.failed import points_that_failed
from ddray.run.ladder import Ladder
from ddray.run.limits import limit_text
from ddray.run.mps import CONTROL, multi_process_service
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.refresh import Refresh
from ddray.run.schedule import Schedule
from ddray.run.signals import StopRequest
from ddray.run.simulate import NO_LIMIT, Limit, seconds_of, simulate, within
from ddray.run.stage import WorkerEnv, code_state
from ddray.run.status import RunStatus
from ddray.settings import Folders
from ddray.store.artifacts import Store
from ddray.tracking.runs import Place
from trainables.data.cache import build as build_cache

DONE, FAILED, INTERRUPTED = 0, 1, 130
MIN_FREE_BYTES = 512 * 2**20
"""Beside the artifacts: decoded data, tables, Ray's own files."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where and how jobs run."""

    local: bool = False
    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    gpus_expected: int = 0
    gpu: str | None = None
    """Name of the cluster's cards; None: those of this machine, else of the reference card."""
    wait_for_nodes: float | None = None
    mps: bool = False
    """Whether the driver's multi-process service is to be started."""
    mlflow: bool = True
    quiet: bool = False
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    limit: Limit = NO_LIMIT
    failed_for: tuple[str, ...] = ()
    """Only points that failed for causes of these kinds; empty: all points."""


def run_sweep(request: Request, options: RunOptions, folders: Folders) -> int:
    """Compute what is missing of a sweep, then its tables.

    Returns:
        The exit code: 0 done, 1 some stages failed or are blocked, 130 interrupted.

    Raises:
        RequestError: Before anything is started.
        EnvironmentProblem: The environment cannot run it.
    """
    _check_home(folders)
    prepared = prepare(request, folders, build_cache)
    results = results_of(folders, prepared.sweep.name)
    results.register(request)
    for note in prepared.notes:
        _say(f"note: {note}")
    if prepared.unread:
        _say(f"reading data: {', '.join(prepared.unread)}")
        prepared = prepare(request, folders, build_cache, read=prepared.unread)
    store = Store(folders.store, folders.cache / "artifacts")
    store.tidy()
    if options.failed_for:
        prepared.plan.selected = points_that_failed(prepared, store, options.failed_for)
        _say(f"{prepared.sweep.name}: {len(prepared.plan.selected)} points with failures are run again")
    run_folder = folders.runs / prepared.sweep.name / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    with RunStatus(run_folder, folders.store) as status:
        status.code = _carry_out(prepared, results, store, options, folders, status)
        return status.code


def _carry_out(
    prepared: Prepared, results: Results, store: Store, options: RunOptions, folders: Folders, status: RunStatus
) -> int:
    """Jobs, tables and mirror; returns the exit code."""
    fit(prepared.plan, _stamps(prepared, store).keys(), _machine(options), measured_in(store))
    worked = interrupted = False
    left_out: set[str] = set()
    for last_pass in (False, True):
        stamps = _stamps(prepared, store)
        done = stamps.keys() - _damaged(store, results, stamps)
        jobs, seconds = _jobs(prepared, done, options, store)
        left_out = {stage.key for job in runnable_jobs(prepared.plan, done) for stage in job.stages}
        left_out -= {stage.key for job in jobs for stage in job.stages}
        schedule = Schedule(jobs, done, seconds)
        _decode(prepared, schedule, folders)
        if schedule.jobs:
            worked = True
            _check_disk(folders, schedule)
            refresh = Refresh(lambda: _refresh(prepared, results, options, folders))
            interrupted = _execute(prepared, schedule, done, options, folders, status, refresh)
            stamps = _stamps(prepared, store)
        finished, stamps = _finish(prepared, results, store, stamps, options, folders)
        missing = _missing(prepared, schedule, stamps.keys() | left_out)
        if interrupted or not missing:
            break
        _say(_unexpected(missing, store, last_pass))
    if left_out:
        _say(_later(len(left_out), options.limit))
    incomplete = finished.failed or finished.blocked or schedule.failed or missing
    code = INTERRUPTED if interrupted else FAILED if incomplete else DONE
    _summary(prepared, stamps.keys(), worked, schedule, finished, results, code)
    if worked:
        _notify(prepared, code)
    return code


def _jobs(
    prepared: Prepared, done: Collection[str], options: RunOptions, store: Store
) -> tuple[list[Job], Callable[[Job], float]]:
    """The jobs to run, all or those that the limit holds, and what each takes."""
    jobs = runnable_jobs(prepared.plan, done)
    if not jobs:
        return [], lambda job: 0.0
    runs_on = _machine(options)
    ladder = Ladder(runs_on.device.name, store)
    jobs = [ladder.on(job) for job in jobs]
    seconds = seconds_of(jobs, Prices(runs_on.device, measured_in(store)), store.checkpointed())
    if options.limit != NO_LIMIT:
        jobs = within(simulate(jobs, done, runs_on, seconds, options.limit), jobs)
    return jobs, seconds


def _machine(options: RunOptions) -> Machine:
    """What the sweep runs on, before Ray is there to be asked."""
    cards = cards_here()
    if options.local:
        return Machine(device_here(), 1)
    count = options.gpus_expected or (len(cards) if options.gpus is None else options.gpus)
    if options.gpu is not None:
        return machine(options.gpu, count or 1)
    if count and (cards or options.gpus_expected):
        return Machine(cards[0] if cards else CARDS["v100-32g"], count)
    return Machine(core(), options.cpus or cores_here())


def _later(stages: int, limit: Limit) -> str:
    return (
        f"{limit_text(limit)}: {stages} stages are left for later, because they are not expected to end within it. Run "
        "the same command again with more, or without a limit, to continue."
    )


def _stamps(prepared: Prepared, store: Store) -> dict[str, str]:
    """Of the plan's finished stages: keys and fingerprints of their files, from one listing of the store."""
    return {key: stamp for key, stamp in sorted(store.stamps().items()) if key in prepared.plan.stages}


def _missing(prepared: Prepared, schedule: Schedule, done: Collection[str]) -> list[str]:
    """Labels of the stages that are not in the store and of which nobody said why."""
    absent = prepared.plan.needed().difference(done, schedule.failed, schedule.blocked)
    absent -= blocked_stages(prepared.plan.stages, done).keys()
    return sorted(prepared.plan.stages[key].label for key in absent)


def _unexpected(missing: Sequence[str], store: Store, last_pass: bool) -> str:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    if not last_pass:
        return f"damaged, removed or not where its worker said it is: {shown}; computed again"
    return (
        f"store {store.location}: still without {shown}, which workers said they had finished. Look whether all nodes "
        "see the same store (DDRAY_STORE), and whether its disk keeps what is written."
    )


def _decode(prepared: Prepared, schedule: Schedule, folders: Folders) -> None:
    """Make sure of the data that jobs will read, before anything is started: here it costs nothing to fail.

    Caches that were decoded before are compared with their digests, and decoded again where they changed.
    """
    wanted = {
        dataset.name
        for job in schedule.jobs.values()
        for stage in job.stages
        if (dataset := getattr(stage.config, "dataset", None)) is not None
    }
    missing = sorted(name for name in wanted if not prepared.datasets[name].decoded)
    if missing:
        _say(f"reading data: {', '.join(missing)}")
    resolve(prepared.sweep, sorted(wanted), folders.data, folders.cache, build_cache, read=wanted)


@dataclass(frozen=True, slots=True)
class Finished:
    """The state of the whole sweep after a run."""

    points: int
    done: int
    failed: int
    blocked: int


def _execute(
    prepared: Prepared,
    schedule: Schedule,
    done: Collection[str],
    options: RunOptions,
    folders: Folders,
    status: RunStatus,
    refresh: Refresh,
) -> bool:
    """Run the schedule; returns whether it was interrupted."""
    env = WorkerEnv(
        store=folders.store,
        data=str(folders.data),
        cache=str(folders.cache),
        code=code_state(),
        device="auto",
        precision=options.precision,
    )
    name = prepared.sweep.name
    unavailable = blocked_stages(prepared.plan.stages, done)
    if unavailable:
        reasons = ", ".join(f"{reason} ({count} stages)" for reason, count in Counter(unavailable.values()).items())
        _say(f"will stay blocked: {reasons}")
    _say(f"{name}: {len(schedule.jobs)} jobs to run; store {folders.store}")
    store = Store(folders.store, folders.cache / "artifacts")
    device = _machine(options).device
    prices = Prices(device, measured_in(store))
    shares = {stage.key: job.gpu for job in schedule.jobs.values() for stage in job.stages}
    progress = Progress(
        schedule,
        name,
        quiet=options.quiet,
        checkpoints=store.checkpointed(),
        cost=lambda stage: prices.of(stage, shares.get(stage.key, stage.share or 0.0)).seconds,
    )
    stop = StopRequest()
    ladder = Ladder(device.name, store, room=not options.local)
    handler = OutcomeHandler(schedule, prepared.plan.stages, progress, stop, store, ladder)
    status.follow(progress)
    from ddray.run.display import shown  # rich takes a moment

    with stop.listening(), shown(progress, options.quiet), _ending_in(options.limit.seconds, stop, name):
        if options.local:
            from ddray.run import local

            local.execute(schedule, handler, env, progress, stop, refresh.tick)
        else:
            _say("starting Ray" if options.address is None else f"joining the Ray cluster at {options.address}")
            from ddray.run import tune

            with refresh.beside(), _shared_cards(options.mps):
                tune.execute(
                    schedule,
                    handler,
                    env,
                    progress,
                    stop,
                    sweep=name,
                    run_folder=status.folder,
                    address=options.address,
                    cpus=options.cpus,
                    gpus=options.gpus,
                    gpus_expected=options.gpus_expected,
                    wait_for_nodes=options.wait_for_nodes,
                    on_start=lambda url: _say(f"Ray dashboard: {url}" if url else "Ray runs without a dashboard"),
                )
        shutil.rmtree(status.folder / "tune", ignore_errors=True)
        if handler.environment:
            raise EnvironmentProblem(f"{name}: stopped, nothing that is finished is lost; {handler.environment}")
        return stop.is_set() or handler.interrupted


@contextlib.contextmanager
def _shared_cards(wanted: bool) -> Iterator[None]:
    """With the driver's multi-process service, if it is wanted and can be started: what starts inside uses it."""
    if not wanted:
        yield
        return
    with multi_process_service() as runs:
        _say(
            "jobs share cards through the driver's multi-process service"
            if runs
            else f"--mps: {CONTROL} is not on the PATH or did not start; jobs that share a card take turns on it"
        )
        yield


@contextlib.contextmanager
def _ending_in(seconds: float | None, stop: StopRequest, name: str) -> Iterator[None]:
    """Ask for a stop when the time is over, should jobs take longer than was expected."""

    def end() -> None:
        _say(f"{name}: the time is over; running stages write a checkpoint")
        stop.set()

    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _finish(
    prepared: Prepared,
    results: Results,
    store: Store,
    stamps: dict[str, str],
    options: RunOptions,
    folders: Folders,
) -> tuple[Finished, dict[str, str]]:
    """Tables, report and mirror, unless those on disk are current; the state, and the stages that are there now."""
    failures = sorted(store.failures() & prepared.plan.stages.keys())
    if not results.current(prepared.digest, stamps) or results.state().get("failures") != failures:
        finished = rebuild(prepared, results, store)
        stamps = _stamps(prepared, store)  # collecting may have found damage
        results.record(prepared.digest, stamps, failures=failures, counts=asdict(finished), mirrored="")
    state, place = results.state(), str(Place.of(folders))
    if options.mlflow and state.get("mirrored") != place and mirror_to_mlflow(prepared, results, store, folders):
        results.record(prepared.digest, stamps, failures=failures, counts=state["counts"], mirrored=place)
    return Finished(**state["counts"]), stamps


def rebuild(prepared: Prepared, results: Results, store: Store) -> Finished:
    """Build measurements.parquet, coverage.json, the report with its figures and, of t-SNE maps, embeddings.parquet
    from the store; and keep there what stages took, for the next plan."""
    from ddray.measurements.exports.maps import write_embeddings
    from ddray.measurements.exports.picture import pictures_of_sets
    from ddray.measurements.rows import collect
    from ddray.report.html import SetPicture
    from ddray.report.written import write_report
    from ddray.tracking.links import write_links

    results.folder.mkdir(parents=True, exist_ok=True)
    alarms = [info.alarm for info in prepared.datasets.values() if info.alarm is not None]
    coverage = collect(prepared.plan, prepared.sweep, store, results.folder, alarms)
    write_embeddings(prepared.plan, prepared.sweep, store, results.folder)
    sets = [SetPicture(title, png) for title, png in pictures_of_sets(prepared.plan, store)]
    write_report(results.folder, prepared.sweep.name, sets)
    if not (results.folder / RUNS_HTML).exists():  # the report has links to it
        write_links(results.folder, prepared.sweep.name)
    done = store.keys()
    learn((stage for key, stage in prepared.plan.stages.items() if key in done), store)
    return Finished(coverage.planned, coverage.done, coverage.failed, coverage.blocked)


def _refresh(prepared: Prepared, results: Results, options: RunOptions, folders: Folders) -> None:
    """Tables, report and mirror of what is finished so far. The run's end builds them once more."""
    store = Store(folders.store, folders.cache / "artifacts")
    rebuild(prepared, results, store)
    if options.mlflow:
        from ddray.tracking import mirror

        mirror.mirror(prepared.plan, prepared.sweep, store, folders, results.folder)


def mirror_to_mlflow(prepared: Prepared, results: Results, store: Store, folders: Folders) -> bool:
    """Mirror the points to MLflow; an outage loses nothing, so it is reported, and tried again by the next run."""
    from ddray.tracking import mirror

    try:
        mirrored = mirror.mirror(prepared.plan, prepared.sweep, store, folders, results.folder)
    except EnvironmentProblem as problem:
        _say(f"MLflow was not updated: {problem}\nMirror it later with: ddray collect {prepared.sweep.name} --mlflow")
        return False
    where = f"at {Place.of(folders)}" if folders.tracking else "look with: ddray ui"
    _say(f"MLflow: {mirrored.runs_created} runs created, {mirrored.runs_updated} updated; {where}")
    return True


def _damaged(store: Store, results: Results, stamps: Mapping[str, str]) -> set[str]:
    """Finished keys whose files changed since the tables were built and do not match their digests any more."""
    from ddray.store.artifacts import DamagedArtifact

    known: dict[str, str] = results.state().get("stamps", {})
    damaged = set()
    for key, stamp in stamps.items():
        if known.get(key, stamp) != stamp:
            try:
                store.open(key)
            except DamagedArtifact as damage:
                _say(str(damage))
                damaged.add(key)
            except KeyError:
                damaged.add(key)
    return damaged


def _summary(
    prepared: Prepared,
    done: Collection[str],
    worked: bool,
    schedule: Schedule,
    finished: Finished,
    results: Results,
    code: int,
) -> None:
    name = prepared.sweep.name
    failed: dict[str, list[str]] = defaultdict(list)
    for key, cause in schedule.failed.items():
        failed[cause].append(key)
    waiting = Counter(schedule.blocked.values())
    for cause, keys in sorted(failed.items(), key=lambda entry: -len(entry[1])):
        stuck = sum(waiting[key] for key in keys)
        behind = f", {stuck} more wait for them" if stuck else ""
        _say(f"failed: {len(keys)} x {cause}{behind}\n    look closer with: ddray debug {short(keys[0])}")
    unavailable = Counter(blocked_stages(prepared.plan.stages, done).values())
    for reason, count in unavailable.items():
        _say(f"blocked: {reason} ({count} stages)")
    counts = f"{finished.done} of {finished.points} points done"
    counts += f", {finished.failed} failed" if finished.failed else ""
    counts += f", {finished.blocked} blocked" if finished.blocked else ""
    if code == INTERRUPTED:
        _say(f"{name}: interrupted; {counts}. Run the same command again to continue.")
    elif not worked:
        _say(f"{name}: nothing to do; {counts}")
    else:
        _say(f"{name}: {counts}")
    with contextlib.suppress(FileNotFoundError):
        sys.stdout.write(first_page((results.folder / REPORT_MD).read_text(encoding="utf-8")) + "\n")
        sys.stdout.write(f"report:  {results.folder / REPORT_HTML} (in a terminal: ddray report {name} --full)\n")
    sys.stdout.write(f"results: {results.folder}\n")


def with_variables(command: str, names: Mapping[str, str]) -> str:
    """A shell command with variables instead of placeholders, quoted as its place in the command asks.

    The shell takes their values from its environment; in the command's own text a name could be a command itself.

    Args:
        command: For ``sh``.
        names: Placeholder -> variable.
    """
    parts = re.split(rf"({'|'.join(map(re.escape, names))}|\\.|['\"])", command)
    quote = ""
    for index, part in enumerate(parts):
        if part in names:
            variable = f"${{{names[part]}}}"
            parts[index] = {"": f'"{variable}"', '"': variable, "'": f"'\"{variable}\"'"}[quote]
        elif part.startswith("\\") and quote != "'":
            continue  # an escaped character; between single quotes nothing is escaped
        elif part[-1:] in ("'", '"') and quote in ("", part[-1]):
            quote = "" if quote else part[-1]
    return "".join(parts)


def _notify(prepared: Prepared, code: int) -> None:
    """Run the sweep's ``notify`` command; its failure is a warning."""
    notify = prepared.sweep.notify
    if notify is None:
        return
    status = {DONE: "done", FAILED: "failed", INTERRUPTED: "interrupted"}[code]
    command = with_variables(notify.command, {"{sweep}": "DDRAY_SWEEP", "{status}": "DDRAY_STATUS"})
    environment = {**os.environ, "DDRAY_SWEEP": prepared.sweep.name, "DDRAY_STATUS": status}
    try:
        ran = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"notify: {command!r} did not run: {error}")
        return
    if ran.returncode != 0:
        _say(f"notify: {command!r} ended with {ran.returncode}: {ran.stderr.strip()[:300]}")


def _check_home(folders: Folders) -> None:
    try:
        folders.home.mkdir(parents=True, exist_ok=True)
        probe = folders.home / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise EnvironmentProblem(
            f"home {folders.home}: not writable; got {error}. Set DDRAY_HOME to a folder you can write to."
        ) from error


def _check_disk(folders: Folders, schedule: Schedule) -> None:
    """Refuse a disk that cannot hold what is to be computed."""
    if "://" in folders.store:
        return
    needed = MIN_FREE_BYTES + sum(stage.size for job in schedule.jobs.values() for stage in job.stages)
    free = shutil.disk_usage(folders.home if not Path(folders.store).exists() else folders.store).free
    if free < needed:
        raise EnvironmentProblem(
            f"store {folders.store}: {free / 2**30:.1f} GiB free; expected about {needed / 2**30:.1f} GiB. "
            "Free some space, narrow the sweep with --only, or set DDRAY_STORE to another disk."
        )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
