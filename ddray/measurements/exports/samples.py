"""``samples/``: what every model says of every example, model by model, so that memory holds one model's examples."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ddray.atomic import replacing
from ddray.measurements.columns import MEASUREMENTS
from ddray.measurements.exports.artifact_files import artifact_file, load
from ddray.measurements.identity import POINT, PointColumns, StageRecord, training
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan
from ddray.plan.points import Sweep
from ddray.store.artifacts import DamagedArtifact, Store
from ddray.store.manifest import Manifest
from trainables import files
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.configs import AttackConfig
from trainables.files import ROLES

log = logging.getLogger(__name__)

SAMPLES_FOLDER = "samples"

SPLITS = ("test", "origin", "pool", "reserve")
"""Splits whose examples have rows. The rest serves calibration and carries no number."""
_DISTANCES = {"deepfool_l2": "adv_dist_l2", "deepfool_linf": "adv_dist_linf"}

Arrays = Mapping[str, NDArray[Any]]
Example = tuple[str, int]
"""Split and canonical index."""


@dataclass
class _Model:
    """A trained model whose examples have rows."""

    key: str
    """Of the stage ``train``."""
    chain: Chain
    """The first point that needs it: gives the identity."""
    attacks: dict[str, str] = field(default_factory=dict)
    """Attack -> key of its stage."""
    privacy: str | None = None
    """Key of the audit that attacked it."""
    audit: str | None = None
    target_row: int | None = None
    iteration: int | None = None
    """0: trained on the undistilled start."""
    set_key: str | None = None
    """Of the distilled set it was trained on."""


def write_samples(plan: Plan, sweep: Sweep, store: Store, folder: Path) -> int:
    """Write ``samples/``, replaced at once.

    One row per example and model, of the splits ``SPLITS``: the points' own models, the targets of audits, and those of
    iteration 0. ``score_ATTACK`` is higher for likelier members. ``adv_found_ATTACK`` is the smallest epsilon of the
    grid within which an adversarial image was found, 0 where the image is misclassified as it is, infinite where
    none was found: robust accuracy at epsilon is the share above it. ``adv_dist_*`` are norms of raw perturbations
    (``adv_dist_l2`` and ``adv_dist_linf`` DeepFool's, of others with the attack's name), infinite where none was found.

    A model that several points share has its rows once, under the first point. Data sets and methods have a file each,
    and both stand as columns in it too. Damaged artifacts are moved away with a warning and left out.

    Args:
        plan: The whole sweep.
        sweep: Gives its name.
        store: What exists.
        folder: ``results/<sweep>``.

    Returns:
        Rows written.
    """
    every = _models(plan, store.keys() & plan.stages.keys())
    scores, targets = _details(every, store)
    models = [model for model in every if model.audit != "pool" or model.target_row in targets.get(model.privacy, ())]
    schema = _schema(scores)
    points = PointColumns()
    rows = 0
    with replacing(folder / SAMPLES_FOLDER) as temporary, ExitStack() as opened:
        temporary.mkdir()
        writers: dict[tuple[str, str], pq.ParquetWriter] = {}
        for model in models:
            try:
                table = _of_model(model, sweep.name, store, schema, points)
            except (KeyError, DamagedArtifact, OSError, ValueError) as error:
                log.warning("samples: model %s left out; %s", model.key[:12], error)
                continue
            at = (model.chain.point.dataset, model.chain.point.method)
            if at not in writers:
                path = temporary / at[0] / f"{at[1]}.parquet"
                path.parent.mkdir(exist_ok=True)
                writers[at] = opened.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            writers[at].write_table(table)
            rows += table.num_rows
    if not writers:
        shutil.rmtree(folder / SAMPLES_FOLDER)
    return rows


def _models(plan: Plan, done: set[str]) -> list[_Model]:
    models: dict[str, _Model] = {}
    for chain in plan.chains:
        train, distill = chain.stage("train"), chain.stage("distill")
        assert train is not None
        if train.key in done:
            own = models.setdefault(train.key, _Model(train.key, chain, set_key=distill.key if distill else None))
            for stage in chain.stages:
                if isinstance(stage.config, AttackConfig) and stage.key in done:
                    own.attacks.setdefault(stage.config.attack, stage.key)
        privacy = chain.stage("privacy")
        if privacy is not None and privacy.key in done:
            _audited(chain, privacy, plan.stages, done, models)
    return list(models.values())


def _audited(
    chain: Chain, privacy: Stage, stages: Mapping[str, Stage], done: set[str], models: dict[str, _Model]
) -> None:
    """The models that an audit attacked; which of a matrix's rows were targets is only known from its details."""
    inputs = dict(privacy.inputs)
    for role, key in inputs.items():
        kind, _, rest = role.partition(".")
        number, _, what = rest.rpartition(".")
        if key not in done or what not in ("model", "start") or kind not in ("seed", "row", "coin"):
            continue
        model = models.setdefault(key, _Model(key, chain, set_key=dict(stages[key].inputs).get("set")))
        if model.privacy is None:
            model.privacy = privacy.key
            model.audit = {"seed": "seed", "row": "pool", "coin": "one_run"}[kind]
            model.target_row = int(number) if kind == "row" else None
            model.iteration = 0 if what == "start" else None


