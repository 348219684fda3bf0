"""`ddray ui`: what it says, and that its server ends with it."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import sqlite3

from workspace import Workspace


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


def test_nothing_to_show_is_said(workspace: Workspace) -> None:
    ran = workspace.run("ui")
    assert ran.code == 2
    assert "ddray collect SWEEP --mlflow" in ran.err


def test_a_taken_port_is_said(workspace: Workspace) -> None:
    database = workspace.places.mlflow_database
    database.parent.mkdir(parents=True)
    sqlite3.connect(database).close()
    database.touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = workspace.run("ui", "--port", taken.getsockname()[1])
    assert ran.code == 3
    assert "Choose another --port" in ran.err


def test_the_server_shows_the_sweep_and_ends_with_the_command(workspace: Workspace) -> None:
    path = workspace.tiny(iterations=1)
    assert workspace.run("sweep", path, "--local").code == 0
    port = free_port()
    with workspace.start("ui", "--port", str(port)) as running:
        running.until(lambda: answers(port))
        running.send(signal.SIGTERM)
        ran = running.wait()
    assert ran.code == 0, ran.err
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning" in ran.err
    assert not answers(port)
