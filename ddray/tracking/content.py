"""What a run of a point says: its tags, parameters, and the names of its metrics."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from ddray.plan.graph import Chain
from ddray.tracking.measured import MeasuredPoint, Number
from ddray.tracking.runs import PLANNED
from trainables.configs import DistillConfig, TrainConfig

MAX_PARAMS, MAX_PARAM, MAX_TAG = 100, 6000, 5000
"""Of one run: names of parameters, characters of a value and of a tag. Beyond, MLflow refuses or its page crawls."""


def metric_name(row: Number) -> str:
    """The metric, and the parameters that tell it from others: ``adv_acc/deepfool_l2/l2/0.5``."""
    return "/".join([row.metric, *(str(value) for value in row.parameters if value is not None)])


def tags(chain: Chain, point: MeasuredPoint) -> dict[str, str]:
    axes = {
        name: getattr(chain.point, name)
        for name in (
            "method",
            "dataset",
            "ipc",
            "init",
            "architecture",
            "seed",
            "distill_seed",
            "origin_per_class",
            "num_classes",
        )
    }
    notes = dict.fromkeys(row.note for row in point.rows if row.note)
    tags: dict[str, Any] = {
        **axes,
        "protocol": chain.protocol,
        "status": point.status,
        "git_commit": point.commit,
        "dirty": None if point.dirty is None else str(point.dirty).lower(),
        "device": point.device,
        "note": "\n".join(map(str, notes)),
        "ddray.grids": ", ".join(chain.point.grids),
        PLANNED: "true",
        **{f"ddray.stage.{stage.kind}": stage.key for stage in chain.stages},
    }
    return {name: str(value)[:MAX_TAG] for name, value in tags.items() if value is not None}


def params(chain: Chain) -> dict[str, str]:
    """The resolved configuration, flat."""
    train, distill = chain.stage("train"), chain.stage("distill")
    values: dict[str, Any] = {"method": chain.point.method, "protocol": chain.protocol}
    if train is not None and isinstance(train.config, TrainConfig):
        dumped = train.config.model_dump(mode="json")
        values |= _flat({name: dumped[name] for name in ("dataset", "origin")})
        values |= _flat({name: value for name, value in dumped.items() if name not in ("dataset", "origin")}, "train.")
    if distill is not None and isinstance(distill.config, DistillConfig):
        dumped = distill.config.model_dump(mode="json", exclude={"dataset", "origin", "method"})
        values |= _flat(dumped, "distill.")
    texts = {name: str(value)[:MAX_PARAM] for name, value in sorted(values.items()) if value is not None}
    if len(texts) > MAX_PARAMS:
        rest = dict(itertools.islice(texts.items(), MAX_PARAMS - 1, None))
        texts = dict(itertools.islice(texts.items(), MAX_PARAMS - 1)) | {"further": json.dumps(rest)[:MAX_PARAM]}
    return texts


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
