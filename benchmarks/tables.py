"""A million measurements: store -> Parquet -> Table 3. Prints seconds and peak memory as one JSON line.

    python -m benchmarks.tables [--rows 1000000] [--keep FOLDER]

Builds a store of finished artifacts first (without waiting for the disk, which is not what is measured; small payloads
stand in for tensors, which the tables never read). The measurement runs in a process of its own and plans the sweep
again, so its peak memory includes the plan.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from worlds import plan_of, provenance, sweep_of

from ddray.measurements.rows import collect
from ddray.plan.graph import Stage
from ddray.plan.keys import digest
from ddray.report.report import report
from ddray.store import files
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest

PER_POINT = 45
"""Rows of a point with ten classes: 22 accuracies and losses, 5 of the training, 11 of fairness, 7 costs."""
SWEEP = """
ddray: 1
defaults:
  protocol: paper2023
  axes: {architecture: [convnet3], init: [real]}
grids:
  table3:
    axes:
      method: [random, dm]
      dataset: [cifar10]
      ipc: [1, 2, 5, 10, 15, 20, 30, 50, 75, 100]
      seed: [0, 1, 2]
      distill_seed: SEEDS
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="build here and leave it; a store that is there is used again")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "bench.yaml").exists():
            build(folder, given.rows)
        subprocess.run([sys.executable, "-m", "benchmarks.tables", "--measure", str(folder)], check=True)


def measure(folder: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    def clock() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    started = clock()
    sweep = sweep_of(folder, (folder / "bench.txt").read_text(), "bench")
    plan = plan_of(sweep)
    store = Store(str(folder / "store"), folder / "downloads")
    planned = clock()
    before = peak_mib()
    coverage = collect(plan, sweep, store, folder / "results")
    gathered = clock()
    text = report(folder / "results")
    rendered = clock()
    assert coverage.complete
    assert "### Test accuracy" in text
    path = folder / "results" / "measurements.parquet"
    return {
        "points": coverage.planned,
        "rows": pq.ParquetFile(path).metadata.num_rows,
        "file_mib": round(path.stat().st_size / 2**20, 1),
        "plan": between(started, planned),
        "parquet": between(planned, gathered),
        "table3": between(gathered, rendered),
        "total": between(planned, rendered),
        "peak_mib_after_planning": before,
        "peak_mib": peak_mib(),
    }


def between(start: tuple[float, float], end: tuple[float, float]) -> dict[str, float]:
    """Seconds on the clock and of the CPUs; on a busy machine they differ."""
    return {"wall_s": round(end[0] - start[0], 2), "cpu_s": round(end[1] - start[1], 2)}


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def build(folder: Path, rows: int) -> None:
    """A store in which every stage of the sweep is finished."""
    files._flush = lambda path: None
    seeds = math.ceil(rows / PER_POINT / 60)
    text = SWEEP.replace("SEEDS", str(list(range(seeds))))
    (folder / "bench.txt").write_text(text)
    plan = plan_of(sweep_of(folder, text, "building"))
    store = Store(str(folder / "store"), folder / "downloads")
    for stage in plan.stages.values():
        with store.writing() as scratch:
            if stage.kind == "accuracy":
                (scratch / "metrics.json").write_text(json.dumps(metrics(stage), sort_keys=True, indent=1))
            else:
                (scratch / "payload.safetensors").write_text(stage.key)
            assert stage.config is not None
            manifest = Manifest(
                key=stage.key,
                kind=stage.kind,
                version=stage.version,
                label=stage.label,
                config=stage.config.model_dump(mode="json"),
                inputs=dict(stage.inputs),
                files={},
                provenance=provenance(),
            )
            store.commit(scratch, manifest)
    (folder / "bench.yaml").write_text(text)


def metrics(stage: Stage) -> list[dict[str, Any]]:
    """Rows shaped like those of a real evaluation with ten classes; values follow from the key."""
    value = int(digest(stage.key)[:8], 16) / 2**32
    interval = {"ci_low": value - 0.01, "ci_high": value + 0.01, "ci_level": 0.95, "ci_unit": "images"}
    rows: list[dict[str, Any]] = []
    for name, unit, method in (("acc", "fraction", "wilson"), ("loss", "nat", "t")):
        common = {"property": "performance", "unit": unit, "split": "test", "ci_method": method, **interval}
        rows.append({**common, "metric": f"test_{name}", "value": value, "n": 10_000})
        rows += [
            {**common, "metric": f"test_{name}_class", "value": value + index / 1e3, "n": 1000, "class_id": index}
            for index in range(10)
        ]
    for metric in ("train_acc", "train_loss", "optimism", "optimiser_steps", "num_parameters"):
        prop = "cost" if metric in ("optimiser_steps", "num_parameters") else "performance"
        rows.append({"property": prop, "metric": metric, "value": value, "unit": "fraction", "n": 1, "split": "train"})
    for metric in (
        "var_acc",
        "var_loss",
        "var_acc_corr",
        "var_loss_corr",
        "std_acc",
        "cv_acc",
        "worst_acc",
        "worst10pct_acc",
        "gap_acc",
        "gini_acc",
        "jain",
    ):
        rows.append(
            {
                "property": "fairness",
                "metric": f"fair_{metric}",
                "value": value / 100,
                "unit": "ratio",
                "n": 10_000,
                "split": "test",
            }
        )
    return rows


if __name__ == "__main__":
    main()
