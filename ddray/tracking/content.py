"""What a run of a point says: its tags, parameters, and the names of its metrics."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ddray.plan.graph import Chain
from ddray.tracking.measured import MeasuredPoint, Number
from ddray.tracking.runs import PLANNED
from trainables.attacks import PANELS
from trainables.configs import DatasetConfig, DistillConfig, TrainConfig

MAX_PARAMS, MAX_PARAM, MAX_TAG = 100, 6000, 5000
"""Of one run: names of parameters, characters of a value and of a tag. Beyond, MLflow refuses or its page crawls."""


MAX_METRICS = 40
"""Of one run. Beyond, MLflow's page crawls; all numbers are in ``measurements.parquet``."""
HEADLINES = ("test_acc", "auc", "worst_class_acc", "robust_acc")
"""The columns of the prepared view, of every run as far as they were measured: accuracy on the test images; the AUC of
the panel's strongest attack; accuracy of the worst class; accuracy at the first budget of ``BUDGETS`` that there is."""
BUDGETS: dict[str, tuple[float, ...]] = {"linf": (8 / 255, 2 / 255), "l2": (0.5, 1.0)}
"""Norm -> epsilons whose accuracy is a metric of its own; all others are steps of a curve."""
STEPS = {"linf": 255, "l2": 1000}
"""Norm -> step of a curve over epsilon: a whole number of 1/255 or of 1/1000."""
MINOR = (
    *("fair_cv_acc", "fair_gini_acc", "fair_jain", "fair_worst10pct_acc", "fair_var_loss_rescaled"),
    *("fair_var_loss_rescaled_corr", "temperature", "num_parameters", "optimiser_steps", "distill_bytes", "trained_lr"),
)
"""Metrics that make room for others where there are too many."""
_OF_ATTACKS = ("mia_k", "mia_tpr_at_fpr", "mia_eps_lb")


class Metric(NamedTuple):
    """One number of a run."""

    name: str
    value: float
    at: int
    """Milliseconds since 1970."""
    step: int = 0


def metric_name(row: Number) -> str:
    """The metric, and what tells it from others, as a person reads it: ``adv_acc/pgd/linf/eps 8/255``."""
    attack, norm, epsilon, audit, fpr = row.parameters
    parts = [row.metric, attack, norm if norm and not str(attack).endswith(norm) else None, audit]
    parts += [f"eps {epsilon_name(norm, epsilon)}" if epsilon is not None else None]
    parts += [f"fpr {fpr:g}" if fpr is not None else None]
    return "/".join(str(part) for part in parts if part is not None)


def epsilon_name(norm: str | None, epsilon: float) -> str:
    """``8/255`` for what is a whole number of grey levels, else the number."""
    levels = 255 * epsilon
    if norm == "linf" and levels and abs(levels - round(levels)) < 1e-6:
        return f"{round(levels)}/255"
    return f"{epsilon:g}"


def metrics(point: MeasuredPoint) -> list[Metric]:
    """The numbers of a run, of at most ``MAX_METRICS`` names: headlines, the others, and robust accuracy as curves
    whose steps are epsilons."""
    rows = [row for row in point.rows if row.value is not None and row.class_id is None and row.status == "ok"]
    curves: dict[str, dict[int, Metric]] = {}
    singles: dict[str, Metric] = {}
    strongest = headline_attack(point)
    for row in rows:
        attack, norm, epsilon, audit, _ = row.parameters
        assert row.value is not None
        if row.metric == "adv_acc" and epsilon is not None and norm in STEPS:
            name = f"adv_acc/{attack}/curve {STEPS[norm]} eps"
            step = round(STEPS[norm] * epsilon)
            curves.setdefault(name, {}).setdefault(step, Metric(name, row.value, row.at, step))
            if not any(abs(epsilon - budget) < 1e-9 for budget in BUDGETS[norm]):
                continue
        if row.metric == "mia_auc" and attack not in PANELS.get(audit, ()):
            continue
        if row.metric in _OF_ATTACKS and attack != strongest:
            continue
        # Of variants of an attack, the first is the one it is named for.
        singles.setdefault(metric_name(row), Metric(metric_name(row), row.value, row.at))
    named = {metric.name: metric for metric in _headlines(rows)} | singles
    ranked = sorted(named, key=lambda name: (name not in HEADLINES, name.split("/")[0] in MINOR))
    kept = ranked[: MAX_METRICS - len(curves) - 1]  # one is the curve of the training
    return [named[name] for name in kept] + [metric for steps in curves.values() for metric in steps.values()]


def headline_attack(point: MeasuredPoint) -> str | None:
    """The panel's strongest attack on privacy; None where none was measured."""
    return next((row.parameters[0] for row in point.rows if row.metric == "mia_auc_strongest"), None)


