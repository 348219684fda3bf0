"""The wheel holds the two packages and their data, nothing else, and works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pages import ROOT

COPIED = ("ddray", "trainables", "mlflow", "sweeps", "tests", "docs", "benchmarks")
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", "outputs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no leftover of another build gets in and none is left here."""
    source = tmp_path_factory.mktemp("source")
    for name in COPIED:
        shutil.copytree(ROOT / name, source / name, ignore=NOT_SHIPPED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "mlflow" / "stray.py").write_text("raise ImportError\n")  # would be shipped by automatic discovery
    ran = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", source],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_two_packages_only(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    (metadata,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"ddray", "trainables", metadata}
    assert any(name.startswith(f"{metadata}/") and name.endswith("LICENSE") for name in names(wheel))


def test_every_module_and_data_file(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("ddray", "trainables")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names(wheel) if ".dist-info/" not in name} == expected
    assert any(name.endswith(".csv") for name in expected)


def test_works_from_elsewhere(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    sweep = shutil.copy(ROOT / "sweeps" / "quickstart.yaml", tmp_path)
    program = (
        "import sys, ddray; print(ddray.__file__); from ddray.cli import main; "
        "from ddray.measurements.references import CHEN2023; assert CHEN2023.values; sys.argv[0] = 'ddray'; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, "plan", sweep],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.splitlines()[0]).is_relative_to(installed)
    assert "quickstart: 36 points" in ran.stdout
