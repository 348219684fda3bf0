"""Our cells with the paper's below them, where they may be compared; and why others may not."""

from __future__ import annotations

from collections.abc import Callable

from ddray.measurements.references import CHEN2023
from ddray.report.table import NOTHING, Bullets, Column, Facts
from ddray.report.words import axes_title, row_title, variant_title


def comparable(cell: Facts) -> bool:
    """Whether the paper's number may stand beside a cell."""
    return bool(cell["paper"] and not cell["objections"])


class BesidePaper:
    """The rows and columns of a table that has a column per variant, and a row of the paper below a row of ours.

    A cell that may not be compared has a letter, which stands for its reason; where all share one reason, a sentence
    below the table says it instead.

    Args:
        block: Facts with ``row_axes``, ``methods`` and ``rows``, whose cells have ``paper`` and ``objections``.
        source: The paper's tables they would stand beside.
        spread: What the paper's ± is; "" where it gives none.
    """

    def __init__(self, block: Facts, source: str, spread: str = "") -> None:
        cells = [cell for row in block["rows"] for cell in row["cells"].values() if cell["paper"]]
        self.published = bool(cells)
        self._block, self._source, self._spread = block, source, spread
        self._protocol: str = block["protocol"]
        self._compared = any(map(comparable, cells))
        self._reasons = list(dict.fromkeys("; ".join(cell["objections"]) for cell in cells if cell["objections"]))
        self._shared = len(self._reasons) == 1 and not self._compared

    def rows(self, ours: Callable[[Facts], str], theirs: Callable[[Facts], str]) -> list[Facts]:
        """Rows for ``columns``: ours, with what else they hold, and the paper's.

        Args:
            ours: The text of a cell.
            theirs: The text of what the paper has for it.
        """
        rows: list[Facts] = []
        for row in self._block["rows"]:
            texts = {name: ours(cell) + self._mark(cell) for name, cell in row["cells"].items()}
            title = row_title(self._block["row_axes"], row)
            rows.append({**row, "title": title, "texts": texts, "otherwise": NOTHING})
            texts = {name: theirs(cell["paper"]) for name, cell in row["cells"].items() if comparable(cell)}
            if texts:
                rows.append({"title": "  paper", "texts": texts, "otherwise": ""})
        return rows

    def theirs(self, cell: Facts, text: Callable[[Facts], str]) -> str | None:
        """What the paper has for a cell, or the letter of the reason why it may not be compared."""
        if comparable(cell):
            return text(cell["paper"])
        return self._mark(cell).strip() or None

    def columns(self, missing: tuple[str, ...] = ()) -> list[Column]:
        """The row's title, and a column per variant.

        Args:
            missing: Methods of which the block has none, though it should; they have an empty column.
        """
        titles = {name: variant_title(name) for name in self._block["methods"]}
        titles |= {name: f"{variant_title(name)} (missing)" for name in missing}
        key = Column(axes_title(self._block["row_axes"]), "title")
        return [key, *(_column(variant, title) for variant, title in titles.items())]

    @property
    def notes(self) -> list[str | Bullets]:
        """What stands below the table."""
        if not self.published:
            return [f"The paper has no cell of this block ({CHEN2023.title})."]
        refused = f"Not comparable with the paper's {self._source}:"
        if self._shared:
            return [f"{refused} {self._reasons[0]}."]
        spread = f"; its ± {self._spread}" if self._spread else ""
        notes: list[str | Bullets] = []
        if self._compared:
            notes += [f"paper: {self._source} of {CHEN2023.title}{spread}.", f"{self._recipe} {_DEVIATIONS}"]
        if self._reasons:
            notes.append(Bullets(refused, [f"[{self._letter(reason)}] {reason}" for reason in self._reasons]))
        return notes

    @property
    def _recipe(self) -> str:
        """That the recipe is one of several, and which."""
        others = [name for name in CHEN2023.admissible if name != self._protocol]
        own = self._protocol == CHEN2023.protocol
        role = "the one that stands for it" if own else f"another one; {CHEN2023.protocol} stands for it"
        also = "Admissible too" if own else "Admissible"
        return f"{CHEN2023.recipe}: {self._protocol} is {role}. {also}, as registered beforehand: {', '.join(others)}."

    def _mark(self, cell: Facts) -> str:
        reason = "; ".join(cell["objections"])
        return f" [{self._letter(reason)}]" if cell["paper"] and reason and not self._shared else ""

    def _letter(self, reason: str) -> str:
        index = self._reasons.index(reason)
        return chr(ord("a") + index) if index < 26 else f"z{index - 25}"


_DEVIATIONS = "How our programs differ from the authors', and by how much: docs/protocols.md."


def _column(variant: str, title: str) -> Column:
    return Column(title, lambda row: row["texts"].get(variant, row["otherwise"]))
