"""Words and tables of the report. Percent appears here, in ``render.py`` and in ``sections``, never before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]

_AXIS_NAMES = {
    "distill_iters": "iterations",
    "distill_aug": "distillation augmented by",
    "origin_per_class": "origin per class",
    "num_classes": "classes",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table padded to equal widths."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def narrowed(header: Sequence[str], rows: Sequence[Sequence[str]], always: int) -> list[str]:
    """The same without the columns, after the first ``always``, that hold nothing."""
    kept = [index for index in range(len(header)) if index < always or any(row[index] != NOTHING for row in rows)]
    return table([header[index] for index in kept], [[row[index] for index in kept] for row in rows])


NOTHING = "–"
"""A cell without a number."""


def axes_header(axes: Iterable[str]) -> str:
    """``ipc · init``."""
    return " · ".join(_AXIS_NAMES.get(axis, axis) for axis in axes)


def place(axes: Iterable[str], entry: Facts) -> str:
    """``10 · real``: the values of the axes; ``any`` where the entry holds for all."""
    return " · ".join("any" if entry[axis] is None else str(entry[axis]) for axis in axes)


def bullets(title: str, entries: Sequence[str]) -> list[str]:
    """A titled list; one line when there is nothing."""
    if not entries:
        return [f"{title}: none."]
    return [f"{title}:", "", *(f"- {entry}" for entry in entries)]


def plus_minus(value: Facts | None, scale: float = 100, digits: int = 2, level: str = "") -> str:
    """``52.50 ± 2.00 n=3``, of a mean over seeds; a dash for None.

    Args:
        value: With ``mean`` and ``sd``.
        scale: What a fraction is multiplied with: 100 for percent, 10 000 for its square.
        digits: Decimals.
        level: Appended.
    """
    if value is None:
        return NOTHING
    text = f"{scale * value['mean']:.{digits}f}"
    if value["sd"] is not None:
        text += f" ± {scale * value['sd']:.{digits}f}"
    return f"{text} {level}".rstrip()


def interval(value: Facts | None, scale: float = 100, digits: int = 1, signed: bool = False) -> str:
    """``62.1 (58.0 to 66.2)``, of something with ``value``, ``low`` and ``high``."""
    if value is None or value["value"] is None:
        return NOTHING
    sign = "+" if signed else ""
    text = f"{scale * value['value']:{sign}.{digits}f}"
    if value.get("low") is not None and value.get("high") is not None:
        text += f" ({scale * value['low']:{sign}.{digits}f} to {scale * value['high']:{sign}.{digits}f})"
    return text


def span(values: Iterable[float], form: str) -> str:
    """``3`` or ``3 to 5``: the only value, or the first and the last."""
    known = sorted(set(values))
    shown = list(dict.fromkeys(format(value, form) for value in known))
    return shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
