"""Membership inference: which attack reached what, never what is private. Its numbers are made in ``audits.py``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ddray.measurements.reading import Row
from ddray.measurements.statistics import ALPHA
from ddray.report.audits import BASELINES, FPR, METRICS, audit_tables
from ddray.report.comparable import variant_order
from ddray.report.page import Element, Heading, Lines
from ddray.report.sections import Measured, SweepSection
from ddray.report.table import NOTHING, Bullets, Column, Footnote, Table
from ddray.report.words import (
    BesidePaper,
    CellRow,
    Facts,
    axes_title,
    cell_columns,
    comparable,
    interval,
    row_title,
    span,
    variant_title,
)

_AUDITS = {
    "seed": "The paper's setting: one draw of the origin against test images.",
    "pool": "Rows of a membership matrix, each distilled anew and attacked with the others as shadows.",
    "one_run": "A lower bound on epsilon from one distillation of images that were chosen by coins.",
}
_WITHOUT = {"ipc": ("full",), "init": BASELINES}
"""Axis -> methods that do not use it."""


def _elements(report: Facts) -> Iterator[Element]:
    """The tables of each audit."""
    for table in report["privacy"]:
        yield Heading(f"Membership inference, audit {table['audit']}: {table['title']}")
        yield Lines((_AUDITS[table["audit"]],))
        if table["audit"] == "one_run":
            yield from _bounds(table)
        else:
            yield _headline(table)
            for part in (_differences(table), _details(table), _other_attacks(table)):
                if part.rows:
                    yield part


def _cells(table: Facts) -> list[Facts]:
    return [cell for row in table["rows"] for cell in row["cells"].values()]


def _own_cells(table: Facts) -> list[CellRow]:
    """Every cell once: a baseline that stands in several rows holds for ``any`` of them."""
    shown: list[tuple[str, Facts]] = []
    rows = []
    for row in table["rows"]:
        for variant, cell in row["cells"].items():
            if (variant, cell) not in shown:
                shown.append((variant, cell))
                everywhere = [axis for axis, methods in _WITHOUT.items() if cell["method"] in methods]
                title = row_title(table["row_axes"], {**row, **dict.fromkeys(everywhere)})
                rows.append(CellRow(title, variant, cell))
    return rows


# --- the headline -----------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """A row of ours, or the paper's below it."""

    title: str
    cells: Mapping[str, str]
    band: Facts | None
    otherwise: str
    """What stands where there is nothing."""


def _headline(table: Facts) -> Table[_Row]:
    attack, cells = table["attack"], _cells(table)
    beside = BesidePaper(cells, "Tables 1 and 2")
    rows = []
    for row in table["rows"]:
        title, of_row = row_title(table["row_axes"], row), row["cells"]
        ours = {variant: _auc(cell, attack) + beside.mark(cell) for variant, cell in of_row.items()}
        published = {name: f"{100 * cell['paper']['mean']:.2f}" for name, cell in of_row.items() if comparable(cell)}
        rows.append(_Row(title, ours, row["null_band"], NOTHING))
        if published:
            rows.append(_Row("  paper", published, None, ""))
    methods = {cell["method"] for cell in cells}
    several = any(row.band and row.band["draws"] > 1 for row in rows)
    meaning = f"null band: where 95 % of AUCs lie when nothing leaks{', of as many draws' if several else ''}."
    return Table(
        f"Attack `{attack}`: AUC, percent (95 % interval)",
        [
            Column(axes_title(table["row_axes"]), lambda row: row.title),
            *(_of_variant(variant, variant_title(variant)) for variant in table["methods"]),
            *(_of_variant(name, f"{variant_title(name)} (missing)") for name in BASELINES if name not in methods),
            Column("null band", _band, footnote=Footnote(meaning)),
        ],
        rows,
        [f"`{attack}` was registered beforehand. 50 is chance.", *_about(table, cells, beside)],
    )


def _of_variant(variant: str, title: str) -> Column[_Row]:
    return Column(title, lambda row: row.cells.get(variant, row.otherwise))


def _band(row: _Row) -> str:
    return f"{100 * row.band['low']:.1f} to {100 * row.band['high']:.1f}" if row.band else row.otherwise


def _auc(cell: Facts, attack: str) -> str:
    found = cell["attacks"].get(attack)
    if found is None:
        return "not applicable" if cell["reasons"] else f"{cell['planned']} without a result"
    missing = f" ({cell['done']} of {cell['planned']} points)" if cell["done"] < cell["planned"] else ""
    return interval(found) + missing


