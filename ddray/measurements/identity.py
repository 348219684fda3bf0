"""What a row says about itself: the columns that follow from a point's chain, and from the manifests of its stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from ddray.measurements.columns import COLUMNS, names
from ddray.plan.axes import AXES
from ddray.plan.graph import Chain, Stage
from ddray.plan.imported import NAME
from ddray.plan.keys import canonical, digest
from ddray.store.manifest import Manifest
from trainables.configs import PRESET, DistillConfig, ExternalConfig, OriginConfig, TrainConfig
from trainables.data.known import KNOWN
from trainables.methods import EXTERNAL, METHODS
from trainables.presets import choose

PROVENANCE = names("provenance")
POINT = tuple(
    column.name
    for column in COLUMNS
    if column.group == "identity" and column.name not in ("schema_version", "row_id", "sweep", "stage_key")
)
"""Columns that are equal on all rows of a point."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What rows need of the manifest of a finished stage."""

    files: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, manifest: Manifest) -> StageRecord:
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


def teacher_of(chain: Chain) -> str | None:
    """The key of the training that labelled the images of the chain's set; None: the set has its own labels."""
    stages = (chain.stage("ensemble"), chain.stage("train"))
    return next((key for stage in stages if stage for role, key in stage.inputs if role == "teacher"), None)


def own_labels(chain: Chain) -> tuple[int, ...] | None:
    """The data set's labels of the class positions, where they differ."""
    classes = training(chain).origin.classes
    return None if classes[-1] == len(classes) - 1 else classes  # ascending without repeats


class PointColumns:
    """The columns of a sweep's points; what several points have in common is worked out once."""

    def __init__(self) -> None:
        self._data: dict[tuple[str, OriginConfig], str] = {}
        self._distill: dict[str, dict[str, Any]] = {}
        self._params: dict[tuple[Any, ...], str | None] = {}

    def values(self, chain: Chain, distilled: StageRecord | None, trained: StageRecord | None) -> tuple[Any, ...]:
        """Values of ``POINT``.

        Args:
            chain: The point.
            distilled: The record of the distilled set, when there is one.
            trained: The record of the model, when there is one.
        """
        point, config = chain.point, training(chain)
        origin, recipe = config.origin, config.recipe
        subset = point.num_classes is not None
        alone = point.method == EXTERNAL and NAME not in point.settings  # its classes were given one by one
        values: dict[str, Any] = {
            **{axis: getattr(point, axis) for axis in AXES},
            "grids": list(point.grids),
            "point": point.hash,
            "protocol": chain.protocol,
            "num_classes": len(origin.classes),
            "class_ids": list(origin.classes) if subset else None,
            "class_draw": (point.class_draw or 0) if subset and not alone else None,
            "origin_per_class": origin.per_class,
            "origin_draw": origin.draw,
            "data_hash": self._data_hash(config),
            "constants": _constants(config),
            "ratio": _ratio(point.ipc, config),
            "norm_layer": config.network.norm,
            "model_hash": trained.content if trained else None,
        }
        if recipe is None:  # of a model that was brought, nothing of it is known
            values["seed"] = None
        else:
            values |= {
                "train_aug": recipe.augmentation,
                "train_epochs": recipe.epochs,
                "train_steps": recipe.steps,
                "optimizer": recipe.optimiser,
                "lr": recipe.lr,
                "selection": "last",
            }
        distill = chain.stage("distill")
        if distill is not None:
            if distill.key not in self._distill:
                self._distill[distill.key] = _distill_values(chain, distill)
            values |= self._distill[distill.key]
            values["distilled_hash"] = distilled.content if distilled else None
        if point.labels is not None:
            values["label_kind"] = "soft"
        return tuple(values.get(name) for name in POINT)

    def param(self, chain: Chain) -> str | None:
        """``param_json``: the method's settings, and how they and the recipe differ from what is published.

        ``settings`` (all of them), ``preset`` (the alternative that the sweep names), ``changed_settings`` (given by
        the sweep and not the published or default value; the budget has a column of its own), ``unpublished`` (setting
        -> where its value was borrowed), ``protocol_changes``, ``declared`` (the data set is not a known one as it is:
        ``like``, ``folder``, ``resize``, and ``classes`` or ``constants`` where they differ), ``ensemble`` (the seeds
        that were trained together), ``labels`` (of soft ones: form, source, loss, temperature, whether scaled by its
        square, teacher).
        """
        distill, model = chain.stage("distill"), training(chain)
        changes = canonical(dict(chain.protocol_changes)) if chain.protocol_changes else ""
        brought = model.file if isinstance(model, ExternalConfig) else None
        preset = chain.point.settings.get(PRESET)
        labels = (chain.point.labels, teacher_of(chain))
        key = (distill.key if distill else brought, chain.point.dataset, changes, model.ensemble, preset, *labels)
        if key not in self._params:
            self._params[key] = _param(chain, distill)
        return self._params[key]

    def _data_hash(self, config: TrainConfig | ExternalConfig) -> str:
        key = (config.dataset.digest, config.origin)
        if key not in self._data:
            self._data[key] = digest({"data": config.dataset.digest, "origin": config.origin.key_material()})
        return self._data[key]


def provenance_values(stage: StageRecord, trained: StageRecord) -> tuple[Any, ...]:
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


