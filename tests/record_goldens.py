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
    SAME_CLASS,
    TABLES,
    Built,
    Recorded,
    build,
    differences,
    processor,
    renderer_message,
    shown_differences,
    stage_message,
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
    shown = {"processor": processor(), "renderer": built.renderer, "maps": built.maps, "report": built.report,
             "cells": sorted(built.cells.elements())}  # fmt: skip
    text = json.dumps(shown, sort_keys=True, indent=0, ensure_ascii=False)
    recorded.path("json").write_text(text + "\n", encoding="utf-8")


def _refuse_changed_stages(before: Path, store: Path) -> None:
    """Stages with equal keys must have equal results, within a tolerance of training."""
    for old in sorted(before.glob("artifacts/*/*")):
        new = store / old.relative_to(before)
        if new.exists() and (texts := [text for text in differences(old, new, SAME_CLASS) if "both sides" not in text]):
            manifest = json.loads((old / "manifest.json").read_text(encoding="utf-8"))
            sys.exit(stage_message(manifest["kind"], manifest["label"], texts))


def _refuse_changed_tables(recorded: Recorded, built: Built) -> None:
    """What is built from an unchanged store may change with RENDERER_VERSION alone."""
    same = recorded.path("json").exists() and recorded.shown()["renderer"] == built.renderer
    if same and (texts := shown_differences(recorded, built)):
        sys.exit(renderer_message(recorded.sweep, texts))


if __name__ == "__main__":
    main(sys.argv[1:])
