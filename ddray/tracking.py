"""The store's facts mirrored to MLflow: one experiment per sweep, one flat run per grid point. Rebuildable at any time.

The only module that imports MLflow. The driver alone calls it; workers never do, so one process writes to the SQLite
database and a tracking outage loses nothing. A run is found again by its tag ``ddray.point``; ``ddray.digest``, written
last, says what it holds, so that mirroring again touches only what changed and a mirror that was killed is completed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ddray import settings
from ddray.errors import EnvironmentProblem
from ddray.measurements.metrics import MEASURED
from ddray.plan.axes import run_name
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan
from ddray.plan.keys import digest
from ddray.plan.points import Sweep
from ddray.settings import Places
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.configs import DistillConfig, TrainConfig

log = logging.getLogger(__name__)

VERSION = 2
"""Raised when runs are written differently; they are then updated once."""
POINT, DIGEST, PLANNED = "ddray.point", "ddray.digest", "ddray.planned"
MAX_PARAMS, MAX_PARAM, MAX_METRICS, MAX_CURVE, MAX_TAG = 100, 6000, 80, 20, 5000
"""Of one run: numbers of names, characters of a value, steps of a series. Beyond, MLflow refuses or its page crawls."""
LOCK_SECONDS = 60.0
_BATCH = 900
"""Metrics per call; MLflow takes 1000."""


@dataclass(frozen=True, slots=True)
class MirrorResult:
    """What a mirror did."""

    runs_created: int
    runs_updated: int
    stale: int
    """Runs of points that the sweep no longer plans; they are tagged, not deleted."""


@dataclass(slots=True)
class _Row:
    """A number of a point."""

    metric: str
    value: float | None
    class_id: int | None
    parameters: tuple[Any, ...]
    status: str
    note: str | None
    at: int
    """Milliseconds since 1970 at which its stage started; 0 if not recorded."""


@dataclass(slots=True)
class _Point:
    """What the table of measurements says of a point."""

    rows: list[_Row] = field(default_factory=list)
    commit: str | None = None
    dirty: bool | None = None
    device: str | None = None
    digest: str = ""

    @property
    def states(self) -> set[str]:
        return {row.status for row in self.rows}

    @property
    def status(self) -> str:
        """The point's state, judged as in its coverage."""
        return next((state for state in ("failed", "pending", "blocked") if state in self.states), "done")

    @property
    def measured(self) -> bool:
        """Whether there is anything to show beyond what the stages cost."""
        return any(row.status == "ok" and row.metric == "test_acc" for row in self.rows) or self.status == "failed"


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that exists."""

    id: str
    digest: str | None
    planned: bool


def tracking_uri(places: Places) -> str:
    """Where MLflow keeps its runs: an absolute SQLite address."""
    return f"sqlite:///{places.mlflow_database.absolute().as_posix()}"


def mirror(
    plan: Plan, sweep: Sweep, store: Store, places: Places, folder: Path, *, lock_seconds: float = LOCK_SECONDS
) -> MirrorResult:
    """Bring the runs of a sweep up to date.

    Points with a result or a failure get a run; pending ones get none until then. Nothing of MLflow is imported when
    nothing changed.

    Args:
        plan: The whole sweep.
        sweep: Gives the experiment its name, ``ddray/<sweep>``.
        store: Curves and pictures come from its artifacts.
        places: Database and artifacts lie below home.
        folder: Holds the ``measurements.parquet`` just collected.
        lock_seconds: How long to wait for another mirror on the same database.

    Raises:
        EnvironmentProblem: MLflow is not installed, its database cannot be used, or another mirror takes too long.
    """
    points = _measured(plan, folder / "measurements.parquet")
    with _one_at_a_time(places, lock_seconds), _understood(places):
        known = _existing(places.mlflow_database, f"ddray/{sweep.name}")
        if known is not None:
            work = _compare(plan, points, known)
            if not work.chains and not work.left:
                return MirrorResult(0, 0, work.stale)
        writer = _Writer(places, sweep, store)
        known = _existing(places.mlflow_database, f"ddray/{sweep.name}")
        if known is None:
            known = writer.existing()
        work = _compare(plan, points, known)
        for run in work.left:
            writer.client.set_tag(run.id, PLANNED, "false")
        created = sum(
            writer.write(chain, points[chain.point.hash], known.get(chain.point.hash, [])) for chain in work.chains
        )
    return MirrorResult(created, len(work.chains) - created, work.stale)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done."""

    chains: list[Chain]
    """Points whose run is missing or says something else."""
    left: list[_Run]
    """Runs of points that are no longer planned and not tagged so."""
    stale: int


