"""What must be quick loads nothing heavy: asked in a new process, of the modules it holds at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

HEAVY = {
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "pyarrow",
    "sklearn",
    "scipy",
    "foolbox",
    "matplotlib",
    "fsspec",
    "pandas",
}
QUICKSTART = ROOT / "sweeps" / "quickstart.yaml"

PROGRAM = """
import json, sys
from ddray.cli import main
sys.argv = ["ddray", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code
sys.stderr.write("\\n" + json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def loaded(*arguments: object, cwd: Path, home: Path, program: str = PROGRAM) -> set[str]:
    """Top-level names of the modules that a command has loaded; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DDRAY_")}
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "DDRAY_HOME": str(home)},
    )
    code, names = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    return set(names)


@pytest.mark.parametrize("from_root", [True, False], ids=["root", "elsewhere"])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", QUICKSTART], ["plan", QUICKSTART], ["schema"], ["status"]], ids=lambda a: a[0]
)
def test_light(arguments: list[object], from_root: bool, tmp_path: Path) -> None:
    names = loaded(*arguments, cwd=ROOT if from_root else tmp_path, home=tmp_path / "home")
    assert names & HEAVY == set()
    if arguments == ["--help"]:
        assert "pydantic" not in names
    assert not (tmp_path / "home").exists(), "looking makes nothing"


def test_a_sweep_with_nothing_to_do_is_light(finished_home: Path) -> None:
    arguments = ["sweep", QUICKSTART, "--limit", 1, "--no-mlflow"]
    assert loaded(*arguments, cwd=ROOT, home=finished_home) & HEAVY == set()


def test_numbers_of_a_stage_need_no_torch(finished_home: Path) -> None:
    key = next((finished_home / "store" / "artifacts").glob("*/*/metrics.json")).parent.name
    assert loaded("show", key, cwd=ROOT, home=finished_home) & HEAVY == set()


def test_a_heavy_import_is_noticed(tmp_path: Path) -> None:
    program = PROGRAM.replace("import json, sys", "import json, sys, fsspec")
    assert "fsspec" in loaded("--help", cwd=tmp_path, home=tmp_path, program=program)
