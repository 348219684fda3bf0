"""The answer in short: a sentence for each property, each with its number, interval and what it is compared with.

A sentence is about one cell, the distilled set with the highest accuracy where most methods stand beside each other;
for privacy about the set that leaks most. Where there is nothing to say, the reason stands in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ddray.report.audits import BASELINES
from ddray.report.page import Element
from ddray.report.sections import SweepSection
from ddray.report.table import Bullets, Facts
from ddray.report.words import (
    DEEPFOOL,
    PERCENT,
    PERCENT_1,
    axes_title,
    epsilon_text,
    interval,
    measured,
    row_title,
    shown_epsilons,
    variant_title,
)


class _Place(NamedTuple):
    """The row that the sentences are about."""

    block: Facts
    row: Facts
    method: str | None
    """The variant with the highest accuracy; None where no distilled set has one."""

    @property
    def text(self) -> str:
        return (
            f"{self.block['title']}, {axes_title(self.block['row_axes'])} {row_title(self.block['row_axes'], self.row)}"
        )

    def cell(self, method: str) -> Facts | None:
        """A method's cell, or the one that holds for all rows."""
        rows = [self.row, *(row for row in self.block["rows"] if row is not self.row)]
        cells = [row["cells"][method] for row in rows if method in row["cells"]]
        return cells[0] if cells and (cells[0] is self.row["cells"].get(method) or method == "full") else None


def _elements(report: Facts) -> Iterator[Element]:
    place = _place(report)
    sentences = {
        "Accuracy": _accuracy(place),
        "Privacy": _privacy(report),
        "Robustness": _robustness(report, place),
        "Fairness": _fairness(place),
        "Generalisation": _generalisation(report, place),
    }
    lead = f"Of {place.text}, unless another place is named:" if place is not None and place.method else ""
    yield Bullets(lead, [f"{name}: {text}" for name, text in sentences.items()], "short")


def _place(report: Facts) -> _Place | None:
    """Of all rows with accuracies that with most methods, and of these the last of the block with most points."""
    rows = [
        (sum(_is_known(cell) for cell in row["cells"].values()), _done(block), number, block, row)
        for block in report["blocks"]
        for number, row in enumerate(block["rows"])
    ]
    if not rows:
        return None
    _, _, _, block, row = max(rows, key=lambda entry: entry[:3])
    sets = {name: cell for name, cell in row["cells"].items() if cell["method"] not in BASELINES and _is_known(cell)}
    best = max(sets, key=lambda name: sets[name]["accuracy"]["mean"]) if sets else None
    return _Place(block, row, best)


def _is_known(cell: Facts) -> bool:
    return cell["accuracy"] is not None


def _done(block: Facts) -> int:
    return sum(cell["done"] for row in block["rows"] for cell in row["cells"].values())


def _cannot_say(reason: str) -> str:
    return f"this sweep cannot say, because {reason}."


def _none_done(report: Facts, evaluation: str, without: str) -> str:
    counts = report["coverage"]["evaluations"].get(evaluation)
    if counts is None:
        return _cannot_say(without)
    return _cannot_say(f"none of its {counts['planned']} points with the evaluation `{evaluation}` has a number yet")


# --- sentences --------------------------------------------------------------------------------------------------------


def _accuracy(place: _Place | None) -> str:
    if place is None or place.method is None:
        return _cannot_say("no distilled set has an accuracy yet")
    cell = place.row["cells"][place.method]
    sets = sum(each["method"] not in BASELINES and _is_known(each) for each in place.row["cells"].values())
    among = f"is the highest of {sets} distilled sets" if sets > 1 else "is the only distilled set"
    text = f"{variant_title(place.method)} {among}, {_number(cell)}"
    others = [
        f"{name} {PERCENT(other['accuracy'])} %"
        for baseline, name in (("random", "random real images"), ("full", "the full data"))
        if (other := place.cell(baseline)) is not None and other["accuracy"] is not None
    ]
    if others:
        text += f"; {', '.join(others)}"
    difference = place.row.get("against_random", {}).get(place.method)
    if difference is not None:
        if difference["low"] is None:
            about = f"{difference['pairs']} pair, so without an interval"
        else:
            about = f"95 % interval {100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}, "
            about += f"{difference['pairs']} pairs"
        text += f". {100 * difference['mean']:+.2f} points over random ({about})"
    return f"{text}."


def _number(cell: Facts) -> str:
    return f"{PERCENT(cell['accuracy'])} % ({cell['accuracy']['seed_level']})"


