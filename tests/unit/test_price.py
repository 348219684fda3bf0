"""What a plan will cost: sums that agree with a count of their own, and estimates that say what they rest on."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import worlds
from goldens import Recorded
from workspace import Workspace

from ddray.errors import RequestError
from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, Plan, longest_chain, make_job
from ddray.prepare import prepare
from ddray.price.bill import bill, bill_lines, hours
from ddray.price.devices import CARDS, Machine, card_named, core, device_of, machine
from ddray.price.estimates import Estimate, Prices, head_starts, seconds_from
from ddray.price.measured import ENOUGH, Measured, Taken, learn, measured_in
from ddray.request import Request
from ddray.settings import folders
from ddray.store.artifacts import Store
from trainables.data.cache import build

V100 = CARDS["v100-32g"]
ROOT = Path(__file__).parents[2]
GRIDS = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], seed: [0, 1]}
grids:
  sets: {axes: {method: [random, dm], ipc: [1, 10]}, settings: {dm: {iterations: {1: 100, 10: 50}}}}
  longer: {axes: {method: [dm], ipc: [1]}, settings: {dm: {iterations: 300}}}
  audited:
    axes: {method: [dm], ipc: [1], origin_per_class: [20], seed: [0]}
    settings: {dm: {iterations: 100}}
    evaluations: {privacy: {audit: [pool], rows: smoke, targets: 2}}
"""


def stage(number: int, work: float = 100.0, *, needs: Iterable[int] = (), share: float = 0.25) -> Stage:
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
        work=work,
        size=0,
        cost_class="distill.1 dm convnet3 8px",
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return worlds.plan_of(worlds.sweep_of(tmp_path_factory.mktemp("price"), GRIDS))


# --- the bill ---------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_bill_are_its_total(plan: Plan) -> None:
    facts = bill(plan, (), Machine(V100, 8), Measured(), {})
    for part in (facts["basis"].values(), (kind["hours"] for kind in facts["kinds"].values())):
        assert sum(part) == pytest.approx(facts["hours"])
    assert sum(grid["adds"] for grid in facts["grids"].values()) == pytest.approx(facts["hours"])
    assert all(grid["adds"] <= grid["alone"] * (1 + 1e-9) for grid in facts["grids"].values())
    assert facts["wall"] >= facts["longest_chain"]["hours"]
    assert facts["wall"] >= facts["hours"] / 8
    assert facts["utilisation"] == pytest.approx(facts["hours"] / 8 / facts["wall"])
    assert f"cards busy {facts['utilisation']:.0%} of it at best" in bill_lines(facts)[0]


def test_card_hours_are_work_over_the_speed_whatever_the_shares(plan: Plan) -> None:
    """A card full of jobs does the work of one that has it whole."""
    facts = bill(plan, (), Machine(V100, 1), Measured(), {})
    shares = {each.key: job.gpu for job in plan.jobs for each in job.stages}
    starts = head_starts(list(plan.stages.values()), {})
    expected = sum(
        (each.work / V100.gflops + V100.stage_seconds * shares[key]) * (1 - starts.get(key, 0.0))
        for key, each in plan.stages.items()
        if shares[key]
    )
    assert facts["hours"] * 3600 == pytest.approx(expected)


def test_what_is_done_costs_nothing_and_a_longer_budget_only_its_rest(plan: Plan) -> None:
    assert bill(plan, plan.stages, Machine(V100, 1), Measured(), {})["hours"] == 0
    dm = [each for each in plan.stages.values() if each.kind == "distill" and each.budget in (100, 300)]
    dm = sorted((each for each in dm if "origin" not in each.label), key=lambda each: each.budget or 0)
    assert [each.budget for each in dm] == [100, 300]
    assert head_starts(dm, {})[dm[1].key] == pytest.approx(1 / 3)
    assert dm[0].key not in head_starts(dm, {})
    assert head_starts([dm[1]], {dm[1].lineage: [150]})[dm[1].key] == pytest.approx(1 / 2)


def test_privacy_stands_apart(plan: Plan, tmp_path: Path) -> None:
    with_audit = bill(plan, (), Machine(V100, 1), Measured(), {})
    without = worlds.plan_of(worlds.sweep_of(tmp_path, GRIDS.split("  audited:")[0]))
    alone = bill(without, (), Machine(V100, 1), Measured(), {})
    own = with_audit["hours"] - alone["hours"] - with_audit["privacy"]
    assert with_audit["privacy"] > 0
    assert own > 0, "the audited point's own model counts as accuracy"
    assert alone["privacy"] == 0


