"""Stages and jobs without a sweep, for tests of their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job


def stage(key: str, needs: Sequence[str] = (), **other: Any) -> Stage:
    values: dict[str, Any] = {
        "kind": "train",
        "lineage": key,
        "budget": None,
        "version": 1,
        "label": f"train {key}",
        "config": None,
        "unavailable": None,
        "cpus": 1.0,
        "share": 0.125,
        "work": 1.0,
        "size": 1,
        **other,
    }
    return Stage(key=key, inputs=tuple((f"input{number}", need) for number, need in enumerate(needs)), **values)


def job(*stages: Stage, after: Mapping[str, tuple[str, ...]] | None = None) -> Job:
    return make_job(stages, 1, after)
