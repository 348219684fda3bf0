"""Plan + store -> table: every planned point has rows, they say what the store says, and why something is missing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from ddray.errors import EnvironmentProblem
from ddray.measurements.buffer import COMMON, MEASURED, RowBuffer, Templates
from ddray.measurements.columns import MEASUREMENTS, comparable, names
from ddray.measurements.coverage import Coverage
from ddray.measurements.identity import POINT, PROVENANCE
from ddray.measurements.rows import collect
from ddray.plan.jobs import Plan
from ddray.results import COVERAGE_FILE, MEASUREMENTS_FILE
from ddray.store.artifacts import Artifact, Store
from ddray.store.manifest import Manifest

SMALL = """
ddray: 1
grids:
  small:
    protocol: quick
    axes: {method: [random, dm, full], dataset: [digits], ipc: [2], seed: [0, 1]}
    settings: {dm: {iterations: 200}}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Any, Plan, Store]:
    return worlds.world(tmp_path, SMALL)


def gather(world: tuple[Any, Plan, Store], folder: Path) -> Coverage:
    sweep, plan, store = world
    return collect(plan, sweep, store, folder)


# --- what is there ----------------------------------------------------------------------------------------------------


def test_repeats_that_were_trained_together_say_so_and_where(tmp_path: Path) -> None:
    """The device is the one that trained the ensemble, not the one that took a model out of it."""
    world = worlds.world(tmp_path, SMALL.replace("protocol: quick", "protocol: quick\n    train: {ensemble: true}"))
    _, plan, store = world
    for chain in plan.chains:
        ensemble = worlds.stage_of(chain, "ensemble")
        if not store.has(ensemble.key):
            worlds.commit(store, ensemble, worlds.payload_of(ensemble, chain, 0.5), device="cuda")
    worlds.fill(store, plan, device="cpu")
    assert gather(world, tmp_path / "r").complete
    accuracies = worlds.rows_of(tmp_path / "r", metric="test_acc", class_id=None)
    assert len(accuracies) == len(plan.chains)
    assert {(row["device"], row["protocol"]) for row in accuracies} == {("cuda", "quick")}
    assert {str(json.loads(row["param_json"])["ensemble"]) for row in accuracies} == {"[0, 1]"}
    chain = plan.chains[0]
    for kind, device in (("ensemble", "cuda"), ("train", "cpu")):
        costs = worlds.rows_of(tmp_path / "r", point=chain.point.hash, metric=f"{kind}_s")
        assert [row["device"] for row in costs] == [device]


def test_rows_are_the_numbers_of_the_artifacts(tiny: Any, tmp_path: Path) -> None:
    from trainables.payloads import Metrics

    _, plan, store = tiny
    worlds.fill(store, plan)
    coverage = gather(tiny, tmp_path / "r")
    assert coverage.complete
    assert pq.read_schema(tmp_path / "r" / MEASUREMENTS_FILE).equals(MEASUREMENTS)
    for chain in plan.chains:
        stage = worlds.stage_of(chain, "accuracy")
        expected = Metrics.load(store.open(stage.key).folder).rows
        measured = {numbers["metric"] for numbers in expected}
        found = [
            row
            for row in worlds.rows_of(tmp_path / "r", point=chain.point.hash, stage_key=stage.key)
            if row["metric"] in measured
        ]
        assert len(found) == len(expected) > 30
        for row, numbers in zip(found, expected, strict=True):
            assert {name: row[name] for name in numbers} == numbers
            assert row["status"] == "ok"


def test_rows_carry_the_identity_of_their_point(tiny: Any, tmp_path: Path) -> None:
    sweep, plan, store = tiny
    worlds.fill(store, plan)
    gather(tiny, tmp_path / "r")
    for chain in plan.chains:
        point = chain.point
        for row in worlds.rows_of(tmp_path / "r", point=point.hash):
            assert {name: row[name] for name in ("method", "dataset", "ipc", "init", "architecture", "seed")} == {
                "method": point.method,
                "dataset": "digits",
                "ipc": point.ipc,
                "init": point.init,
                "architecture": "convnet3",
                "seed": point.seed,
            }
            assert row["sweep"] == sweep.name
            assert row["grids"] == ["small"]
            assert row["protocol"] == "quick"
            assert (row["train_epochs"], row["lr"], row["optimizer"], row["selection"]) == (100, 0.01, "sgd", "last")
            assert (row["num_classes"], row["class_ids"], row["origin_per_class"]) == (10, None, None)
    (row,) = worlds.rows_of(tmp_path / "r", method="dm", seed=0, metric="test_acc")
    assert row["distill_iters"] == 200
    assert row["budget_fraction"] == pytest.approx(0.01)
    assert (row["distill_arch"], row["distill_aug"], row["factor"], row["label_kind"]) == ("convnet3", "dsa", 1, "hard")
    assert row["ratio"] == pytest.approx(2 / 124, rel=0.2)
    assert set(json.loads(row["param_json"])) == {"settings", "unpublished"}
    (full,) = worlds.rows_of(tmp_path / "r", method="full", seed=0, metric="test_acc")
    assert [full[name] for name in ("ipc", "distill_iters", "distilled_hash", "distill_seed", "budget_fraction")] == [
        None
    ] * 5


