"""What every report says first: whatever makes its numbers doubtful. Judged here, worded in one line each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddray.measurements.gather import Coverage
from ddray.measurements.reading import Row
from ddray.measurements.references import percent
from ddray.report.blocks import At, block_key

INFORMATION = frozenset({"not_applicable", "outside_frontier", "degenerate", "low_resolution"})
"""Flags that say why a number is missing or how far it carries, not that something is wrong with it."""
WORDS = {
    "distill_loss": "the loss ended at 1 or more, so that nothing was learned",
    "distill_rate_clamped": "the learned rate had to be kept above 0",
}
"""Metric -> what its flagged numbers mean, where that can be said better than by flag and metric."""
TOLD = frozenset({"above_ceiling", "outside_band"})
"""Flags with an alarm of their own."""


def general(
    coverage: Coverage, blocks: Sequence[Mapping[str, Any]], points: Iterable[Row], provenance: Mapping[str, Any]
) -> list[str]:
    """Alarms about the sweep as a whole, and about accuracy."""
    found = []
    if not coverage.complete:
        share = coverage.done / coverage.planned if coverage.planned else 0.0
        found.append(f"coverage {percent(share)}: {coverage.done} of {coverage.planned} points are done")
    for block in blocks:
        for entry in block["rows"]:
            found += _below_random(block["title"], entry)
    protocols = sorted({block["protocol"] for block in blocks})
    if len(protocols) > 1:
        found.append(f"{len(protocols)} protocols ({', '.join(protocols)}): compare within a block, never across")
    numerics: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in points:
        if row["numerics"] is not None:
            numerics[block_key(row)].add(row["numerics"])
    if mixed := sum(len(classes) > 1 for classes in numerics.values()):
        found.append(f"{mixed} of {len(blocks)} blocks hold rows of several numerics classes (device, torch, threads)")
    if provenance["dirty"]:
        found.append("some numbers come from a checkout with changes that were not committed")
    if len(provenance["commits"]) > 1:
        found.append(f"the numbers come from {len(provenance['commits'])} commits")
    return found


def flagged(flags: Mapping[tuple[str, str], int]) -> list[str]:
    """Alarms about flagged numbers: one line per flag, with how many of each metric carry it."""
    found = [f"{WORDS[metric]}, at {count} points" for (metric, _), count in sorted(flags.items()) if metric in WORDS]
    wrong = {at: count for at, count in flags.items() if at[1] not in INFORMATION | TOLD and at[0] not in WORDS}
    return found + [f"flagged {flag}: {counts}" for flag, counts in _by_flag(wrong)]


def careful(flags: Mapping[tuple[str, str], int]) -> list[str]:
    """The same of flags that are no alarm."""
    plain = {at: count for at, count in flags.items() if at[1] in INFORMATION}
    return [f"{flag}: {counts}" for flag, counts in _by_flag(plain)]


def _by_flag(flags: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    counts: dict[str, list[str]] = defaultdict(list)
    for (metric, flag), count in sorted(flags.items(), key=lambda entry: (-entry[1], entry[0])):
        counts[flag].append(f"{count} {metric}")
    return [(flag, ", ".join(entries)) for flag, entries in sorted(counts.items())]


def _below_random(title: str, entry: Mapping[str, Any]) -> list[str]:
    cells, found = entry["cells"], []
    baseline = (cells.get("random") or {}).get("accuracy")
    for method, cell in cells.items():
        if cell["method"] in ("random", "full") or baseline is None or cell["accuracy"] is None:
            continue
        against = entry["against_random"].get(method)
        difference = against["mean"] if against else cell["accuracy"]["mean"] - baseline["mean"]
        if difference < 0:
            at = At(*(entry[name] for name in At._fields))
            found.append(f"{title}: {method} is {-100 * difference:.2f} points below random at {at.text}")
    return found
