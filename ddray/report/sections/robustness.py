"""How easily the models of a block are misled: accuracy within each budget, distances, and how far to trust them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.report.blocks import Block, Group, refuse_mixed, title_of
from ddray.report.markdown import NOTHING, Facts, axes_header, narrowed, place, plus_minus
from trainables.attacks import ROBUSTNESS_ATTACKS

METRICS = (
    "adv_acc",
    "adv_dist_median",
    "adv_gap_strong",
    "eps_cross",
    "zero_gradient_share",
    "adv_pgd_weaker_than_fgsm",
)
PRIMARY = ("deepfool_l2", "deepfool_linf")
"""Attacks with a table of their own."""
SHOWN = {"l2": (0.1, 0.25, 0.5, 1.0), "linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255)}
"""Epsilons of the tables, where they were evaluated."""
_COLUMNS = 4
_SETTINGS = ("attack_steps", "rel_stepsize", "overshoot", "candidates", "restarts", "attack_lib")
_ONE_VALUE = ("n", "norm", *_SETTINGS)
"""Parameters of an attack that all numbers of a block must agree on."""
NOT_CONVERGED = 0.1
VANISHED = 0.5


def facts(block: Block, numbers: Numbers, where: str) -> list[dict[str, Any]]:
    """One entry per attack: its settings, ``images``, ``epsilons``, and ``rows``, one per cell.

    Ensembles of different attacks are different attacks: ``of_attacks`` says which.

    Raises:
        MixedBlock: Numbers of one attack were made with different settings or numbers of images.
    """
    points = [row["point"] for row in block.rows]
    by_attack: dict[_Name, dict[str, dict[str, list[Row]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    ensembles: dict[tuple[str, str], str] = {}
    for metric in METRICS:
        for row in numbers.of(metric, points):
            curve = metric == "adv_acc" and row["adv_def"] not in (None, "clip")  # that of raw perturbations
            if not curve and row["attack"] is not None and row["status"] == "ok":
                members = row["param"].get("of_attacks")
                by_attack[row["attack"], members][metric][row["point"]].append(row)
                if members is not None:
                    ensembles[row["point"], row["norm"]] = f"{row['attack']} of {members}"
    order = list(ROBUSTNESS_ATTACKS)
    return [
        _attack(name, block, by_attack[name], ensembles, f"{where}: {block.title}: {name[0]}")
        for name in sorted(
            by_attack,
            key=lambda name: (order.index(name[0]) if name[0] in order else len(order), name[0], name[1] or ""),
        )
        if by_attack[name]["adv_acc"]
    ]


_Name = tuple[str, str | None]
"""An attack, and its members if it is an ensemble."""


def _attack(
    attack: _Name,
    block: Block,
    found: Mapping[str, Mapping[str, list[Row]]],
    ensembles: Mapping[tuple[str, str], str],
    where: str,
) -> dict[str, Any]:
    name, members = attack
    curves = [row for rows in found["adv_acc"].values() for row in rows]
    refuse_mixed(curves, _ONE_VALUE, where)
    first, spec = curves[0], ROBUSTNESS_ATTACKS.get(name)
    title = spec.title if spec else name if members is None else f"{name} of {members}"
    return {
        "attack": name,
        "of_attacks": members,
        "title": title,
        "norm": first["norm"] or (spec.norm if spec else "l2"),
        "adv_def": "clip",
        "images": first["n"],
        "settings": {name: first[name] for name in _SETTINGS if first[name] is not None},
        "epsilons": sorted({row["epsilon"] for row in curves} - {0.0, None}),
        "rows": [entry for group in block.own_groups if (entry := _entry(group, found, ensembles)) is not None],
    }


def _entry(
    group: Group, found: Mapping[str, Mapping[str, list[Row]]], ensembles: Mapping[tuple[str, str], str]
) -> dict[str, Any] | None:
    points = [row["point"] for row in group.members]
    curves = [row for point in points for row in found["adv_acc"].get(point, ())]
    if not curves:
        return None
    epsilons = sorted({row["epsilon"] for row in curves})
    means = {epsilon: group.mean(_values(curves, epsilon)) for epsilon in epsilons}
    gaps = [row for point in points for row in found["adv_gap_strong"].get(point, ())]
    crossings = [row["value"] for point in points for row in found["eps_cross"].get(point, ())]
    distances = [row for point in points for row in found["adv_dist_median"].get(point, ())]
    weaker = [row for point in points for row in found["adv_pgd_weaker_than_fgsm"].get(point, ())]
    return {
        **group.place,
        "clean": means.get(0.0),
        "adv_acc": [{"epsilon": epsilon, **mean} for epsilon, mean in means.items() if epsilon and mean],
        "adv_dist_median": group.mean(_values(distances)),
        "distances_missing": sum(row["value"] is None for row in distances),
        "gap_strong": [
            {"epsilon": epsilon, **mean}
            for epsilon in sorted({row["epsilon"] for row in gaps})
            if (mean := group.mean(_values(gaps, epsilon))) is not None
        ],
        "strong_attack": sorted({_strong(row, ensembles) for row in gaps}),
        "eps_cross": {
            "compared": len(crossings),
            "crossed": sum(value is not None for value in crossings),
            "mean": fmean(known) if (known := [value for value in crossings if value is not None]) else None,
        },
        "converged_share": _least(row["converged_share"] for row in curves),
        "zero_gradient_share": _most(
            row["value"] for point in points for row in found["zero_gradient_share"].get(point, ())
        ),
        "pgd_weaker_than_fgsm": sum((row["ci_low"] or 0) > 0 for row in weaker),
    }


def _strong(row: Row, ensembles: Mapping[tuple[str, str], str]) -> str:
    """The strongest attack of a gap: of an ensemble, with its members."""
    name = str(row["param"].get("strong_attack"))
    ensemble = ensembles.get((row["point"], row["norm"]), "")
    return ensemble if ensemble.startswith(f"{name} of") else name


def _values(rows: Iterable[Row], epsilon: float | None = None) -> dict[str, float]:
    return {
        row["point"]: row["value"]
        for row in rows
        if row["value"] is not None and (epsilon is None or row["epsilon"] == epsilon)
    }


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def alarms(title: str, attacks: Sequence[Facts]) -> list[str]:
    """Signs that an attack found less than there is to find."""
    found = []
    for attack in attacks:
        where = f"{title}: {attack['title']}"
        weak = [entry for entry in attack["rows"] if entry["pgd_weaker_than_fgsm"]]
        if weak:
            found.append(f"{where} found less than one step of FGSM for {_methods(weak)}: not robustness")
        slow = [entry for entry in attack["rows"] if 1 - _or(entry["converged_share"], 1.0) > NOT_CONVERGED]
        if slow:
            share = min(entry["converged_share"] for entry in slow)
            found.append(f"{where} did not end for up to {100 * (1 - share):.0f} % of the images of {_methods(slow)}")
        # DeepFool, FMN and C&W follow logits and margins, whose gradients do not vanish with the cross-entropy's.
        follows = attack["attack"] in ROBUSTNESS_ATTACKS and ROBUSTNESS_ATTACKS[attack["attack"]].cross_entropy
        blind = [entry for entry in attack["rows"] if _or(entry["zero_gradient_share"], 0.0) > VANISHED]
        if follows and blind:
            share = max(entry["zero_gradient_share"] for entry in blind)
            found.append(
                f"{where}: gradients are exactly 0 for up to {100 * share:.0f} % of the images of {_methods(blind)}"
            )
    return found


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _methods(entries: Iterable[Facts]) -> str:
    return ", ".join(dict.fromkeys(entry["method"] for entry in entries))


# --- words ------------------------------------------------------------------------------------------------------------


def text(block: Facts) -> list[str]:
    """A table for each norm of DeepFool, and one for the other attacks in each norm."""
    lines: list[str] = []
    attacks = block["robustness"]
    for attack in attacks:
        if attack["attack"] in PRIMARY:
            lines += ["", *_primary(block, attack)]
    for norm in ("linf", "l2"):
        others = [attack for attack in attacks if attack["norm"] == norm and attack["attack"] not in PRIMARY]
        if others:
            lines += ["", *_others(block, others, norm)]
    return lines


def _primary(block: Facts, attack: Facts) -> list[str]:
    shown = chosen(attack["epsilons"], attack["norm"])
    norm = attack["norm"]
    header = [
        axes_header(block["row_axes"]),
        "method",
        "clean",
        *(budget(value, norm) for value in shown),
        "n",
        "median distance",
        "crosses full at",
        "gap to strongest",
        "ended %",
    ]
    rows = []
    strongest = sorted({name for entry in attack["rows"] for name in entry["strong_attack"]})
    for entry in attack["rows"]:
        clean = entry["clean"]
        rows.append(
            [
                place(block["row_axes"], entry),
                title_of(entry["method"]),
                plus_minus(clean, digits=1),
                *(plus_minus(_at(entry["adv_acc"], epsilon), digits=1) for epsilon in shown),
                clean["short"] if clean else "",
                _distance(entry, norm),
                _crossing(entry["eps_cross"], norm),
                _gap(entry["gap_strong"], shown, norm) if len(strongest) == 1 else NOTHING,
                NOTHING if entry["converged_share"] is None else f"{100 * entry['converged_share']:.0f}",
            ]
        )
    settings = ", ".join(f"{name.removeprefix('attack_')} {value}" for name, value in attack["settings"].items())
    lines = [
        f"### Robustness: {attack['title']}, percent of {attack['images']} images still classified correctly",
        "",
        *narrowed(header, rows, always=4 + len(shown)),
        "",
        f"± is over the same seeds as the accuracy, not over images. {settings}.",
    ]
    if any(row[5 + len(shown)] != NOTHING for row in rows):
        lines.append(
            "crosses full at: the smallest budget at which a model is more accurate than the full-data model, with "
            "an interval for all budgets together above 0 and both at 2 % or more."
        )
    if len(strongest) == 1:
        lines.append(f"gap to strongest: points by which {strongest[0]} is below this attack.")
    elif strongest:
        lines.append(
            f"gap to strongest: not shown, because it is to different attacks: {'; '.join(strongest)}. It is on the "
            "rows."
        )
    return lines


def _others(block: Facts, attacks: Sequence[Facts], norm: str) -> list[str]:
    shown = chosen(sorted({epsilon for attack in attacks for epsilon in attack["epsilons"]}), norm)
    header = [
        axes_header(block["row_axes"]),
        "method",
        "attack",
        "clean",
        *(budget(value, norm) for value in shown),
        "n",
        "median distance",
    ]
    cells: dict[tuple[str, str], list[list[str]]] = {}
    for attack in attacks:
        for entry in attack["rows"]:
            where = (place(block["row_axes"], entry), title_of(entry["method"]))
            clean = entry["clean"]
            cells.setdefault(where, []).append(
                [
                    *where,
                    attack["title"],
                    plus_minus(clean, digits=1),
                    *(plus_minus(_at(entry["adv_acc"], epsilon), digits=1) for epsilon in shown),
                    clean["short"] if clean else "",
                    _distance(entry, norm),
                ]
            )
    rows = [row for found in cells.values() for row in found]
    images = sorted({attack["images"] for attack in attacks})
    return [
        f"### Robustness: other attacks in {'Linf' if norm == 'linf' else 'L2'}, percent of "
        f"{', '.join(map(str, images))} images still classified correctly",
        "",
        *narrowed(header, rows, always=5 + len(shown)),
    ]


def chosen(epsilons: Sequence[float], norm: str) -> list[float]:
    """The epsilons of a table: the usual ones among those that were evaluated, else some evenly spaced."""
    usual = [epsilon for epsilon in epsilons if any(abs(epsilon - each) < 1e-9 for each in SHOWN[norm])]
    if usual:
        return usual
    if len(epsilons) <= _COLUMNS:
        return list(epsilons)
    return [epsilons[round(index * (len(epsilons) - 1) / (_COLUMNS - 1))] for index in range(_COLUMNS)]


def budget(epsilon: float, norm: str) -> str:
    """``0.25``; ``2/255`` in Linf."""
    steps = 255 * epsilon
    return f"{steps:.3g}/255" if norm == "linf" and abs(4 * steps - round(4 * steps)) < 1e-6 else f"{epsilon:.3g}"


def _at(entries: Sequence[Facts], epsilon: float) -> Facts | None:
    return next((entry for entry in entries if abs(entry["epsilon"] - epsilon) < 1e-9), None)


def _distance(entry: Facts, norm: str) -> str:
    """Linf distances in steps of 1/255, as budgets are read."""
    found = entry["adv_dist_median"]
    if found is None:
        return "beyond what was found" if entry["distances_missing"] else NOTHING
    shown = plus_minus(found, 255, 2) + "/255" if norm == "linf" else plus_minus(found, 1, 3)
    return f"{shown} ({entry['distances_missing']} not found)" if entry["distances_missing"] else shown


def _crossing(found: Facts, norm: str) -> str:
    if not found["compared"]:
        return NOTHING
    if found["mean"] is None:
        return "nowhere"
    shown = budget(found["mean"], norm)
    return shown if found["crossed"] == found["compared"] else f"{shown} ({found['crossed']} of {found['compared']})"


def _gap(entries: Sequence[Facts], shown: Sequence[float], norm: str) -> str:
    """At the largest of the shown epsilons that it is known for."""
    known = [entry for epsilon in shown if (entry := _at(entries, epsilon)) is not None] or list(entries)
    if not known:
        return NOTHING
    return f"{plus_minus(known[-1], digits=1)} at {budget(known[-1]['epsilon'], norm)}"
