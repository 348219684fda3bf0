"""The claims of Chen et al. 2023, C1 to C20: which contrasts each rests on, and what this sweep says of it.

A contrast is a difference between two cells that agree in everything else, or a number of one cell less what would be
no effect, written so that the claim says it is above 0. Its interval is Student's over distilled sets (draws of random
images; trainings of the full data), and holds for all contrasts of the claim together in 95 % (Bonferroni). A cell of
one set has no interval, whatever its trainings: they do not say how sets scatter. Methods that ran for a part of the
published iterations are not compared.

* *supported*: every contrast is judged, and lies above 0;
* *contradicted*: one lies below 0;
* *undecided*: anything else that has contrasts, with how many are shown;
* *not run*: the sweep has no such cells;
* *not testable*: no contrast could decide it; the reason stands beside it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, NamedTuple

from ddray.measurements.reading import Row
from ddray.measurements.statistics import LEVEL
from ddray.plan.axes import HARD_LABELS
from ddray.report.comparable import is_part
from ddray.report.page import Element
from ddray.report.sections import Measured, SweepSection
from ddray.report.table import Column, Facts, Footnote, Table
from ddray.report.words import DEEPFOOL, shown_epsilons, variant_title
from trainables.evaluate.student import Error, freedom_of

BASELINES = ("random", "full")
_PLACE = (
    *("dataset", "num_classes", "class_draw", "origin_per_class", "origin_draw", "architecture", "protocol"),
    *("train_aug", "ipc", "init", "distill_aug", "variant"),
)
"""What tells cells apart; seeds and draws of a cell are its repeats."""
_REPEATS = ("class_draw", "origin_draw")
_FAIRNESS = ("fair_var_loss", "fair_var_acc_corr", "fair_amplification", "fair_hardness_slope")

Values = Mapping[str, float]
"""Point -> value."""


class Mean(NamedTuple):
    """Of a cell, over its sets."""

    value: float
    variance: float | None
    """Of the mean; None of one set."""
    freedom: int


class Contrast(NamedTuple):
    """Something that a claim says is above 0."""

    what: str
    protocol: str
    value: float
    error: Error | None

    def ends(self, level: float) -> tuple[float, float] | None:
        """Its interval."""
        if self.error is None:
            return None
        reach = self.error.reach(level)
        return self.value - reach, self.value + reach


class Evidence:
    """The cells of a sweep, as claims ask for them.

    Args:
        measured: Of the sweep.
        partial: Also cells that ran for a part of the published iterations.
    """

    def __init__(self, measured: Measured, partial: bool = False) -> None:
        self._numbers = measured.numbers
        self._partial = partial
        merged: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for cell in (cell for block in measured.blocks for cell in block.own_cells):
            first = {**cell.points[0], "variant": cell.variant}
            if first["labels"] not in (None, HARD_LABELS):  # the paper's are about hard labels
                continue
            place = tuple(None if name in _REPEATS else first[name] for name in _PLACE)
            merged[place] += [point for point in cell.points if point not in merged[place]]
        self.cells = [(dict(zip(_PLACE, place, strict=True)), points) for place, points in merged.items()]

    def metric(self, name: str) -> Values:
        """A metric of which a point has one number; ``test_acc`` too."""
        if name == "test_acc":
            return {point["point"]: point["value"] for _, points in self.cells for point in points if point["value"]}
        return self._numbers.plain.get(name, {})

    def auc(self) -> Values:
        """Of the strongest attack against each point, by audit ``seed``, else ``pool``."""
        found: dict[str, float] = {}
        for audit, source in (("pool", "pool"), ("seed", "test_balanced")):
            for by_point in self._numbers.rows.get("mia_auc_strongest", {}).values():
                for row in by_point:
                    same = (row["audit"], row["nonmember_source"], row["param"].get("iteration")) == (
                        audit,
                        source,
                        None,
                    )
                    if same and row["value"] is not None:
                        found[row["point"]] = row["value"]
        return found

    def under_attack(self) -> Values:
        """Accuracy under DeepFool (L2), at the middle of the usual budgets."""
        rows = [row for each in self._numbers.rows.get("adv_acc", {}).values() for row in each]
        rows = [row for row in rows if (row["attack"], row["adv_def"]) == (DEEPFOOL[0], "clip")]
        usual = [each for each in shown_epsilons(sorted({row["epsilon"] for row in rows}), "l2") if each > 0]
        middle = usual[len(usual) // 2] if usual else None
        return {row["point"]: row["value"] for row in rows if row["epsilon"] == middle and row["value"] is not None}

    def means(self, values: Values) -> Iterator[tuple[dict[str, Any], Mean]]:
        """Every cell that has numbers, with its place; methods of a part of their budget are left out."""
        for place, points in self.cells:
            if not self._partial and is_part(points[0]["budget_fraction"]) and place["variant"] not in BASELINES:
                continue
            if (mean := _mean(points, values)) is not None:
                yield place, mean

    def along(self, axis: str, values: Values) -> Iterator[tuple[dict[str, Any], list[tuple[Any, Mean]]]]:
        """Cells that differ in one axis alone: what they share, and the means by the axis' values, ascending."""
        groups: dict[tuple[Any, ...], list[tuple[Any, Mean]]] = defaultdict(list)
        for place, mean in self.means(values):
            if place[axis] is not None:
                groups[tuple(None if name == axis else place[name] for name in _PLACE)].append((place[axis], mean))
        for shared, found in groups.items():
            if len(found) > 1:
                yield dict(zip(_PLACE, shared, strict=True)), sorted(found, key=lambda entry: entry[0])


