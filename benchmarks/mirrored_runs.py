"""Two thousand runs in MLflow: how long they take to be written, and to be listed by `ddray ui`.

python -m benchmarks.mirrored_runs [--points 2000] [--keep FOLDER]

The points are those of ``benchmarks.second_run``: finished, though their numbers are those of one. Timed are the
mirror alone (tables and report are there), the start of the server, and what MLflow's page asks it for: a hundred runs
with all they say, the newest, sorted by a number, and filtered by a tag.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.second_run import DDRAY, finished

STARTS = 120.0
"""Seconds in which the server must answer."""
PAGE: dict[str, Any] = {"experiment_ids": ["1"], "max_results": 100, "run_view_type": "ACTIVE_ONLY"}


def measure(points: int, home: Path) -> dict[str, Any]:
    """Seconds of each; the home keeps its runs."""
    os.environ["DDRAY_HOME"] = str(home)
    path, count = finished(home, points)
    subprocess.run([DDRAY, "sweep", str(path), "--no-mlflow"], check=True, capture_output=True)
    started = time.perf_counter()
    subprocess.run([DDRAY, "sweep", str(path)], check=True, capture_output=True)
    rows: dict[str, Any] = {"points": count, "mirror_seconds": round(time.perf_counter() - started, 1)}
    rows["database_mib"] = round((home / "mlflow" / "mlflow.db").stat().st_size / 2**20, 1)
    with _ui() as (port, seconds):
        rows["server_seconds"] = round(seconds, 1)
        questions = {
            "first_page": PAGE,
            "sorted_by_accuracy": {**PAGE, "order_by": ["metrics.test_acc DESC"]},
            "filtered_by_point": {**PAGE, "filter": "tags.`ddray.point` LIKE 'a%'"},
        }
        for name, question in questions.items():
            started = time.perf_counter()
            found = _asked(port, question)["runs"]
            rows[f"{name}_seconds"] = round(time.perf_counter() - started, 2)
            assert found, name
        assert len(found) < count
    return rows


@contextlib.contextmanager
def _ui() -> Iterator[tuple[int, float]]:
    """``ddray ui`` that answers; its port, and the seconds until it did."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    started = time.monotonic()
    process = subprocess.Popen([DDRAY, "ui", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _answers(port):
            assert time.monotonic() < started + STARTS, "the server did not start"
            time.sleep(0.1)
        yield port, time.monotonic() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def _asked(port: int, question: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(
        "POST", "/api/2.0/mlflow/runs/search", json.dumps(question), {"Content-Type": "application/json"}
    )
    return json.loads(connection.getresponse().read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="leave the home here, to look at with: DDRAY_HOME=FOLDER ddray ui")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as temporary:
        print(json.dumps(measure(given.points, given.keep or Path(temporary))))


if __name__ == "__main__":
    main()
