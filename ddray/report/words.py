"""Names and numbers as people read them. Percent appears here and in ``sections``, never before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from ddray.measurements.metrics import Metric
from ddray.report.table import NOTHING, Bullets, Column, Facts, Footnote, Table
from trainables.methods import METHODS

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


def cell_table(
    title: str,
    axes: Sequence[str],
    rows: Sequence[Facts],
    columns: Iterable[Column],
    notes: Sequence[str | Bullets] = (),
    words: Mapping[str, str] | None = None,
) -> Table:
    """A table with a row for each cell, whose first columns say which.

    Args:
        title: Of the table.
        axes: What rows of the block vary by.
        rows: With these axes and ``method``, the variant.
        columns: What is shown of them.
        notes: Below the table.
        words: That cells may hold -> what they mean; beside ``ALIKE``.
    """
    keys = [
        Column(axes_title(axes), lambda row: row_title(axes, row)),
        Column("method", "method", variant_title),
    ]
    return Table(title, [*keys, *columns], rows, notes, {ALIKE: _SAME_NUMBER, **(words or {})})


def cells_of(block: Facts) -> list[Facts]:
    """The cells of a block, row by row, as rows of a ``cell_table``: what they hold stands under ``cell``."""
    return [
        {**{axis: row[axis] for axis in block["row_axes"]}, "method": variant, "cell": cell}
        for row in block["rows"]
        for variant, cell in row["cells"].items()
    ]


# --- numbers ----------------------------------------------------------------------------------------------------------


ALIKE = "(alike)"
"""Stands for the ± of repeats that gave one and the same number."""
_SAME_NUMBER = (
    f"{ALIKE}: all repeats gave the same number; their scatter is too small for these images to show it, which is not "
    "that there is none."
)


def resolution(block: Facts) -> dict[str, str]:
    """What ``ALIKE`` means of the accuracies of a block."""
    known = [row["cell"]["test_images"] for row in cells_of(block) if row["cell"]["test_images"]]
    if not known:
        return {}
    images = min(known)
    return {
        ALIKE: f"{ALIKE}: all repeats gave the same number. {images} test images tell accuracies apart in steps of "
        f"{100 / images:.2g} points, those of one class in steps of about {100 * block['num_classes'] / images:.2g}; a "
        "smaller scatter does not show, which is not that there is none."
    }


def plus_minus(value: Facts, scale: float = 100, digits: int = 2, signed: bool = False) -> str:
    """``52.50 ± 2.00 n=3``, of a mean over seeds; a scatter that is not seen is never printed as 0.

    Args:
        value: With ``mean`` and ``sd``, and ``level`` where it is to be printed.
        scale: What a fraction is multiplied with: 100 for percent, 10 000 for its square.
        digits: Decimals.
        signed: Whether a number above 0 has a sign.
    """
    text = f"{scale * value['mean']:{'+' if signed else ''}.{digits}f}"
    if value["sd"] is not None:
        sd = scale * value["sd"]
        least = 10.0**-digits
        if sd <= 1e-9 * least:
            text += f" {ALIKE}"
        else:
            text += f" ± {sd:.{digits}f}" if sd >= least / 2 else f" ± <{least:.{digits}f}"
    return f"{text} {value.get('level', '')}".rstrip()


def measured(value: Facts, scale: float = 100, digits: int = 1, signed: bool = False) -> str:
    """``67.0 (60.2 to 73.2)`` of one model whose interval over images is known, else as ``plus_minus``."""
    if value.get("low") is None or value.get("high") is None:
        return plus_minus(value, scale, digits, signed)
    return f"{interval({**value, 'value': value['mean']}, scale, digits, signed)} {value.get('level', '')}".rstrip()


PERCENT = plus_minus
PERCENT_1 = partial(plus_minus, digits=1)
SQUARED_POINTS = partial(plus_minus, scale=1e4, digits=1)


UNITS: Mapping[str, tuple[float, int, str]] = {"fraction": (100, 2, "%"), "fraction^2": (1e4, 1, "pp²")}
"""Unit of a metric -> scale, decimals and unit in a table; another is printed as it is, with three decimals."""


def own_columns(metrics: Iterable[Metric], facts: str) -> list[Column]:
    """The columns of metrics whose records name one, explained by their meaning.

    Args:
        metrics: Those of the table.
        facts: Where in a row their means over seeds stand, by metric.
    """
    columns = []
    for metric in metrics:
        scale, digits, unit = UNITS.get(metric.unit, (1, 3, "" if metric.unit in ("1", "ratio") else metric.unit))
        form = partial(plus_minus, scale=scale, digits=digits)
        note = Footnote(f"{metric.column}: {metric.meaning.split(';')[0]}.")
        columns.append(Column(metric.column, f"{facts}.{metric.id}", form, unit, note, optional=True))
    return columns


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
