"""A table of a report: columns that know everything about themselves, and one object for every format.

A column holds its title, how a row gives its value, how the value is printed, its footnote, and whether it is left out
where no row has a number. Nothing addresses a column by its position, so that adding one changes nothing else.

Texts (titles, cells, notes) are plain. Each format escapes what is special in it, so that a name that a user chose
cannot change the table. The only mark-up is a pair of backquotes around a name of code.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Facts = Mapping[str, Any]
"""What a report says, as JSON types: fractions, seconds, names."""
NOTHING = "–"
"""A cell without a number."""


class Bullets(NamedTuple):
    """A list with a line above it."""

    lead: str
    entries: Sequence[str]
    role: Literal["", "short", "alarms"] = ""
    """What a page sets apart: the answer in short, alarms."""


class Footnote(NamedTuple):
    """What a column means, where its title does not say it."""

    text: str
    group: str = ""
    """Footnotes of one group share a line, which begins with the group's name."""


@dataclass(frozen=True)
class Column:
    """One column of a table whose rows are facts."""

    title: str
    value: str | Callable[[Facts], Any]
    """Where in a row it stands (``"fairness.fair_worst_acc"``), or how it follows from it. None: a dash is printed."""
    format: Callable[[Any], str] = str
    """Of a value that is not None."""
    unit: str = ""
    footnote: Footnote | None = None
    """Printed where the column is shown and has a number."""
    optional: bool = False
    """Left out where no row has a number."""
    links: Callable[[Facts], Sequence[tuple[str, str]]] | None = None
    """On a page: what the cell of a row consists of, each part with the address that it leads to."""

    @property
    def heading(self) -> str:
        """``worst class %``."""
        return f"{self.title} {self.unit}".rstrip()

    def text(self, row: Facts) -> str:
        """The cell of a row."""
        value = self.value(row) if callable(self.value) else _at(row, self.value)
        return NOTHING if value is None else self.format(value)

    def filled(self, rows: Sequence[Facts]) -> bool:
        """Whether a row has a number."""
        return any(self.text(row) not in ("", NOTHING) for row in rows)


