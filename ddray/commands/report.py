"""A sweep's report, on the terminal and in other formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddray.errors import RequestError
from ddray.report.drawing import FORMATS
from ddray.report.html import html_page
from ddray.report.page import Heading, first_page, markdown
from ddray.report.report import elements_of, machine_report
from ddray.report.sections.claims import claims_table
from ddray.report.table import Table
from ddray.report.written import write_figures
from ddray.results import MEASUREMENTS_FILE, REPORT_HTML


def report_text(prepared: Any, folder: Path, form: str | None, full: bool, claims: bool = False) -> str:
    """What is printed.

    Args:
        prepared: The sweep.
        folder: Its results.
        form: ``md``, ``csv``, ``latex``, ``html``, ``json``; None: for a terminal.
        full: For a terminal, all of it.
        claims: Only the paper's claims.

    Raises:
        RequestError: There are no results yet.
    """
    facts = _facts(prepared, folder)
    if form == "json":
        return json.dumps(facts["claims"] if claims else facts, sort_keys=True) + "\n"
    elements = [claims_table(facts["claims"])] if claims else list(elements_of(facts, long=form == "html"))
    full = full or claims
    if form == "html":
        return html_page(elements)
    if form in ("csv", "latex"):
        return "\n".join(_tables(elements, form))
    page = markdown(elements)
    if form == "md" or full:
        return page
    more = (
        f"figures and tables: {folder / REPORT_HTML}\ntables here:        ddray report {prepared.sweep.name} --full\n"
    )
    return f"{first_page(page)}\n{more}"


def figures_text(prepared: Any, folder: Path) -> str:
    """Draw the figures in all formats; their names.

    Raises:
        RequestError: There are no results yet.
    """
    made = write_figures(elements_of(_facts(prepared, folder)), folder, FORMATS)
    return "".join(f"{path}\n" for path in made) or "no figures: nothing to draw yet\n"


def _facts(prepared: Any, folder: Path) -> dict[str, Any]:
    if not (folder / MEASUREMENTS_FILE).exists():
        raise RequestError(
            [f"{prepared.sweep.name}: no results yet in {folder}. Run: ddray sweep {prepared.request.path}"]
        )
    return machine_report(folder)


def _tables(elements: list[Any], form: str) -> Iterator[str]:
    """Each table, below a comment that says where it stands in the report."""
    sign = "#" if form == "csv" else "%"
    where = ""
    for element in elements:
        if isinstance(element, Heading) and element.level == 2:
            where = element.text
        if isinstance(element, Table) and element.rows:
            said = "" if form == "latex" else f"{sign} {element.title}\n"
            yield f"{sign} {where}\n{said}{element.csv() if form == 'csv' else element.latex()}"
