"""Numbers as data frames: means over repeats, over nothing else, and light to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import worlds
from pyarrow import parquet

import ddray
from ddray.errors import DdrayError
from ddray.report.report import machine_report
from ddray.results import MEASUREMENTS_FILE

ORIGINS = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], ipc: [1], seed: [0, 1], distill_seed: [0]}}
grids:
  whole: {axes: {method: [random, full]}}
  parts: {axes: {method: [random], seed: [0], origin_per_class: [20, 40]}}
"""


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.filled(
        tmp_path_factory.mktemp("origins"), ORIGINS, lambda point: 0.5 + (point.origin_per_class or 0) / 100
    )


def test_other_experiments_are_never_averaged(origins: Path) -> None:
    table = ddray.open(origins).table("test_acc")
    assert set(table.index.names) == {"dataset", "architecture", "protocol", "method", "ipc", "origin_per_class"}
    random = table.xs("random", level="method").reset_index().set_index("origin_per_class")
    assert sorted(random["n"]) == [1, 1, 2]
    assert random.loc[20, "mean"] == pytest.approx(0.7)
    assert random.loc[40, "mean"] == pytest.approx(0.9)
    assert random.loc[20, "low"] < 0.7 < random.loc[20, "high"], "of one training, its interval over images"
    assert random.loc[20, "about"] == "images"


def test_means_are_those_of_the_report(tmp_path: Path) -> None:
    folder = worlds.filled(tmp_path, worlds.SWEEP)
    table = ddray.open(folder).table("test_acc")
    (block,) = machine_report(folder)["blocks"]
    for row in block["rows"]:
        for method, cell in row["cells"].items():
            found = table.xs(method, level="method").reset_index()
            found = found[found["ipc"] == row["ipc"]] if method != "full" else found
            (entry,) = found.to_dict("records")
            said = cell["accuracy"]
            assert (entry["mean"], entry["sd"]) == (pytest.approx(said["mean"]), pytest.approx(said["sd"]))
            assert (entry["n"], entry["over"]) == (said["count"], said["unit"])


def test_classes_are_keys_and_where_narrows(origins: Path) -> None:
    results = ddray.open(origins)
    assert "class_id" in results.table("test_acc_class").index.names
    assert len(results.table("test_acc", method="full")) == 1
    assert {"test_acc", "fair_var_acc"} <= set(results.metrics())
    for wrong, message in (({"metric": "test_ac"}, "test_acc"), ({"metric": "test_acc", "methd": 1}, "method")):
        with pytest.raises(DdrayError, match=f"Did you mean '{message}'"):
            results.table(**wrong)  # type: ignore[arg-type]


def test_what_differs_in_no_key_is_refused(origins: Path, tmp_path: Path) -> None:
    rows = parquet.read_table(origins / MEASUREMENTS_FILE)
    parquet.write_table(pa.concat_tables([rows, rows]), tmp_path / MEASUREMENTS_FILE)
    with pytest.raises(DdrayError, match="differ in no key"):
        ddray.open(tmp_path).table("test_acc")


def test_missing_results_say_which_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDRAY_HOME", str(tmp_path))
    (tmp_path / "results" / "small").mkdir(parents=True)
    (tmp_path / "results" / "small" / MEASUREMENTS_FILE).touch()
    with pytest.raises(DdrayError, match="Did you mean 'small'"):
        ddray.open("smal")
    with pytest.raises(DdrayError, match="ddray collect"):
        ddray.open("small").measurements()


def test_opening_loads_nothing_heavy(origins: Path) -> None:
    program = (
        f"import sys, ddray; results = ddray.open({str(origins)!r}); light = set(sys.modules)\n"
        "results.table('test_acc'); print(*sorted({'pandas', 'pyarrow'} & light), *sorted({'torch', 'ray', 'mlflow'} & "
        "set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr
