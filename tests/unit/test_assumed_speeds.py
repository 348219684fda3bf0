"""What is assumed of cards agrees with what was measured on one, within the factor that bills state."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pages import ROOT

from ddray.plan.shares import CONTEXT_MIB, LEAST, SLACK
from ddray.price.devices import card_named
from ddray.price.estimates import FACTORS

RECORD: dict[str, Any] = json.loads((ROOT / "docs" / "benchmarks" / "card_h100-80g_2026-11-27.json").read_text())
CARD = card_named(RECORD["machine"]["card"])


def test_the_record_is_of_a_card_that_is_known_by_name() -> None:
    assert CARD.name == "h100-80g"


@pytest.mark.parametrize(
    "row", [row for row in RECORD["packing"] if row["processes"] == 1 / LEAST], ids=lambda row: f"{row['name']}"
)
def test_jobs_with_the_least_share_are_as_fast_as_assumed(row: dict[str, Any]) -> None:
    measured = row["gflop_per_second"] * LEAST
    assert 1 / FACTORS["assumed"] < measured / CARD.speed(LEAST) < FACTORS["assumed"]


def test_a_job_alone_is_as_fast_as_assumed() -> None:
    """All but MTT's step with one image per class, whose kernels are too small for a card."""
    speeds = {row["name"]: row["gflop_per_second"] for row in RECORD["steps"]}
    assert speeds.pop("mtt_ipc1") < CARD.speed(1.0) / FACTORS["assumed"]
    assert len(speeds) == 6
    for speed in speeds.values():
        assert 1 / FACTORS["assumed"] < speed / CARD.speed(1.0) < FACTORS["assumed"]


def test_shares_have_room_for_what_was_held() -> None:
    (found,) = RECORD["context"]
    assert found["process_mib"] <= CONTEXT_MIB
    rows = {row["name"]: row for row in RECORD["steps"]}
    rows.pop("mtt_ipc10")  # it kept all graphs, because it had the card to itself
    for row in rows.values():
        assert row["allocated_mib"] <= SLACK * row["estimated_mib"], row["name"]
