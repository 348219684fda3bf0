"""The table of measurements: one row is one number, with everything that tells it from every other number.

Names are dictionary-encoded text, counts int32, numbers float64. Fractions are in [0, 1], epsilons in units of images
scaled to [0, 1]; percent appears only in ``ddray/report``. Columns that name an axis are named like it and null where
a method does not use the axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from ddray.plan.axes import AXES, is_count

SCHEMA_VERSION = 1
"""Raised when a column of measurements.parquet changes its name, type or meaning."""

Group = Literal["identity", "measurement", "parameters", "provenance", "quality"]

NAME = pa.dictionary(pa.int32(), pa.string())
TEXT = pa.string()
COUNT = pa.int32()
NUMBER = pa.float64()
SWITCH = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    type: pa.DataType
    group: Group
    meaning: str


VALUES: dict[str, tuple[str, ...]] = {
    "property": ("performance", "fairness", "robustness", "privacy", "informativeness", "cost"),
    "ci_unit": ("images", "trainings", "distillations", "targets"),
    "agg": ("single", "mean_seeds", "mean_targets", "pooled"),
    "split": ("test", "train", "pool"),
    "threat_model": ("blackbox", "data_release", "label_only", "none"),
    "audit": ("seed", "pool", "one_run"),
    "shadow_kind": ("distilled", "direct"),
    "shadow_fidelity": ("full", "unequal"),
    "variance_mode": ("shrunk", "per_example"),
    "member_role": ("member_init", "member_other", "canary", "top_decile"),
    "nonmember_source": ("pool", "reserve", "test", "test_balanced"),
    "norm": ("l2", "linf"),
    "adv_def": ("clip", "norm"),
    "status": ("ok", "failed", "blocked", "pending"),
    "flag": (
        "degenerate",
        "low_resolution",
        "not_converged",
        "not_applicable",
        "not_shown",
        "outside_frontier",
        "unequal_steps",
        "above_ceiling",
        "outside_band",
    ),
}
"""All that columns of a fixed vocabulary hold, null apart."""


def _columns(group: Group, *entries: tuple[str, pa.DataType, str]) -> tuple[Column, ...]:
    """Meanings end with the column's values where those are fixed."""
    return tuple(
        Column(name, kind, group, f"{meaning}: {', '.join(VALUES[name])}" if name in VALUES else meaning)
        for name, kind, meaning in entries
    )


def _identity(*entries: str | tuple[str, pa.DataType, str]) -> tuple[Column, ...]:
    """What tells points apart. A name alone is an axis; axes that are not named here follow."""
    named = [*entries, *(axis for axis in AXES if axis not in entries)]
    return _columns(
        "identity",
        *(
            (entry, COUNT if is_count(entry) else NAME, AXES[entry].meaning) if isinstance(entry, str) else entry
            for entry in named
        ),
    )


