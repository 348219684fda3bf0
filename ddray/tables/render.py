"""The report: Markdown that is also readable in a terminal. Percent and points appear here and nowhere before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddray.plan.keys import short
from ddray.tables import paper
from ddray.tables.summary import FAIRNESS, summarise, title_of
from trainables.protocols import PROTOCOLS

Facts = Mapping[str, Any]


def machine_report(folder: Path) -> dict[str, Any]:
    """What ``report`` says, as JSON types: fractions, seconds, names.

    Args:
        folder: ``results/<sweep>``.

    Raises:
        EnvironmentProblem: The tables are missing or not readable.
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    return summarise(folder)


def report(folder: Path) -> str:
    """The report of a sweep: coverage, where the numbers come from, alarms, and per block accuracy beside the paper's
    Table 3, fairness, and differences to ``random``.

    Args:
        folder: ``results/<sweep>``.

    Raises:
        EnvironmentProblem: The tables are missing or not readable.
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    facts = summarise(folder)
    lines = [f"# {facts['sweep']}", "", *_coverage(facts["coverage"]), "", _provenance(facts["provenance"])]
    lines += ["", *_bullets("Alarms", facts["alarms"])]
    for block in facts["blocks"]:
        lines += ["", *_block(block)]
    lines += _borrowed(facts["blocks"])
    lines += _failures(facts["coverage"])
    return "\n".join(lines).rstrip() + "\n"


# --- the top ----------------------------------------------------------------------------------------------------------


def _coverage(coverage: Facts) -> list[str]:
    lines = [f"Coverage: {_counts(coverage['points'])}."]
    for name in ("evaluations", "methods"):
        if len(coverage[name]) > 1:
            lines += [f"- {entry}: {_counts(counts)}" for entry, counts in coverage[name].items()]
    return lines


def _counts(counts: Facts) -> str:
    rest = [f"{counts[state]} {state}" for state in ("done", "failed", "blocked", "pending")]
    return f"{counts['planned']} points planned, " + ", ".join(rest)


def _provenance(facts: Facts) -> str:
    if facts["first"] is None:
        return "No numbers yet."
    first, last = facts["first"], facts["last"]
    when = first if first == last else f"{first} to {last}"
    commits = ", ".join(commit[:12] for commit in facts["commits"]) or "not recorded"
    dirty = ", with changes that were not committed" if facts["dirty"] else ""
    versions = (
        f"torch {', '.join(facts['torch']) or 'not recorded'}, ddray {', '.join(facts['ddray']) or 'not recorded'}"
    )
    devices = ", ".join(facts["devices"]) or "not recorded"
    return f"Numbers computed {when} on {devices}; {versions}; commit {commits}{dirty}."


def _bullets(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return [f"{title}: none."]
    return [f"{title}:", "", *(f"- {entry}" for entry in entries)]


# --- blocks -----------------------------------------------------------------------------------------------------------


def _block(block: Facts) -> list[str]:
    lines = [f"## {block['title']}", "", f"Recipe: {_recipe(block)}."]
    budgets = [text for method in block["methods"] if (text := _budget(method, block["rows"]))]
    lines += [f"Budget: {'; '.join(budgets)}."] if budgets else []
    lines += ["", *_accuracy(block), "", *_fairness(block)]
    if set(block["methods"]) - {"random", "full"}:
        lines += ["", *_against_random(block)]
    return lines


def _recipe(block: Facts) -> str:
    length = f"{block['train_epochs']} epochs" if block["train_epochs"] else f"{block['train_steps']} steps"
    text = f"{length}, {block['optimizer']}, lr {block['lr']:g}, augmentation {block['train_aug']}, last epoch"
    if changes := block["protocol_changes"]:
        name = block["protocol"].rstrip("*")
        text += f"; {name} with " + ", ".join(f"{key}={value}" for key, value in sorted(changes.items()))
    elif block["protocol"] in PROTOCOLS:
        text += f" ({PROTOCOLS[block['protocol']].source})"
    return text


def _budget(method: str, rows: Iterable[Facts]) -> str:
    """``DM 1 % (200 iterations)`` of what was published."""
    found: dict[str, None] = {}
    for entry in rows:
        cell = entry["cells"].get(method)
        if cell is not None and cell["distill_iters"] is not None:
            share = cell["budget_fraction"]
            text = paper.percent(share) if share is not None else "of an unknown whole"
            found[f"{text} ({cell['distill_iters']} iterations)"] = None
    return f"{title_of(method)} {', '.join(found)}" if found else ""


def _accuracy(block: Facts) -> list[str]:
    """Our rows, each followed by the paper's where at least one cell may be compared."""
    notes = _Notes(block)
    table, levels = [], dict[str, dict[str, None]]()
    for entry in block["rows"]:
        row, published = [_row_name(block, entry)], ["  paper"]
        for method in block["methods"]:
            cell = entry["cells"].get(method)
            row.append(_accuracy_cell(cell) + (notes.mark(cell) if cell else ""))
            comparable = cell is not None and cell["paper"] and not cell["objections"]
            published.append(_plus_minus(cell["paper"], "") if cell and comparable else "")
            if cell and cell["accuracy"]:
                levels.setdefault(method, {})[cell["accuracy"]["seed_level"]] = None
        table.append(row)
        if any(published[1:]):
            table.append(published)
    header = [" · ".join(_AXIS_NAMES.get(axis, axis) for axis in block["row_axes"]), *map(title_of, block["methods"])]
    lines = ["### Test accuracy, percent: mean ± sd", "", *_table(header, table), ""]
    if levels:
        said = [f"{title_of(method)} {', '.join(found)}" for method, found in levels.items()]
        lines.append(f"Seed level: {'; '.join(said)}. {_explained(levels)}")
    return lines + notes.lines()