def _at(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = None if row is None else row.get(name)
    return row


@dataclass(frozen=True)
class Table:
    """Rows, the columns they are shown in, and what stands below them."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Facts]
    notes: Sequence[str | Bullets] = ()
    """About the table as a whole; the footnotes of its columns follow them."""
    words: Mapping[str, str] = field(default_factory=dict)
    """A word that cells may hold -> what it means there; printed last, where a cell holds it."""

    @property
    def shown(self) -> list[Column]:
        """The columns that are printed."""
        return [column for column in self.columns if not column.optional or column.filled(self.rows)]

    @property
    def footnotes(self) -> list[str]:
        """One line for each footnote, or group of them, of a column with a number."""
        notes = [column.footnote for column in self.shown if column.footnote and column.filled(self.rows)]
        lines: dict[str, None] = {}
        for note in notes:
            together = dict.fromkeys(each.text for each in notes if each.group == note.group)
            lines[f"{note.group}: {'; '.join(together)}." if note.group else note.text] = None
        return list(lines)

    @property
    def explained(self) -> list[str]:
        """What words in its cells mean."""
        texts = [text for line in self.cells[1:] for text in line]
        return [meaning for word, meaning in self.words.items() if any(word in text for text in texts)]

    @property
    def cells(self) -> list[list[str]]:
        """The headings, and the texts of each row."""
        shown = self.shown
        return [[column.heading for column in shown], *([column.text(row) for column in shown] for row in self.rows)]

    def markdown(self) -> str:
        """With columns padded to equal widths, so that it is readable in a terminal too."""
        heading, *rows = [[markdown_text(text) for text in line] for line in self.cells]
        widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        parts = ["\n".join([line(heading), rule, *map(line, rows)])]
        if notes := list(self._notes("- ")):
            parts.append("\n".join(map(markdown_text, notes)))
        return "\n\n".join([f"### {markdown_text(self.title)}", *parts] if self.title else parts)

    def csv(self) -> str:
        """The cells as printed, without title and notes; for numbers read ``measurements.parquet`` instead."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(map(_plain_text, line) for line in self.cells)
        return file.getvalue()

    def latex(self) -> str:
        """A ``table`` environment in the style of the package ``booktabs``."""
        heading, *rows = [" & ".join(map(latex_text, line)) + r" \\" for line in self.cells]
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(self.title)}}}"]
        lines += [rf"\begin{{tabular}}{{{'l' * len(self.shown)}}}", r"\toprule", heading, r"\midrule", *rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par\footnotesize {latex_text(note)}" for note in self._notes("")]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def html(self) -> str:
        """A ``table`` element; its notes are the ``tfoot``."""
        heading, *rows = [[html_text(text) for text in line] for line in self.cells]
        for at, column in enumerate(self.shown):
            if column.links is not None:
                for row, facts in zip(rows, self.rows, strict=True):
                    row[at] = ", ".join(_html_link(*part) for part in column.links(facts))
        lines = ["<table>", f"<caption>{html_text(self.title)}</caption>"]
        lines.append("<thead><tr>" + "".join(f"<th>{text}</th>" for text in heading) + "</tr></thead>")
        body = ("<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>" for row in rows)
        lines += ["<tbody>", *body, "</tbody>"]
        if notes := "<br>".join(map(html_text, self._notes(""))):
            lines.append(f'<tfoot><tr><td colspan="{len(heading)}">{notes}</td></tr></tfoot>')
        return "\n".join([*lines, "</table>"]) + "\n"

    def _notes(self, bullet: str) -> Iterator[str]:
        for note in (*self.notes, *self.footnotes, *self.explained):
            if isinstance(note, str):
                yield note
            else:
                yield note.lead
                yield from (bullet + entry for entry in note.entries)


# --- escaping ---------------------------------------------------------------------------------------------------------

# A report is read in terminals too. Only what would change its structure is escaped: a star or an underscore inside
# or at the end of a word opens no emphasis, and ``quick*`` is a name of ours.
_MARKDOWN = re.compile(r"[\\|<`]|\*(?=\w)|(?<!\w)_(?=\w)|\](?=[(\[:])|~(?=~)|&(?=#?\w+;)")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of showing them."""

_LATEX: Mapping[str, str] = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "`": r"\textasciigrave{}",
    **{character: f"{{{character}}}" for character in "[*"},  # first in a row, they would belong to the break before it
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "²": r"$^2$",
    "–": "--",
}


def _plain_text(text: str) -> str:
    return _escaped(text, str, str)


def markdown_text(text: str) -> str:
    """Escaped for Markdown, in one line."""

    def code(name: str) -> str:
        if "\\|" in name:  # there is no way to write both between backquotes in a cell
            return _MARKDOWN.sub(r"\\\g<0>", name)
        return "`" + name.replace("|", r"\|") + "`"  # a backslash is itself here, but a pipe would still end the cell

    return _escaped(text, lambda plain: _MARKDOWN.sub(r"\\\g<0>", plain), code)


def latex_text(text: str) -> str:
    """Escaped for LaTeX."""

    def escape(plain: str) -> str:
        return "".join(_LATEX.get(character, character) for character in plain)

    return _escaped(text, escape, lambda name: rf"\texttt{{{escape(name)}}}")


def _html_link(text: str, address: str) -> str:
    return f'<a href="{html.escape(address)}">{html_text(text)}</a>'


def html_text(text: str) -> str:
    """Escaped for HTML."""
    return _escaped(text, html.escape, lambda name: f"<code>{html.escape(name)}</code>")


def _escaped(text: str, escape: Callable[[str], str], code: Callable[[str], str]) -> str:
    """One line; what stands between a pair of backquotes goes through ``code``, the rest through ``escape``."""
    shown = _CONTROL.sub("\ufffd", " ".join(text.expandtabs(1).splitlines()))
    parts = re.split(r"`([^`]+)`", shown)  # plain, name, plain, name, ..., plain
    return "".join(code(part) if index % 2 else escape(part) for index, part in enumerate(parts))
