"""The order of jobs: nothing before what it needs, failures stop their descendants and nobody else, all ends."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pieces import job, stage
from workspace import Workspace

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job
from ddray.plan.shares import SHARES
from ddray.run.schedule import Schedule


def keys(found: Job | None) -> list[str]:
    assert found is not None
    return [each.key for each in found.stages]


def anything(_: Job) -> bool:
    return True


def drain(schedule: Schedule) -> list[str]:
    """Keys in the order in which they are made when everything succeeds."""
    order = []
    while (found := schedule.take(anything)) is not None:
        order += keys(found)
        schedule.finish(found.name, keys(found), {})
    assert schedule.over
    return order


def test_needs_come_first() -> None:
    jobs = [job(stage("c", ["a", "b"])), job(stage("b", ["a"])), job(stage("a")), job(stage("d", ["c"]))]
    assert drain(Schedule(jobs, ())) == ["a", "b", "c", "d"]


def test_what_is_done_is_not_waited_for() -> None:
    schedule = Schedule([job(stage("b", ["a"]))], {"a"})
    assert drain(schedule) == ["b"]


def test_the_longest_chain_of_work_comes_first() -> None:
    jobs = [
        job(stage("small", work=5)),
        job(stage("head", work=1)),
        job(stage("tail", ["head"], work=10)),
        job(stage("big", work=8)),
    ]
    assert drain(Schedule(jobs, ())) == ["head", "tail", "big", "small"]


def test_equal_work_keeps_the_order_of_the_plan() -> None:
    names = [f"k{number}" for number in range(20)]
    assert drain(Schedule([job(stage(name)) for name in names], ())) == names


def test_a_job_that_does_not_fit_is_passed_over_and_kept() -> None:
    jobs = [job(stage("large", share=1.0, work=9)), job(stage("small", share=0.125))]
    schedule = Schedule(jobs, ())
    assert keys(schedule.take(lambda each: each.gpu < 1)) == ["small"]
    assert schedule.take(lambda each: each.gpu < 1) is None
    assert not schedule.over
    assert keys(schedule.take(anything)) == ["large"]


def test_a_failure_blocks_exactly_its_descendants() -> None:
    a, b, c, d, e = stage("a"), stage("b", ["a"]), stage("c", ["b"]), stage("d"), stage("e", ["d", "c"])
    schedule = Schedule([job(a), job(b), job(c), job(d), job(e)], ())
    while (found := schedule.take(anything)) is not None:
        failed = {"b": "it broke"} if keys(found) == ["b"] else {}
        schedule.finish(found.name, [key for key in keys(found) if key not in failed], failed)
    assert schedule.over
    assert schedule.failed == {"b": "it broke"}
    assert schedule.blocked == {"c": "b", "e": "b"}
    assert sorted(schedule.finished.values()) == ["blocked", "blocked", "done", "done", "failed"]


def test_stages_beside_a_failed_one_in_its_job_are_not_its_descendants() -> None:
    """train -> two evaluations in one job: one fails, the other does not suffer."""
    one = job(stage("train"), stage("first", ["train"]), stage("second", ["train"]), stage("third", ["first"]))
    schedule = Schedule([one, job(stage("behind", ["second"])), job(stage("lost", ["third"]))], ())
    assert keys(schedule.take(anything))[0] == "train"
    schedule.finish(one.name, ["train", "second"], {"first": "it broke"})
    assert keys(schedule.take(anything)) == ["behind"]
    assert schedule.blocked == {"third": "first", "lost": "first"}


def test_a_job_loses_only_the_stages_that_need_the_failed_one() -> None:
    """A privacy stage joins many trainings: when a shadow fails, the target's own training goes on."""
    shadow = job(stage("shadow"))
    target = job(stage("target"), stage("accuracy", ["target"]), stage("privacy", ["target", "shadow"]))
    schedule = Schedule([shadow, target], ())
    assert keys(schedule.take(anything)) == ["shadow"]
    assert schedule.take(anything) is None
    schedule.finish(shadow.name, [], {"shadow": "it broke"})
    assert keys(schedule.take(anything)) == ["target", "accuracy"]
    assert schedule.blocked == {"privacy": "shadow"}
    schedule.finish(target.name, ["target", "accuracy"], {})
    assert schedule.over