def _explained(levels: Mapping[str, Iterable[str]]) -> str:
    found = " ".join(text for texts in levels.values() for text in texts)
    if "×" in found:
        return (
            "With ×, ± is over distilled sets, each by the mean of its trainings; otherwise over trainings of one set."
        )
    if set(levels) == {"full"}:
        return "± is over trainings."
    return "± is over trainings of one distilled set and leaves out how much distillations scatter."


def _accuracy_cell(cell: Facts | None) -> str:
    if cell is None:
        return "–"
    missing = cell["planned"] - cell["done"]
    if cell["accuracy"] is None:
        return ", ".join(f"{count} {state}" for state, count in cell["not_done"].items())
    text = _plus_minus(cell["accuracy"], cell["accuracy"]["short"])
    return f"{text} ({cell['done']} of {cell['planned']} points)" if missing else text


def _plus_minus(value: Facts, level: str) -> str:
    text = f"{100 * value['mean']:.2f}"
    if value["sd"] is not None:
        text += f" ± {100 * value['sd']:.2f}"
    return f"{text} {level}".rstrip()


class _Notes:
    """Why cells do not stand beside the paper's: a letter per reason, or one sentence when all share it."""

    def __init__(self, block: Facts) -> None:
        reasons = [
            "; ".join(cell["objections"])
            for entry in block["rows"]
            for cell in entry["cells"].values()
            if cell["paper"] and cell["objections"]
        ]
        self.reasons = list(dict.fromkeys(reasons))
        self.published = any(cell["paper"] for entry in block["rows"] for cell in entry["cells"].values())
        self.compared = any(
            cell["paper"] and not cell["objections"] for entry in block["rows"] for cell in entry["cells"].values()
        )

    def mark(self, cell: Facts) -> str:
        if not cell["paper"] or not cell["objections"] or (len(self.reasons) == 1 and not self.compared):
            return ""
        return f" [{self._letter('; '.join(cell['objections']))}]"

    def lines(self) -> list[str]:
        if not self.published:
            return [f"The paper has no cell of this block ({paper.SOURCE})."]
        lines = [f"paper: Table 3 of {paper.SOURCE}; its ± is over three trainings."] if self.compared else []
        if len(self.reasons) == 1 and not self.compared:
            return [f"Not comparable with the paper's Table 3: {self.reasons[0]}."]
        if self.reasons:
            lines += ["Not comparable with the paper's Table 3:"]
            lines += [f"- [{self._letter(reason)}] {reason}" for reason in self.reasons]
        return lines

    def _letter(self, reason: str) -> str:
        index = self.reasons.index(reason)
        return chr(ord("a") + index) if index < 26 else f"z{index - 25}"