def test_hashes_tell_contents_apart(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan)
    gather(tiny, tmp_path / "r")
    rows = worlds.rows_of(tmp_path / "r", metric="test_acc")
    sets = {(row["method"], row["distilled_hash"]) for row in rows}
    assert len({row["distilled_hash"] for row in rows if row["method"] == "dm"}) == 1
    assert len(sets) == 3
    assert len({row["model_hash"] for row in rows}) == len(plan.chains)


def test_costs_and_provenance_come_from_the_manifests(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan, commit="feed", dirty=True, seconds=1.5, peak_mib=7.0)
    gather(tiny, tmp_path / "r")
    point = worlds.chains_of(plan, method="dm")[0].point.hash
    costs = {row["metric"]: row for row in worlds.rows_of(tmp_path / "r", point=point, property="cost")}
    assert set(costs) == {
        "distill_s",
        "distill_peak_mib",
        "distill_bytes",
        "train_s",
        "train_peak_mib",
        "accuracy_s",
        "accuracy_peak_mib",
        "optimiser_steps",
        "num_parameters",
    }
    assert costs["distill_s"]["value"] == 1.5
    assert costs["train_peak_mib"]["unit"] == "MiB"
    assert costs["distill_bytes"]["value"] > 20 * 8 * 8 * 4
    (row,) = worlds.rows_of(tmp_path / "r", point=point, metric="test_acc")
    assert (row["git_commit"], row["dirty"], row["device"], row["torch_version"]) == ("feed", True, "cpu", "2.9.0")
    assert row["started_at"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert json.loads(row["numerics"])["threads"] == 1


def test_classes_are_named_by_the_data_set(tmp_path: Path) -> None:
    text = """
    ddray: 1
    defaults: {protocol: quick}
    grids: {g: {axes: {method: [random], dataset: [digits], ipc: [1], num_classes: [3], class_draw: [1]}}}
    """
    _, plan, store = world = worlds.world(tmp_path, text)
    worlds.fill(store, plan)
    gather(world, tmp_path / "r")
    config = worlds.stage_of(plan.chains[0], "train").config
    classes = list(config.origin.classes)  # type: ignore[union-attr]
    assert classes != [0, 1, 2]
    rows = worlds.rows_of(tmp_path / "r", metric="test_acc_class")
    assert [row["class_id"] for row in rows] == classes
    assert all(row["class_ids"] == classes and row["class_draw"] == 1 and row["num_classes"] == 3 for row in rows)


def test_overridden_recipes_and_settings_are_named(tmp_path: Path) -> None:
    text = """
    ddray: 1
    grids:
      g:
        protocol: quick
        train: {epochs: 7}
        axes: {method: [dm], dataset: [digits], ipc: [1]}
        settings: {dm: {lr_img: 3.0, batch_real: 256}}
    """
    world = worlds.world(tmp_path, text)
    gather(world, tmp_path / "r")
    (row,) = worlds.rows_of(tmp_path / "r")
    param = json.loads(row["param_json"])
    assert row["protocol"] == "quick*"
    assert row["train_epochs"] == 7
    assert param["protocol_changes"] == {"epochs": 7}
    assert param["changed_settings"] == {"lr_img": 3.0}
    assert param["settings"]["lr_img"] == 3.0


# --- what is not there ------------------------------------------------------------------------------------------------


def test_an_empty_store_gives_one_pending_row_per_evaluation(tiny: Any, tmp_path: Path) -> None:
    _, plan, _ = tiny
    coverage = gather(tiny, tmp_path / "r")
    rows = worlds.rows_of(tmp_path / "r")
    assert coverage.points == {"planned": 6, "done": 0, "failed": 0, "blocked": 0, "pending": 6}
    assert len(rows) == len(plan.chains)
    assert {(row["status"], row["value"], row["note"], row["metric"]) for row in rows} == {
        ("pending", None, None, "test_acc")
    }


def test_filters_do_not_narrow_coverage(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    plan.selected = {plan.chains[0].point.hash}
    worlds.fill(store, plan, chains=plan.chains[:1])
    coverage = gather(tiny, tmp_path / "r")
    assert (coverage.planned, coverage.done, coverage.pending) == (6, 1, 5)


def test_a_failed_stage_is_on_the_rows_of_every_point_it_concerns(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    dm = worlds.chains_of(plan, method="dm")
    distill = worlds.stage_of(dm[0], "distill")
    assert distill is worlds.stage_of(dm[1], "distill")
    worlds.fill(store, plan, chains=worlds.chains_of(plan, method="random"))
    worlds.fail(store, distill, "StageFailure: diverged in iteration 7")
    coverage = gather(tiny, tmp_path / "r")
    rows = worlds.rows_of(tmp_path / "r", method="dm")
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert all("diverged in iteration 7" in row["note"] and distill.key[:12] in row["note"] for row in rows)
    assert (coverage.failed, coverage.done, coverage.pending) == (2, 2, 2)
    assert coverage.methods["dm"]["failed"] == 2
    assert coverage.failures == [
        {
            "key": distill.key,
            "kind": "distill",
            "label": distill.label,
            "points": 2,
            "cause": "StageFailure: diverged in iteration 7",
        }
    ]


def test_a_failure_before_a_finished_stage_does_not_matter(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan)
    store.files.write(f"failures/{worlds.stage_of(plan.chains[0], 'distill').key}.json", b'{"cause": "old"}')
    assert gather(tiny, tmp_path / "r").complete


ROBUST = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, full], dataset: [digits], ipc: [1], architecture: [convnet3, resnet18]}
    evaluations: {robustness: {attacks: [deepfool_l2, ATTACK], images: 50}}
"""


def test_what_this_machine_cannot_compute_is_blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddray.plan.chains._is_there", lambda library: False)
    _, plan, store = world = worlds.world(tmp_path, ROBUST.replace("ATTACK", "autoattack"))
    worlds.fill(store, plan, chains=plan.chains[:0])
    for chain in plan.chains:
        for kind in ("distill", "train", "accuracy"):
            if (stage := chain.stage(kind)) is not None and not store.has(stage.key):  # type: ignore[arg-type]
                worlds.commit(store, stage, worlds.payload_of(stage, chain, 0.5))
    coverage = gather(world, tmp_path / "r")
    assert coverage.evaluations["robustness"] == {"planned": 4, "done": 0, "failed": 0, "blocked": 4, "pending": 0}
    assert coverage.evaluations["accuracy"]["done"] == 4
    assert (coverage.done, coverage.blocked) == (0, 4)
    (reason,) = coverage.reasons
    assert "pip install 'ddray[strong]'" in reason
    for row in worlds.rows_of(tmp_path / "r", property="robustness"):
        assert (row["status"], row["value"], row["note"]) == ("blocked", None, reason)


def test_an_evaluation_fails_with_a_stage_beside_the_main_path(tmp_path: Path) -> None:
    """One attack of several, and a shadow of an audit."""
    _, plan, store = world = worlds.world(tmp_path / "robust", ROBUST.replace("ATTACK", "fgsm"))
    chain = plan.chains[0]
    attack = next(stage for stage in chain.stages if stage.kind == "attack" and stage.label.endswith("fgsm"))
    worlds.fail(store, attack, "StageFailure: the gradient vanished")
    coverage = gather(world, tmp_path / "r")
    (row,) = worlds.rows_of(tmp_path / "r", point=chain.point.hash, property="robustness")
    assert row["status"] == "failed"
    assert row["note"] == f"attack {attack.key[:12]}: StageFailure: the gradient vanished"
    assert coverage.evaluations["robustness"] == {"planned": 4, "done": 0, "failed": 1, "blocked": 0, "pending": 3}
    assert coverage.failures == [
        {
            "key": attack.key,
            "kind": "attack",
            "label": attack.label,
            "points": 1,
            "cause": "StageFailure: the gradient vanished",
        }
    ]

    _, plan, store = world = worlds.world(tmp_path / "private", PRIVATE)
    (chain,) = plan.chains
    shadow = next(stage for path in chain.side_paths for stage in path if stage.kind == "distill")
    assert shadow not in chain.stages
    worlds.fail(store, shadow, "StageFailure: diverged")
    coverage = gather(world, tmp_path / "p")
    (row,) = worlds.rows_of(tmp_path / "p", property="privacy")
    assert row["status"] == "failed"
    assert "diverged" in row["note"]
    assert coverage.failed == 1


PRIVATE = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [dm], dataset: [digits], ipc: [1], origin_per_class: [20]}
    settings: {dm: {iterations: 200}}
    evaluations: {privacy: {audit: [seed, pool], rows: 4, shadows: 2, start: false, population: 10, reserve: 10}}
"""


def test_an_audit_says_what_it_needed_beside_the_point(tmp_path: Path) -> None:
    from trainables.payloads import Metrics

    _, plan, store = world = worlds.world(tmp_path, PRIVATE)
    (chain,) = plan.chains
    for stage in plan.stages.values():
        if stage.kind == "privacy":
            auc = {"property": "privacy", "metric": "mia_auc", "value": 0.6, "unit": "fraction", "n": 10}
            worlds.commit(store, stage, Metrics([auc]), seconds=100.0)
        else:
            worlds.commit(store, stage, worlds.payload_of(stage, chain, 0.5), seconds=1.5)
    assert gather(world, tmp_path / "r").complete
    beside = len(plan.stages) - len(chain.stages)
    assert beside == 2 * (4 + 2), "rows and shadows, each a distillation and a training"
    found = {row["metric"]: row for row in worlds.rows_of(tmp_path / "r", property="cost")}
    assert found["privacy_distillations"]["value"] == found["privacy_trainings"]["value"] == 6
    assert found["privacy_beside_s"]["value"] == pytest.approx(1.5 * beside)
    assert found["privacy_s"]["value"] == 100.0
    assert found["privacy_beside_s"]["stage_key"] == worlds.stage_of(chain, "privacy").key


@pytest.mark.parametrize("harm", ["cut", "delete", "manifest"])
def test_a_damaged_artifact_is_pending_and_said(tiny: Any, tmp_path: Path, harm: str, caplog: Any) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan)
    stage = worlds.stage_of(plan.chains[0], "accuracy")
    folder = store.open(stage.key).folder
    if harm == "cut":
        (folder / "metrics.json").write_text("[")
    elif harm == "delete":
        (folder / "metrics.json").unlink()
    else:
        (folder / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        coverage = gather(tiny, tmp_path / "r")
    assert "damaged" in caplog.text
    assert stage.label in caplog.text
    assert (coverage.done, coverage.pending) == (5, 1)
    assert not store.has(stage.key)


def test_a_damaged_model_does_not_cost_its_numbers(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan)
    chain = plan.chains[0]
    (store.open(worlds.stage_of(chain, "train").key).folder / "manifest.json").write_text("{}")
    assert gather(tiny, tmp_path / "r").complete
    (row,) = worlds.rows_of(tmp_path / "r", point=chain.point.hash, metric="test_acc")
    assert row["value"] is not None
    assert row["model_hash"] is None


# --- properties -------------------------------------------------------------------------------------------------------


def test_the_same_store_gives_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan, chains=plan.chains[:4])
    gather(tiny, tmp_path / "one")
    gather(tiny, tmp_path / "two")
    for name in (MEASUREMENTS_FILE, COVERAGE_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_tables_of_two_runs_are_equal_but_for_provenance(tmp_path: Path) -> None:
    tables = []
    for name, said in (("one", {"commit": "a", "seconds": 1.0}), ("two", {"commit": "b", "seconds": 2.0})):
        world = worlds.world(tmp_path / name, SMALL)
        worlds.fill(world[2], world[1], **said)
        gather(world, tmp_path / name / "r")
        tables.append(pq.read_table(tmp_path / name / "r" / MEASUREMENTS_FILE))
    assert not tables[0].equals(tables[1])
    assert comparable(tables[0]).equals(comparable(tables[1]))


def test_row_ids_are_unique_and_belong_to_the_question(tiny: Any, tmp_path: Path) -> None:
    _, plan, store = tiny
    worlds.fill(store, plan)
    gather(tiny, tmp_path / "r")
    rows = worlds.rows_of(tmp_path / "r")
    assert len({row["row_id"] for row in rows}) == len(rows)
    other = worlds.world(tmp_path / "other", SMALL, name="renamed")
    worlds.fill(other[2], other[1], accuracy=lambda point: 0.3)
    gather(other, tmp_path / "other" / "r")
    assert {row["row_id"] for row in worlds.rows_of(tmp_path / "other" / "r")} == {row["row_id"] for row in rows}


class Counting(Store):
    """Counts what is read."""

    def __init__(self, store: Store) -> None:
        self.__dict__.update(store.__dict__)
        self.read: list[str] = []

    def manifest(self, key: str) -> Manifest:
        self.read.append(key)
        return super().manifest(key)


def test_shared_stages_are_read_once(tiny: Any, tmp_path: Path) -> None:
    sweep, plan, store = tiny
    worlds.fill(store, plan)
    counting = Counting(store)
    collect(plan, sweep, counting, tmp_path / "r")
    assert sorted(counting.read) == sorted(plan.stages)


class Breaking(Store):
    def __init__(self, store: Store) -> None:
        self.__dict__.update(store.__dict__)

    def open(self, key: str) -> Artifact:
        raise RuntimeError("the disk is gone")


def test_a_crash_leaves_the_old_table(tiny: Any, tmp_path: Path) -> None:
    sweep, plan, store = tiny
    gather(tiny, tmp_path / "r")
    before = (tmp_path / "r" / MEASUREMENTS_FILE).read_bytes()
    worlds.fill(store, plan)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        collect(plan, sweep, Breaking(store), tmp_path / "r")
    assert (tmp_path / "r" / MEASUREMENTS_FILE).read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [COVERAGE_FILE, MEASUREMENTS_FILE]


def test_coverage_survives_its_file(tiny: Any, tmp_path: Path) -> None:
    coverage = gather(tiny, tmp_path / "r")
    assert Coverage.load(tmp_path / "r") == coverage
    (tmp_path / "r" / COVERAGE_FILE).write_text("{")
    with pytest.raises(EnvironmentProblem, match="collect"):
        Coverage.load(tmp_path / "r")


def test_gathering_loads_no_torch() -> None:
    program = "import sys, ddray.measurements.rows, ddray.report.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- pieces -----------------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "long name"])
_ROW = st.fixed_dictionaries(
    {"property": _NAMES, "metric": _NAMES},
    optional={
        "value": st.none() | st.floats(-1e9, 1e9),
        "n": st.integers(0, 2**31 - 1),
        "class_id": st.integers(0, 9),
        "attack": _NAMES,
        "epsilon": st.floats(0, 1),
        "flag": _NAMES,
        "unknown": st.integers(0, 9),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(_ROW, max_size=4), st.booleans()), max_size=6))
