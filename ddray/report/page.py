"""What a report consists of: headings, lines, lists, tables and pictures. Rendered to Markdown here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ddray.report.table import Bullets, Table, markdown_text
from ddray.results import FIGURES_FOLDER

if TYPE_CHECKING:
    from ddray.report.drawing import Canvas


class Heading(NamedTuple):
    """A heading; level 1 is the title of the page."""

    text: str
    level: int = 2


class Lines(NamedTuple):
    """Sentences, each on a line of its own."""

    texts: tuple[str, ...]


class Picture(NamedTuple):
    """A figure: what it shows as rows, and how they are drawn."""

    name: str
    """Of its files, without a suffix."""
    title: str
    reading: str
    """How to read it, in a line."""
    rows: Sequence[Mapping[str, Any]]
    """What is drawn, with the same keys each."""
    draw: Callable[[Canvas, Sequence[Mapping[str, Any]]], None]

    def csv(self) -> str:
        """The rows."""
        file = io.StringIO()
        writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()


Element = Heading | Lines | Bullets | Table | Picture


def markdown(elements: Iterable[Element]) -> str:
    """A page that is also readable in a terminal."""
    return "\n\n".join(map(_markdown, elements)) + "\n"


def first_page(text: str) -> str:
    """The beginning of a report in Markdown: in short, coverage, where numbers come from, alarms."""
    return "\n## ".join(text.split("\n## ")[:2]).strip() + "\n"


def _markdown(element: Element) -> str:
    match element:
        case Heading(text, level):
            return f"{'#' * level} {markdown_text(text)}"
        case Lines(texts):
            return "\n".join(map(_line, texts))
        case Bullets(lead, entries, _):
            bullets = "\n".join(f"- {_line(entry)}" for entry in entries)
            return f"{_line(lead)}\n\n{bullets}" if lead else bullets
        case Table():
            return element.markdown()
        case Picture(name, title, reading):
            return f"![{markdown_text(title)}]({FIGURES_FOLDER}/{name}.svg)\n\n{_line(reading)}"


def _line(text: str) -> str:
    """A line of its own, whose first characters make it neither a heading nor a quotation nor an entry of a list."""
    return re.sub(r"^([0-9]*)(?=(#{1,6}|[-+*=]+|(?<=[0-9])[.)])(\s|$)|>)", r"\1\\", markdown_text(text.strip()))
