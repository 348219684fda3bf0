"""Membership inference: what the strongest attack reached, and every other; never what is private. Its numbers are made
in ``audits.py``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from ddray.measurements.reading import Row
from ddray.measurements.statistics import ALPHA
from ddray.report.audits import BASELINES, FPR, METRICS, audit_tables, most_compatible
from ddray.report.beside_paper import BesidePaper, comparable
from ddray.report.comparable import is_part, variant_order
from ddray.report.page import Element, Heading, Lines
from ddray.report.sections import Measured, SweepSection
from ddray.report.table import NOTHING, Bullets, Column, Facts, Footnote, Table
from ddray.report.words import axes_title, cell_table, cells_of, interval, row_title, span, variant_title
from trainables.attacks import MEMBERSHIP_ATTACKS

_AUDITS = {
    "seed": "One draw of the origin: its images against test images, with shadows distilled from other draws. Chen et "
    "al. 2023 say neither who their non-members are nor what their attack is; this is a reading of it.",
    "pool": "Rows of a membership matrix, each distilled anew and attacked with the others as shadows.",
    "one_run": "A lower bound on epsilon from one distillation of images that were chosen by coins.",
}

_WITHOUT = {"ipc": ("full",), "init": BASELINES}
"""Axis -> baselines that do not use it. Other methods without it are compared with other cells in each row."""


def _elements(report: Facts) -> Iterator[Element]:
    """The tables of each audit."""
    for table in report["privacy"]:
        yield Heading(f"Membership inference, audit {table['audit']}: {table['title']}")
        if any(cell["done"] for cell in _cells(table)):
            yield Lines((_AUDITS[table["audit"]],))
        if table["audit"] == "one_run":
            yield from _bounds(table)
        else:
            yield _headline(table)
            for part in (_panel(table), _differences(table), _details(table), _other_attacks(table)):
                if part.rows:
                    yield part


def _cells(table: Facts) -> list[Facts]:
    return [row["cell"] for row in cells_of(table)]


def _own_cells(table: Facts) -> list[Facts]:
    """Every cell once: a baseline that stands in several rows holds for ``any`` of them."""
    rows: list[Facts] = []
    for row in cells_of(table):
        if not any((row["method"], row["cell"]) == (other["method"], other["cell"]) for other in rows):
            everywhere = [axis for axis, methods in _WITHOUT.items() if row["cell"]["method"] in methods]
            rows.append({**row, **dict.fromkeys(everywhere)})
    return rows


# --- the headline -----------------------------------------------------------------------------------------------------


def _headline(table: Facts) -> Table:
    """A row per row of the block, a column per method."""
    cells = _cells(table)
    methods = {cell["method"] for cell in cells}
    missing = {name: f"{variant_title(name)} (missing)" for name in BASELINES if name not in methods}
    titles = {name: variant_title(name) for name in table["methods"]} | missing
    bands = [row["null_band"] for row in table["rows"] if row["null_band"]]
    several = ", of as many draws" if any(band["draws"] > 1 for band in bands) else ""
    meaning = Footnote(
        f"null band: where 95 % of the largest AUCs of the panel lie when nothing leaks{several}; one attack's own is "
        "lower."
    )
    return Table(
        "The strongest attack of the panel: AUC, percent" + _in_brackets(_strongest_of(cells)),
        [
            Column(axes_title(table["row_axes"]), lambda row: row_title(table["row_axes"], row)),
            *(Column(title, partial(_cell_of, name), _auc) for name, title in titles.items()),
            Column("null band", "null_band", _band, footnote=meaning),
        ],
        table["rows"],
        list(_about(table, cells)),
    )


def _strongest_of(cells: Iterable[Facts]) -> list[Facts]:
    return [cell["strongest"] for cell in cells if cell["strongest"]]


def _in_brackets(numbers: Iterable[Facts]) -> str:
    """What a title says of the brackets behind its numbers."""
    return " (95 % interval)" if any(number["low"] is not None for number in numbers) else ""


def _cell_of(variant: str, row: Facts) -> Facts | None:
    cell: Facts | None = row["cells"].get(variant)
    return cell


def _band(band: Facts) -> str:
    return f"{100 * band['low']:.1f} to {100 * band['high']:.1f}"


def _auc(cell: Facts) -> str:
    found = cell["strongest"]
    if found is None:
        return "not applicable" if cell["reasons"] else f"{cell['planned']} without a result"
    missing = f" ({cell['done']} of {cell['planned']} points)" if cell["done"] < cell["planned"] else ""
    return f"{interval(found)} `{found['attack']}`{missing}"


_AT_ONCE = " Intervals hold for all of a panel at once, and so for the one that was strongest."


def _about(table: Facts, cells: Sequence[Facts]) -> Iterator[str]:
    """What the numbers do not say by themselves: the panel, other images, budgets, what is missing."""
    if table["panel"]:
        yield (
            f"The panel was registered beforehand: {_names(table['panel'])}. 50 is chance."
            + (_AT_ONCE if _in_brackets(_strongest_of(cells)) else "")
        )
    if table["audit"] == "seed" and table["panel"]:
        yield "Others are as many test images as members, equally many of each class."
    if short := {cell["method"] for cell in cells if is_part(cell["budget_fraction"])}:
        names = ", ".join(variant_title(name) for name in sorted(short, key=variant_order))
        yield (
            f"Budget: {names} distilled for a part of the authors' iterations. After all of them more may leak, though "
            "accuracy may not show it."
        )
    for baseline, count in table["missing_baselines"].items():
        yield f"No numbers of {baseline} beside {count} of {len(table['rows'])} rows: nothing to compare them with."
    for reason in _reasons(cells):
        yield f"Not applicable: {reason}."
    without: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        for attack, reason in cell["without"].items():
            without.setdefault(reason, {}).setdefault(variant_title(cell["method"]), set()).add(attack)
    for reason, methods in without.items():
        attacks = sorted(set().union(*methods.values()))
        yield f"Without {_names(attacks)} for {', '.join(methods)}: {reason}."


def _names(attacks: Iterable[str]) -> str:
    return ", ".join(f"`{attack}`" for attack in attacks)


def _reasons(cells: Iterable[Facts]) -> list[str]:
    return sorted({reason for cell in cells for reason in cell["reasons"]})


# --- the panel --------------------------------------------------------------------------------------------------------


def _panel(table: Facts) -> Table:
    """Each attack of the panel beside the paper: a row per cell with a result."""
    rows = [row for row in _own_cells(table) if row["cell"]["by_attack"]]
    beside = BesidePaper(table, "Tables 1 and 2")
    published = [cell["paper"] for cell in _cells(table) if comparable(cell)]
    shown = [auc for row in rows for auc in row["cell"]["attacks"].values() if auc]
    brackets = _in_brackets(shown)
    notes: list[str | Bullets] = ["Intervals are about one attack each."] if brackets else []
    if doubts := sorted({f"{one['where']}: {one['doubt']}" for one in published if one["doubt"]}):
        notes.append(f"Doubtful in the paper: {'; '.join(doubts)}.")
    if beside.published:
        names = _names(name for name in table["panel"] if MEMBERSHIP_ATTACKS[name].paper)
        notes += beside.notes
        notes.append(
            "The paper names neither its non-members nor the details of its attack"
            + (f"; its numbers are of the kind of {names}." if names else ".")
        )
    return cell_table(
        "Each attack of the panel: AUC, percent" + brackets,
        table["row_axes"],
        rows,
        [
            *(Column(f"`{name}`", f"cell.attacks.{name}", interval, optional=True) for name in table["panel"]),
            Column("paper", lambda row: beside.theirs(row["cell"], _published), optional=True),
        ],
        notes,
    )


def _published(paper: Facts) -> str:
    return f"{100 * paper['mean']:.2f}"


# --- which method leaks more ------------------------------------------------------------------------------------------


def _differences(table: Facts) -> Table:
    """A row per cell and attack, a column per what it is compared with."""
    rows = [
        {**row, "attack": attack, "less": found["less"]}
        for row in _own_cells(table)
        for attack in table["panel"]
        if (found := row["cell"]["by_attack"].get(attack)) and found["less"]
    ]
    compared: list[Facts] = [each for row in rows for each in row["less"].values()]
    axes = (
        "init",
        "distill_aug",
        "labels",
        "iteration",
    )  # what a cell is compared with is a variant, or a value of one of these
    names = sorted(
        {name for row in rows for name in row["less"]},
        key=lambda name: (name.split()[0] in axes, variant_order(name)),
    )
    units = ", ".join(sorted({each["level"] for each in compared}))
    which = "*:" if any(map(_is_small, compared)) else "No difference is shown: none has"
    without = " No p where one model is compared with several." if any(each["p"] is None for each in compared) else ""
    return cell_table(
        "Who leaks more: AUC less that of another, points" + _in_brackets(compared),
        table["row_axes"],
        rows,
        [Column("attack", "attack", lambda name: f"`{name}`"), *map(_less, names)],
        [
            f"Paired: the same members, others and seeds; intervals are over {units}. {which} p below {ALPHA}, "
            f"adjusted for the {table['differences']} tests of this report, the same comparison counted once.{without}"
        ],
    )


def _less(name: str) -> Column:
    return Column(
        f"less {variant_title(name)}",
        lambda row: row["less"].get(name),
        lambda each: interval(each, signed=True) + (" *" if _is_small(each) else ""),
    )


def _is_small(difference: Facts) -> bool:
    return difference["p_adjusted"] is not None and bool(difference["p_adjusted"] < ALPHA)


# --- details ----------------------------------------------------------------------------------------------------------


def _percent(number: Facts, digits: int = 1) -> str:
    return NOTHING if number["value"] is None else f"{100 * number['value']:.{digits}f}"


_WHOLE_PERCENT = partial(_percent, digits=0)
_IMAGES = partial(interval, scale=1)

_K = Footnote(
    "k, at least: as many fully exposed members per class would give this AUC; a stronger attack would find more."
)
_STARTED = Footnote("started from: members whose images the distillation began with, against all non-members.")
_REMAINING = Footnote("others: the remaining members, against all non-members.")
_START = Footnote("iteration 0: a model trained on the undistilled start.")
_CEILING = Footnote("of ceiling: of what publishing real images gives away, how much was found.")
_COMPATIBLE = Footnote(
    "compatible with stated epsilon: the largest AUC that any attack can reach against what the mechanism states, of "
    "one image in place of another; that none reached more proves nothing."
)
_COARSE = Footnote("TPRs are flagged low_resolution: fewer than ten false positives stand behind them.")


def _details(table: Facts) -> Table:
    """What belongs to the headline: a row per cell with a result."""
    rows = [
        {**row, "best": row["cell"]["by_attack"][found["attack"]], "strongest": found}
        for row in _own_cells(table)
        if (found := row["cell"]["strongest"])
    ]
    coarse = any((row["best"]["tpr"] or {}).get("flags") for row in rows)
    low = _COARSE if coarse else None
    columns = [
        Column("attack", "strongest.attack", lambda name: f"`{name}`"),
        Column("target acc", "cell.target_accuracy", _percent, "%"),
        Column(f"TPR at {FPR:.0%} FPR", "best.tpr", interval, footnote=low, optional=True),
        Column("k, at least", "strongest.k", _IMAGES, "images", _K, optional=True),
        Column("AUC, started from", _started_from, footnote=_STARTED, optional=True),
        Column("AUC, others", "best.strata.member_other", _percent, footnote=_REMAINING, optional=True),
        Column("iteration 0", "best.iteration_0", _percent, footnote=_START, optional=True),
        Column("of ceiling", "best.efficiency", _WHOLE_PERCENT, "%", _CEILING, optional=True),
        Column("all test images", "best.auc_all_test", _percent, optional=True),
        Column("compatible with stated epsilon", _compatible, footnote=_COMPATIBLE, optional=True),
        Column("n", "strongest.level", optional=True),
    ]
    title = "What stands behind the strongest attack, percent unless another unit is named"
    return cell_table(title, table["row_axes"], rows, columns, [_what_intervals_are_about(table)])


def _compatible(row: Facts) -> str | None:
    stated = row["cell"]["stated_epsilon"]
    return None if stated is None else f"{100 * most_compatible(stated):.1f} ({stated:.3g})"


def _started_from(row: Facts) -> str | None:
    strata, rho = row["best"]["strata"]["member_init"], row["cell"]["rho"]
    if strata is None:
        return None
    return _percent(strata) + ("" if rho is None else f" ({100 * rho['value']:.0f} % of members)")


def _what_intervals_are_about(table: Facts) -> str:
    """The units of repetition, how many images were told apart, and why a cell has no interval."""
    cells = _cells(table)
    strongest = _strongest_of(cells)
    units = {found["unit"] for found in strongest if found["low"] is not None}
    counts = [
        f"{span(known, 'd')} {name}"
        for name in ("members", "others")
        if (known := [cell[name] for cell in cells if cell[name] is not None])
    ]
    parts = [f"Intervals are about {', '.join(sorted(units))}"] if units else []
    text = f"{'; '.join([*parts, *counts])} per target." if parts or counts else ""
    reasons = {why.removeprefix("no interval: ") for found in strongest for why in found["without_interval"]}
    return " ".join([text, *(f"No interval: {why}." for why in sorted(reasons))]).strip()


# --- other attacks ----------------------------------------------------------------------------------------------------

_OTHERS: Mapping[str, Footnote | None] = {
    f"{attack.name} {variant}".rstrip(): None if attack.note is None else Footnote(attack.note)
    for attack in MEMBERSHIP_ATTACKS.values()
    if attack.needs in ("shadows", "distilled_set", "truth")
    for variant in ("", *attack.report_variants)
}
"""Attacks and variants that may be shown beside the panel, in the order of their table; the rest is in ``ddray report
--json``."""


def _other_attacks(table: Facts) -> Table:
    columns = [
        Column(f"`{name}`", f"cell.attacks.{name}", _percent, footnote=note)
        for name, note in _OTHERS.items()
        if name not in table["panel"] and any(cell["attacks"].get(name) for cell in _cells(table))
    ]
    rows = [row for row in _own_cells(table) if row["cell"]["attacks"]] if columns else []
    return cell_table("Other attacks: AUC, percent", table["row_axes"], rows, columns)


# --- bounds on epsilon ------------------------------------------------------------------------------------------------


def _bounds(table: Facts) -> Iterator[Element]:
    attacks = sorted({name for cell in _cells(table) for name in cell["eps_lower_bound"]})
    if not attacks:
        if reasons := _reasons(_cells(table)):
            yield Lines(tuple(f"Not applicable: {reason}." for reason in reasons))
        return
    yield cell_table(
        "Lower bound on epsilon, at 95 % confidence",
        table["row_axes"],
        _own_cells(table),
        [
            *(Column(f"`{name}`", f"cell.eps_lower_bound.{name}", _bound, optional=True) for name in attacks),
            Column("stated by the mechanism", "cell.stated_epsilon", "{:.2f}".format, optional=True),
        ],
        [
            f"{_names(table['panel'])} was registered beforehand and is the one to read. 0: the attack refuted "
            "nothing; that does not say that nothing leaks."
        ],
    )


def _bound(bound: Facts) -> str:
    return f"{bound['value']:.2f}" + (f" ({bound['level']})" if bound["count"] > 1 else "")


# --- alarms -----------------------------------------------------------------------------------------------------------


def _alarms(report: Facts, measured: Measured) -> Iterator[str]:
    """Baselines that are missing, numbers above what is possible or what real images would give away, attacks that
    disagree, controls outside their band."""
    for table in report["privacy"]:
        where = f"privacy, audit {table['audit']}, {table['title']}"
        for baseline, rows in table["missing_baselines"].items():
            yield (f"{where}: no {baseline} beside {rows} of {len(table['rows'])} rows; without it an AUC says little")
        yield from _disagreements(table, where)
        yield from _more_than_real_images(table, where)
        yield from _more_than_stated(table, where)
    above = [row for row in _all(measured, "mia_auc_efficiency") if row["flag"] == "above_ceiling"]
    if above:
        attacks = ", ".join(sorted({str(row["attack"]) for row in above}))
        yield f"{len(above)} AUCs of random are above the ceiling of published images ({attacks}): something else leaks"
    left_out: dict[str, set[int]] = {}
    for row in (*_all(measured, "mia_auc"), *_all(measured, "mia_eps_lb")):
        if (count := row["param"].get("left_out")) is not None:
            left_out.setdefault(row["audit"], set()).add(count)
    for audit, counts in sorted(left_out.items()):
        yield (
            f"privacy, audit {audit}: left out {span(sorted(counts), form='d')} images that are identical to others, "
            "of which nobody can tell whether they are members"
        )
    controls = [row for row in _all(measured, "mia_auc") if row["attack"] == "blind" and row["value"] is not None]
    outside = [row for row in controls if row["flag"] == "outside_band"]
    if outside:
        yield (
            f"the control `blind`, which sees no model, is outside its 95 % band in {len(outside)} of {len(controls)} "
            f"cases ({0.05 * len(controls):.1f} by chance): there members and others may differ as images"
        )


def _disagreements(table: Facts, where: str) -> Iterator[str]:
    """Cells where the interval of one attack of the panel lies below that of another."""
    apart: list[tuple[float, str]] = []
    cells = [row for row in _own_cells(table) if row["cell"]["by_attack"]]
    for row in cells:
        known = {name: row["cell"]["attacks"][name] for name in row["cell"]["by_attack"]}
        known = {name: auc for name, auc in known.items() if auc["low"] is not None and auc["high"] is not None}
        if not known:
            continue
        most, least = max(known, key=lambda name: known[name]["low"]), min(known, key=lambda name: known[name]["high"])
        if (gap := known[most]["low"] - known[least]["high"]) > 0:
            shown = f"`{most}` {_percent(known[most])} and `{least}` {_percent(known[least])}"
            apart.append((gap, f"{_place(table, row)}: {shown}"))
    if apart:
        yield (
            f"{where}: attacks disagree beyond their intervals in {len(apart)} of {len(cells)} cells (most at "
            f"{max(apart)[1]}); what a weak attack does not find leaks all the same"
        )


def _more_than_real_images(table: Facts, where: str) -> Iterator[str]:
    """Distilled sets whose strongest AUC is above what any attack reaches on as many published images."""
    for row in _own_cells(table):
        cell, found = row["cell"], row["cell"]["strongest"]
        if cell["method"] in BASELINES or not found or None in (found["low"], cell["as_published"]):
            continue
        if found["low"] > cell["as_published"]:
            yield (
                f"{where}: {_place(table, row)} gives away more than publishing {cell['ipc']} real images per class "
                f"would: an AUC of {interval(found)} by `{found['attack']}`, where any attack on those reaches "
                f"{100 * cell['as_published']:.1f} at most on average"
            )


def _more_than_stated(table: Facts, where: str) -> Iterator[str]:
    """Cells in which an attack found more than what the mechanism states allows."""
    for row in _own_cells(table):
        cell, found = row["cell"], row["cell"]["strongest"]
        stated = cell["stated_epsilon"]
        if stated is None:
            continue
        told = f"{where}: {_place(table, row)} contradicts the epsilon of {stated:.3g} that its mechanism states: "
        for attack in table["panel"]:
            bound = cell["eps_lower_bound"].get(attack)
            if bound is not None and bound["value"] > stated:
                yield f"{told}`{attack}` bounds it from below by {bound['value']:.2f}"
        if found and found["low"] is not None and found["low"] > most_compatible(stated):
            yield f"{told}an AUC of {interval(found)} by `{found['attack']}`"


def _place(table: Facts, row: Facts) -> str:
    return f"{variant_title(row['method'])}, {axes_title(table['row_axes'])} {row_title(table['row_axes'], row)}"


def _all(measured: Measured, metric: str) -> list[Row]:
    return [row for rows in measured.numbers.rows.get(metric, {}).values() for row in rows]


PRIVACY = SweepSection(
    id="privacy",
    order=110,
    detailed=METRICS,
    facts=lambda measured, _: audit_tables(measured.points, measured.numbers, measured.sweep),
    elements=_elements,
    alarms=_alarms,
)
