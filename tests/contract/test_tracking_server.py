"""The mirror's contract with an MLflow that is not ours: a real server over HTTP, on SQLite and on Postgres."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import worlds
from workspace import Workspace

from ddray.errors import EnvironmentProblem
from ddray.measurements.rows import collect
from ddray.results import RUNS_HTML
from ddray.settings import Folders, folders
from ddray.tracking.mirror import MirrorResult, mirror
from ddray.tracking.runs import Place

SWEEP = """
ddray: 1
grids:
  small:
    protocol: quick
    axes: {method: [random, full], dataset: [digits], ipc: [2], seed: [0]}
"""
POSTGRES = "DDRAY_TEST_POSTGRES"
"""Address of an empty Postgres database that a test may fill, like ``postgresql+psycopg2://mlflow@127.0.0.1/mlflow``."""


@dataclass
class Server:
    """A real one."""

    address: str

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.address)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    backend = f"sqlite:///{folder}/mlflow.db"
    if request.param == "postgres":
        backend = os.environ.get(POSTGRES, "")
        if not backend:
            pytest.skip(f"NOT RUN: {POSTGRES} names no database")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not _answers(address):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
        yield Server(address)
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{address}/health", timeout=2).status == 200)
    except OSError:
        return False


def test_a_server_gets_runs_reports_and_files_and_keeps_them(server: Server, tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, SWEEP)
    here = Folders(tmp_path / "home", store.location, tmp_path / "data", tmp_path / "cache", server.address)
    worlds.fill(store, plan, chains=worlds.chains_of(plan, method="random"))

    def mirrored() -> MirrorResult:
        collect(plan, sweep, store, tmp_path / "results")
        return mirror(plan, sweep, store, here, tmp_path / "results")

    assert mirrored() == MirrorResult(1, 0, 0)
    assert mirrored() == MirrorResult(0, 0, 0), "nothing is written twice"
    worlds.fill(store, plan)
    assert mirrored() == MirrorResult(1, 0, 0), "what arrives later is added"
    assert not here.mlflow_database.exists(), "nothing is written to a database of ours"

    experiment = server.client.get_experiment_by_name(f"ddray/{sweep.name}")
    runs = {run.info.run_name: run for run in server.client.search_runs([experiment.experiment_id])}
    points = [run for name, run in runs.items() if name != "report"]
    assert len(points) == 2
    assert all(0 <= run.data.metrics["test_acc"] <= 1 for run in points)
    assert {run.info.status for run in points} == {"FINISHED"}
    assert experiment.artifact_location.startswith("mlflow-artifacts:"), "the server keeps the files"
    (drawn,) = [run for run in points if run.data.params["method"] == "random"]
    picture = Path(server.client.download_artifacts(drawn.info.run_id, "distilled.png", str(tmp_path)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "results" / RUNS_HTML).read_text()
    for run in points:
        entry = re.search(f'id="{run.data.tags["ddray.point"]}".*href="([^"]+)"', page)
        assert entry is not None
        address = f"{server.address}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}"
        assert entry[1] == f"{address}?workflowType=machine_learning"
    assert page.count("href=") == 2 + 1, "and the page's icon"


def test_a_server_that_is_gone_is_said_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    sweep, plan, store = worlds.world(tmp_path, SWEEP)
    here = Folders(
        tmp_path / "home", store.location, tmp_path / "data", tmp_path / "cache", "http://me:secret@127.0.0.1:9"
    )
    worlds.fill(store, plan)
    collect(plan, sweep, store, tmp_path / "results")
    with pytest.raises(EnvironmentProblem) as problem:
        mirror(plan, sweep, store, here, tmp_path / "results")
    assert "MLFLOW_TRACKING_URI: MLflow at http://127.0.0.1:9 cannot be used" in str(problem.value)
    assert "unset the variable" in str(problem.value)
    assert "secret" not in str(problem.value)


def test_the_variable_decides(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ours = folders()
    assert Place.of(ours).database == ours.mlflow_database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.lab:5000/a?b=c")
    theirs = Place.of(folders())
    assert theirs == Place(None, None, "http://me:secret@tracking.lab:5000/a?b=c")
    assert theirs.uri == "http://me:secret@tracking.lab:5000/a?b=c"
    assert str(theirs) == "http://tracking.lab:5000/a?b=c"
    assert Place.of(replace(folders(), tracking="")) == Place.of(ours)
    ran = workspace.run("ui")
    assert ran.code == 2
    assert "open that in a browser" in ran.err
    assert "secret" not in ran.err


def test_another_place_is_filled_though_the_tables_are_current(workspace: Workspace, tmp_path: Path) -> None:
    """Also a database without a server: what MLflow's client takes."""
    path = workspace.tiny()
    assert workspace.run("sweep", path, "--local", "-q").code == 0
    address = f"sqlite:///{tmp_path}/theirs.db"
    ran = workspace.spawn("sweep", path, "--local", "-q", MLFLOW_TRACKING_URI=address)
    assert ran.code == 0, ran.err
    assert f"4 runs created, 0 updated; at {address}" in ran.err
    again = workspace.spawn("sweep", path, "--local", "-q", MLFLOW_TRACKING_URI=address)
    assert "MLflow" not in again.err
