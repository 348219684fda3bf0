"""Accuracy of a block's models under adversarial attacks, distances to misclassification, and how far to trust them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist, fmean
from typing import Any

from ddray.measurements.reading import Numbers, Row
from ddray.measurements.statistics import ALPHA
from ddray.report.comparable import ROW_AXES, Cell, ReportBlock, refuse_mixed
from ddray.report.page import Element
from ddray.report.sections import BlockSection
from ddray.report.table import NOTHING, Column, Facts, Footnote, Table
from ddray.report.words import DEEPFOOL, cell_table, epsilon_text, measured, shown_epsilons
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.evaluate.paired import FLOOR

METRICS = (
    "adv_acc",
    "adv_dist_median",
    "adv_gap_strong",
    "adv_delta_full",
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

    def by_epsilon(metric: str) -> list[dict[str, Any]]:
        """Above 0."""
        found = rows(metric)
        means = {
            epsilon: _mean(cell, _at_budget(found, epsilon)) for epsilon in sorted({row["epsilon"] for row in found})
        }
        return [{"epsilon": epsilon, **mean} for epsilon, mean in means.items() if epsilon and mean]

    curves, distances = rows("adv_acc"), rows("adv_dist_median")
    if not curves:
        return None
    crossings = [row["value"] for row in rows("eps_cross")]
    crossed = [value for value in crossings if value is not None]
    return {
        **cell.facts,
        "clean": _mean(cell, _at_budget(curves, 0.0)),
        "adv_acc": by_epsilon("adv_acc"),
        "less_full": by_epsilon("adv_delta_full"),
        "adv_dist_median": _mean(cell, distances),
        "distances_known": sum(row["value"] is not None for row in distances),
        "distances_missing": sum(row["flag"] == "not_converged" for row in distances if row["value"] is None),
        "gap_strong": by_epsilon("adv_gap_strong"),
        "strong_attack": sorted({_strong(row, ensembles) for row in rows("adv_gap_strong")}),
        "eps_cross": {
            "compared": len(crossings),
            "crossed": len(crossed),
            "mean": fmean(crossed) if crossed else None,
            "lead": None if crossed else _lead(curves, rows("adv_delta_full")),
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


def _at_budget(rows: Iterable[Row], epsilon: float) -> list[Row]:
    return [row for row in rows if row["epsilon"] == epsilon]


def _mean(cell: Cell, rows: Iterable[Row]) -> dict[str, Any] | None:
    """Over the cell's models; of one model with its interval over images, ``low`` and ``high``."""
    known = [row for row in rows if row["value"] is not None]
    mean = cell.mean({row["point"]: row["value"] for row in known})
    if mean is None:
        return None
    one = known[0] if len(known) == 1 and known[0]["ci_unit"] == "images" else {}
    return {**mean, "low": one.get("ci_low"), "high": one.get("ci_high")}


def _lead(curves: Sequence[Row], deltas: Sequence[Row]) -> dict[str, Any] | None:
    """The budget at which a model that was not shown to cross leads most, or falls behind least.

    Args:
        curves: ``adv_acc`` of the cell's models.
        deltas: Their ``adv_delta_full``, with intervals of one budget each.

    Returns:
        ``epsilon``, ``value`` (mean over models) and ``needed``: about what it would have had to exceed for its
        interval, made for all ``budgets`` together as that of ``eps_cross`` is, to lie above 0. None where both are
        broken at every budget, or no interval is known.
    """
    ours = {(row["point"], row["epsilon"]): row["value"] for row in curves}
    budgets = len({row["epsilon"] for row in deltas} - {0.0})
    wider = _quantile(ALPHA / max(1, budgets)) / _quantile(ALPHA)
    found: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for row in deltas:
        here = ours.get((row["point"], row["epsilon"]))
        if not row["epsilon"] or here is None or row["value"] is None or row["ci_low"] is None:
            continue
        if min(here, here - row["value"]) >= FLOOR:
            middle, reach = (row["ci_high"] + row["ci_low"]) / 2, (row["ci_high"] - row["ci_low"]) / 2
            found[row["epsilon"]].append((row["value"], row["value"] - middle + wider * reach))
    leads = {epsilon: [fmean(each) for each in zip(*models, strict=True)] for epsilon, models in found.items()}
    if not leads:
        return None
    epsilon = max(leads, key=lambda epsilon: leads[epsilon][0])
    value, needed = leads[epsilon]
    return {"epsilon": epsilon, "value": value, "needed": needed, "budgets": budgets}


def _quantile(error: float) -> float:
    """Standard deviations within which all but the share ``error`` of normal values lie."""
    return NormalDist().inv_cdf(1 - error / 2)


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
            yield f"{where} did not end for up to {100 * (1 - share):.0f} % of what {_methods(slow)} had right"
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
    notes = [*_what_is_shown(attack["rows"]), f"Settings: {settings}."]
    if len(strongest) > 1:
        notes.append(
            f"gap to strongest: not shown, because it is to different attacks: {'; '.join(strongest)}. It stands in "
            "measurements.parquet, as adv_gap_strong."
        )
    columns = [
        *_accuracies(shown, norm),
        _less_full(shown, norm),
        _median_distance(norm),
        Column("crosses full at", lambda row: _crossing(row["eps_cross"], norm), footnote=_CROSSES, optional=True),
        *(_gap(name, shown, norm) for name in strongest if len(strongest) == 1),
        Column("ended", "converged_share", lambda share: f"{100 * share:.0f}", "%", optional=True),
    ]
    title = f"Robustness: {attack['title']}, percent of {attack['images']} images still classified correctly"
    return cell_table(title, block["row_axes"], attack["rows"], columns, notes, {NOT_SHOWN: _not_shown(attack)})


