"""`ddray status`, `show`, `debug`: what a person is told about a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace, debug_keys, stages

from ddray.store.manifest import Manifest

KEYS = ["abc1" + "0" * 60, "abc2" + "0" * 60]


def finished(workspace: Workspace, key: str, **other: Any) -> None:
    store = workspace.store
    with store.writing() as folder:
        (folder / "facts.json").write_text("{}")
        values: dict[str, Any] = {"config": {"ipc": 10}, "inputs": {"set": "ff" * 32}, **other}
        manifest = Manifest(
            key=key, kind="train", version=1, label="train dm digits", files={}, provenance={"host": "there"}, **values
        )
        store.commit(folder, manifest)


def failed(workspace: Workspace, key: str, **other: Any) -> None:
    failure = {
        "label": "distill dm digits",
        "kind": "distill",
        "cause": "StageFailure: the loss is nan",
        "traceback": "Traceback (most recent call last):\n  boom\n",
        "config": {"ipc": 10},
        "inputs": {},
        **other,
    }
    workspace.store.record_failure(key, failure)


def running(workspace: Workspace, sweep: str, run: str, pid: int | None, age: float = 0.0) -> None:
    path = workspace.folders.runs / sweep / run / "status.json"
    path.parent.mkdir(parents=True)
    job = {"label": "distill dm digits", "done": 30, "total": 100, "unit": "it", "seconds": 65.0}
    status = {"pid": pid, "jobs": {"total": 9, "done": 4}, "running": [job], "eta": 3700.0}
    path.write_text(json.dumps(status))
    os.utime(path, (time.time() - age,) * 2)


def test_show_a_finished_stage(workspace: Workspace) -> None:
    finished(workspace, KEYS[0])
    shown = workspace.run("show", "ABC1")
    assert shown.code == 0, shown.err
    for part in (
        KEYS[0],
        "finished: train dm digits",
        "set: ffffffffffff",
        "facts.json  2 bytes",
        '"ipc": 10',
        "there",
    ):
        assert part in shown.out
    facts = json.loads(workspace.run("show", KEYS[0], "--json").out)
    assert (facts["key"], facts["failure"], facts["claim"]) == (KEYS[0], None, None)
    assert facts["manifest"]["inputs"] == {"set": "ff" * 32}


def test_show_a_failed_stage_and_who_computes_it_now(workspace: Workspace) -> None:
    failed(workspace, KEYS[0])
    claim = workspace.store.claim(KEYS[0])
    claim.acquire()
    shown = workspace.run("show", "abc")
    assert shown.code == 0, shown.err
    for part in ("failed: distill dm digits", "cause: StageFailure: the loss is nan", "boom", "ddray debug abc1"):
        assert part in shown.out
    assert f"claimed by process {os.getpid()}" in shown.out


@pytest.mark.parametrize("command", ["show", "debug"])
def test_keys_that_cannot_be_found(workspace: Workspace, command: str) -> None:
    ran = workspace.run(command, "abc")
    assert (ran.code, "there is no store here yet" in ran.err) == (2, True)
    finished(workspace, KEYS[0])
    failed(workspace, KEYS[1])
    ran = workspace.run(command, "abc")
    assert (ran.code, "abc: 2 keys begin so (abc100000000, abc200000000" in ran.err) == (2, True)
    ran = workspace.run(command, "fff")
    assert (ran.code, "no finished or failed stage has a key that begins so" in ran.err) == (2, True)


def test_a_damaged_manifest_is_said_not_shown(workspace: Workspace) -> None:
    finished(workspace, KEYS[0])
    (workspace.store.open(KEYS[0]).folder / "manifest.json").write_text("{")
    ran = workspace.run("show", "abc1")
    assert (ran.code, "is damaged" in ran.err, "Traceback" in ran.err) == (2, True, False)


def test_debug_says_when_there_is_nothing_to_debug(workspace: Workspace) -> None:
    finished(workspace, KEYS[0])
    ran = workspace.run("debug", "abc1")
    assert (ran.code, "is finished already: train dm digits" in ran.out) == (0, True)


def test_debug_shows_the_traceback_and_gives_the_claim_back(workspace: Workspace) -> None:
    failed(workspace, KEYS[0])  # its configuration is not one of a distillation
    ran = workspace.run("debug", "abc1")
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert "ValidationError" in ran.err
    assert workspace.store.claim(KEYS[0]).holder() is None
    failure = workspace.store.failure(KEYS[0])
    assert failure is not None
    assert failure["cause"] == "StageFailure: the loss is nan", "what the sweep recorded stays"


def test_debug_gives_a_stage_what_its_job_had(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and the cap on memory are part of how it failed."""
    import torch

    path = workspace.tiny(diverges=True, resources="{distill: {cpus: 2, gpu: 0.25}}")
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "method=dm")
    (key,) = debug_keys(ran.err)
    failure = json.loads(workspace.run("show", key, "--json").out)["failure"]
    assert (failure["cpus"], failure["gpu"]) == (2, 0.25)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert workspace.run("debug", key).code == 1
    assert threads == [2]


