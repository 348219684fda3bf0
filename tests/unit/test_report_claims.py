"""Every claim of the paper, on cells whose truth is known: both ways, unknown, and absent."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddray.measurements.reading import Numbers
from ddray.report.comparable import Cell, RowKey
from ddray.report.sections.claims import CLAIMS, PARTIAL, Contrast, Mean, _less, claims, claims_table, judged

PLACE: dict[str, Any] = {
    "dataset": "cifar10",
    "num_classes": 10,
    "class_draw": None,
    "origin_per_class": None,
    "origin_draw": None,
    "architecture": "convnet3",
    "protocol": "paper2023",
    "train_aug": "dsa",
    "labels": None,
    "ipc": 10,
    "init": "real",
    "distill_aug": "dsa",
    "method": "dm",
    "budget_fraction": 1.0,
}
Rows = list[tuple[dict[str, Any], dict[str, float]]]


def measured(rows: Rows, sets: int = 4, scatter: float = 0.001, **all_of: Any) -> Any:
    """Cells with these numbers, each of several sets of one training; as a report would read them."""
    rng, numbers, cells = np.random.default_rng(0), Numbers(), []
    for number, (place, values) in enumerate(rows):
        points = []
        for at in range(sets):
            point = {**PLACE, **place, **all_of, "point": f"{number}.{at}", "distill_seed": at, "seed": 0}
            point["value"] = values.get("test_acc", 0.5) + rng.normal(0, scatter)
            points.append(point)
            for metric, value in values.items():
                drawn = value + rng.normal(0, scatter)
                if metric in ("mia_auc_strongest", "adv_acc"):
                    row = {
                        "point": point["point"],
                        "value": drawn,
                        "audit": "seed",
                        "nonmember_source": "test_balanced",
                    }
                    row |= {"param": {}, "attack": "deepfool_l2", "adv_def": "clip", "epsilon": 0.5}
                    numbers.rows[metric][point["point"]].append(row)
                else:
                    numbers.plain[metric][point["point"]] = drawn
        cells.append(Cell(RowKey(("ipc",), (points[0]["ipc"],)), points[0]["method"], points))
    return SimpleNamespace(blocks=[SimpleNamespace(own_cells=cells)], numbers=numbers)


def of(**place: Any) -> dict[str, Any]:
    return place


Made = Callable[[float], Rows]
"""Of the size of an effect, in the claim's direction."""
WORLDS: dict[str, Made] = {
    "C1": lambda by: [
        (of(ipc=1), {"fair_amplification": 1 + 2 * by}),
        (of(ipc=10), {"fair_amplification": 1 + by}),
    ],
    "C2": lambda by: [
        (of(origin_per_class=40), {"mia_auc_strongest": 0.7 + by}),
        (of(origin_per_class=80), {"mia_auc_strongest": 0.7}),
    ],
    "C4": lambda by: [(of(ipc=1), {"test_acc": 0.5}), (of(ipc=10), {"test_acc": 0.5 + by})],
    "C5": lambda by: [(of(method="idc"), {"test_acc": 0.5 + by}), (of(method="dm"), {"test_acc": 0.5})],
    "C8": lambda by: [
        (of(), {"test_acc": 0.5 + by}),
        (of(architecture="resnet18"), {"test_acc": 0.5}),
    ],
    "C10": lambda by: [
        (of(origin_per_class=40), {"mia_auc_strongest": 0.7 + by}),
        (of(origin_per_class=80), {"mia_auc_strongest": 0.7}),
    ],
    "C11": lambda by: [
        (of(init="real"), {"mia_auc_strongest": 0.7 + by}),
        (of(init="noise"), {"mia_auc_strongest": 0.7}),
    ],
    "C12": lambda by: [
        (of(method="idc"), {"mia_auc_strongest": 0.7 + by}),
        (of(method="dm"), {"mia_auc_strongest": 0.7}),
        (of(method="mtt"), {"mia_auc_strongest": 0.9}),
    ],
    "C13": lambda by: [
        (of(num_classes=2), {"mia_auc_strongest": 0.7}),
        (of(num_classes=5), {"mia_auc_strongest": 0.7 + by}),
    ],
    "C14": lambda by: [(of(ipc=1), {"fair_var_loss": 0.5 + by}), (of(ipc=10), {"fair_var_loss": 0.5})],
    "C15": lambda by: [(of(method="mtt"), {"fair_var_loss": 0.5}), (of(method="dm"), {"fair_var_loss": 0.5 + by})],
    "C16": lambda by: [
        (of(method="dsa", ipc=1), {"fair_var_acc_corr": 0.5, "test_acc": 0.3}),
        (of(method="dm", ipc=1), {"fair_var_acc_corr": 0.5 + by, "test_acc": 0.3 + by}),
    ],
    "C17": lambda by: [(of(), {"fair_hardness_slope": 1 + by})],
    "C20": lambda by: [(of(train_aug="dsa"), {"adv_acc": 0.5 + by}), (of(train_aug="none"), {"adv_acc": 0.5})],
}


