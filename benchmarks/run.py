"""All figures of docs/benchmarks/, one JSON line each: ``python -m benchmarks.run`` (``make bench``).

Nothing here passes or fails; the numbers to reach stand beside the figures in docs/benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import overhead, planning, prediction, second_run, simulation
from benchmarks.machine import machine
from ddray.settings import set_environment

HERE = Path(__file__).resolve().parent.parent
PARTS = (
    "start_up",
    "planning",
    "simulation",
    "prediction",
    "overhead",
    "second_run",
    "mirrored_runs",
    "tables",
    "evaluations",
)
DDRAY = str(Path(sys.executable).with_name("ddray"))


def start_up(repeats: int = 7) -> list[dict[str, Any]]:
    """Wall time of the light commands as whole processes, median of several."""
    commands = {
        "help": [DDRAY, "--help"],
        "plan_largest_shipped": [DDRAY, "plan", str(planning.largest_shipped()), "--json"],
    }
    rows = []
    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as home:
        for name, command in commands.items():
            seconds = []
            for _ in range(repeats):
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env={**os.environ, "DDRAY_HOME": home})
                seconds.append(time.perf_counter() - started)
            rows.append({"name": name, "seconds": round(statistics.median(seconds), 3), "of": repeats})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--cpus", type=int, default=2)
    only = parser.parse_args().only
    set_environment()
    _print(machine())
    if only in (None, "start_up"):
        for row in start_up():
            _print(row)
    if only in (None, "planning"):
        _print({"name": "plan_100000_points", **planning.measure(100_000)})
    if only in (None, "simulation"):
        for row in simulation.rows():
            _print(row)
    if only in (None, "prediction"):
        for row in prediction.of_recorded():
            _print({"name": "prediction", **row})
    if only in (None, "overhead"):
        for shapes in (1, 3):
            _print({"name": f"job_overhead_{shapes}_shapes", **overhead.measure(1000, shapes, 2)})
    if only in (None, "second_run"):
        _print({"name": "second_run", **second_run.measure(1000)})
    if only in (None, "mirrored_runs"):
        subprocess.run([sys.executable, "-m", "benchmarks.mirrored_runs"], check=True, cwd=HERE)
    if only in (None, "tables"):
        subprocess.run([sys.executable, "-m", "benchmarks.tables"], check=True, cwd=HERE)
    if only in (None, "evaluations"):
        subprocess.run([sys.executable, "-m", "benchmarks.evaluations", "--json"], check=True, cwd=HERE)


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
