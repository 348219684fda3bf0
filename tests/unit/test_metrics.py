"""Every metric has one record, and what rows and the page say of it is what the record says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ddray.measurements.columns import VALUES
from ddray.measurements.derived.driver import DERIVATIONS
from ddray.measurements.metrics import BY_ID, EVALUATIONS, MEASURED
from trainables.configs import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "metrics.md"
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.parquet"))
DERIVED = [metric for derivation in DERIVATIONS for metric in derivation.metrics]
EVERY = [*MEASURED, *DERIVED]


def test_every_metric_has_one_record() -> None:
    assert [name for name, count in Counter(metric.id for metric in EVERY).items() if count > 1] == []
    assert {metric.property for metric in EVERY} == set(VALUES["property"])


def test_makers_are_kinds_of_stages_and_derivations() -> None:
    assert {metric.made_by for metric in MEASURED} <= {*KINDS, "stage"}
    for derivation in DERIVATIONS:
        assert len({metric.made_by for metric in derivation.metrics}) == 1
        assert set(derivation.reads) <= EVALUATIONS.keys()
    assert not any(metric.mirrored for metric in DERIVED), "they vanish with what they are compared with"


def test_the_page_shows_every_record() -> None:
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.fullmatch(r"\| `\w+` \|.*\|.*\|.*\|", line)
    ]
    assert sorted(rows) == sorted(
        f"| `{metric.id}` | {metric.unit} | {metric.better} | {metric.meaning} |" for metric in EVERY
    )


@pytest.mark.parametrize("meaning", [metric.meaning for metric in EVERY])
def test_a_meaning_names_metrics_and_columns_that_exist(meaning: str) -> None:
    for name in re.findall(r"`([a-z]+_[a-z0-9_]+)`", meaning):
        if name.startswith(("test_", "train_", "fair_", "adv_", "mia_", "dd_")) and name != "adv_def":
            assert name in {metric.id for metric in EVERY}


def test_a_row_of_a_norm_has_it_as_its_unit() -> None:
    assert BY_ID["adv_dist_median"].row(0.5, 10, norm="linf")["unit"] == "linf"
    assert BY_ID["test_acc"].row(0.5, 10) == {
        "property": "performance",
        "metric": "test_acc",
        "value": 0.5,
        "unit": "fraction",
        "n": 10,
        "agg": "single",
    }


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_row_has_the_property_and_the_unit_of_its_record(path: Path) -> None:
    records = {metric.id: metric for metric in EVERY}
    columns = ["metric", "property", "unit", "norm", "status"]
    for name, about, unit, norm, status in zip(
        *(pq.read_table(path)[each].to_pylist() for each in columns), strict=True
    ):
        assert about == records[name].property
        assert unit == (records[name].row(None, 0, norm=norm)["unit"] if status == "ok" else None), name