def verdict(of_claim: str, world: Any) -> dict[str, Any]:
    (found,) = [entry for entry in claims(world, {}) if entry["id"] == of_claim]
    return found


def test_every_claim_that_can_be_tested_is_tested() -> None:
    assert WORLDS.keys() == {claim.id for claim in CLAIMS if claim.contrasts is not None}
    assert [claim.id for claim in CLAIMS] == [f"C{number}" for number in range(1, 21)]
    assert all(claim.note for claim in CLAIMS if claim.contrasts is None), "what cannot be tested says why"


@pytest.mark.parametrize("claim", WORLDS)
def test_a_claim_is_judged_both_ways(claim: str) -> None:
    assert verdict(claim, measured(WORLDS[claim](0.1)))["verdict"] == "supported"
    assert verdict(claim, measured(WORLDS[claim](-0.1)))["verdict"] == "contradicted"
    assert verdict(claim, measured(WORLDS[claim](0.001), scatter=0.05))["verdict"] == "undecided"


@pytest.mark.parametrize("claim", WORLDS)
def test_one_set_decides_nothing_and_parts_of_a_budget_are_left_out(claim: str) -> None:
    alone = verdict(claim, measured(WORLDS[claim](0.1), sets=1))
    assert (alone["verdict"], alone["judged"]) == ("undecided", 0)
    assert alone["contrasts"] > 0
    partial = verdict(claim, measured(WORLDS[claim](0.1), budget_fraction=0.5))
    assert partial["verdict"] == "not run"
    assert PARTIAL in partial["note"]
    assert verdict(claim, measured([(of(method="full"), {"test_acc": 0.9})]))["verdict"] == "not run"


def test_one_cell_that_is_not_judged_keeps_a_claim_open() -> None:
    several, one = measured(WORLDS["C4"](0.1)), measured(WORLDS["C4"](0.1), sets=1, dataset="cifar100")
    several.blocks += one.blocks
    for point in (point for cell in one.blocks[0].own_cells for point in cell.points):
        point["point"] += "b"
    found = verdict("C4", several)
    assert (found["verdict"], found["contrasts"], found["judged"], found["above"]) == ("undecided", 2, 1, 1)


def test_protocols_are_counted_each_for_itself() -> None:
    good, bad = measured(WORLDS["C4"](0.1)), measured(WORLDS["C4"](0.0005), scatter=0.05, protocol="dc300")
    good.blocks += bad.blocks
    for point in (point for cell in bad.blocks[0].own_cells for point in cell.points):
        point["point"] += "b"
    assert verdict("C4", good)["protocols"] == [2, 1]


def test_a_claim_without_an_effect_is_rarely_decided() -> None:
    """Over 400 made-up sweeps of two contrasts without any effect: decided in 5 % at most, by chance in 8 %."""
    rng = np.random.default_rng(1)
    decided = 0
    for _ in range(400):
        contrasts = []
        for at in range(2):
            one, other = rng.normal(0.5, 0.02, 4), rng.normal(0.5, 0.02, 4)
            means = [Mean(float(each.mean()), float(each.var(ddof=1) / 4), 3) for each in (one, other)]
            contrasts.append(_less(f"{at}", "p", *means))
        decided += judged(contrasts)["verdict"] in ("contradicted", "supported")
    assert decided <= 0.08 * 400


def test_the_table_shows_what_a_verdict_rests_on() -> None:
    entries = claims(measured(WORLDS["C4"](0.1)), {})
    text = claims_table(entries).markdown()
    (line,) = [line for line in text.splitlines() if line.startswith("| C4 ")]
    assert "supported" in line
    assert "1 above 0 of 1" in line
    assert "ipc 1 to 10" in line
    assert "points" in line
    assert all(f"| {claim.id} " in text for claim in CLAIMS)


def test_a_contrast_without_scatter_has_no_interval() -> None:
    assert Contrast("w", "p", 0.1, None).ends(0.95) is None