def test_soft_edges_order_and_never_block() -> None:
    """A shorter budget comes first; if it fails the longer one starts from the beginning."""
    after = {"long": ("short",)}
    for outcome in ("done", "failed", "blocked"):
        jobs = [
            job(stage("root")),
            job(stage("short", ["root"])),
            job(stage("long", work=100), after=after),
            job(stage("behind", ["long"])),
        ]
        schedule = Schedule(jobs, ())
        order = []
        while (found := schedule.take(anything)) is not None:
            (key,) = keys(found)
            order.append(key)
            fails = (key, outcome) in {("short", "failed"), ("root", "blocked")}
            schedule.finish(found.name, [] if fails else [key], {key: "it broke"} if fails else {})
        assert schedule.over
        assert order == ["root", *(["short"] if outcome != "blocked" else []), "long", "behind"]
        assert "long" not in schedule.blocked


def test_a_job_that_was_put_back_runs_again() -> None:
    schedule = Schedule([job(stage("a"))], ())
    first = schedule.take(anything)
    assert first is not None
    schedule.put_back(first.name)
    assert drain(schedule) == ["a"]


def test_a_damaged_input_is_made_again_before_what_needs_it() -> None:
    schedule = Schedule([job(stage("b", ["a"])), job(stage("c", ["a"]))], {"a"})
    first, second = schedule.take(anything), schedule.take(anything)
    assert first is not None
    assert second is not None
    assert not schedule.is_pending("a")
    schedule.wait_for(first.name, "a")
    schedule.add(job(stage("a")))
    assert schedule.is_pending("a")
    schedule.wait_for(second.name, "a")
    assert not schedule.over
    order = drain(schedule)
    assert order[0] == "a"
    assert sorted(order) == ["a", "b", "c"]
    assert not schedule.is_pending("a")


def test_an_input_that_cannot_be_made_again_blocks() -> None:
    schedule = Schedule([job(stage("b", ["a"])), job(stage("c", ["b"]))], {"a"})
    found = schedule.take(anything)
    assert found is not None
    schedule.wait_for(found.name, "a")
    maker = job(stage("a"))
    schedule.add(maker)
    assert keys(schedule.take(anything)) == ["a"]
    schedule.finish(maker.name, [], {"a": "it broke"})
    assert schedule.over
    assert schedule.blocked == {"b": "a", "c": "a"}


# --- any plan, any order ------------------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[Job], set[str]]:
    """Jobs over a random graph, listed in any order, and what is done before: closed under inputs or not."""
    count = draw(st.integers(1, 14))
    stages: list[Stage] = []
    for number in range(count):
        needs = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3)) if number else []
        work = draw(st.floats(0.01, 100))
        share = draw(st.sampled_from([0.0, *SHARES]))
        stages.append(stage(f"s{number}", [f"s{need}" for need in needs], work=work, share=share))
    # consecutive stages make a job; since edges go forward, no two jobs wait for each other
    cuts = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    groups: list[list[Stage]] = []
    for each, cut in zip(stages, cuts, strict=True):
        if cut or not groups:
            groups.append([])
        groups[-1].append(each)
    after: dict[str, tuple[str, ...]] = {}
    for number in range(1, count):
        if draw(st.integers(0, 4)) == 0:
            after[f"s{number}"] = (f"s{draw(st.integers(0, number - 1))}",)
    done = {each.key for each in stages if draw(st.integers(0, 5)) == 0}
    jobs = []
    for group in groups:
        left = [each for each in group if each.key not in done]
        if left:
            jobs.append(make_job(left, 1, after))
    return draw(st.permutations(jobs)), done


