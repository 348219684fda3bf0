"""What a node must share with the driver before it gets jobs, and whether it does.

Nodes that run another version compute other numbers under the same key; nodes that see another store, or other data,
compute for nobody. Each is asked once, by a process that runs there, before its first job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddray.run.stage import WorkerEnv, code_state, versions
from ddray.store.artifacts import files_at
from ddray.store.witness import Witness
from trainables.configs import DatasetConfig
from trainables.data.layout import DataBroken, find_index, find_source, missing

PLACES = ("DDRAY_DATA", "DDRAY_CACHE")
"""Data and cache belong to the node."""
COMPARED = ("ddray", "torch", "numpy", "sklearn")
"""Versions that must be equal: what computes. Ray compares its own and Python's."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What all nodes must share. JSON-like, so that it travels."""

    store: str
    witness: tuple[str, str]
    """Name and secret."""
    versions: dict[str, str]
    commit: str | None
    """Of the driver's checkout, where it runs from one."""
    datasets: tuple[dict[str, Any], ...]
    """Configurations of the data that jobs will read."""


def agreement(env: WorkerEnv, witness: Witness, datasets: Iterable[DatasetConfig]) -> Agreement:
    """What the driver, which this is, has."""
    return Agreement(
        store=env.store,
        witness=(witness.name, witness.secret),
        versions={name: _public(version) for name, version in versions().items() if name in COMPARED},
        commit=env.code["commit"],
        datasets=tuple(dataset.model_dump() for dataset in datasets),
    )


def on_this_node(env: WorkerEnv) -> WorkerEnv:
    """The driver's folders, except where this node's own environment says others."""
    data, cache = (os.environ.get(name) for name in PLACES)
    return replace(env, data=data or env.data, cache=cache or env.cache)


def disagreement(agreed: Agreement, env: WorkerEnv, node: str) -> str:
    """Why this node must not get jobs, in sentences that say what to do; "" if it may.

    Args:
        agreed: The driver's side.
        env: This node's folders (``on_this_node``).
        node: Its id: the name under which it answers in the store.
    """
    return " ".join([*_code(agreed), *_store(agreed, env, node), *_data(agreed, env)])


def _code(agreed: Agreement) -> Iterator[str]:
    here = {name: _public(version) for name, version in versions().items()}
    for name, expected in agreed.versions.items():
        if here.get(name) != expected:
            yield (
                f"It has another {name}; got {here.get(name, 'none')}; expected {expected}, as where the sweep was "
                "started. Install the same version on all nodes."
            )
    commit = code_state()["commit"] if agreed.commit is not None else None
    if commit is not None and agreed.commit is not None and commit != agreed.commit:
        yield f"Its checkout of ddray is another; got {commit[:12]}; expected {agreed.commit[:12]}. Check that one out."


def _store(agreed: Agreement, env: WorkerEnv, node: str) -> Iterator[str]:
    name, secret = agreed.witness
    try:
        got = Witness(files_at(agreed.store, Path(env.cache) / "artifacts"), name, secret).answer(node)
    except Exception as error:  # whatever a driver of an object store may raise
        got = f"{type(error).__name__}: {error}"
    if got:
        yield (
            f"It does not see the store {agreed.store}; got {got}; expected what the sweep has just written there. Put "
            "the store where all nodes see it: mount the folder on this node, or set DDRAY_STORE to one that is shared."
        )


def _data(agreed: Agreement, env: WorkerEnv) -> Iterator[str]:
    data, cache = Path(env.data), Path(env.cache)
    for each in agreed.datasets:
        dataset = DatasetConfig.model_validate(each)
        classes = dataset.num_classes if dataset.folder is not None else None
        try:
            if find_source(dataset.base, dataset.folder, data) is None:
                yield f"It has no data set {missing(dataset.base, dataset.folder, data)}"
                continue
            index = find_index(dataset.base, dataset.folder, dataset.resize, data, cache, classes=classes)
        except (DataBroken, OSError) as error:
            yield f"Its data set {dataset.name} cannot be read; got {error} Put the same data on all nodes."
            continue
        if index is not None and index.digest != dataset.digest:  # not decoded yet: compared when it is
            yield (
                f"Its data set {dataset.name} differs; got {index.digest[:19]} from {index.source}; expected "
                f"{dataset.digest[:19]}. Put the same data on all nodes."
            )


def _public(version: str) -> str:
    """Without the local part: ``2.14.1+cpu`` and ``2.14.1`` are one source; what differs stands in numerics classes."""
    return version.split("+")[0]
