"""`ddray query`: SQL over the measurements, and over nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from goldens import TABLES
from pyarrow import parquet
from workspace import Workspace

from ddray.commands import query as queries
from ddray.errors import RequestError

(QUICKSTART,) = (recorded for recorded in TABLES if recorded.name == "quickstart")
DOCS = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def here(workspace: Workspace) -> Iterator[Workspace]:
    """Results of two sweeps: those of the quickstart under two names."""
    for name in ("quickstart", "again"):
        folder = workspace.folders.results / name
        folder.mkdir(parents=True)
        (folder / "measurements.parquet").write_bytes(QUICKSTART.path("parquet").read_bytes())
    return workspace


def documented() -> list[str]:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix('ddray query "').removesuffix('"') for line in lines if line.startswith("ddray query ")]


def test_what_the_docs_ask_is_answered(here: Workspace) -> None:
    assert len(documented()) == 3
    for sql in documented():
        answer = here.run("query", sql, "--sweep", "quickstart", "--format", "json")
        assert answer.code == 0, answer.err
        json.loads(answer.out)
    (first, *_) = documented()
    rows = json.loads(here.run("query", first, "--sweep", "quickstart", "--format", "json").out)
    table = parquet.read_table(QUICKSTART.path("parquet")).to_pylist()
    dm = [
        100 * row["value"]
        for row in table
        if (row["metric"], row["status"], row["method"], row["ipc"]) == ("test_acc", "ok", "dm", 5)
    ]
    (found,) = (row for row in rows if (row["method"], row["ipc"]) == ("dm", 5))
    assert found["percent"] == pytest.approx(sum(dm) / len(dm), abs=0.005)
    assert found["n"] == len(dm)


def test_all_sweeps_or_those_that_are_named(here: Workspace) -> None:
    sql = "select sweep, count(*) as n from measurements group by all"
    (all_of_them,) = json.loads(here.run("query", sql, "--format", "json").out)
    (one,) = json.loads(here.run("query", sql, "--sweep", "again", "--format", "json").out)
    assert all_of_them["n"] == 2 * one["n"] > 1000


@pytest.mark.parametrize(
    "sql, said",
    [
        ("select * from '{file}'", "file system operations are disabled"),
        ("select * from read_csv('{file}')", "file system operations are disabled"),
        ("select * from read_text('{file}')", "file system operations are disabled"),
        ("select getenv('HOME')", "getenv does not exist"),
        ("select * from folders", "There is one table, measurements."),
        ("copy (select 1) to '{file}.csv'", "got COPY; expected one SELECT"),
        ("attach '{file}.db'", "got ATTACH; expected one SELECT"),
        ("install httpfs", "expected one SELECT"),
        ("set enable_external_access = true", "got SET; expected one SELECT"),
        ("select 1; select 2", "got SELECT, SELECT; expected one SELECT"),
        ("", "got nothing; expected one SELECT"),
        ("selec 1", "syntax error"),
        ("select nothing from measurements", 'Referenced column "nothing" not found'),
        ("select cast('x' as int)", "Could not convert"),
    ],
)
def test_nothing_else_can_be_read_or_written(here: Workspace, sql: str, said: str) -> None:
    file = here.folder / "secret.csv"
    file.write_text("1\n")
    before = sorted(here.folder.rglob("*"))
    refused = here.run("query", sql.format(file=file))
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert sorted(here.folder.rglob("*")) == before


def test_the_control_a_connection_as_usual_reads_files(tmp_path: Path) -> None:
    import duckdb

    (tmp_path / "secret.csv").write_text("a\n1\n")
    assert duckdb.connect().sql(f"select a from '{tmp_path}/secret.csv'").fetchall() == [(1,)]


def test_forms(here: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "select method, value from measurements where metric = 'test_acc' order by value limit 50"
    monkeypatch.setenv("COLUMNS", "60")
    shown = here.run("query", sql).out.splitlines()
    assert shown[0].split() == ["method", "value"]
    assert max(map(len, shown)) <= 60
    assert shown[-1] == "... and 10 more; --format csv has all"
    out = here.folder / "answer.parquet"
    assert here.run("query", sql, "--format", "parquet", "--out", out).code == 0
    assert parquet.read_table(out).num_rows == 50
    assert len(here.run("query", sql, "--format", "csv").out.splitlines()) == 51
    assert here.run("query", sql, "--format", "parquet").code == 2
    wide = here.run("query", "select * from measurements limit 1").out.splitlines()
    assert wide[0].split()[0] == "schema_version", "a line for each value, where a row is wider than the terminal"


def test_without_results_it_says_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(RequestError, match=r"no sweep has results here yet. Run: ddray sweep"):
        queries.query(workspace.folders, "select 1")
    (workspace.folders.results / "mine").mkdir(parents=True)
    (workspace.folders.results / "mine" / "measurements.parquet").write_bytes(QUICKSTART.path("parquet").read_bytes())
    with pytest.raises(RequestError, match=r"--sweep mina: has no results .* Did you mean 'mine'"):
        queries.query(workspace.folders, "select 1", ["mina"])