def _details(models: list[_Model], store: Store) -> tuple[list[str], dict[str | None, set[int]]]:
    """Attacks and their variants, and the rows of each matrix that were attacked, from the headers of the details."""
    names: dict[str, None] = {}
    targets: dict[str | None, set[int]] = {}
    for key in dict.fromkeys(model.privacy for model in models if model.privacy is not None):
        try:
            path = artifact_file(store, key, files.DETAILS)
            kept = files.array_names(path)
            if "pool.target_row" in kept:
                targets[key] = set(files.load_arrays(path, ["pool.target_row"])["pool.target_row"].tolist())
        except (KeyError, DamagedArtifact, OSError, ValueError) as error:
            log.warning("samples: scores of %s left out; %s", key[:12], error)
            continue
        for name in kept:
            _, is_score, attack = name.partition("scores.")
            if is_score:
                names[attack] = None
    return sorted(names), targets


def _schema(scores: list[str]) -> pa.Schema:
    number = pa.float64()
    own: list[tuple[str, pa.DataType]] = [
        ("model_key", pa.string()),
        ("audit", pa.dictionary(pa.int32(), pa.string())),
        ("target_row", pa.int32()),
        ("iteration", pa.int32()),
        ("split", pa.dictionary(pa.int32(), pa.string())),
        ("example_id", pa.int64()),
        ("y", pa.int32()),
        ("pred", pa.int32()),
        ("loss", number),
        ("phi", number),
        ("is_member", pa.bool_()),
        ("member_role", pa.dictionary(pa.int32(), pa.string())),
        ("balanced", pa.bool_()),
        *((f"score_{name}", number) for name in scores),
        *((f"adv_found_{name}", number) for name in ROBUSTNESS_ATTACKS),
        *(
            (_DISTANCES.get(name, f"adv_dist_{name}"), pa.float32())
            for name, spec in ROBUSTNESS_ATTACKS.items()
            if spec.minimal
        ),
    ]
    identity = [MEASUREMENTS.field(name) for name in ("sweep", *POINT)]
    return pa.schema([*identity, *(pa.field(name, kind) for name, kind in own)])


def _of_model(model: _Model, sweep: str, store: Store, schema: pa.Schema, points: PointColumns) -> pa.Table:
    manifest = store.manifest(model.key)
    outputs = load(store, model.key, files.OUTPUTS, manifest)
    columns = _of_outputs(outputs)
    examples = zip(columns["split"], columns["example_id"], strict=True)
    positions = {example: index for index, example in enumerate(examples)}
    if model.privacy is not None:
        columns |= _membership(model, load(store, model.privacy, files.DETAILS), positions)
    for attack, key in model.attacks.items():
        columns |= _attacked(attack, store, key, positions)
    return _table(model, sweep, manifest, store, schema, points, columns, len(positions))


def _of_outputs(outputs: Arrays) -> dict[str, Any]:
    """What a model says of each example: prediction, loss, and phi = log p_y - log(1 - p_y), in float64."""
    parts: dict[str, list[Any]] = {name: [] for name in ("split", "example_id", "y", "pred", "loss", "phi")}
    for split in SPLITS:
        if f"{split}.logits" not in outputs:
            continue
        logits = np.asarray(outputs[f"{split}.logits"], dtype=np.float64)
        labels, ids = outputs[f"{split}.labels"], outputs[f"{split}.ids"]
        own = logits[np.arange(len(labels)), labels]
        others = logits.copy()
        others[np.arange(len(labels)), labels] = -np.inf
        phi = own - _logsumexp(others)
        parts["split"] += [split] * len(ids)
        parts["example_id"] += ids.tolist()
        for name, values in (
            ("y", labels),
            ("pred", np.argmax(logits, axis=1)),
            ("loss", np.logaddexp(0.0, -phi)),
            ("phi", phi),
        ):
            parts[name].append(values)
    return {
        name: values if name in ("split", "example_id") else np.concatenate(values) for name, values in parts.items()
    }


