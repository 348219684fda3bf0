"""Record the stores of ``tests/golden/`` again: ``python tests/record_goldens.py [NAME ...]``, from the root.

A store whose stages all have the keys of today is kept, and its tables and report are built from it (seconds). Else its
sweep is computed anew in this process (minutes). What changed without a raised version is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
from goldens import (
    TABLES,
    Built,
    Recorded,
    build,
    differences,
    renderer_message,
    shown_differences,
    stage_message,
    tolerance_of,
)
from pyarrow import parquet


def main(names: list[str]) -> None:
    for recorded in TABLES:
        if not names or recorded.name in names:
            with tempfile.TemporaryDirectory() as folder:
                record(recorded, Path(folder))


def record(recorded: Recorded, folder: Path) -> None:
    store = folder / "store"
    environment = {**os.environ, "DDRAY_HOME": str(folder), "DDRAY_STORE": str(store)}
    for name in ("DDRAY_DATA", "DDRAY_CACHE", "RAY_ADDRESS"):
        environment.pop(name, None)

    def run(*arguments: object) -> SimpleNamespace:
        words = [sys.executable, "-m", "ddray", *map(str, arguments)]
        ran = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
        return SimpleNamespace(code=ran.returncode, out=ran.stdout, err="see above")

    if recorded.path("tar.xz").exists():
        recorded.unpack(store)
    if json.loads(run("plan", recorded.yaml, *recorded.arguments, "--json").out)["jobs"]:
        store.rename(folder / "before")
        ran = run("sweep", recorded.yaml, *recorded.arguments, "--local", "--no-mlflow")
        assert ran.code == 0, "the sweep did not finish"
        _refuse_changed_stages(folder / "before", store)
        built = build(recorded, run, folder / "results")
    else:
        built = build(recorded, run, folder / "results")
        _refuse_changed_tables(recorded, built)
    recorded.pack(store)
    write(recorded, built, folder / "results" / recorded.sweep / "measurements.parquet")


def write(recorded: Recorded, built: Built, measurements: Path) -> None:
    """What the tests compare tables and report with."""
    table: pa.Table = parquet.read_table(measurements)
    parquet.write_table(table, recorded.path("parquet"), compression="zstd", compression_level=19)
    cells = sorted(built.cells.elements())
    shown = {"renderer": built.renderer, "maps": built.maps, "report": built.report, "cells": cells}
    text = json.dumps(shown, sort_keys=True, indent=0, ensure_ascii=False)
    recorded.path("json").write_text(text + "\n", encoding="utf-8")


def _refuse_changed_stages(before: Path, store: Path) -> None:
    """Stages with equal keys must have equal results.

    Of stages recorded in another numerics class this whole computation says nothing, because training amplifies
    rounding: ``tests/unit/test_golden_stages.py`` runs them one by one from recorded inputs.
    """
    for old in sorted(before.glob("artifacts/*/*")):
        new = store / old.relative_to(before)
        manifest = json.loads((old / "manifest.json").read_text(encoding="utf-8"))
        if not new.exists() or tolerance_of(manifest):
            continue
        if texts := [text for text in differences(old, new, 0.0) if "both sides" not in text]:
            sys.exit(stage_message(manifest["kind"], manifest["label"], texts))


def _refuse_changed_tables(recorded: Recorded, built: Built) -> None:
    """What is built from an unchanged store may change with RENDERER_VERSION alone."""
    same = recorded.path("json").exists() and recorded.shown()["renderer"] == built.renderer
    if same and (texts := shown_differences(recorded, built)):
        sys.exit(renderer_message(recorded.sweep, texts))


if __name__ == "__main__":
    main(sys.argv[1:])
