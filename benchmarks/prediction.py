"""How far predicted seconds are off, on finished sweeps: ``python -m benchmarks.prediction [SWEEP ...]``.

Of every stage that is finished in the store in force, its own measurement is left out and its seconds are predicted
from those of all others; then the same without its whole cost class, as if nothing like it had run yet. Printed: the
share of the seconds whose prediction is within a factor of 1.5, and the median factor.

Without arguments: the recorded quickstart of ``tests/golden/`` (stages that ran side by side with other work).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddray.plan.graph import Stage
from ddray.prepare import prepare
from ddray.price.devices import Device, core
from ddray.price.estimates import Prices
from ddray.price.measured import Measured, Taken, taken_of
from ddray.results import find_sweep
from ddray.settings import folders
from ddray.store.artifacts import Store
from trainables.data.cache import build

HERE = Path(__file__).resolve().parent.parent
WITHIN = 1.5
LEAST_SECONDS = 0.05
"""Shorter stages are reading and writing, and no part of any bill."""


def measure(sweep: str) -> list[dict[str, Any]]:
    """Two rows for a sweep: each stage left out, and each stage's class."""
    prepared = prepare(find_sweep(folders(), sweep), folders(), build)
    store = Store(folders().store, folders().cache / "artifacts")
    taken: dict[str, tuple[Stage, str, Taken]] = {}
    for key in store.keys() & prepared.plan.stages.keys():
        stage = prepared.plan.stages[key]
        told = taken_of(stage, store.manifest(key))
        if told is not None and stage.cost_class and told[1].seconds >= LEAST_SECONDS:
            taken[key] = (stage, *told)
    rows = []
    for left_out, same in (("the stage", lambda one, other: one is other), ("its class", _alike)):
        found = [(each[2].seconds, _predicted(each, taken, same)) for each in taken.values()]
        rows.append({"sweep": Path(sweep).stem, "left_out": left_out, **_summary(found)})
    return rows


def _alike(one: Stage, other: Stage) -> bool:
    return one.cost_class == other.cost_class


def _predicted(
    each: tuple[Stage, str, Taken], taken: dict[str, tuple[Stage, str, Taken]], same: Callable[[Stage, Stage], bool]
) -> float:
    stage, name, _ = each
    measured = Measured()
    for key, (other, device, cost) in taken.items():
        if not same(stage, other):
            measured.add(device, other.cost_class, key, cost)
    return Prices(_device(name), measured).of(stage, stage.share or 0.0).seconds


def _device(name: str) -> Device:
    return core(name.removeprefix("cpu "))


def _summary(found: list[tuple[float, float]]) -> dict[str, Any]:
    total = sum(seconds for seconds, _ in found)
    factors = sorted((max(took / guess, guess / took) if guess else math.inf, took) for took, guess in found)
    within = sum(took for factor, took in factors if factor <= WITHIN)
    return {
        "stages": len(found),
        "seconds": round(total, 1),
        f"within_{WITHIN}": round(within / total, 3) if total else None,
        "median_factor": round(factors[len(factors) // 2][0], 2) if factors else None,
        "total_predicted": round(sum(guess for _, guess in found) / total, 2) if total else None,
    }


def of_recorded() -> list[dict[str, Any]]:
    """The rows of the recorded quickstart."""
    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as home:
        with tarfile.open(HERE / "tests" / "golden" / "quickstart.tar.xz") as archive:
            archive.extractall(f"{home}/store", filter="data")
        before = dict(os.environ)
        os.environ |= {"DDRAY_HOME": home, "DDRAY_STORE": f"{home}/store", "DDRAY_CACHE": f"{home}/cache"}
        try:
            return measure(str(HERE / "sweeps" / "quickstart.yaml"))
        finally:
            os.environ.clear()
            os.environ |= before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP")
    sweeps = parser.parse_args().sweeps
    for row in [row for sweep in sweeps for row in measure(sweep)] or of_recorded():
        sys.stdout.write(json.dumps({"name": "prediction", **row}) + "\n")


if __name__ == "__main__":
    main()