def _about(table: Facts, cells: Sequence[Facts], beside: BesidePaper) -> Iterator[str | Bullets]:
    """What the numbers do not say by themselves: other images, budgets, the paper, what is missing."""
    if table["audit"] == "seed":
        yield "Others are as many test images as members, equally many of each class."
    if short := {cell["method"] for cell in cells if (cell["budget_fraction"] or 1.0) < 1}:
        names = ", ".join(variant_title(name) for name in sorted(short, key=variant_order))
        yield (
            f"Budget: {names} distilled for a part of the authors' iterations. After all of them more may leak, though "
            "accuracy may not show it."
        )
    published = [cell["paper"] for cell in cells if comparable(cell)]
    if doubts := sorted({f"{one['where']}: {one['doubt']}" for one in published if one["doubt"]}):
        yield f"Doubtful in the paper: {'; '.join(doubts)}."
    if beside.published:
        yield from beside.notes
        yield "The paper names neither its non-members nor the details of its attack."
    for baseline, count in table["missing_baselines"].items():
        yield f"No numbers of {baseline} beside {count} of {len(table['rows'])} rows: nothing to compare them with."
    for reason in _reasons(cells):
        yield f"Not applicable: {reason}."


def _reasons(cells: Iterable[Facts]) -> list[str]:
    return sorted({reason for cell in cells for reason in cell["reasons"]})


# --- which method leaks more ------------------------------------------------------------------------------------------


def _differences(table: Facts) -> Table[CellRow]:
    """A row per cell, a column per what it is compared with."""
    rows = [row for row in _own_cells(table) if row.facts["less"]]
    compared: list[Facts] = [each for row in rows for each in row.facts["less"].values()]
    axes = ("init", "distill_aug", "iteration")  # what a cell is compared with is a variant, or a value of one of these
    names = sorted(
        {name for row in rows for name in row.facts["less"]},
        key=lambda name: (name.split()[0] in axes, variant_order(name)),
    )
    units = ", ".join(sorted({each["level"] for each in compared}))
    which = "*:" if any(map(_is_small, compared)) else "None has"
    without = " No p where one model is compared with several." if any(each["p"] is None for each in compared) else ""
    return Table(
        f"Who leaks more: AUC of `{table['less_attack']}` less that of another, points (95 % interval)",
        [*cell_columns(table["row_axes"]), *map(_less, names)],
        rows,
        [
            f"Paired: the same members, others and seeds; intervals are over {units}. {which} p below {ALPHA}, "
            f"adjusted for the number of differences in this report.{without}"
        ],
    )


def _less(name: str) -> Column[CellRow]:
    return Column(
        f"less {variant_title(name)}",
        lambda row: row.facts["less"].get(name),
        lambda each: interval(each, signed=True) + (" *" if _is_small(each) else ""),
    )


def _is_small(difference: Facts) -> bool:
    return difference["p_adjusted"] is not None and bool(difference["p_adjusted"] < ALPHA)


# --- details ----------------------------------------------------------------------------------------------------------


def _details(table: Facts) -> Table[CellRow]:
    """What belongs to the headline: a row per cell with a result."""
    attack, second = table["attack"], table["secondary"]
    rows = [row for row in _own_cells(table) if _main(row.facts, table) is not None]
    coarse = any(each["flags"] for cell in _cells(table) for each in cell["tpr"].values() if each)
    low = (
        Footnote("TPRs are flagged low_resolution: fewer than ten false positives stand behind them.")
        if coarse
        else None
    )
    optional = partial(Column[CellRow], optional=True)
    return Table(
        f"What stands behind it: `{attack}` unless another is named, percent",
        [
            *cell_columns(table["row_axes"]),
            Column("target acc", lambda row: row.facts["target_accuracy"], _percent, "%"),
            optional(f"`{second}` AUC", lambda row: row.facts["attacks"].get(second), interval),
            optional(f"TPR at {FPR:.0%} FPR", lambda row: row.facts["tpr"].get(attack), interval, footnote=low),
            optional(f"`{second}` TPR", lambda row: row.facts["tpr"].get(second), _percent, footnote=low),
            optional(
                "k",
                lambda row: row.facts["k"],
                partial(interval, scale=1),
                "images",
                Footnote("k: as many fully exposed members per class would give this AUC."),
            ),
            optional(
                "AUC, started from",
                _started_from,
                footnote=Footnote(
                    "started from: members whose images the distillation began with, against all non-members."
                ),
            ),
            optional(
                "AUC, others",
                lambda row: row.facts["strata"]["member_other"],
                _percent,
                footnote=Footnote("others: the remaining members, against all non-members."),
            ),
            optional(
                "iteration 0",
                lambda row: row.facts["iteration_0"],
                _percent,
                footnote=Footnote("iteration 0: a model trained on the undistilled start."),
            ),
            optional(
                "of ceiling",
                lambda row: row.facts["efficiency"],
                partial(_percent, digits=0),
                "%",
                Footnote("of ceiling: of what publishing real images gives away, how much was found."),
            ),
            optional("all test images", lambda row: row.facts["auc_all_test"], _percent),
            optional("n", lambda row: _main(row.facts, table)["level"]),
        ],
        rows,
        [_what_intervals_are_about(table)],
    )