def _fairness(block: Facts) -> list[str]:
    header = [" · ".join(_AXIS_NAMES.get(axis, axis) for axis in block["row_axes"]), "method", "accuracy %",
              "var acc pp²", "corrected pp²", "worst class %", "n"]  # fmt: skip
    table = []
    for entry in block["rows"]:
        for method, cell in entry["cells"].items():
            values = [cell["fairness"][metric] for metric in FAIRNESS]
            if cell["accuracy"] is None or all(value is None for value in values):
                continue
            variance, corrected, worst = values
            table.append([
                _row_name(block, entry), title_of(method), _plus_minus(cell["accuracy"], ""),
                _square_points(variance), _square_points(corrected, floor=True),
                _plus_minus(worst, "") if worst else "–", cell["accuracy"]["short"],
            ])  # fmt: skip
    if not table:
        return ["### Fairness between classes", "", "No numbers yet."]
    return [
        "### Fairness between classes: mean ± sd over the same seeds", "", *_table(header, table), "",
        "Smaller variance is fairer. corrected: less what the sampling of test images adds, shown as 0 when negative.",
        "Low accuracy alone looks fair: compare methods at equal accuracy.",
    ]  # fmt: skip


def _square_points(value: Facts | None, floor: bool = False) -> str:
    if value is None:
        return "–"
    mean = max(0.0, value["mean"]) if floor else value["mean"]
    return f"{1e4 * mean:.1f}" + (f" ± {1e4 * value['sd']:.1f}" if value["sd"] is not None else "")


def _against_random(block: Facts) -> list[str]:
    table = []
    noise = False
    for entry in block["rows"]:
        for method, difference in entry["against_random"].items():
            interval = "none: one pair"
            if difference["low"] is not None:
                interval = f"{100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}"
            low, high = difference["trainings"]
            noise |= entry["init"] == "noise"
            table.append([
                _row_name(block, entry), title_of(method), f"{100 * difference['mean']:+.2f}", interval,
                f"{difference['pairs']} {difference['unit'] if difference['pairs'] != 1 else 'distillation'}",
                str(low) if low == high else f"{low}-{high}",
            ])  # fmt: skip
    if not table:
        return ["### Against random images", "", "No method has a distillation seed in common with random here."]
    header = [" · ".join(_AXIS_NAMES.get(axis, axis) for axis in block["row_axes"]), "method", "difference, points",
              "95 % t-interval", "pairs", "trainings each"]  # fmt: skip
    lines = ["### Against random images, paired by distill_seed", "", *_table(header, table), ""]
    lines.append("Unit: a distilled set, by the mean over the trainings whose seeds both sides have.")
    if noise:
        lines.append("With init noise a pair shares its training seeds, not its images.")
    return lines


# --- the bottom -------------------------------------------------------------------------------------------------------


def _borrowed(blocks: Iterable[Facts]) -> list[str]:
    """Settings without a published value, those of one source together."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for block in blocks:
        for entry in block["rows"]:
            for method, cell in entry["cells"].items():
                for setting, source in sorted(cell["unpublished"].items()):
                    found.setdefault((method, source), {})[setting] = None
    lines = [f"- {title_of(method)} {', '.join(names)}: {source}" for (method, source), names in found.items()]
    return ["", "## Settings without a published value", "", *lines] if lines else []


def _failures(coverage: Facts) -> list[str]:
    lines = []
    if coverage["failures"]:
        lines += ["", "## Failed stages", ""]
        for failure in coverage["failures"]:
            lines.append(
                f"- {failure['label']}: {failure['cause']} ({failure['points']} points; "
                f"look closer with: ddray debug {short(failure['key'])})"
            )
    if coverage["reasons"]:
        lines += ["", "## Blocked", ""]
        lines += [f"- {reason}: {count} points" for reason, count in coverage["reasons"].items()]
    return lines


# --- tables -----------------------------------------------------------------------------------------------------------

_AXIS_NAMES = {"distill_iters": "iterations", "distill_aug": "distillation augmented by"}


def _row_name(block: Facts, entry: Facts) -> str:
    return " · ".join("any" if entry[axis] is None else str(entry[axis]) for axis in block["row_axes"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table padded to equal widths."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]