def _compare(plan: Plan, points: Mapping[str, _Point], known: Mapping[str, Sequence[_Run]]) -> _Work:
    planned = {chain.point.hash for chain in plan.chains}
    stale = [run for point, runs in known.items() if point not in planned for run in runs]
    chains = [
        chain for chain in plan.chains if _needs_writing(points.get(chain.point.hash), known.get(chain.point.hash, []))
    ]
    return _Work(chains, [run for run in stale if run.planned], len(stale))


def _needs_writing(point: _Point | None, runs: Sequence[_Run]) -> bool:
    if point is None or (not runs and not point.measured):
        return False
    return len(runs) != 1 or runs[0].digest != point.digest or not runs[0].planned


# --- what there is ----------------------------------------------------------------------------------------------------

_PARAMETERS = ("attack", "norm", "epsilon", "audit", "fpr")
"""Columns that tell apart numbers of one metric."""


_TELLING = (
    "property",
    "epsilon",
    "norm",
    "adv_def",
    "member_role",
    "repeat",
    "agg",
    "nonmember_source",
    "variance_mode",
    "param_json",
)
_BUDGETS = (0.0, 0.5, 1.0, 2 / 255, 8 / 255)
"""Epsilons whose accuracies are mirrored."""


def _headlines(table: Any) -> Any:
    """Which rows MLflow gets: of each evaluation the numbers one compares runs by. All are in the table itself."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def one_of(name: str, values: Sequence[Any]) -> Any:
        column = table[name]
        plain = pc.cast(column, pa.string()) if pa.types.is_dictionary(column.type) else column
        return pc.is_in(plain, value_set=pa.array([*values], plain.type))

    def usual(name: str, *values: str) -> Any:
        return pc.or_(pc.is_null(table[name]), one_of(name, values)) if values else pc.is_null(table[name])

    keep = one_of("metric", [metric.id for metric in MEASURED if metric.mirrored])
    for mask in (
        usual("member_role"),
        usual("repeat"),
        usual("adv_def", "clip"),
        usual("nonmember_source", "pool", "test_balanced"),
        usual("variance_mode", "shrunk"),
        pc.invert(one_of("agg", ["pooled"])),
        pc.or_(pc.is_null(table["epsilon"]), one_of("epsilon", _BUDGETS)),
        pc.invert(pc.fill_null(pc.match_substring(table["param_json"], '"iteration":0'), False)),
    ):
        keep = pc.and_(keep, mask)
    return pc.or_(keep, pc.invert(one_of("status", ["ok"])))


def _measured(plan: Plan, path: Path) -> dict[str, _Point]:
    """The table's rows by point, and the digest of everything a run is made of."""
    import pyarrow.parquet as pq

    columns = [
        "point",
        "metric",
        "value",
        "class_id",
        "status",
        "note",
        "started_at",
        "git_commit",
        "dirty",
        "device",
        "distilled_hash",
        "model_hash",
        *_PARAMETERS,
    ]
    try:
        table = pq.read_table(path, columns=list(dict.fromkeys((*columns, *_TELLING))))
        table = table.filter(_headlines(table))
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"{path}: cannot be read; got {error}. Run `ddray collect` to make it again."
        ) from error
    points: dict[str, _Point] = {}
    material: dict[str, list[Any]] = {}
    lists = [table[name].to_pylist() for name in columns]
    for hash_, metric, value, class_id, status, note, started, commit, dirty, device, *rest in zip(*lists, strict=True):
        point = points.setdefault(hash_, _Point())
        at = int(started.timestamp() * 1000) if isinstance(started, datetime) else 0
        parameters = tuple(rest[2:])
        point.rows.append(_Row(metric, value, class_id, parameters, status, note, at))
        point.commit, point.dirty = commit or point.commit, dirty if dirty is not None else point.dirty
        point.device = device or point.device
        material.setdefault(hash_, []).append(
            [metric, value, class_id, parameters, status, note, at, commit, dirty, *rest[:2]]
        )
    for chain in plan.chains:
        if chain.point.hash in points:
            keys = [stage.key for stage in chain.stages]
            points[chain.point.hash].digest = digest([VERSION, keys, chain.point.grids, material[chain.point.hash]])
    return points


