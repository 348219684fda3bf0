"""Which GPUs and CPUs are free, by our own books: what the searcher may admit.

Ray keeps its own books and has the last word, also on which node a job comes to lie; ours exist so that what we release
can start at once, instead of waiting in Ray's queue in an order nobody chose. They follow the cluster: nodes that join
are filled, nodes that are gone take with them what was booked there, and a job is booked where its worker says it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ddray.plan.jobs import Shape

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


@dataclass(slots=True)
class _Free:
    """What is left of a node."""

    cpus: float
    gpus: list[float]
    """Of each card."""

    def fullest(self, share: float) -> int | None:
        """The card that fits the share and has least left beside."""
        fitting = [(free, card) for card, free in enumerate(self.gpus) if free + _SLACK >= share]
        return min(fitting)[1] if fitting else None


class Ledger:
    """Free resources of a cluster."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: dict[str, Node] = {}
        """By id."""
        self.taken: dict[str, Slot] = {}
        """By job."""
        self._free: dict[str, _Free] = {}
        self.follow(nodes)

    def follow(self, nodes: Iterable[Node]) -> None:
        """These are the nodes now. What was booked on others is gone with them."""
        self.nodes = {node.id: node for node in nodes}
        self._free = {node.id: _Free(node.cpus, [1.0] * node.gpus) for node in self.nodes.values()}
        booked, self.taken = self.taken, {}
        for name, slot in booked.items():
            if slot.node in self.nodes and (slot.gpu is None or slot.gpu < self.nodes[slot.node].gpus):
                self.take(name, slot)

    def fit(self, shape: Shape) -> Slot | None:
        """Where a request fits now: on the fullest GPU that still fits, so that whole cards stay whole, and without
        a GPU on a node that has none, if it can be."""
        cpus, share = shape
        best: tuple[float, Slot] | None = None
        for node, free in self._free.items():
            if free.cpus + _SLACK < cpus:
                continue
            if share <= 0:
                rank, slot = float(len(free.gpus)), Slot(node, None, cpus, 0.0)
            elif (card := free.fullest(share)) is not None:
                rank, slot = free.gpus[card], Slot(node, card, cpus, share)
            else:
                continue
            if best is None or rank < best[0]:
                best = (rank, slot)
        return best[1] if best is not None else None

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
        self.take(name, Slot(node, card, cpus, share))

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
