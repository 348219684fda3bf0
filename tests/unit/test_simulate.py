"""A made-up clock: what is promised of a run that is only thought of, and of the rule that it shares with real ones."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.optimum import optimum, ratios
from ddray.commands.gantt import write_gantt
from ddray.errors import RequestError
from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, longest_chain, make_job, rounds_of
from ddray.plan.shares import SHARES
from ddray.price.devices import CARDS, Machine, core
from ddray.run.ledger import Ledger
from ddray.run.limits import limit_of
from ddray.run.simulate import NO_LIMIT, Limit, Run, Simulation, points_by, simulate, simulation_facts, within

V100 = CARDS["v100-32g"]
NOW = datetime(2026, 11, 26, 17, 30).astimezone()


def job(key: str, seconds: float, share: float = 0.125, needs: tuple[str, ...] = (), in_round: int = 0) -> Job:
    values: dict[str, Any] = {"lineage": key, "budget": None, "version": 1, "label": key, "config": None}
    values |= {"unavailable": None, "cpus": 1.0, "share": share, "work": seconds, "size": 1, "kind": "train"}
    inputs = tuple((f"input{number}", need) for number, need in enumerate(needs))
    return make_job([Stage(key=key, inputs=inputs, **values)], 1, None, in_round)


def seconds(each: Job) -> float:
    return each.work


def on_cards(jobs: list[Job], count: int, limit: Limit = NO_LIMIT) -> Simulation:
    return simulate(jobs, (), Machine(V100, count), seconds, limit)


def runs_of(simulation: Simulation) -> dict[str, Run]:
    return {run.job.stages[0].key: run for run in simulation.runs}


@st.composite
def graphs(draw: st.DrawFn, shares: tuple[float, ...] = SHARES) -> list[Job]:
    """Jobs that need some of those before them, of whole seconds, in rounds."""
    jobs: list[Job] = []
    for number in range(draw(st.integers(1, 14))):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        share, takes, turn = draw(st.sampled_from(shares)), draw(st.integers(1, 9)), draw(st.integers(0, 2))
        jobs.append(job(f"j{number}", takes, share, tuple(f"j{need}" for need in sorted(needs)), turn))
    return jobs


# --- promises ---------------------------------------------------------------------------------------------------------


@given(jobs=graphs(), cards=st.integers(1, 3))
def test_no_card_holds_more_than_itself_and_nothing_begins_before_what_it_needs(jobs: list[Job], cards: int) -> None:
    simulation = on_cards(jobs, cards)
    found = runs_of(simulation)
    assert found.keys() == {each.stages[0].key for each in jobs}
    for run in simulation.runs:
        at_once = [
            other for other in simulation.runs if other.card == run.card and other.start <= run.start < other.end
        ]
        assert sum(other.share for other in at_once) <= 1 + 1e-9
        assert all(found[key].end <= run.start for key in run.job.needs)
    assert simulation.runs == on_cards(jobs, cards).runs, "the same twice"


@given(jobs=graphs(), cards=st.integers(1, 3))
def test_no_run_beats_the_bound_and_none_is_far_from_it(jobs: list[Job], cards: int) -> None:
    """Whenever the longest chain does not go on, the first job that is ready has no room: every card is then busy with
    more than one less its share, an eighth at least. So a run takes at most its longest chain, and its work 8 times."""
    simulation = on_cards(jobs, cards)
    takes = {each.name: seconds(each) for each in jobs}
    chain = sum(takes[each.name] for each in longest_chain(jobs, takes))
    assert simulation.makespan >= simulation.lower_bound() - 1e-9
    assert simulation.makespan <= chain + 8 * simulation.work / cards + 1e-9


@given(jobs=graphs(shares=(0.125, 0.25, 0.5)), cards=st.integers(1, 3))
def test_without_whole_cards_half_of_each_is_busy(jobs: list[Job], cards: int) -> None:
    simulation = on_cards(jobs, cards)
    takes = {each.name: seconds(each) for each in jobs}
    chain = sum(takes[each.name] for each in longest_chain(jobs, takes))
    assert simulation.makespan <= chain + 2 * simulation.work / cards + 1e-9


def queue(small: int) -> list[Job]:
    """A job of a whole card, and chains of small ones: whoever ends lets the next one begin."""
    chains = [
        job(f"s{lane}.{at}", 1.0, 0.125, (f"s{lane}.{at - 1}",) if at else (), in_round=1)
        for at, lane in itertools.product(range(small // 8), range(8))
    ]
    return [job("first", 0.5), *chains, job("whole", 3.0, 1.0, ("first",))]


def test_of_small_graphs_nearly_all_take_hardly_longer_than_the_best_order() -> None:
    """The optimum is exact, so no ratio is below 1; docs/benchmarks/ has the figures of more graphs."""
    found = ratios(graphs=200, seed=3)
    assert found[0] >= 1 - 1e-9
    assert sum(ratio <= 1.1 + 1e-9 for ratio in found) / len(found) >= 0.9
    assert sum(found) / len(found) < 1.03


def test_the_optimum_is_found_where_it_is_known() -> None:
    three = [job("a", 6, 0.5), job("b", 5, 1.0), job("c", 5, 0.5)]
    assert optimum(three, 1) == 11, "a and c together, then b"
    assert optimum(three, 2) == 6
    assert optimum([job("a", 2), job("b", 3, needs=("a",))], 2) == 5


def test_what_ends_in_time_goes_on_beside_a_card_that_empties_and_what_does_not_waits() -> None:
    jobs = [job("long", 6, 0.5), job("whole", 5, 1.0), job("short", 5, 0.5), job("late", 7, 0.5)]
    found = runs_of(on_cards(jobs, 1))
    assert [found[name].start for name in ("late", "long", "whole")] == [0, 0, 7]
    found = runs_of(on_cards(jobs[:3], 1))
    assert [found[name].start for name in ("long", "short", "whole")] == [0, 0, 6], "it ends before the card is empty"
    jobs = [job("long", 10, 0.5), job("whole", 9, 1.0), job("small", 11, 0.125, in_round=1), job("more", 5, 1.0, (), 2)]
    found = runs_of(on_cards(jobs, 1))
    assert [found[name].start for name in ("long", "whole", "small")] == [0, 10, 19], "the card would be kept longer"


def test_a_whole_card_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ahead of it when it is released runs on one card for 0.5 of a second more."""
    assert runs_of(on_cards(queue(400), 1))["whole"].start <= 2 * 0.5 + 1.0
    monkeypatch.setattr(Ledger, "keep_room", lambda self, shape: None)
    assert runs_of(on_cards(queue(400), 1))["whole"].start >= 49.0, "without the rule it is the last one"


