"""What a set is worth: against the full data, random images, other networks, and real images of equal accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.statistics import accuracy_difference, share_of_way
from ddray.report.comparable import Cell, ReportBlock
from ddray.report.page import Element, Lines
from ddray.report.sections import BlockSection, Measured, SweepSection
from ddray.report.table import Column, Facts, Footnote, Table
from ddray.report.words import PERCENT_1, cell_table, epsilon_text, interval, plus_minus, shown_epsilons

PLAIN = (
    "acc_over_full",
    "ior",
    "xarch_retention",
    "xarch_mean",
    "xarch_worst",
    "dd_hlr",
    "dd_ior",
    "dd_lrs",
    "dd_ars",
)
"""One number per point, or per set on its first point."""
TAU, P_ADJUSTED = "xarch_kendall_tau", "xarch_kendall_p_adjusted"
EXCESS = "excess_"
_KIND = ("attack", "norm", "epsilon", "audit", "nonmember_source")
"""What tells several numbers of one metric apart."""
FAR = 0.1
"""Difference of accuracies between which a straight line is a guess."""
_FAR_MARK = ", far"
_HEADLINE = ("test_balanced", "pool")
"""Non-members of an audit's headline."""


def _facts(block: ReportBlock, numbers: Numbers) -> list[dict[str, Any]]:
    """One entry per cell that has any of the numbers: ``numbers`` by metric, ``recovery`` and ``excess``."""
    entries = []
    recoveries = _recoveries(block)
    for cell in block.own_cells:
        means = {metric: mean for metric in PLAIN if (mean := cell.mean(numbers.plain.get(metric, {}))) is not None}
        excess = _excess(cell, numbers)
        if means or excess:
            recovery = recoveries.get((cell.variant, cell.points[0]["point"]))
            entries.append({**cell.facts, "numbers": means, "recovery": recovery, "excess": excess})
    return entries


