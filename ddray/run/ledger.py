"""Which GPUs and CPUs are free, by our own books: what the searcher may admit.

Ray keeps its own books and has the last word; ours exist so that what we release can start at once, instead of
waiting in Ray's queue in an order nobody chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SLACK = 1e-6


@dataclass(slots=True)
class Node:
    """One machine: free CPUs, and the free share of each of its GPUs."""

    cpus: float
    gpus: list[float]


@dataclass(frozen=True, slots=True)
class Slot:
    """What a job has taken of a node."""

    node: int
    gpu: int | None
    cpus: float
    share: float


class Ledger:
    """Free resources of a cluster."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = list(nodes)
        self.taken: dict[str, Slot] = {}

    def fit(self, cpus: float, share: float) -> Slot | None:
        """Where a request fits now: on the fullest GPU that still fits first, so that whole cards stay whole."""
        best: tuple[float, Slot] | None = None
        for number, node in enumerate(self.nodes):
            if node.cpus + _SLACK < cpus:
                continue
            if share <= 0:
                return Slot(number, None, cpus, 0.0)
            for card, free in enumerate(node.gpus):
                if free + _SLACK >= share and (best is None or free < best[0]):
                    best = (free, Slot(number, card, cpus, share))
        return best[1] if best is not None else None

    def take(self, name: str, slot: Slot) -> None:
        """Book a slot."""
        node = self.nodes[slot.node]
        node.cpus -= slot.cpus
        if slot.gpu is not None:
            node.gpus[slot.gpu] -= slot.share
        self.taken[name] = slot

    def release(self, name: str) -> None:
        """Give back what a job had."""
        slot = self.taken.pop(name, None)
        if slot is not None:
            node = self.nodes[slot.node]
            node.cpus += slot.cpus
            if slot.gpu is not None:
                node.gpus[slot.gpu] += slot.share

    @staticmethod
    def never_fits(cpus: float, share: float, totals: Iterable[Node]) -> bool:
        """Whether no node could hold the request even when empty."""
        return not any(
            node.cpus + _SLACK >= cpus and (share <= 0 or max(node.gpus, default=0.0) + _SLACK >= share)
            for node in totals
        )


def nodes_of(resources: Iterable[Mapping[str, float]]) -> list[Node]:
    """Nodes from Ray's resource maps (``CPU``, ``GPU``)."""
    return [Node(float(entry.get("CPU", 0.0)), [1.0] * int(entry.get("GPU", 0))) for entry in resources]
