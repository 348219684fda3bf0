"""Tables of a report: a column is one object, every format escapes what users wrote, and a section is one file."""

from __future__ import annotations

import ast
import csv
import io
import re
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import worlds
from hypothesis import example, given
from hypothesis import strategies as st

import ddray.report
from ddray.measurements.rows import collect
from ddray.report import page, sections
from ddray.report.report import machine_report, report
from ddray.report.sections import fairness
from ddray.report.table import NOTHING, Bullets, Column, Footnote, Table
from ddray.report.words import plus_minus

Row = dict[str, Any]

TABLE = Table(
    "What a set costs_",
    [
        Column("data | set", "name"),
        Column("accuracy", "cell.accuracy", plus_minus, "%", Footnote("accuracy: over 100 % of the images.")),
        Column("slope", "cell.slope", "{:.1f}".format, footnote=Footnote("slope, of logarithms", "Against full")),
        Column("rho", "cell.rho", "{:.1f}".format, footnote=Footnote("rho, of ranks", "Against full"), optional=True),
        Column("`loss` AUC", "cell.auc", "{:.2f}".format, optional=True),
    ],
    [
        {"name": "my_set & <b>", "cell": {"accuracy": {"mean": 0.5, "sd": 0.02}, "slope": None, "auc": 0.5}},
        {"name": "digits", "cell": {"accuracy": {"mean": 0.625, "sd": None}, "slope": 1.5}},
    ],
    [Bullets("Not comparable:", ["[a] #1 costs $2"])],
)


# --- formats ----------------------------------------------------------------------------------------------------------


def test_markdown() -> None:
    assert (
        TABLE.markdown()
        == """### What a set costs_

| data \\| set   | accuracy %   | slope | `loss` AUC |
|---------------|--------------|-------|------------|
| my_set & \\<b> | 50.00 ± 2.00 | –     | 0.50       |
| digits        | 62.50        | 1.5   | –          |

Not comparable:
- [a] #1 costs $2
accuracy: over 100 % of the images.
Against full: slope, of logarithms."""
    )


def test_csv() -> None:
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [
        ["data | set", "accuracy %", "slope", "loss AUC"],
        ["my_set & <b>", "50.00 ± 2.00", "–", "0.50"],
        ["digits", "62.50", "1.5", "–"],
    ]


def test_latex() -> None:
    assert (
        TABLE.latex()
        == r"""\begin{table}
\centering
\caption{What a set costs\_}
\begin{tabular}{llll}
\toprule
data $|$ set & accuracy \% & slope & \texttt{loss} AUC \\
\midrule
my\_set \& $<$b$>$ & 50.00 $\pm$ 2.00 & -- & 0.50 \\
digits & 62.50 & 1.5 & -- \\
\bottomrule
\end{tabular}
\par\footnotesize Not comparable:
\par\footnotesize {[}a] \#1 costs \$2
\par\footnotesize accuracy: over 100 \% of the images.
\par\footnotesize Against full: slope, of logarithms.
\end{table}
"""
    )


def test_html() -> None:
    text = TABLE.html()
    assert "<caption>What a set costs_</caption>" in text
    assert "<th>data | set</th><th>accuracy %</th><th>slope</th><th><code>loss</code> AUC</th>" in text
    assert "<td>my_set &amp; &lt;b&gt;</td><td>50.00 ± 2.00</td>" in text
    assert '<tfoot><tr><td colspan="4">Not comparable:<br>[a] #1 costs $2<br>accuracy: over' in text


# --- escaping ---------------------------------------------------------------------------------------------------------

HOSTILE = st.text(st.sampled_from("ab |&%_#$*\\{}~^<>[]`\"'\n"), min_size=1, max_size=12)


def named(first: str, second: str) -> Table:
    return Table(first, [Column("a", "a"), Column(second, "b")], [{"a": first, "b": second}], [first])


def as_read(text: str) -> str:
    """The text of one line; pairs of backquotes are mark-up."""
    return re.sub("`([^`]+)`", r"\1", " ".join(text.splitlines()))


@given(HOSTILE, HOSTILE)
@example("a", "`\\|`")
def test_no_name_adds_a_row_or_a_column(first: str, second: str) -> None:
    table = named(first, second)
    lines = [line for line in table.markdown().splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3, 3]
    assert [len(row) for row in csv.reader(io.StringIO(table.csv()))] == [2, 2]
    rows = [line for line in table.latex().splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1]
    assert table.html().count("<td>") == 2


