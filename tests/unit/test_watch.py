"""What waiting jobs wait for is said once, and waiting ends where nothing will come of it."""

from __future__ import annotations

import pytest

from ddray.run.ledger import Ledger, Node
from ddray.run.watch import TELL_SECONDS, Waiting, Watch, asked

CPU, GPU = (1.0, 0.0), (1.0, 0.25)
HEAD = Node("0", 0.0, 0, "head")
SMALL = Node("1", 2.0, 0, "small")
CARD = Node("2", 4.0, 1, "card")


def waiting(shape: tuple[float, float], seconds: float = TELL_SECONDS + 1, label: str = "dm") -> Waiting:
    return Waiting(label, shape, seconds)


def test_what_a_job_waits_for_is_said_once_a_shape() -> None:
    said: list[str] = []
    watch = Watch(said.append, gpus_expected=2)
    jobs = [waiting(GPU), waiting(GPU, TELL_SECONDS + 30), waiting(CPU, seconds=3)]
    for _ in range(3):
        watch.tell(jobs, Ledger([SMALL]), lambda: "nothing")
    (text,) = said
    assert text == (
        "dm and 1 more have waited 1 min 30 s for a node with 1 CPU and 0.25 GPU; the cluster has small: 2 CPUs and 0 "
        "GPUs (0 of 2 expected GPUs)."
    )
    watch.tell([], Ledger([SMALL]), lambda: "nothing")
    watch.tell(jobs, Ledger([SMALL]), lambda: "nothing")
    assert len(said) == 2, "it had begun meanwhile"


def test_a_job_that_a_busy_cluster_keeps_waiting() -> None:
    said: list[str] = []
    Watch(said.append).tell([waiting(GPU)], Ledger([CARD]), lambda: "3 CPUs and 0 GPUs")
    assert "has waited 1 min 1 s for 1 CPU and 0.25 GPU" in said[0]
    assert "free by Ray's own books: 3 CPUs and 0 GPUs" in said[0]


@pytest.mark.parametrize("nodes", [[], [HEAD], [SMALL]])
def test_patience_ends_where_no_node_can_ever_take_what_is_left(nodes: list[Node]) -> None:
    watch, ledger = Watch(print, patience=60), Ledger(nodes)
    assert watch.given_up({GPU}, ledger, {}, 100.0) == ""
    assert watch.given_up({GPU}, ledger, {}, 159.0) == ""
    problem = watch.given_up({GPU}, ledger, {}, 160.0)
    assert problem.startswith("no node came in 1 min 0 s that has 1 CPU and 0.25 GPU; the cluster has ")
    assert "--wait-for-nodes" in problem


def test_patience_begins_anew_whenever_something_may_go_on() -> None:
    watch = Watch(print, patience=60)
    assert watch.given_up({GPU}, Ledger([SMALL]), {}, 0.0) == ""
    assert watch.given_up({GPU, CPU}, Ledger([SMALL]), {}, 59.0) == "", "the other shape may"
    assert watch.given_up({GPU}, Ledger([SMALL]), {}, 61.0) == ""
    assert watch.given_up((), Ledger([SMALL]), {}, 1000.0) == "", "something runs"
    assert watch.given_up({GPU}, Ledger([SMALL]), {}, 1001.0) == ""
    assert watch.given_up({GPU}, Ledger([CARD]), {}, 2000.0) == ""


def test_nobody_waits_when_all_nodes_were_refused() -> None:
    watch = Watch(print)
    refused = {"1": "It has another ddray.", "2": "It has another ddray."}
    assert watch.given_up({CPU}, Ledger([SMALL]), refused, 0.0) == ""
    problem = watch.given_up({CPU}, Ledger(), refused, 1.0)
    assert problem.startswith("no node may take jobs. It has another ddray. Run")


def test_shapes_in_words() -> None:
    assert [asked(shape) for shape in (CPU, (2.0, 0.0), (1.0, 1.0))] == ["1 CPU", "2 CPUs", "1 CPU and 1 GPU"]
