"""The report of a sweep: the facts of all sections as JSON types, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ddray.errors import EnvironmentProblem
from ddray.measurements.coverage import Coverage
from ddray.measurements.reading import Numbers, read_numbers, read_points, read_provenance
from ddray.plan.axes import in_report
from ddray.report import page
from ddray.report.comparable import BLOCK_AXES, ROW_AXES, SAME_IN_BLOCK, SAME_IN_CELL, ReportBlock, arrange, show_null
from ddray.report.figures import pictures
from ddray.report.page import Element, Heading
from ddray.report.sections import BlockSection, Measured, Section, SweepSection, all_sections
from ddray.report.table import Facts
from ddray.results import MEASUREMENTS_FILE

_OF_POINT = (
    *("schema_version", "point", "method", "value", "n", "param_json", "numerics", "status", "class_ids", "model_hash"),
    *(*in_report("repeat"), *BLOCK_AXES, *ROW_AXES, *SAME_IN_CELL, *SAME_IN_BLOCK),
)
"""Columns read for every point."""


def machine_report(folder: Path) -> dict[str, Any]:
    """What ``report`` says, as JSON types: fractions, seconds, names.

    Args:
        folder: ``results/<sweep>``, which holds ``measurements.parquet`` and ``coverage.json``.

    Raises:
        EnvironmentProblem: One of the files is missing or not readable.
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    sections = all_sections()
    measured = _read(folder, sections)
    report: dict[str, Any] = {"sweep": measured.sweep, "digest": measured.coverage.digest}
    of_blocks = [section for section in sections if isinstance(section, BlockSection)]
    report["blocks"] = [_block_facts(block, of_blocks, measured.numbers) for block in measured.blocks]
    for section in sections:
        if isinstance(section, SweepSection) and section.facts is not None:
            report[section.id] = section.facts(measured, report)
    report["alarms"] = list(_alarms(sections, report, measured))
    return report


def report(folder: Path) -> str:
    """The report of a sweep, in Markdown.

    Args:
        folder: As for ``machine_report``, which raises the same.
    """
    return page_of(machine_report(folder))


def page_of(facts: Facts) -> str:
    """The same, of what ``machine_report`` says."""
    return page.markdown(elements_of(facts))


def _read(folder: Path, sections: Iterable[Section]) -> Measured:
    coverage = Coverage.load(folder)
    path = folder / MEASUREMENTS_FILE
    plain, detailed, prefixes, by_class = (
        [name for section in sections for name in getattr(section, kind)]
        for kind in ("plain", "detailed", "prefixes", "by_class")
    )
    try:
        points = read_points(path, _OF_POINT)
        provenance = read_provenance(path)
        numbers = read_numbers(path, plain, detailed, tuple(prefixes), by_class)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise EnvironmentProblem(
            f"{path}: the measurements cannot be read; got {error}. Run `ddray collect` to make them again."
        ) from error
    show_null(points)
    return Measured(coverage, provenance, points, numbers, arrange(points, coverage.sweep))


def _alarms(sections: Iterable[Section], report: Facts, measured: Measured) -> Iterator[str]:
    for section in sections:
        match section:
            case BlockSection():
                for block in report["blocks"]:
                    yield from section.alarms(block)
            case SweepSection():
                yield from section.alarms(report, measured)


# --- blocks -----------------------------------------------------------------------------------------------------------


def _block_facts(block: ReportBlock, sections: Iterable[BlockSection], numbers: Numbers) -> dict[str, Any]:
    first = block.points[0]
    facts: dict[str, Any] = {
        "title": block.title,
        **{name: first[name] for name in (*BLOCK_AXES, *SAME_IN_BLOCK)},
        "protocol_changes": first["param"].get("protocol_changes", {}),
        "row_axes": list(block.axes),
        "methods": block.variants,
    }
    facts |= {section.id: section.facts(block, numbers) for section in sections if section.facts is not None}
    of_cells = {section.id: section.cell_facts for section in sections if section.cell_facts is not None}
    for row, cells in zip(facts["rows"], block.rows.values(), strict=True):
        for cell in cells:
            row["cells"][cell.variant] |= {key: of_cell(cell, numbers) for key, of_cell in of_cells.items()}
    return facts


# --- the page ---------------------------------------------------------------------------------------------------------


def elements_of(report: Facts, *, long: bool = False) -> Iterator[Element]:
    """The report in the order in which it is read.

    Args:
        report: From ``machine_report``.
        long: With what Markdown leaves out.
    """
    sections = [section for section in all_sections() if long or not section.long]
    yield Heading(report["sweep"], 1)
    yield from _of_sweep(sections, report, before_blocks=True)
    for number, block in enumerate(report["blocks"], 1):
        yield Heading(block["title"])
        for section in sections:
            if isinstance(section, BlockSection) and section.applies(block):
                yield from _titled(section, 3, block, f"block-{number}-")
    yield from _of_sweep(sections, report, before_blocks=False)


def _of_sweep(sections: Iterable[Section], report: Facts, before_blocks: bool) -> Iterator[Element]:
    for section in sections:
        if isinstance(section, SweepSection) and (section.order < 0) == before_blocks:
            yield from _titled(section, 2, report, "")


def _titled(section: Section, level: int, facts: Facts, prefix: str) -> Iterator[Element]:
    elements = list(section.elements(facts))
    if elements and section.title:
        yield Heading(section.title, level)
    begun = next((at for at, element in enumerate(elements) if not isinstance(element, Heading)), 0)
    yield from elements[:begun]
    yield from pictures(section.id, facts, prefix)
    yield from elements[begun:]
