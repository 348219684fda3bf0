"""``artifacts.parquet``: the files of all artifacts, one row each."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ddray.measurements.exports.artifact_files import write_table
from ddray.plan.jobs import Plan
from ddray.store.artifacts import DamagedArtifact, Store

log = logging.getLogger(__name__)

ARTIFACTS_FILE = "artifacts.parquet"

_FILES = pa.schema(
    [
        ("kind", pa.string()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("file", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
    ]
)


def write_artifacts(plan: Plan, store: Store, folder: Path) -> int:
    """Write ``artifacts.parquet``: every file of every finished stage, by its manifest; nothing else is read.

    ``path`` is relative to the store, so the table says nothing of the machine it was made on.

    Returns:
        Rows written.
    """
    rows = list(_files(plan, store))
    columns = list(zip(*rows, strict=True)) or [()] * len(_FILES)
    table = pa.Table.from_arrays(
        [pa.array(values, entry.type) for values, entry in zip(columns, _FILES, strict=True)], schema=_FILES
    )
    write_table(folder / ARTIFACTS_FILE, table)
    return len(rows)


def _files(plan: Plan, store: Store) -> Iterator[tuple[Any, ...]]:
    done = store.keys()
    for stage in plan.stages.values():
        if stage.key not in done:
            continue
        try:
            manifest = store.manifest(stage.key)
        except (KeyError, DamagedArtifact) as error:
            log.warning("artifacts: %s left out; %s", stage.label, error)
            continue
        for name, entry in sorted(manifest.files.items()):
            path = f"artifacts/{stage.key[:2]}/{stage.key}/{name}"
            yield stage.kind, stage.key, stage.label, name, path, entry["sha256"], entry["bytes"]
