"""Whether our cells agree with the paper's Table 3, where they may stand beside it; and what that verdict is worth.

A cell agrees where our mean lies in the prediction interval of the paper's, for other distilled sets and trainings. The
paper's ± is of three trainings of one set; how sets scatter it does not say, so that is taken from our cells of several
sets (pooled). Without one there is no verdict.

A verdict that nothing could fail says nothing, so two things stand beside it: how many cells would agree if the columns
of two methods were exchanged, and how many pairs of methods are in the paper's order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ddray.measurements.references import CHEN2023
from ddray.measurements.statistics import LEVEL
from ddray.report.beside_paper import comparable
from ddray.report.page import Element, Lines
from ddray.report.sections import Measured, SweepSection
from ddray.report.table import Column, Facts, Table
from ddray.report.words import axes_title, plus_minus, row_title, variant_title
from trainables.evaluate.student import Error, freedom_of

PAPERS_TRAININGS = 3
"""Behind its mean and its ±."""


def agreement(_: Measured, report: Facts) -> dict[str, Any] | None:
    """Every cell that may stand beside the paper, with its verdict.

    Returns:
        ``cells``: ``where``, ``method``, ``ours``, ``paper``, ``difference``, ``reach`` (of the prediction interval,
        None without one), ``agrees``; ``exchanged``: ``agree`` of ``pairs`` if two methods of a row were exchanged;
        ``order``: ``kept`` of ``pairs`` of methods. None where no cell may stand beside it.
    """
    every = [(block, row) for block in report["blocks"] for row in block["rows"]]
    rows = [
        [(variant, cell) for variant, cell in row["cells"].items() if comparable(cell) and cell["accuracy"]]
        for _, row in every
    ]
    if not any(rows):
        return None
    places = [_place(*each) for each in every]
    scatter = _scatter(cell["accuracy"] for row in rows for _, cell in row)
    cells: list[dict[str, Any]] = []
    exchanged = {"agree": 0, "pairs": 0}
    order = {"kept": 0, "pairs": 0}
    for place, row in zip(places, rows, strict=True):
        reach = {variant: _reach(cell, scatter) for variant, cell in row}
        for variant, cell in row:
            difference = cell["accuracy"]["mean"] - cell["paper"]["mean"]
            within = reach[variant]
            cells.append(
                {
                    "where": place,
                    "method": variant,
                    "ours": cell["accuracy"],
                    "paper": cell["paper"]["mean"],
                    "difference": difference,
                    "reach": within,
                    "agrees": None if within is None else abs(difference) <= within,
                }
            )
        for (variant, cell), (_, other) in itertools.permutations(row, 2):
            if (within := reach[variant]) is not None:
                exchanged["pairs"] += 1
                exchanged["agree"] += abs(other["accuracy"]["mean"] - cell["paper"]["mean"]) <= within
        for (_, one), (_, other) in itertools.combinations(row, 2):
            theirs = one["paper"]["mean"] - other["paper"]["mean"]
            if theirs:
                order["pairs"] += 1
                order["kept"] += theirs * (one["accuracy"]["mean"] - other["accuracy"]["mean"]) > 0
    return {"cells": cells, "exchanged": exchanged, "order": order}


def _place(block: Facts, row: Facts) -> str:
    axes = block["row_axes"]
    return f"{block['dataset']}, {block['architecture']}, {axes_title(axes)} {row_title(axes, row)}"


def _scatter(accuracies: Iterable[Facts]) -> tuple[float, int] | None:
    """The variance between distilled sets, with its degrees of freedom, pooled over cells of several."""
    parts = [(each["sd"] ** 2, each["count"] - 1) for each in accuracies if _of_sets(each) and each["sd"] is not None]
    freedom = sum(count for _, count in parts)
    return (sum(variance * count for variance, count in parts) / freedom, freedom) if freedom else None


def _of_sets(accuracy: Facts) -> bool:
    return bool(accuracy["unit"] != "trainings")


def _reach(cell: Facts, scatter: tuple[float, int] | None) -> float | None:
    """Half of the prediction interval; None where something of it is not known."""
    ours, sd = cell["accuracy"], cell["paper"]["sd"]
    full = cell["method"] == "full"
    if sd is None or ours["sd"] is None or (scatter is None and not full):
        return None
    parts = [(sd**2 / PAPERS_TRAININGS, PAPERS_TRAININGS - 1), (ours["sd"] ** 2 / ours["count"], ours["count"] - 1)]
    if scatter is not None and not full:  # the paper's set is another one; so is ours, if it is one
        parts += [scatter] * (1 if _of_sets(ours) else 2)
    variance = sum(part for part, _ in parts)
    return Error(math.sqrt(variance), freedom_of(parts, variance)).reach(LEVEL) if variance > 0 else None


# --- as a table -------------------------------------------------------------------------------------------------------


def _elements(report: Facts) -> Iterator[Element]:
    found = report["agreement"]
    if found is None:
        return
    cells: Sequence[Facts] = found["cells"]
    judged = [cell for cell in cells if cell["agrees"] is not None]
    yield Table("", _COLUMNS, cells, [_NOTE] if judged else [_NO_SCATTER])
    if judged:
        agree = sum(cell["agrees"] for cell in judged)
        exchanged, order = found["exchanged"], found["order"]
        kept = f"{order['kept']} of {order['pairs']} pairs of methods are in its order."
        lines = [f"{agree} of {len(judged)} cells agree. {kept}"]
        if exchanged["pairs"]:
            lines.append(
                f"With two methods of a row exchanged {exchanged['agree']} of {exchanged['pairs']} would agree: the "
                "fewer, the more the verdicts say."
            )
        yield Lines(tuple(lines))


_NOTE = (
    f"agrees: our mean lies in the 95 % prediction interval of the paper's ({CHEN2023.title}), made of its ±, ours and "
    "how distilled sets scatter here."
)
_NO_SCATTER = (
    "No verdicts: no cell is of several distilled sets, and without their scatter no difference can be judged."
)


def _verdict(cell: Facts) -> str:
    return "no verdict" if cell["agrees"] is None else "agrees" if cell["agrees"] else "differs"


_COLUMNS = [
    Column("cell", "where"),
    Column("method", "method", variant_title),
    Column("ours", "ours", lambda mean: plus_minus({**mean, "level": mean["short"]}), "%"),
    Column("paper", "paper", lambda mean: f"{100 * mean:.2f}", "%"),
    Column("difference", "difference", lambda value: f"{100 * value:+.2f}", "points"),
    Column("within ±", "reach", lambda value: f"{100 * value:.2f}", "points", optional=True),
    Column("verdict", _verdict),
]

AGREEMENT = SweepSection(
    id="agreement",
    order=105,
    title="Does it agree with the paper's Table 3?",
    facts=agreement,
    elements=_elements,
)
