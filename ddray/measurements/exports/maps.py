"""``embeddings.parquet``: the points of t-SNE maps, one row each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ddray.measurements.exports.artifact_files import artifact_file, load, write_table
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan
from ddray.plan.points import Sweep
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.configs import TsneConfig

log = logging.getLogger(__name__)

EMBEDDINGS_FILE = "embeddings.parquet"


def write_embeddings(plan: Plan, sweep: Sweep, store: Store, folder: Path) -> int:
    """Write ``embeddings.parquet`` from the finished maps; remove it where there is none.

    ``fit_id`` is the key of the stage: sources with one fit share its axes. ``source`` is ``real`` or the name of a
    set; ``seed`` is that of the distilled set.

    Returns:
        Rows written.
    """
    done = store.keys()
    stages = [stage for stage in plan.stages.values() if stage.kind == "tsne" and stage.key in done]
    sets = _sets_of_embeddings(plan)
    tables = []
    for stage in stages:
        try:
            tables.append(_map(stage, sweep.name, store, sets))
        except (KeyError, DamagedArtifact, OSError, ValueError) as error:
            log.warning("embeddings: %s left out; %s", stage.label, error)
    target = folder / EMBEDDINGS_FILE
    if not tables:
        target.unlink(missing_ok=True)
        return 0
    table = pa.concat_tables(tables)
    write_table(target, table)
    return int(table.num_rows)


_MAP = pa.schema(
    [
        ("sweep", pa.string()),
        ("fit_id", pa.string()),
        ("dataset", pa.string()),
        ("ipc", pa.int32()),
        ("source", pa.string()),
        ("method", pa.string()),
        ("init", pa.string()),
        ("class_id", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("perplexity", pa.float64()),
        ("seed", pa.int32()),
    ]
)


def _sets_of_embeddings(plan: Plan) -> dict[str, Chain]:
    """Key of an embedding -> the first point that has it."""
    points: dict[str, Chain] = {}
    for chain in plan.chains:
        if (stage := chain.stage("embedding")) is not None:
            points.setdefault(stage.key, chain)
    return points


def _map(stage: Stage, sweep: str, store: Store, sets: Mapping[str, Chain]) -> pa.Table:
    manifest = store.manifest(stage.key)
    arrays = load(store, stage.key, files.MAP_TENSORS, manifest)
    info = files.load_json(artifact_file(store, stage.key, files.MAP_INFO, manifest))
    assert isinstance(stage.config, TsneConfig)
    inputs, sources = dict(stage.inputs), arrays["sources"].tolist()
    chains = [None, *(sets.get(inputs[f"embedding.{index}"]) for index in range(len(stage.config.sources)))]
    ipc = next((chain.point.ipc for chain in chains if chain is not None), None)

    def of_set(name: str) -> list[Any]:
        values = [None if chain is None else getattr(chain.point, name) for chain in chains]
        return [values[source] for source in sources]

    count = len(sources)
    columns: dict[str, Any] = {
        "sweep": [sweep] * count,
        "fit_id": [stage.key] * count,
        "dataset": [stage.config.dataset.name] * count,
        "ipc": [ipc] * count,
        "source": [info["sources"][source] for source in sources],
        "method": of_set("method"),
        "init": of_set("init"),
        "class_id": np.asarray(stage.config.classes, dtype=np.int32)[arrays["labels"]],
        "x": np.ascontiguousarray(arrays["points"][:, 0]),
        "y": np.ascontiguousarray(arrays["points"][:, 1]),
        "perplexity": [info["perplexity"]] * count,
        "seed": of_set("distill_seed"),
    }
    return pa.Table.from_arrays([pa.array(columns[entry.name], entry.type) for entry in _MAP], schema=_MAP)
