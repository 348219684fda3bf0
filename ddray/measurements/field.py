"""What other publications print of the methods, to be read beside ours. Each is two files in ``references/field``:

    NAME.csv    a row for each value, in percent as printed, with its recipe and where in the publication it stands
    NAME.json   title, address, how the values were read, and what each of its recipes is

A new publication is two new files. The paper that this study repeats is more than its values: see ``references``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, field_validator

from ddray.measurements.references import known_data, percent
from trainables.protocols import PROTOCOLS


class Recipe(BaseModel):
    """How the networks behind some of a publication's values were trained, and which of their numbers is printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    """Of a column."""
    says: str
    """As a clause. Without a protocol of ours it is what stands against a comparison."""
    protocols: tuple[str, ...]
    """Ours that train alike and take the last epoch; empty where none does."""

    @field_validator("protocols")
    @classmethod
    def _ours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(PROTOCOLS)):
            raise ValueError(f"protocols that are not there: {', '.join(unknown)}")
        return names


class Publication(BaseModel):
    """Where values were read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    url: str
    read: str
    recipes: dict[str, Recipe]


class Printed(NamedTuple):
    """A value of a publication."""

    publication: Publication
    recipe: Recipe
    dataset: str
    ipc: int | None
    """None: all training images."""
    method: str
    architecture: str
    labels: str | None
    """``hard`` or ``soft``; None where nobody says."""
    metric: str
    parameter: str
    """Of the metric, as ``name=value;name=value``."""
    mean: float
    """Fraction in [0, 1]; a correlation of rankings as it is."""
    sd: float | None
    where: str

    def objections(self, row: Mapping[str, Any]) -> list[str]:
        """Why a test accuracy of ours is not what this one is; empty when the two may be compared.

        Args:
            row: Identity columns of ``columns.MEASUREMENTS`` (``param_json`` as a mapping under ``param``).
        """
        param: Mapping[str, Any] = row.get("param") or {}
        reasons = []
        if row["protocol"] not in self.recipe.protocols:
            reasons.append(self.recipe.says)
        elif changes := ", ".join(sorted(param.get("protocol_changes", {}))):
            reasons.append(f"ours changes {changes}")
        ours = row.get("label_kind") or param.get("label_kind") or "hard"
        if self.labels not in (None, ours):
            reasons.append(f"labels are {self.labels}, ours {ours}")
        if row["budget_fraction"] is not None and row["budget_fraction"] < 1:
            reasons.append(f"ours has {percent(row['budget_fraction'])} of the iterations")
        return reasons


@cache
def printed() -> tuple[Printed, ...]:
    """All values, by publication and in the order of its file."""
    folder = resources.files("ddray.measurements").joinpath("references", "field")
    found: list[Printed] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        name, _, kind = file.name.rpartition(".")
        if kind == "json":
            publication = Publication.model_validate_json(file.read_text("utf-8"))
            values = folder.joinpath(f"{name}.csv").read_text("utf-8").splitlines()
            found += (_value(publication, row) for row in csv.DictReader(values))
    return tuple(found)


def beside(row: Mapping[str, Any], metric: str = "test_acc") -> Iterator[Printed]:
    """What others print of the same method, data set, network and number of images, the first value of each recipe.

    Args:
        row: As for ``Printed.objections``. Of some classes or some of the images nobody printed anything.
        metric: Of both.
    """
    if row["origin_per_class"] is not None or row["class_draw"] is not None:
        return
    ours = (known_data(row), row["ipc"], row["method"], row["architecture"], metric)
    seen = set()
    for value in printed():
        theirs = (value.dataset, value.ipc, value.method, value.architecture, value.metric)
        column = (value.publication.title, value.recipe.title)
        if theirs == ours and column not in seen:
            seen.add(column)
            yield value


def _value(publication: Publication, row: Mapping[str, str]) -> Printed:
    scale = 1 if row["metric"] == "rank_correlation" else 100
    return Printed(
        publication=publication,
        recipe=publication.recipes[row["recipe"]],
        dataset=row["dataset"],
        ipc=int(row["ipc"]) if row["ipc"] else None,
        method=row["method"],
        architecture=row["architecture"],
        labels=row["labels"] or None,
        metric=row["metric"],
        parameter=row["parameter"],
        mean=float(row["value"]) / scale,
        sd=float(row["sd"]) / scale if row["sd"] else None,
        where=row["where"],
    )
