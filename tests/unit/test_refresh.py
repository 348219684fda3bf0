"""Tables while a sweep runs: from time to time, rarely enough, and never at the price of the run."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from ddray.commands import status
from ddray.run import refresh
from ddray.run.refresh import Refresh


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(refresh.time, "monotonic", lambda: now[0])
    return now


def test_it_waits_fifty_times_as_long_as_it_took(clock: list[float]) -> None:
    built: list[float] = []

    def build() -> None:
        built.append(clock[0])
        clock[0] += 10.0

    live = Refresh(build)
    while clock[0] < 3000.0:
        live.tick()
        clock[0] += 1.0
    assert built[0] == refresh.FIRST_SECONDS
    assert all(later - earlier >= 500.0 for earlier, later in itertools.pairwise(built))
    assert 10.0 * len(built) <= 0.025 * clock[0]


def test_what_goes_wrong_is_said_and_tried_again(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def build() -> None:
        tries.append(1)
        raise OSError("no space left")

    live = Refresh(build)
    for _ in range(3):
        clock[0] += refresh.FIRST_SECONDS
        live.tick()
    assert len(tries) == 3
    assert "tables were not refreshed: no space left" in caplog.text


def test_beside_others_work_it_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "FIRST_SECONDS", 0.0)
    built = threading.Event()
    before = threading.active_count()
    with Refresh(built.set).beside():
        assert built.wait(10.0)
    assert threading.active_count() == before


def test_status_is_watched_until_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(status.time, "sleep", slept.append)
    looks: list[list[dict[str, Any]]] = [[{"running": {"pid": 1}}], [{"running": {"pid": 1}}], [{"running": None}]]
    seen = list(status.watched(iter(looks).__next__, True))
    assert seen == [[{"running": {"pid": 1}}], [{"running": {"pid": 1}}], [{"running": None}]]
    assert slept == [status.WATCH_SECONDS] * 2
    assert len(list(status.watched(lambda: [{"running": {"pid": 1}}], False))) == 1
