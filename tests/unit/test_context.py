"""What a running stage sees: it is polled every step, saves when it should, and nothing it computes depends on when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.run.board import Board
from ddray.run.context import CHECKPOINT_SECONDS, StageContext, is_snapshot
from ddray.store.artifacts import Store
from ddray.store.checkpoints import Checkpoints
from trainables.context import Context, Interrupted


class Stage:
    """A stage that counts, in a context of a folder."""

    def __init__(self, folder: Path, budget: int | None = None) -> None:
        self.folder = folder
        self.budget = budget
        self.stop = threading.Event()
        self.shown: list[dict[str, Any]] = []
        self.bodies: list[int] = []

    @property
    def checkpoints(self) -> Checkpoints:
        return Store(str(self.folder / "store"), self.folder).checkpoints("ab" * 32)

    def context(self) -> StageContext:
        return StageContext(
            device="cpu",
            data=self.folder,
            cache=self.folder,
            checkpoints=self.checkpoints,
            budget=self.budget,
            stop=self.stop,
            on_progress=lambda progress: self.shown.append(dict(progress)),
        )

    def run(self, total: int, *, saves: bool = True, at: Callable[[int], None] = lambda _: None) -> int:
        """Count to ``total``; ``at`` is called in the body of every iteration. Returns the sum."""
        context: Context = self.context()
        done, value = 0, 0
        if checkpoint := context.restore():
            done, folder = checkpoint
            value = int((folder / "value").read_text())

        def save(folder: Path) -> None:
            (folder / "value").write_text(str(value))

        for iteration in context.iterations(total, start=done, save=save if saves else None, unit="step"):
            self.bodies.append(iteration)
            value += iteration
            context.measure(value=value)
            at(iteration)
        return value


def test_snapshots_are_at_fixed_iterations() -> None:
    found = [iteration for iteration in range(0, 200_001) if is_snapshot(iteration)]
    assert found == [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000]


def test_counts_reports_and_keeps_nothing_without_a_budget(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.run(250) == sum(range(250))
    assert stage.bodies == list(range(250))
    assert stage.checkpoints.done() == []
    assert [shown["done"] for shown in stage.shown] == list(range(251))
    assert stage.shown[0]["total"] == 250
    last = {"start": 0, "done": 250, "total": 250, "unit": "step", "values": {"value": sum(range(250))}}
    assert stage.shown[-1] == last


def test_a_budget_keeps_snapshots_and_its_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path, budget=230)
    stage.run(230)
    assert stage.checkpoints.done() == [100, 200, 230]
    again = Stage(tmp_path, budget=230)
    assert again.run(230) == sum(range(230))
    assert again.bodies == [], "all there"
    shorter = Stage(tmp_path, budget=150)
    assert shorter.run(150) == sum(range(150))
    assert shorter.bodies == list(range(100, 150)), "a later, shorter budget starts where it can"
    longer = Stage(tmp_path, budget=240)
    assert longer.run(240) == sum(range(240))
    assert longer.bodies == list(range(230, 240))


def test_a_stop_saves_what_was_done_and_running_again_continues(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with pytest.raises(Interrupted):
        stage.run(50, at=lambda iteration: stage.stop.set() if iteration == 7 else None)
    assert stage.bodies == list(range(8)), "at most the step that was under way"
    assert stage.checkpoints.done() == [8]
    stage.stop.clear()
    assert stage.run(50) == sum(range(50))
    assert stage.bodies == list(range(50)), "no step twice, none left out"


def test_a_stop_before_the_first_step_saves_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.stop.set()
    with pytest.raises(Interrupted):
        stage.run(5)
    assert stage.bodies == []
    assert stage.checkpoints.done() == []


def test_a_stop_in_the_last_step_is_too_late(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.run(5, at=lambda iteration: stage.stop.set() if iteration == 4 else None) == sum(range(5))


def test_without_save_a_stop_ends_and_the_next_run_begins_anew(tmp_path: Path) -> None:
    stage = Stage(tmp_path, budget=300)
    with pytest.raises(Interrupted):
        stage.run(300, saves=False, at=lambda iteration: stage.stop.set() if iteration == 150 else None)
    assert stage.bodies == list(range(151))
    assert stage.checkpoints.done() == []


def test_a_killed_stage_loses_only_what_came_after_the_clock_s_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("ddray.run.context.time.monotonic", lambda: clock[0])

    def tick(iteration: int) -> None:
        clock[0] += CHECKPOINT_SECONDS / 4
        if iteration == 17:
            raise MemoryError("stands for a kill")

    stage = Stage(tmp_path)
    with pytest.raises(MemoryError):
        stage.run(100, at=tick)
    (done,) = stage.checkpoints.done()
    assert 17 - 5 <= done <= 17, "one a minute"
    stage.bodies.clear()
    monkeypatch.undo()
    assert stage.run(100) == sum(range(100))
    assert stage.bodies[0] == done


@given(stops=st.lists(st.integers(0, 259), max_size=5), budget=st.none() | st.just(260))
def test_any_interruptions_give_the_same_result(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], budget: int | None
) -> None:
    stage = Stage(tmp_path_factory.mktemp("stage"), budget)
    left = sorted(set(stops))

    def interrupt(iteration: int) -> None:
        if left and iteration == left[0]:
            left.pop(0)
            stage.stop.set()

    while True:
        try:
            value = stage.run(260, at=interrupt)
        except Interrupted:
            stage.stop.clear()
        else:
            break
    assert value == sum(range(260))
    assert stage.bodies == list(range(260))


def test_board_carries_progress_and_the_request_to_stop() -> None:
    board = Board()
    assert not board.tick("a", {"done": 1})
    assert not board.tick("b", {"done": 2})
    assert board.look() == {"a": {"done": 1}, "b": {"done": 2}}
    board.tick("a", None)
    assert board.look(stop=True) == {"b": {"done": 2}}
    assert board.tick("b", {"done": 3})
    assert board.look() == {"b": {"done": 3}}
    assert board.tick("c", {}), "for good"