def test_debug_leaves_a_stage_alone_that_is_being_computed(workspace: Workspace) -> None:
    failed(workspace, KEYS[0])
    claim = workspace.store.claim(KEYS[0])
    claim.acquire()
    ran = workspace.run("debug", "abc1")
    assert (ran.code, f"process {os.getpid()} on" in ran.err, "Traceback" in ran.err) == (1, True, False)


def test_status_of_nothing(workspace: Workspace) -> None:
    ran = workspace.run("status")
    assert (ran.code, "no sweep was run here yet" in ran.out) == (0, True)
    assert workspace.run("status", "--json").out == "[]\n"
    ran = workspace.run("status", "unknown")
    assert (ran.code, "unknown: was never run" in ran.err) == (2, True)
    assert not Path(workspace.folders.store).exists(), "looking creates nothing"


def test_status_of_a_running_sweep(workspace: Workspace) -> None:
    running(workspace, "mine", "20260101T000000-1", None)
    running(workspace, "mine", "20260102T000000-2", os.getpid())
    running(workspace, "mine", "20260103T000000-3", None)
    ran = workspace.run("status", "mine")
    assert ran.code == 0, ran.err
    for part in (f"running (process {os.getpid()}): 4 of 9 jobs, about 1 h 1 min left", "distill dm digits 30/100 it"):
        assert part in ran.out
    assert workspace.run("status", "sweeps/mine.yaml").out == ran.out, "by path as well"
    (facts,) = json.loads(workspace.run("status", "--json").out)
    assert facts["running"]["jobs"] == {"total": 9, "done": 4}


def test_status_of_a_sweep_that_ended_without_a_word(workspace: Workspace) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running(workspace, "killed", "20260101T000000-1", ended.pid)
    running(workspace, "long_ago", "20260101T000000-1", os.getpid(), age=3600)  # the number lives on in another process
    assert "running" not in workspace.run("status").out


def test_status_counts_points(workspace: Workspace) -> None:
    path = workspace.tiny()
    assert workspace.run("sweep", path, "--local", "--no-mlflow", "--only", "method=random").code == 0
    ran = workspace.run("status", "tiny")
    assert "points: 2 of 4 done, 0 failed, 0 blocked" in ran.out
    assert "running" not in ran.out
    assert str(workspace.results("tiny").folder) in ran.out


def test_status_tells_queued_jobs_from_running_ones(workspace: Workspace) -> None:
    running(workspace, "mine", "20260101T000000-1", os.getpid())
    path = workspace.folders.runs / "mine" / "20260101T000000-1" / "status.json"
    waiting = [{"label": f"train dm digits seed={seed}", "seconds": 5.0} for seed in range(5)]
    path.write_text(json.dumps({**json.loads(path.read_text()), "queued": waiting}))
    text = workspace.run("status", "mine").out
    assert "    distill dm digits 30/100 it, 1 min 5 s" in text
    assert "    queued: train dm digits seed=0, 5 s" in text
    assert text.count("queued: ") == 3
    assert "and 2 more queued" in text


def test_status_of_another_host_goes_by_its_file(workspace: Workspace) -> None:
    """Its process number means nothing here."""
    for sweep, age in (("there", 0.0), ("gone", 3600.0)):
        running(workspace, sweep, "20260101T000000-1", 999_999_999, age)
        path = workspace.folders.runs / sweep / "20260101T000000-1" / "status.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
        os.utime(path, (time.time() - age,) * 2)
    assert "running (process 999999999 on elsewhere): 4 of 9 jobs" in workspace.run("status", "there").out
    assert "last run: died without an end" in workspace.run("status", "gone").out


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"jobs": 3}', '{"pid": 1, "jobs": null}'])
def test_a_status_that_was_cut_short_is_as_none(workspace: Workspace, text: str) -> None:
    path = workspace.folders.runs / "mine" / "20260101T000000-1" / "status.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    ran = workspace.run("status", "mine")
    assert (ran.code, ran.out.splitlines()[0], "Traceback" in ran.err) == (0, "mine", False)