def _recoveries(block: ReportBlock) -> dict[tuple[str, str], dict[str, Any]]:
    """Variant and its first point -> the share of the way from random images to the full data (None where that way may
    be none), and the way itself, each with its interval."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for cells in block.rows.values():
        by_variant = {cell.variant: cell for cell in cells}
        if not {"random", "full"} <= by_variant.keys():
            continue
        random, full = (_scores(by_variant[name]) for name in ("random", "full"))
        for variant, cell in by_variant.items():
            images = [point["n"] for point in cell.points if point["n"]]
            ours = _scores(cell)
            if variant not in ("random", "full") and images and random and full and ours:
                share = share_of_way(ours, random, full, min(images))
                way = accuracy_difference(full, random, min(images))
                found.setdefault(
                    (variant, cell.points[0]["point"]),
                    {"share": None if share is None else share._asdict(), "way": way._asdict()},
                )
    return found


def _scores(cell: Cell) -> list[float]:
    """Accuracies at the highest level of repetition: of sets where there are several, else of trainings."""
    sets = [list(trainings.values()) for trainings in cell.values().values()]
    return [fmean(trainings) for trainings in sets] if len(sets) > 1 else [value for each in sets for value in each]


def _excess(cell: Cell, numbers: Numbers) -> list[dict[str, Any]]:
    """What is about all seeds of the cell stands on the first of its points."""
    points = [point["point"] for point in cell.points]
    return [
        {
            "metric": row["metric"],
            **{name: row[name] for name in _KIND},
            "unit": row["unit"],
            "value": row["value"],
            "low": row["ci_low"],
            "high": row["ci_high"],
            "about": row["ci_unit"],
            "models": row["n_agg"] or 1,
            "draws": row["n"],
            "knots_apart": row["param"].get("knots_apart"),
            "reason": row["param"].get("reason"),
            "flag": row["flag"],
        }
        for metric in sorted(name for name in numbers.rows if name.startswith(EXCESS))
        for row in numbers.of(metric, points)
    ]


# --- what a set keeps and gains ---------------------------------------------------------------------------------------


def _elements(block: Facts) -> Iterator[Element]:
    """What the sets keep of the full data and gain on random images; then what is left at equal accuracy."""
    rows = [entry for entry in block["generalisation"] if entry["numbers"]]
    # What is gained on random images stands in a table of its own already.
    if any(column.filled(rows) for column in _WORTH if column is not _IOR):
        yield cell_table(
            "Informativeness: mean ± sd over the same seeds", block["row_axes"], rows, _WORTH, words={NO_WAY: _NO_WAY}
        )
    yield from _over_real_images(block)


def _ior(entry: Facts) -> Facts | None:
    numbers: dict[str, Facts] = entry["numbers"]
    return numbers.get("dd_ior") or numbers.get("ior")


NO_WAY = "no way"
_RECOVERY = Footnote(
    "recovery: the share of the way from random images to the full data (95 % interval, over trainings or draws and "
    "test images)."
)
_NO_WAY = (
    f"{NO_WAY}: the full data are not shown to be ahead of random images, and a share of what may be 0 is no number. "
    "Beside it, by how many points they are ahead."
)


def _recovery(recovery: Facts) -> str:
    share: Facts | None = recovery["share"]
    return interval(share) if share is not None else f"{NO_WAY}: {interval(recovery['way'], signed=True)}"


_HLR = Footnote("HLR: what is lost to the full data.")
_OF_CONVNET = Footnote("of convnet3: accuracy over that of ConvNet3 on the same set.")
_SCORES = Footnote("LRS and ARS: DD-Ranking's scores, of fractions; its leaderboard uses other protocols.")
_SCORE = partial(plus_minus, scale=1, digits=3)

_IOR = Column("IOR", _ior, PERCENT_1, "points", Footnote("IOR: what is gained on random images."), optional=True)
_WORTH = [
    Column("of full data", "numbers.acc_over_full", PERCENT_1, "%", optional=True),
    Column("recovery", "recovery", _recovery, "%", _RECOVERY, optional=True),
    Column("HLR", "numbers.dd_hlr", PERCENT_1, "points", _HLR, optional=True),
    _IOR,
    Column("of convnet3", "numbers.xarch_retention", PERCENT_1, "%", _OF_CONVNET, optional=True),
    Column("mean of others", "numbers.xarch_mean", PERCENT_1, "%", optional=True),
    Column("worst other", "numbers.xarch_worst", PERCENT_1, "%", optional=True),
    Column("LRS", "numbers.dd_lrs", _SCORE, footnote=_SCORES, optional=True),
    Column("ARS", "numbers.dd_ars", _SCORE, footnote=_SCORES, optional=True),
]


# --- over real images at equal accuracy -------------------------------------------------------------------------------


def _over_real_images(block: Facts) -> Iterator[Element]:
    entries = [entry for entry in block["generalisation"] if entry["excess"]]
    excess: list[Facts] = [each for entry in entries for each in entry["excess"]]
    columns = _compared(excess)
    if not excess:
        return
    if all(each["value"] is None for each in excess):
        why = "no random images of this block are as accurate as these models."
        if all(each["flag"] == "not_applicable" for each in excess):
            why = "nothing to compare with, as there are random images of fewer than two ipc in this block."
        yield Lines((f"Over real images at equal accuracy: {why}",))
        return
    some = any(each["low"] is not None for each in excess)
    in_brackets = " (95 % interval)" if some else ""
    notes = list(_about_excess(excess))
    if columns:
        yield cell_table(f"Over real images at equal accuracy{in_brackets}", block["row_axes"], entries, columns, notes)
    if leaks := _compared_leaks(excess):
        title = f"AUC over real images at equal accuracy, points{in_brackets}"
        of_panel = "Each attack of the audit's panel."
        yield cell_table(title, block["row_axes"], entries, leaks, [of_panel] if columns else [of_panel, *notes])


def _about_excess(excess: Sequence[Facts]) -> Iterator[str]:
    yield (
        "What is left of each number, as a mean over a cell's models, when it is compared with models trained on "
        "random real images of their mean accuracy. Where none are as accurate, nothing is said."
    )
    if about := sorted({each["about"] for each in excess if each["about"] is not None}):
        yield f"Intervals are about {' or '.join(about)} of the method together with draws of real images."
    for reason in sorted({each["reason"] for each in excess if each["reason"] is not None}):
        yield f"{reason[0].upper()}{reason[1:]}."
    if any(map(_is_far, excess)):
        yield (
            "far: compared with a straight line between real images whose accuracies are more than "
            f"{100 * FAR:.0f} points apart."
        )
    if any(each["flag"] == "unequal_steps" for each in excess):
        yield "Some were trained for another number of steps than the real images they are compared with."


def _is_far(each: Facts) -> bool:
    return each["knots_apart"] is not None and bool(each["knots_apart"] > FAR)


class _Compared(NamedTuple):
    """How the excess of a metric is printed."""

    title: str
    scale: float
    digits: int


_COMPARED = {
    "excess_fair_var_acc_corr": _Compared("corrected var acc pp²", 1e4, 1),
    "excess_fair_var_loss": _Compared("var loss nat²", 1, 3),
    "excess_fair_cv_acc": _Compared("CV of acc", 1, 3),
    "excess_adv_acc": _Compared("adversarial acc", 100, 1),
}
"""In the order of the table."""


def _compared(excess: Sequence[Facts]) -> list[Column]:
    """A column per kind of number; of adversarial accuracy, one epsilon in the middle of those usually shown."""
    columns = []
    for metric, printed in _COMPARED.items():
        kinds = {str(_kind(each)): each for each in excess if each["metric"] == metric}
        for _, each in sorted(kinds.items()):
            if metric != "excess_adv_acc":
                columns.append(_excess_column(printed.title, each, printed))
            elif each["epsilon"] == _middle(kinds.values(), norm := each["norm"]):
                title = f"{printed.title} at {epsilon_text(each['epsilon'], norm)} ({norm.capitalize()})"
                columns.append(_excess_column(title, each, printed))
    return columns


def _compared_leaks(excess: Sequence[Facts]) -> list[Column]:
    """A column per audit and attack of its panel, against the non-members of its headline."""
    printed = _Compared("AUC", 100, 1)
    headline = (each for each in excess if each["metric"] == "excess_mia_auc" and each["nonmember_source"] in _HEADLINE)
    kinds = {_kind(each): each for each in headline}
    return [_excess_column(f"`{each['attack']}`, audit {each['audit']}", each, printed) for each in kinds.values()]


def _middle(kinds: Iterable[Facts], norm: str) -> float:
    shown = shown_epsilons(sorted(each["epsilon"] for each in kinds if each["norm"] == norm), norm)
    return shown[len(shown) // 2]


def _kind(each: Facts) -> tuple[Any, ...]:
    """What a column holds one number of."""
    return (each["metric"], *(each[name] for name in _KIND))


def _excess_column(title: str, of: Facts, printed: _Compared) -> Column:
    def value(row: Facts) -> Facts | None:
        return next((each for each in row["excess"] if _kind(each) == _kind(of)), None)

    def text(each: Facts) -> str:
        if each["flag"] == "outside_frontier":
            return "no such accuracy"
        bare = " (no interval)" if each["reason"] is not None else ""
        return interval(each, printed.scale, printed.digits, signed=True) + bare + _FAR_MARK * _is_far(each)

    return Column(title, value, text)


GENERALISATION = BlockSection(
    id="generalisation", order=50, plain=PLAIN, prefixes=(EXCESS,), facts=_facts, elements=_elements
)


# --- rankings of networks ---------------------------------------------------------------------------------------------


def _rankings(measured: Measured, _: Facts) -> list[dict[str, Any]]:
    """Agreement of networks on the ranking of methods, one entry per pair of networks, protocol and ipc."""
    return [
        entry for block in measured.blocks for point in block.points for entry in _of_pairs(point, measured.numbers)
    ]


def _of_pairs(point: Row, numbers: Numbers) -> Iterator[dict[str, Any]]:
    """The agreement stands on the first point of what is ranked."""
    adjusted = {_pair(row): row["value"] for row in numbers.of(P_ADJUSTED, [point["point"]])}
    for row in numbers.of(TAU, [point["point"]]):
        yield {
            **{name: point[name] for name in ("dataset", "protocol", "ipc", "origin_per_class", "num_classes")},
            "architectures": list(_pair(row)),
            "kendall_tau": row["value"],
            "methods": row["n"],
            "p_adjusted": adjusted.get(_pair(row)),
        }


def _pair(row: Row) -> tuple[str, ...]:
    return tuple(row["param"].get("architectures", ()))


def _agreement(report: Facts) -> Iterator[Element]:
    """One row per pair of networks."""
    if report["rankings"]:
        yield Table("", _AGREEMENT, report["rankings"])


_TAU = Footnote("tau: 1, the same ranking; -1, the reverse.")
_P = Footnote(
    "p: of no agreement, over all pairs of this sweep; absent where so few methods could not have given a small one."
)
_AGREEMENT = [
    Column("data, protocol", lambda entry: f"{entry['dataset']}, {entry['protocol']}"),
    Column("ipc", lambda entry: str(entry["ipc"])),
    Column("networks", "architectures", " and ".join),
    Column("Kendall's tau", "kendall_tau", "{:+.2f}".format, footnote=_TAU),
    Column("methods", "methods"),
    Column("p, adjusted", "p_adjusted", "{:.3f}".format, footnote=_P),
]

RANKINGS = SweepSection(
    id="rankings",
    order=130,
    title="Do networks agree on the ranking of methods?",
    detailed=(TAU, P_ADJUSTED),
    facts=_rankings,
    elements=_agreement,
)
