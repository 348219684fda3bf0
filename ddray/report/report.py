"""The report: Markdown that is also readable in a terminal. Percent and points appear here and nowhere before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ddray.measurements.references import percent
from ddray.plan.external import EXTERNAL
from ddray.plan.keys import short
from ddray.report.blocks import title_of
from ddray.report.markdown import Facts, bullets
from ddray.report.sections import accuracy, contrasts, embedding, fairness, generalisation, privacy_text, robustness
from ddray.report.summary import summarise
from trainables.protocols import PROTOCOLS


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
    """The report of a sweep: coverage, where the numbers come from, alarms; per block accuracy beside the paper's
    Table 3, fairness, differences to ``random``, robustness, informativeness; and membership inference across blocks.

    Args:
        folder: ``results/<sweep>``.

    Raises:
        EnvironmentProblem: The tables are missing or not readable.
        MixedBlock: A cell would mix two values of a parameter that is not an axis.
    """
    facts = summarise(folder)
    lines = [f"# {facts['sweep']}", "", *_coverage(facts["coverage"]), "", _provenance(facts["provenance"])]
    lines += ["", *bullets("Alarms", facts["alarms"])]
    for block in facts["blocks"]:
        lines += ["", *_block(block)]
    lines += privacy_text.text(facts["privacy"])
    lines += contrasts.text(facts["contrasts"])
    lines += generalisation.ranks_text(facts["rankings"])
    lines += _borrowed(facts["blocks"])
    lines += _flagged(facts["flagged"])
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


# --- blocks -----------------------------------------------------------------------------------------------------------


def _block(block: Facts) -> list[str]:
    lines = [f"## {block['title']}", "", f"Recipe: {_recipe(block)}."]
    budgets = [text for method in block["methods"] if (text := _budget(method, block["rows"]))]
    lines += [f"Budget: {'; '.join(budgets)}."] if budgets else []
    lines += ["", *accuracy.text(block), "", *fairness.text(block)]
    methods = {cell["method"] for entry in block["rows"] for cell in entry["cells"].values()}
    if methods - {"random", "full", EXTERNAL}:  # nothing stands beside what was brought
        lines += ["", *accuracy.against_random(block)]
    return lines + robustness.text(block) + generalisation.text(block) + embedding.text(block)


def _recipe(block: Facts) -> str:
    if block["optimizer"] is None:
        return "not known; the model was trained elsewhere"
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
            text = percent(share) if share is not None else "of an unknown whole"
            found[f"{text} ({cell['distill_iters']} iterations)"] = None
    return f"{title_of(method)} {', '.join(found)}" if found else ""


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


def _flagged(entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    return [
        "",
        "## Numbers that are missing or to be read with care, by flag (docs/metrics.md)",
        "",
        *(f"- {entry}" for entry in entries),
    ]


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