def _mean(points: Iterable[Row], values: Values) -> Mean | None:
    """Over sets: of the trainings of each; of the full data over trainings."""
    by_set: dict[Any, list[float]] = defaultdict(list)
    for point in points:
        if point["point"] in values:
            own = point["seed"] if point["method"] == "full" else point["distill_seed"]
            by_set[point["class_draw"], point["origin_draw"], own].append(values[point["point"]])
    sets = [fmean(each) for each in by_set.values()]
    if not sets:
        return None
    return Mean(fmean(sets), variance(sets) / len(sets) if len(sets) > 1 else None, len(sets) - 1)


def _less(what: str, protocol: str, one: Mean, other: Mean) -> Contrast:
    error = None
    if one.variance is not None and other.variance is not None and one.variance + other.variance > 0:
        parts = (one.variance, one.freedom), (other.variance, other.freedom)
        both = one.variance + other.variance
        error = Error(math.sqrt(both), freedom_of(parts, both))
    return Contrast(what, protocol, one.value - other.value, error)


def _where(shared: Mapping[str, Any], **more: Any) -> str:
    named = {**shared, **more}
    words = [variant_title(named["variant"])] if named["variant"] else []
    words += [f"{name} {named[name]}" for name in ("ipc", "init") if named[name] is not None]
    words += [f"origin {named['origin_per_class']}"] if named["origin_per_class"] is not None else []
    return ", ".join([str(named["dataset"]), str(named["architecture"] or ""), *words]).replace(", ,", ",")


# --- kinds of contrasts -----------------------------------------------------------------------------------------------


def _steps(evidence: Evidence, values: Values, axis: str, sign: int) -> Iterator[Contrast]:
    """Of neighbouring values of an axis of distilled sets, the larger less the smaller, or the reverse."""
    for shared, found in evidence.along(axis, values):
        if shared["variant"] in BASELINES:
            continue
        for (low, first), (high, second) in itertools.pairwise(found):
            one, other = (second, first) if sign > 0 else (first, second)
            yield _less(f"{_where(shared)}, {axis} {low} to {high}", shared["protocol"], one, other)


def _of_methods(
    evidence: Evidence, values: Values, method: str, others: Sequence[str] | None, sign: int
) -> Iterator[Contrast]:
    """A method less every other one, or the reverse; without ``others`` all distilled sets."""
    for shared, found in evidence.along("variant", values):
        mine = [mean for name, mean in found if name.partition(" (")[0] == method]
        for name, mean in found:
            base = name.partition(" (")[0]
            if base == method or base in BASELINES or (others is not None and base not in others):
                continue
            for own in mine:
                one, other = (own, mean) if sign > 0 else (mean, own)
                yield _less(f"{_where(shared)}, {method} and {name}", shared["protocol"], one, other)


def _above(evidence: Evidence, metric: str, none: float) -> Iterator[Contrast]:
    """A number of each distilled set less what would be no effect."""
    for place, mean in evidence.means(evidence.metric(metric)):
        if place["variant"] in BASELINES:
            continue
        error = Error(math.sqrt(mean.variance), mean.freedom) if mean.variance else None
        yield Contrast(_where(place), place["protocol"], mean.value - none, error)


def _networks(evidence: Evidence) -> Iterator[Contrast]:
    """ConvNet3 less every other network."""
    for shared, found in evidence.along("architecture", evidence.metric("test_acc")):
        if shared["variant"] in BASELINES:
            continue
        own = [mean for name, mean in found if name.startswith("convnet3")]
        for name, mean in found:
            if own and not name.startswith("convnet3"):
                yield _less(f"{_where(shared)}, convnet3 and {name}", shared["protocol"], own[0], mean)


