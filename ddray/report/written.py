"""What a finished report leaves in the results folder: the page for a terminal, that for a browser, the figures.

results/<sweep>/report.md             Markdown
                report.html           one file with figures and distilled images, which asks nothing of the network
                figures/NAME.svg,.csv each figure, and the numbers it was drawn from; .png and .pdf on request
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ddray.atomic import replacing
from ddray.errors import DdrayError
from ddray.report.drawing import drawn
from ddray.report.html import SetPicture, html_page
from ddray.report.page import FIGURES_FOLDER, REPORT_HTML, REPORT_MD, Element, Heading, Lines, Picture, markdown
from ddray.report.report import elements_of, machine_report


def write_report(folder: Path, sweep: str, sets: Sequence[SetPicture] = ()) -> None:
    """Build all files from ``measurements.parquet``. What cannot be rendered honestly is said in its place.

    Args:
        folder: ``results/<sweep>``.
        sweep: Its name.
        sets: Pictures of distilled sets.
    """
    try:
        elements = list(elements_of(machine_report(folder)))
    except DdrayError as refused:  # the tables stand
        elements = [Heading(sweep, 1), Lines((f"No report: {refused}",))]
        sets = ()
    for name, text in ((REPORT_MD, markdown(elements)), (REPORT_HTML, html_page(elements, sets))):
        with replacing(folder / name) as file:
            file.write_text(text, encoding="utf-8")
    write_figures(elements, folder, ("svg",))


def write_figures(elements: Iterable[Element], folder: Path, formats: Iterable[str]) -> list[Path]:
    """Build ``figures/`` anew.

    Args:
        elements: Of the report.
        folder: ``results/<sweep>``.
        formats: Of ``drawing.FORMATS``.

    Returns:
        The files.
    """
    pictures = [element for element in elements if isinstance(element, Picture)]
    target = folder / FIGURES_FOLDER
    if not pictures:
        shutil.rmtree(target, ignore_errors=True)
        return []
    names = []
    with replacing(target) as made:
        made.mkdir()
        for picture in pictures:
            (made / f"{picture.name}.csv").write_text(picture.csv(), encoding="utf-8")
            canvas = drawn(picture.draw, picture.rows)
            for form in formats:
                (made / f"{picture.name}.{form}").write_bytes(canvas.written(form))
                names.append(f"{picture.name}.{form}")
    return [target / name for name in names]
