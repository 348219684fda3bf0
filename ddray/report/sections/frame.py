"""What stands around the tables: coverage, where numbers come from, alarms, borrowed settings, flags, failures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ddray.measurements.reading import Row
from ddray.measurements.references import percent
from ddray.plan.keys import short
from ddray.report.comparable import block_key
from ddray.report.page import Element, Lines
from ddray.report.sections import BlockSection, Measured, SweepSection
from ddray.report.table import Bullets, Facts
from ddray.report.words import cells_of, span, variant_title
from trainables.protocols import PROTOCOLS

# --- coverage ---------------------------------------------------------------------------------------------------------


def _coverage_facts(measured: Measured, _: Facts) -> dict[str, Any]:
    names = ("points", "evaluations", "methods", "failures", "reasons")
    return {name: getattr(measured.coverage, name) for name in names}


def _coverage(report: Facts) -> Iterator[Element]:
    coverage = report["coverage"]
    lead = f"Coverage: {_counts(coverage['points'])}."
    if coverage["points"]["done"] == coverage["points"]["planned"]:
        yield Lines((lead,))
        return
    counts = [
        entry for name in ("evaluations", "methods") if len(coverage[name]) > 1 for entry in coverage[name].items()
    ]
    yield Bullets(lead, [f"{name}: {_counts(each)}" for name, each in counts]) if counts else Lines((lead,))


def _counts(counts: Facts) -> str:
    rest = [f", {counts[state]} {state}" for state in ("failed", "blocked", "pending") if counts[state]]
    return f"{counts['done']} of {counts['planned']} points done" + "".join(rest)


def _of_all(_: Facts, measured: Measured) -> list[str]:
    """Alarms about the whole sweep: points that are missing, and data that are not as they should be."""
    coverage = measured.coverage
    if coverage.complete:
        return coverage.data
    share = coverage.done / coverage.planned if coverage.planned else 0.0
    return [f"coverage {percent(share)}: {coverage.done} of {coverage.planned} points are done", *coverage.data]


COVERAGE = SweepSection(id="coverage", order=-30, facts=_coverage_facts, elements=_coverage, alarms=_of_all)


def _failed(report: Facts) -> Iterator[Element]:
    failures = [
        f"{failure['label']}: {failure['cause']} ({failure['points']} points; "
        f"look closer with: ddray debug {short(failure['key'])})"
        for failure in report["coverage"]["failures"]
    ]
    if failures:
        yield Bullets("", failures)


def _blocked(report: Facts) -> Iterator[Element]:
    reasons: Mapping[str, int] = report["coverage"]["reasons"]
    if reasons:
        yield Bullets("", [f"{reason}: {count} points" for reason, count in reasons.items()])


FAILED = SweepSection(id="failed", order=160, title="Failed stages", elements=_failed)
BLOCKED = SweepSection(id="blocked", order=170, title="Blocked", elements=_blocked)


# --- where the numbers come from --------------------------------------------------------------------------------------


def _provenance(report: Facts) -> Iterator[Element]:
    made = report["provenance"]
    if made["first"] is None:
        yield Lines(("No numbers yet.",))
        return
    when = made["first"] if made["first"] == made["last"] else f"{made['first']} to {made['last']}"
    dirty = ", with changes that were not committed" if made["dirty"] else ""
    versions = f"torch {_listed(made['torch'])}, ddray {_listed(made['ddray'])}"
    commits = _listed([commit[:12] for commit in made["commits"]])
    yield Lines((f"Numbers computed {when} on {_listed(made['devices'])}; {versions}; commit {commits}{dirty}.",))


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "not recorded"


def _alarms(report: Facts) -> Iterator[Element]:
    yield Bullets("Alarms:", report["alarms"], "alarms") if report["alarms"] else Lines(("Alarms: none.",))


def _mixtures(report: Facts, measured: Measured) -> list[str]:
    """What a report holds of several kinds, so that its numbers are not all comparable."""
    alarms = []
    protocols = sorted({block["protocol"] for block in report["blocks"]})
    if len(protocols) > 1:
        alarms.append(f"{len(protocols)} protocols ({', '.join(protocols)}): compare within a block, never across")
    numerics: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for point in measured.points:
        if point["numerics"] is not None:
            numerics[block_key(point)].add(point["numerics"])
    if mixed := sum(len(classes) > 1 for classes in numerics.values()):
        blocks = len(report["blocks"])
        alarms.append(f"{mixed} of {blocks} blocks hold rows of several numerics classes (device, torch, threads)")
    if report["provenance"]["dirty"]:
        alarms.append("some numbers come from a checkout with changes that were not committed")
    if (commits := len(report["provenance"]["commits"])) > 1:
        alarms.append(f"the numbers come from {commits} commits")
    return alarms


_KINDS = {"robustness": "adv_acc", "privacy": "mia_auc", "embedding": "embed_outlier_rate"}
"""Evaluations that a sweep asks for by themselves -> a metric of theirs."""
_OF_SET = ("dataset", "num_classes", "method", "ipc", "init", "distill_aug")


def _of_other_sets(_: Facts, measured: Measured) -> list[str]:
    """Evaluations of some sets alone, where a method's accuracy is shown of others as well: of other iterations or
    settings, as when ``--set`` changes one of the grids that shared them."""
    sets: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for point in measured.points:
        if point["distill_cfg_hash"] is not None and point["value"] is not None:
            made = (point["distill_iters"], point["distill_cfg_hash"])
            sets[tuple(point[name] for name in _OF_SET)][made].append(point)
    alarms = []
    for place, by_made in sets.items():
        for kind, metric in _KINDS.items():
            rows = measured.numbers.rows.get(metric, {})
            known = {
                made: any(row["value"] is not None for point in points for row in rows.get(point["point"], ()))
                for made, points in by_made.items()
            }
            seen, unseen = [made for made in known if known[made]], [made for made in known if not known[made]]
            if seen and unseen:
                its = dict(zip(_OF_SET, place, strict=True))
                alarms.append(
                    f"{kind} of {its['method']} at ipc {its['ipc']} on {its['dataset']} is of sets with "
                    f"{_told(seen, unseen)} alone; "
                    f"accuracy is also shown of sets with {_told(unseen, seen)}, of which it says nothing"
                )
    return alarms


def _told(made: list[tuple[Any, ...]], others: list[tuple[Any, ...]]) -> str:
    """By what sets are told apart: iterations, where those differ."""
    iterations = {each for each, _ in made}
    if iterations & {each for each, _ in others}:
        return f"the settings {', '.join(sorted(str(settings)[:8] for _, settings in made))} (distill_cfg_hash)"
    return f"{', '.join(map(str, sorted(iterations)))} iterations"


OTHER_SETS = SweepSection(
    id="other_sets", order=16, detailed=tuple(_KINDS.values()), elements=lambda _: (), alarms=_of_other_sets
)
PROVENANCE = SweepSection(
    id="provenance", order=-20, facts=lambda measured, _: measured.provenance, elements=_provenance
)
ALARMS = SweepSection(id="alarms", order=-10, elements=_alarms)
# Alarms alone: those about all numbers stand after those about accuracy and before those about single attacks.
MIXTURES = SweepSection(id="mixtures", order=15, elements=lambda _: (), alarms=_mixtures)


# --- settings ---------------------------------------------------------------------------------------------------------


def _recipe_and_budget(block: Facts) -> Iterator[Element]:
    budgets = _budgets(block)
    labels = _labels(block)
    yield Lines(
        (
            f"Recipe: {_recipe(block)}.",
            *([f"Budget: {'; '.join(budgets)}."] if budgets else []),
            *([f"Labels: {'; '.join(labels)}. {_labels_differ(block)}"] if labels else []),
        )
    )


def _recipe(block: Facts) -> str:
    if block["optimizer"] is None:
        return "not known; the model was trained elsewhere"
    length = f"{block['train_epochs']} epochs" if block["train_epochs"] else f"{block['train_steps']} steps"
    text = f"{length}, {block['optimizer']}, lr {block['lr']:g}, augmentation {block['train_aug']}, last epoch"
    if changes := block["protocol_changes"]:
        name = block["protocol"].rstrip("*")
        text += f"; {name} with " + ", ".join(_changed(changes))
    elif block["protocol"] in PROTOCOLS:
        text += f" ({PROTOCOLS[block['protocol']].source})"
    learned: dict[str, set[float]] = {}
    for row in cells_of(block):
        if row["cell"]["learned_lr"]:
            learned.setdefault(row["method"], set()).update(row["cell"]["learned_lr"])
    return text + "".join(
        f"; {variant_title(name)} at the rate learned with its sets, lr {span(rates, '.3g')}"
        for name, rates in learned.items()
    )


def _changed(changes: Mapping[str, Any], of: str = "") -> Iterator[str]:
    """``epochs=3``, ``private.epsilon=10``."""
    for key, value in sorted(changes.items()):
        if isinstance(value, Mapping):
            yield from _changed(value, f"{of}{key}.")
        else:
            yield f"{of}{key}={value}"


def _budgets(block: Facts) -> list[str]:
    """``DM 1 % (200 iterations)``: of what was published, for each variant."""
    budgets: dict[str, dict[str, None]] = {}
    for row in cells_of(block):
        iterations, share = row["cell"]["distill_iters"], row["cell"]["budget_fraction"]
        if iterations is not None:
            text = percent(share) if share is not None else "of an unknown whole"
            budgets.setdefault(row["method"], {})[f"{text} ({iterations} iterations)"] = None
    return [f"{variant_title(name)} {', '.join(budgets[name])}" for name in block["methods"] if name in budgets]


def _labels_differ(block: Facts) -> str:
    if "labels" in block["row_axes"]:
        return "Rows differ in labels, methods of a row do not; the full data has its own labels in all of them."
    return "Those of sets that are not named are hard: a difference to them is one of images and labels together."


def _labels(block: Facts) -> list[str]:
    """``External soft (logits, learned), soft_ce at temperature 1, not scaled``: of each variant with such labels."""
    labels: dict[str, dict[str, None]] = {}
    for row in cells_of(block):
        if (of_cell := row["cell"].get("labels")) is not None:
            said = f"soft ({of_cell['form']}, {_source(of_cell)}), {of_cell['loss']}"
            if of_cell["temperature"] is not None:
                scaled = "scaled by its square" if of_cell["scaled"] else "not scaled"
                said += f" at temperature {of_cell['temperature']:g}, {scaled}"
            name = variant_title(row["method"])
            if isinstance(teacher := of_cell["teacher"], Mapping) and "name" in teacher:
                name = teacher["name"] if "labels" in block["row_axes"] else f"{name} (labels {teacher['name']})"
            labels.setdefault(name, {})[said] = None
    return [f"{name} {' and '.join(each)}" for name, each in labels.items()]


def _source(labels: Mapping[str, Any]) -> str:
    if labels["source"] == "learned":
        return "learned with the images"
    if isinstance(teacher := labels["teacher"], Mapping) and teacher.keys() == {"name", "key"}:
        anew = ", of every batch anew" if labels["source"] == "online teacher" else ""
        return f"of the teacher {short(teacher['key'])}{anew}"
    return f"of the teacher {labels['teacher']}" if labels["teacher"] else "of a teacher that is not known"


RECIPE = BlockSection(id="recipe", order=5, elements=_recipe_and_budget)


def _borrowed(report: Facts) -> Iterator[Element]:
    """Settings without a published value, those of one source together."""
    settings: dict[tuple[str, str], dict[str, None]] = {}
    for block in report["blocks"]:
        for row in cells_of(block):
            for setting, source in sorted(row["cell"]["unpublished"].items()):
                settings.setdefault((row["method"], source), {})[setting] = None
    if settings:
        yield Bullets(
            "", [f"{variant_title(name)} {', '.join(each)}: {source}" for (name, source), each in settings.items()]
        )


BORROWED = SweepSection(id="borrowed", order=140, title="Settings without a published value", elements=_borrowed)


# --- flags ------------------------------------------------------------------------------------------------------------

INFORMATION = frozenset({"not_applicable", "not_shown", "outside_frontier", "degenerate", "low_resolution"})
"""Flags that say why a number is missing or how far it carries, not that something is wrong with it."""
WORDS = {
    "distill_loss": "the loss ended at 1 or more: the last network came no nearer to its expert than it had begun",
    "distill_rate_clamped": "the learned rate had to be kept above 0",
}
"""Metric -> what its flagged numbers mean, where that can be said better than by flag and metric."""
TOLD = frozenset({"above_ceiling", "outside_band"})
"""Flags with an alarm of their own."""

Flags = Mapping[tuple[str, str], int]
"""(metric, flag) -> numbers that carry it."""


def flag_alarms(flags: Flags) -> list[str]:
    """One line per flag that is an alarm, with how many numbers of each metric carry it."""
    alarms = [f"{WORDS[metric]}, at {count} points" for (metric, _), count in sorted(flags.items()) if metric in WORDS]
    wrong = {key: count for key, count in flags.items() if key[1] not in INFORMATION | TOLD and key[0] not in WORDS}
    return alarms + [f"flagged {line}" for line in _by_flag(wrong)]


def flag_information(flags: Flags) -> list[str]:
    """The same of flags that are no alarm."""
    return _by_flag({(metric, flag): count for (metric, flag), count in flags.items() if flag in INFORMATION})


def _by_flag(flags: Flags) -> list[str]:
    counts: dict[str, list[str]] = defaultdict(list)
    for (metric, flag), count in sorted(flags.items(), key=lambda entry: (-entry[1], entry[0])):
        counts[flag].append(f"{count} {metric}")
    return [f"{flag}: {', '.join(entries)}" for flag, entries in sorted(counts.items())]


FLAGGED = SweepSection(
    id="flagged",
    order=150,
    title="Numbers that are missing or to be read with care, by flag (docs/metrics.md)",
    facts=lambda measured, _: flag_information(measured.numbers.flags),
    elements=lambda report: [Bullets("", report["flagged"])] if report["flagged"] else [],
    alarms=lambda _, measured: flag_alarms(measured.numbers.flags),
)
