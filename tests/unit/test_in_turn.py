"""Two commands timed in turn."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.in_turn import Pair, in_turn, measured


def test_neither_goes_first_more_often() -> None:
    order: list[str] = []

    def taking(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    pair = in_turn(lambda: taking("a", 2.0), lambda: taking("b", 1.0), 4)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert pair.ratios == (0.5,) * 4
    assert pair.ratio() == pytest.approx((0.5, 0.5, 0.5))


def test_the_interval_holds_the_ratio_as_often_as_it_says() -> None:
    """Also on a machine that grows slower, which both commands feel alike; unpaired times would not tell."""
    rng, held, true, trials = np.random.default_rng(0), 0, 0.8, 1000
    for _ in range(trials):
        speed = np.exp(np.cumsum(rng.normal(0.1, 0.2, 7)))
        first, second = speed * np.exp(rng.normal(0, 0.05, 7)), true * speed * np.exp(rng.normal(0, 0.05, 7))
        _, low, high = Pair(tuple(first), tuple(second)).ratio()
        held += low <= true <= high
    assert held / trials == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / trials))


def test_a_number_is_read_from_what_a_command_prints() -> None:
    assert measured("echo seconds 1.5", r"seconds ([0-9.]+)") == 1.5
    assert measured("sleep 0.2", None) >= 0.2


@pytest.mark.parametrize(
    "command, pattern, said",
    [("exit 3", None, "ended with 3"), ("echo nothing", r"seconds ([0-9.]+)", "printed nothing that matches")],
)
def test_a_command_without_a_number_ends_it(command: str, pattern: str | None, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        measured(command, pattern)


def test_the_command_names_the_machine() -> None:
    words = [sys.executable, "-m", "benchmarks.in_turn", "--rounds", "3", "--json", "sleep 0.01", "sleep 0.03"]
    root = Path(__file__).parents[2]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=root, check=True)
    facts = json.loads(ran.stdout)
    assert len(facts["first"]) == len(facts["second"]) == 3
    assert facts["machine"]["instructions"] in ("DEFAULT", "AVX2", "AVX512")
    low, high = facts["interval"]
    assert low < facts["ratio"] < high