class Cells(HTMLParser):
    """The texts of a table's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "td":
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


@given(HOSTILE)
def test_names_survive_html(name: str) -> None:
    parser = Cells()
    parser.feed(named(name, "x").html())
    parser.close()
    assert parser.texts[0] == as_read(name)


@given(HOSTILE)
def test_latex_has_no_special_character_of_a_name(name: str) -> None:
    (caption,) = re.findall(r"\\caption\{(.*)\}", named(name, "x").latex())
    for escaped in (
        r"\\[&%$#_{}]",
        r"\\text(backslash|asciitilde|asciicircum|asciigrave)\{\}",
        r"\$[<>|]\$",
        r"\{[\[*]\}",
    ):
        caption = re.sub(escaped, "", caption)
    caption = re.sub(r"\\texttt\{([^{}]*)\}", r"\1", caption)
    assert not re.search(r"[&%$#_{}~^\\]", caption), caption


def test_names_of_a_page_are_escaped_too() -> None:
    elements = [page.Heading("<img> *x*"), page.Lines(("a|b",)), Bullets("_x_", ["quick*, 1 < 2"])]
    assert page.markdown(elements) == "## \\<img> \\*x*\n\na\\|b\n\n\\_x_\n\n- quick*, 1 \\< 2\n"


@pytest.mark.parametrize(
    "name, shown",
    [
        ("# x", r"\# x"),
        ("> x", r"\> x"),
        ("1. x", r"1\. x"),
        ("- x", r"\- x"),
        ("-0.5", "-0.5"),
        ("3 # x", "3 # x"),
        ("![x](http://there/y.png)", r"![x\](http://there/y.png)"),
        ("[x][y]", r"[x\][y]"),
        ("[x]: javascript:y", r"[x\]: javascript:y"),
        ("~~x~~", r"\~~x\~~"),
        ("&lt;x", r"\&lt;x"),
        ("R&D; a & b", r"R\&D; a & b"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        ("evil\u202egnp", "evil\ufffdgnp"),
        ("[0.1, 0.2] (n = 3)", "[0.1, 0.2] (n = 3)"),
    ],
)
def test_no_name_becomes_a_heading_a_link_or_a_command_of_a_terminal(name: str, shown: str) -> None:
    elements = [page.Lines((name,)), Bullets(name, [name])]
    assert page.markdown(elements) == f"{shown}\n\n{shown}\n\n- {shown}\n"
    assert "\x1b" not in named(name, name).html() + named(name, name).csv() + named(name, name).latex()


# --- footnotes --------------------------------------------------------------------------------------------------------

COLUMNS = st.lists(
    st.builds(
        lambda name, number, optional, group: (name, number, optional, group),
        st.integers(0, 999),
        st.sampled_from([None, 1]),
        st.booleans(),
        st.sampled_from(["", "Group"]),
    ),
    unique_by=lambda entry: entry[0],
    min_size=1,
    max_size=6,
)


def columns_of(entries: list[tuple[int, int | None, bool, str]]) -> list[Column]:
    return [
        Column(f"c{name}", f"c{name}", footnote=Footnote(f"note {name} ends", group), optional=optional)
        for name, _, optional, group in entries
    ]


@given(COLUMNS)
def test_a_footnote_is_printed_exactly_when_its_column_has_a_number(entries: Any) -> None:
    row = {f"c{name}": number for name, number, *_ in entries}
    said = " ".join(Table("", columns_of(entries), [row]).footnotes)
    for name, number, *_ in entries:
        assert (f"note {name} ends" in said) == (number is not None)


@given(COLUMNS, st.integers(0, 6), st.booleans(), st.sampled_from([None, 7]))
def test_a_column_more_changes_no_other(entries: Any, position: int, optional: bool, number: int | None) -> None:
    row = {**{f"c{name}": number for name, number, *_ in entries}, "new": number}
    before = Table("", columns_of(entries), [row])
    columns = columns_of(entries)
    columns.insert(position, Column("new", "new", optional=optional))
    after = Table("", columns, [row])
    assert after.footnotes == before.footnotes
    texts = dict(zip(*after.cells, strict=True))
    assert texts.pop("new", NOTHING) == (NOTHING if number is None else "7")
    assert texts == dict(zip(*before.cells, strict=True))


# --- the fairness table: a metric and a column more -------------------------------------------------------------------


def mean(value: float, short: str = "n=2") -> Row:
    return {"mean": value, "sd": None, "short": short}


def block_of(**fair: Row | None) -> Row:
    """One cell; what is not said of fairness has no number."""
    metrics = {**dict.fromkeys(fairness.METRICS), "fair_best_acc": mean(0.875)}
    own = {name: mean(0.01) for name in fairness.OWN}
    cell = {"method": "dm", "accuracy": mean(0.5), "test_images": 10_000, "fairness": {**metrics, **own, **fair}}
    return {"row_axes": ["ipc"], "num_classes": 10, "rows": [{"ipc": 1, "cells": {"dm": cell}}]}


AGAINST_FULL = {name: mean(0.25) for name in fairness.AGAINST_FULL}


def fairness_table(block: Row) -> Table:
    (table,) = fairness.FAIRNESS.elements(block)
    assert isinstance(table, Table)
    return table


@pytest.mark.parametrize("position", range(len(fairness._COLUMNS) + 1))
@pytest.mark.parametrize("fair", [{}, AGAINST_FULL, {"fair_persistent": mean(0.001)}])
def test_a_metric_in_the_middle_of_fairness_changes_nothing_else(
    monkeypatch: pytest.MonkeyPatch, position: int, fair: Row
) -> None:
    before = fairness_table(block_of(**fair))
    best = Column("best class", "cell.fairness.fair_best_acc", partial(plus_minus, digits=1), "%")
    monkeypatch.setattr(fairness, "_COLUMNS", [*fairness._COLUMNS[:position], best, *fairness._COLUMNS[position:]])
    after = fairness_table(block_of(**fair))
    assert after.footnotes == before.footnotes
    assert after.notes == before.notes
    texts = dict(zip(*after.cells, strict=True))
    assert texts.pop("best class %") == "87.5"
    assert texts == dict(zip(*before.cells, strict=True))
    said = after.markdown()
    assert ("Against the full-data models" in said) == ("fair_amplification" in fair)
    assert ("persistent:" in said) == ("fair_persistent" in fair)


def test_the_explanation_names_the_shown_columns_alone() -> None:
    (note,) = (
        note
        for note in fairness_table(block_of(fair_amplification=mean(1.5))).footnotes
        if note.startswith("Against the full-data models")
    )
    assert "amplification, how many times larger" in note
    assert not any(name in note for name in ("least kept", "slope", "rho"))


def test_numbers_of_fewer_seeds_say_so() -> None:
    table = fairness_table(block_of(fair_hardness_slope=mean(1.25, "n=1")))
    assert dict(zip(*table.cells, strict=True))["slope"] == "1.25 [n=1]"
    assert "[n]: of these seeds alone, as the others have no such number." in table.notes
    assert not any("[n]" in str(note) for note in fairness_table(block_of(**AGAINST_FULL)).notes)


def test_no_section_counts_columns() -> None:
    """The old mistake: ``always=7``, ``range(7, 11)``, ``row[11]``. Rows are mappings; the first and the last of a list
    of values, and the two parts of a pair, are all that a number may address."""
    for file in sorted(Path(ddray.report.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                assert not isinstance(node.slice.value, int) or node.slice.value <= 1, where
            if isinstance(node, ast.Call):
                counted = ast.unparse(node.func) == "range" and all(
                    isinstance(each, ast.Constant) for each in node.args
                )
                assert not counted, where
                assert not any(word.arg == "always" for word in node.keywords), where
    with pytest.raises(AttributeError):
        Column("x", "0").text([1, 2])  # type: ignore[arg-type]


# --- a section is one file --------------------------------------------------------------------------------------------

SECTION = """
from ddray.report.sections import BlockSection
from ddray.report.table import Column
from ddray.report.words import cell_table, cells_of

