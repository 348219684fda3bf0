"""A sweep as a person runs it: exit codes, tables, coverage; nothing twice; failures and damage stay where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import worlds
from object_store import ObjectStore
from pyarrow import parquet
from workspace import Workspace, debug_keys, stages

from ddray.plan.graph import Chain, Stage

MODULES = """
import json, os, sys
from ddray import cli
sys.argv[0] = "ddray"
try:
    cli.main()
finally:
    with open(os.environ["MODULES"], "w") as file:
        json.dump(sorted(sys.modules), file)
"""
HEAVY = {"ray", "torch", "torchvision", "mlflow", "pyarrow", "sklearn", "scipy"}


def loaded(path: Path) -> set[str]:
    """Top-level packages that a command has loaded."""
    return {name.partition(".")[0] for name in json.loads(path.read_text())}


def coverage(workspace: Workspace, name: str) -> dict[str, int]:
    points: dict[str, int] = json.loads((workspace.results(name).folder / "coverage.json").read_text())["points"]
    return points


def statuses(workspace: Workspace, name: str) -> dict[str, set[str]]:
    """Method -> statuses of its rows."""
    table = parquet.read_table(workspace.results(name).measurements, columns=["method", "status"])
    found: dict[str, set[str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["method"], set()).add(row["status"])
    return found


def test_sweep_computes_everything_and_a_second_run_nothing(workspace: Workspace, tmp_path: Path) -> None:
    path = workspace.tiny()
    first = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert first.code == 0, first.err
    assert "4 of 4 points done" in first.err
    assert f"results: {workspace.results('tiny').folder}" in first.out.splitlines()
    assert coverage(workspace, "tiny") == {"planned": 4, "done": 4, "failed": 0, "blocked": 0, "pending": 0}
    assert statuses(workspace, "tiny") == {"random": {"ok"}, "dm": {"ok"}}
    rows = parquet.read_table(workspace.results("tiny").measurements).to_pylist()
    accuracies = [row for row in rows if row["metric"] == "test_acc"]
    assert {(row["method"], row["seed"]) for row in accuracies} == {(m, s) for m in ("random", "dm") for s in (0, 1)}
    assert all(0 <= row["value"] <= 1 and row["n"] == 100 and row["protocol"] == "quick*" for row in accuracies)
    plan = workspace.prepare(path).plan
    assert set(workspace.payloads()) == set(plan.stages)

    before = workspace.manifests()
    report = (workspace.results("tiny").folder / "report.md").stat().st_mtime_ns
    # Without --local: a run with anything to do would start Ray.
    second = workspace.spawn("sweep", path, "--no-mlflow", script=MODULES, MODULES=str(tmp_path / "modules"))
    assert second.code == 0, second.err
    assert "nothing to do; 4 of 4 points done" in second.err
    assert not HEAVY & loaded(tmp_path / "modules")
    assert workspace.manifests() == before
    assert (workspace.results("tiny").folder / "report.md").stat().st_mtime_ns == report

    by_name = workspace.run("sweep", "tiny", "--local", "--no-mlflow")
    assert (by_name.code, "nothing to do" in by_name.err) == (0, True)
    assert json.loads(workspace.run("plan", path, "--json").out)["jobs"] == 0


def test_the_check_for_heavy_packages_can_fail(workspace: Workspace, tmp_path: Path) -> None:
    """Control: a run with something to do does load torch."""
    ran = workspace.spawn(
        "sweep",
        workspace.tiny(),
        "--local",
        "--no-mlflow",
        "--limit",
        "1",
        script=MODULES,
        MODULES=str(tmp_path / "modules"),
    )
    assert ran.code == 0, ran.err
    assert HEAVY & loaded(tmp_path / "modules") >= {"torch", "pyarrow"}
    assert "ray" not in loaded(tmp_path / "modules")


def test_a_failed_stage_stops_only_what_depends_on_it(workspace: Workspace) -> None:
    path = workspace.tiny("broken", diverges=True)
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 1, ran.err
    prepared = workspace.prepare(path)
    (failed,) = stages(prepared, "distill", method="dm")
    assert coverage(workspace, "broken") == {"planned": 4, "done": 2, "failed": 2, "blocked": 0, "pending": 0}
    assert statuses(workspace, "broken") == {"random": {"ok"}, "dm": {"failed"}}
    dependants = {stage.key for kind in ("train", "accuracy") for stage in stages(prepared, kind, method="dm")}
    assert set(workspace.payloads()) == prepared.plan.stages.keys() - dependants - {failed.key}
    assert "4 more wait for them" in ran.err
    assert "StageFailure: dm: the loss is" in ran.err

    failure = workspace.store.failure(failed.key)
    assert failure is not None
    assert failure["cause"].startswith("StageFailure: dm: the loss is")
    assert "Traceback (most recent call last)" in failure["traceback"]
    assert "dm.py" in failure["traceback"]
    assert failure["label"] == failed.label
    assert workspace.store.failures() == {failed.key}, "what is blocked has not failed itself"

    (key,) = debug_keys(ran.err)
    assert failed.key.startswith(key)
    shown = workspace.run("show", key)
    assert (shown.code, "cause: StageFailure: dm" in shown.out) == (0, True)
    again = workspace.run("debug", key)
    assert again.code == 1
    assert "StageFailure: dm: the loss is" in again.err
    assert "Traceback" in again.err


def test_a_failure_is_forgotten_once_the_stage_succeeds(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed for a reason outside its configuration: the same command goes on where it stopped."""
    path = workspace.tiny()
    prepared = workspace.prepare(path)
    (dm,) = stages(prepared, "distill", method="dm")
    key = dm.key[:12]
    with monkeypatch.context() as patched:
        patched.setattr("trainables.data.origins.open_split", _unreadable)
        ran = workspace.run("sweep", path, "--local", "--no-mlflow")
        assert ran.code == 1, ran.err
        assert dm.key in workspace.store.failures()
        assert not workspace.payloads()
        assert workspace.run("debug", key).code == 1

    repaired = workspace.run("debug", key)
    assert (repaired.code, "succeeded" in repaired.out) == (0, True)
    before = workspace.manifests()
    assert list(before) == [dm.key]
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert not workspace.store.failures()
    assert workspace.manifests()[dm.key] == before[dm.key], "computed by hand, so not again"


