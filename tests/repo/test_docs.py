"""Links resolve, tables equal the code, decisions are complete, the changelog knows the version."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pages import PAGES, ROOT, prose, table

from ddray.plan.kinds import STAGE_KINDS, Load
from ddray.plan.shares import share_of
from trainables.networks import NETWORKS, parse
from trainables.presets import completed
from trainables.protocols import PROTOCOLS, Protocol

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page: Path) -> None:
    broken = [target for target in links(page) if not resolves(page, target)]
    assert broken == []


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def resolves(page: Path, target: str) -> bool:
    if re.match(r"(https?|mailto):", target):
        return True  # the suite asks nothing of the network
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    return path.exists() and (not anchor or anchor in anchors(path))


def anchors(page: Path) -> set[str]:
    """Of every heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](page.md#two) [c](other.md) [d](https://example.org)\n")
    assert [target for target in links(page) if not resolves(page, target)] == ["page.md#two", "other.md"]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_protocols() -> None:
    rows = {name: cells for name, *cells in table(ROOT / "docs" / "protocols.md", "protocol")}
    assert rows == {name: protocol_cells(protocol) for name, protocol in PROTOCOLS.items()}


def protocol_cells(protocol: Protocol) -> list[str]:
    recipe = protocol.recipe
    length = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.steps} steps"
    drops = ", ".join(str(Fraction(point).limit_denominator(100)) for point in recipe.milestones)
    return [
        length,
        recipe.optimiser,
        f"{recipe.lr:g}",
        f"{recipe.momentum:g}",
        f"{recipe.weight_decay:g}",
        f"x{recipe.gamma:g} at {drops}" if drops else "none",
        str(recipe.batch),
        recipe.augmentation,
        f"{recipe.cutmix:g}",
        protocol.source,
    ]


def distillations() -> list[list[str]]:
    """With the presets, ConvNet3 and the whole training split: what is held, and the share of three cards."""
    rows = []
    for name in ("dm", "dsa", "mtt", "idc"):
        for dataset, ipc, classes, each in (
            ("cifar10", 1, 10, 5000),
            ("cifar10", 50, 10, 5000),
            ("cifar100", 50, 100, 500),
        ):
            settings = completed(name, dataset, ipc, {})
            load = Load(name, settings, ipc, parse("convnet3"), 32, 3, classes, 10_000, each, ipc)
            config: Any = SimpleNamespace(method=name, ipc=ipc, network=None)  # all that the estimate looks at
            held = STAGE_KINDS["distill"].memory(config, load)
            assert held is not None
            shares = [str(Fraction(share_of(held, gib))) for gib in (16, 32, 80)]
            rows.append([name, dataset, str(ipc), f"{held / 1024:.1f} GiB", *shares])
    return rows


def networks() -> list[list[str]]:
    return [
        [name, *(f"{value:g}" for value in (network.held.forward, network.held.graph, network.held.double))]
        for name, network in NETWORKS.items()
    ]


def test_memory_of_distillation() -> None:
    assert [list(row) for row in table(ROOT / "docs" / "resources.md", "method")] == distillations()


def test_memory_of_networks() -> None:
    assert [list(row) for row in table(ROOT / "docs" / "resources.md", "network")] == networks()


# --- decisions, changelog, index --------------------------------------------------------------------------------------


def test_decisions_are_numbered_without_gaps() -> None:
    assert [path.name[:5] for path in DECISIONS] == [f"{number:04}-" for number in range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_its_three_parts_on_one_page(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.name[:4]}: ")
    folders = [text.find(f"**{part}.**") for part in ("Context", "Choice", "What we gave up")]
    assert -1 not in folders
    assert folders == sorted(folders)
    assert len(text.split()) < 500


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    pages = {*(ROOT / "docs").glob("*.md"), *DECISIONS} - {index}
    assert pages <= listed


def test_the_changelog_has_the_version_first() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.*?)\] - (unreleased|\d{4}-\d\d-\d\d)$", prose(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert headings[0][0] == version
    assert "**Invalidates**" in prose(ROOT / "CHANGELOG.md")


# --- the tree ---------------------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """Files that are or will be in the repository; NOT RUN where there is none."""
    ran = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if ran.returncode != 0:
        pytest.skip("NOT RUN: not a git checkout")
    return [path for name in ran.stdout.split("\0") if name and (path := ROOT / name).is_file()]


MACHINE_PATH = re.compile(
    rb"(?<![\w.<>/*$}])/(?:%s)/[\w.-]+" % b"|".join((b"work", b"home", b"root", b"Users", b"mnt"))
)


def test_no_paths_of_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in tracked()
        for match in MACHINE_PATH.finditer(path.read_bytes())
    ]
    assert found == []


def test_a_path_of_a_machine_is_noticed() -> None:
    for text in (b"see /%s/me/data", b"'/%s/x'", b"DDRAY_HOME=/%s/y"):
        assert MACHINE_PATH.search(text.replace(b"%s", b"home"))
    assert not MACHINE_PATH.search(b"tmp_path/home/x <home>/home/store")


def test_nothing_is_left_to_fill_in() -> None:
    marks = [b"TODO" + b"-FIGURE", b"<" * 7 + b" ", b">" * 7 + b" "]
    found = [f"{named(path)}: {mark.decode()}" for path in PAGES for mark in marks if mark in path.read_bytes()]
    assert found == []
