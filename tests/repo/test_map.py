"""The map is true: the docstring of every package names each file and folder in it and nothing that is not there, in an
order that says something: a file imports only what is named before it.
"""

from __future__ import annotations

import ast
import functools
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


def docstring(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""


def imported(tree: ast.AST) -> set[str]:
    """The modules that a file imports, those inside functions too, and what it takes from them, with dots; not what is
    imported for a type checker alone.
    """
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        names |= imported(node)
    return names


@functools.cache
def imported_by(file: Path) -> set[str]:
    return imported(ast.parse(file.read_text(encoding="utf-8")))


def used(package: Path, entry: str) -> set[str]:
    """The other files and folders of a package that one of them uses, as they are named without ``.py`` or ``/``."""
    files = [package / entry] if entry.endswith(".py") else sorted((package / entry).rglob("*.py"))
    inside = ".".join(package.relative_to(ROOT).parts) + "."
    modules = {name for file in files for name in imported_by(file)}
    return {name.removeprefix(inside).partition(".")[0] for name in modules if name.startswith(inside)} - {bare(entry)}


def bare(entry: str) -> str:
    return entry.removesuffix(".py").rstrip("/")


def there(package: Path) -> set[str]:
    """What a package holds beside its ``__init__.py``: modules, packages, folders of data."""
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    return files | {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name not in NOT_CODE}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_map_of_a_package_is_true(package: Path) -> None:
    names = set(named(docstring(package)))
    missing, gone = there(package) - names, names - there(package)
    assert not missing, f"{package.name}/__init__.py does not say what is in {sorted(missing)}"
    assert not gone, f"{package.name}/__init__.py names {sorted(gone)}, which are not there"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_map_names_a_file_after_all_that_it_uses(package: Path) -> None:
    order = named(docstring(package))
    later = [
        f"{entry} uses {other}"
        for index, entry in enumerate(order)
        for other in used(package, entry).intersection(map(bare, order[index + 1 :]))
    ]
    assert not later, f"{package.name}/__init__.py names what is used after what uses it: {later}. Move the lines."


def test_what_a_file_uses() -> None:
    text = """
from typing import TYPE_CHECKING
import a.b
if TYPE_CHECKING:
    from a.typing_alone import T
def late():
    from a import c
    from a.d.e import f
"""
    assert {name for name in imported(ast.parse(text)) if name.startswith("a.")} == {"a.b", "a.c", "a.d.e.f"}
    tune = used(ROOT / "ddray" / "run", "tune.py")
    assert {"cluster", "ledger"} <= tune
    assert "tune" not in tune
    assert "statistics" in used(ROOT / "ddray" / "measurements", "derived/"), "a folder uses what its files use"


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
