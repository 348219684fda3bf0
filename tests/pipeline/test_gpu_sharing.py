"""Jobs share a card, and never more of it than there is. Logical GPUs on a real Ray: no card is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from workspace import Swept

RESOLUTION = 0.002
"""Seconds; times in manifests are in thousandths."""


@dataclass(frozen=True)
class Held:
    """A share of the card, from start to end in seconds."""

    start: float
    end: float
    share: float


def held(swept: Swept) -> list[Held]:
    """When stages were computed with which share. A job's stages follow one another, so none counts twice."""
    found = []
    for manifest in swept.manifests.values():
        said = manifest.provenance
        start = datetime.fromisoformat(said["started_at"]).timestamp()
        if said["gpu_share"] > 0:
            found.append(Held(start + RESOLUTION, start + said["seconds"] - RESOLUTION, said["gpu_share"]))
    return [entry for entry in found if entry.end > entry.start]


def most(entries: Sequence[Held]) -> tuple[float, int]:
    """The largest sum of shares at any instant, and the largest number of stages at once."""
    together = [[entry for entry in entries if entry.start <= at.start < entry.end] for at in entries]
    return max(sum(entry.share for entry in found) for found in together), max(map(len, together))


@pytest.mark.ray
def test_shares_on_one_card_never_exceed_it_and_do_overlap(on_ray: Swept) -> None:
    entries = held(on_ray)
    assert {entry.share for entry in entries} == {0.25, 0.5}
    share, count = most(entries)
    assert share <= 1
    assert count >= 2, "several at once: that is what shares are for"


@pytest.mark.ray
def test_the_check_can_fail(on_ray: Swept) -> None:
    """Control: the same stages, all begun at once, would not have fitted."""
    entries = held(on_ray)
    first = min(entry.start for entry in entries)
    at_once = [replace(entry, start=first, end=first + entry.end - entry.start) for entry in entries]
    share, _ = most(at_once)
    assert share > 1


def test_overlaps_are_counted_by_hand() -> None:
    entries = [Held(0, 2, 0.5), Held(1, 3, 0.5), Held(2, 4, 0.25), Held(2.5, 2.6, 0.25), Held(9, 10, 1.0)]
    assert most(entries) == (1.0, 3)
    assert most([*entries, Held(2.55, 2.7, 0.125)]) == (1.125, 4)
