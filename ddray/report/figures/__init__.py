"""The figures of a report. Every file here holds one or more records, and the report finds them by itself.

    accuracy.py    test accuracy by images per class, beside the paper's and the full data's
    hours.py       test accuracy by the time that a set took to distil
    networks.py    test accuracy by network that is trained, one panel for each number of images
    fairness.py    how unequally classes are treated, against accuracy
    variance.py    variance over classes of loss and of accuracy, by images per class
    classes.py     accuracy of each class, and what it keeps of the full data's
    robustness.py  accuracy within each budget of an attack, beside the full-data model's
    tradeoff.py    the strongest attack's AUC against the accuracy of what it attacks
    privacy.py     the AUCs of every attack of the panel, with the null band
    roc.py         the strongest attacks at low false positive rates, with the null band

A figure is a function from a report's facts to tidy rows, and one that draws rows. What it draws is what its CSV holds.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ddray.report.drawing import Canvas
from ddray.report.page import Picture
from ddray.report.table import Facts

Rows = Sequence[Mapping[str, Any]]


class Drawing(NamedTuple):
    """One figure of some facts."""

    title: str
    rows: Rows
    """One for each thing that is drawn, with the same keys."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A kind of figure."""

    id: str
    """Of its files."""
    beside: str
    """The section whose tables it stands above (``Section.id``)."""
    reading: str
    """How to read it, in a line."""
    drawings: Callable[[Facts], Iterator[Drawing]]
    """What there is to draw, of the facts that the section prints; nothing where there are no numbers."""
    draw: Callable[[Canvas, Rows], None]


@functools.cache
def all_figures() -> list[Figure]:
    """By name of their files."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Figure)]


def pictures(section: str, facts: Facts, prefix: str) -> Iterator[Picture]:
    """The figures that stand beside a section.

    Args:
        section: Its id.
        facts: What it prints: those of a block, or of the whole report.
        prefix: Of the names of their files.
    """
    for figure in all_figures():
        if figure.beside == section:
            for number, drawing in enumerate(figure.drawings(facts), 1):
                name = f"{prefix}{figure.id}" + (f"-{number}" if number > 1 else "")
                yield Picture(name, drawing.title, figure.reading, drawing.rows, figure.draw)