def _pairs(evidence: Evidence, values: Values, axis: str, one: str, other: str) -> Iterator[Contrast]:
    """Of one value of an axis less another."""
    for shared, found in evidence.along(axis, values):
        means = dict(found)
        if shared["variant"] not in BASELINES and {one, other} <= means.keys():
            yield _less(f"{_where(shared)}, {axis} {one} and {other}", shared["protocol"], means[one], means[other])


def _augmented(evidence: Evidence) -> Iterator[Contrast]:
    values = evidence.under_attack()
    for axis in ("distill_aug", "train_aug"):
        yield from _pairs(evidence, values, axis, "dsa", "none")


def _unfair(evidence: Evidence) -> Iterator[Contrast]:
    yield from _above(evidence, "fair_amplification", 1.0)
    yield from _steps(evidence, evidence.metric("fair_amplification"), "ipc", -1)


def _weak(evidence: Evidence) -> Iterator[Contrast]:
    for metric in ("fair_var_acc_corr", "test_acc"):
        for each in _of_methods(evidence, evidence.metric(metric), "dsa", None, -1):
            if ", ipc 1," in f"{each.what},":
                yield each._replace(what=f"{each.what} ({metric})")


def _leak(evidence: Evidence) -> Iterator[Contrast]:
    yield from _steps(evidence, evidence.auc(), "origin_per_class", -1)
    yield from _pairs(evidence, evidence.auc(), "init", "real", "noise")
    yield from _steps(evidence, evidence.auc(), "num_classes", 1)


