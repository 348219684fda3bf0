"""What a report consists of: headings, lines, lists and tables. Rendered to Markdown here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ddray.report.table import Bullets, Table, markdown_text


class Heading(NamedTuple):
    """A heading; level 1 is the title of the page."""

    text: str
    level: int = 2


class Lines(NamedTuple):
    """Sentences, each on a line of its own."""

    texts: tuple[str, ...]


Element = Heading | Lines | Bullets | Table


def markdown(elements: Iterable[Element]) -> str:
    """A page that is also readable in a terminal."""
    return "\n\n".join(map(_markdown, elements)) + "\n"


def _markdown(element: Element) -> str:
    match element:
        case Heading(text, level):
            return f"{'#' * level} {markdown_text(text)}"
        case Lines(texts):
            return "\n".join(map(_line, texts))
        case Bullets(lead, entries):
            bullets = "\n".join(f"- {_line(entry)}" for entry in entries)
            return f"{_line(lead)}\n\n{bullets}" if lead else bullets
        case Table():
            return element.markdown()


def _line(text: str) -> str:
    """A line of its own, whose first characters make it neither a heading nor a quotation nor an entry of a list."""
    return re.sub(r"^([0-9]*)(?=(#{1,6}|[-+*=]+|(?<=[0-9])[.)])(\s|$)|>)", r"\1\\", markdown_text(text.strip()))
