"""Two results compared: what is equal is said to be, what differs has its interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from goldens import TABLES
from pyarrow import parquet
from scipy import stats

import ddray
from ddray.commands.diff import diff_facts, diff_text
from ddray.errors import DdrayError
from ddray.opened import _interval

(QUICKSTART,) = (recorded for recorded in TABLES if recorded.name == "quickstart")


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """The quickstart, and the same with DM ten points better, without IDC, by another torch."""
    table = parquet.read_table(QUICKSTART.path("parquet"))
    method, metric = (pc.cast(table[name], pa.string()) for name in ("method", "metric"))
    better = pc.and_(pc.equal(method, "dm"), pc.equal(metric, "test_acc"))
    values = pc.if_else(better, pc.add(table["value"], 0.1), table["value"])
    torch = pa.array(["9.9.9"] * table.num_rows).cast(table.schema.field("torch_version").type)
    changed = table.set_column(table.schema.get_field_index("value"), "value", values)
    changed = changed.set_column(table.schema.get_field_index("torch_version"), "torch_version", torch)
    changed = changed.filter(pc.not_equal(method, "idc"))
    folders = []
    for name, content in (("before", table), ("after", changed)):
        (tmp_path / name).mkdir()
        parquet.write_table(content, tmp_path / name / "measurements.parquet")
        folders.append(str(tmp_path / name))
    return folders[0], folders[1]


def test_nothing_differs_from_itself(two: tuple[str, str]) -> None:
    facts = diff_facts(two[0], two[0])
    assert facts["made_by"] == {}
    assert {metric["metric"] for metric in facts["metrics"]} == {
        "test_acc",
        "mia_auc_strongest",
        "fair_worst_acc",
        "adv_acc",
    }
    for metric in facts["metrics"]:
        assert metric["both"] == metric["equal"] > 0
        assert metric["rows"] == []


def test_what_was_changed_is_found_and_nothing_else(two: tuple[str, str]) -> None:
    facts = diff_facts(*two)
    assert facts["made_by"]["torch"][1] == ["9.9.9"]
    accuracy, *others = facts["metrics"]
    assert (accuracy["metric"], accuracy["only_first"], accuracy["only_second"]) == ("test_acc", 2, 0), "IDC at 1 and 5"
    assert accuracy["differ"] == len(accuracy["rows"]) > 0
    assert all("method dm" in row["place"] for row in accuracy["rows"])
    assert [row["difference"] for row in accuracy["rows"]] == pytest.approx([0.1] * accuracy["differ"])
    assert all(metric["differ"] == 0 for metric in others)
    text = diff_text(facts)
    assert f"{accuracy['beyond']} of {accuracy['with_interval']} differ beyond their 95 % intervals" in text
    assert "torch: " in text


def test_another_version_of_a_method_is_the_same_experiment(two: tuple[str, str]) -> None:
    path = Path(two[1]) / "measurements.parquet"
    table = parquet.read_table(path)
    name = "distill_cfg_hash"
    other = pa.array(["another version"] * table.num_rows).cast(table.schema.field(name).type)
    kept = pc.if_else(pc.is_null(table[name]), table[name], other)
    parquet.write_table(table.set_column(table.schema.get_field_index(name), name, kept), path)
    accuracy = diff_facts(*two)["metrics"][0]
    assert (accuracy["only_first"], accuracy["only_second"]) == (2, 0), "IDC alone"
    assert accuracy["both"] > accuracy["differ"] > 0


def test_the_frame_has_both_means(two: tuple[str, str]) -> None:
    frame = ddray.open(two[0]).against(ddray.open(two[1]), "test_acc", method="dm")
    alone = ddray.open(two[0]).table("test_acc", method="dm")
    assert sorted(frame["first"]) == pytest.approx(sorted(alone["mean"]))
    assert list(frame["second"] - frame["first"]) == pytest.approx([0.1] * len(frame))
    with pytest.raises(DdrayError, match="no metric 'nothing'"):
        ddray.open(two[0]).against(ddray.open(two[1]), "nothing")


def test_of_repeats_the_interval_is_welchs() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 5), rng.normal(1, 3, 4)
    summaries = [{"mean": each.mean(), "sd": each.std(ddof=1), "n": len(each)} for each in (one, other)]
    expected = stats.ttest_ind(other, one, equal_var=False).confidence_interval(0.95)
    assert _interval(*summaries) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("first, second", [(0.9, 0.8), (0.97, 0.97), (0.5, 0.6)])
def test_of_single_repeats_it_holds_the_difference_as_often_as_it_says(first: float, second: float) -> None:
    rng, images, trials, held = np.random.default_rng(0), 200, 2000, 0
    for hits in zip(rng.binomial(images, first, trials), rng.binomial(images, second, trials), strict=True):
        sides = []
        for hit in hits:
            limits = stats.binomtest(int(hit), images).proportion_ci(0.95, method="wilson")
            sides.append({"mean": hit / images, "sd": None, "n": 1, "low": limits.low, "high": limits.high})
        low, high = _interval(*sides)
        assert low is not None
        assert high is not None
        held += low <= second - first <= high
    assert 0.935 <= held / trials <= 0.975