def test_only_narrows_what_is_run_never_what_counts(workspace: Workspace) -> None:
    path = workspace.tiny()
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "method=random", "--only", "seed=0")
    assert ran.code == 0, ran.err
    assert coverage(workspace, "tiny") == {"planned": 4, "done": 1, "failed": 0, "blocked": 0, "pending": 3}
    prepared = workspace.prepare(path)
    wanted = {
        stage.key
        for kind in ("distill", "train", "accuracy")
        for stage in stages(prepared, kind, method="random", seed=0)
    }
    assert set(workspace.payloads()) == wanted


@pytest.mark.parametrize("kind", ["distill", "train", "accuracy"])
def test_damage_is_reported_put_aside_and_mended(workspace: Workspace, kind: str) -> None:
    path = workspace.tiny()
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 0
    table, payloads = workspace.table("tiny"), workspace.payloads()
    stage = stages(workspace.prepare(path), kind, method="dm")[0]
    name = {"distill": "set.safetensors", "train": "signals.safetensors", "accuracy": "metrics.json"}[kind]
    file = workspace.store.open(stage.key).folder / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))

    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert f"artifact {stage.key[:12]} is damaged" in ran.err
    quarantine = list((Path(workspace.folders.store) / "quarantine").iterdir())
    assert [place.name.partition("-")[0] for place in quarantine] == [stage.key]
    assert (quarantine[0] / file.name).read_bytes() == bytes(content), "kept for whoever wants to look"
    assert workspace.payloads() == payloads
    assert workspace.table("tiny").equals(table)


