"""Claims: one holder while it lives, none once it is dead, and never in the way of correctness."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ddray.store.artifacts import Store
from ddray.store.claims import EXPIRES_SECONDS, HEARTBEAT_SECONDS
from ddray.store.files import LocalFiles, RemoteFiles

KEY = "ab" * 32


@pytest.fixture
def store(location: str, tmp_path: Path) -> Store:
    return Store(location, tmp_path)


def hold(store: Store, **other: Any) -> None:
    """A claim as another process would have left it."""
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time(), "token": "x", **other}
    store.files.write(f"claims/{KEY}.json", json.dumps(holder).encode())


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_holds_it_until_it_lets_go(store: Store) -> None:
    first, second = store.claim(KEY), store.claim(KEY)
    assert first.acquire()
    assert not second.acquire()
    assert store.claim("cd" * 32).acquire(), "another stage is another claim"
    holder = second.holder()
    assert holder is not None
    assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())
    first.release()
    assert second.holder() is None
    assert second.acquire()


def test_only_the_holder_lets_go(store: Store) -> None:
    first, second = store.claim(KEY), store.claim(KEY)
    assert first.acquire()
    second.release()
    assert not second.acquire()
    hold(store)  # somebody took it over meanwhile
    first.release()
    assert store.claim(KEY).holder() is not None


def silent_for(store: Store, seconds: float, patch: pytest.MonkeyPatch) -> None:
    """Let the claim be that old; a server writes its own times, so there the clock that it tells is moved."""
    if isinstance(store.files, LocalFiles):
        path = store.files.root / f"claims/{KEY}.json"
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)
    else:
        ask = RemoteFiles.silence
        patch.setattr(RemoteFiles, "silence", lambda files, path: (ask(files, path) or 0.0) + seconds)


@pytest.mark.parametrize(
    "holder, silent, taken",
    [
        ({}, 0, False),
        ({}, EXPIRES_SECONDS + 5, True),
        ({"pid": -1}, 0, True),  # stands for a process that has ended
        ({"host": "elsewhere", "pid": -1}, 0, False),  # nobody here can know
        ({"host": "elsewhere"}, EXPIRES_SECONDS + 5, True),
        ({"host": "elsewhere", "heartbeat": -3600}, 0, False),  # its clock is behind, and it was written just now
        ({"host": "elsewhere", "heartbeat": +3600}, 0, False),
        ({"host": "elsewhere", "heartbeat": +3600}, EXPIRES_SECONDS + 5, True),  # nobody is waited for for ever
        ({"pid": 1}, 0, False),  # not ours to signal, but it lives
        ({"pid": "x"}, 0, False),
    ],
)
def test_a_claim_counts_while_its_holder_lives(
    store: Store, monkeypatch: pytest.MonkeyPatch, holder: dict[str, Any], silent: float, taken: bool
) -> None:
    if holder.get("pid") == -1:
        holder = {**holder, "pid": dead_process()}
    hold(store, **{**holder, "heartbeat": time.time() + holder.get("heartbeat", 0)})
    silent_for(store, silent, monkeypatch)
    claim = store.claim(KEY)
    said = claim.description()
    assert f"on {holder.get('host', socket.gethostname())}, heard of" in said
    assert claim.acquire() is taken
    assert store.files.names("tmp") == [], "nothing is left of asking what time it is"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b'{"heartbeat": null}'])
def test_an_unreadable_claim_is_none(store: Store, content: bytes) -> None:
    store.files.write(f"claims/{KEY}.json", content)
    assert store.claim(KEY).acquire()


def test_refreshing_keeps_it_alive(store: Store) -> None:
    assert HEARTBEAT_SECONDS * 3 <= EXPIRES_SECONDS, "a beat may be lost"
    claim = store.claim(KEY)
    assert claim.acquire()
    first = claim.holder()
    time.sleep(0.01)
    claim.refresh()
    second = claim.holder()
    assert first is not None
    assert second is not None
    assert second["heartbeat"] > first["heartbeat"]
    assert second["token"] == first["token"]
    claim.release()
    claim.refresh()
    assert claim.holder() is None, "a beat that comes late does not bring it back"


def test_one_of_many_gets_it(store: Store) -> None:
    got: list[bool] = []
    barrier = threading.Barrier(8)

    def acquire() -> None:
        claim = store.claim(KEY)
        barrier.wait()
        got.append(claim.acquire())

    threads = [threading.Thread(target=acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
