"""Checkpoints: the furthest usable one is found, snapshots stay, ordinary ones make room, damage costs one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.store.artifacts import Store
from ddray.store.checkpoints import Checkpoints

LINEAGE = "ef" * 32


@pytest.fixture
def view(location: str, tmp_path: Path) -> Callable[..., Checkpoints]:
    return lambda node="here": Store(location, tmp_path / node).checkpoints(LINEAGE)


def save(checkpoints: Checkpoints, iteration: int, *, snapshot: bool = False, content: bytes | None = None) -> None:
    with checkpoints.writing(iteration, snapshot=snapshot) as folder:
        (folder / "state").write_bytes(content if content is not None else str(iteration).encode())


def state(found: tuple[int, Path] | None) -> tuple[int, bytes] | None:
    return None if found is None else (found[0], (found[1] / "state").read_bytes())


def test_the_furthest_not_beyond_the_budget(view: Callable[..., Checkpoints]) -> None:
    checkpoints = view()
    assert checkpoints.furthest(10**9) is None
    for iteration in (100, 200, 500):
        save(checkpoints, iteration, snapshot=True)
    for node in ("here", "elsewhere"):
        other = view(node)
        assert state(other.furthest(10**9)) == (500, b"500")
        assert state(other.furthest(500)) == (500, b"500")
        assert state(other.furthest(499)) == (200, b"200")
        assert other.furthest(99) is None


def test_snapshots_stay_and_of_the_others_the_newest(view: Callable[..., Checkpoints]) -> None:
    checkpoints = view()
    for iteration, snapshot in ((60, False), (100, True), (130, False), (170, False), (200, True), (250, False)):
        save(checkpoints, iteration, snapshot=snapshot)
    assert checkpoints.done() == [100, 200, 250]


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=12))
def test_any_history_keeps_all_snapshots_and_the_latest(history: list[tuple[int, bool]]) -> None:
    checkpoints = Store(f"memory://{uuid.uuid4().hex}", Path("nowhere")).checkpoints(LINEAGE)
    for iteration, snapshot in history:
        save(checkpoints, iteration, snapshot=snapshot)
    done = checkpoints.done()
    assert done == sorted(set(done))
    assert {iteration for iteration, snapshot in history if snapshot} <= set(done)
    if history:
        assert history[-1][0] in done
    assert set(done) <= {iteration for iteration, _ in history}


def test_an_ordinary_checkpoint_becomes_a_snapshot_where_one_is_wanted(view: Callable[..., Checkpoints]) -> None:
    """The stop came exactly at a snapshot of another budget, or the end of this one."""
    checkpoints = view()
    save(checkpoints, 30)
    save(checkpoints, 30, snapshot=True)
    save(checkpoints, 40)
    assert checkpoints.done() == [30, 40]
    save(checkpoints, 50)
    assert checkpoints.done() == [30, 50]
    assert state(checkpoints.furthest(30)) == (30, b"30")


def test_a_body_that_fails_leaves_the_old_one(view: Callable[..., Checkpoints]) -> None:
    checkpoints = view()
    save(checkpoints, 10)
    with pytest.raises(OSError, match="full"):
        _fail(checkpoints)
    assert checkpoints.done() == [10]


def _fail(checkpoints: Checkpoints) -> None:
    with checkpoints.writing(20, snapshot=False) as folder:
        (folder / "state").write_bytes(b"ha")
        raise OSError("disk full")


@pytest.mark.parametrize("damage", ["content", "file", "meta", "no meta"])
def test_damage_costs_one_checkpoint(view: Callable[..., Checkpoints], damage: str) -> None:
    checkpoints = view()
    save(checkpoints, 100, snapshot=True)
    save(checkpoints, 200, snapshot=True)
    at = f"{checkpoints.folder}/000000200"
    if damage == "content":
        checkpoints.files.write(f"{at}/state", b"2oo")
    elif damage == "file":
        checkpoints.files.remove(f"{at}/state")
    elif damage == "meta":
        checkpoints.files.write(f"{at}/checkpoint.json", b"{")
    else:
        checkpoints.files.remove(f"{at}/checkpoint.json")
    assert state(checkpoints.furthest(10**9)) == (100, b"100")
    assert checkpoints.done() == [100], "what cannot be used is removed"
    save(checkpoints, 200, snapshot=True)
    assert state(view("elsewhere").furthest(10**9)) == (200, b"200")


def test_a_copy_older_than_the_checkpoint_is_fetched_again(tmp_path: Path) -> None:
    """An ordinary checkpoint was removed and written anew by a machine with other numerics."""
    place = f"memory://{uuid.uuid4().hex}"
    here, there = (Store(place, tmp_path / node).checkpoints(LINEAGE) for node in ("here", "there"))
    save(here, 10, content=b"one")
    assert state(here.furthest(10)) == (10, b"one")
    there.remove()
    save(there, 10, content=b"two")
    assert state(here.furthest(10)) == (10, b"two")
    assert here.done() == [10]


def test_remove_forgets_the_lineage_alone(view: Callable[..., Checkpoints]) -> None:
    checkpoints = view()
    other = Checkpoints(checkpoints.files, "ef" + "0" * 62)
    save(checkpoints, 1)
    save(other, 2)
    checkpoints.remove()
    assert checkpoints.done() == []
    assert other.done() == [2]