def test_damage_that_is_met_on_the_way_is_mended_too(workspace: Workspace) -> None:
    """An input that another sweep left damaged: nobody has looked at it before a stage needs it."""
    path = workspace.tiny()
    prepared = workspace.prepare(path)
    (dm,) = stages(prepared, "distill", method="dm")
    assert workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "method=dm", "--only", "seed=0").code == 0
    payloads = workspace.payloads()
    other = workspace.write("other", path.read_text())  # another name: no notes of what the files looked like
    (workspace.store.open(dm.key).folder / "set.safetensors").write_bytes(b"nothing")
    ran = workspace.run("sweep", other, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert f"artifact {dm.key[:12]} is damaged" in ran.err
    after = workspace.payloads()
    assert set(after) == set(prepared.plan.stages)
    assert {key: after[key] for key in payloads} == payloads


def test_an_object_store_holds_the_same(workspace: Workspace, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workspace.tiny()
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 0
    on_disk, table = workspace.payloads(), workspace.table("tiny")
    monkeypatch.setenv("DDRAY_STORE", s3.location())
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert workspace.payloads() == on_disk
    assert workspace.table("tiny").equals(table)
    again = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert (again.code, "nothing to do" in again.err) == (0, True)


THOUSAND = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], architecture: [convnet3-d2-w8], method: [random], seed: [0]}}
grids:
  one: {axes: {ipc: [1, 2, 3, 4], distill_seed: SEEDS}}
"""


def test_a_thousand_finished_stages_are_a_few_requests(
    workspace: Workspace, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings, whose pages hold a thousand files each, and nothing for each stage. Counted at the server."""
    path = workspace.write("thousand", THOUSAND.replace("SEEDS", str(list(range(84)))))
    prepared = workspace.prepare(path)
    assert len(prepared.plan.stages) >= 1000
    made: dict[str, Any] = {}

    def same(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Any:
        if stage.kind not in made:
            made[stage.kind] = worlds.payload_of(stage, chain, 0.5)
        return made[stage.kind]

    worlds.fill(workspace.store, prepared.plan, make=same)
    assert workspace.run("collect", path).code == 0
    location = s3.location()
    s3.hold(Path(workspace.folders.store), location)
    monkeypatch.setenv("DDRAY_STORE", location)
    results = workspace.results("thousand")
    points = len(prepared.plan.chains)
    counts = {"points": points, "done": points, "failed": 0, "blocked": 0}
    results.record(prepared.digest, workspace.store.stamps(), failures=[], counts=counts, mirrored="")
    for command, limit in ((("sweep", path, "--local", "--no-mlflow"), 50), (("plan", path), 25)):
        s3.asked.clear()
        ran = workspace.run(*command)
        assert ran.code == 0, ran.err
        assert "nothing to do" in ran.err or command[0] == "plan"
        assert 0 < len(s3.asked) < limit, s3.asked


def test_wrong_requests_start_nothing(workspace: Workspace) -> None:
    path = workspace.write("wrong", "ddray: 1\ngrids: {g: {axes: {method: [dss], dataset: [digits], ipc: [1]}}}\n")
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert (ran.code, "unknown method" in ran.err or "'dss'" in ran.err) == (2, True)
    assert "nothing was started" in ran.err
    assert not Path(workspace.folders.store).exists()


def _unreadable(*_: object) -> object:
    """Data that a stage cannot read. (Damage of a cache is mended before a stage meets it: ``test_own_data.py``.)"""
    raise ValueError("the images of this node cannot be read")


def test_a_mirror_that_failed_is_tried_again_by_the_next_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are current by then, so only the mirror is left to do."""
    from ddray.errors import EnvironmentProblem
    from ddray.tracking import mirror

    def unreachable(*_: object, **__: object) -> object:
        raise EnvironmentProblem("the database is locked")

    path = workspace.tiny(iterations=1)
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "mirror", unreachable)
        ran = workspace.run("sweep", path, "--local")
    assert ran.code == 0
    assert "MLflow was not updated" in ran.err
    again = workspace.run("sweep", path, "--local")
    assert "runs created" in again.err
    assert "MLflow" not in workspace.run("sweep", path, "--local").err
