"""Images and labels apart: the four cells of {random, distilled} images with {hard, a teacher's} labels.

Of test accuracies, m of a method's images and r of random real ones, with hard labels (h) and with those of a teacher
(s), under one recipe (methods2.md 1.5):

    image gain    m_h - r_h with hard labels, m_s - r_s with soft ones
    label gain    r_s - r_h of random images, m_s - m_h of distilled ones
    interaction   (m_s - r_s) - (m_h - r_h): what images and labels do together beyond what each does

All are differences within a distill_seed and training seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.measurements.statistics import Difference, Values, differences, mean_of
from ddray.plan.axes import AXES, HARD_LABELS
from ddray.report.comparable import Cell, ReportBlock
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import Column, Facts, Footnote
from ddray.report.words import cell_table
from trainables.methods import METHODS

_SHOWN = AXES["labels"].null_shown
_OWN = () if _SHOWN is None else tuple(_SHOWN.words.values())
"""Labels that no teacher gave."""
CONTROL = "random"
EFFECTS = ("image_gain_hard", "image_gain_soft", "label_gain_random", "label_gain", "interaction")


def effects(cells: Mapping[str, Values], seeded: bool) -> dict[str, Difference | None]:
    """What images and labels do, each None where a cell that it needs is missing.

    Args:
        cells: ``random_hard``, ``random_soft``, ``hard``, ``soft``: accuracies by seeds of those that there are.
        seeded: Whether the method's sets have distill_seeds; else its one set is compared with every draw of random
            images.
    """

    def less(one: str, other: str, paired: bool = True) -> Values:
        return differences(cells.get(one, {}), cells.get(other, {}), paired)

    hard, soft = less("hard", "random_hard", seeded), less("soft", "random_soft", seeded)
    return {
        "image_gain_hard": mean_of(hard),
        "image_gain_soft": mean_of(soft),
        "label_gain_random": mean_of(less("random_soft", "random_hard")),
        "label_gain": mean_of(less("soft", "hard")),
        "interaction": mean_of(differences(soft, hard)),
    }


def _facts(block: ReportBlock, _: Numbers) -> list[dict[str, Any]]:
    """An entry for each method in a row with a teacher's labels; where there is none, for random images alone."""
    rows = {key.values: {cell.variant: cell for cell in cells} for key, cells in block.rows.items()}
    entries = []
    for key, cells in block.rows.items():
        if key.facts["labels"] in (None, *_OWN):
            continue
        hard = rows.get(tuple(HARD_LABELS if name == "labels" else value for name, value in key.facts.items()), {})
        soft = {cell.variant: cell for cell in cells if cell.method != "full"}
        own = [cell for cell in soft.values() if cell.method != CONTROL] or list(soft.values())
        for cell in own:
            four = {"random_hard": _control(hard), "random_soft": _control(soft)}
            if cell.method != CONTROL:
                four |= {"hard": hard.get(cell.variant), "soft": cell}
            seeded = cell.method in METHODS and "distill_seed" in METHODS[cell.method].uses
            found = effects({name: each.values() for name, each in four.items() if each is not None}, seeded)
            entries.append(
                {
                    **cell.facts,
                    **key.facts,
                    "unit": "distillations" if seeded and cell.method != CONTROL else "draws",
                    **{name: None if each is None else asdict(each) for name, each in found.items()},
                }
            )
    return entries


def _control(cells: Mapping[str, Cell]) -> Cell | None:
    return next((cell for cell in cells.values() if cell.method == CONTROL), None)


def _elements(block: Facts) -> Iterator[Element]:
    """One row per method and teacher."""
    rows = [entry for entry in block["labels"] if any(entry[name] for name in EFFECTS)]
    if rows:
        yield cell_table(
            "Images and labels: differences of test accuracy, points", block["row_axes"], rows, _COLUMNS, _NOTES
        )


def _points(difference: Facts) -> str:
    """``+4.20 (+3.10 to +5.30) n=3``."""
    text = f"{100 * difference['mean']:+.2f}"
    if difference["low"] is not None:
        text += f" ({100 * difference['low']:+.2f} to {100 * difference['high']:+.2f})"
    return f"{text} n={difference['pairs']}"


_NOTES = (
    "Of cells with labels as the row says, and of those with hard ones, paired by distill_seed and training seed; in "
    "brackets 95 % t-intervals over n distillations (draws, of random images), none of one. All have one teacher for "
    "each number of images per class: how much another teacher would change is in no interval.",
)
_COLUMNS = [
    Column(
        "image gain, hard labels",
        "image_gain_hard",
        _points,
        footnote=Footnote("image gain: distilled less random images, with the same labels."),
    ),
    Column("image gain, these labels", "image_gain_soft", _points),
    Column(
        "label gain, random images",
        "label_gain_random",
        _points,
        footnote=Footnote("label gain: these labels less hard ones, of the same images."),
    ),
    Column("label gain, distilled images", "label_gain", _points),
    Column(
        "interaction",
        "interaction",
        _points,
        footnote=Footnote("interaction: image gain with these labels less that with hard ones."),
    ),
]

LABELS = BlockSection(id="labels", order=32, facts=_facts, elements=_elements)