COLUMNS: tuple[Column, ...] = (
    *_identity(
        ("schema_version", COUNT, "version of this list"),
        ("row_id", TEXT, "hash of point, evaluation, metric and parameters: equal numbers of two tables share it"),
        ("sweep", NAME, "name of the sweep"),
        ("grids", pa.list_(pa.string()), "grids of the sweep that hold the point"),
        ("point", TEXT, "hash of the point's axes, settings and protocol"),
        ("stage_key", TEXT, "the stage that made the number, or that is to make it"),
        ("protocol", NAME, "training recipe; NAME* when a value was overridden, see param_json"),
        ("budget_fraction", NUMBER, "distillation iterations over the published ones; null without a budget"),
        "dataset",
        "num_classes",
        ("class_ids", pa.list_(pa.int32()), "which, by the data set's own labels"),
        "class_draw",
        "origin_per_class",
        "origin_draw",
        ("data_hash", TEXT, "hash of the data set's content digest and the origin"),
        (
            "constants",
            NAME,
            "known data set whose mean and deviation normalise the images; null: others, see param_json",
        ),
        "method",
        "ipc",
        ("effective_ipc", COUNT, "training images per class that they hold: ipc * factor^2; null for full"),
        ("ratio", NUMBER, "ipc over the origin's images per class, where that size is known; 1 for full"),
        "init",
        ("distill_arch", NAME, "network the method matches on"),
        "distill_aug",
        ("distill_iters", COUNT, "iterations of the distillation"),
        ("distill_cfg_hash", TEXT, "hash of method, version, settings without the budget, and network"),
        "distill_seed",
        ("zca", SWITCH, "whether images were whitened"),
        ("label_kind", NAME, "hard or soft"),
        ("factor", COUNT, "IDC: one stored image holds factor^2 training images"),
        ("distilled_hash", TEXT, "content of the distilled set"),
        "architecture",
        ("norm_layer", NAME, "its normalisation"),
        "train_aug",
        ("train_epochs", COUNT, "epochs of the recipe; null for a recipe in steps"),
        ("train_steps", COUNT, "optimiser steps of a recipe in steps"),
        ("optimizer", NAME, "sgd or adamw"),
        ("lr", NUMBER, "its first learning rate"),
        "seed",
        ("selection", NAME, "last: the model after the last epoch, nothing is chosen on test data"),
        ("model_hash", TEXT, "content of the trained model"),
    ),
    *_columns(
        "measurement",
        ("property", NAME, "what the metric is about"),
        ("metric", NAME, "what was measured; of a row without a result, the evaluation's first metric"),
        ("value", NUMBER, "null without a result, or with a flag that says why"),
        ("unit", NAME, "fraction, nat, s, MiB, bytes, ..."),
        ("ci_low", NUMBER, "interval"),
        ("ci_high", NUMBER, "interval"),
        ("ci_level", NUMBER, "its level"),
        ("ci_method", NAME, "how it was made"),
        ("ci_unit", NAME, "what it generalises over"),
        ("n", COUNT, "samples behind the value"),
        ("n_pos", COUNT, "positives among them"),
        ("n_neg", COUNT, "negatives among them"),
        ("repeat", COUNT, "index where one row is one of several"),
        ("agg", NAME, "of one model, a mean over models, or made of several at once"),
        ("std", NUMBER, "of aggregated rows"),
        ("n_agg", COUNT, "of aggregated rows"),
        ("class_id", COUNT, "the data set's own label; null: all classes"),
        ("class_rank", COUNT, "place of the class by the full-data model's accuracy"),
        ("split", NAME, "images behind the value"),
    ),
    *_columns(
        "parameters",
        ("attack", NAME, "attack on membership or robustness"),
        ("threat_model", NAME, "what the attacker sees"),
        ("audit", NAME, "setting of the attack on membership"),
        ("shadow_kind", NAME, "what shadows were trained on"),
        ("shadow_fidelity", NAME, "whether shadows repeat the target's budget"),
        ("n_shadows", COUNT, "shadows behind one score"),
        ("target_row", COUNT, "row of the membership matrix that is attacked"),
        ("variance_mode", NAME, "variance estimate of the attack"),
        ("fpr", NUMBER, "false positive rate of the operating point"),
        ("member_role", NAME, "where the row is of some members or candidates alone, which"),
        ("nonmember_source", NAME, "where non-members come from"),
        ("prior", NUMBER, "share of members assumed"),
        ("norm", NAME, "of the perturbation"),
        ("epsilon", NUMBER, "budget of the perturbation"),
        ("adv_def", NAME, "how a budget was applied to it"),
        ("attack_steps", COUNT, "steps of the attack"),
        ("rel_stepsize", NUMBER, "step size over epsilon"),
        ("overshoot", NUMBER, "DeepFool's overshoot"),
        ("candidates", COUNT, "classes an attack considers"),
        ("restarts", COUNT, "random restarts"),
        ("converged_share", NUMBER, "share of images for which the attack ended"),
        ("attack_lib", NAME, "library"),
        ("attack_lib_version", NAME, "its version"),
        ("perplexity", NUMBER, "of t-SNE"),
        ("embed_dim", COUNT, "dimensions of the embedding"),
        ("param_json", TEXT, "the rest: settings, overridden recipe values, settings without a published value"),
    ),
    *_columns(
        "provenance",
        ("git_commit", NAME, "checkout that made the number"),
        ("dirty", SWITCH, "whether it had changes that were not committed"),
        ("code_version", NAME, "ddray's version"),
        ("torch_version", NAME, "torch, of the training"),
        ("numpy_version", NAME, "numpy, of the evaluation"),
        ("sklearn_version", NAME, "scikit-learn, of the evaluation"),
        ("device", NAME, "of the training"),
        ("numerics", NAME, "numerics class of the training: equal classes give equal bytes"),
        ("dtype", NAME, "of the training, where recorded"),
        ("deterministic", SWITCH, "of the training, where recorded"),
        ("wall_s", NUMBER, "seconds of the stage in stage_key"),
        ("started_at", TIME, "when that stage started"),
    ),
    *_columns(
        "quality",
        ("status", NAME, "of the evaluation"),
        ("flag", NAME, "without a value, why; with one, a warning (docs/metrics.md)"),
        ("note", TEXT, "cause and key of what failed or blocks"),
    ),
)

MEASUREMENTS: pa.Schema = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])
"""The schema of ``measurements.parquet``."""


def names(group: Group) -> tuple[str, ...]:
    """Names of one group's columns, in order."""
    return tuple(column.name for column in COLUMNS if column.group == group)


def comparable(table: pa.Table) -> pa.Table:
    """What must be equal when the same sweep is computed twice within one numerics class.

    Provenance and every cost row go (they hold times and memory); names become plain text, so that the order in which
    a dictionary was filled does not matter; rows are sorted by ``row_id``.
    """
    kept = table.filter(pc.fill_null(pc.not_equal(pc.cast(table["property"], pa.string()), "cost"), True))
    kept = kept.drop_columns([name for name in names("provenance") if name in kept.column_names])
    plain = pa.table(
        {
            name: pc.cast(kept[name], pa.string()) if pa.types.is_dictionary(kept[name].type) else kept[name]
            for name in kept.column_names
        }
    )
    return plain.sort_by("row_id").combine_chunks()
