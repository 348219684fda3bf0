"""Papers whose printed values stand beside ours, and when a measured number may stand beside one of theirs.

A paper is two files: ``references/NAME.json``, the fields of a ``Reference``, and ``references/NAME.csv``, its values:
percent as printed, a row per value, with the place it was read from (``where``) and what is odd about it in the paper
itself (``doubt``). What is returned are fractions.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, NamedTuple

from ddray.plan.axes import HARD_LABELS
from trainables.methods import METHODS
from trainables.presets import constants, departures
from trainables.published import SAID_BY


class Setting(NamedTuple):
    """What a value was measured on."""

    dataset: str
    num_classes: int | None
    """None: all classes of the data set."""
    origin_per_class: int | None
    """None: all images of a class."""
    ipc: int
    init: str | None
    """None where the table does not state it."""
    method: str
    architecture: str
    metric: str


@dataclass(frozen=True, slots=True)
class Published:
    """One value of a table of a paper."""

    mean: float
    """Fraction in [0, 1]."""
    sd: float | None
    """Fraction, over three trainings of one distilled set; None where the paper gives none."""
    where: str
    """Table, row and column."""
    doubt: str | None
    """What is odd about the value in the paper itself."""


@dataclass(frozen=True)
class Reference:
    """A paper, and the settings under which its values were measured."""

    name: str
    """Of the file of values."""
    title: str
    url: str
    notes: str
    """How the values were read, and what the paper leaves open."""
    settings: str
    """Under which name ``published.py`` says which settings the paper states."""
    protocol: str
    """The training recipe that stands for the paper's."""
    admissible: tuple[str, ...]
    """Recipes that the paper's words allow as well, named before any of them was run: each stands beside the paper, and
    none is chosen because it comes closest."""
    recipe: str
    """What the paper states of its recipe, as a clause."""
    init: str
    distill_arch: str
    distill_aug: str
    factor: Mapping[str, int]
    """Multi-formation factor of the methods that have one."""
    audit: str
    """The setting of its attacks on membership."""

    @classmethod
    def named(cls, name: str) -> Reference:
        """The paper of the two files with this name."""
        said = json.loads(_file(f"{name}.json"))
        return cls(name=name, **said | {"admissible": tuple(said["admissible"])})

    @cached_property
    def values(self) -> tuple[tuple[Setting, Published], ...]:
        """All values, in the order of the file."""
        rows = csv.DictReader(_file(f"{self.name}.csv").splitlines())
        return tuple((_setting(row), _published(row)) for row in rows)

    def accuracy_of(self, dataset: str, ipc: int | None, architecture: str, method: str) -> Published | None:
        """The test accuracy, or None. Without an ipc (``full``): the value that most rows of the table repeat."""
        by_ipc = {
            at.ipc: value
            for at, value in self.values
            if (at.metric, at.dataset, at.architecture, at.method) == ("test_acc", dataset, architecture, method)
        }
        if ipc is not None:
            return by_ipc.get(ipc)
        every = list(by_ipc.values())
        return max(every, key=lambda value: sum(value.mean == other.mean for other in every)) if every else None

    def auc_of(self, row: Mapping[str, Any]) -> Published | None:
        """The AUC of membership inference; where two tables print it, the first one's. None where none does.

        Args:
            row: As for ``objections``.
        """
        own = {name: row[name] for name in Setting._fields if name not in ("metric", "dataset")}
        wanted = Setting(**own, dataset=known_data(row), metric="mia_auc")
        return next((value for at, value in self.values if at == wanted), None)

    def objections(self, row: Mapping[str, Any]) -> list[str]:
        """Why a row of measurements is not what the paper's test accuracy was measured on; empty when it is.

        Args:
            row: Identity columns of ``columns.MEASUREMENTS`` (``param_json`` as a mapping under ``param``).
        """
        if self.accuracy_of(known_data(row), row["ipc"], row["architecture"], row["method"]) is None:
            return ["no such cell in the paper"]
        reasons = self._recipe(row)
        if row["distill_cfg_hash"] is not None and row["init"] not in (None, self.init):
            reasons.append(f"init {row['init']}")
        if row["origin_per_class"] is not None:
            reasons.append(f"origin {row['origin_per_class']} per class")
        if row["class_draw"] is not None:
            reasons.append(f"{row['num_classes']} classes")
        return reasons

    def auc_objections(self, row: Mapping[str, Any], audit: str) -> list[str]:
        """Why an AUC is not what the paper measured; empty when it may be compared.

        Chen et al. 2023 name neither their non-members nor details of their attack: that is no objection, and the
        report says it.

        Args:
            row: As for ``objections``.
            audit: Of the AUC.
        """
        if self.auc_of(row) is None:
            return ["no such cell in the paper"]
        return ([f"audit {audit}"] if audit != self.audit else []) + self._recipe(row)

    def _recipe(self, row: Mapping[str, Any]) -> list[str]:
        """How the set was made, and what was trained on it, otherwise than in the paper."""
        protocol, reasons = row["protocol"], []
        param: Mapping[str, Any] = row.get("param") or {}
        if protocol not in (self.protocol, *self.admissible):
            changes = ", ".join(sorted(param.get("protocol_changes", {})))
            reasons.append(f"protocol {protocol}" + (f" ({changes} changed)" if changes else ""))
        if row.get("labels") not in (None, HARD_LABELS):
            reasons.append(f"labels of {row['labels']}")
        if row["distill_cfg_hash"] is not None:
            budget = row["budget_fraction"]
            if budget is not None and budget < 1:
                reasons.append(f"budget {percent(budget)}")
            if budget is None and row["distill_iters"] is not None:
                reasons.append("no published number of iterations")
            if row["distill_aug"] not in (None, self.distill_aug):
                reasons.append(f"distillation augmented by {row['distill_aug']}")
            if row["distill_arch"] not in (None, self.distill_arch):
                reasons.append(f"distilled on {row['distill_arch']}")
            if row["factor"] != self.factor.get(row["method"], 1):
                reasons.append(f"factor {row['factor']}")
            reasons += self._settings(row, param.get("settings") or {})
        if known_data(row) != row["dataset"] or not param.get("declared"):
            reasons += _constants(row)
        else:
            reasons.append("a data set declared in the sweep")
        return reasons

    def _settings(self, row: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Settings that neither the paper nor, where it follows them, the method's authors state."""
        own: dict[str, str] = {}
        borrowed: dict[str, list[str]] = {}
        for found in departures(row["method"], known_data(row), row["ipc"], settings, self.settings):
            if found.setting in _HAVE_COLUMNS:
                continue
            if found.borrowed and found.instead is not None:
                source = found.instead.source
                said = f"{source}, not {SAID_BY[self.settings]}" if found.instead.exact else source
                borrowed.setdefault(said, []).append(found.setting)
            else:
                own[found.setting] = json.dumps(found.value)
        reasons = ["settings " + ", ".join(f"{name}={value}" for name, value in sorted(own.items()))] if own else []
        return [*reasons, *(f"{', '.join(names)} ({said})" for said, names in borrowed.items())]


_HAVE_COLUMNS = frozenset({"architecture", "factor"})
"""Settings that rows have a column of."""


def known_data(row: Mapping[str, Any]) -> str:
    """The known data set whose images, all of them as they are, a row is about: that of a declared data set which only
    normalises them otherwise; else the name that the sweep gives.

    Args:
        row: As for ``Reference.objections``.
    """
    declared = (row.get("param") or {}).get("declared")
    if declared is None or any(declared.get(name) is not None for name in ("folder", "resize", "classes")):
        return str(row["dataset"])
    return str(declared["like"])


def _constants(row: Mapping[str, Any]) -> list[str]:
    """Images that are normalised otherwise than by the method's program."""
    dataset, inside = known_data(row), row.get("constants")
    program = constants(row["method"], dataset)
    expected = program.of if program is not None else dataset
    if inside == expected or "constants" not in row or row["distill_cfg_hash"] is None:
        return []
    source = f" ({program.source})" if program is not None else ""
    title = METHODS[row["method"]].title
    return [
        f"normalised with the constants of {inside or 'no known data set'}, {title}'s program with {expected}'s{source}"
    ]


def _file(name: str) -> str:
    return resources.files("ddray.measurements").joinpath("references", name).read_text("utf-8")


CHEN2023 = Reference.named("chen2023")
REFERENCES = (CHEN2023,)
"""All papers whose values are there. The report compares with Chen et al. 2023, which this study repeats."""


def percent(fraction: float) -> str:
    """A share as people write it: ``5 %``, ``0.25 %``."""
    return f"{100 * fraction:.3g} %"


def _setting(row: Mapping[str, str]) -> Setting:
    def count(name: str) -> int | None:
        return int(row[name]) if row[name] else None

    return Setting(
        dataset=row["dataset"],
        num_classes=count("num_classes"),
        origin_per_class=count("origin_per_class"),
        ipc=int(row["ipc"]),
        init=row["init"] or None,
        method=row["method"],
        architecture=row["architecture"],
        metric=row["metric"],
    )


def _published(row: Mapping[str, str]) -> Published:
    sd = float(row["sd"]) / 100 if row["sd"] else None
    return Published(float(row["value"]) / 100, sd, row["where"], row["doubt"] or None)