# --- claims -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: As registered.
        text: What it says.
        contrasts: What it says is above 0; None: nothing could decide it, or not from one sweep.
        unit: Of a contrast: ``points`` of accuracy or AUC, or none.
        note: What to know when reading it; why it is not testable.
    """

    id: str
    text: str
    contrasts: Callable[[Evidence], Iterator[Contrast]] | None
    unit: str = ""
    note: str = ""


CLAIMS: tuple[Claim, ...] = (
    Claim("C1", "unfairness is amplified, more at higher rates", _unfair),
    Claim("C2", "leak depends on rate, start and number of classes", _leak, "points", "each in the direction of C10, "
          "C11, C13"),
    Claim("C3", "robustness varies by method; the rate matters little", None, "", "`little` has no margin to test"),
    Claim("C4", "accuracy rises with images per class",
          lambda found: _steps(found, found.metric("test_acc"), "ipc", 1), "points"),
    Claim("C5", "IDC is first everywhere",
          lambda found: _of_methods(found, found.metric("test_acc"), "idc", None, 1), "points"),
    Claim("C6", "IDC's gain is its parameterisation", None, "", "asks for equal numbers of training images: read the "
          "tables of `sweeps/idc_parameterisation.yaml`"),
    Claim("C7", "identifiable images go with accuracy", None, "", "nothing measures how identifiable an image is"),
    Claim("C8", "accuracy drops on other networks", _networks, "points"),
    Claim("C9", "the ranking of methods is not kept across networks", None, "", "read `Do networks agree`: a low "
          "agreement is no test of disagreement"),
    Claim("C10", "the AUC falls as the origin grows",
          lambda found: _steps(found, found.auc(), "origin_per_class", -1), "points"),
    Claim("C11", "a real start leaks more than noise",
          lambda found: _pairs(found, found.auc(), "init", "real", "noise"), "points"),
    Claim("C12", "IDC leaks more than DM and DSA",
          lambda found: _of_methods(found, found.auc(), "idc", ("dm", "dsa"), 1), "points"),
    Claim("C13", "more classes leak more", lambda found: _steps(found, found.auc(), "num_classes", 1), "points",
          "members and difficulty change with the classes"),
    Claim("C14", "the variance of loss over classes falls with images per class",
          lambda found: _steps(found, found.metric("fair_var_loss"), "ipc", -1)),
    Claim("C15", "MTT is the fairest by loss",
          lambda found: _of_methods(found, found.metric("fair_var_loss"), "mtt", None, -1)),
    Claim("C16", "DSA looks fairest by accuracy at one image per class, because it is weak", _weak),
    Claim("C17", "hard classes lose more", lambda found: _above(found, "fair_hardness_slope", 1.0)),
    Claim("C18", "outliers of the map explain unfairness", None, "", "outliers are counted per set, not per class"),
    Claim("C19", "DM, DSA and MTT cross the full data's curve under attack", None, "", "read *crosses full at*: a "
          "crossing that is not shown is not refuted"),
    Claim("C20", "DSA's augmentation helps robustness everywhere", _augmented, "points", "DeepFool (L2), the middle of "
          "the usual budgets"),
)  # fmt: skip
"""As registered before any of them was looked at."""


PARTIAL = "its cells ran for a part of the published iterations"


def judged(contrasts: Sequence[Contrast]) -> dict[str, Any]:
    """The verdict on contrasts of a claim.

    Returns:
        ``verdict``, ``contrasts`` (how many), ``above`` and ``below`` (0, of those with an interval), ``judged``,
        ``least`` (the smallest value, with ``what``, ``low`` and ``high``), ``protocols``: of how many, and in how many
        of them every contrast lies above 0.
    """
    if not contrasts:
        return {
            "verdict": "not run",
            "contrasts": 0,
            "judged": 0,
            "above": 0,
            "below": 0,
            "least": None,
            "protocols": [],
        }
    known = [each for each in contrasts if each.error is not None]
    level = 1 - (1 - LEVEL) / max(1, len(known))
    ends = {each: ends for each in known if (ends := each.ends(level)) is not None}
    above, below = (sum(test(*each) for each in ends.values()) for test in (_is_above, _is_below))
    verdict = "contradicted" if below else "supported" if above == len(contrasts) else "undecided"
    least = min(contrasts, key=lambda each: each.value)
    low, high = ends.get(least, (None, None))
    protocols = sorted({each.protocol for each in contrasts})
    holding = [
        name
        for name in protocols
        if all(each in ends and _is_above(*ends[each]) for each in contrasts if each.protocol == name)
    ]
    return {
        "verdict": verdict,
        "contrasts": len(contrasts),
        "judged": len(known),
        "above": above,
        "below": below,
        "least": {"what": least.what, "value": least.value, "low": low, "high": high},
        "protocols": [len(protocols), len(holding)],
    }


def _is_above(low: float, high: float) -> bool:
    return low > 0


def _is_below(low: float, high: float) -> bool:
    return high < 0


def claims(measured: Measured, _: Facts) -> list[dict[str, Any]]:
    """Every claim with its verdict, and the contrasts that it rests on."""
    evidence, partial = Evidence(measured), Evidence(measured, partial=True)
    found = []
    for claim in CLAIMS:
        entry: dict[str, Any] = {"id": claim.id, "claim": claim.text, "note": claim.note, "unit": claim.unit}
        if claim.contrasts is None:
            found.append({**entry, **judged(()), "verdict": "not testable"})
        else:
            verdict = judged(list(claim.contrasts(evidence)))
            if not verdict["contrasts"] and any(True for _ in claim.contrasts(partial)):
                entry["note"] = "; ".join([*([claim.note] if claim.note else []), PARTIAL])
            found.append({**entry, **verdict})
    return found


# --- as a table -------------------------------------------------------------------------------------------------------


def claims_table(entries: Sequence[Facts]) -> Table:
    """The claims with their verdicts."""
    return Table("Claims of Chen et al. 2023", _COLUMNS, entries, _NOTES)


def _shown(entry: Facts) -> str | None:
    if not entry["contrasts"]:
        return None
    text = f"{entry['above']} above 0"
    text += f", {entry['below']} below" if entry["below"] else ""
    without = entry["contrasts"] - entry["judged"]
    text += f", {without} without an interval" if without else ""
    return f"{text} of {entry['contrasts']}"


def _least(entry: Facts) -> str | None:
    least = entry["least"]
    if least is None:
        return None
    scale, digits = (100, 1) if entry["unit"] else (1, 3)
    text = f"{scale * least['value']:+.{digits}f}"
    if least["low"] is not None:
        text += f" ({scale * least['low']:+.{digits}f} to {scale * least['high']:+.{digits}f})"
    return f"{text} {entry['unit']}".rstrip() + f": {least['what']}"


_NOTES = [
    "A claim is supported where every contrast lies above 0, with intervals that hold for all of the claim together in "
    "95 %; contradicted where one lies below. Intervals are over distilled sets: a cell of one set has none. What ran "
    "for a part of the published iterations is left out.",
]
_PROTOCOLS = Footnote("protocols: in how many of the training recipes of this sweep all contrasts lie above 0.")
_COLUMNS = [
    Column("", "id"),
    Column("claim", "claim"),
    Column("verdict", "verdict"),
    Column("contrasts", _shown),
    Column("smallest", _least),
    Column(
        "protocols",
        lambda entry: f"{entry['protocols'][1]} of {entry['protocols'][0]}" if entry["protocols"] else None,
        footnote=_PROTOCOLS,
        optional=True,
    ),
    Column("note", lambda entry: entry["note"] or None, optional=True),
]


def _elements(report: Facts) -> Iterator[Element]:
    """Nothing where no claim has a contrast: ``ddray report --claims`` prints the table all the same."""
    if any(entry["contrasts"] for entry in report["claims"]):
        yield claims_table(report["claims"])


SECTION = SweepSection(
    id="claims",
    order=125,
    title="What does this sweep say of the paper's claims?",
    plain=_FAIRNESS,
    detailed=("adv_acc", "mia_auc_strongest"),
    facts=claims,
    elements=_elements,
)
