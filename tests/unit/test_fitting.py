"""Jobs ask for shares of the card that is there: of its memory, of what stages were seen to hold, of what pays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st
from workspace import Workspace

from ddray.plan.graph import Stage
from ddray.plan.jobs import Plan, longest_chain, make_job
from ddray.plan.shares import LEAST, SHARES, room_for
from ddray.price import fitting
from ddray.price.bill import bill, bill_lines
from ddray.price.devices import CARDS, Machine, core
from ddray.price.estimates import Prices
from ddray.price.fitting import LONGEST, PAYS, fit, least_share, widened
from ddray.price.measured import Measured, Taken

SWEEP = """
ddray: 1
grids:
  all:
    axes: {method: [random, dm, idc], dataset: [cifar10], ipc: [1, 50]}
    protocol: quick
    settings: {dm: {architecture: resnet18}}
RESOURCES
"""


def planned(folder: Path, resources: str = "") -> Plan:
    return worlds.plan_of(worlds.sweep_of(folder, SWEEP.replace("RESOURCES", resources)))


def shares(plan: Plan, kind: str = "distill") -> list[float]:
    """Of the jobs with such a stage, in plan order."""
    return [job.gpu for job in plan.jobs if any(stage.kind == kind for stage in job.stages)]


def fitted(folder: Path, card: str, measured: Measured | None = None, resources: str = "") -> Plan:
    plan = planned(folder, resources)
    fit(plan, (), Machine(CARDS[card], 1), measured or Measured())
    return plan


@pytest.fixture
def memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is given more for the time that its chain takes."""
    monkeypatch.setattr(fitting, "widened", lambda *_: {})


@pytest.mark.usefixtures("memory_alone")
def test_a_smaller_card_gives_more_of_itself(tmp_path: Path) -> None:
    reference, small, large = (planned(tmp_path), fitted(tmp_path, "t4-16g"), fitted(tmp_path, "h100-80g"))
    assert shares(fitted(tmp_path, "v100-32g")) == shares(reference), "the card that plans are made for"
    assert sum(shares(small)) > sum(shares(reference)) > sum(shares(large))
    for plan, gib in ((small, 16), (large, 80)):
        for job in plan.jobs:
            room = max((room_for(stage.held_mib) / 1024 for stage in job.stages if stage.held_mib), default=0)
            assert job.gpu * gib >= room or job.gpu == 1


