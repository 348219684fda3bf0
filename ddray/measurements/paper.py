"""Tables 1-3 of Chen et al. 2023, transcribed, and when a measured number may stand beside one of theirs.

The CSV files in the folder ``paper`` hold percent as printed; what is returned here are fractions. Table 3's header is
damaged in the text we have: the order of its columns rests on the caption and on the methods' own papers, and an
exchange of DSA and DM would fit the numbers nearly as well. The paper's "random" initialisation is ``noise`` here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

SOURCE = "Chen et al. 2023, A Comprehensive Study on Dataset Distillation"
PROTOCOL = "paper2023"
FACTOR = {"idc": 2}
"""Multi-formation factor of the methods that have one, in their authors' settings for CIFAR."""
INIT = "real"
"""Table 3 does not state the initialisation; the methods' own code starts from real images."""
MEMBERSHIP_IPC = 10
"""Of Table 1; Table 2 does not state its own, but repeats values of Table 1."""


@dataclass(frozen=True, slots=True)
class Published:
    """One cell of a table of the paper."""

    mean: float
    """Fraction in [0, 1]."""
    sd: float | None
    """Fraction: over three trainings of one distilled set (Table 3); None where the paper gives none."""
    where: str
    """Table, row and column."""
    doubt: str | None = None
    """What is odd about the cell in the paper itself."""


_DOUBTS: dict[tuple[str, int, str, str], str] = (
    {
        ("cifar10", ipc, "resnet18", "full"): "sd of 5 points: an outlier among three runs"
        for ipc in (1, 10, 20, 50, 100)
    }
    | {("cifar100", ipc, "vgg16", "full"): "sd of 5 points: an outlier among three runs" for ipc in (1, 10, 20, 50)}
    | {
        ("cifar100", 1, "convnet3", "full"): "64.5 in this row, 64.35 in the rows below",
        ("cifar100", 1, "resnet18", "full"): "72.57 in this row, 72.71 in the rows below",
        ("cifar100", 1, "resnet18", "dsa"): "printed with one decimal",
    }
)


@cache
def table3() -> Mapping[tuple[str, int, str, str], Published]:
    """Test accuracy by (dataset, ipc, architecture, method); ``full`` is repeated at every ipc, as in the paper."""
    cells = {}
    for row in _rows("paper_table3_accuracy.csv"):
        at = (row["dataset"].lower(), int(row["ipc"]), row["arch"].lower(), row["method"])
        where = f"Table 3, {row['dataset']}, IPC {row['ipc']}, {row['arch']}, {row['method']}"
        cells[at] = Published(float(row["mean"]) / 100, float(row["std"]) / 100, where, _DOUBTS.get(at))
    return cells


@cache
def table1() -> Mapping[tuple[int, str, str], Published]:
    """Membership inference AUC on CIFAR-10, IPC 10, ten classes, by (origin_per_class, init, method)."""
    return {
        (int(row["origin_per_class"]), {"random": "noise"}.get(row["init"], row["init"]), row["method"]): Published(
            float(row["auc"]) / 100,
            None,
            f"Table 1, {row['origin_per_class']} per class, {row['init']}, {row['method']}",
        )
        for row in _rows("paper_table1_mia_origin_init.csv")
    }


@cache
def table2() -> Mapping[tuple[int, int, str], Published]:
    """The same AUC by (origin_per_class, num_classes, method); real init, by its agreement with Table 1."""
    return {
        (int(row["origin_per_class"]), int(row["num_classes"]), row["method"]): Published(
            float(row["auc"]) / 100,
            None,
            f"Table 2, {row['origin_per_class']} per class, {row['num_classes']} classes, {row['method']}",
            "Table 1 has 56.34 for the same cell" if row["auc"] == "54.45" else None,
        )
        for row in _rows("paper_table2_mia_classes.csv")
    }


def accuracy_of(dataset: str, ipc: int | None, architecture: str, method: str) -> Published | None:
    """The cell of Table 3, or None. Without an ipc (``full``): the value that most of its rows repeat."""
    if ipc is not None:
        return table3().get((dataset, ipc, architecture, method))
    rows = [cell for at, cell in table3().items() if (at[0], *at[2:]) == (dataset, architecture, method)]
    return max(rows, key=lambda cell: sum(cell.mean == other.mean for other in rows)) if rows else None


def objections(row: Mapping[str, Any]) -> list[str]:
    """Why a row of measurements is not what Table 3 measured; empty when it may be compared.

    Args:
        row: Identity columns of ``columns.MEASUREMENTS`` (``param_json`` as a mapping under ``param``).
    """
    if accuracy_of(row["dataset"], row["ipc"], row["architecture"], row["method"]) is None:
        return ["no such cell in the paper"]
    found = _recipe(row)
    if row["distill_cfg_hash"] is not None and row["init"] not in (None, INIT):
        found.append(f"init {row['init']}")
    if row["origin_per_class"] is not None:
        found.append(f"origin {row['origin_per_class']} per class")
    if row["class_draw"] is not None:
        found.append(f"{row['num_classes']} classes")
    return found


def auc_of(row: Mapping[str, Any]) -> Published | None:
    """The cell of Table 1, or of Table 2 for fewer than ten classes, or None."""
    if (row["dataset"], row["ipc"], row["architecture"]) != ("cifar10", MEMBERSHIP_IPC, "convnet3"):
        return None
    if row["num_classes"] == 10:
        return table1().get((row["origin_per_class"], row["init"], row["method"]))
    found = table2().get((row["origin_per_class"], row["num_classes"], row["method"]))
    return found if row["init"] == INIT else None


def auc_objections(row: Mapping[str, Any], audit: str) -> list[str]:
    """Why an AUC is not what Tables 1 and 2 measured; empty when it may be compared.

    The paper names neither its non-members nor details of its attack: that is no objection, and the report says it.

    Args:
        row: As for ``objections``.
        audit: ``seed`` is the paper's setting.
    """
    if auc_of(row) is None:
        return ["no such cell in the paper"]
    return ([f"audit {audit}"] if audit != "seed" else []) + _recipe(row)


def _recipe(row: Mapping[str, Any]) -> list[str]:
    """How the set was made, and what was trained on it, otherwise than in the paper."""
    protocol, found = row["protocol"], []
    param: Mapping[str, Any] = row.get("param") or {}
    if protocol != PROTOCOL:
        changes = ", ".join(sorted(param.get("protocol_changes", {})))
        found.append(f"protocol {protocol}" + (f" ({changes} changed)" if changes else ""))
    if row["distill_cfg_hash"] is not None:
        budget = row["budget_fraction"]
        if budget is not None and budget < 1:
            found.append(f"budget {percent(budget)}")
        if budget is None and row["distill_iters"] is not None:
            found.append("no published number of iterations")
        if row["distill_aug"] not in (None, "dsa"):
            found.append(f"distillation augmented by {row['distill_aug']}")
        if row["distill_arch"] not in (None, "convnet3"):
            found.append(f"distilled on {row['distill_arch']}")
        if row["factor"] != FACTOR.get(row["method"], 1):
            found.append(f"factor {row['factor']}")
        if changed := param.get("changed_settings"):
            found.append("settings " + ", ".join(f"{name}={value}" for name, value in sorted(changed.items())))
    if param.get("declared"):
        found.append("a data set declared in the sweep")
    return found


def percent(fraction: float) -> str:
    """A share as people write it: ``5 %``, ``0.25 %``."""
    return f"{100 * fraction:.3g} %"


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("ddray.measurements").joinpath("paper", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
