"""The rows of a finished stage beside those that evaluations write: what it cost, and how its making went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ddray.measurements.identity import StageRecord, soft_labels
from ddray.measurements.metrics import BY_ID
from ddray.plan.graph import Stage
from trainables.configs import AttackConfig, DistillConfig, ExpertConfig
from trainables.methods import METHODS

Row = dict[str, Any]


def cost_rows(stage: Stage, record: StageRecord) -> list[Row]:
    """Seconds and peak memory of a finished stage; the bytes of a distilled set."""
    costs = {
        f"{stage.kind}_s": record.provenance.get("seconds"),
        f"{stage.kind}_peak_mib": record.provenance.get("peak_mib"),
    }
    if stage.kind == "distill":
        costs["distill_bytes"] = record.bytes
    which: Row = {}
    match stage.config:  # of these a point may have several
        case AttackConfig(attack=attack):
            which["attack"] = attack
        case ExpertConfig(index=index):
            which["repeat"] = index
    return [BY_ID[metric].row(value, 1, **which) for metric, value in costs.items() if value is not None]


def audit_cost_rows(beside: Iterable[Stage], seconds: float | None) -> list[Row]:
    """How many distillations and trainings an audit needed beside the point's own, and the seconds of all.

    Args:
        beside: The stages.
        seconds: Of all of them; None where those of one are not known.
    """
    kinds = Counter(stage.kind for stage in beside)
    costs = {
        "privacy_distillations": float(kinds["distill"]),
        "privacy_trainings": float(kinds["train"]),
        "privacy_beside_s": seconds,
    }
    return [BY_ID[metric].row(value, kinds.total()) for metric, value in costs.items() if value is not None]


def is_described(stage: Stage) -> bool:
    """Whether the description of a distilled set has numbers of its own: of how its making went, or of its labels."""
    config = stage.config
    if not isinstance(config, DistillConfig):
        return False
    own = config.method in METHODS and METHODS[config.method].settings.course
    return own or soft_labels(config) is not None


def described_rows(info: Mapping[str, Any]) -> list[Row]:
    """How the making of a set went, and what its soft labels are like.

    Args:
        info: That of the set (``trainables.files.SET_INFO``).
    """
    course = {"distill_loss": info.get("loss_last"), "distill_rate_clamped": info.get("rate_clamped")}
    labels = {name: info.get(name) for name in ("label_agreement", "label_entropy")}
    return [
        BY_ID[metric].row(float(value), 1, flag="not_converged" if metric in course and value >= 1 else None)
        for metric, value in {**course, **labels}.items()
        if value is not None
    ]


def map_rows(info: Mapping[str, Any]) -> list[Row]:
    """A map's numbers.

    Args:
        info: That of the map (``trainables.files.MAP_INFO``).
    """
    return [
        BY_ID[f"tsne_{name}"].row(
            info.get(name),
            sum(info.get("points", ())),
            perplexity=info["perplexity"],
            agg="pooled",
            flag="degenerate" if info.get(name) is None else None,
        )
        for name in ("trustworthiness", "kl_divergence")
    ]