def test_without_a_card_nothing_changes(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    jobs = list(plan.jobs)
    fit(plan, (), Machine(core(), 8), Measured())
    assert plan.jobs == jobs


def test_what_the_sweep_asks_for_stays(tmp_path: Path) -> None:
    plan = fitted(tmp_path, "h100-80g", resources="resources: {distill: {gpu: 0.5}}")
    assert set(shares(plan)) == {0.5}


def seen(plan: Plan, device: str, gib: float) -> Measured:
    """As if every distillation of the plan had held so much on such a device."""
    measured = Measured()
    for stage in plan.stages.values():
        if stage.kind == "distill" and stage.held_mib:
            measured.add(device, stage.cost_class, stage.key, Taken(stage.work, 1.0, gib * 1024))
    return measured


@pytest.mark.usefixtures("memory_alone")
def test_what_was_seen_takes_the_place_of_the_estimate(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    little, much = seen(plan, "a100-40g", 0.1), seen(plan, "a100-40g", 20)
    assert set(shares(fitted(tmp_path, "v100-32g", little))) == {0.0, LEAST}
    assert set(shares(fitted(tmp_path, "v100-32g", much))) == {0.0, 1.0}
    assert shares(fitted(tmp_path, "v100-32g", much), "train") == shares(plan, "train"), "of others nothing was seen"


@pytest.mark.usefixtures("memory_alone")
def test_what_was_seen_on_a_cpu_says_nothing_of_a_card(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert shares(fitted(tmp_path, "v100-32g", seen(plan, "cpu AVX512", 20))) == shares(plan)


@pytest.mark.usefixtures("memory_alone")
def test_other_work_of_the_same_class_says_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    measured = Measured()
    for stage in plan.stages.values():
        if stage.held_mib:
            measured.add("v100-32g", stage.cost_class, stage.key, Taken(stage.work * 1.5, 1.0, 20_000))
    assert shares(fitted(tmp_path, "v100-32g", measured)) == shares(plan)


def test_a_card_that_is_too_small_is_in_the_bill(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    measured = seen(plan, "v100-32g", 20)
    card = CARDS["t4-16g"]
    fit(plan, (), Machine(card, 1), measured)
    facts = bill(plan, (), Machine(card, 1), measured, {})
    assert facts["too_large"] == [{"jobs": 4, "gib": pytest.approx(room_for(20 * 1024) / 1024, abs=0.1)}]
    assert any("may not fit: 4 jobs take 25 GiB" in line for line in bill_lines(facts))
    assert bill(plan, (), Machine(CARDS["v100-32g"], 1), measured, {})["too_large"] == []


# --- long chains ------------------------------------------------------------------------------------------------------


def stage(
    number: int, hours: float, *, needs: tuple[int, ...] = (), held: float = 100.0, share: float = 1 / 8
) -> Stage:
    """That takes so many hours of a whole V100."""
    key = f"{number:064x}"
    return Stage(
        kind="distill",
        key=key,
        lineage=key,
        budget=None,
        version=1,
        label=f"stage {number}",
        config=None,  # type: ignore[arg-type]
        inputs=tuple((f"input.{each}", f"{each:064x}") for each in needs),
        unavailable=None,
        cpus=1.0,
        share=share,
        work=hours * 3600 * CARDS["v100-32g"].gflops,
        size=0,
        cost_class="distill.1 dm convnet3 32px",
        held_mib=held,
    )


V100 = Prices(CARDS["v100-32g"], Measured())


def test_a_chain_that_everything_would_wait_for_gets_whole_cards() -> None:
    """One card-hour each, beside a chain of three; a job of an eighth would take eight hours."""
    chain = [stage(0, 10), stage(1, 10, needs=(0,)), stage(2, 10, needs=(1,))]
    jobs = [make_job([each], 1) for each in (*chain, *(stage(number, 0.01) for number in range(3, 90)))]
    wider = widened(jobs, 8, V100)
    assert wider == {job.name: 1.0 for job in jobs[:3]}


def test_what_was_asked_for_is_not_widened() -> None:
    asked, free = make_job([stage(0, 10, held=0, share=1 / 4)], 1), make_job([stage(1, 10)], 1)
    assert widened([asked, free], 8, V100).keys() == {free.name}


@given(
    hours=st.lists(st.floats(0.01, 50), min_size=1, max_size=12),
    links=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12),
    cards=st.integers(1, 8),
)
def test_no_chain_is_long_that_could_be_shorter(hours: list[float], links: set[tuple[int, int]], cards: int) -> None:
    stages = [
        stage(number, taken, needs=tuple(sorted(low for low, high in links if high == number and low < number)))
        for number, taken in enumerate(hours)
    ]
    before = [make_job([each], 1) for each in stages]
    wider = widened(before, cards, V100)
    after = [replace(job, gpu=wider.get(job.name, job.gpu)) for job in before]
    assert all(one.gpu >= other.gpu for one, other in zip(after, before, strict=True))
    took = {job.name: V100.of(job.stages[0], job.gpu).seconds for job in after}
    bound = sum(took[job.name] * job.gpu for job in after) / cards
    longest = longest_chain(after, took)
    part = min(1.0, max(LONGEST, 8 * cards / len(after)))
    if sum(took[job.name] for job in longest) > part * bound * (1 + 1e-6):
        assert all(job.gpu == 1 for job in longest)


# --- company ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("company", "expected"),
    [
        ({}, LEAST),
        ({1: 1.0, 2: 1.02, 4: 1.05}, 1.0),
        ({1: 1.0, 2: 1.6, 4: 1.62, 8: 1.5}, 1 / 2),
        ({1: 1.0, 2: 1.9, 4: 3.0, 8: 3.1}, 1 / 4),
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 7.0}, 1 / 8),
        ({1: 1.0, 2: 1.9, 3: 2.7}, 1 / 4),
    ],
)
def test_no_more_jobs_at_once_than_pay(company: dict[int, float], expected: float) -> None:
    assert least_share(company) == expected


@given(st.dictionaries(st.integers(1, 16), st.floats(0.1, 20), min_size=1))
def test_the_least_share_is_one_that_jobs_ask_for(company: dict[int, float]) -> None:
    found = least_share(company)
    assert found in SHARES
    assert (found == 1.0) or max(company.values()) >= PAYS


@pytest.mark.usefixtures("memory_alone")
def test_company_is_kept_and_used(tmp_path: Path) -> None:
    measured = Measured()
    measured.company["h100-80g"] = {1: 1.0, 2: 1.5, 4: 1.5}
    again = Measured.loads(measured.dumps())
    assert again.company == measured.company
    assert set(shares(fitted(tmp_path, "h100-80g", again))) == {0.0, 0.5}
    assert shares(fitted(tmp_path, "v100-32g", again)) == shares(planned(tmp_path)), "another card"
    odd = b'{"format": 1, "stages": {}, "company": {"x": {"two": 1, "2": -1, "3": "a"}, "y": 1}}'
    assert Measured.loads(odd).company == {}


# --- the commands -----------------------------------------------------------------------------------------------------


def test_plan_shows_the_shares_of_the_card_that_is_asked_about(workspace: Workspace) -> None:
    text = SWEEP.replace("RESOURCES", "").replace("settings: {dm: {architecture: resnet18}}", "")
    path = workspace.write("fits", text)
    found = {}
    for card in ("t4-16g", "h100-80g"):
        ran = workspace.run("plan", path, "--gpu", card, "--json")
        assert ran.code == 0, ran.err
        found[card] = json.loads(ran.out)["gpu_shares"]
    assert found["t4-16g"] != found["h100-80g"]