def robust_of(rows: Iterable[Number]) -> Number | None:
    """The row that ``robust_acc`` is: the first budget of ``BUDGETS`` that there is."""
    wanted = [(norm, epsilon) for norm, epsilons in BUDGETS.items() for epsilon in epsilons]
    found = [row for row in rows if row.metric == "adv_acc" and row.class_id is None and row.value is not None]
    for norm, epsilon in wanted:
        for row in found:
            if row.parameters[1] == norm and row.parameters[2] is not None and abs(row.parameters[2] - epsilon) < 1e-9:
                return row
    return None


def _headlines(rows: Sequence[Number]) -> Iterator[Metric]:
    for name, metric in (("auc", "mia_auc_strongest"), ("worst_class_acc", "fair_worst_acc")):
        if (row := next((row for row in rows if row.metric == metric), None)) is not None and row.value is not None:
            yield Metric(name, row.value, row.at)
    if (row := robust_of(rows)) is not None and row.value is not None:
        yield Metric("robust_acc", row.value, row.at)


def tags(chain: Chain, point: MeasuredPoint) -> dict[str, str]:
    axes = {
        name: getattr(chain.point, name)
        for name in (
            "method",
            "dataset",
            "ipc",
            "init",
            "architecture",
            "seed",
            "distill_seed",
            "origin_per_class",
            "num_classes",
        )
    }
    notes = dict.fromkeys(row.note for row in point.rows if row.note)
    robust = robust_of(point.rows)
    tags: dict[str, Any] = {
        **axes,
        "protocol": chain.protocol,
        "status": point.status,
        "git_commit": point.commit,
        "dirty": None if point.dirty is None else str(point.dirty).lower(),
        "device": point.device,
        "note": "\n".join(map(str, notes)),
        "auc_of": headline_attack(point),
        "robust_acc_of": None if robust is None else metric_name(robust).removeprefix("adv_acc/"),
        "ddray.grids": ", ".join(chain.point.grids),
        PLANNED: "true",
        **{f"ddray.stage.{stage.kind}": stage.key for stage in chain.stages},
    }
    return {name: str(value)[:MAX_TAG] for name, value in tags.items() if value is not None}


def params(chain: Chain) -> dict[str, str]:
    """The resolved configuration, flat."""
    train, distill = chain.stage("train"), chain.stage("distill")
    values: dict[str, Any] = {"method": chain.point.method, "protocol": chain.protocol}
    if train is not None and isinstance(train.config, TrainConfig):
        dumped = train.config.model_dump(mode="json")
        values |= _flat({name: dumped[name] for name in ("dataset", "origin")})
        values |= _flat({name: value for name, value in dumped.items() if name not in ("dataset", "origin")}, "train.")
    if distill is not None and isinstance(distill.config, DistillConfig):
        dumped = distill.config.model_dump(mode="json", exclude={"dataset", "origin", "method"})
        values |= _flat(dumped, "distill.")
    texts = {name: str(value)[:MAX_PARAM] for name, value in sorted(values.items()) if value is not None}
    if len(texts) > MAX_PARAMS:
        rest = dict(itertools.islice(texts.items(), MAX_PARAMS - 1, None))
        texts = dict(itertools.islice(texts.items(), MAX_PARAMS - 1)) | {"further": json.dumps(rest)[:MAX_PARAM]}
    return texts


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


class Data(NamedTuple):
    """Data that a run used, as MLflow lists it."""

    name: str
    digest: str
    context: str


MAX_DIGEST = 36
"""Characters that MLflow keeps of a digest."""


def data(chain: Chain) -> list[Data]:
    """The data set, and the distilled set that the network was trained on."""
    train, distill = chain.stage("train"), chain.stage("distill")
    found = []
    if train is not None and isinstance(dataset := getattr(train.config, "dataset", None), DatasetConfig):
        digest = dataset.digest.rpartition(":")[2][:MAX_DIGEST]
        found.append(Data(dataset.name, digest, "training" if distill is None else "evaluation"))
    if distill is not None:
        found.append(Data(distill.label[:500], distill.key[:MAX_DIGEST], "training"))
    return found


VIEW = "ddray"
"""Name of the prepared view, in an address of MLflow: ``viewStateShareKey=ddray``."""


def experiment_tags(sweep: str) -> dict[str, str]:
    """Tags of a sweep's experiment: the view for experiments of training, and the columns of its table."""
    columns = [f"metrics.`{name}`" for name in HEADLINES]
    columns += [f"tags.`{name}`" for name in ("method", "dataset", "ipc", "architecture", "seed", "status", "auc_of")]
    view = {"selectedColumns": ["attributes.`Created`", *columns], "orderByKey": "metrics.`test_acc`"}
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
        "mlflow.note.content": f"The sweep {sweep}: a run for each point, and the run `report` with tables and figures."
        " `auc` is that of the strongest membership attack of the panel (its name: tag `auc_of`), `robust_acc` the "
        "accuracy under the attack and budget of the tag `robust_acc_of`. Curves over epsilon have it as their step. "
        "All numbers are in measurements.parquet.",
    }