def test_the_longest_chain_of_random_graphs_is_that_of_a_search_by_hand() -> None:
    rng = random.Random(0)
    for _ in range(30):
        stages = [stage(n, needs=rng.sample(range(n), min(n, rng.randint(0, 2)))) for n in range(8)]
        jobs = [make_job([each], 1) for each in stages]
        seconds = {job.name: rng.uniform(1, 10) for job in jobs}
        chain = longest_chain(jobs, seconds)
        longest = max(_longest(job, jobs, seconds) for job in jobs)
        assert sum(seconds[job.name] for job in chain) == pytest.approx(longest)
        assert all(before.stages[0].key in after.needs for before, after in itertools.pairwise(chain))


def _longest(job: Job, jobs: list[Job], seconds: dict[str, float]) -> float:
    before = (each for each in jobs if each.stages[0].key in job.needs)
    return seconds[job.name] + max((_longest(each, jobs, seconds) for each in before), default=0.0)


def test_the_full_grid_costs_what_was_counted_by_hand() -> None:
    """As many as the work of its stages takes a V100 that is full of jobs."""
    prepared = prepare(Request(ROOT / "sweeps/full_grid.yaml", profiles=("rigorous",)), folders(), build)
    facts = bill(prepared.plan, (), machine("v100-32g", 8), Measured(), {})
    assert facts["count"] == 8
    assert facts["hours"] == pytest.approx(
        sum(each.work for each in prepared.plan.stages.values()) / V100.gflops / 3600, rel=0.02
    )
    lines = "\n".join(bill_lines(facts))
    assert f"about {hours(facts['hours'])} of one v100-32g card" in lines
    assert "rests on: assumed 100%" in lines
    assert bill_lines(bill(prepared.plan, prepared.plan.stages, machine("v100-32g", 8), Measured(), {})) == []


def test_tiers_share_their_stages() -> None:
    """What the paper's study computed is part of the rigorous one; the audits alone are made again, from its models."""
    study, rigorous = (
        prepare(Request(ROOT / "sweeps/full_grid.yaml", profiles=profiles), folders(), build).plan.stages
        for profiles in ((), ("rigorous",))
    )
    lost = [stage for key, stage in study.items() if key not in rigorous]
    assert {stage.kind for stage in lost} == {"privacy"}
    assert sum(stage.work for stage in lost) < 0.001 * sum(stage.work for stage in study.values())
    assert sum(stage.work for stage in study.values()) < 0.16 * sum(stage.work for stage in rigorous.values())


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("Tesla V100-SXM2-32GB", "v100-32g"),
        ("Tesla V100-PCIE-16GB", "v100-16g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100 80GB PCIe", "a100-80g"),
        ("NVIDIA H100 80GB HBM3", "h100-80g"),
        ("NVIDIA GeForce RTX 4090", "rtx4090-24g"),
        ("Tesla T4", "t4-16g"),
        ("NVIDIA Something 9000", "NVIDIA Something 9000"),
    ],
)
def test_cards_are_known_by_what_their_driver_says(reported: str, name: str) -> None:
    assert card_named(reported).name == name
    assert device_of({"device": "cuda", "device_name": reported, "dtype": "float32"}) == name
    assert device_of({"device": "cuda", "device_name": reported, "dtype": "bf16"}) == f"{name} bf16"


def test_a_device_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(RequestError, match=r"--gpu v100: no such device; expected .*v100-32g.* Did you mean v100-"):
        machine("v100", 8)
    assert str(machine("cpu-16", None)) == "16 CPU cores"
    assert str(machine("h100-80g", 8)) == "8 x h100-80g"


def test_the_instruction_set_is_that_which_torch_uses() -> None:
    import torch

    assert core().name == f"cpu {torch.backends.cpu.get_cpu_capability()}"


# --- estimates --------------------------------------------------------------------------------------------------------


def test_an_estimate_says_what_it_rests_on() -> None:
    here, measured = core("AVX2"), Measured()
    prices = Prices(here, Measured())
    assert prices.of(stage(1), 0.0) == Estimate(here.stage_seconds + 100 / here.gflops, "assumed")
    measured.add("cpu AVX512", "distill.1 dm convnet3 8px", "a" * 64, Taken(100.0, 10.0, 1.0))
    scaled = Prices(here, measured).of(stage(1), 0.0)
    assert scaled.basis == "scaled"
    assert scaled.seconds > 10.0, "AVX2 is slower"
    measured.add("cpu AVX2", "distill.1 dsa convnet3 8px", "b" * 64, Taken(100.0, 30.0, 1.0))
    assert Prices(here, measured).of(stage(1), 0.0) == Estimate(30.0, "measured nearby")
    measured.add("cpu AVX2", "distill.1 dm convnet3 8px", "c" * 64, Taken(100.0, 20.0, 1.0))
    assert Prices(here, measured).of(stage(1), 0.0) == Estimate(20.0, "measured")