def test_room_is_kept_on_one_card_alone() -> None:
    """While one card runs empty for the whole-card job, the others go on with small ones."""
    simulation = on_cards([*(job(f"s{number}", 1.0 + number / 100) for number in range(64)), job("whole", 9.0, 1.0)], 2)
    whole = runs_of(simulation)["whole"]
    beside = [
        run for run in simulation.runs if run.card != whole.card and run.end > whole.start and run.start < whole.end
    ]
    assert beside


def test_a_chain_as_long_as_the_rest_is_urgent_whatever_its_round() -> None:
    jobs = [*(job(f"s{number}", 10.0, 1.0) for number in range(8)), job("last", 40.0, 1.0, in_round=5)]
    simulation = on_cards(jobs, 2)
    assert simulation.makespan == pytest.approx(60.0)
    assert simulation.makespan == pytest.approx(simulation.lower_bound())


# --- limits -----------------------------------------------------------------------------------------------------------


@given(jobs=graphs(), cards=st.integers(1, 3), time=st.integers(1, 30), budget=st.integers(1, 60))
def test_a_limit_holds_and_what_runs_has_what_it_needs(jobs: list[Job], cards: int, time: int, budget: int) -> None:
    simulation = on_cards(jobs, cards, Limit(float(time), budget / 3600))
    assert simulation.makespan <= time
    assert simulation.work <= budget + 1e-6
    made = {run.job.stages[0].key for run in simulation.runs}
    assert all(set(run.job.needs) <= made for run in simulation.runs)
    left = {each.name for each in simulation.left_out}
    assert len(left) == len(simulation.left_out)
    assert left | {run.job.name for run in simulation.runs} == {each.name for each in jobs}
    assert [each.name for each in within(simulation, jobs)] == [each.name for each in jobs if each.name not in left]


