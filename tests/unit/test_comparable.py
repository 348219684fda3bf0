"""A result may stand beside the paper's where its settings are what the paper and the methods' authors state."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from workspace import Workspace

from ddray.measurements.identity import POINT, PointColumns, constants_name
from ddray.measurements.references import CHEN2023
from ddray.plan.graph import Chain
from ddray.report.beside_paper import BesidePaper
from trainables.configs import DistillConfig, ExpertConfig, TrainConfig
from trainables.protocols import PROTOCOLS

Chains = Callable[..., list[Chain]]
Objections = Callable[..., list[str]]

MTT = {
    # as MTT's authors give them, and as Chen et al. 2023 take them with ZCA off (appendix A)
    ("cifar10", 1): {"syn_steps": 50, "match_snapshots": 2, "max_start": 2, "lr_img": 1e2, "lr_lr": 1e-7},
    ("cifar10", 10): {"syn_steps": 30, "match_snapshots": 2, "max_start": 20, "lr_img": 1e2, "lr_syn": 1e-3},
    ("cifar10", 50): {"syn_steps": 30, "match_snapshots": 2, "max_start": 40, "lr_img": 1e3, "lr_syn": 1e-3},
    ("cifar100", 1): {"syn_steps": 20, "match_snapshots": 3, "max_start": 20, "lr_img": 1e3, "lr_syn": 0.01},
    ("cifar100", 10): {"syn_steps": 20, "match_snapshots": 2, "max_start": 20, "lr_img": 1e3, "lr_syn": 0.01},
    ("cifar100", 50): {"syn_steps": 80, "match_snapshots": 2, "max_start": 40, "batch_syn": 125, "lr_img": 1e3},
}
BORROWED = {
    # what stood in their place without ZCA: another paper's values, or the neighbour's
    ("cifar10", 1): {"max_start": 5, "lr_img": 1e3},
    ("cifar10", 10): {"max_start": 15, "lr_img": 1e3, "lr_syn": 0.01},
    ("cifar10", 50): {"max_start": 20, "lr_img": 1e2},
    ("cifar100", 1): {"match_snapshots": 2},
    ("cifar100", 10): {"match_snapshots": 3},
    ("cifar100", 50): {"syn_steps": 20, "max_start": 20, "batch_syn": None},
}


@pytest.fixture
def chains(workspace: Workspace) -> Chains:
    """Axes, settings of the method and declared data sets -> the chains of such a sweep, by the paper's recipe."""

    def make(
        method: str, dataset: str, ipc: int, settings: Any = None, datasets: Any = None, **more: Any
    ) -> list[Chain]:
        axes = {"method": [method], "dataset": [dataset], "ipc": [ipc], "seed": [0]}
        content = {"ddray": 1, "datasets": datasets or {}, "grids": {"g": {"axes": axes, **more}}}
        if settings:
            content["grids"]["g"]["settings"] = {method: settings}
        return workspace.prepare(workspace.write("s", json.dumps(content))).plan.chains

    return make


def row_of(chain: Chain) -> dict[str, Any]:
    columns = PointColumns()
    param = columns.param(chain)
    return {**dict(zip(POINT, columns.values(chain, None, None), strict=True)), "param": json.loads(param or "{}")}


@pytest.fixture
def objections(chains: Chains) -> Objections:
    def make(*what: Any, **more: Any) -> list[str]:
        (chain,) = chains(*what, **more)
        return CHEN2023.objections(row_of(chain))

    return make


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", list(MTT), ids=str)
def test_a_cell_of_mtt_stands_beside_the_paper_with_the_papers_values_alone(
    cell: tuple[str, int], objections: Objections
) -> None:
    assert objections("mtt", *cell) == []
    assert objections("mtt", *cell, MTT[cell]) == []
    (said,) = objections("mtt", *cell, BORROWED[cell])
    assert said.startswith("settings ")
    assert set(said.removeprefix("settings ").split(", ")) == {
        f"{name}={json.dumps(value)}" for name, value in BORROWED[cell].items()
    }


def test_an_alternative_preset_is_an_objection_where_it_differs(chains: Chains, objections: Objections) -> None:
    assert objections("mtt", "cifar10", 1, {"preset": "mct"}) == ["settings lr_img=1000.0, max_start=5"]
    assert objections("mtt", "cifar10", 50, {"preset": "mct"}) == [], "MCT gives the authors' values there"
    assert objections("mtt", "cifar10", 10, {"zca": True}) == ["settings zca=true"]
    (named,) = chains("mtt", "cifar10", 1, {"preset": "mct"})
    (spelled,) = chains("mtt", "cifar10", 1, {"max_start": 5, "lr_img": 1000})
    assert [stage.key for stage in named.all_stages] == [stage.key for stage in spelled.all_stages]
    assert row_of(named)["param"]["preset"] == "mct"
    assert named.point.hash != spelled.point.hash