def _distill_values(chain: Chain, distill: Stage) -> dict[str, Any]:
    config = distill.config
    assert isinstance(config, DistillConfig), distill.label
    settings, budget = dict(config.settings), _budget(config.method)
    iterations = settings.pop(budget, None) if budget else None
    published = _published(chain).get(budget) if budget else None
    network = config.network.key_material() if config.network is not None else None
    factor = int(settings.get("factor", 1))
    return {
        "budget_fraction": iterations / published if iterations is not None and published else None,
        "distill_arch": config.network.architecture if config.network is not None else None,
        "distill_aug": config.augmentation,
        "distill_iters": iterations,
        "distill_seed": config.distill_seed if config.method != EXTERNAL else None,
        "distill_cfg_hash": digest(
            {"method": config.method, "version": config.method_version, "settings": settings, "network": network}
        ),
        "zca": bool(settings.get("zca", False)),
        "label_kind": "hard" if soft_labels(config) is None else "soft",
        "factor": factor,
        "effective_ipc": config.ipc * factor**2,
    }


def _param(chain: Chain, distill: Stage | None) -> str | None:
    param: dict[str, Any] = {}
    if chain.protocol_changes:
        param["protocol_changes"] = dict(chain.protocol_changes)
    if together := training(chain).ensemble:
        param["ensemble"] = list(together)
    dataset = training(chain).dataset
    if dataset.folder is not None or dataset.resize is not None or dataset.name != dataset.base:
        param["declared"] = {"like": dataset.base, "folder": dataset.folder, "resize": dataset.resize}
        if dataset.num_classes != KNOWN[dataset.base].num_classes:
            param["declared"]["classes"] = dataset.num_classes
        if (name := constants_name(dataset.base, dataset.mean, dataset.std)) != dataset.base:
            param["declared"]["constants"] = name
    if isinstance(model := training(chain), ExternalConfig):
        param["settings"] = {"file": model.file, "mean": list(model.mean), "std": list(model.std)}
    if distill is not None and isinstance(distill.config, DistillConfig):
        if distill.config.settings:
            param["settings"] = dict(distill.config.settings)
        if labels := _soft_labels(chain, distill.config):
            param["labels"] = labels
        if chain.point.method != EXTERNAL and (changed := _changed_settings(chain, distill.config)):
            param["changed_settings"] = changed
    if PRESET in chain.point.settings:
        param["preset"] = chain.point.settings[PRESET]
    if chain.unpublished:
        param["unpublished"] = {entry.setting: entry.source for entry in chain.unpublished}
    return canonical(param) if param else None


def soft_labels(config: DistillConfig) -> Mapping[str, Any] | None:
    """``label_form``, ``label_source`` and ``temperature`` of a set's own soft labels; None of hard ones."""
    if config.settings.get("label_kind", "hard") != "hard":  # a file's, of which it was said
        return config.settings
    source = _label_source(config.method, canonical(config.settings))
    return {"label_form": "logits", "label_source": source, "temperature": 1.0} if source is not None else None


@cache
def _label_source(method: str, settings: str) -> str | None:
    """Where a method's soft labels come from; ``settings``: all of them, as JSON."""
    declared = METHODS.get(method)
    if declared is None or not declared.distils:
        return None
    return declared.settings.model_validate(json.loads(settings)).label_source


def _soft_labels(chain: Chain, distilled: DistillConfig) -> dict[str, Any] | None:
    """What the labels of a set are and how a network learned them; None of hard ones."""
    config, recipe = training(chain), training(chain).recipe
    if recipe is None:
        return None
    if isinstance(config, TrainConfig) and config.teacher is not None:
        own: Mapping[str, Any] = {
            "label_form": "logits",
            "label_source": "online teacher" if config.teacher.online else "teacher",
            "temperature": config.teacher.temperature,
            "teacher": {"name": chain.point.labels, "key": teacher_of(chain)},
        }
    elif found := soft_labels(distilled):
        own = found
    else:
        return None
    of_logits = recipe.label_loss in ("soft_ce", "kl")
    return {
        "form": own.get("label_form"),
        "source": own.get("label_source"),
        "loss": recipe.label_loss,
        # T and the factor never one without the other: alone neither says how large gradients are.
        "temperature": (recipe.temperature or own.get("temperature") or 1.0) if of_logits else None,
        "scaled": recipe.scaled if of_logits else None,
        "teacher": own.get("teacher"),
    }


def _changed_settings(chain: Chain, config: DistillConfig) -> dict[str, Any]:
    usual = METHODS[config.method].settings().key_material() | _published(chain)
    budget = _budget(config.method)
    return {
        name: config.settings.get(name, value)
        for name, value in chain.point.settings.items()
        if name not in (budget, PRESET) and config.settings.get(name, value) != usual.get(name)
    }


def _budget(method: str) -> str | None:
    return METHODS[method].settings.budget if method in METHODS else None


def _published(chain: Chain) -> dict[str, Any]:
    return _chosen(chain.point.method, training(chain).dataset.base, chain.point.ipc, canonical(chain.point.settings))


@cache
def _chosen(method: str, dataset: str, ipc: int | None, settings: str) -> dict[str, Any]:
    """Setting -> the value published for the combination, or for the nearest one, as JSON types."""
    published = {entry.setting: entry.value for entry in choose(method, dataset, ipc, json.loads(settings))}
    values: dict[str, Any] = json.loads(canonical(published))
    return values


def _constants(config: TrainConfig | ExternalConfig) -> str | None:
    """Whose constants normalise the images that the trained network sees."""
    brought = config if isinstance(config, ExternalConfig) else config.dataset
    return constants_name(config.dataset.base, brought.mean, brought.std)


@cache
def constants_name(base: str, mean: tuple[float, ...], std: tuple[float, ...]) -> str | None:
    """The known data set that has these constants, of several the one at hand; None: none has.

    Args:
        base: The data set at hand.
        mean: Per channel.
        std: Per channel.
    """
    return next((name for name in (base, *KNOWN) if (KNOWN[name].mean, KNOWN[name].std) == (mean, std)), None)


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
