"""A sweep that is stopped, killed or run twice at once ends with the same bytes as one that was left alone."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace import LOG_COMMITS, Running, Swept, Workspace, places_in, stages

from ddray.plan.graph import Stage

ITERATIONS = 1000
SEEN = 100
"""Iterations after which a run is stopped: the first snapshot shows that it got there."""
STOP_SECONDS = 25


def undisturbed(folder: Path, cache: Path, **sweep: Any) -> Swept:
    """The sweep as it is when nobody interferes."""
    with places_in(folder, cache) as workspace:
        ran = workspace.run("sweep", workspace.tiny(**sweep), "--local", "--no-mlflow")
        assert ran.code == 0, ran.err
        return workspace.swept("tiny")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Swept:
    return undisturbed(tmp_path_factory.mktemp("long"), digits_cache, iterations=ITERATIONS)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every step of DM that this process takes."""
    from trainables.distill import dm

    taken: list[int] = []
    original = dm.match_distributions

    def counted(*arguments: Any) -> tuple[float, Any]:
        taken.append(len(taken))
        return original(*arguments)

    monkeypatch.setattr(dm, "match_distributions", counted)
    return taken


def distillation(workspace: Workspace, path: Path, **axes: Any) -> Stage:
    (stage,) = stages(workspace.prepare(path), "distill", method="dm", **axes)
    return stage


def stopped(running: Running, number: signal.Signals, *, group: bool) -> None:
    """Ask a running sweep to stop, as a terminal or a batch system does."""
    at = time.monotonic()
    running.send(number, group=group)
    ran = running.wait()
    assert ran.code == 130, ran.err
    assert time.monotonic() - at < STOP_SECONDS
    assert "interrupted" in ran.err
    assert "Run the same command again to continue" in ran.err
    assert "Traceback" not in ran.err


def check_continues(workspace: Workspace, path: Path, stage: Stage, expected: Swept, steps: list[int]) -> None:
    """The checkpoint is there, and running again takes the steps that are left and no others."""
    done = workspace.checkpoints(stage.lineage)[-1]
    assert SEEN <= done < ITERATIONS
    assert not workspace.store.has(stage.key)
    assert workspace.store.claim(stage.key).holder() is None, "given up, so nobody has to wait for its end"
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    assert len(steps) == ITERATIONS - done
    assert workspace.payloads() == expected.payloads
    assert workspace.table("tiny").equals(expected.table)


def test_sigterm_checkpoints_and_the_same_command_continues(
    workspace: Workspace, long: Swept, steps: list[int]
) -> None:
    path = workspace.tiny(iterations=ITERATIONS)
    stage = distillation(workspace, path)
    with workspace.start("sweep", path, "--local", "--no-mlflow") as running:
        running.until(lambda: workspace.checkpoints(stage.lineage))
        stopped(running, signal.SIGTERM, group=False)
    check_continues(workspace, path, stage, long, steps)


@pytest.mark.ray
def test_sigint_on_ray_checkpoints_and_the_same_command_continues(
    workspace: Workspace, long: Swept, steps: list[int]
) -> None:
    """Ctrl-C reaches everything the terminal started, workers too; they must live long enough to save."""
    path = workspace.tiny(iterations=ITERATIONS)
    stage = distillation(workspace, path)
    with workspace.start("sweep", path, "--cpus", "2", "--no-mlflow") as running:
        running.until(lambda: workspace.checkpoints(stage.lineage))
        stopped(running, signal.SIGINT, group=True)
    check_continues(workspace, path, stage, long, steps)


@pytest.mark.ray
def test_nothing_finished_is_lost_when_the_driver_is_killed(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, digits_cache: Path
) -> None:
    sweep: dict[str, Any] = {"iterations": 300, "distill_seeds": (0, 1)}
    expected = undisturbed(tmp_path_factory.mktemp("killed"), digits_cache, **sweep)
    path = workspace.tiny(**sweep)
    both = [distillation(workspace, path, distill_seed=seed) for seed in (0, 1)]
    with workspace.start("sweep", path, "--cpus", "1", "--no-mlflow") as running:
        # one is finished, the other is under way
        running.until(
            lambda: (
                sum(map(workspace.store.has, (stage.key for stage in both))) == 1
                and all(workspace.checkpoints(stage.lineage) for stage in both)
            )
        )
        running.send(signal.SIGKILL)
        running.wait()
        finished = workspace.manifests()
    assert 1 <= len(finished) < len(expected.payloads)

    ran = workspace.spawn("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    after = workspace.manifests()
    assert {key: after[key] for key in finished} == finished, "the same files with the same times"
    assert workspace.payloads() == expected.payloads
    assert workspace.table("tiny").equals(expected.table)


def commits(log: Path) -> Iterator[tuple[str, bool]]:
    for line in log.read_text().splitlines():
        key, made = json.loads(line)
        yield key, made


def test_two_sweeps_at_once_share_the_work(workspace: Workspace, tmp_path: Path) -> None:
    path = workspace.tiny(iterations=100, distill_seeds=(0, 1))
    log, tables = tmp_path / "commits", []
    homes = [str(tmp_path / name) for name in ("one", "two")]
    how: dict[str, Any] = {"script": LOG_COMMITS, "COMMIT_LOG": str(log)}
    arguments = ("sweep", path, "--local", "--no-mlflow")
    with (
        workspace.start(*arguments, DDRAY_HOME=homes[0], **how) as one,
        workspace.start(*arguments, DDRAY_HOME=homes[1], **how) as two,
    ):
        for running in (one, two):
            ran = running.wait()
            assert ran.code == 0, ran.err
            assert "8 of 8 points done" in ran.err
    keys = set(workspace.prepare(path).plan.stages)
    assert Counter(commits(log)) == Counter((key, True) for key in keys), "each stage once, none in vain"
    for home in homes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DDRAY_HOME", home)
            tables.append(workspace.table("tiny"))
    assert tables[0].num_rows > 0
    assert tables[0].equals(tables[1])