NOT_SHOWN = "not shown"
_CROSSES = Footnote(
    "crosses full at: the smallest budget at which a model is more accurate than the full-data model, with an interval "
    f"for all budgets together above 0 and both at {100 * FLOOR:g} % or more."
)


def _what_is_shown(rows: Iterable[Facts]) -> Iterator[str]:
    """What stands beside the accuracies."""
    accuracies = [mean for row in rows for mean in (row["clean"], *row["adv_acc"]) if mean]
    if any(mean["low"] is not None for mean in accuracies):
        yield (
            "In brackets: the 95 % interval over images, for that one model; it says nothing of another training. All "
            "models are attacked on the same images: a difference between two is known better than these intervals say."
        )
    if any(mean["sd"] is not None for mean in accuracies):
        yield "± is over the same seeds as the accuracy, not over images."


def _not_shown(attack: Facts) -> str:
    budgets = len(attack["epsilons"])
    return (
        f"{NOT_SHOWN}: at no budget does that interval lie above 0, which does not say that the model is nowhere more "
        "robust. In brackets: its largest lead over the full-data model in points, and about what that would have "
        f"had to exceed, with {attack['images']} images and {budgets} budgets tested together (Bonferroni)."
    )


def _less_full(shown: Sequence[float], norm: str) -> Column:
    """At the middle one of the shown budgets."""
    if not shown:
        return Column("less full", lambda row: None, optional=True)
    epsilon = shown[len(shown) // 2]
    note = Footnote(
        "less full: the difference to the full-data model in points, image by image on the same images"
        " (95 % interval of one budget by itself)."
    )
    return Column(
        f"less full at {epsilon_text(epsilon, norm)}",
        lambda row: _at(row["less_full"], epsilon),
        lambda less: measured(less, signed=True),
        footnote=note,
        optional=True,
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
    entries = [entry for each in cells.values() for entry in each]
    return cell_table(
        f"Robustness: other attacks in {norm.capitalize()}, percent of {images} images still classified correctly",
        block["row_axes"],
        entries,
        [Column("attack", "attack"), *_accuracies(shown, norm), _median_distance(norm)],
        list(_what_is_shown(entries)),
    )


def _accuracies(epsilons: Iterable[float], norm: str) -> list[Column]:
    """Clean accuracy, that within each budget, and the seeds."""

    def within(epsilon: float) -> Column:
        return Column(epsilon_text(epsilon, norm), lambda row: _at(row["adv_acc"], epsilon), measured)

    n = Column("n", lambda row: row["clean"]["short"] if row["clean"] else "")
    return [Column("clean", "clean", measured), *map(within, epsilons), n]


def _at(entries: Iterable[Facts], epsilon: float) -> Facts | None:
    return next((entry for entry in entries if abs(entry["epsilon"] - epsilon) < 1e-9), None)


def _median_distance(norm: str) -> Column:
    return Column("median distance", lambda row: _distance(row, norm), optional=True)


def _distance(entry: Facts, norm: str) -> str:
    """Linf distances in steps of 1/255, as budgets are read."""
    median = entry["adv_dist_median"]
    if median is None:
        return "beyond what was found" if entry["distances_missing"] else NOTHING
    shown = measured(median, 255, 2) + " /255" if norm == "linf" else measured(median, 1, 3)
    if not entry["distances_missing"]:
        return shown
    known = entry["distances_known"]
    return f"{shown} in {known} of {known + entry['distances_missing']} models, beyond what was found in the others"


def _crossing(models: Facts, norm: str) -> str:
    if not models["compared"]:
        return NOTHING
    if models["mean"] is not None:
        some = (
            f" in {models['crossed']} of {models['compared']} models" if models["crossed"] < models["compared"] else ""
        )
        return epsilon_text(models["mean"], norm) + some
    lead = models["lead"]
    if lead is None:
        return NOT_SHOWN
    value, needed = (f"{100 * lead[name]:{form}}" for name, form in (("value", "+.1f"), ("needed", ".1f")))
    return f"{NOT_SHOWN} ({value} of {needed} at {epsilon_text(lead['epsilon'], norm)})"


def _gap(strongest: str, shown: Sequence[float], norm: str) -> Column:
    """At the largest of the shown epsilons that it is known for."""

    def value(row: Facts) -> Facts | None:
        entries = row["gap_strong"]
        known = [entry for epsilon in shown if (entry := _at(entries, epsilon)) is not None] or entries
        return known[-1] if known else None

    def text(gap: Facts) -> str:
        return f"{measured(gap)} at {epsilon_text(gap['epsilon'], norm)}"

    note = Footnote(f"gap to strongest: points by which {strongest} is below this attack.")
    return Column("gap to strongest", value, text, footnote=note, optional=True)


ROBUSTNESS = BlockSection(id="robustness", order=40, detailed=METRICS, facts=_facts, elements=_elements, alarms=_alarms)