def _privacy(report: Facts) -> str:
    found: list[tuple[float, Facts, Facts, str, Facts]] = [
        (cell["strongest"]["value"], table, row, variant, cell)
        for table in report["privacy"]
        for row in table["rows"]
        for variant, cell in row["cells"].items()
        if cell["strongest"] and cell["method"] not in BASELINES
    ]
    if not found:
        return _none_done(report, "privacy", "no set is audited")
    _, table, row, variant, cell = max(found, key=lambda entry: entry[0])
    strongest, band = cell["strongest"], cell["strongest"]["null_band"]
    text = f"the strongest attack of {strongest['panel']}, `{strongest['attack']}`, tells which images the set of "
    text += f"{variant_title(variant)} "
    known = strongest["low"] is not None
    text += f"was made from with an AUC of {100 * strongest['value']:.1f} % ("
    text += (
        f"95 % interval {100 * strongest['low']:.1f} to {100 * strongest['high']:.1f}, " if known else "no interval, "
    )
    text += f"{strongest['level']})"
    if band is not None:
        text += f"; when nothing leaks, 95 % of such numbers lie in {100 * band['low']:.1f} to {100 * band['high']:.1f}"
        if band["low"] <= strongest["value"] <= band["high"]:
            text += ": no leak is shown, which is not that there is none"
    if cell["as_published"] is not None:
        text += f". As many real images would give {100 * cell['as_published']:.1f} at most on average"
    more = f", the most of {len(found)} cells" if len(found) > 1 else ""
    where = f"{axes_title(table['row_axes'])} {row_title(table['row_axes'], row)}"
    return f"{text} (audit {table['audit']}, {table['title']}, {where}{more})."


def _robustness(report: Facts, place: _Place | None) -> str:
    if place is None:
        return _none_done(report, "robustness", "no network is attacked")
    for block in [place.block, *(block for block in report["blocks"] if block is not place.block)]:
        attacks = sorted(block["robustness"], key=lambda attack: attack["attack"] not in DEEPFOOL)
        for attack in attacks:
            if (text := _under_attack(block, attack, place)) is not None:
                return text
    return _none_done(report, "robustness", "no network is attacked")


def _under_attack(block: Facts, attack: Facts, place: _Place) -> str | None:
    entries = [entry for entry in attack["rows"] if entry["adv_acc"]]
    own = [entry for entry in entries if entry["method"] == place.method]
    own = own or [entry for entry in entries if entry["method"].partition(" (")[0] not in BASELINES]
    shown = [epsilon for epsilon in shown_epsilons(attack["epsilons"], attack["norm"]) if epsilon > 0]
    if not own or not shown:
        return None
    entry, epsilon = own[-1], shown[len(shown) // 2]
    found = _at(entry["adv_acc"], epsilon)
    if found is None:
        return None
    text = f"within {epsilon_text(epsilon, attack['norm'])} of {attack['title']} a network trained on "
    text += f"{variant_title(entry['method'])} is right on {measured(found)} % of {attack['images']} images"
    full = next((_at(each["adv_acc"], epsilon) for each in entries if each["method"] == "full"), None)
    less = _at(entry["less_full"], epsilon)
    if full is not None:
        text += f", that of the full data on {measured(full)} %"
    if less is not None:
        text += f" (difference {measured(less, signed=True)} points)"
    here = f"{block['title']}, {axes_title(block['row_axes'])} {row_title(block['row_axes'], entry)}"
    return f"{text}." if here == place.text else f"{text} ({here})."


def _at(entries: Sequence[Facts], epsilon: float) -> Any:
    return next((entry for entry in entries if abs(entry["epsilon"] - epsilon) < 1e-9), None)


def _fairness(place: _Place | None) -> str:
    if place is None or place.method is None:
        return _cannot_say("no distilled set has accuracies of classes yet")
    cell = place.row["cells"][place.method]
    worst = cell["fairness"]["fair_worst_acc"]
    if worst is None:
        return _cannot_say("accuracies of classes are missing")
    text = f"the worst class of {variant_title(place.method)} has {PERCENT_1(worst)} %"
    full = place.cell("full")
    if full is not None and full["fairness"]["fair_worst_acc"]:
        text += f", of the full data {PERCENT_1(full['fairness']['fair_worst_acc'])} %"
    excess = _excess(place)
    if excess is not None:
        text += f". Its variance over classes differs by {excess} from that of real images of its accuracy"
    else:
        text += ". How unequal classes can be depends on the accuracy; no real images of its accuracy stand beside it"
    return f"{text}."


def _excess(place: _Place) -> str | None:
    for entry in place.block["generalisation"]:
        same = all(entry[axis] == place.row[axis] for axis in place.block["row_axes"])
        if not same or entry["method"] != place.method:
            continue
        for excess in entry["excess"]:
            if excess["metric"] == "excess_fair_var_acc_corr" and excess.get("value") is not None:
                return f"{interval(excess, 1e4, 1, signed=True)} pp²"
    return None


def _generalisation(report: Facts, place: _Place | None) -> str:
    if place is None or place.method is None:
        return _cannot_say("no distilled set has an accuracy yet")
    found: dict[str, str] = {}
    for block in report["blocks"]:
        alike = all(block[name] == place.block[name] for name in ("dataset", "origin_per_class", "num_classes"))
        for row in block["rows"]:
            same = all(row[axis] == place.row.get(axis) for axis in block["row_axes"])
            cell = row["cells"].get(place.method)
            if alike and same and cell is not None and cell["accuracy"] is not None:
                found.setdefault(block["architecture"], f"{block['architecture']} {PERCENT(cell['accuracy'])} %")
    if len(found) < 2:
        return _cannot_say(f"its sets train one network alone, {place.block['architecture']}")
    return f"{variant_title(place.method)}'s sets give {', '.join(found.values())}."


SHORT = SweepSection(id="short", order=-40, title="In short", elements=_elements)