def test_seconds_follow_the_measured_points() -> None:
    taken = [Taken(10.0, 2.0, 0.0), Taken(10.0, 4.0, 0.0), Taken(10.0, 100.0, 0.0), Taken(1000.0, 40.0, 0.0)]
    assert seconds_from(taken, 10.0) == 4.0, "the median: one that met a busy machine does not count"
    assert seconds_from(taken, 100.0) == pytest.approx(math.sqrt(4.0 * 40.0))
    assert seconds_from(taken, 2000.0) == pytest.approx(80.0)
    assert seconds_from(taken, 1.0) == pytest.approx(0.4)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_what_is_kept_stays_small_and_varied() -> None:
    measured = Measured()
    measured.add("d", "c", f"{0:064x}", Taken(7.0, 1.0, 0.0))
    for number in range(1, 500):
        measured.add("d", "c", f"{number:012x}", Taken(5.0, 1.0, 0.0))
    kept = measured.of("d", "c")
    assert len(kept) == ENOUGH
    assert {each.work for each in kept} == {5.0, 7.0}, "the only one of its work stays"
    assert Measured.loads(measured.dumps()) == measured


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 1, "stages": []}', b'{"format": 1, "stages": {"d": {"c": {"k": [1, "x", 2]}}}}',
     b'{"format": 1, "stages": {"d": 3, "e": {"c": [1]}}}', b'{"format": 99, "stages": {}}'],
)  # fmt: skip
def test_a_file_of_another_shape_counts_for_nothing(content: bytes) -> None:
    assert Measured.loads(content) == Measured()


def recorded(folder: Path) -> tuple[Plan, Store]:
    """The quickstart's plan, and the store that was recorded of it."""
    Recorded("quickstart").unpack(folder / "store")
    prepared = prepare(Request(ROOT / "sweeps/quickstart.yaml"), folders(), build)
    return prepared.plan, Store(str(folder / "store"), folder / "downloads")


def test_costs_are_learnt_from_manifests_once_and_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = recorded(tmp_path)
    done = [each for key, each in plan.stages.items() if key in store.keys()]  # noqa: SIM118
    reads: list[str] = []
    manifest = store.manifest
    monkeypatch.setattr(store, "manifest", lambda key: reads.append(key) or manifest(key))
    first = learn(done, store)
    assert 0 < len(reads) <= len(done)
    assert measured_in(store) == first
    read = len(reads)
    assert learn(done, store) == first
    assert len(reads) == read, "what is known is not read again"
    device, by_class = next(iter(first.stages.items()))
    assert device == "cpu AVX512"
    assert any(cost_class.startswith("distill.1 dm ") for cost_class in by_class)
    left = [each.key for each in done if each.kind == "train"]
    facts = bill(plan, store.keys() - set(left), Machine(core("AVX512"), 2), first, {})
    taken = sum(manifest(key).provenance["seconds"] for key in left)
    assert facts["basis"].keys() == {"measured"}
    assert facts["hours"] * 3600 == pytest.approx(taken, rel=0.25)


def test_a_store_that_cannot_be_written_loses_the_hint_and_nothing_else(tmp_path: Path) -> None:
    plan, store = recorded(tmp_path)
    (tmp_path / "store" / "hints").write_text("in the way")
    done = [each for key, each in plan.stages.items() if key in store.keys()]  # noqa: SIM118
    assert learn(done, store).stages
    assert measured_in(store) == Measured()


def test_plan_prints_the_bill(workspace: Workspace) -> None:
    sweep = workspace.write("priced", GRIDS)
    printed = workspace.run("plan", sweep, "--gpu", "h100-80g", "--gpus", "4").out
    assert "cost on 4 x h100-80g: about" in printed
    facts = json.loads(workspace.run("plan", sweep, "--gpu", "cpu-8", "--json").out)["cost"]
    assert (facts["count"], facts["is_card"]) == (8, False)
    refused = workspace.run("plan", sweep, "--gpu", "h1000")
    assert refused.code == 2
    assert "no such device" in refused.err


def test_what_a_recorded_sweep_took_is_predicted_from_the_rest_of_it() -> None:
    """By leaving one stage out at a time: within a factor of 1.5 for nine tenths of the seconds."""
    from benchmarks.prediction import of_recorded

    alone, without_its_class = of_recorded()
    assert alone["stages"] > 50
    assert alone["within_1.5"] >= 0.9
    assert without_its_class["within_1.5"] < alone["within_1.5"], "control: knowing less says less"
    assert 0.8 < alone["total_predicted"] < 1.25
