"""What a finished report leaves in the results folder: the page for a terminal, that for a browser, the figures.

results/<sweep>/report.md             Markdown
                report.html           one file with figures and distilled images, which asks nothing of the network
                figures/NAME.svg,.csv each figure, and the numbers it was drawn from; .png and .pdf on request
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ddray.atomic import replacing
from ddray.errors import DdrayError
from ddray.report.drawing import drawn
from ddray.report.html import SetPicture, html_page
from ddray.report.maps import map_pictures
from ddray.report.page import Element, Heading, Lines, Picture, markdown
from ddray.report.report import elements_of, machine_report
from ddray.results import FIGURES_FOLDER, REPORT_HTML, REPORT_MD


def write_report(folder: Path, sweep: str, sets: Sequence[SetPicture] = ()) -> None:
    """Build all files from ``measurements.parquet`` and ``embeddings.parquet``. What cannot be rendered honestly is
    said in its place.

    Args:
        folder: ``results/<sweep>``.
        sweep: Its name.
        sets: Pictures of distilled sets.
    """
    try:
        facts = machine_report(folder)
        maps = map_pictures(folder)
        last: list[Element] = [Heading("Maps of images"), *maps] if maps else []
        brief, whole = [*elements_of(facts), *last], [*elements_of(facts, long=True), *last]
    except DdrayError as refused:  # the tables stand
        brief = whole = list[Element]([Heading(sweep, 1), Lines((f"No report: {refused}",))])
        sets = ()
    content = _figures(whole, ("svg",))
    page = html_page(whole, sets, lambda picture: content[f"{picture.name}.svg"])
    for name, text in ((REPORT_MD, markdown(brief)), (REPORT_HTML, page)):
        with replacing(folder / name) as file:
            file.write_text(text, encoding="utf-8")
    _replace(folder / FIGURES_FOLDER, content)


def write_figures(elements: Iterable[Element], folder: Path, formats: Iterable[str]) -> list[Path]:
    """Build ``figures/`` anew.

    Args:
        elements: Of the report.
        folder: ``results/<sweep>``.
        formats: Of ``drawing.FORMATS``.

    Returns:
        The files.
    """
    content = _figures(elements, formats)
    _replace(folder / FIGURES_FOLDER, content)
    return [folder / FIGURES_FOLDER / name for name in content if not name.endswith(".csv")]


def _figures(elements: Iterable[Element], formats: Iterable[str]) -> dict[str, bytes]:
    """Names and content of the files of all figures."""
    content: dict[str, bytes] = {}
    for picture in (element for element in elements if isinstance(element, Picture)):
        content[f"{picture.name}.csv"] = picture.csv().encode()
        canvas = drawn(picture.draw, picture.rows)
        content |= {f"{picture.name}.{form}": canvas.written(form) for form in formats}
    return content


def _replace(target: Path, content: Mapping[str, bytes]) -> None:
    """A folder's files, one by one: two runs may build them at the same time."""
    for name, data in content.items():
        with replacing(target / name) as file:
            file.write_bytes(data)
    for old in target.glob("[!.]*") if target.is_dir() else ():
        if old.name not in content:
            old.unlink(missing_ok=True)
