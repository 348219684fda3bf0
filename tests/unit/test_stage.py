"""A job's stages: committed one by one, failures kept to their descendants, inputs that vanish made again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace, stages

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job
from ddray.run.board import Board
from ddray.run.local import run_one
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome, WorkerEnv, _cause, run_job


@pytest.fixture
def env(workspace: Workspace) -> WorkerEnv:
    folders = workspace.folders
    return WorkerEnv(
        store=folders.store, data=str(folders.data), cache=str(folders.cache), code={"commit": None, "dirty": None}
    )


def chain(workspace: Workspace) -> list[Stage]:
    """random -> train -> accuracy of one point."""
    prepared = workspace.prepare(workspace.tiny())
    kinds: Iterator[Any] = iter(("distill", "train", "accuracy"))
    return [stages(prepared, kind, method="random", seed=0)[0] for kind in kinds]


def run(job: Job, env: WorkerEnv) -> Outcome:
    return run_one(job, env, Board(), threading.Event())


def test_a_job_commits_each_stage_with_its_provenance(workspace: Workspace, env: WorkerEnv) -> None:
    made = chain(workspace)
    outcome = run(make_job(made, 1), env)
    assert outcome.done == [stage.key for stage in made]
    assert outcome == Outcome(done=outcome.done, seconds=outcome.seconds)
    for stage in made:
        manifest = workspace.store.open(stage.key).manifest
        assert (manifest.kind, manifest.label, dict(manifest.inputs)) == (stage.kind, stage.label, dict(stage.inputs))
        assert stage.config is not None
        assert manifest.config == json.loads(stage.config.model_dump_json())
        said = manifest.provenance
        assert said["numerics"]["threads"] == said["cpus"] == 1
        assert said["device"] in ("cpu", "cuda")
        assert said["seconds"] >= 0
        assert {"torch", "python", "ddray"} <= said["versions"].keys()
    before = workspace.manifests()
    assert run(make_job(made, 1), env).done == [stage.key for stage in made]
    assert workspace.manifests() == before, "what exists is not computed again"


def test_a_stage_somebody_else_computes_is_left_alone(workspace: Workspace, env: WorkerEnv) -> None:
    made = chain(workspace)
    claim = workspace.store.claim(made[0].key)
    assert claim.acquire()
    outcome = run(make_job(made, 1), env)
    assert (list(outcome.busy), outcome.done, outcome.failed) == ([made[0].key], [], {})
    claim.release()
    assert len(run(make_job(made, 1), env).done) == 3
    assert workspace.store.claim(made[0].key).holder() is None


def test_an_input_that_is_not_there_is_no_failure(workspace: Workspace, env: WorkerEnv) -> None:
    """Another job met it damaged a moment ago and moved it away."""
    distill, train, accuracy = chain(workspace)
    outcome = run(make_job([train, accuracy], 1), env)
    assert outcome.failed == {}
    assert list(outcome.damaged) == [distill.key]
    assert workspace.store.failures() == set()


def test_after_a_failure_the_rest_of_the_job_goes_on(workspace: Workspace, env: WorkerEnv) -> None:
    """Only what needs the failed stage is left out."""
    distill, train, accuracy = chain(workspace)
    broken = make_job([distill, train, accuracy], 1).spec()
    other = {**broken["stages"][2], "key": "ff" * 32, "config": {"num_classes": "many"}}
    last = {**broken["stages"][2], "key": "ee" * 32, "inputs": {"model": other["key"]}}
    broken["stages"] = [*broken["stages"][:2], other, last, broken["stages"][2]]
    outcome = run_job(broken, env, lambda *_: False)
    assert outcome.done == [distill.key, train.key, accuracy.key]
    assert list(outcome.failed) == [other["key"]]
    assert workspace.store.failures() == {other["key"]}
    assert not workspace.store.has(last["key"])


def test_a_stop_ends_the_job_between_stages(workspace: Workspace, env: WorkerEnv) -> None:
    made = chain(workspace)
    stop = threading.Event()
    stop.set()
    outcome = run_one(make_job(made, 1), env, Board(), stop)
    assert outcome.interrupted
    assert len(outcome.done) < 3
    assert outcome.failed == {}
    assert workspace.store.claim(made[0].key).holder() is None


class Unprintable:
    """Has no text of its own: Python names its place in memory."""


def test_the_cause_of_a_failure_names_no_place_in_memory() -> None:
    thing = Unprintable()
    assert " at 0x" in str(thing)
    messages = (f"cannot read {thing}", f"{thing!r} (or {len})", "bad value 0x1F", f"fault at {id(thing):#014x}")
    causes = [_cause(OSError(message)) for message in messages]
    assert causes[0] == f"OSError: cannot read <{__name__}.Unprintable object>"
    assert causes[1] == f"OSError: <{__name__}.Unprintable object> (or <built-in function len>)"
    assert causes[2] == "OSError: bad value 0x1F", "a number is not a place"
    assert causes[3] == "OSError: fault at 0x…"


# --- what an outcome means ----------------------------------------------------------------------------------------


def handler(schedule: Schedule, made: list[Stage]) -> OutcomeHandler:
    return OutcomeHandler(
        schedule,
        {stage.key: stage for stage in made},
        Progress(schedule, "test", quiet=True, cost=lambda stage: stage.work),
        threading.Event(),
    )


def take(schedule: Schedule) -> Job:
    job = schedule.take(lambda _: True)
    assert job is not None
    return job


def test_two_jobs_that_meet_one_damaged_input_have_it_made_once(workspace: Workspace) -> None:
    prepared = workspace.prepare(workspace.tiny())
    (distill,) = stages(prepared, "distill", method="dm")
    trains = stages(prepared, "train", method="dm")
    schedule = Schedule([make_job([train], 1) for train in trains], {distill.key})
    judge = handler(schedule, list(prepared.plan.stages.values()))
    first, second = take(schedule), take(schedule)
    judge.settle(first, Outcome(damaged={distill.key: "damaged"}))
    judge.settle(second, Outcome(damaged={distill.key: "gone"}))
    maker = take(schedule)
    assert [stage.key for stage in maker.stages] == [distill.key]
    assert schedule.take(lambda _: True) is None
    judge.settle(maker, Outcome(done=[distill.key]))
    for _ in range(2):
        job = take(schedule)
        judge.settle(job, Outcome(done=[stage.key for stage in job.stages]))
    assert schedule.over
    assert set(schedule.finished.values()) == {"done"}


def test_an_input_damaged_again_right_away_fails_what_needs_it(workspace: Workspace) -> None:
    """The disk is broken, not the file: this must end."""
    distill, train, accuracy = chain(workspace)
    schedule = Schedule([make_job([train, accuracy], 1)], {distill.key})
    judge = handler(schedule, [distill, train, accuracy])
    job = take(schedule)
    judge.settle(job, Outcome(damaged={distill.key: "damaged"}))
    maker = take(schedule)
    judge.settle(maker, Outcome(done=[distill.key]))
    judge.settle(take(schedule), Outcome(damaged={distill.key: "damaged again"}))
    assert schedule.over
    assert schedule.failed == {train.key: "damaged again"}
    assert schedule.blocked == {accuracy.key: train.key}


def test_a_stage_of_the_job_itself_that_is_damaged_is_made_again(workspace: Workspace) -> None:
    """Its own output, read back by the next stage: the job runs again rather than wait for itself."""
    distill, train, accuracy = chain(workspace)
    schedule = Schedule([make_job([distill, train, accuracy], 1)], ())
    judge = handler(schedule, [distill, train, accuracy])
    job = take(schedule)
    judge.settle(job, Outcome(done=[distill.key], damaged={train.key: "damaged"}))
    assert take(schedule) is job
    judge.settle(job, Outcome(damaged={train.key: "damaged again"}))
    assert schedule.over
    assert set(schedule.failed) == {accuracy.key}


def test_busy_jobs_come_back_and_interrupted_ones_do_not(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made = chain(workspace)
    schedule = Schedule([make_job(made, 1)], ())
    judge = handler(schedule, made)
    job = take(schedule)
    monkeypatch.setattr("ddray.run.outcomes.DEFER_SECONDS", 0.0)
    judge.settle(job, Outcome(busy={made[0].key: ""}))
    waiting = judge.waiting
    assert not schedule.over
    judge.release_deferred()
    assert (waiting, judge.waiting) == (True, False)
    assert take(schedule) is job
    judge.settle(job, Outcome(interrupted=True))
    assert judge.interrupted
    assert schedule.take(lambda _: True) is None
    assert not schedule.over


def test_a_vanished_input_is_made_again_in_a_whole_sweep(workspace: Workspace) -> None:
    """Removed by hand while nobody looked: plan, executor and tables all get over it."""
    path = workspace.tiny()
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 0
    payloads = workspace.payloads()
    (distill,) = stages(workspace.prepare(path), "distill", method="random")
    folder = workspace.store.open(distill.key).folder
    folder.rename(workspace.folder / "elsewhere")
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 0
    assert workspace.payloads() == payloads
    assert Path(folder).is_dir()
