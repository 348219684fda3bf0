"""The ledger: never more than there is, everything given back, whole cards kept whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.plan.kinds import SHARES
from ddray.run.ledger import Ledger, Node, nodes_of

NODES = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), min_size=1, max_size=3)
REQUESTS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, *SHARES, 0.3])), min_size=1, max_size=40)


def ledger(nodes: list[tuple[int, int]]) -> Ledger:
    return Ledger(Node(float(cpus), [1.0] * gpus) for cpus, gpus in nodes)


@given(nodes=NODES, requests=REQUESTS)
def test_never_more_than_there_is_and_all_of_it_back(
    nodes: list[tuple[int, int]], requests: list[tuple[int, float]]
) -> None:
    books = ledger(nodes)
    totals = [Node(float(cpus), [1.0] * gpus) for cpus, gpus in nodes]
    held: dict[str, tuple[int, int | None, int, float]] = {}
    for number, (cpus, share) in enumerate(requests):
        slot = books.fit(cpus, share)
        if slot is None:
            assert books.never_fits(cpus, share, totals) or held, "an empty cluster takes whatever it can ever hold"
            if held:
                name = sorted(held)[number % len(held)]
                books.release(name)
                del held[name]
            continue
        assert not books.never_fits(cpus, share, totals)
        assert (slot.gpu is None) == (share == 0)
        books.take(str(number), slot)
        held[str(number)] = (slot.node, slot.gpu, cpus, share)
        for index, (all_cpus, gpus) in enumerate(nodes):
            assert sum(c for n, _, c, _ in held.values() if n == index) <= all_cpus
            for card in range(gpus):
                assert sum(s for n, g, _, s in held.values() if (n, g) == (index, card)) <= 1 + 1e-6
    for name in held:
        books.release(name)
    assert [(node.cpus, len(node.gpus)) for node in books.nodes] == nodes
    assert all(free == pytest.approx(1.0) for node in books.nodes for free in node.gpus)
    assert not books.taken


def test_the_fullest_card_that_still_fits() -> None:
    """Two halves go together, so that a whole card stays free for whoever needs one."""
    books = ledger([(8, 2)])
    for name in ("one", "two"):
        slot = books.fit(1, 0.5)
        assert slot is not None
        books.take(name, slot)
    assert sorted(books.nodes[0].gpus) == [0.0, 1.0]
    whole = books.fit(1, 1.0)
    assert whole is not None
    books.take("whole", whole)
    assert books.fit(1, 0.125) is None
    assert books.fit(1, 0.0) is not None, "work without a GPU goes on"


def test_eighths_fill_a_card_exactly() -> None:
    books = ledger([(20, 1)])
    for number in range(8):
        slot = books.fit(1, 1 / 8)
        assert slot is not None
        books.take(str(number), slot)
    assert books.fit(1, 1 / 8) is None


def test_thirds_are_not_lost_to_rounding() -> None:
    books = ledger([(20, 1)])
    for number in range(3):
        slot = books.fit(1, 1 / 3)
        assert slot is not None
        books.take(str(number), slot)
    for number in range(3):
        books.release(str(number))
    assert books.fit(1, 1.0) is not None


def test_cpus_and_gpu_must_be_on_one_machine() -> None:
    books = ledger([(8, 0), (1, 1)])
    assert books.fit(2, 0.5) is None
    assert books.never_fits(2, 0.5, books.nodes)
    assert not books.never_fits(1, 0.5, books.nodes)
    assert books.never_fits(9, 0, books.nodes)
    slot = books.fit(1, 0.5)
    assert slot is not None
    assert slot.node == 1


def test_releasing_what_nobody_holds_changes_nothing() -> None:
    books = ledger([(2, 1)])
    books.release("nobody")
    assert books.nodes == [Node(2.0, [1.0])]


def test_nodes_of_ray_s_resource_maps() -> None:
    maps = [{"CPU": 4.0, "GPU": 2.0, "memory": 1e9, "node:10.0.0.1": 1.0}, {"CPU": 1.0}, {"memory": 1.0}]
    assert nodes_of(maps) == [Node(4.0, [1.0, 1.0]), Node(1.0, []), Node(0.0, [])]