def _elements(block):
    yield cell_table("Points of a cell", block["row_axes"], cells_of(block), [Column("points", "cell.new_section")])

NEW = BlockSection(id="new_section", order=25, cell_facts=lambda cell, numbers: len(cell.points), elements=_elements)
"""


@pytest.fixture
def one_file_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "sections").mkdir()
    (tmp_path / "sections" / "new_section.py").write_text(SECTION, encoding="utf-8")
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path / "sections")])
    yield
    sys.modules.pop("ddray.report.sections.new_section", None)


@pytest.mark.usefixtures("one_file_more")
def test_a_table_more_is_one_file(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, worlds.SWEEP)
    worlds.fill(store, plan)
    collect(plan, sweep, store, tmp_path / "results")
    (block,) = machine_report(tmp_path / "results")["blocks"]
    assert block["rows"][0]["cells"]["dm"]["new_section"] == 6
    text = report(tmp_path / "results")
    order = ["### Fairness between classes", "### Points of a cell", "### Against random images"]
    assert sorted(order, key=text.index) == order


def test_no_section_imports_another() -> None:
    for section in sections.all_sections():
        assert section.elements is not None
    for file in sorted(Path(sections.__file__).parent.glob("*.py")):
        imported = re.findall(r"from ddray\.report\.sections\.(\w+) import", file.read_text(encoding="utf-8"))
        assert not imported, file.name
