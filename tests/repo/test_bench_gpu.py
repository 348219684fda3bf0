"""The benchmark of a card works before there is one: small, on a CPU, with little more than torch installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

ABSENT = (
    *("ray", "mlflow", "pyarrow", "pandas", "duckdb", "sklearn", "scipy", "matplotlib", "foolbox", "art"),
    *("click", "ruamel", "rich", "filelock", "threadpoolctl", "hypothesis", "xdist", "pytest_timeout"),
)
"""What a bare machine with torch does not have."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("gpu")
    without = folder / "without"
    without.mkdir()
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in ABSENT)]
    (without / "sitecustomize.py").write_text("\n".join(lines))
    env = {**os.environ, "PYTHONPATH": str(without), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    refused = subprocess.run([sys.executable, "-c", "import click"], env=env, capture_output=True)
    assert refused.returncode == 1, "the control: what is absent cannot be imported"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(folder / "out")]
    return folder / "out", subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_every_part_leaves_figures(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, process = ran
    assert process.returncode == 0, process.stderr[-2000:]
    found = json.loads((folder / "gpu.json").read_text())
    (tested,) = found["tests"]
    assert tested["code"] == 0, tested
    assert "skipped" in tested["said"] or "passed" in tested["said"]
    assert {row["name"] for row in found["steps"]} == {"dm_ipc1", "dsa_ipc1"}
    assert all(row["seconds"] > 0 < row["estimated_mib"] for row in found["steps"])
    assert {row["precision"] for row in found["precisions"]} >= {"float32", "bf16"}
    shared = [row for row in found["packing"] if "work" in row]
    assert [row["processes"] for row in shared if not row["mps"]] == [1, 2, 1, 2]
    assert all(row["steps_per_second"] > 0 for row in shared)


def test_the_page_has_every_figure(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    page = (folder / "gpu.md").read_text()
    for rows in (value for value in json.loads((folder / "gpu.json").read_text()).values() if isinstance(value, list)):
        for row in rows:
            assert f"| {' | '.join(str(value) for value in row.values())} |" in page


def test_without_a_card_it_says_what_to_do() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert "--device cpu" in process.stderr
    assert "Traceback" not in process.stderr
