"""`ddray status` of real runs: killed, stopped, stopped by the surroundings, finished."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from workspace import Running, Workspace, stages

from ddray.errors import EnvironmentProblem
from ddray.run import local, refresh


def last(workspace: Workspace) -> dict[str, Any]:
    (facts,) = json.loads(workspace.run("status", "tiny", "--json").out)
    run: dict[str, Any] = facts["run"]
    return run


def begun(workspace: Workspace, running: Running, lineage: str) -> dict[str, Any]:
    """Its status once that tells of the stage, and the stage has a snapshot."""
    found: dict[str, Any] = {}

    def told() -> bool:
        for path in workspace.folders.runs.glob("tiny/*/status.json"):
            found.update(json.loads(path.read_text()))
            if found["pid"] == running.process.pid and workspace.checkpoints(lineage):
                return any(job.get("lineage") == lineage for job in found["running"])
        return False

    running.until(told)
    return found


def test_a_run_that_is_killed_stopped_and_finished(workspace: Workspace) -> None:
    path = workspace.tiny(iterations=1000)
    (stage,) = stages(workspace.prepare(path), "distill", method="dm")
    command = ("sweep", path, "--local", "--no-mlflow", "--only", "method=dm")
    with workspace.start(*command) as running:
        facts = begun(workspace, running, stage.lineage)
        assert (facts["end"], facts["jobs"]["queued"], facts["started_at"] is None) == (None, 0, False)
        text = workspace.run("status", "tiny").out
        assert f"running (process {running.process.pid})" in text
        assert ", started 20" in text
        running.send(signal.SIGKILL)
        running.process.wait(30)
    text = workspace.run("status", "tiny").out
    assert "last run: died without an end; last heard of 20" in text
    kept = Path(workspace.folders.store) / "checkpoints" / stage.lineage[:2] / stage.lineage
    assert "distill dm digits" in text
    assert f"of 1000 it, in {kept}" in text
    assert kept.is_dir()
    assert f"continue: ddray sweep {path} --local --no-mlflow --only method=dm" in text

    with workspace.start(*command) as running:
        begun(workspace, running, stage.lineage)
        running.send(signal.SIGTERM)
        assert running.wait().code == 130
    run = last(workspace)
    assert (run["end"], run["pid"], run["reason"]) == ("interrupted", None, "")
    (checkpoint,) = run["checkpoints"]
    assert (checkpoint["done"], checkpoint["label"]) == (workspace.checkpoints(stage.lineage)[-1], stage.label)
    assert run["started_at"] <= run["ended_at"]

    assert workspace.run(*command).code == 0
    run = last(workspace)
    assert (run["end"], run["checkpoints"]) == ("done", [])
    text = workspace.run("status", "tiny").out
    assert "last run: done 20" in text
    assert "continue" not in text


def test_a_run_with_failures_and_one_that_the_surroundings_end(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace.tiny(diverges=True)

    def full(*_: Any, **__: Any) -> None:
        raise EnvironmentProblem("no space is left here")

    with monkeypatch.context() as patch:
        patch.setattr("ddray.run.sweep.rebuild", full)  # stands for a disk that is full while tables are made
        assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 3
    run = last(workspace)
    assert (run["end"], run["reason"]) == ("failed", "no space is left here")
    assert "no space is left here" in workspace.run("status", "tiny").out
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 1
    run = last(workspace)
    assert (run["end"], run["reason"]) == ("failed", "")


@pytest.mark.ray
def test_jobs_that_wait_in_ray_are_queued(workspace: Workspace) -> None:
    """One CPU, one worker: what was released ahead of it waits, and is not said to run."""
    path = workspace.tiny(iterations=100_000, distill_seeds=(0, 1, 2))
    seen: list[dict[str, Any]] = []

    def told() -> bool:
        for file in workspace.folders.runs.glob("tiny/*/status.json"):
            seen.append(json.loads(file.read_text()))
        return bool(seen) and any(job.get("done") for job in seen[-1]["running"])

    with workspace.start("sweep", path, "--cpus", 1, "--no-mlflow", "--only", "method=dm") as running:
        running.until(told)
        facts, text = seen[-1], workspace.run("status", "tiny").out
        running.send(signal.SIGTERM)
        assert running.wait().code == 130
    assert len(facts["running"]) == facts["jobs"]["running"] == 1
    assert len(facts["queued"]) == facts["jobs"]["queued"] >= 1
    assert all("done" not in job for job in facts["queued"])
    assert all(len(each["running"]) <= 1 for each in seen), "never more than there are CPUs"
    assert text.count("    queued: distill dm digits") == min(3, len(facts["queued"]))
    assert last(workspace)["checkpoints"], "of the one that ran"


def test_tables_are_there_while_the_sweep_runs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first finished point the report is on disk, and says how much is missing."""
    monkeypatch.setattr(refresh, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(refresh, "SHARE", 0.0)
    seen: list[str] = []
    run_one = local.run_one

    def looked(*arguments: Any, **named: Any) -> Any:
        path = workspace.results("tiny").folder / "report.md"
        seen.append(path.read_text(encoding="utf-8") if path.exists() else "")
        return run_one(*arguments, **named)

    monkeypatch.setattr(local, "run_one", looked)
    ran = workspace.run("sweep", workspace.tiny(), "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert seen[0] == "", "nothing before the first job"
    part = [text for text in seen if "1 of 4 points done, 3 pending" in text]
    assert part
    assert "1 of 4 points are done" in part[0], "an alarm says so"
    assert (workspace.results("tiny").folder / "report.html").is_file()
