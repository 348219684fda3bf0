"""What a row says about itself: the columns that follow from a point's chain, and from the manifests of its stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from ddray.measurements.columns import COLUMNS, names
from ddray.plan.external import EXTERNAL
from ddray.plan.graph import Chain, Stage
from ddray.plan.keys import canonical, digest
from ddray.store.manifest import Manifest
from trainables.configs import AttackConfig, DistillConfig, ExpertConfig, ExternalConfig, TrainConfig
from trainables.data.known import KNOWN
from trainables.methods import METHODS
from trainables.presets import choose

Memo = Callable[[object, Callable[[], Any]], Any]
"""(key, make) -> what was made for that key the first time."""

PROVENANCE = names("provenance")
POINT = tuple(
    column.name
    for column in COLUMNS
    if column.group == "identity" and column.name not in ("schema_version", "row_id", "sweep", "stage_key")
)
"""Columns that are equal on all rows of a point."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tables need of a manifest."""

    files: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, manifest: Manifest) -> Facts:
        return cls(manifest.files, manifest.provenance)

    @property
    def content(self) -> str:
        """Digest of the payload: of the names and digests of its files."""
        listed = "\n".join(f"{name} {entry['sha256']}" for name, entry in sorted(self.files.items()))
        return hashlib.sha256(listed.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the payload."""
        return sum(int(entry["bytes"]) for entry in self.files.values())


def training(chain: Chain) -> TrainConfig | ExternalConfig:
    """The configuration of the chain's training, which every chain has, or of the model that was brought instead."""
    train = chain.stage("train")
    assert train is not None, chain.point
    assert isinstance(train.config, TrainConfig | ExternalConfig), train.label
    return train.config


def point_values(chain: Chain, made: Facts | None, trained: Facts | None, memo: Memo) -> tuple[Any, ...]:
    """Values of ``POINT``.

    Args:
        chain: The point.
        made: Facts of the distilled set, when there is one.
        trained: Facts of the model, when there is one.
        memo: Shared over the points of a sweep.
    """
    point, config = chain.point, training(chain)
    origin, recipe = config.origin, config.recipe
    subset = point.num_classes is not None
    values: dict[str, Any] = {
        "grids": list(point.grids),
        "point": point.hash,
        "protocol": chain.protocol,
        "dataset": point.dataset,
        "num_classes": len(origin.classes),
        "class_ids": list(origin.classes) if subset else None,
        "class_draw": (point.class_draw or 0) if subset and point.method != EXTERNAL else None,
        "origin_per_class": origin.per_class,
        "origin_draw": origin.draw,
        "data_hash": memo(
            ("data", config.dataset.digest, id(origin)),
            lambda: digest({"data": config.dataset.digest, "origin": origin.key_material()}),
        ),
        "method": point.method,
        "ipc": point.ipc,
        "ratio": _ratio(point.ipc, config),
        "init": point.init,
        "architecture": point.architecture,
        "norm_layer": config.network.norm,
        "model_hash": trained.content if trained else None,
    }
    if recipe is not None:  # of a model that was brought, nothing of it is known
        values |= {
            "train_aug": recipe.augmentation,
            "train_epochs": recipe.epochs,
            "train_steps": recipe.steps,
            "optimizer": "sgd",
            "lr": recipe.lr,
            "seed": point.seed,
            "selection": "last",
        }
    distill = chain.stage("distill")
    if distill is not None:
        values |= memo(("distill", distill.key), lambda: _distill_values(chain, distill))
        values["distilled_hash"] = made.content if made else None
    return tuple(values.get(name) for name in POINT)


def param(chain: Chain, memo: Memo) -> str | None:
    """``param_json``: the method's settings, and how they and the recipe differ from what is published.

    ``settings`` (all of them), ``changed_settings`` (given by the sweep and not the published or default value; the
    budget has a column of its own), ``unpublished`` (setting -> where its value was borrowed), ``protocol_changes``,
    ``declared`` (the data set is not a known one as it is), ``ensemble`` (the seeds that were trained together).
    """
    distill = chain.stage("distill")
    changes = canonical(dict(chain.protocol_changes)) if chain.protocol_changes else ""
    model = training(chain)
    brought = model.file if isinstance(model, ExternalConfig) else None
    key = ("param", distill.key if distill else brought, chain.point.dataset, changes, model.ensemble)
    found: str | None = memo(key, lambda: _param(chain, distill))
    return found


def provenance_values(stage: Facts, trained: Facts) -> tuple[Any, ...]:
    """Values of ``PROVENANCE``: code and clock of the stage itself, torch and device of the training."""
    own, other = stage.provenance, trained.provenance
    versions, numerics = own.get("versions") or {}, other.get("numerics") or {}
    values = {
        "git_commit": own.get("commit"),
        "dirty": own.get("dirty"),
        "code_version": versions.get("ddray"),
        "torch_version": (other.get("versions") or {}).get("torch"),
        "numpy_version": versions.get("numpy"),
        "sklearn_version": versions.get("sklearn"),
        "device": other.get("device"),
        "numerics": _text(tuple(numerics.items())) if numerics else None,
        "dtype": numerics.get("dtype"),
        "deterministic": numerics.get("deterministic"),
        "wall_s": own.get("seconds"),
        "started_at": _time(own.get("started_at")),
    }
    return tuple(values[name] for name in PROVENANCE)


def cost_rows(stage: Stage, facts: Facts) -> list[dict[str, Any]]:
    """Seconds and peak memory of a finished stage; the bytes of a distilled set."""
    found = [
        (f"{stage.kind}_s", facts.provenance.get("seconds"), "s"),
        (f"{stage.kind}_peak_mib", facts.provenance.get("peak_mib"), "MiB"),
    ]
    if stage.kind == "distill":
        found.append(("distill_bytes", facts.bytes, "bytes"))
    told: dict[str, Any] = {}
    match stage.config:  # of these a point may have several
        case AttackConfig(attack=attack):
            told["attack"] = attack
        case ExpertConfig(index=index):
            told["repeat"] = index
    return [
        {"property": "cost", "metric": metric, "value": value, "unit": unit, "n": 1, "agg": "single", **told}
        for metric, value, unit in found
        if value is not None
    ]


def course_rows(stage: Stage, facts: Callable[[], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How the making of a finished set went, of methods whose sets tell it; ``facts``: reads those of the set."""
    config = stage.config
    if not isinstance(config, DistillConfig) or config.method not in METHODS:
        return []
    if not METHODS[config.method].settings.course:
        return []
    found = facts()
    rows = []
    for metric, value, unit in (
        ("distill_loss", found.get("loss_last"), "ratio"),
        ("distill_rate_clamped", found.get("rate_clamped"), "iterations"),
    ):
        if value is not None:
            row = {"property": "performance", "metric": metric, "value": float(value), "unit": unit, "n": 1}
            rows.append({**row, "agg": "single", "flag": "not_converged" if value >= 1 else None})
    return rows


def _distill_values(chain: Chain, distill: Stage) -> dict[str, Any]:
    config = distill.config
    assert isinstance(config, DistillConfig), distill.label
    settings, budget = dict(config.settings), _budget(config.method)
    iterations = settings.pop(budget, None) if budget else None
    published = _published(chain).get(budget) if budget else None
    network = config.network.key_material() if config.network is not None else None
    factor = int(settings.get("factor", 1))
    return {
        "budget_fraction": iterations / published if iterations and published else None,
        "distill_arch": config.network.architecture if config.network is not None else None,
        "distill_aug": config.augmentation,
        "distill_iters": iterations,
        "distill_seed": config.distill_seed if config.method != EXTERNAL else None,
        "distill_cfg_hash": digest(
            {"method": config.method, "version": config.method_version, "settings": settings, "network": network}
        ),
        "zca": bool(settings.get("zca", False)),
        "label_kind": str(settings.get("label_kind", "hard")),
        "factor": factor,
        "effective_ipc": config.ipc * factor**2,
    }


def _param(chain: Chain, distill: Stage | None) -> str | None:
    found: dict[str, Any] = {}
    if chain.protocol_changes:
        found["protocol_changes"] = dict(chain.protocol_changes)
    if together := training(chain).ensemble:
        found["ensemble"] = list(together)
    dataset = training(chain).dataset
    if dataset.folder is not None or dataset.resize is not None:
        found["declared"] = {"like": dataset.base, "folder": dataset.folder, "resize": dataset.resize}
    if isinstance(model := training(chain), ExternalConfig):
        found["settings"] = {"file": model.file, "mean": list(model.mean), "std": list(model.std)}
    if distill is not None and isinstance(distill.config, DistillConfig):
        if distill.config.settings:
            found["settings"] = dict(distill.config.settings)
        if chain.point.method in METHODS and (changed := _changed_settings(chain, distill.config)):
            found["changed_settings"] = changed
    if chain.unpublished:
        found["unpublished"] = {entry.setting: entry.source for entry in chain.unpublished}
    return canonical(found) if found else None


def _changed_settings(chain: Chain, config: DistillConfig) -> dict[str, Any]:
    usual = METHODS[config.method].settings().key_material() | _published(chain)
    budget = _budget(config.method)
    return {
        name: config.settings.get(name, value)
        for name, value in chain.point.settings.items()
        if name != budget and config.settings.get(name, value) != usual.get(name)
    }


def _budget(method: str) -> str | None:
    return METHODS[method].settings.budget if method in METHODS else None


def _published(chain: Chain) -> dict[str, Any]:
    return _chosen(chain.point.method, training(chain).dataset.base, chain.point.ipc, canonical(chain.point.settings))


@cache
def _chosen(method: str, dataset: str, ipc: int | None, settings: str) -> dict[str, Any]:
    """Setting -> the value published for the combination, or for the nearest one, as JSON types."""
    values = {entry.setting: entry.value for entry in choose(method, dataset, ipc, json.loads(settings))}
    found: dict[str, Any] = json.loads(canonical(values))
    return found


def _ratio(ipc: int | None, config: TrainConfig | ExternalConfig) -> float | None:
    if ipc is None:
        return 1.0 if config.recipe is not None else None
    size = config.origin.per_class
    if size is None and config.dataset.folder is None and config.origin.kind != "listed":
        size = KNOWN[config.dataset.base].train_per_class
    return ipc / size if size else None


@cache
def _text(items: tuple[tuple[str, Any], ...]) -> str:
    return canonical(dict(items))


def _time(text: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
