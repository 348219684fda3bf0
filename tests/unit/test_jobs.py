"""Chains become jobs: what is shared stands alone, what is exclusive goes together, and nothing ever regroups."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from workspace import Workspace

from ddray.plan.jobs import Job, Plan, blocked_stages, runnable_jobs
from ddray.prepare import Prepared
from ddray.run.schedule import Schedule

SHARED = """
ddray: 1
RESOURCES
defaults: {protocol: quick, axes: {dataset: [cifar10], architecture: [convnet3]}}
grids:
  g: {axes: {method: [dm, random], ipc: [1, 100], seed: [0, 1], distill_seed: [0]}}
"""
ALONE = SHARED.replace("seed: [0, 1], distill_seed: [0]", "seed: [0], distill_seed: [0, 1]")


def prepared(workspace: Workspace, text: str = SHARED, resources: str = "", **request: Any) -> Prepared:
    return workspace.prepare(workspace.write("sweep", text.replace("RESOURCES", resources)), **request)


def plan_of(workspace: Workspace, text: str = SHARED, resources: str = "", **request: Any) -> Plan:
    return prepared(workspace, text, resources, **request).plan


def kinds(job: Job) -> tuple[str, ...]:
    return tuple(stage.kind for stage in job.stages)


def test_a_shared_stage_is_a_job_of_its_own(workspace: Workspace) -> None:
    plan = plan_of(workspace)
    assert Counter(map(kinds, plan.jobs)) == {("distill",): 4, ("train", "accuracy"): 8}
    assert all(job.points == (2 if kinds(job) == ("distill",) else 1) for job in plan.jobs)


def test_exclusive_stages_go_together_and_are_cut_where_the_share_changes(workspace: Workspace) -> None:
    plan = plan_of(workspace, ALONE)
    assert Counter((kinds(job), job.gpu) for job in plan.jobs) == {
        (("distill",), 0.0): 4,  # random draws images and needs no card
        (("train", "accuracy"), 0.125): 4,
        (("distill", "train", "accuracy"), 0.125): 4,  # an eighth is enough for both
    }
    plan = plan_of(workspace, ALONE, "resources: {distill.dm: {gpu: 0.5}}")
    assert Counter((kinds(job), job.gpu) for job in plan.jobs) == {
        (("distill",), 0.0): 4,
        (("distill",), 0.5): 4,
        (("train", "accuracy"), 0.125): 8,
    }


def test_another_number_of_cpus_cuts_too(workspace: Workspace) -> None:
    """Threads decide the bytes of a result, so a stage gets its own number and not that of its neighbours."""
    plan = plan_of(workspace, ALONE, "resources: {train: {cpus: 3}}")
    assert {(kinds(job), job.cpus) for job in plan.jobs} == {(("distill",), 1), (("train",), 3), (("accuracy",), 1)}


def test_every_stage_is_in_exactly_one_job(workspace: Workspace) -> None:
    for text in (SHARED, ALONE):
        plan = plan_of(workspace, text)
        made = Counter(stage.key for job in plan.jobs for stage in job.stages)
        assert made == Counter(plan.stages.keys())
        assert len({job.name for job in plan.jobs}) == len(plan.jobs)
        for job in plan.jobs:
            own = {stage.key for stage in job.stages}
            assert set(job.needs) == {key for stage in job.stages for _, key in stage.inputs} - own
            assert job.gpu == max((stage.share or 0 for stage in job.stages), default=0)


@pytest.mark.parametrize(
    "narrowed", [{"only": ("seed=0",)}, {"skip": ("seed=0",)}, {"only": ("method=dm",)}, {"limit": 1}]
)
def test_filters_never_regroup(workspace: Workspace, narrowed: dict[str, Any]) -> None:
    """With seed 1 left out nobody else needs a distilled set; it stays a job of its own all the same."""
    whole = {job.name: kinds(job) for job in plan_of(workspace).jobs}
    plan = plan_of(workspace, **narrowed)
    assert {job.name: kinds(job) for job in plan.jobs} == whole
    running = runnable_jobs(plan, ())
    assert {job.name: kinds(job) for job in running}.items() <= whole.items()
    assert {stage.key for job in running for stage in job.stages} == plan.needed() < set(plan.stages)


def test_finished_work_never_regroups(workspace: Workspace) -> None:
    plan = plan_of(workspace, ALONE)
    by_name = {job.name: job for job in plan.jobs}
    for chain in plan.chains:
        for count in range(len(chain.stages) + 1):
            done = {stage.key for stage in chain.stages[:count]}
            reduced = runnable_jobs(plan, done)
            for job in reduced:
                whole = by_name[job.name]
                assert job.stages == tuple(stage for stage in whole.stages if stage.key not in done)
                assert (job.cpus, job.gpu) == (whole.cpus, whole.gpu), "the same request, so the same shape"
                assert not done & set(job.needs)
            assert {stage.key for job in reduced for stage in job.stages} == set(plan.stages) - done


def test_a_finished_plan_has_nothing_to_do(workspace: Workspace) -> None:
    plan = plan_of(workspace)
    done = set(plan.stages)
    assert runnable_jobs(plan, done) == []
    schedule = Schedule([], done)
    assert schedule.over
    assert schedule.take(lambda job: True) is None
    summary = plan.summary(done)
    assert (summary["points"], summary["jobs"]) == (8, 0)
    assert all(counts["cached"] == counts["total"] for counts in summary["stages"].values())


def test_an_input_that_got_lost_is_made_again(workspace: Workspace) -> None:
    plan = plan_of(workspace)
    lost = next(stage.key for stage in plan.stages.values() if stage.kind == "distill")
    (job,) = runnable_jobs(plan, set(plan.stages) - {lost})
    assert [stage.key for stage in job.stages] == [lost]


def test_summary_counts_what_is_asked_for(workspace: Workspace) -> None:
    plan = plan_of(workspace, only=("method=dm",))
    done = {stage.key for stage in plan.stages.values() if stage.kind == "distill"}
    summary = plan.summary(done)
    assert summary["points"] == 4
    assert summary["stages"] == {
        "distill": {"total": 2, "cached": 2, "todo": 0, "blocked": 0},
        "train": {"total": 4, "cached": 0, "todo": 4, "blocked": 0},
        "accuracy": {"total": 4, "cached": 0, "todo": 4, "blocked": 0},
    }
    assert summary["jobs"] == 4


def test_what_cannot_be_computed_here_blocks_what_depends_on_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AutoAttack comes with an extra: where it is missing, the other attacks run and their summary waits."""
    asked = "{robustness: {attacks: [autoattack, fgsm]}}"
    text = SHARED.replace("defaults: {", f"defaults: {{evaluations: {asked}, ")
    monkeypatch.setattr("ddray.plan.chains._is_there", lambda library: True)
    with_it = plan_of(workspace, text)
    assert not blocked_stages(with_it.stages, ())
    monkeypatch.setattr("ddray.plan.chains._is_there", lambda library: library != "pyautoattack")
    plan = plan_of(workspace, text)
    assert plan.stages.keys() == with_it.stages.keys(), "what is installed is no part of a key"
    reasons = blocked_stages(plan.stages, ())
    assert Counter(plan.stages[key].kind for key in reasons) == {"attack": 8, "robustness": 8}
    assert set(reasons.values()) == {
        "attack autoattack needs pyautoattack, which is not installed: pip install 'ddray[strong]'"
    }
    for key, stage in plan.stages.items():
        own = stage.unavailable is not None
        behind = any(needed in reasons for _, needed in stage.inputs)
        assert (key in reasons) == (own or behind)
    todo = {stage.key for job in runnable_jobs(plan, ()) for stage in job.stages}
    assert todo == set(plan.stages) - set(reasons)
    assert sum(plan.summary(())["blocked"].values()) == len(reasons)
    # once another machine has made them, they block nothing
    done = {key for key, stage in plan.stages.items() if stage.unavailable is not None}
    assert not blocked_stages(plan.stages, done)