# --- show: numbers and names --------------------------------------------------------------------------------------


@pytest.fixture
def swept(workspace: Workspace) -> Workspace:
    """Two finished points of random, two of DM that nobody has computed."""
    ran = workspace.run("sweep", workspace.tiny(), "--local", "--no-mlflow", "--only", "method=random")
    assert ran.code == 0, ran.err
    return workspace


def facts(workspace: Workspace, name: str) -> dict[str, Any]:
    ran = workspace.run("show", name, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_show_prints_the_numbers_of_a_stage(swept: Workspace) -> None:
    stage = stages(swept.prepare(swept.folder / "tiny.yaml"), "accuracy", method="random", seed=0)[0]
    rows = json.loads((swept.store.open(stage.key).folder / "metrics.json").read_text())
    (accuracy,) = (row for row in rows if row["metric"] == "test_acc")
    found = facts(swept, stage.key[:10])
    assert sorted(map(str, found["numbers"])) == sorted(map(str, rows)), "all of them"
    text = swept.run("show", stage.key[:10]).out
    assert f"test_acc split=test  {accuracy['value']:.6g} fraction  (" in text
    assert f"n={accuracy['n']})" in text
    assert "more; --json has all" not in text or len(rows) > 30
    for kind, number in (("train", "train_images  2"), ("distill", "ipc  1")):
        made = stages(swept.prepare(swept.folder / "tiny.yaml"), kind, method="random", seed=0)[0]
        assert f"\n  {number}\n" in swept.run("show", made.key[:10]).out


def test_show_of_a_damaged_metrics_file_is_an_error(swept: Workspace) -> None:
    stage = stages(swept.prepare(swept.folder / "tiny.yaml"), "accuracy", method="random", seed=0)[0]
    (swept.store.open(stage.key).folder / "metrics.json").write_text("[]")
    ran = swept.run("show", stage.key)
    assert (ran.code, "metrics.json differs from its digest" in ran.err, "Traceback" in ran.err) == (2, True, False)


def test_show_takes_what_mlflow_and_the_plan_call_things(swept: Workspace) -> None:
    point = facts(swept, "random-digits-ipc1-classes2.0-convnet3-s0")
    assert [(stage["kind"], stage["state"]) for stage in point["stages"]] == [
        (kind, "done") for kind in ("distill", "train", "accuracy")
    ]
    last = point["stages"][-1]
    assert {"test_acc", "test_loss"} <= {row["metric"] for row in last["numbers"]}
    listed = swept.run("plan", swept.folder / "tiny.yaml", "--points").out
    assert point["point"][:12] in listed
    for name in (point["point"][:12], point["name"]):
        assert facts(swept, name) == point
    assert last["label"] in listed
    assert facts(swept, last["label"])["key"] == last["key"]
    text = swept.run("show", point["name"]).out
    assert f"{last['key'][:12]}  done          {last['label']}" in text
    assert "test_acc split=test" in text


def test_show_of_what_is_planned_and_not_computed(swept: Workspace) -> None:
    point = facts(swept, "dm-digits-ipc1-real-classes2.0-convnet3-s1")
    assert {stage["state"] for stage in point["stages"]} == {"not computed"}
    ran = swept.run("show", point["stages"][1]["label"])
    assert (ran.code, f"not computed yet: {point['stages'][1]['label']}" in ran.out) == (0, True)


def test_names_that_fit_several_things_list_them(swept: Workspace) -> None:
    ran = swept.run("show", "random-digits")
    assert ran.code == 2
    assert "random-digits: 2 match" in ran.err
    for seed in (0, 1):
        assert f"random-digits-ipc1-classes2.0-convnet3-s{seed} (sweep tiny)" in ran.err
    ran = swept.run("show", "random seed=1")
    assert ran.code == 2, "words of labels"
    assert {word for word in ran.err.split() if word in ("train", "accuracy")} == {"train", "accuracy"}
    beginning = next(line.split()[0] for line in ran.err.splitlines() if "train random" in line)
    assert facts(swept, beginning)["manifest"]["kind"] == "train"


def test_show_does_without_a_sweep_whose_file_is_gone(swept: Workspace) -> None:
    point = facts(swept, "random-digits-ipc1-classes2.0-convnet3-s0")
    (swept.folder / "tiny.yaml").unlink()
    assert facts(swept, point["stages"][1]["key"][:12])["manifest"]["kind"] == "train"
    ran = swept.run("show", point["name"])
    assert (ran.code, "is called so" in ran.err, "Traceback" in ran.err) == (2, True, False)