def test_a_piece_gives_back_what_was_added(evaluations: list[tuple[list[dict[str, Any]], bool]]) -> None:
    templates, buffer = Templates(), RowBuffer("sweep")
    expected: list[dict[str, Any]] = []
    for number, (rows, with_param) in enumerate(evaluations):
        param = json.dumps({"settings": number}) if with_param else None
        values = tuple(f"p{number}" if name == "point" else None for name in POINT)
        buffer.begin_point(f"p{number}", values, param)
        buffer.begin_stage("accuracy", f"k{number}", (None,) * len(PROVENANCE), note=f"note {number}")
        for row in rows:
            said = {**(json.loads(param) if param else {}), **({"unknown": row["unknown"]} if "unknown" in row else {})}
            known = {name: value for name, value in row.items() if name != "unknown"}
            expected.append({**known, "point": f"p{number}", "stage_key": f"k{number}", "param": said or None})
        buffer.add(templates.split([dict(row) for row in rows]))
    found = buffer.table().to_pylist()
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        param = json.loads(row["param_json"]) if row["param_json"] else None
        assert param == wanted.pop("param")
        assert {name: row[name] for name in wanted} == wanted
        for name in {*COMMON, *MEASURED} - wanted.keys():
            assert row[name] is None


def test_measured_columns_are_columns() -> None:
    assert {*MEASURED, *COMMON, "param_json"} == {*names("measurement"), *names("parameters"), "flag"}
    assert isinstance(MEASUREMENTS, pa.Schema)
