"""The second run of a finished sweep of a thousand points: it must start nothing.

python -m benchmarks.second_run [--points 1000]

One point is computed for real; its artifacts are then committed under the keys of all others (their numbers do not
matter here), the first run builds tables and mirror, the second is measured as a whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

TEMPLATE = """
ddray: 1
grids:
  many:
    axes: {{method: [random], dataset: [digits], ipc: [1], distill_seed: {distill_seeds}, seed: [0, 1, 2, 3]}}
    protocol: quick
    train: {{epochs: 1}}
"""
DDRAY = str(Path(sys.executable).with_name("ddray"))


def finished(home: Path, points: int) -> tuple[Path, int]:
    """A home in which every stage of so many points is finished, and neither tables nor mirror are built; its sweep
    file, and how many points it has. DDRAY_HOME must name the home."""
    from ddray.prepare import prepare
    from ddray.request import Request
    from ddray.settings import folders
    from ddray.store.artifacts import Store
    from trainables.data.cache import build

    path = home / "many.yaml"
    path.write_text(TEMPLATE.format(distill_seeds=list(range(points // 4))))
    subprocess.run(
        [DDRAY, "sweep", str(path), "--local", "--limit", "1", "--no-mlflow"], check=False, capture_output=True
    )
    prepared = prepare(Request(path), folders(), build)
    store = Store(folders().store, folders().cache / "artifacts")
    done = store.keys()
    models = {stage.kind: store.open(key) for key, stage in prepared.plan.stages.items() if key in done}
    for key, stage in prepared.plan.stages.items():
        if key not in done:
            with store.writing() as folder:
                for name in models[stage.kind].manifest.files:
                    shutil.copy(models[stage.kind].folder / name, folder / name)
                manifest = replace(models[stage.kind].manifest, key=key, inputs=dict(stage.inputs))
                store.commit(folder, manifest)
    return path, len(prepared.plan.chains)


def measure(points: int) -> dict[str, float]:
    """Seconds of the first run (tables and mirror only) and of the second."""
    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as home:
        os.environ["DDRAY_HOME"] = home
        path, count = finished(Path(home), points)

        def sweep(*arguments: str) -> float:
            started = time.perf_counter()
            subprocess.run([DDRAY, "sweep", str(path), *arguments], check=True, capture_output=True)
            return time.perf_counter() - started

        first = sweep()
        seconds = [sweep() for _ in range(3)]
        return {
            "points": count,
            "tables_and_mirror_seconds": round(first, 2),
            "seconds": round(sorted(seconds)[1], 2),
            "of": 3,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    print(json.dumps(measure(parser.parse_args().points)))


if __name__ == "__main__":
    main()
