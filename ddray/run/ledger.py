"""Which GPUs and CPUs are free, by our own books: what the searcher may admit.

Ray keeps its own books and has the last word, also on which node a job comes to lie; ours exist so that what we release
can start at once, instead of waiting in Ray's queue in an order nobody chose. They follow the cluster: nodes that join
are filled, nodes that are gone take with them what was booked there, and a job is booked where its worker says it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ddray.plan.jobs import Job, Shape
from ddray.run.schedule import Schedule

_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: what it has."""

    id: str
    cpus: float
    gpus: int
    name: str = ""
    """For people."""

    def holds(self, shape: Shape) -> bool:
        """Whether the machine could take the request when empty."""
        cpus, share = shape
        return self.cpus + _SLACK >= cpus and (share <= 0 or self.gpus > 0)

    def __str__(self) -> str:
        return f"{self.name or self.id[:8]}: {self.cpus:g} CPUs and {self.gpus} GPUs"


@dataclass(frozen=True, slots=True)
class Slot:
    """What a job has taken of a node."""

    node: str
    gpu: int | None
    cpus: float
    share: float
    ends: float = 0.0
    """When the job is expected to have ended; 0: nobody knows."""


@dataclass(slots=True)
class _Free:
    """What is left of a node."""

    cpus: float
    gpus: list[float]
    """Of each card."""

    def fullest(self, share: float, but: int | None = None) -> int | None:
        """The card that fits the share and has least left beside, of all but one."""
        fitting = [(free, card) for card, free in enumerate(self.gpus) if free + _SLACK >= share and card != but]
        return min(fitting)[1] if fitting else None


