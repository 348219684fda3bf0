"""The parts of a report. Every file here holds one or more records, and the report finds them by itself.

    short.py           the answer in short: a sentence for each property
    accuracy.py        a block's test accuracy beside the paper's Table 3, and against random images
    field.py           the same beside what other publications print
    labels.py          images and labels apart, where a teacher labels some of the sets
    guarantees.py      what mechanisms with noise state of themselves
    classes.py         accuracy of each class, for figures
    fairness.py        how unequally its models treat the classes
    robustness.py      accuracy under adversarial attacks
    generalisation.py  against the full data, other networks, real images of equal accuracy; rankings of networks
    embedding.py       where its distilled images lie among real ones
    further.py         numbers whose records ask for a column and that no other table shows
    privacy.py         membership inference: tables across blocks, beside the paper's Tables 1 and 2
    contrasts.py       whether the methods differ over all cells
    agreement.py       which cells agree with the paper's Table 3, and what that verdict is worth
    claims.py          the paper's claims C1 to C20, each with its contrasts and what the sweep says of it
    again.py           the command that computes a cell, and its keys
    frame.py           what stands around them: coverage, provenance, alarms, borrowed settings, flags, failures

A new part is a new file with a record. It does not import other parts; what several need stands a folder above.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ddray.measurements.coverage import Coverage
from ddray.measurements.reading import Numbers, Row
from ddray.report.comparable import Cell, ReportBlock
from ddray.report.page import Element
from ddray.report.table import Facts


@dataclass(frozen=True)
class Measured:
    """What a report is made of."""

    coverage: Coverage
    provenance: Facts
    points: list[Row]
    numbers: Numbers
    blocks: list[ReportBlock]

    @property
    def sweep(self) -> str:
        """The name of the sweep."""
        return self.coverage.sweep


def _no_alarms(*_: Any) -> list[str]:
    return []


def _always(_: Facts) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a report: the metrics it reads, what it says as JSON types, and how that is printed."""

    id: str
    """Its key in ``ddray report --json``, if it has facts of its own."""
    order: int
    """Where it and its alarms stand among the others: below 0 before the blocks, above 100 after them."""
    title: str = ""
    """The heading above it; empty where its tables have headings."""
    plain: Sequence[str] = ()
    """Metrics of which a point has one number."""
    detailed: Sequence[str] = ()
    """Metrics of which a point has several numbers, told apart by parameters, or whose intervals are shown."""
    prefixes: Sequence[str] = ()
    """Of names of further detailed metrics."""
    by_class: Sequence[str] = ()
    """Metrics of which a point has a number for each class."""
    long: bool = False
    """Whether Markdown, which stays short, is without it."""
    elements: Callable[[Facts], Iterable[Element]]
    """What is printed, of the facts of a block or of the whole report; nothing: the section is left out."""


@dataclass(frozen=True, kw_only=True)
class BlockSection(Section):
    """A part that every block has."""

    cell_facts: Callable[[Cell, Numbers], Any] | None = None
    """Stand in each cell of the block's rows."""
    facts: Callable[[ReportBlock, Numbers], Any] | None = None
    """Stand in the block."""
    alarms: Callable[[Facts], Iterable[str]] = _no_alarms
    """Of a block's facts: what makes its numbers doubtful."""
    applies: Callable[[Facts], bool] = _always
    """Whether a block with these facts has the section."""


@dataclass(frozen=True, kw_only=True)
class SweepSection(Section):
    """A part that the report has once."""

    facts: Callable[[Measured, Facts], Any] | None = None
    """Of the measurements, and of the facts of the sections before it."""
    alarms: Callable[[Facts, Measured], Iterable[str]] = _no_alarms
    """Of the report's facts: what makes its numbers doubtful."""


def all_sections() -> list[Section]:
    """The parts of a report in order: those of the sweep below 0, those of each block below 100, those of the sweep."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    sections = (value for module in modules for value in vars(module).values() if isinstance(value, Section))
    return sorted(sections, key=lambda section: (section.order, section.id))