@given(plans(), st.randoms(use_true_random=False))
def test_any_allowed_order_settles_every_job_once(plan: tuple[list[Job], set[str]], choose: random.Random) -> None:
    jobs, done = plan
    schedule = Schedule(jobs, done)
    stages = {each.key: each for entry in jobs for each in entry.stages}
    makers = {each.key: entry.name for entry in jobs for each in entry.stages}
    exists, failed = set(done), set[str]()
    running: dict[str, Job] = {}
    ended: list[str] = []
    lost: set[str] = set()

    for _ in range(1000):
        if schedule.over:
            break
        found = schedule.take(lambda _: choose.random() < 0.7)
        if found is not None:
            assert found.name not in running
            assert found.name not in ended
            own = set(keys(found))
            for each in found.stages:
                missing = {need for _, need in each.inputs} - own - exists
                assert not {need for need in missing if need in stages}, "everything needed exists"
            for earlier in found.after:
                assert earlier in exists | lost | failed or earlier not in stages or makers[earlier] == found.name
            running[found.name] = found
        elif running:
            name = choose.choice(sorted(running))
            job_ = running.pop(name)
            if choose.random() < 0.1:
                schedule.put_back(name)
                continue
            made: list[str] = []
            causes: dict[str, str] = {}
            for each in job_.stages:  # as run_job does
                if {need for _, need in each.inputs} & (set(causes) | lost):
                    lost.add(each.key)
                elif choose.random() < 0.2:
                    causes[each.key] = "it broke"
                else:
                    made.append(each.key)
            exists |= set(made)
            failed |= set(causes)
            schedule.finish(name, made, causes)
            ended.append(name)
        descendants = _descendants(stages, failed)
        lost |= descendants
    assert schedule.over
    assert schedule.take(anything) is None
    assert not running
    assert len(ended) == len(set(ended))
    assert set(schedule.finished) == {entry.name for entry in jobs}
    assert set(ended) == {name for name, state in schedule.finished.items() if state != "blocked"}
    assert set(schedule.failed) == failed
    assert set(schedule.blocked) == _descendants(stages, failed)
    assert exists == done | (set(stages) - failed - set(schedule.blocked))
    assert all(cause in failed for cause in schedule.blocked.values())


def _descendants(stages: Mapping[str, Stage], failed: set[str]) -> set[str]:
    lost: set[str] = set()
    for key, each in sorted(stages.items(), key=lambda entry: int(entry[0][1:])):
        if key not in failed and {need for _, need in each.inputs} & (failed | lost):
            lost.add(key)
    return lost


# --- budgets ------------------------------------------------------------------------------------------------------

BUDGETS = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 1}
  axes: {method: [dm], dataset: [digits], num_classes: [2], ipc: [1]}
grids:
  long: {settings: {dm: {iterations: 7, batch_real: 8, width: 8, norm: instance}}, axes: {}}
  short: {settings: {dm: {iterations: 3, batch_real: 8, width: 8, norm: instance}}, axes: {}}
  other: {settings: {dm: {iterations: 2, batch_real: 4, width: 8, norm: instance}}, axes: {}}
"""


def test_a_longer_budget_comes_after_a_shorter_one_of_its_path(workspace: Workspace) -> None:
    plan = workspace.prepare(workspace.write("budgets", BUDGETS)).plan
    distill = {each.budget: each for each in plan.stages.values() if each.kind == "distill"}
    assert distill[3].lineage == distill[7].lineage != distill[2].lineage
    makers = {each.key: entry for entry in plan.jobs for each in entry.stages}
    assert makers[distill[7].key].after == (distill[3].key,)
    assert makers[distill[3].key].after == makers[distill[2].key].after == ()
    order = drain(Schedule(plan.jobs, ()))
    assert order.index(distill[3].key) < order.index(distill[7].key)


def test_a_longer_budget_continues_a_shorter_one_to_the_same_bytes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.distill import distributions

    taken: list[int] = []
    original = distributions.match_distributions

    def counted(*arguments: Any, **named: Any) -> tuple[float, Any]:
        taken.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(distributions, "match_distributions", counted)
    path = workspace.write("budgets", BUDGETS)
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 0
    assert len(taken) == 7 + 2, "3 of the 7 were there already"
    together = workspace.payloads()

    for grid in ("long", "short", "other"):
        monkeypatch.setenv("DDRAY_STORE", str(workspace.folder / grid))
        others = [f"grids.{name}=null" for name in ("long", "short", "other") if name != grid]
        taken.clear()
        alone = workspace.write(grid, BUDGETS)
        arguments = [argument for other in others for argument in ("--set", other)]
        ran = workspace.run("sweep", alone, *arguments, "--local", "--no-mlflow")
        assert ran.code == 0, ran.err
        assert len(taken) == {"long": 7, "short": 3, "other": 2}[grid]
        payloads = workspace.payloads()
        assert payloads.items() <= together.items()
        assert len(payloads) == 3