def test_the_plan_s_digest_covers_every_stage_and_no_filter(workspace: Workspace) -> None:
    digest = prepared(workspace).digest
    assert prepared(workspace, only=("seed=0",)).digest == digest
    assert prepared(workspace, resources="resources: {train: {gpu: 1}}").digest == digest
    assert prepared(workspace, sets=("defaults.protocol=dc300",)).digest != digest
    assert prepared(workspace, sets=("grids.g.axes.seed=[0]",)).digest != digest


def test_planning_text_and_facts_agree(workspace: Workspace) -> None:
    path = workspace.write("sweep", ALONE.replace("RESOURCES", ""))
    ran = workspace.run("plan", path, "--points")
    assert ran.code == 0, ran.err
    assert "8 points, 12 jobs to run" in ran.out
    (line,) = (line for line in ran.out.splitlines() if line.startswith("shares of a GPU"))
    assert sorted(line.partition(": ")[2].split(", ")) == ["4 x no GPU", "8 x 1/8"]
    assert "no published value" not in ran.out
    assert sum(line.startswith("  ") and "accuracy" in line for line in ran.out.splitlines()) == 8
    assert workspace.run("check", path).out == "sweep: valid; 8 points, 24 stages\n"


EXPERTS = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [cifar10], architecture: [convnet3]}}
grids:
  g: {axes: {method: [mtt], ipc: IPC, seed: [0]}, settings: {mtt: {num_experts: 12}}}
"""


@pytest.mark.parametrize("ipc", ["[1]", "[1, 10]"])
def test_a_few_experts_are_a_job_whoever_needs_them(workspace: Workspace, ipc: str) -> None:
    plan = plan_of(workspace, EXPERTS.replace("IPC", ipc))
    experts = [job for job in plan.jobs if "experts" in kinds(job)]
    assert [kinds(job) for job in experts] == [("experts",) * 5, ("experts",) * 5, ("experts",) * 2]
    assert all(not job.needs for job in experts), "any number of them may run at the same time"
    keys = {stage.key for job in experts for stage in job.stages}
    distill = [job for job in plan.jobs if "distill" in kinds(job)]
    assert all(set(job.needs) == keys for job in distill)
    assert len(distill) == len(ipc.split(","))


def test_experts_do_not_depend_on_what_they_are_used_for(workspace: Workspace) -> None:
    """One set of them serves every number of images per class, start and distillation seed."""
    text = EXPERTS.replace("IPC", "[1, 10]").replace(
        "seed: [0]}", "seed: [0], distill_seed: [0, 1], init: [noise, real]}"
    )
    plan = plan_of(workspace, text)
    assert sum(stage.kind == "experts" for stage in plan.stages.values()) == 12
    assert sum(stage.kind == "distill" for stage in plan.stages.values()) == 8
