"""Stages that run out of memory get more of it, stages alike too, and it is remembered."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pieces import job, stage

from ddray.plan.jobs import Job
from ddray.run.causes import CARD, CAUSES, COMPUTATION, ERROR, GPU_MEMORY, HOST_MEMORY, kind_of
from ddray.run.ladder import FILE, MOST_ROOM, SHARES, Ladder
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome
from ddray.store.artifacts import Store
from trainables.context import StageFailure


class Bench:
    """A schedule whose jobs end as a test says."""

    def __init__(self, jobs: list[Job], store: Store | None = None, **ladder: Any) -> None:
        self.schedule = Schedule(jobs, set())
        self.ladder = Ladder("card", store, **ladder)
        stages = {each.key: each for job in jobs for each in job.stages}
        progress = Progress(self.schedule, "test", quiet=True, cost=lambda each: each.work)
        self.handler = OutcomeHandler(self.schedule, stages, progress, threading.Event(), store, self.ladder)

    def take(self) -> Job:
        self.handler.release_deferred(at_once=True)
        taken = self.schedule.take(lambda _: True)
        assert taken is not None
        return taken

    def fails(self, taken: Job, kind: str) -> None:
        key = taken.stages[0].key
        if self.handler.store is not None:
            self.handler.store.record_failure(key, {"cause": "it was too much", "label": "", "traceback": ""})
        self.handler.settle(taken, Outcome(failed={key: "it was too much"}, kinds={key: kind}))

    def succeeds(self, taken: Job) -> None:
        self.handler.settle(taken, Outcome(done=[each.key for each in taken.stages]))


def of_class(name: str, *keys: str, **other: Any) -> list[Job]:
    return [job(stage(key, cost_class=name, **other)) for key in keys]


@pytest.mark.parametrize(
    "error, kind",
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), GPU_MEMORY),
        (MemoryError(), HOST_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), HOST_MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), CARD),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), CARD),
        (StageFailure("dm: the loss is nan at iteration 3"), COMPUTATION),
        (ValueError("a class has fewer than 10 images"), ERROR),
    ],
)
def test_exceptions_are_told_apart_by_what_is_to_be_done(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind
    assert kind in CAUSES


def test_torch_says_so_when_a_cpu_has_no_memory_left() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert kind_of(raised.value) == HOST_MEMORY


@given(need=st.floats(0.01, 1.3), had=st.sampled_from(SHARES))
def test_a_stage_gets_the_least_share_that_is_enough_and_fails_where_a_card_is_not(need: float, had: float) -> None:
    bench = Bench(of_class("c", "a", share=had))
    tries = 0
    while not bench.schedule.over:
        taken, tries = bench.take(), tries + 1
        if taken.gpu < need:
            bench.fails(taken, GPU_MEMORY)
        else:
            bench.succeeds(taken)
            assert taken.gpu == max(had, min(share for share in SHARES if share >= need))
    assert bool(bench.schedule.failed) == (need > 1)
    assert tries <= len(SHARES)
    if need > 1:
        assert "lower batch sizes" in bench.schedule.failed["a"]


def test_stages_alike_that_have_not_begun_get_it_too_and_others_do_not() -> None:
    others = of_class("other", "x", share=0.125)
    bench = Bench([*of_class("same", "a", "b", "c", share=0.125), *others])
    first, second = bench.take(), bench.take()
    bench.fails(first, GPU_MEMORY)
    shares = {name: each.gpu for name, each in bench.schedule.jobs.items()}
    assert shares == {first.name: 0.25, second.name: 0.125, bench_name("c"): 0.25, bench_name("x"): 0.125}
    # The other shape is still found, though its first entry asks for more now.
    found = {bench.take().name for _ in range(3)}
    assert found == {first.name, bench_name("c"), bench_name("x")}
    # The one that ran all the while fails with what it had, and goes straight to what the others have.
    bench.fails(second, GPU_MEMORY)
    assert bench.schedule.jobs[second.name].gpu == 0.25


def bench_name(key: str) -> str:
    return job(stage(key)).name


def test_the_next_sweep_on_the_device_begins_there(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "downloads")
    bench = Bench(of_class("c", "a", share=0.125), store)
    bench.fails(bench.take(), GPU_MEMORY)
    assert store.failure("a") is None, "it is tried again: nothing failed"
    (alike,), (other,) = of_class("c", "b", share=0.125), of_class("d", "e", share=0.125)
    again = Ladder("card", store)
    assert again.on(alike).gpu == 0.25
    assert again.on(other) is other
    assert Ladder("another card", store).on(alike) is alike


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"format": 1, "devices": [1]}', b'{"format": 1, "devices": {"card": {"c": 7}}}']
)
def test_what_cannot_be_read_is_nothing(content: bytes, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "downloads")
    store.keep_hint(FILE, content)
    (one,) = of_class("c", "a", share=0.125)
    assert Ladder("card", store).on(one) is one


def test_a_killed_worker_is_bad_luck_once_then_gets_room_twice_and_fails_with_all_of_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "downloads")
    bench = Bench(of_class("c", "a", "b", share=None), store)
    rooms = []
    while not bench.schedule.failed:
        taken = bench.take()
        if taken.stages[0].key == "a":
            rooms.append(taken.shape[0])
            assert taken.cpus == 1, "threads, hence bytes, stay"
            bench.fails(taken, HOST_MEMORY)
    assert rooms == [1, 1, 2, MOST_ROOM]
    assert bench.schedule.failed["a"].startswith("it was too much (tried 4 times); lower --cpus")
    assert (store.failure("a") or {})["cause"] == bench.schedule.failed["a"]
    assert bench.schedule.jobs[bench_name("b")].shape == (MOST_ROOM, 0)
    assert Ladder("card", store).on(of_class("c", "b", share=None)[0]).room == 1, "the next sweep begins anew"


@pytest.mark.parametrize("room, widest, tries", [(False, float("inf"), 2), (True, 1.0, 2), (True, 2.0, 3)])
def test_no_more_room_is_asked_for_than_there_is(room: bool, widest: float, tries: int) -> None:
    bench = Bench(of_class("c", "a", share=None), room=room)
    bench.ladder.widest = widest
    for _ in range(tries):
        assert not bench.schedule.failed
        bench.fails(bench.take(), HOST_MEMORY)
    assert "(tried" in bench.schedule.failed["a"]


def test_what_more_memory_does_not_help_fails_at_once() -> None:
    bench = Bench(of_class("c", "a"))
    bench.fails(bench.take(), COMPUTATION)
    assert bench.schedule.failed == {"a": "it was too much"}