class Ledger:
    """Free resources of a cluster."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: dict[str, Node] = {}
        """By id."""
        self.taken: dict[str, Slot] = {}
        """By job."""
        self._free: dict[str, _Free] = {}
        self.kept: tuple[Shape, str, int | None] | None = None
        """A shape, and the node and card (None: the whole node) that are kept from other shapes until it fits there."""
        self.follow(nodes)

    def follow(self, nodes: Iterable[Node]) -> None:
        """These are the nodes now. What was booked on others is gone with them."""
        self.nodes = {node.id: node for node in nodes}
        self._free = {node.id: _Free(node.cpus, [1.0] * node.gpus) for node in self.nodes.values()}
        self.kept = None
        booked, self.taken = self.taken, {}
        for name, slot in booked.items():
            if slot.node in self.nodes and (slot.gpu is None or slot.gpu < self.nodes[slot.node].gpus):
                self.take(name, slot)

    def fit(self, shape: Shape, ends: float = math.inf) -> Slot | None:
        """Where a request fits now: on the fullest GPU that still fits, so that whole cards stay whole, and without
        a GPU on a node that has none, if it can be.

        Args:
            shape: What is asked for.
            ends: When it will have ended. A place that is kept takes it if it makes nobody wait there: if it ends
                before what runs there lets in the shape that the place is kept for.
        """
        cpus, share = shape
        kept: tuple[str | None, int | None] = (None, None)
        if self.kept is not None and self.kept[0] != shape and ends > self._lets_in(*self.kept):
            kept = self.kept[1:]
        best: tuple[float, Slot] | None = None
        for node, free in self._free.items():
            if free.cpus + _SLACK < cpus or kept == (node, None):
                continue
            if share <= 0:
                rank, slot = float(len(free.gpus)), Slot(node, None, cpus, 0.0, ends if ends < math.inf else 0.0)
            elif (card := free.fullest(share, kept[1] if node == kept[0] else None)) is not None:
                rank, slot = free.gpus[card], Slot(node, card, cpus, share, ends if ends < math.inf else 0.0)
            else:
                continue
            if best is None or rank < best[0]:
                best = (rank, slot)
        return best[1] if best is not None else None

    def _lets_in(self, shape: Shape, node: str, card: int | None) -> float:
        """When what runs on a node, or on one of its cards, is expected to have left room for a shape."""
        cpus, share = shape
        free, left = self._free[node].cpus, self._free[node].gpus[card] if card is not None else 0.0
        there = [slot for slot in self.taken.values() if slot.node == node]
        time = 0.0
        for slot in sorted(there, key=lambda slot: slot.ends):
            if free + _SLACK >= cpus and left + _SLACK >= share:
                break
            time, free = slot.ends, free + slot.cpus
            left += slot.share if slot.gpu == card else 0.0
        return time

    def keep_room(self, shape: Shape | None) -> None:
        """Let a place run empty for a shape that nothing has room for, or for none: small jobs that follow one another
        would else never leave a card whole. It is the place with most room; it stays the same until the shape fits.

        Args:
            shape: Of the job that comes first.
        """
        if shape is None or self.fit(shape) is not None or not self.ever_fits(shape):
            self.kept = None
        elif self.kept is None or self.kept[0] != shape:
            self.kept = self._emptiest(shape)

    def _emptiest(self, shape: Shape) -> tuple[Shape, str, int | None]:
        holding = [(self._free[node.id], node) for node in self.nodes.values() if node.holds(shape)]
        if shape[1] <= 0:
            _, node = max(holding, key=lambda each: each[0].cpus)
            return shape, node.id, None
        _, node, card = max(
            ((free.gpus[card], node, card) for free, node in holding for card in range(node.gpus)),
            key=lambda each: each[0],
        )
        return shape, node.id, card

    def take(self, name: str, slot: Slot) -> None:
        """Book a slot."""
        self._book(slot, 1)
        self.taken[name] = slot

    def release(self, name: str) -> None:
        """Give back what a job had."""
        slot = self.taken.pop(name, None)
        if slot is not None:
            self._book(slot, -1)

    def place(self, name: str, node: str, shape: Shape) -> None:
        """Book a job where its worker is. What others were thought to have there yields when they are placed."""
        slot = self.taken.get(name)
        if node not in self.nodes or (slot is not None and slot.node == node):
            return
        cpus, share = shape
        free = self._free[node]
        card = None
        if share > 0:
            if not free.gpus:
                return
            card = free.fullest(share)
            if card is None:
                card = max(range(len(free.gpus)), key=free.gpus.__getitem__)
        self.release(name)
        self.take(name, Slot(node, card, cpus, share, slot.ends if slot is not None else 0.0))

    def ever_fits(self, shape: Shape) -> bool:
        """Whether a node could hold the request when empty."""
        return any(node.holds(shape) for node in self.nodes.values())

    @property
    def gpus(self) -> int:
        """How many there are."""
        return sum(node.gpus for node in self.nodes.values())

    def _book(self, slot: Slot, sign: int) -> None:
        free = self._free[slot.node]
        free.cpus -= sign * slot.cpus
        if slot.gpu is not None:
            free.gpus[slot.gpu] -= sign * slot.share


def next_job(
    schedule: Schedule,
    ledger: Ledger,
    use_gpus: bool,
    admissible: Callable[[Job], bool] | None = None,
    rank: Callable[[Job], int] | None = None,
    now: float = 0.0,
) -> Job | None:
    """The job that is to start now, if there is room for one: the rule of every executor that has more than one place.

    Room is kept for the job that comes first among those that the machine can hold.

    Args:
        schedule: What is ready.
        ledger: What is free.
        use_gpus: Whether jobs ask for GPUs.
        admissible: Whether a job may start; None: where the ledger has room.
        rank: As for ``Schedule.take``.
        now: Seconds on the clock that the ledger's ends are by.
    """
    first = next((job for job in schedule.heads() if ledger.ever_fits(job.asks(use_gpus))), None)
    ledger.keep_room(None if first is None else first.asks(use_gpus))
    fits = admissible or (lambda job: ledger.fit(job.asks(use_gpus), now + schedule.seconds(job)) is not None)
    return schedule.take(fits, rank)
