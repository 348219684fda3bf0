"""Intervals hold what they are about in the cases that used to fail: a part of ``benchmarks.coverage``, small."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.coverage import Case, cases, measure

LEAST = 0.93
TESTED = (
    "3 targets, leaks apart by 0.3, 400 images",
    "3 targets, leaks apart by 0.8, 400 images",
    "6 targets, leaks apart by 0.8, 400 images",
    "1 target, 400 members, 10,000 others",
    "3 targets, leaks apart by 0.5, 1,000 members, 1,000 others",
    "5 draws of each ipc, 3 sets that scatter 1.5 times as much",
    "5 draws of each ipc, 2 sets that scatter 1 times as much",
)
NOT_PRINTED = (
    "2 targets, leaks apart by 0.3, 400 images",
    "1 target, 400 members, 400 others",
)


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.situation in TESTED], ids="{0.interval}, {0.situation}".format
)
def test_intervals_hold(case: Case) -> None:
    found = measure(case, 60)
    assert found.printed >= 0.9 * found.trials
    assert stats.binomtest(found.held, found.printed, LEAST, alternative="less").pvalue > 1e-3, found


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.situation in NOT_PRINTED], ids="{0.situation}".format
)
def test_what_would_not_hold_is_not_printed(case: Case) -> None:
    assert measure(case, 5).printed == 0
