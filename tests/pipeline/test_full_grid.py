"""The shipped whole study in its smallest form: every method, network and evaluation, from the file to the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pages import blocks, table
from pyarrow import parquet
from workspace import Ran, places_in

from ddray.measurements.columns import VALUES
from trainables.attacks import MEMBERSHIP_ATTACKS

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ROOT / "sweeps" / "full_grid.yaml"
SMOKE = ("--profile", "smoke", "--local", "--no-mlflow")
NAME = "full_grid@smoke"


class Study(NamedTuple):
    """What the sweep left, and what running it again said."""

    first: Ran
    again: Ran
    page: str
    """``report.md``."""
    rows: list[dict[str, Any]]
    maps: list[dict[str, Any]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Study:
    with places_in(tmp_path_factory.mktemp("study"), digits_cache) as workspace:
        first = workspace.run("sweep", SWEEP, *SMOKE)
        assert first.code == 0, first.err
        rows = parquet.read_table(workspace.results(NAME).measurements).to_pylist()
        maps = parquet.read_table(workspace.results(NAME).folder / "embeddings.parquet").to_pylist()
        page = (workspace.results(NAME).folder / "report.md").read_text(encoding="utf-8")
        return Study(first, workspace.run("sweep", SWEEP, *SMOKE), page, rows, maps)


@pytest.fixture
def rows(study: Study) -> list[dict[str, Any]]:
    return study.rows


def test_everything_of_the_study_is_there(study: Study, rows: list[dict[str, Any]]) -> None:
    assert re.search(r"(\d+) of \1 points done", study.first.err)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["method"] for row in rows} == {"dsa", "dm", "mtt", "idc", "random", "full"}
    assert {row["architecture"].partition("-")[0] for row in rows} == {"convnet3", "resnet18", "vgg16"}
    assert {row["property"] for row in rows} == {
        "performance",
        "fairness",
        "robustness",
        "privacy",
        "informativeness",
        "cost",
    }
    assert {row["audit"] for row in rows if row["property"] == "privacy"} == {"seed", "pool"}
    assert {row["attack"] for row in rows if row["property"] == "privacy"} - {None} == set(MEMBERSHIP_ATTACKS)


def test_rows_are_told_apart(rows: list[dict[str, Any]]) -> None:
    assert len({row["row_id"] for row in rows}) == len(rows)


def test_every_metric_stands_on_the_page(rows: list[dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    missing = {row["metric"] for row in rows} - set(re.findall(r"`([a-z0-9_]+)`", page))
    assert not missing, f"docs/metrics.md says nothing of {sorted(missing)}"


def test_the_page_says_which_metrics_have_intervals(rows: list[dict[str, Any]]) -> None:
    cells = [names for names, *_ in table(ROOT / "docs" / "metrics.md", "metrics")]
    listed = {name for names in cells for name in re.findall(r"\w+", names)}
    unlisted = {row["metric"] for row in rows if row["ci_low"] is not None} - listed
    assert not unlisted, f"docs/metrics.md, Intervals, says nothing of {sorted(unlisted)}"


def test_every_flag_stands_on_the_page(rows: list[dict[str, Any]]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    missing = {row["flag"] for row in rows} - {None} - set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))
    assert not missing, f"docs/metrics.md says nothing of {sorted(missing)}"


def test_every_value_of_a_fixed_vocabulary_is_described(rows: list[dict[str, Any]]) -> None:
    unknown = {(name, row[name]) for name, values in VALUES.items() for row in rows if row[name] not in (None, *values)}
    assert not unknown, f"ddray.measurements.columns.VALUES lacks {sorted(unknown)}"


def test_values_are_in_their_ranges(rows: list[dict[str, Any]]) -> None:
    """Fractions are fractions, intervals hold their values, and what has no value says why."""
    signed = re.compile("excess_|adv_delta|adv_gap|adv_pgd|ior|dd_|optimism|mia_adv|mia_auc_delta|fair_confusion")
    for row in rows:
        value = row["value"]
        if value is None:
            assert row["flag"], row
            continue
        assert value == value, row
        if row["unit"] == "fraction" and not signed.match(row["metric"]):
            assert -1e-9 <= value <= 1 + 1e-9, row
        if row["ci_low"] is not None and row["ci_method"] not in ("bootstrap", "percentile"):
            assert row["ci_low"] - 1e-9 <= value <= row["ci_high"] + 1e-9, row
        if row["ci_low"] is not None:
            assert row["ci_unit"] in ("images", "trainings", "distillations", "targets"), row


def test_sets_and_real_images_share_one_map(study: Study) -> None:
    assert len({row["fit_id"] for row in study.maps}) == 1
    assert {row["source"] for row in study.maps} == {"real", "random", "dsa", "dm", "mtt", "idc"}


def test_the_report_has_a_table_for_each_question(study: Study) -> None:
    for words in (
        "Test accuracy",
        "Fairness between classes",
        "Robustness",
        "Membership inference",
        "Embedding",
        "at equal accuracy",
        "Against random images",
    ):
        assert words in study.page, words


def test_the_quoted_tables_have_the_form_of_the_real_ones(study: Study) -> None:
    _, quoted = blocks("text", ROOT / "README.md")
    shown = {form(line) for line in quoted.text.splitlines() if line.startswith(("###", "| origin"))}
    assert len(shown) == 3
    assert shown <= {form(line) for line in study.page.splitlines()}


def form(line: str) -> str:
    """A heading without its numbers, a table's header without its paddings and the methods it has."""
    line = re.sub(r"\d+", "N", " ".join(line.split()))
    return re.sub(r"\| (Random|DM|Full data( \(missing\))?) ", "", line)


def test_nothing_is_left_to_do(study: Study) -> None:
    assert "nothing to do" in study.again.err
