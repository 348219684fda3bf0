"""`ddray ui`: what it says, and that its server ends with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace, places_in


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def asked(port: int, what: str, content: dict[str, Any] | None = None) -> Any:
    """What the server's own interface answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json"}
    body = None if content is None else json.dumps(content)
    connection.request("GET" if body is None else "POST", f"/api/2.0/mlflow/{what}", body, headers)
    return json.loads(connection.getresponse().read())


def test_nothing_to_show_is_said(workspace: Workspace) -> None:
    ran = workspace.run("ui")
    assert ran.code == 2
    assert "ddray collect SWEEP --mlflow" in ran.err


def test_a_taken_port_is_said(workspace: Workspace) -> None:
    database = workspace.folders.mlflow_database
    database.parent.mkdir(parents=True)
    sqlite3.connect(database).close()
    database.touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = workspace.run("ui", "--port", taken.getsockname()[1])
    assert ran.code == 3
    assert "Choose another --port" in ran.err


def test_a_database_of_another_mlflow_ends_with_a_message(workspace: Workspace) -> None:
    database = workspace.folders.mlflow_database
    database.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('feedfeedfeed')")
        connection.commit()
    ran = workspace.run("ui", "--port", str(free_port()))
    assert ran.code == 3
    assert "another version of MLflow; got schema feedfeedfeed" in ran.err
    assert "ddray collect SWEEP --mlflow" in ran.err
    assert "Traceback" not in ran.err


def test_a_server_that_ends_by_itself_is_no_success(workspace: Workspace) -> None:
    database = workspace.folders.mlflow_database
    database.parent.mkdir(parents=True)
    database.touch()
    broken = workspace.folder / "broken" / "mlflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "__main__.py").write_text("raise SystemExit(7)")
    ran = workspace.spawn("ui", "--port", str(free_port()), PYTHONPATH=str(broken.parent))
    assert ran.code == 3
    assert "MLflow's server ended by itself with exit code 7" in ran.err


@pytest.fixture
def odd(tmp_path: Path, digits_cache: Path) -> Iterator[Workspace]:
    """A home of which addresses cannot be made by writing its path into them."""
    folder = tmp_path / "what next? 50%41 #1 übung & 'more'"
    folder.mkdir()
    with places_in(folder, digits_cache) as workspace:
        yield workspace


def test_the_server_shows_the_sweep_and_ends_with_the_command(odd: Workspace) -> None:
    workspace = odd
    path = workspace.tiny(iterations=1)
    assert workspace.run("sweep", path, "--local").code == 0
    files = {entry.name for entry in workspace.folders.mlflow_database.parent.iterdir()}
    assert files == {"mlflow.db", "mlflow.db.lock", "artifacts"}
    port = free_port()
    with workspace.start("ui", "--port", str(port)) as running:
        running.until(lambda: answers(port))
        runs = asked(port, "runs/search", {"experiment_ids": ["1"]})["runs"]
        by_name = {run["info"]["run_name"]: run["info"]["run_id"] for run in runs}
        assert len(by_name) == 5, "four points and the report, all in the database that the sweep wrote"
        for name, wanted in (("report", {"report.html", "figures"}), (min(by_name), {"distilled.png"})):
            listed = asked(port, f"artifacts/list?run_id={by_name[name]}")
            assert {each["path"] for each in listed["files"]} >= wanted
        running.send(signal.SIGTERM)
        ran = running.wait()
    assert ran.code == 0, ran.err
    assert (
        f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=ddray" in ran.err
    )
    assert not answers(port)
