"""Folders that must not become packages, and names that would hide one. The reasons are in CONTRIBUTING.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

DATA_ONLY = ("mlflow", "sweeps", "docs")


@pytest.mark.parametrize("folder", DATA_ONLY)
def test_no_python_in(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert sorted((ROOT / folder).rglob("*.py*")) == []


@pytest.mark.parametrize("there", [ROOT, ROOT / "mlflow", ROOT / "tests"], ids=["root", "mlflow", "tests"])
def test_import_mlflow_is_the_package(there: Path) -> None:
    """`python -c` puts the current folder first on the path, as `python -m` and Ray's workers do."""
    program = "import importlib.util as u; s = u.find_spec('mlflow'); print(s.origin)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=there, capture_output=True, text=True)
    origin = Path(ran.stdout.strip())
    assert origin.name == "__init__.py"
    assert ROOT / "mlflow" not in origin.parents


def test_an_init_file_would_hide_the_package(tmp_path: Path) -> None:
    """The control: what the tests above prevent does happen."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    program = "import importlib.util as u; print(u.find_spec('mlflow').origin)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert Path(ran.stdout.strip()) == tmp_path / "mlflow" / "__init__.py"


def test_folders_of_tests_shadow_nothing() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    packages = {"ddray", "trainables", "mlflow", "ray", "torch", "plan", "store", "measurements", "report"}
    assert packages.isdisjoint(folder.name for folder in (ROOT / "tests").iterdir())


def test_the_packages_import_nothing_by_themselves() -> None:
    for package in ("ddray", "trainables"):
        program = "import sys; before = {*sys.modules, '__future__'}; "
        program += f"import {package}; print(sorted(set(sys.modules) - before))"
        ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
        assert ran.stdout.strip() == f"['{package}']"


@pytest.mark.parametrize("package", ["ddray", "trainables"])
def test_types_are_shipped(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Makefile",
        ".ci/run",
        "mlflow/serve.sh",
        "mlflow/compose.yaml",
        "docs/README.md",
        "ddray.schema.json",
    ],
)
def test_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
