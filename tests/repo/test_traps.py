"""CONTRIBUTING.md names tests that catch known mistakes of evaluations: they are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAPS = 28


class Row(NamedTuple):
    """A line of the table."""

    number: int
    tests: list[tuple[str, str]]


def rows() -> list[Row]:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.partition("### Mistakes that evaluations invite")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (\d+) \|[^|]+\|([^|]+)\|$", table, re.MULTILINE)
    return [Row(int(number), re.findall(r"`([\w/]+\.py)::(\w+)`", tests)) for number, tests in lines]


def is_there(file: str, name: str) -> bool:
    path = ROOT / "tests" / file
    return path.is_file() and re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_every_mistake_has_its_line() -> None:
    assert [row.number for row in rows()] == list(range(1, TRAPS + 1))


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row.number))
def test_every_named_test_exists(row: Row) -> None:
    assert row.tests
    missing = [f"{file}::{name}" for file, name in row.tests if not is_there(file, name)]
    assert not missing, f"CONTRIBUTING.md names tests that are not there: {missing}"


def test_a_test_that_is_not_there_is_noticed() -> None:
    file, name = rows()[0].tests[0]
    assert is_there(file, name)
    assert not is_there(file, f"{name}_either")
    assert not is_there("unit/test_nothing.py", name)
