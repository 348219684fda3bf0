"""The commands that a report gives for its cells ask for the points of these cells."""

from __future__ import annotations

import json
import shlex
from collections import Counter

import pytest
from goldens import TABLES, Recorded
from workspace import Workspace

from ddray.plan.grid import select
from ddray.plan.keys import short
from ddray.report.html import html_page
from ddray.report.page import Picture
from ddray.report.report import elements_of
from ddray.report.table import Table

WITH_SETTINGS = "stages"
"""A sweep in which settings tell cells apart, which no filter does."""


@pytest.mark.parametrize("recorded", TABLES, ids=lambda recorded: recorded.name)
def test_a_command_asks_for_its_cell(recorded: Recorded, workspace: Workspace) -> None:
    arguments = list(recorded.arguments)
    profiles = tuple(arguments[at + 1] for at, word in enumerate(arguments) if word == "--profile")
    points = [chain.point for chain in workspace.prepare(recorded.yaml, profiles=profiles).plan.chains]
    blocks = json.loads(recorded.path("json").read_text())["report"]["again"]
    cells = [cell for block in blocks for cell in block["cells"]]
    assert Counter(key for cell in cells for key in cell["points"]).keys() == {point.hash for point in points}
    for cell in cells:
        words = shlex.split(cell["command"])
        assert words[:2] == ["ddray", "sweep"]
        asked = {point.hash for point in select(points, only=[word for word in words[3:] if word != "--only"])}
        assert set(cell["points"]) <= asked
        others = [other for other in cells if other["command"] == cell["command"] and other != cell]
        if recorded.name != WITH_SETTINGS and not others:
            assert asked == set(cell["points"]), cell["command"]


def test_on_the_page_keys_lead_to_runs() -> None:
    facts = json.loads(TABLES[0].path("json").read_text())["report"]
    page = html_page([each for each in elements_of(facts, long=True) if not isinstance(each, Picture)])
    keys = [key for block in facts["again"] for cell in block["cells"] for key in cell["points"]]
    assert keys
    for key in keys:
        assert f'<a href="runs.html#{key}">{short(key)}</a>' in page


def test_only_the_long_page_has_them() -> None:
    facts = json.loads(TABLES[0].path("json").read_text())["report"]

    def commands(long: bool) -> list[str]:
        tables = [each for each in elements_of(facts, long=long) if isinstance(each, Table)]
        return [text for table in tables for line in table.cells for text in line if text.startswith("`ddray sweep")]

    assert commands(long=False) == []
    assert len(commands(long=True)) == sum(len(block["cells"]) for block in facts["again"])
