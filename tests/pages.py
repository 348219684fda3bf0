"""The repository's Markdown pages as data: their fenced blocks, tables and links; and ddray run as a newcomer would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "mlflow/*.md", "sweeps/*.md", "benchmarks/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
"""Every Markdown page of the project, also one that is not committed yet."""
SWEEPS = sorted((ROOT / "sweeps").rglob("*.yaml"))
DDRAY = Path(sys.executable).with_name("ddray")
"""The console script: unlike ``python -m`` it does not put the current folder on Python's path."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One line of a shell block."""

    block: Block
    variables: dict[str, str]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block}: {' '.join(self.words)}"


def blocks(language: str, *pages: Path) -> list[Block]:
    """The blocks of a language on some pages, by default on all."""
    found = []
    for page in pages or PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[1] == language:
                found.append(Block(page, text[: match.start()].count("\n") + 1, language, match[2]))
    return found


def commands() -> list[Command]:
    """Every command of every shell block."""
    return [command for block in blocks("sh") for command in _commands(block)]


def _commands(block: Block) -> Iterator[Command]:
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        variables = {}
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words:
            yield Command(block, variables, tuple(words))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def table(page: Path, first: str, section: str = "") -> list[list[str]]:
    """The rows below a table's header, whose first cell is ``first``; in the section of that heading if one is given.

    Backquotes are dropped.
    """
    text = prose(page)
    if section:
        found = re.search(rf"^#+ {re.escape(section)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
        assert found is not None, f"{page.name}: no section {section!r}"
        text = found[1]
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines) if _cells(line)[:1] == [first]]
    assert headers, f"{page.name}: no table that starts with {first!r}"
    rows = []
    for line in lines[headers[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
    assert rows, f"{page.name}: the table {first!r} has no rows"
    return rows


def _cells(line: str) -> list[str]:
    if not line.startswith("|"):
        return []
    return [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]


def run(
    *arguments: object, home: Path, cwd: Path = ROOT, timeout: float = 240, **variables: str
) -> subprocess.CompletedProcess[str]:
    """ddray in a process of its own, with a home of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DDRAY_")}
    return subprocess.run(
        [str(DDRAY), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**environment, "DDRAY_HOME": str(home), **variables},
    )
