"""The map is true: the docstring of every package names each file and folder in it, and nothing that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pages import ROOT

PACKAGES = sorted(
    path.parent for name in ("ddray", "trainables") for path in (ROOT / name).rglob("__init__.py") if path.is_file()
)
NOT_CODE = {"__pycache__"}


def named(text: str) -> list[str]:
    """The files and folders that a map names, each the first time: ``grid.py``, ``derived/``; paths are prose."""
    words = re.findall(r"(?<![\w/.*-])([a-z_][a-z_0-9]*(?:\.py|/))(?![\w/*<])", text)
    return list(dict.fromkeys(words))


def there(package: Path) -> set[str]:
    """What a package holds beside its ``__init__.py``: modules, packages, folders of data."""
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    return files | {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name not in NOT_CODE}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_map_of_a_package_is_true(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    missing, gone = there(package) - set(named(text)), set(named(text)) - there(package)
    assert not missing, f"{package.name}/__init__.py does not say what is in {sorted(missing)}"
    assert not gone, f"{package.name}/__init__.py names {sorted(gone)}, which are not there"


def test_what_a_map_names() -> None:
    text = """Rows.

        | a.py      one thing (see run/tune.py and sweeps/*.yaml)
        `- derived/   more, from `a.py`
    """
    assert named(text) == ["a.py", "derived/"]


def test_the_files_that_the_architecture_names_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:ddray|trainables|tests)/[\w/.]*)`", page))
    assert len(paths) > 8
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
