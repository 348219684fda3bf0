"""The only module that imports MLflow: it writes runs."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ddray import settings
from ddray.errors import EnvironmentProblem
from ddray.measurements.exports.picture import picture
from ddray.plan.axes import run_name
from ddray.plan.graph import Chain, Stage
from ddray.plan.points import Sweep
from ddray.results import FIGURES_FOLDER, REPORT_HTML, REPORT_MD
from ddray.store.artifacts import DamagedArtifact, Store
from ddray.tracking import content
from ddray.tracking.measured import MeasuredPoint
from ddray.tracking.runs import DIGEST, PLANNED, POINT, REPORT, Place, Run
from trainables import files

log = logging.getLogger(__name__)

MAX_CURVE = 20
"""Steps of a series. Beyond, MLflow's page crawls."""
_BATCH = 900
"""Metrics per call; MLflow takes 1000."""


class Writer:
    """Writes runs of one experiment."""

    def __init__(self, place: Place, sweep: Sweep, store: Store) -> None:
        mlflow = _mlflow()
        if place.database is not None:
            place.database.parent.mkdir(parents=True, exist_ok=True)
        self.client: Any = mlflow.MlflowClient(place.uri)
        self.entities: Any = mlflow.entities
        self.store = store
        self.experiment: str = self._experiment(place, sweep)
        self._pictures: dict[str, bytes] = {}

    def write(self, chain: Chain, point: MeasuredPoint, runs: Sequence[Run]) -> bool:
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

    def write_report(self, folder: Path, digest: str, runs: Sequence[Run]) -> None:
        """Create or renew the run that holds a sweep's report and figures.

        Args:
            folder: Of the sweep's results.
            digest: Of the report.
            runs: That hold one already.
        """
        for run in runs[1:]:
            self.client.delete_run(run.id)
        if runs:
            run_id = runs[0].id
        else:
            tags = {POINT: REPORT, PLANNED: "true"}
            run_id = str(self.client.create_run(self.experiment, tags=tags, run_name="report").info.run_id)
        for name in (REPORT_HTML, REPORT_MD):
            self.client.log_artifact(run_id, str(folder / name))
        if (folder / FIGURES_FOLDER).is_dir():
            self.client.log_artifacts(run_id, str(folder / FIGURES_FOLDER), FIGURES_FOLDER)
        self.client.set_terminated(run_id)
        self.client.set_tag(run_id, DIGEST, digest)

    def existing(self) -> dict[str, list[Run]]:
        """Runs by point, as MLflow's client lists them."""
        runs: dict[str, list[Run]] = {}
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token or None)
            for run in page:
                tags = run.data.tags
                if POINT in tags:
                    entry = Run(run.info.run_id, tags.get(DIGEST), tags.get(PLANNED) != "false")
                    runs.setdefault(tags[POINT], []).append(entry)
            token = page.token or None
        return runs

    def _experiment(self, place: Place, sweep: Sweep) -> str:
        name = f"ddray/{sweep.name}"
        location = (place.artifacts / sweep.name).absolute().as_uri() if place.artifacts is not None else None
        wanted = content.experiment_tags(sweep.name)
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return str(self.client.create_experiment(name, artifact_location=location, tags=wanted))
        for tag, value in wanted.items():
            if experiment.tags.get(tag) != value:
                self.client.set_experiment_tag(experiment.experiment_id, tag, value)
        if experiment.lifecycle_stage != "active":
            self.client.restore_experiment(experiment.experiment_id)
        if location is not None and experiment.artifact_location != location:
            log.warning(
                "%s: MLflow's database remembers artifacts of %s in %s, where home was before. Delete the database "
                "and mirror again to have them here.",
                place,
                name,
                experiment.artifact_location,
            )
        return str(experiment.experiment_id)

    def _create(self, chain: Chain, point: MeasuredPoint) -> str:
        started = min((row.at for row in point.rows if row.at), default=None)
        tags = {POINT: chain.point.hash, PLANNED: "true"}
        run = self.client.create_run(self.experiment, start_time=started, tags=tags, run_name=run_name(chain.point))
        return str(run.info.run_id)

    def _fill(self, run: str, chain: Chain, point: MeasuredPoint) -> None:
        entities = self.entities
        params = [entities.Param(name, value) for name, value in content.params(chain).items()]
        tags = [entities.RunTag(name, value) for name, value in content.tags(chain, point).items()]
        metrics = [entities.Metric(*metric) for metric in self._metrics(chain, point)]
        self.client.log_batch(run, params=params, tags=tags[:_BATCH], metrics=metrics[:_BATCH])
        self.client.log_inputs(run, [self._input(each) for each in content.data(chain)])
        for start in range(_BATCH, len(metrics), _BATCH):
            self.client.log_batch(run, metrics=metrics[start : start + _BATCH])
        with tempfile.TemporaryDirectory() as temporary:
            if self._files(Path(temporary), chain, point):
                self.client.log_artifacts(run, temporary)
        ended = max((row.at for row in point.rows), default=0) or None
        self.client.set_terminated(run, status="FAILED" if point.status == "failed" else "FINISHED", end_time=ended)
        self.client.set_tag(run, DIGEST, point.digest)

    def _input(self, data: content.Data) -> Any:
        entities = self.entities
        of = entities.Dataset(name=data.name, digest=data.digest, source_type="ddray", source=data.digest)
        return entities.DatasetInput(of, [entities.InputTag("mlflow.data.context", data.context)])

    def _metrics(self, chain: Chain, point: MeasuredPoint) -> Iterator[content.Metric]:
        yield from content.metrics(point)
        at = max((row.at for row in point.rows), default=0)
        for entry in self._curve(chain)[-MAX_CURVE:]:
            yield content.Metric("curve_test_acc", float(entry["test_acc"]), at, int(entry["steps"]))

    def _curve(self, chain: Chain) -> list[dict[str, Any]]:
        folder = self._folder(chain.stage("train"))
        if folder is None:
            return []
        curve: list[dict[str, Any]] = files.load_json(folder / files.MODEL_INFO)["facts"].get("curve", [])
        return curve

    def _files(self, folder: Path, chain: Chain, point: MeasuredPoint) -> bool:
        """Write the run's files into a folder; returns whether there are any."""
        by_class: dict[int, dict[str, float]] = {}
        for row in point.rows:
            if row.class_id is not None and row.value is not None:
                by_class.setdefault(row.class_id, {})[content.metric_name(row)] = row.value
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