def _existing(database: Path, experiment: str) -> dict[str, list[_Run]] | None:
    """Runs by point, read straight from the tags: a thousand in milliseconds, where the client takes seconds.

    Returns:
        None when there is no such database, or its tables are not the ones we know; ask the client then.
    """
    if not database.exists():
        return None
    query = """
        SELECT tags.run_uuid, tags.key, tags.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid
        JOIN experiments ON experiments.experiment_id = runs.experiment_id
        WHERE experiments.name = ? AND runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
        AND tags.key IN (?, ?, ?)
    """
    tags: dict[str, dict[str, str]] = {}
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            for run, key, value in connection.execute(query, (experiment, POINT, DIGEST, PLANNED)):
                tags.setdefault(run, {})[key] = value
    except sqlite3.Error as error:
        log.debug("%s: %s", database, error)
        return None
    runs: dict[str, list[_Run]] = {}
    for run, found in sorted(tags.items()):
        if POINT in found:
            entry = _Run(run, found.get(DIGEST), found.get(PLANNED) != "false")
            runs.setdefault(found[POINT], []).append(entry)
    return runs


# --- writing ----------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes runs of one experiment."""

    def __init__(self, places: Places, sweep: Sweep, store: Store) -> None:
        mlflow = _mlflow()
        places.mlflow_database.parent.mkdir(parents=True, exist_ok=True)
        self.client: Any = mlflow.MlflowClient(tracking_uri(places))
        self.entities: Any = mlflow.entities
        self.store = store
        self.experiment: str = self._experiment(places, sweep)
        self._pictures: dict[str, bytes] = {}

    def write(self, chain: Chain, point: _Point, runs: Sequence[_Run]) -> bool:
        """Create or complete the run of a point; returns whether it was created."""
        from mlflow.exceptions import MlflowException

        kept = max(runs, key=lambda run: run.digest is not None, default=None)
        for run in runs:
            if run is not kept:  # two mirrors of different machines once wrote to one database
                self.client.delete_run(run.id)
        if kept is None:
            self._fill(self._create(chain, point), chain, point)
            return True
        try:
            self._fill(kept.id, chain, point)
        except MlflowException as error:
            if "param" not in str(error).lower():
                raise
            # MLflow never changes a parameter: the point is the same, what it resolves to is not any more.
            self.client.delete_run(kept.id)
            self._fill(self._create(chain, point), chain, point)
        return False

    def existing(self) -> dict[str, list[_Run]]:
        """Runs by point, asked of MLflow itself."""
        runs: dict[str, list[_Run]] = {}
        token: str | None = ""
        while token is not None:
            found = self.client.search_runs([self.experiment], max_results=1000, page_token=token or None)
            for run in found:
                tags = run.data.tags
                if POINT in tags:
                    entry = _Run(run.info.run_id, tags.get(DIGEST), tags.get(PLANNED) != "false")
                    runs.setdefault(tags[POINT], []).append(entry)
            token = found.token or None
        return runs

    def _experiment(self, places: Places, sweep: Sweep) -> str:
        name = f"ddray/{sweep.name}"
        location = (places.mlflow_artifacts / sweep.name).absolute().as_uri()
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name, artifact_location=location))
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        if found.artifact_location != location:
            log.warning(
                "%s: MLflow's database remembers artifacts of %s in %s, where home was before. Delete the database "
                "and mirror again to have them here.",
                places.mlflow_database,
                name,
                found.artifact_location,
            )
        return str(found.experiment_id)

    def _create(self, chain: Chain, point: _Point) -> str:
        started = min((row.at for row in point.rows if row.at), default=None)
        tags = {POINT: chain.point.hash, PLANNED: "true"}
        run = self.client.create_run(self.experiment, start_time=started, tags=tags, run_name=run_name(chain.point))
        return str(run.info.run_id)

    def _fill(self, run: str, chain: Chain, point: _Point) -> None:
        entities = self.entities
        params = [entities.Param(name, value) for name, value in _params(chain).items()]
        tags = [entities.RunTag(name, value) for name, value in _tags(chain, point).items()]
        metrics = [entities.Metric(name, value, at, step) for name, value, at, step in self._metrics(chain, point)]
        self.client.log_batch(run, params=params, tags=tags[:_BATCH], metrics=metrics[:_BATCH])
        for start in range(_BATCH, len(metrics), _BATCH):
            self.client.log_batch(run, metrics=metrics[start : start + _BATCH])
        with tempfile.TemporaryDirectory() as temporary:
            if self._files(Path(temporary), chain, point):
                self.client.log_artifacts(run, temporary)
        ended = max((row.at for row in point.rows), default=0) or None
        self.client.set_terminated(run, status="FAILED" if point.status == "failed" else "FINISHED", end_time=ended)
        self.client.set_tag(run, DIGEST, point.digest)

    def _metrics(self, chain: Chain, point: _Point) -> Iterator[tuple[str, float, int, int]]:
        """(name, value, milliseconds, step)."""
        named: dict[str, _Row] = {}
        for row in point.rows:
            if row.value is not None and row.class_id is None:
                # Of variants of an attack, the first is the one it is named for.
                named.setdefault(_metric_name(row), row)
        for name, row in list(named.items())[: MAX_METRICS - 1]:
            assert row.value is not None
            yield name, row.value, row.at, 0
        at = max((row.at for row in point.rows), default=0)
        for entry in self._curve(chain)[-MAX_CURVE:]:
            yield "curve_test_acc", float(entry["test_acc"]), at, int(entry["steps"])

    def _curve(self, chain: Chain) -> list[dict[str, Any]]:
        folder = self._folder(chain.stage("train"))
        if folder is None:
            return []
        curve: list[dict[str, Any]] = files.load_json(folder / files.MODEL_INFO)["facts"].get("curve", [])
        return curve

    def _files(self, folder: Path, chain: Chain, point: _Point) -> bool:
        """Write the run's files into a folder; returns whether there are any."""
        by_class: dict[int, dict[str, float]] = {}
        for row in point.rows:
            if row.class_id is not None and row.value is not None:
                by_class.setdefault(row.class_id, {})[_metric_name(row)] = row.value
        if by_class:
            names = sorted({name for values in by_class.values() for name in values})
            data = [[class_id, *(by_class[class_id].get(name) for name in names)] for class_id in sorted(by_class)]
            (folder / "per_class.json").write_text(json.dumps({"columns": ["class_id", *names], "data": data}))
        distill = chain.stage("distill")
        if distill is not None and (picture := self._picture(distill)):
            (folder / "distilled.png").write_bytes(picture)
        return any(folder.iterdir())

    def _picture(self, distill: Stage) -> bytes:
        if distill.key not in self._pictures:
            if len(self._pictures) >= 8:  # chains that share a set follow one another
                self._pictures.pop(next(iter(self._pictures)))
            self._pictures[distill.key] = self._drawn(distill)
        return self._pictures[distill.key]

    def _drawn(self, distill: Stage) -> bytes:
        from ddray.measurements.exports.picture import picture

        folder = self._folder(distill)
        if folder is None:
            return b""
        arrays = files.load_arrays(folder / files.SET_TENSORS)
        return picture(arrays["images"], arrays["labels"], files.load_json(folder / files.SET_INFO))

    def _folder(self, stage: Stage | None) -> Path | None:
        """The payload of a finished stage; None when there is none, or it is damaged."""
        if stage is None:
            return None
        try:
            return self.store.open(stage.key).folder
        except KeyError:
            return None
        except DamagedArtifact as error:
            log.warning("%s", error)
            return None


