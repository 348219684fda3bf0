"""Single files of artifacts, checked against their digests; and tables that replace old ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ddray.atomic import replacing
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest
from trainables.files import load_arrays


def artifact_file(store: Store, key: str, name: str, manifest: Manifest | None = None) -> Path:
    """One file of an artifact; the others, a model's weights above all, are not read.

    Raises:
        KeyError: The stage is not done.
        DamagedArtifact: The file is missing or differs from its digest.
        ValueError: The artifact never had such a file.
    """
    manifest = manifest or store.manifest(key)
    if name not in manifest.files:
        raise ValueError(f"{manifest.label} has no {name}")
    return store.file(key, name, manifest.files[name])


def load(store: Store, key: str, name: str, manifest: Manifest | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file.

    Raises:
        KeyError, DamagedArtifact, ValueError: As for ``artifact_file``, or it is not such a file.
    """
    return load_arrays(artifact_file(store, key, name, manifest))


def write_table(target: Path, table: pa.Table) -> None:
    """Write a table instead of the old one."""
    with replacing(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")
