"""The ledger: never more than there is, everything given back, whole cards kept whole, and no ghosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.plan.shares import SHARES
from ddray.run.ledger import Ledger, Node, Slot

SIZES = st.tuples(st.integers(0, 8), st.integers(0, 3))
"""CPUs and GPUs of a node."""
SHAPES = st.tuples(st.integers(1, 4).map(float), st.sampled_from([0.0, *SHARES, 0.3]))


def node(name: str, cpus: float, gpus: int = 0) -> Node:
    return Node(name, float(cpus), gpus)


def books(*sizes: tuple[float, int]) -> Ledger:
    return Ledger(node(str(number), *size) for number, size in enumerate(sizes))


def take(ledger: Ledger, name: str, cpus: float, share: float) -> Slot:
    slot = ledger.fit((cpus, share))
    assert slot is not None
    ledger.take(name, slot)
    return slot


def used(ledger: Ledger, of: Node) -> tuple[float, list[float]]:
    """CPUs and shares of each card that are booked on a node."""
    slots = [slot for slot in ledger.taken.values() if slot.node == of.id]
    return sum(slot.cpus for slot in slots), [
        sum(slot.share for slot in slots if slot.gpu == card) for card in range(of.gpus)
    ]


# What may happen to a cluster: a node joins, one dies, a job asks, one ends.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("joins"), SIZES),
        st.tuples(st.just("dies"), st.integers(0, 99)),
        st.tuples(st.just("asks"), SHAPES),
        st.tuples(st.just("ends"), st.integers(0, 99)),
    ),
    max_size=60,
)


@given(events=EVENTS)
def test_never_more_than_there_is_whatever_happens(events: list[tuple[str, object]]) -> None:
    ledger = Ledger()
    nodes: list[Node] = []
    released: list[str] = []
    for number, (event, what) in enumerate(events):
        if event == "joins":
            nodes.append(node(f"n{number}", *what))  # type: ignore[misc]
            ledger.follow(nodes)
        elif event == "dies" and nodes:
            dead = nodes.pop(what % len(nodes))  # type: ignore[operator]
            ledger.follow(nodes)
            assert all(slot.node != dead.id for slot in ledger.taken.values()), "no ghost"
        elif event == "asks":
            slot = ledger.fit(what)  # type: ignore[arg-type]
            if slot is not None:
                assert ledger.ever_fits(what)  # type: ignore[arg-type]
                assert (slot.gpu is None) == (what[1] == 0)  # type: ignore[index]
                ledger.take(f"j{number}", slot)
                released.append(f"j{number}")
            else:
                assert not ledger.ever_fits(what) or ledger.taken, "an empty cluster takes whatever it can ever hold"  # type: ignore[arg-type]
        elif event == "ends" and released:
            ledger.release(released.pop(what % len(released)))  # type: ignore[operator]
        for each in nodes:
            cpus, cards = used(ledger, each)
            assert cpus <= each.cpus
            assert all(share <= 1 + 1e-6 for share in cards)
        assert ledger.taken.keys() <= set(released)
        assert ledger.gpus == sum(each.gpus for each in nodes)
    for name in released:
        ledger.release(name)
    assert not ledger.taken
    for each in nodes:
        if each.cpus:
            assert ledger.fit((each.cpus, 1.0 if each.gpus else 0.0)) is not None, "all of it is back"


@given(size=SIZES, shapes=st.lists(SHAPES, max_size=20), others=st.lists(SIZES, max_size=3))
def test_what_workers_say_settles_where_jobs_are(
    size: tuple[int, int], shapes: list[tuple[float, float]], others: list[tuple[int, int]]
) -> None:
    """Ray places jobs as it likes, within what a node has: once all have said where they are, the books are Ray's."""
    target = node("target", *size)
    real = Ledger([target])
    ours = Ledger([*(node(f"n{number}", *other) for number, other in enumerate(others)), target])
    for number, shape in enumerate(shapes):
        slot = real.fit(shape)
        guess = ours.fit(shape)
        if slot is None or guess is None:
            continue
        real.take(f"j{number}", slot)
        ours.take(f"j{number}", guess)
    held = {name: (slot.cpus, slot.share) for name, slot in real.taken.items()}
    for name, shape in held.items():
        ours.place(name, "target", shape)
        ours.place(name, "a node that is gone", shape)
    assert {name: slot.node for name, slot in ours.taken.items()} == dict.fromkeys(held, "target")
    assert used(ours, target)[0] == used(real, target)[0] <= target.cpus
    assert sum(used(ours, target)[1]) == pytest.approx(sum(used(real, target)[1]))
    for number, other in enumerate(others):
        assert used(ours, node(f"n{number}", *other)) == (0, [0.0] * other[1])


def test_a_node_that_joins_is_filled_like_the_others() -> None:
    ledger = books((2, 0))
    for name in "ab":
        take(ledger, name, 1, 0)
    assert ledger.fit((1, 0)) is None
    ledger.follow([node("0", 2), node("new", 8, 1)])
    assert [take(ledger, name, 1, 1 / 8).node for name in "cdefghij"] == ["new"] * 8
    assert ledger.fit((1, 0)) is None


def test_a_job_is_placed_on_a_card_even_where_others_were_thought_to_be() -> None:
    ledger = books((4, 1), (4, 2))
    take(ledger, "thought", 1, 1.0)
    ledger.place("there", "0", (1.0, 0.5))
    assert ledger.taken["there"].node == "0"
    assert take(ledger, "next", 1, 0.5).node == "1", "nothing more goes to the crowded one"
    ledger.place("no card there", "0", (1.0, 0.25))
    ledger.follow([node("0", 4, 0), node("1", 4, 2)])
    assert ledger.taken.keys() == {"next"}, "a card that is gone took its jobs with it"
    ledger.place("there", "0", (1.0, 0.5))
    assert "there" not in ledger.taken


def test_work_without_a_gpu_goes_where_there_is_none() -> None:
    ledger = books((8, 2), (2, 0))
    assert [take(ledger, name, 1, 0).node for name in "abc"] == ["1", "1", "0"]


def test_the_fullest_card_that_still_fits() -> None:
    """Two halves go together, so that a whole card stays free for whoever needs one."""
    ledger = books((8, 2))
    assert take(ledger, "one", 1, 0.5).gpu == take(ledger, "two", 1, 0.5).gpu
    take(ledger, "whole", 1, 1.0)
    assert ledger.fit((1, 0.125)) is None
    assert ledger.fit((1, 0.0)) is not None, "work without a GPU goes on"


def test_eighths_fill_a_card_exactly() -> None:
    ledger = books((20, 1))
    for number in range(8):
        take(ledger, str(number), 1, 1 / 8)
    assert ledger.fit((1, 1 / 8)) is None


def test_thirds_are_not_lost_to_rounding() -> None:
    ledger = books((20, 1))
    for number in range(3):
        take(ledger, str(number), 1, 1 / 3)
    for number in range(3):
        ledger.release(str(number))
    assert ledger.fit((1, 1.0)) is not None


def test_cpus_and_gpu_must_be_on_one_machine() -> None:
    ledger = books((8, 0), (1, 1))
    assert ledger.fit((2, 0.5)) is None
    assert not ledger.ever_fits((2, 0.5))
    assert ledger.ever_fits((1, 0.5))
    assert not ledger.ever_fits((9, 0))
    assert take(ledger, "a", 1, 0.5).node == "1"


def test_releasing_what_nobody_holds_changes_nothing() -> None:
    ledger = books((2, 1))
    ledger.release("nobody")
    assert not ledger.taken
    assert ledger.fit((2, 1.0)) is not None
