"""Names and numbers as people read them. Percent appears here and in ``sections``, never before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ddray.measurements.references import CHEN2023
from ddray.report.table import NOTHING, Bullets, Column
from trainables.methods import METHODS

Facts = Mapping[str, Any]
"""What a report says, as JSON types: fractions, seconds, names."""

_AXIS_NAMES = {
    "distill_iters": "iterations",
    "distill_aug": "distillation augmented by",
    "origin_per_class": "origin per class",
    "num_classes": "classes",
}


# --- names ------------------------------------------------------------------------------------------------------------


def variant_title(variant: str) -> str:
    """``DM (iterations 100)``: the method's title, and the settings that tell it from other variants."""
    method, apart, settings = variant.partition(" (")
    return (METHODS[method].title if method in METHODS else method) + apart + settings


def axes_title(axes: Iterable[str]) -> str:
    """``ipc · init``."""
    return " · ".join(_AXIS_NAMES.get(axis, axis) for axis in axes)


def row_title(axes: Iterable[str], entry: Facts) -> str:
    """``10 · real``: the values of the axes; ``any`` where the entry holds for all."""
    return " · ".join("any" if entry[axis] is None else str(entry[axis]) for axis in axes)


class CellRow(NamedTuple):
    """A row of a table that has one for each cell."""

    title: str
    variant: str
    facts: Facts


def cell_columns(axes: Iterable[str]) -> list[Column[CellRow]]:
    """The columns that say which cell a row is about."""
    return [
        Column(axes_title(axes), lambda row: row.title),
        Column("method", lambda row: variant_title(row.variant)),
    ]


# --- numbers ----------------------------------------------------------------------------------------------------------


def plus_minus(value: Facts, scale: float = 100, digits: int = 2) -> str:
    """``52.50 ± 2.00 n=3``, of a mean over seeds.

    Args:
        value: With ``mean`` and ``sd``, and ``level`` where it is to be printed.
        scale: What a fraction is multiplied with: 100 for percent, 10 000 for its square.
        digits: Decimals.
    """
    text = f"{scale * value['mean']:.{digits}f}"
    if value["sd"] is not None:
        text += f" ± {scale * value['sd']:.{digits}f}"
    return f"{text} {value.get('level', '')}".rstrip()


def interval(value: Facts, scale: float = 100, digits: int = 1, signed: bool = False) -> str:
    """``62.1 (58.0 to 66.2)``, of something with ``value``, ``low`` and ``high``."""
    if value["value"] is None:
        return NOTHING
    sign = "+" if signed else ""
    text = f"{scale * value['value']:{sign}.{digits}f}"
    if value.get("low") is not None and value.get("high") is not None:
        text += f" ({scale * value['low']:{sign}.{digits}f} to {scale * value['high']:{sign}.{digits}f})"
    return text


def span(values: Iterable[float], form: str) -> str:
    """``3`` or ``3 to 5``: the only value, or the first and the last."""
    shown = list(dict.fromkeys(format(value, form) for value in sorted(set(values))))
    return shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"


# --- budgets of adversarial attacks -----------------------------------------------------------------------------------

USUAL_EPSILONS = {"l2": (0.1, 0.25, 0.5, 1.0), "linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255)}
_MOST = 4
DEEPFOOL = ("deepfool_l2", "deepfool_linf")
"""Attacks that measure the distance of an image: the headline of robustness in each norm."""


def shown_epsilons(epsilons: Sequence[float], norm: str) -> list[float]:
    """The epsilons of a table: the usual ones among those that were evaluated, else some evenly spaced."""
    usual = [epsilon for epsilon in epsilons if any(abs(epsilon - each) < 1e-9 for each in USUAL_EPSILONS[norm])]
    if usual:
        return usual
    if len(epsilons) <= _MOST:
        return list(epsilons)
    return [epsilons[round(index * (len(epsilons) - 1) / (_MOST - 1))] for index in range(_MOST)]


def epsilon_text(epsilon: float, norm: str) -> str:
    """``0.25``; ``2/255`` in Linf."""
    steps = 255 * epsilon
    return f"{steps:.3g}/255" if norm == "linf" and abs(4 * steps - round(4 * steps)) < 1e-6 else f"{epsilon:.3g}"


# --- the published numbers --------------------------------------------------------------------------------------------


class BesidePaper:
    """Why cells do not stand beside the paper's: a letter per reason, or one sentence when all share it.

    Args:
        cells: With ``paper`` and ``objections``.
        source: The paper's tables they would stand beside.
        spread: What the paper's ± is; "" where it gives none.
    """

    def __init__(self, cells: Iterable[Facts], source: str, spread: str = "") -> None:
        cells = [cell for cell in cells if cell["paper"]]
        self.source, self.spread = source, spread
        self.published = bool(cells)
        self.compared = any(map(comparable, cells))
        self._reasons = list(dict.fromkeys("; ".join(cell["objections"]) for cell in cells if cell["objections"]))

    @property
    def _shared(self) -> bool:
        return len(self._reasons) == 1 and not self.compared

    def mark(self, cell: Facts) -> str:
        """`` [a]``, the letter of a cell's reason; "" where there is none or one sentence says it of all."""
        reason = "; ".join(cell["objections"])
        return f" [{self._letter(reason)}]" if cell["paper"] and reason and not self._shared else ""

    @property
    def notes(self) -> list[str | Bullets]:
        """What stands below the table."""
        if not self.published:
            return [f"The paper has no cell of this block ({CHEN2023.title})."]
        refused = f"Not comparable with the paper's {self.source}:"
        if self._shared:
            return [f"{refused} {self._reasons[0]}."]
        said = f"; its ± {self.spread}" if self.spread else ""
        notes: list[str | Bullets] = [f"paper: {self.source} of {CHEN2023.title}{said}."] if self.compared else []
        if self._reasons:
            notes.append(Bullets(refused, [f"[{self._letter(reason)}] {reason}" for reason in self._reasons]))
        return notes

    def _letter(self, reason: str) -> str:
        index = self._reasons.index(reason)
        return chr(ord("a") + index) if index < 26 else f"z{index - 25}"


def comparable(cell: Facts | None) -> bool:
    """Whether the paper's number may stand beside a cell."""
    return bool(cell and cell["paper"] and not cell["objections"])
