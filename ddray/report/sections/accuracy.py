"""Test accuracy of a block, beside the paper's Table 3 where comparable, and its differences to random images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.measurements.references import CHEN2023
from ddray.measurements.statistics import Values, paired
from ddray.report.blocks import Block, Group, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, place, plus_minus, table
from ddray.report.sections import fairness
from trainables.methods import METHODS


def facts(block: Block, numbers: Numbers) -> list[dict[str, Any]]:
    """The rows of a block: ``cells`` by column, with accuracy and fairness, and ``against_random``."""
    entries = []
    for at in block.places:
        groups = [group for group in block.groups if group.at == at]
        cells = {group.column: _cell(group, numbers) for group in groups}
        values = {group.column: group.values() for group in groups}
        entries.append({**at._asdict(), "cells": cells, "against_random": _differences(cells, values)})
    return entries


def _cell(group: Group, numbers: Numbers) -> dict[str, Any]:
    first = group.members[0]
    published = CHEN2023.accuracy_of(first["dataset"], first["ipc"], first["architecture"], group.method)
    states = Counter(row["status"] for row in group.members)
    return {
        "method": group.method,
        "planned": len(group.members),
        "done": states.pop("ok", 0),
        "not_done": dict(sorted(states.items())),
        "accuracy": group.mean(),
        "fairness": fairness.facts(group, numbers),
        "budget_fraction": first["budget_fraction"],
        "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None,
        "objections": CHEN2023.objections(first),
        "unpublished": first["param"].get("unpublished", {}),
    }


def _differences(cells: Mapping[str, Any], values: Mapping[str, Values]) -> dict[str, Any]:
    """Seed-paired differences to ``random``, which starts from the images a method with init real starts from; of a
    set that no seed made (``herding``, one that was brought) the differences to every draw of them."""
    if "random" not in values:
        return {}
    found = {}
    for method in cells:
        if method in ("random", "full"):
            continue
        name = cells[method]["method"]
        seeded = name in METHODS and "distill_seed" in METHODS[name].uses
        difference = paired(values[method], values["random"], seeded)
        if difference is not None:
            found[method] = {**asdict(difference), "unit": "distillations"}
    return found


# --- words ------------------------------------------------------------------------------------------------------------


def text(block: Facts) -> list[str]:
    """Our rows, each followed by the paper's where at least one cell may be compared."""
    notes = Notes(
        [cell for entry in block["rows"] for cell in entry["cells"].values()], "Table 3", "is over three trainings"
    )
    rows, levels = [], dict[str, dict[str, None]]()
    for entry in block["rows"]:
        row, published = [place(block["row_axes"], entry)], ["  paper"]
        for method in block["methods"]:
            cell = entry["cells"].get(method)
            row.append(_accuracy(cell) + (notes.mark(cell) if cell else ""))
            comparable = cell is not None and cell["paper"] and not cell["objections"]
            published.append(plus_minus(cell["paper"]) if cell and comparable else "")
            if cell and cell["accuracy"]:
                levels.setdefault(method, {})[cell["accuracy"]["seed_level"]] = None
        rows.append(row)
        if any(published[1:]):
            rows.append(published)
    header = [axes_header(block["row_axes"]), *map(title_of, block["methods"])]
    lines = ["### Test accuracy, percent: mean ± sd", "", *table(header, rows), ""]
    if block["optimizer"] is None:
        lines.append("One model, as it was brought.")
    elif levels:
        said = [f"{title_of(method)} {', '.join(found)}" for method, found in levels.items()]
        lines.append(f"Seed level: {'; '.join(said)}. {_explained(levels)}")
    return lines + notes.lines()


def _accuracy(cell: Facts | None) -> str:
    if cell is None:
        return NOTHING
    missing = cell["planned"] - cell["done"]
    if cell["accuracy"] is None:
        return ", ".join(f"{count} {state}" for state, count in cell["not_done"].items())
    shown = plus_minus(cell["accuracy"], level=cell["accuracy"]["short"])
    return f"{shown} ({cell['done']} of {cell['planned']} points)" if missing else shown


def _explained(levels: Mapping[str, Iterable[str]]) -> str:
    found = " ".join(level for each in levels.values() for level in each)
    if "×" in found:
        return (
            "With ×, ± is over distilled sets, each by the mean of its trainings; otherwise over trainings of one set."
        )
    if set(levels) == {"full"}:
        return "± is over trainings."
    return "± is over trainings of one distilled set and leaves out how much distillations scatter."


def against_random(block: Facts) -> list[str]:
    """Differences to random images with their intervals."""
    rows = []
    noise = False
    for entry in block["rows"]:
        for method, difference in entry["against_random"].items():
            shown = "none: one pair"
            if difference["low"] is not None:
                shown = f"{100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}"
            low, high = difference["trainings"]
            noise |= entry["init"] == "noise"
            rows.append(
                [
                    place(block["row_axes"], entry),
                    title_of(method),
                    f"{100 * difference['mean']:+.2f}",
                    shown,
                    f"{difference['pairs']} {difference['unit'] if difference['pairs'] != 1 else 'distillation'}",
                    str(low) if low == high else f"{low}-{high}",
                ]
            )
    if not rows:
        return ["### Against random images", "", "No method has a distillation seed in common with random here."]
    header = [
        axes_header(block["row_axes"]),
        "method",
        "difference, points",
        "95 % t-interval",
        "pairs",
        "trainings each",
    ]
    lines = ["### Against random images, paired by distill_seed", "", *table(header, rows), ""]
    lines.append(
        "Unit: a distilled set, by the mean over the trainings whose seeds both sides have. A set that no seed made is "
        "compared with every draw of random images."
    )
    if noise:
        lines.append("With init noise a pair shares its training seeds, not its images.")
    return lines


class Notes:
    """Why cells do not stand beside the paper's: a letter per reason, or one sentence when all share it.

    Args:
        cells: With ``paper`` and ``objections``.
        source: The paper's tables they would stand beside.
        spread: What the paper's ± is; "" where it gives none.
    """

    def __init__(self, cells: Iterable[Facts], source: str, spread: str = "") -> None:
        cells = [cell for cell in cells if cell["paper"]]
        self.source, self.spread = source, spread
        self.reasons = list(dict.fromkeys("; ".join(cell["objections"]) for cell in cells if cell["objections"]))
        self.published = bool(cells)
        self.compared = any(not cell["objections"] for cell in cells)

    def mark(self, cell: Facts) -> str:
        """The letter of a cell's reason; "" where one sentence says it of all, or nothing is to be said."""
        if not cell["paper"] or not cell["objections"] or (len(self.reasons) == 1 and not self.compared):
            return ""
        return f" [{self._letter('; '.join(cell['objections']))}]"

    def lines(self) -> list[str]:
        """What stands below the table."""
        if not self.published:
            return [f"The paper has no cell of this block ({CHEN2023.title})."]
        said = f"; its ± {self.spread}" if self.spread else ""
        lines = [f"paper: {self.source} of {CHEN2023.title}{said}."] if self.compared else []
        if len(self.reasons) == 1 and not self.compared:
            return [f"Not comparable with the paper's {self.source}: {self.reasons[0]}."]
        if self.reasons:
            lines += [f"Not comparable with the paper's {self.source}:"]
            lines += [f"- [{self._letter(reason)}] {reason}" for reason in self.reasons]
        return lines

    def _letter(self, reason: str) -> str:
        index = self.reasons.index(reason)
        return chr(ord("a") + index) if index < 26 else f"z{index - 25}"
