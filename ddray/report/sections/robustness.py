"""Accuracy of a block's models under adversarial attacks, distances to misclassification, and how far to trust them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.report.comparable import ROW_AXES, Cell, ReportBlock, refuse_mixed
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import NOTHING, Column, Facts, Footnote, Table
from ddray.report.words import DEEPFOOL, PERCENT_1, cell_table, epsilon_text, plus_minus, shown_epsilons
from trainables.attacks import ROBUSTNESS_ATTACKS

METRICS = (
    "adv_acc",
    "adv_dist_median",
    "adv_gap_strong",
    "eps_cross",
    "zero_gradient_share",
    "adv_pgd_weaker_than_fgsm",
)
_SETTINGS = ("attack_steps", "rel_stepsize", "overshoot", "candidates", "restarts", "attack_lib")
_ONE_VALUE = ("n", "norm", *_SETTINGS)
"""Parameters of an attack that all numbers of a block must agree on."""
NOT_CONVERGED = 0.1
"""Share of images on which an attack did not end, above which that is an alarm."""
VANISHED = 0.5
"""The same for gradients that are exactly 0."""

_Attack = tuple[str, str | None]
"""An attack, and its members if it is an ensemble: ensembles of other attacks are other attacks."""
_Rows = dict[str, dict[str, list[Row]]]
"""Metric -> point -> rows, of one attack."""
_Ensembles = dict[tuple[str, str], str]
"""(point, norm) -> the ensemble of its attacks in that norm, with its members."""


def _facts(block: ReportBlock, numbers: Numbers) -> list[dict[str, Any]]:
    """One entry per attack: its settings, ``images``, ``epsilons``, and ``rows``, one per cell.

    Raises:
        MixedBlock: Numbers of one attack were made with different settings or numbers of images.
    """
    by_attack, ensembles = _by_attack(block, numbers)
    known = list(ROBUSTNESS_ATTACKS)

    def order(attack: _Attack) -> tuple[int, str, str]:
        name, members = attack
        return known.index(name) if name in known else len(known), name, members or ""

    return [
        _attack(attack, block, by_attack[attack], ensembles)
        for attack in sorted(by_attack, key=order)
        if by_attack[attack]["adv_acc"]
    ]


def _by_attack(block: ReportBlock, numbers: Numbers) -> tuple[dict[_Attack, _Rows], _Ensembles]:
    by_attack: dict[_Attack, _Rows] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    ensembles: _Ensembles = {}
    for metric in METRICS:
        for row in numbers.of(metric, [point["point"] for point in block.points]):
            unclipped = metric == "adv_acc" and row["adv_def"] not in (None, "clip")  # a curve of its own
            if unclipped or row["attack"] is None or row["status"] != "ok":
                continue
            members = row["param"].get("of_attacks")
            by_attack[row["attack"], members][metric][row["point"]].append(row)
            if members is not None:
                ensembles[row["point"], row["norm"]] = f"{row['attack']} of {members}"
    return by_attack, ensembles


def _attack(attack: _Attack, block: ReportBlock, rows_of: _Rows, ensembles: _Ensembles) -> dict[str, Any]:
    name, members = attack
    curves = [row for rows in rows_of["adv_acc"].values() for row in rows]
    refuse_mixed(curves, _ONE_VALUE, f"{block.where}: {name}")
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
        "rows": [entry for cell in block.own_cells if (entry := _entry(cell, rows_of, ensembles)) is not None],
    }


def _entry(cell: Cell, rows_of: _Rows, ensembles: _Ensembles) -> dict[str, Any] | None:
    def rows(metric: str) -> list[Row]:
        return [row for point in cell.points for row in rows_of[metric].get(point["point"], ())]

    def by_epsilon(rows: Sequence[Row]) -> dict[float, dict[str, Any] | None]:
        return {epsilon: cell.mean(_values(rows, epsilon)) for epsilon in sorted({row["epsilon"] for row in rows})}

    curves = rows("adv_acc")
    if not curves:
        return None
    means, gaps = by_epsilon(curves), rows("adv_gap_strong")
    distances = rows("adv_dist_median")
    crossings = [row["value"] for row in rows("eps_cross")]
    crossed = [value for value in crossings if value is not None]
    return {
        **cell.facts,
        "clean": means.get(0.0),
        "adv_acc": [{"epsilon": epsilon, **mean} for epsilon, mean in means.items() if epsilon and mean],
        "adv_dist_median": cell.mean(_values(distances)),
        "distances_missing": sum(row["value"] is None for row in distances),
        "gap_strong": [{"epsilon": epsilon, **mean} for epsilon, mean in by_epsilon(gaps).items() if mean],
        "strong_attack": sorted({_strong(row, ensembles) for row in gaps}),
        "eps_cross": {
            "compared": len(crossings),
            "crossed": len(crossed),
            "mean": fmean(crossed) if crossed else None,
        },
        "converged_share": min(_known(row["converged_share"] for row in curves), default=None),
        "zero_gradient_share": max(_known(row["value"] for row in rows("zero_gradient_share")), default=None),
        "pgd_weaker_than_fgsm": sum((row["ci_low"] or 0) > 0 for row in rows("adv_pgd_weaker_than_fgsm")),
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _strong(row: Row, ensembles: _Ensembles) -> str:
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


# --- alarms -----------------------------------------------------------------------------------------------------------


def _alarms(block: Facts) -> Iterator[str]:
    """Signs that an attack found less than there is to find."""
    for attack in block["robustness"]:
        where = f"{block['title']}: {attack['title']}"
        weak = [entry for entry in attack["rows"] if entry["pgd_weaker_than_fgsm"]]
        if weak:
            yield f"{where} found less than one step of FGSM for {_methods(weak)}: not robustness"
        slow = [entry for entry in attack["rows"] if 1 - _or(entry["converged_share"], 1.0) > NOT_CONVERGED]
        if slow:
            share = min(entry["converged_share"] for entry in slow)
            yield f"{where} did not end for up to {100 * (1 - share):.0f} % of the images of {_methods(slow)}"
        # DeepFool, FMN and C&W follow logits and margins, whose gradients do not vanish with the cross-entropy's.
        follows = attack["attack"] in ROBUSTNESS_ATTACKS and ROBUSTNESS_ATTACKS[attack["attack"]].cross_entropy
        blind = [entry for entry in attack["rows"] if _or(entry["zero_gradient_share"], 0.0) > VANISHED]
        if follows and blind:
            share = max(entry["zero_gradient_share"] for entry in blind)
            yield f"{where}: gradients are exactly 0 for up to {100 * share:.0f} % of the images of {_methods(blind)}"


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _methods(entries: Iterable[Facts]) -> str:
    return ", ".join(dict.fromkeys(entry["method"] for entry in entries))


# --- tables -----------------------------------------------------------------------------------------------------------


def _elements(block: Facts) -> Iterator[Element]:
    """A table for each norm of DeepFool, and one for the other attacks in each norm."""
    attacks = block["robustness"]
    for attack in attacks:
        if attack["attack"] in DEEPFOOL:
            yield _deepfool(block, attack)
    for norm in ("linf", "l2"):
        others = [attack for attack in attacks if attack["norm"] == norm and attack["attack"] not in DEEPFOOL]
        if others:
            yield _others(block, others, norm)


def _deepfool(block: Facts, attack: Facts) -> Table:
    norm: str = attack["norm"]
    shown = shown_epsilons(attack["epsilons"], norm)
    settings = ", ".join(f"{name.removeprefix('attack_')} {value}" for name, value in attack["settings"].items())
    strongest = sorted({name for entry in attack["rows"] for name in entry["strong_attack"]})
    notes = [f"± is over the same seeds as the accuracy, not over images. {settings}."]
    if len(strongest) > 1:
        notes.append(
            f"gap to strongest: not shown, because it is to different attacks: {'; '.join(strongest)}. It stands in "
            "measurements.parquet, as adv_gap_strong."
        )
    columns = [
        *_accuracies(shown, norm),
        _median_distance(norm),
        Column("crosses full at", lambda row: _crossing(row["eps_cross"], norm), footnote=_CROSSES, optional=True),
        *(_gap(name, shown, norm) for name in strongest if len(strongest) == 1),
        Column("ended", "converged_share", lambda share: f"{100 * share:.0f}", "%", optional=True),
    ]
    title = f"Robustness: {attack['title']}, percent of {attack['images']} images still classified correctly"
    return cell_table(title, block["row_axes"], attack["rows"], columns, notes)


_CROSSES = Footnote(
    "crosses full at: the smallest budget at which a model is more accurate than the full-data model, with an interval "
    "for all budgets together above 0 and both at 2 % or more."
)


def _others(block: Facts, attacks: Sequence[Facts], norm: str) -> Table:
    """The attacks of one cell stand together."""
    cells: dict[tuple[Any, ...], list[Facts]] = {}
    for attack in attacks:
        for entry in attack["rows"]:
            key = tuple(entry[name] for name in (*ROW_AXES, "method"))
            cells.setdefault(key, []).append({**entry, "attack": attack["title"]})
    shown = shown_epsilons(sorted({epsilon for attack in attacks for epsilon in attack["epsilons"]}), norm)
    images = ", ".join(map(str, sorted({attack["images"] for attack in attacks})))
    return cell_table(
        f"Robustness: other attacks in {norm.capitalize()}, percent of {images} images still classified correctly",
        block["row_axes"],
        [entry for entries in cells.values() for entry in entries],
        [Column("attack", "attack"), *_accuracies(shown, norm), _median_distance(norm)],
    )


def _accuracies(epsilons: Iterable[float], norm: str) -> list[Column]:
    """Clean accuracy, that within each budget, and the seeds."""

    def within(epsilon: float) -> Column:
        return Column(epsilon_text(epsilon, norm), lambda row: _at(row["adv_acc"], epsilon), PERCENT_1)

    n = Column("n", lambda row: row["clean"]["short"] if row["clean"] else "")
    return [Column("clean", "clean", PERCENT_1), *map(within, epsilons), n]


def _at(entries: Iterable[Facts], epsilon: float) -> Facts | None:
    return next((entry for entry in entries if abs(entry["epsilon"] - epsilon) < 1e-9), None)


def _median_distance(norm: str) -> Column:
    return Column("median distance", lambda row: _distance(row, norm), optional=True)


def _distance(entry: Facts, norm: str) -> str:
    """Linf distances in steps of 1/255, as budgets are read."""
    median = entry["adv_dist_median"]
    if median is None:
        return "beyond what was found" if entry["distances_missing"] else NOTHING
    shown = plus_minus(median, 255, 2) + "/255" if norm == "linf" else plus_minus(median, 1, 3)
    return f"{shown} ({entry['distances_missing']} not found)" if entry["distances_missing"] else shown


def _crossing(models: Facts, norm: str) -> str:
    if not models["compared"]:
        return NOTHING
    if models["mean"] is None:
        return "nowhere"
    some = f" ({models['crossed']} of {models['compared']})" if models["crossed"] < models["compared"] else ""
    return epsilon_text(models["mean"], norm) + some


def _gap(strongest: str, shown: Sequence[float], norm: str) -> Column:
    """At the largest of the shown epsilons that it is known for."""

    def value(row: Facts) -> Facts | None:
        entries = row["gap_strong"]
        known = [entry for epsilon in shown if (entry := _at(entries, epsilon)) is not None] or entries
        return known[-1] if known else None

    def text(gap: Facts) -> str:
        return f"{PERCENT_1(gap)} at {epsilon_text(gap['epsilon'], norm)}"

    note = Footnote(f"gap to strongest: points by which {strongest} is below this attack.")
    return Column("gap to strongest", value, text, footnote=note, optional=True)


ROBUSTNESS = BlockSection(id="robustness", order=40, detailed=METRICS, facts=_facts, elements=_elements, alarms=_alarms)
