"""What a set is worth: against the full data, random images, other networks, and real images of equal accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.report.blocks import Block, Group, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, interval, narrowed, place, plus_minus, table
from ddray.report.sections.robustness import budget, chosen

PLAIN = (
    "acc_over_full",
    "recovery",
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
RANKS = ("xarch_kendall_tau", "xarch_kendall_p_adjusted")
EXCESS = "excess_"
_COMPARED = {
    "excess_fair_var_acc_corr": ("corrected var acc pp²", 1e4, 1),
    "excess_fair_var_loss": ("var loss nat²", 1, 3),
    "excess_fair_cv_acc": ("CV of acc", 1, 3),
    "excess_adv_acc": ("adversarial acc", 100, 1),
    "excess_mia_auc": ("AUC", 100, 1),
}
"""Metric -> heading, scale and decimals, in the order of the table."""
_IOR = "IOR points"
_LEGEND = {
    "recovery %": "recovery: the share of the way from random images to the full data.",
    "HLR points": "HLR: what is lost to the full data.",
    _IOR: "IOR: what is gained on random images.",
    "of convnet3 %": "of convnet3: accuracy over that of ConvNet3 on the same set.",
    "LRS": "LRS and ARS: DD-Ranking's scores, of fractions; its leaderboard uses other protocols.",
}
"""Heading -> what it says, where it does not say it by itself."""


def facts(block: Block, numbers: Numbers) -> list[dict[str, Any]]:
    """One entry per cell that has any of the numbers: ``numbers`` by metric, and ``excess``."""
    found = []
    for group in block.own_groups:
        means = {metric: mean for metric in PLAIN if (mean := group.mean(numbers.plain.get(metric, {}))) is not None}
        excess = _excess(group, numbers)
        if means or excess:
            found.append({**group.place, "numbers": means, "excess": excess})
    return found


def _excess(group: Group, numbers: Numbers) -> list[dict[str, Any]]:
    """Means over the cell's points. Their intervals are about one and the same draws of real images, so that of the
    mean goes from the mean of the lower ends to that of the upper ones."""
    points = [row["point"] for row in group.members]
    by_kind: dict[tuple[Any, ...], list[Row]] = {}
    for metric in sorted(name for name in numbers.rows if name.startswith(EXCESS)):
        for row in numbers.of(metric, points):
            kind = (metric, row["attack"], row["norm"], row["epsilon"], row["audit"], row["nonmember_source"])
            by_kind.setdefault(kind, []).append(row)
    found = []
    for (metric, attack, norm, epsilon, audit, source), rows in by_kind.items():
        known = [row for row in rows if row["value"] is not None]
        ends = {
            end: fmean(row[column] for row in known)
            if known and all(row[column] is not None for row in known)
            else None
            for end, column in (("low", "ci_low"), ("high", "ci_high"))
        }
        found.append(
            {
                "metric": metric,
                "attack": attack,
                "norm": norm,
                "epsilon": epsilon,
                "audit": audit,
                "nonmember_source": source,
                "unit": rows[0]["unit"],
                "value": fmean(row["value"] for row in known) if known else None,
                **ends,
                "points": len(known),
                "outside": sum(row["flag"] == "outside_frontier" for row in rows),
                "missing": all(row["flag"] == "not_applicable" for row in rows),
                "unequal_steps": sum(row["flag"] == "unequal_steps" for row in rows),
            }
        )
    return found


def ranks(blocks: Sequence[Block], numbers: Numbers) -> list[dict[str, Any]]:
    """Agreement of networks on the ranking of methods, one entry per pair of networks, protocol and ipc."""
    found = []
    for block in blocks:
        for row in block.rows:
            adjusted = {_pair(each): each["value"] for each in numbers.of(RANKS[1], [row["point"]])}
            for each in numbers.of(RANKS[0], [row["point"]]):
                found.append(
                    {
                        "dataset": row["dataset"],
                        "protocol": row["protocol"],
                        "ipc": row["ipc"],
                        "origin_per_class": row["origin_per_class"],
                        "num_classes": row["num_classes"],
                        "architectures": list(_pair(each)),
                        "kendall_tau": each["value"],
                        "methods": each["n"],
                        "p_adjusted": adjusted.get(_pair(each)),
                    }
                )
    return found


def _pair(row: Row) -> tuple[str, ...]:
    return tuple(row["param"].get("architectures", ()))


# --- words ------------------------------------------------------------------------------------------------------------


def text(block: Facts) -> list[str]:
    """What the sets keep of the full data and gain on random images; then what is left at equal accuracy."""
    lines: list[str] = []
    header = [
        axes_header(block["row_axes"]),
        "method",
        "of full data %",
        "recovery %",
        "HLR points",
        _IOR,
        "of convnet3 %",
        "mean of others %",
        "worst other %",
        "LRS",
        "ARS",
    ]
    rows = []
    for entry in block["generalisation"]:
        found: Mapping[str, Any] = entry["numbers"]
        if found:
            gained = found.get("dd_ior") or found.get("ior")
            rows.append(
                [
                    place(block["row_axes"], entry),
                    title_of(entry["method"]),
                    plus_minus(found.get("acc_over_full"), digits=1),
                    plus_minus(found.get("recovery"), digits=1),
                    plus_minus(found.get("dd_hlr"), digits=1),
                    plus_minus(gained, digits=1),
                    *(plus_minus(found.get(f"xarch_{name}"), digits=1) for name in ("retention", "mean", "worst")),
                    plus_minus(found.get("dd_lrs"), 1, 3),
                    plus_minus(found.get("dd_ars"), 1, 3),
                ]
            )
    # What is gained on random images stands in a table of its own already.
    if any(cell != NOTHING for row in rows for index, cell in enumerate(row) if index > 1 and header[index] != _IOR):
        lines += ["", "### Informativeness: mean ± sd over the same seeds", "", *narrowed(header, rows, always=2), ""]
        shown = {name for index, name in enumerate(header) if any(row[index] != NOTHING for row in rows)}
        lines.append(" ".join(text for name, text in _LEGEND.items() if name in shown))
    return lines + _excess_text(block)


def _excess_text(block: Facts) -> list[str]:
    entries = [entry for entry in block["generalisation"] if entry["excess"]]
    columns = _columns([each for entry in entries for each in entry["excess"]])
    if not columns:
        return []
    if all(each["missing"] for entry in entries for each in entry["excess"]):
        return [
            "",
            "Over real images at equal accuracy: nothing to compare with, as there are random images of fewer than two "
            "ipc in this block.",
        ]
    if all(each["value"] is None for entry in entries for each in entry["excess"]):
        return [
            "",
            "Over real images at equal accuracy: no random images of this block are as accurate as these models.",
        ]
    rows = []
    for entry in entries:
        cells = []
        for kind, (_, scale, digits) in columns.items():
            each = next((each for each in entry["excess"] if _kind(each) == kind), None)
            outside = each is not None and each["value"] is None and each["outside"]
            some = "" if each is None or outside or not each["outside"] else _some(each)
            cells.append("no such accuracy" if outside else interval(each, scale, digits, signed=True) + some)
        rows.append([place(block["row_axes"], entry), title_of(entry["method"]), *cells])
    header = [axes_header(block["row_axes"]), "method", *(heading for heading, _, _ in columns.values())]
    lines = ["", "### Over real images at equal accuracy (95 % interval)", "", *table(header, rows), ""]
    lines.append(
        "What is left of each number when a model is compared with models trained on random real images that are as "
        "accurate. Intervals are about the draws of those images. Where none are as accurate, nothing is said; "
        "[1 of 5]: of the other four no real images are as accurate."
    )
    if any(each["unequal_steps"] for entry in entries for each in entry["excess"]):
        lines.append("Some were trained for another number of steps than the real images they are compared with.")
    return lines


def _some(each: Facts) -> str:
    """What is chosen by accuracy says so."""
    return f" [{each['points']} of {each['points'] + each['outside']}]"


def _kind(each: Facts) -> tuple[Any, ...]:
    return each["metric"], each["norm"], each["epsilon"], each["audit"], each["nonmember_source"]


def _columns(found: Sequence[Facts]) -> dict[tuple[Any, ...], tuple[str, float, int]]:
    """The columns of the table: of adversarial accuracy, one epsilon in the middle of those usually shown."""
    columns: dict[tuple[Any, ...], tuple[str, float, int]] = {}
    for metric, (heading, scale, digits) in _COMPARED.items():
        kinds = sorted({_kind(each) for each in found if each["metric"] == metric}, key=str)
        if metric == "excess_adv_acc":
            for norm in sorted({str(kind[1]) for kind in kinds}):
                shown = chosen(sorted(kind[2] for kind in kinds if kind[1] == norm), norm)
                middle = shown[len(shown) // 2]
                kind = next(kind for kind in kinds if kind[1] == norm and kind[2] == middle)
                columns[kind] = (f"{heading} at {budget(middle, norm)} ({norm.capitalize()})", scale, digits)
            continue
        for kind in kinds:
            columns[kind] = (heading if kind[3] is None else f"{heading}, audit {kind[3]}", scale, digits)
    return columns


def ranks_text(found: Sequence[Facts]) -> list[str]:
    """One line per pair of networks."""
    if not found:
        return []
    rows = [
        [
            f"{entry['dataset']}, {entry['protocol']}",
            str(entry["ipc"]),
            " and ".join(entry["architectures"]),
            NOTHING if entry["kendall_tau"] is None else f"{entry['kendall_tau']:+.2f}",
            str(entry["methods"]),
            NOTHING if entry["p_adjusted"] is None else f"{entry['p_adjusted']:.3f}",
        ]
        for entry in found
    ]
    header = ["data, protocol", "ipc", "networks", "Kendall's tau", "methods", "p, adjusted"]
    return [
        "",
        "## Do networks agree on the ranking of methods?",
        "",
        *table(header, rows),
        "",
        "1: the same ranking; -1: the reverse. p: of no agreement, over all pairs of this sweep; absent where so few "
        "methods could not have given a small one.",
    ]
