"""Every sweep that is shipped or shown is valid, and the schema that editors use is the grammar."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, SWEEPS, Block, blocks

from ddray.errors import RequestError
from ddray.plan.axes import AXES
from ddray.plan.schema import json_schema
from ddray.prepare import Prepared, expanded, load, prepare
from ddray.request import Request
from ddray.settings import folders
from trainables.data.cache import build

SCHEMA = ROOT / "ddray.schema.json"
GRIDS = "grids: {example: {axes: {method: [random, dm], dataset: [digits], ipc: [1]}}}\n"
WRONG = "# wrong.yaml\n"


def prepared(path: Path, **request: object) -> Prepared:
    return prepare(Request(path, **request), folders(), build)  # type: ignore[arg-type]


def test_the_quickstart_is_shipped() -> None:
    assert ROOT / "sweeps" / "quickstart.yaml" in SWEEPS


@pytest.fixture(scope="module")
def schema() -> Any:
    """What the schema says of a sweep file."""
    jsonschema = pytest.importorskip("jsonschema", reason="NOT RUN: jsonschema is not installed")
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
class TestShippedSweep:
    def test_plans(self, path: Path) -> None:
        plan = prepared(path).plan
        assert plan.chains
        assert sum(len(job.stages) for job in plan.jobs) == len(plan.stages)

    def test_no_network_is_counted_twice(self, path: Path) -> None:
        """Two points with one training would be two trainings to every mean."""
        chains = prepared(path).plan.chains
        trained = [stage.key for chain in chains if (stage := chain.stage("train")) is not None]
        assert len(trained) == len(set(trained))

    def test_plans_with_each_profile(self, path: Path) -> None:
        for profile in re.findall(r"^  (\w+):", path.read_text().partition("\nprofiles:")[2], re.MULTILINE):
            assert prepared(path, profiles=(profile,)).plan.chains

    def test_names_the_schema_and_says_what_it_asks(self, path: Path) -> None:
        first, second, *_ = path.read_text().splitlines()
        up = "../" * len(path.parent.relative_to(ROOT).parts)
        assert first == f"# yaml-language-server: $schema={up}ddray.schema.json"
        assert second.startswith("# "), "the second line says which question the sweep answers"

    def test_fits_the_schema(self, path: Path, schema: Any) -> None:
        from ruamel.yaml import YAML

        # Editors see a mapping's keys as texts, as JSON does: {1: 1000} is {"1": 1000}.
        content = json.loads(json.dumps(YAML(typ="safe").load(path.read_text())))
        schema.validate(content)


def test_the_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), "run: .venv/bin/ddray schema > ddray.schema.json"


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if not block.text.startswith(WRONG)], ids=str)
def test_shown_sweep_is_valid(block: Block, tmp_path: Path) -> None:
    """A block that lacks the version or grids is completed with them."""
    text = block.text
    if not re.search("^ddray:", text, re.MULTILINE):
        text = f"ddray: 1\n{text}"
    if not re.search("^(grids|include):", text, re.MULTILINE):
        text += GRIDS
    for names in re.findall(r"^include: \[(.*?)\]", text, re.MULTILINE):
        for number, name in enumerate(names.split(", ")):
            (tmp_path / name).write_text(f"ddray: 1\n{GRIDS.replace('example', f'example{number}')}")
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    assert expanded(load(path))
    for profile in re.findall(r"^  (\w+):", text.partition("\nprofiles:\n")[2], re.MULTILINE):
        assert expanded(load(path, profiles=[profile]))


def test_the_shown_errors_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "sweep-files.md"
    (wrong,) = (block for block in blocks("yaml", page) if block.text.startswith(WRONG))
    (shown,) = blocks("text", page)
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(wrong.text)
    with pytest.raises(RequestError) as error:
        load(Path("wrong.yaml"))
    assert str(error.value) == shown.text.rstrip("\n")


def test_what_the_page_says_of_merged_points(tmp_path: Path) -> None:
    """The first sweep of docs/sweep-files.md: 3 points of full, not 6."""
    path = tmp_path / "first.yaml"
    path.write_text(blocks("yaml", ROOT / "docs" / "sweep-files.md")[0].text)
    methods = [point.method for point in expanded(load(path))]
    assert {method: methods.count(method) for method in methods} == {"random": 6, "dm": 6, "full": 3}


def test_every_axis_is_documented_with_its_values() -> None:
    from pages import table

    rows = {axis: values for axis, values, _ in table(ROOT / "docs" / "sweep-files.md", "axis")}
    assert tuple(rows) == tuple(AXES)
    for axis, entry in json_schema()["$defs"]["Axes"]["properties"].items():
        for name in names_in(entry):
            assert re.search(rf"\b{name}\b", rows[axis]), f"{axis}: {name} is not on the page"


def names_in(entry: object) -> set[str]:
    """The closed lists of names in a part of the schema."""
    if isinstance(entry, dict):
        own = {name for name in entry.get("enum", ()) if isinstance(name, str)}
        own |= {entry["const"]} if isinstance(entry.get("const"), str) else set()
        return own.union(*(names_in(value) for value in entry.values()))
    if isinstance(entry, list):
        return set[str]().union(*(names_in(value) for value in entry))
    return set()