@pytest.mark.parametrize(
    ("method", "dataset", "ipc", "borrowed"),
    [
        ("mtt", "cifar10", 20, "batch_syn, lr_img, lr_lr, lr_syn, match_snapshots, max_start, syn_steps"),
        ("mtt", "cifar100", 20, "batch_syn, lr_img, lr_lr, lr_syn, match_snapshots, max_start, syn_steps"),
        ("dm", "cifar10", 20, "lr_img"),
        ("dsa", "cifar10", 100, "loops"),
    ],
)
def test_a_neighbours_value_is_an_objection_that_says_whose(
    method: str, dataset: str, ipc: int, borrowed: str, objections: Objections
) -> None:
    """Also where the sweep spells it out: no source states it for this cell."""
    (said,) = objections(method, dataset, ipc)
    names, _, whose = said.partition(" (")
    assert ", ".join(sorted(names.split(", "))) == borrowed
    assert "none published for" in whose or whose.endswith("issue #2, not Chen et al. 2023)")
    if method == "dm":
        assert objections(method, dataset, ipc, {"lr_img": 1.0}) == [said]
        assert objections(method, dataset, ipc, {"lr_img": 2.0}) == ["settings lr_img=2.0"]


@pytest.mark.parametrize("method", ["dsa", "dm", "idc"])
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_what_authors_and_paper_state_is_comparable(
    method: str, dataset: str, ipc: int, objections: Objections
) -> None:
    assert objections(method, dataset, ipc) == []


# --- constants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "program"), [("mtt", "cifar10"), ("idc", "cifar10"), ("dm", "cifar100")])
def test_images_of_cifar100_are_normalised_as_by_the_methods_program(
    method: str, program: str, chains: Chains, objections: Objections
) -> None:
    """Everywhere: experts, distillation, training. What is said by name holds; the other constants are an objection."""
    other = {"cifar10": "cifar100", "cifar100": "cifar10"}[program]
    (chain,) = chains(method, "cifar100", 10)
    assert normalised(chain) == {program}
    assert row_of(chain)["constants"] == program
    for constants, said in (
        (program, []),
        (other, [f"normalised with the constants of {other}, {method.upper()}'s program with {program}'s"]),
    ):
        declared = {"named": {"like": "cifar100", "constants": constants}}
        (spelled,) = chains(method, "named", 10, datasets=declared)
        assert normalised(spelled) == {row_of(spelled)["constants"]} == {constants}
        assert [text.partition(" (")[0] for text in objections(method, "named", 10, datasets=declared)] == said


def normalised(chain: Chain) -> set[str | None]:
    """Whose constants the experts, sets and networks of a chain see images with."""
    configs = [stage.config for stage in chain.all_stages]
    datasets = [each.dataset for each in configs if isinstance(each, ExpertConfig | DistillConfig | TrainConfig)]
    return {constants_name("cifar100", dataset.mean, dataset.std) for dataset in datasets}


def test_other_methods_and_the_full_data_keep_the_data_sets_own_constants(chains: Chains) -> None:
    for method in ("random", "full", "dsa", "dc"):
        (chain,) = chains(method, "cifar100", 10)
        assert row_of(chain)["constants"] == "cifar100"


def test_sets_that_are_normalised_otherwise_share_a_map(workspace: Workspace) -> None:
    text = """
    ddray: 1
    grids:
      g:
        axes: {method: [dm, idc], dataset: [cifar100], ipc: [10], seed: [0]}
        evaluations: {embedding: {}}
    """
    chains = workspace.prepare(workspace.write("s", text)).plan.chains
    assert len({chain.stages[-1].key for chain in chains if chain.stages[-1].kind == "tsne"}) == 1


def test_a_folder_of_ones_own_is_not_the_papers_data(objections: Objections) -> None:
    declared = {"small": {"like": "cifar100", "resize": 16}}
    assert objections("mtt", "small", 10, datasets=declared) == ["no such cell in the paper"]


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_every_recipe_that_the_paper_allows_stands_beside_it_and_no_other(objections: Objections) -> None:
    family = (CHEN2023.protocol, *CHEN2023.admissible)
    for protocol, known in PROTOCOLS.items():
        if known.recipe.private is not None:  # no set is trained by it
            continue
        said = objections("mtt", "cifar10", 10, protocol=protocol)
        assert said == ([] if protocol in family else [f"protocol {protocol}"])
    recipes = [PROTOCOLS[name].recipe for name in family]
    assert {recipe.epochs for recipe in recipes} == {2000}
    assert {(recipe.augmentation, recipe.learned_lr) for recipe in recipes} == {
        (augmentation, rate) for augmentation in ("dsa", "idc") for rate in ("own_network", "never")
    }


def test_the_report_names_the_recipe_that_stands_for_the_papers_and_the_others() -> None:
    cell = {"paper": {"mean": 0.5, "sd": None}, "objections": []}
    for protocol, role in (
        ("paper2023", "paper2023 is the one that stands for it. Admissible too"),
        ("paper2023_idc", "paper2023_idc is another one; paper2023 stands for it. Admissible"),
    ):
        block = {
            "protocol": protocol,
            "row_axes": ["ipc"],
            "methods": ["dm"],
            "rows": [{"ipc": 1, "cells": {"dm": cell}}],
        }
        notes = " ".join(map(str, BesidePaper(block, "Table 3").notes))
        assert role in notes
        assert all(name in notes for name in CHEN2023.admissible)
