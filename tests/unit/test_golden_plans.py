"""The plans of the shipped sweeps are what they were: every stage with its key, label and cost, every job, in order.

``tests/golden/plans.json`` holds a digest for each sweep and profile. A key that changes orphans finished work of every
user; a label, share, estimate or job that changes is seen by them. Whoever means it records the new digest, which the
failure shows, and says so in CHANGELOG.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workspace import Workspace

from ddray.plan.jobs import Plan
from ddray.plan.keys import digest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN: dict[str, str] = json.loads((ROOT / "tests" / "golden" / "plans.json").read_text())


def shipped() -> list[str]:
    """``sweeps/NAME.yaml``, and the same with ``@PROFILE`` for each of its profiles."""
    names = []
    for path in sorted((ROOT / "sweeps").rglob("*.yaml")):
        profiles = YAML(typ="safe").load(path.read_text()).get("profiles", {})
        file = str(path.relative_to(ROOT))
        names += [file, *(f"{file}@{profile}" for profile in profiles)]
    return names


def plan_digest(plan: Plan) -> str:
    """Of everything but whether a library is installed here."""
    stages = [
        [
            *(stage.key, stage.kind, stage.version, stage.label, stage.lineage, stage.budget),
            *(stage.cpus, stage.share, stage.work, stage.size),
            *map(list, stage.inputs),
        ]
        for stage in plan.stages.values()
    ]
    jobs = [
        [
            *(job.name, job.cpus, job.gpu, job.work, job.points),
            *([stage.key for stage in job.stages], list(job.needs), list(job.after)),
        ]
        for job in plan.jobs
    ]
    chains = [
        [chain.point.hash, chain.protocol, chain.protocol_changes, [stage.key for stage in chain.all_stages]]
        for chain in plan.chains
    ]
    return digest([stages, jobs, chains])[:16]


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_sweep_is_planned_as_it_was(workspace: Workspace, name: str) -> None:
    file, _, profile = name.partition("@")
    plan = workspace.prepare(ROOT / file, profiles=(profile,) if profile else ()).plan
    assert (name, plan_digest(plan)) == (name, GOLDEN.get(name, "not recorded"))


def test_nothing_is_recorded_of_sweeps_that_are_gone() -> None:
    assert set(GOLDEN) == set(shipped())