def _logsumexp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def _membership(model: _Model, details: Arrays, positions: Mapping[Example, int]) -> dict[str, Any]:
    """Memberships, roles and scores of an audit, at the positions of its candidates."""
    audit = str(model.audit)
    begin = audit + (".start" if model.iteration == 0 else "")
    row = int(np.flatnonzero(details["pool.target_row"] == model.target_row)[0]) if audit == "pool" else 0
    columns: dict[str, Any] = {"is_member": [None] * len(positions), "member_role": [None] * len(positions)}
    ids = details[f"{audit}.example_id"].tolist()
    if audit == "seed":
        splits = np.where(details["seed.from_test"].astype(bool), "test", "origin").tolist()
        columns["balanced"] = [None] * len(positions)
    else:
        splits = ["pool"] * len(ids)
    at = [positions[example] for example in zip(splits, ids, strict=True)]
    pool = audit == "pool"
    beside = details["pool.reserve_id"].tolist() if pool and "pool.reserve_id" in details else []
    reserve = [positions["reserve", index] for index in beside]
    members = details["pool.member"][model.target_row] if pool else details[f"{audit}.is_member"]
    _put(columns["is_member"], at, members.astype(bool).tolist())
    if f"{audit}.role" in details:
        roles = details["pool.role"][row] if pool else details[f"{audit}.role"]
        _put(columns["member_role"], at, [ROLES[code] for code in roles.tolist()])
    if audit == "seed":
        _put(columns["balanced"], at, details["seed.balanced"].astype(bool).tolist())
    elif pool:
        _put(columns["is_member"], reserve, [False] * len(reserve))
        _put(columns["member_role"], reserve, [ROLES[-1]] * len(reserve))
    for name, values in details.items():
        for what, where in (("scores", at), ("reserve_scores", reserve)):
            head, is_score, attack = name.partition(f".{what}.")
            if is_score and head == begin:
                scores = columns.setdefault(f"score_{attack}", np.full(len(positions), np.nan))
                scores[where] = values[row] if values.ndim == 2 else values
    return columns


def _put(column: list[Any], at: list[int], values: list[Any]) -> None:
    for index, value in zip(at, values, strict=True):
        column[index] = value


def _attacked(attack: str, store: Store, key: str, positions: Mapping[Example, int]) -> dict[str, Any]:
    """What an attack on robustness did to each test image."""
    manifest = store.manifest(key)
    arrays = load(store, key, files.ATTACK_TENSORS, manifest)
    info = files.load_json(artifact_file(store, key, files.ATTACK_INFO, manifest))
    at = [positions["test", index] for index in arrays["ids"].tolist()]
    epsilons = np.array([*info["epsilons"], np.inf])
    success = np.vstack([arrays["success"].astype(bool), np.ones((1, len(at)), dtype=bool)])
    smallest = np.full(len(positions), np.nan)
    smallest[at] = np.where(arrays["correct"].astype(bool), epsilons[success.argmax(axis=0)], 0.0)
    columns = {f"adv_found_{attack}": smallest}
    if "distance" in arrays:
        distances = np.full(len(positions), np.nan, dtype=np.float32)
        distances[at] = arrays["distance"]
        columns[_DISTANCES.get(attack, f"adv_dist_{attack}")] = distances
    return columns


def _table(
    model: _Model,
    sweep: str,
    manifest: Manifest,
    store: Store,
    schema: pa.Schema,
    points: PointColumns,
    columns: dict[str, Any],
    count: int,
) -> pa.Table:
    distilled = StageRecord.of(store.manifest(model.set_key)) if model.set_key is not None else None
    identity = dict(zip(POINT, points.values(model.chain, distilled, StageRecord.of(manifest)), strict=True))
    identity |= {
        "sweep": sweep,
        "model_key": model.key,
        "audit": model.audit,
        "target_row": model.target_row,
        "iteration": model.iteration,
    }
    if model.privacy is not None and (model.audit != "seed" or model.iteration == 0):
        identity["data_hash"] = identity["data_hash"] if model.audit == "seed" else None  # of the point's own draw
    classes = training(model.chain).origin.classes
    for name in ("y", "pred"):
        columns[name] = np.asarray(classes, dtype=np.int32)[columns[name]]
    arrays = []
    for column in schema:
        if column.name in columns:
            values = columns[column.name]
            # An example that an attack did not try holds NaN; a number that was computed never does.
            missing = isinstance(values, np.ndarray) and values.dtype.kind == "f"
            arrays.append(pa.array(values, column.type, from_pandas=missing))
        else:
            arrays.append(_constant(identity.get(column.name), column.type, count))
    return pa.Table.from_arrays(arrays, schema=schema)


def _constant(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count, kind)
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count, dtype=np.int32)), pa.array([value], kind.value_type)
        )
    return pa.array([value], kind).take(pa.array(np.zeros(count, dtype=np.int64)))
