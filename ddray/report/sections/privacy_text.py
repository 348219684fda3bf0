"""The tables of ``privacy.py`` in words: which attack reached what, never what is private."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ddray.report.blocks import rank, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, interval, narrowed, place, span, table
from ddray.report.sections import privacy_pairs
from ddray.report.sections.accuracy import Notes
from ddray.report.sections.privacy import BASELINES, FPR

_AUDITS = {
    "seed": "the paper's setting: one draw of the origin against test images",
    "pool": "rows of a membership matrix, each distilled anew and attacked with the others as shadows",
    "one_run": "a lower bound on epsilon from one distillation of images that were chosen by coins",
}
_OTHERS = (
    "lira_online",
    "lira_offline",
    "rmia",
    "rmia offline",
    "calib",
    "data_release",
    "data_release relative",
    "data_release features",
    "blind",
)
"""Attacks of the third table, in order; the rest is in the machine report."""


def text(tables: Iterable[Facts]) -> list[str]:
    """All tables."""
    lines: list[str] = []
    for each in tables:
        lines += ["", f"## Membership inference, audit {each['audit']}: {each['title']}", ""]
        lines.append(f"{_AUDITS[each['audit']][0].upper()}{_AUDITS[each['audit']][1:]}.")
        lines += _bounds(each) if each["audit"] == "one_run" else _aucs(each)
    return lines


def _aucs(found: Facts) -> list[str]:
    attack = found["attack"]
    cells = [cell for row in found["rows"] for cell in row["cells"].values()]
    notes = Notes(cells, "Tables 1 and 2")
    rows = []
    columns = [*found["methods"], *(f"{name}?" for name in BASELINES if name not in _methods(cells))]
    for row in found["rows"]:
        shown, published = [place(found["row_axes"], row)], ["  paper"]
        for column in columns:
            cell = row["cells"].get(column)
            shown.append(_headline(cell, attack) + (notes.mark(cell) if cell else ""))
            comparable = cell is not None and cell["paper"] and not cell["objections"]
            published.append(f"{100 * cell['paper']['mean']:.2f}" if cell and comparable else "")
        band = row["null_band"]
        shown.append(f"{100 * band['low']:.1f} to {100 * band['high']:.1f}" if band else NOTHING)
        rows.append(shown)
        if any(published[1:]):
            rows.append([*published, ""])
    titles = [f"{title_of(name[:-1])} (missing)" if name.endswith("?") else title_of(name) for name in columns]
    header = [axes_header(found["row_axes"]), *titles, "null band"]
    lines = ["", f"### Attack `{attack}`: AUC, percent (95 % interval)", "", *table(header, rows), ""]
    lines.append(
        f"`{attack}` was registered beforehand. 50 is chance; null band: where 95 % of AUCs lie when nothing leaks"
        + (
            "."
            if all((row["null_band"] or {"draws": 1})["draws"] == 1 for row in found["rows"])
            else ", of as many draws."
        )
    )
    if found["audit"] == "seed":
        lines.append("Others are as many test images as members, equally many of each class.")
    if short := {cell["method"] for cell in cells if (cell["budget_fraction"] or 1.0) < 1}:
        names = ", ".join(title_of(name) for name in sorted(short, key=rank))
        lines.append(
            f"Budget: {names} distilled for a part of the authors' iterations. After all of them more may leak, though "
            "accuracy may not show it."
        )
    if doubts := sorted({f"{cell['paper']['where']}: {cell['paper']['doubt']}" for cell in cells if _doubted(cell)}):
        lines += [f"Doubtful in the paper: {'; '.join(doubts)}."]
    if notes.published:
        lines += [*notes.lines(), "The paper names neither its non-members nor the details of its attack."]
    for baseline, count in found["missing_baselines"].items():
        lines.append(
            f"No numbers of {baseline} beside {count} of {len(found['rows'])} rows: nothing to compare them with."
        )
    for reason in sorted({reason for cell in cells for reason in cell["reasons"]}):
        lines.append(f"Not applicable: {reason}.")
    return lines + privacy_pairs.text(found, list(_own(found))) + _details(found) + _other_attacks(found)


def _methods(cells: Iterable[Facts]) -> set[str]:
    return {cell["method"] for cell in cells}


def _doubted(cell: Facts) -> bool:
    return bool(cell["paper"] and not cell["objections"] and cell["paper"]["doubt"])


def _headline(cell: Facts | None, attack: str) -> str:
    if cell is None:
        return NOTHING
    found = cell["attacks"].get(attack)
    if found is None:
        return "not applicable" if cell["reasons"] else f"{cell['planned']} without a result"
    missing = f" ({cell['done']} of {cell['planned']} points)" if cell["done"] < cell["planned"] else ""
    return interval(found) + missing


def _details(found: Facts) -> list[str]:
    """What belongs to the headline: a line per cell."""
    attack, second = found["attack"], found["secondary"]
    header = [
        axes_header(found["row_axes"]),
        "method",
        "target acc %",
        f"`{second}` AUC",
        f"TPR at {FPR:.0%} FPR",
        f"`{second}` TPR",
        "k images",
        "AUC, started from",
        "AUC, others",
        "iteration 0",
        "of ceiling %",
        "all test images",
        "n",
    ]
    rows = []
    for where, column, cell in _own(found):
        main = cell["attacks"].get(attack) or cell["attacks"].get(second)
        if main is None:
            continue
        strata, rho = cell["strata"], cell["rho"]
        init = _short(strata["member_init"])
        if init != NOTHING and rho is not None:
            init += f" ({100 * rho['value']:.0f} % of members)"
        rows.append(
            [
                where,
                title_of(column),
                _short(cell["target_accuracy"]),
                interval(cell["attacks"].get(second)),
                interval(cell["tpr"].get(attack)),
                _short(cell["tpr"].get(second)),
                interval(cell["k"], 1),
                init,
                _short(strata["member_other"]),
                _short(cell["iteration_0"]),
                _short(cell["efficiency"], 0),
                _short(cell["auc_all_test"]),
                main["level"],
            ]
        )
    if not rows:
        return []
    lines = ["", f"### What stands behind it: `{attack}` unless another is named, percent", ""]
    lines += [*narrowed(header, rows, always=3), ""]
    lines.append(
        "k: as many fully exposed members per class would give this AUC. started from: members whose images the "
        "distillation began with; others: the remaining members; each against all non-members. iteration 0: a model "
        "trained on the undistilled start. of ceiling: of what publishing real images gives away, how much was found."
    )
    lines.append(_level(found))
    return lines


def _own(found: Facts) -> Iterator[tuple[str, str, Facts]]:
    """Place, column and content of every cell, each once: a baseline that stands in several rows holds for ``any``."""
    shown: list[tuple[str, Facts]] = []
    for row in found["rows"]:
        for column, cell in row["cells"].items():
            if (column, cell) in shown:
                continue
            shown.append((column, cell))
            everywhere = [name for name in ("ipc", "init") if cell["method"] in _WITHOUT[name]]
            yield place(found["row_axes"], {**row, **dict.fromkeys(everywhere)}), column, cell


_WITHOUT = {"ipc": ("full",), "init": BASELINES}
"""Axis -> methods that do not use it."""


def _short(found: Facts | None, digits: int = 1) -> str:
    return NOTHING if found is None or found["value"] is None else f"{100 * found['value']:.{digits}f}"


def _level(found: Facts) -> str:
    """Seed level: what intervals and ± are about, and how many images were told apart."""
    cells = [cell for row in found["rows"] for cell in row["cells"].values()]
    mains = [main for cell in cells if (main := cell["attacks"].get(found["attack"])) is not None]
    units = ", ".join(sorted({main["unit"] for main in mains})) or "images"
    sizes = "".join(
        f"; {span((cell[name] for cell in cells if cell[name] is not None), 'd')} {name}"
        for name in ("members", "others")
        if any(cell[name] is not None for cell in cells)
    )
    flags = sorted({flag for cell in cells for each in (*cell["tpr"].values(),) if each for flag in each["flags"]})
    low = " TPRs are flagged low_resolution: fewer than ten false positives stand behind them." if flags else ""
    return f"Intervals are about {units}{sizes} per target.{low}"


def _other_attacks(found: Facts) -> list[str]:
    named = [
        name
        for name in _OTHERS
        if any(cell["attacks"].get(name) for row in found["rows"] for cell in row["cells"].values())
    ]
    if not named:
        return []
    rows: list[Sequence[str]] = []
    for where, column, cell in _own(found):
        if cell["attacks"]:
            rows.append([where, title_of(column), *(_short(cell["attacks"].get(name)) for name in named)])
    header = [axes_header(found["row_axes"]), "method", *(f"`{name}`" for name in named)]
    lines = ["", "### Other attacks: AUC, percent", "", *table(header, rows), ""]
    if any(name.startswith("data_release") for name in named):
        lines.append(
            "`data_release` sees the distilled images alone: their distance in pixels; relative: over that to the "
            "whole set; features: the same between features of random networks."
        )
    if "blind" in named:
        lines.append("`blind` sees no model: away from 50 it says that members and others differ as images.")
    return lines


def _bound(found: Facts | None) -> str:
    if found is None:
        return NOTHING
    return f"{found['value']:.2f}" + (f" ({found['level']})" if found["count"] > 1 else "")


def _bounds(found: Facts) -> list[str]:
    attacks = sorted(
        {name for row in found["rows"] for cell in row["cells"].values() for name in cell["eps_lower_bound"]}
    )
    rows = []
    for where, column, cell in _own(found):
        bounds = cell["eps_lower_bound"]
        shown = [_bound(bounds.get(name)) for name in attacks]
        rows.append([where, title_of(column), *shown])
    reasons = sorted({reason for row in found["rows"] for cell in row["cells"].values() for reason in cell["reasons"]})
    if not attacks:
        return ["", *(f"Not applicable: {reason}." for reason in reasons)]
    header = [axes_header(found["row_axes"]), "method", *(f"`{name}`" for name in attacks)]
    return [
        "",
        "### Lower bound on epsilon, at 95 % confidence",
        "",
        *narrowed(header, rows, always=2),
        "",
        f"`{found['attack']}` is the one to read. 0: the attack refuted nothing; that does not say that nothing leaks.",
    ]
