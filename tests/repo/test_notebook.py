"""The notebook runs from its first cell to its last on a finished sweep, and holds no outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pages import ROOT

NOTEBOOK = ROOT / "docs" / "finished_sweep.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in content["cells"]]
    assert len(set(names)) == len(names)
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def ran(text: str, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    places = {"DDRAY_HOME": str(home), "DDRAY_STORE": str(home / "store"), "MPLBACKEND": "Agg"}
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_its_cells_run_in_order(finished_home: Path, tmp_path: Path) -> None:
    code = ["".join(cell["source"]) for cell in cells("code")]
    done = ran(
        "\n".join(f"{text}\nprint('cell {index} ran')" for index, text in enumerate(code)), finished_home, tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert all(f"cell {index} ran" in done.stdout for index in range(len(code)))
    assert list(tmp_path.iterdir()) == [], "it writes nothing"


def test_a_cell_that_fails_is_noticed(finished_home: Path, tmp_path: Path) -> None:
    first = "".join(cells("code")[0]["source"])
    assert ran(f"{first}\nresults.table('no such metric')", finished_home, tmp_path).returncode != 0


def test_it_holds_no_outputs() -> None:
    assert cells("markdown")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