def _main(cell: Facts, table: Facts) -> Any:
    return cell["attacks"].get(table["attack"]) or cell["attacks"].get(table["secondary"])


def _percent(found: Facts, digits: int = 1) -> str:
    return NOTHING if found["value"] is None else f"{100 * found['value']:.{digits}f}"


def _started_from(row: CellRow) -> str | None:
    strata, rho = row.facts["strata"]["member_init"], row.facts["rho"]
    if strata is None:
        return None
    return _percent(strata) + ("" if rho is None else f" ({100 * rho['value']:.0f} % of members)")


def _what_intervals_are_about(table: Facts) -> str:
    """The units of repetition, and how many images were told apart."""
    cells = _cells(table)
    units = {found["unit"] for cell in cells if (found := cell["attacks"].get(table["attack"])) is not None}
    text = f"Intervals are about {', '.join(sorted(units)) or 'images'}"
    for name in ("members", "others"):
        if counts := [cell[name] for cell in cells if cell[name] is not None]:
            text += f"; {span(counts, 'd')} {name}"
    return f"{text} per target."


# --- other attacks ----------------------------------------------------------------------------------------------------

_DATA_RELEASE = Footnote(
    "`data_release` sees the distilled images alone: their distance in pixels; relative: over that to the whole set; "
    "features: the same between features of random networks."
)
_BLIND = Footnote("`blind` sees no model: away from 50 it says that members and others differ as images.")
_OTHERS: Mapping[str, Footnote | None] = {
    "lira_online": None,
    "lira_offline": None,
    "rmia": None,
    "rmia offline": None,
    "calib": None,
    "data_release": _DATA_RELEASE,
    "data_release relative": _DATA_RELEASE,
    "data_release features": _DATA_RELEASE,
    "blind": _BLIND,
}
"""Attacks in the order of their table; the rest is in ``ddray report --json``."""


def _other_attacks(table: Facts) -> Table[CellRow]:
    shown = {name: note for name, note in _OTHERS.items() if any(cell["attacks"].get(name) for cell in _cells(table))}
    return Table(
        "Other attacks: AUC, percent",
        [*cell_columns(table["row_axes"]), *(_auc_of(name, note) for name, note in shown.items())],
        [row for row in _own_cells(table) if row.facts["attacks"]] if shown else [],
    )


def _auc_of(attack: str, footnote: Footnote | None) -> Column[CellRow]:
    return Column(f"`{attack}`", lambda row: row.facts["attacks"].get(attack), _percent, footnote=footnote)


# --- bounds on epsilon ------------------------------------------------------------------------------------------------


def _bounds(table: Facts) -> Iterator[Element]:
    attacks = sorted({name for cell in _cells(table) for name in cell["eps_lower_bound"]})
    if not attacks:
        if reasons := _reasons(_cells(table)):
            yield Lines(tuple(f"Not applicable: {reason}." for reason in reasons))
        return
    yield Table(
        "Lower bound on epsilon, at 95 % confidence",
        [*cell_columns(table["row_axes"]), *map(_bound, attacks)],
        _own_cells(table),
        [
            f"`{table['attack']}` is the one to read. 0: the attack refuted nothing; that does not say that nothing "
            "leaks."
        ],
    )


def _bound(attack: str) -> Column[CellRow]:
    return Column(
        f"`{attack}`",
        lambda row: row.facts["eps_lower_bound"].get(attack),
        lambda found: f"{found['value']:.2f}" + (f" ({found['level']})" if found["count"] > 1 else ""),
        optional=True,
    )


# --- alarms -----------------------------------------------------------------------------------------------------------


def _alarms(report: Facts, measured: Measured) -> Iterator[str]:
    """Baselines that are missing, numbers above what is possible, controls outside their band."""
    for table in report["privacy"]:
        for baseline, rows in table["missing_baselines"].items():
            yield (
                f"privacy, audit {table['audit']}, {table['title']}: no {baseline} beside {rows} of "
                f"{len(table['rows'])} rows; without it an AUC says little"
            )
    above = [row for row in _all(measured, "mia_auc_efficiency") if row["flag"] == "above_ceiling"]
    if above:
        attacks = ", ".join(sorted({str(row["attack"]) for row in above}))
        yield f"{len(above)} AUCs of random are above the ceiling of published images ({attacks}): something else leaks"
    controls = [row for row in _all(measured, "mia_auc") if row["attack"] == "blind" and row["value"] is not None]
    outside = [row for row in controls if row["flag"] == "outside_band"]
    if outside:
        yield (
            f"the control `blind`, which sees no model, is outside its 95 % band in {len(outside)} of {len(controls)} "
            f"cases ({0.05 * len(controls):.1f} by chance): there members and others may differ as images"
        )


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
