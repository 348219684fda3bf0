"""Every random number comes from here: a seed derived from names and numbers, never from a clock or global state."""

from __future__ import annotations

import hashlib
import json

import torch


def derive(*parts: int | str) -> int:
    """A seed in [0, 2**63) from what it is for, e.g. ``derive("initial", distill_seed, class_id)``.

    Unlike adding offsets to a base seed, distinct purposes can never collide or overlap.
    """
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded for one purpose. Draw on the CPU and move, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(derive(*parts))
