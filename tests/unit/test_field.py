"""What other publications print beside our cells, and what stands against comparing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ddray.measurements.field import Printed, Recipe, beside, printed
from ddray.report.comparable import Cell, RowKey
from ddray.report.page import markdown
from ddray.report.sections.field import FIELD, SAME
from trainables.methods import METHODS
from trainables.protocols import PROTOCOLS

ROW: dict[str, Any] = {
    "dataset": "cifar10",
    "ipc": 50,
    "architecture": "convnet3",
    "method": "dm",
    "protocol": "dsa1000",
    "budget_fraction": 1.0,
    "origin_per_class": None,
    "class_draw": None,
    "num_classes": 10,
    "param": {},
}


def by_title(**changes: Any) -> dict[str, Printed]:
    return {value.recipe.title: value for value in beside({**ROW, **changes})}


def test_every_publication_says_where_its_values_were_read() -> None:
    publications = {value.publication.title: value.publication for value in printed()}
    assert len(publications) == 6
    for publication in publications.values():
        assert publication.url.startswith("https://")
        assert publication.read
        assert all(set(recipe.protocols) <= set(PROTOCOLS) for recipe in publication.recipes.values())
    titles = [recipe.title for publication in publications.values() for recipe in publication.recipes.values()]
    assert max(Counter(titles).values()) == 1, "a title is a column"


def test_every_value_is_whole() -> None:
    counts = Counter(value.publication.title.split(":")[0].split(",")[0] for value in printed())
    assert sum(counts.values()) == 62 + 106 + 22 + 190 + 185 + 258
    for value in printed():
        assert value.where
        assert value.labels in ("hard", "soft", None)
        if value.metric != "rank_correlation":
            assert 0 <= value.mean < 1, value
        assert value.sd is None or 0 <= value.sd < 0.1


@pytest.mark.parametrize(
    ("dataset", "ipc", "method", "title", "mean"),
    [
        ("cifar10", 50, "dm", "BEARD", 0.6206),
        ("cifar10", 50, "dm", "DC-Bench, best", 0.6199),
        ("cifar10", 50, "dm", "FTD, quoted", 0.630),
        ("cifar10", 10, "ftd", "FTD", 0.666),
        ("cifar100", 50, "ftd", "NCFM, quoted", 0.485),
        ("cifar10", None, "full", "DATM, quoted", 0.848),
    ],
)
def test_values_are_those_printed(dataset: str, ipc: int | None, method: str, title: str, mean: float) -> None:
    found = by_title(dataset=dataset, ipc=ipc, method=method)
    assert found[title].mean == pytest.approx(mean, abs=1e-9)


def test_only_the_same_recipe_may_be_compared() -> None:
    found = by_title()
    assert {title for title, value in found.items() if not value.objections(ROW)} == {"BEARD"}
    assert {title for title, value in found.items() if not value.objections({**ROW, "protocol": "paper2023"})} == set()
    assert found["BEARD"].objections({**ROW, "protocol": "paper2023"}) == ["DSA's recipe, last epoch, one network"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget_fraction": 0.05}, "ours has 5 % of the iterations"),
        ({"label_kind": "soft"}, "labels are hard, ours soft"),
        ({"param": {"protocol_changes": {"epochs": 10}}}, "ours changes epochs"),
    ],
)
def test_what_ours_does_otherwise_is_said(changes: dict[str, Any], reason: str) -> None:
    assert by_title()["BEARD"].objections({**ROW, **changes}) == [reason]


def test_of_a_part_of_the_data_nobody_printed_anything() -> None:
    assert by_title(origin_per_class=400) == {}
    assert by_title(class_draw=0) == {}
    assert by_title(dataset="digits") == {}
    assert by_title(architecture="resnet18") == {}


def test_methods_of_ours_are_found_under_our_names() -> None:
    theirs = {value.method for value in printed()}
    assert {"random", "full", "herding", "dc", "dsa", "dm", "mtt", "idc", "ftd"} <= theirs & set(METHODS)


def test_the_table_says_what_may_be_compared() -> None:
    def cell(**changes: Any) -> dict[str, Any]:
        assert FIELD.cell_facts is not None
        facts: Any = FIELD.cell_facts(Cell(RowKey(("ipc",), (50,)), "dm", [{**ROW, **changes}]), None)  # type: ignore[arg-type]
        return {"elsewhere": facts, "accuracy": {"mean": 0.61, "sd": 0.01}, "test_images": 10_000}

    def text(**changes: Any) -> str:
        block = {"row_axes": ["ipc"], "rows": [{"ipc": 50, "cells": {"dm": cell(**changes)}}]}
        return markdown(FIELD.elements(block))

    assert f"62.06 {SAME}" in text()
    assert f"61.99 {SAME}" not in text()
    assert "61.99" in text()
    assert "BEARD: DSA's recipe, last epoch, one network." in text()
    other = text(protocol="idc", budget_fraction=0.5)
    assert SAME not in other
    assert "62.06" in other
    assert "50, DM: ours has 50 % of the iterations" in other
    assert "50, DM: BEARD: labels are hard, ours soft" in text(label_kind="soft")
    assert "65.2 ± 0.4" in text()
    assert text(dataset="digits") == "\n"


def test_a_publication_cannot_name_a_protocol_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="protocols"):
        Recipe(title="x", says="y", protocols=("nobody's",))