def _metric_name(row: _Row) -> str:
    """The metric, and the parameters that tell it from others: ``adv_acc/deepfool_l2/l2/0.5``."""
    return "/".join([row.metric, *(str(value) for value in row.parameters if value is not None)])


def _tags(chain: Chain, point: _Point) -> dict[str, str]:
    axes = {
        name: getattr(chain.point, name)
        for name in (
            "method",
            "dataset",
            "ipc",
            "init",
            "architecture",
            "seed",
            "distill_seed",
            "origin_per_class",
            "num_classes",
        )
    }
    notes = dict.fromkeys(row.note for row in point.rows if row.note)
    said: dict[str, Any] = {
        **axes,
        "protocol": chain.protocol,
        "status": point.status,
        "git_commit": point.commit,
        "dirty": None if point.dirty is None else str(point.dirty).lower(),
        "device": point.device,
        "note": "\n".join(map(str, notes)),
        "ddray.grids": ", ".join(chain.point.grids),
        PLANNED: "true",
        **{f"ddray.stage.{stage.kind}": stage.key for stage in chain.stages},
    }
    return {name: str(value)[:MAX_TAG] for name, value in said.items() if value is not None}


def _params(chain: Chain) -> dict[str, str]:
    """The resolved configuration, flat."""
    train, distill = chain.stage("train"), chain.stage("distill")
    found: dict[str, Any] = {"method": chain.point.method, "protocol": chain.protocol}
    if train is not None and isinstance(train.config, TrainConfig):
        dumped = train.config.model_dump(mode="json")
        found |= _flat({name: dumped[name] for name in ("dataset", "origin")})
        found |= _flat({name: value for name, value in dumped.items() if name not in ("dataset", "origin")}, "train.")
    if distill is not None and isinstance(distill.config, DistillConfig):
        dumped = distill.config.model_dump(mode="json", exclude={"dataset", "origin", "method"})
        found |= _flat(dumped, "distill.")
    texts = {name: str(value)[:MAX_PARAM] for name, value in sorted(found.items()) if value is not None}
    if len(texts) > MAX_PARAMS:
        rest = dict(itertools.islice(texts.items(), MAX_PARAMS - 1, None))
        texts = dict(itertools.islice(texts.items(), MAX_PARAMS - 1)) | {"further": json.dumps(rest)[:MAX_PARAM]}
    return texts


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


