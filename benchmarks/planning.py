"""Planning many points: seconds and peak memory of a whole process that loads, expands, keys and groups them.

python -m benchmarks.planning [--points 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEPS = Path(__file__).resolve().parent.parent / "sweeps"

TEMPLATE = """
ddray: 1
grids:
  many:
    axes:
      method: [dm]
      dataset: [cifar10, cifar100]
      ipc: [1, 10, 20, 50, 100]
      init: [noise, real]
      architecture: [convnet3, resnet18]
      origin_per_class: [200, 400]
      distill_seed: {distill_seeds}
      seed: {seeds}
    protocol: paper2023
"""
PER_SEED_PAIR = 2 * 5 * 2 * 2 * 2


def largest_shipped() -> Path:
    """The shipped sweep that plans the most; the full grid once it exists."""
    full = SWEEPS / "full_grid.yaml"
    return full if full.exists() else SWEEPS / "table3_strict.yaml"


def measure(points: int) -> dict[str, float]:
    """Run one planning in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as home:
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.planning", "--points", str(points), "--inside"],
            check=True,
            capture_output=True,
            text=True,
            cwd=SWEEPS.parent,
            env={**os.environ, "DDRAY_HOME": home},
        )
    figures: dict[str, float] = json.loads(ran.stdout)
    return figures


def _inside(points: int) -> dict[str, float]:
    started = time.perf_counter()
    from ddray.commands.plan import plan_facts
    from ddray.prepare import prepare
    from ddray.price.devices import machine
    from ddray.request import Request
    from ddray.settings import folders
    from trainables.data.cache import build

    seeds = 50
    distill_seeds = -(-points // (PER_SEED_PAIR * seeds))
    path = Path(os.environ["DDRAY_HOME"]) / "many.yaml"
    path.write_text(TEMPLATE.format(distill_seeds=list(range(distill_seeds)), seeds=list(range(seeds))))
    prepared = prepare(Request(path), folders(), build)
    facts = plan_facts(prepared, folders(), machine(None, None))
    return {
        "points": facts["points"],
        "jobs": facts["jobs"],
        "seconds": round(time.perf_counter() - started, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--inside", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    print(json.dumps(_inside(arguments.points) if arguments.inside else measure(arguments.points)))


if __name__ == "__main__":
    main()
