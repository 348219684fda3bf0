"""Tables and reports of recorded stores: every row, number and cell, built again from what was computed then."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from goldens import (
    STAGES,
    TABLES,
    Built,
    Recorded,
    build,
    differences,
    plan_message,
    renderer_message,
    row_differences,
    shown_cells,
    shown_differences,
    stage_message,
)
from workspace import places_in


@pytest.fixture(scope="module", params=TABLES, ids=lambda recorded: recorded.sweep)
def rebuilt(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits_cache: Path
) -> Iterator[tuple[Recorded, Built]]:
    recorded: Recorded = request.param
    with places_in(tmp_path_factory.mktemp(recorded.name), digits_cache) as workspace:
        recorded.unpack(workspace.folder / "store")
        yield recorded, build(recorded, workspace.run, workspace.folder / "home" / "results")


def test_a_recorded_store_is_finished(rebuilt: tuple[Recorded, Built]) -> None:
    recorded, built = rebuilt
    assert built.jobs == 0, plan_message(recorded.sweep, built.jobs)


def test_tables_and_report_are_the_recorded_ones(rebuilt: tuple[Recorded, Built]) -> None:
    recorded, built = rebuilt
    texts = shown_differences(recorded, built)
    if built.renderer != recorded.shown()["renderer"]:
        pytest.fail(renderer_message(recorded.sweep, texts, raised=True))
    assert not texts, renderer_message(recorded.sweep, texts)


# --- that a change is noticed, and says what to do ----------------------------------------------------------------


def test_a_changed_row_of_a_stage_asks_for_the_version_of_its_kind(tmp_path: Path) -> None:
    STAGES.unpack(tmp_path / "store")
    artifact = next(
        folder for folder in (tmp_path / "store").glob("artifacts/*/*")
        if json.loads((folder / "manifest.json").read_text())["kind"] == "accuracy"
    )  # fmt: skip
    now = tmp_path / "now"
    now.mkdir()
    rows = json.loads((artifact / "metrics.json").read_text())
    (now / "metrics.json").write_text(json.dumps(rows))
    assert not list(differences(artifact, now, 0.0)), "the control: equal rows, written differently"
    rows[0]["value"] += 1e-3
    (now / "metrics.json").write_text(json.dumps(rows))
    message = stage_message("accuracy", "accuracy of a model", differences(artifact, now, 1e-9))
    assert "metrics.json[0].value was" in message
    assert "the version of STAGE_KINDS['accuracy'] in ddray/plan/kinds.py" in message
    assert "CHANGELOG.md" in message
    assert "python tests/record_goldens.py" in message
    (now / "metrics.json").write_text(json.dumps([*rows, rows[0]]))
    assert any("entries" in text for text in differences(artifact, now, 1e-9)), "a further row is a change too"
    assert "the method's `version`" in stage_message("distill", "a set", [])


def test_a_changed_row_of_the_tables_asks_for_the_version_of_the_renderer(rebuilt: tuple[Recorded, Built]) -> None:
    recorded, built = rebuilt
    row = next(row for row in built.rows if row["value"])
    changed = [{**row, "value": row["value"] * 1.001}, *(each for each in built.rows if each is not row)]
    message = renderer_message(recorded.sweep, shown_differences(recorded, replace(built, rows=changed)))
    assert f"{row['metric']}" in message
    assert ".value was" in message
    assert "raise RENDERER_VERSION" in message
    fewer = list(row_differences(built.rows, built.rows[1:]))
    assert len(fewer) == 1
    assert fewer[0].endswith("the row is gone")


def test_a_changed_cell_of_the_report_is_noticed_and_another_order_of_columns_is_not() -> None:
    before = "## Accuracy\n\n| method | mean | std |\n| --- | --: | --: |\n| DM | 50.1 | 2.0 |\n\nProse 1.\n"
    moved = "## Accuracy\n\nOther prose.\n\n| method | std | mean |\n|---|--:|--:|\n| DM | 2.0 | 50.1 |\n"
    assert shown_cells(before) == shown_cells(moved) == Counter(
        ["Accuracy | DM | mean: 50.1", "Accuracy | DM | std: 2.0"]
    )  # fmt: skip
    assert shown_cells(before) != shown_cells(moved.replace("50.1", "50.2"))


@pytest.mark.parametrize("recorded", TABLES, ids=lambda recorded: recorded.sweep)
def test_nothing_recorded_says_where_it_was_made(recorded: Recorded, tmp_path: Path) -> None:
    recorded.unpack(tmp_path)
    hosts: set[Any] = {
        json.loads(path.read_text())["provenance"]["host"] for path in tmp_path.glob("artifacts/*/*/manifest.json")
    }
    assert hosts == {"recorded"}