def test_what_is_smaller_and_comes_later_still_fits() -> None:
    jobs = [job("large", 100.0, 1.0), job("behind", 1.0, 1.0, ("large",)), job("small", 1.0, 1.0)]
    assert runs_of(on_cards(jobs, 1, Limit(seconds=50.0))).keys() == {"small"}


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ((None, None, None), NO_LIMIT),
        (("90m", None, None), Limit(5400.0)),
        (("1.5 h", None, None), Limit(5400.0)),
        (("2d", None, "200h"), Limit(172800.0, 200.0)),
        ((None, "18:00", None), Limit(1800.0)),
        ((None, "17:00", None), Limit(23.5 * 3600)),
        ((None, "2026-11-27 17:30", None), Limit(24 * 3600.0)),
    ],
)
def test_limits_are_read(asked: tuple[str | None, str | None, str | None], limit: Limit) -> None:
    assert limit_of(*asked, NOW) == limit


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (("soon", None, None), "--for: not a time; got 'soon'"),
        (("0h", None, None), "--for: not a time"),
        ((None, "25:00", None), "--until: not a time; got '25:00'"),
        ((None, "2026-11-26 17:00", None), "--until: is past"),
        ((None, None, "many"), "--budget: not a time; got 'many'"),
        (("1h", "18:00", None), "two ends of one run"),
    ],
)
def test_what_is_no_limit_is_said(asked: tuple[str | None, str | None, str | None], word: str) -> None:
    with pytest.raises(RequestError, match=word):
        limit_of(*asked, NOW)


def test_an_hour_that_is_now_is_tomorrows() -> None:
    assert limit_of(None, "17:30", None, NOW).seconds == timedelta(days=1).total_seconds()


# --- rounds, points, facts --------------------------------------------------------------------------------------------


def test_the_first_repeat_of_every_cell_comes_first_and_baselines_before_methods(tmp_path: Path) -> None:
    plan = worlds.world(tmp_path, worlds.SWEEP).plan
    rounds = rounds_of(plan.chains)
    last = {}
    for chain in plan.chains:
        repeat = chain.point.seed * (1 if chain.point.method == "full" else 3) + (chain.point.distill_seed or 0)
        last[chain.point.method, chain.point.ipc, repeat] = rounds[chain.stages[-1].key]
    for ipc in (1, 10):
        assert [last["random", ipc, repeat] for repeat in range(6)] == [0, 2, 4, 6, 8, 10]
        assert [last["dm", ipc, repeat] for repeat in range(6)] == [1, 3, 5, 7, 9, 11]
    simulation = simulate(plan.jobs, (), Machine(core("AVX2"), 1), seconds)
    ends = simulation.ends()
    first = [chain for chain in plan.chains if not chain.point.distill_seed and not chain.point.seed]
    complete = max(ends[chain.stages[-1].key] for chain in first if chain.point.method != "full")
    others = [chain for chain in plan.chains if chain.point.method == "dm" and chain not in first]
    assert complete <= min(ends[chain.stages[-1].key] for chain in others)


def test_points_are_there_once_all_their_stages_are(tmp_path: Path) -> None:
    plan = worlds.world(tmp_path, worlds.SWEEP).plan
    simulation = simulate(plan.jobs, (), Machine(V100, 2), seconds)
    times = points_by(plan, (), simulation)
    assert len(times) == len(plan.chains)
    assert times[-1] == simulation.makespan
    facts = simulation_facts(plan, (), simulation, jobs=True)
    assert [each["key"] for each in facts["jobs"]] == [run.job.name for run in simulation.runs]
    starts = {each["key"]: each["start"] for each in facts["jobs"]}
    ends = {each["key"]: each["end"] for each in facts["jobs"]}
    assert any(each["after"] for each in facts["jobs"])
    assert all(ends[before] <= starts[each["key"]] for each in facts["jobs"] for before in each["after"])
    assert {each["card"] for each in facts["jobs"] if each["gpu"]} <= {0, 1}


@pytest.mark.parametrize("machine", [Machine(V100, 2), Machine(core("AVX2"), 2)], ids=["cards", "cores"])
def test_a_chart_is_drawn_for_cards_and_for_cores(tmp_path: Path, machine: Machine) -> None:
    plan = worlds.world(tmp_path, worlds.SWEEP).plan
    simulation = simulate(plan.jobs, (), machine, seconds)
    for form in ("png", "svg"):
        write_gantt(simulation, tmp_path / f"chart.{form}")
    text = (tmp_path / "chart.svg").read_text()
    assert "DM" in text
    assert ("card 1" if machine.device.is_card else "core 1") in text
    with pytest.raises(RequestError, match="cannot write"):
        write_gantt(simulation, tmp_path / "chart.txt")
