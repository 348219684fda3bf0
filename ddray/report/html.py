"""A report as one HTML file: no script, no request to anywhere, light and dark, for a phone, a screen and paper."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ddray.report.drawing import drawn, inline_svg
from ddray.report.page import Element, Heading, Lines, Picture
from ddray.report.table import Bullets, Table, html_text
from ddray.results import FIGURES_FOLDER


class SetPicture(NamedTuple):
    """The images of a distilled set."""

    title: str
    png: bytes


_CSS = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5b6570; --line: #d9dee4; --back: #fff; --card: #f6f8fa;
  --mark: #0b63a5; --warn: #8a3b00; --warn-back: #fff4e5 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --soft: #9aa5b1; --line: #323a44; --back: #12161b;
  --card: #1a2027; --mark: #6db5f2; --warn: #ffc48a; --warn-back: #33230f } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem }
h1 { font-size: 1.7rem; margin: 0 0 1rem } h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-top: .6rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere } h3 { font-size: 1.05rem; margin: 1.8rem 0 .6rem }
p, ul { margin: .5rem 0; max-width: 64rem } ul { padding-left: 1.2rem } li { margin: .25rem 0 }
a { color: var(--mark) } code { font: .88em ui-monospace, monospace; overflow-wrap: anywhere }
nav { font-size: .9rem; color: var(--soft); margin: 0 0 1.2rem } nav a { margin-right: 1rem; display: inline-block }
.short { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .4rem 1.2rem .7rem }
.short ul { list-style: none; padding: 0; max-width: none } .short li { margin: .6rem 0 }
.alarms { background: var(--warn-back); color: var(--warn); border-radius: .6rem; padding: .4rem 1.2rem;
  margin: 1rem 0 }
.scroll { overflow-x: auto; margin: 1.2rem 0 } table { border-collapse: collapse; font-size: .86rem;
  font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: 0 0 .5rem; font-size: .95rem }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600 } tfoot td { white-space: normal; border: 0; color: var(--soft);
  font-size: .95em; padding-top: .6rem }
tfoot div { max-width: min(64rem, calc(100vw - 4rem)); position: sticky; left: 0 }
figure { margin: 1.2rem 0; } figure svg { width: 100%; height: auto; display: block }
figcaption { font-size: .86rem; color: var(--soft); max-width: 64rem } figcaption b { color: var(--ink) }
.sets { display: flex; flex-wrap: wrap; align-items: start; gap: 1.4rem } .sets figure { margin: 0; max-width: 100% }
.sets img { height: 22rem; max-width: 100%; image-rendering: pixelated; display: block }
.sets figcaption { max-width: 22rem; width: min-content; min-width: max(100%, 6rem) }
@media (max-width: 30rem) { body { font-size: 15px } th, td { padding-right: .6rem } }
@media print { body { background: #fff; color: #000; font-size: 10pt } nav { display: none } h2 { break-after: avoid }
  figure, tr { break-inside: avoid } .scroll { overflow: visible } td, th { white-space: normal } }
"""


Svg = Callable[[Picture], bytes]


def _svg(picture: Picture) -> bytes:
    return drawn(picture.draw, picture.rows).written("svg")


def html_page(elements: Iterable[Element], sets: Sequence[SetPicture] = (), svg: Svg = _svg) -> str:
    """The page.

    Args:
        elements: Of the report; the first heading is its title.
        sets: Shown at the end.
        svg: Gives a figure that may have been drawn already.
    """
    known = list(elements)
    title = next((each.text for each in known if isinstance(each, Heading) and each.level == 1), "report")
    body = "\n".join(_parts(known, sets, svg))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html_text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<style>{_CSS}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def _parts(elements: Sequence[Element], sets: Sequence[SetPicture], svg: Svg) -> Iterator[str]:
    chapters = [each for each in elements if isinstance(each, Heading) and each.level == 2]
    links = [f'<a href="#part-{number}">{html_text(each.text)}</a>' for number, each in enumerate(chapters)]
    links += ['<a href="#sets">Distilled images</a>'] if sets else []
    number = 0
    for element in elements:
        match element:
            case Heading(text, 1):
                yield f"<h1>{html_text(text)}</h1><nav>{''.join(links)}</nav>"
            case Heading(text, 2):
                yield f'<h2 id="part-{number}">{html_text(text)}</h2>'
                number += 1
            case Picture():
                yield _figure(element, svg(element))
            case _:
                yield _rendered(element)
    if sets:
        yield _sets(sets)


def _rendered(element: Heading | Lines | Bullets | Table) -> str:
    match element:
        case Heading(text, level):
            return f"<h{level}>{html_text(text)}</h{level}>"
        case Lines(texts):
            return "".join(f"<p>{html_text(text)}</p>" for text in texts)
        case Bullets(lead, entries, role):
            items = "".join(f"<li>{_emphasised(entry)}</li>" for entry in entries)
            listed = (f"<p>{html_text(lead)}</p>" if lead else "") + f"<ul>{items}</ul>"
            return f'<div class="{role}">{listed}</div>' if role else listed
        case Table():
            return f'<div class="scroll">{_wide(element.html())}</div>'


def _emphasised(entry: str) -> str:
    """``Accuracy: ...``: a single word before the first colon is what the entry is about."""
    name, colon, rest = entry.partition(": ")
    if colon and name.isalpha():
        return f"<b>{html_text(name)}</b>: {html_text(rest)}"
    return html_text(entry)


def _figure(picture: Picture, drawing: bytes) -> str:
    svg = _own_ids(inline_svg(drawing), picture.name)
    files = f'<a href="{FIGURES_FOLDER}/{picture.name}.csv">numbers</a>'
    caption = f"<b>{html_text(picture.title)}</b><br>{html_text(picture.reading)} {files}"
    return (
        f'<figure role="img" aria-label="{html.escape(picture.title)}">{svg}<figcaption>{caption}</figcaption></figure>'
    )


def _own_ids(svg: str, name: str) -> str:
    """Names inside an SVG are those of the whole page: each figure has its own."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    return re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)


def _wide(table: str) -> str:
    """Notes that stay in sight where a table is scrolled sideways."""
    return re.sub(r"(<tfoot><tr><td[^>]*>)(.*?)(</td></tr></tfoot>)", r"\1<div>\2</div>\3", table, flags=re.DOTALL)


def _sets(sets: Sequence[SetPicture]) -> str:
    figures = "".join(
        f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(each.png).decode()}">'
        f"<figcaption>{html_text(each.title)}</figcaption></figure>"
        for each in sets
    )
    lead = "The first images of the first classes, a row each; values outside 0 to 1 are shown as 0 or 1."
    return f'<h2 id="sets">Distilled images</h2><p>{lead}</p><div class="sets">{figures}</div>'
