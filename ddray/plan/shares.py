"""The share of a card that is enough for what a stage holds in its memory."""

from __future__ import annotations

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""That jobs ask for: powers of two pack without fragments."""
LEAST = 1 / 8
"""Where nothing is known of how many jobs a card takes to advantage."""
REFERENCE_GIB = 32.0
"""Of the card that a plan is made for before it is known which there is (V100 class)."""
CONTEXT_MIB = 800.0
"""What driver and libraries take of a card for each process, beside what its allocator sees: 762 on an H100 with CUDA
13 (``make bench-gpu``, docs/benchmarks/)."""
SLACK = 1.2
"""Times what is held: workspaces of kernels. On an H100 steps allocated 0.8 to 1.18 times what was estimated."""


def room_for(held_mib: float) -> float:
    """MiB of a card that a process takes which holds so much."""
    return CONTEXT_MIB + SLACK * held_mib


def share_of(held_mib: float, card_gib: float = REFERENCE_GIB, least: float = LEAST) -> float:
    """The smallest share that is enough; the whole card where none is.

    Args:
        held_mib: By tensors, at a stage's fullest; 0: it takes no card.
        card_gib: Of the card.
        least: Smaller shares are not given.
    """
    if held_mib == 0:
        return 0.0
    wanted = max(least, room_for(held_mib) / (1024 * card_gib))
    return next((share for share in SHARES if share >= wanted), 1.0)