# --- surroundings -----------------------------------------------------------------------------------------------------


def _mlflow() -> Any:
    """The package, and not the repository's folder of the same name; its chatter turned down."""
    settings.set_environment()
    try:
        import mlflow
    except ImportError as error:
        raise EnvironmentProblem(
            f"mlflow: cannot be imported; got {error}. Install it with: pip install mlflow"
        ) from error
    if getattr(mlflow, "__file__", None) is None:
        raise EnvironmentProblem(
            "mlflow: MLflow is not installed; the folder mlflow/ of this repository is not the package. Install it "
            "with: pip install mlflow"
        )
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


@contextlib.contextmanager
def _one_at_a_time(places: Places, seconds: float) -> Iterator[None]:
    """One mirror on a database: its first use creates tables, and two that do so at once break it."""
    from filelock import FileLock, Timeout

    path = places.mlflow_database.with_name(places.mlflow_database.name + ".lock")
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
def _understood(places: Places) -> Iterator[None]:
    """Errors of MLflow and its database, with what to do about them."""
    try:
        yield
    except EnvironmentProblem:
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("mlflow", "sqlalchemy", "alembic", "sqlite3"):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentProblem(
            f"{places.mlflow_database}: MLflow cannot use its database; got {first}. Delete the file and mirror again: "
            "everything in it is rebuilt from the store."
        ) from error
