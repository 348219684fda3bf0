"""Rows from what attacks did, checked against counts by hand and properties."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddray.measurements.columns import COLUMNS
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.evaluate.robustness.rows import robustness_rows
from trainables.payloads import AttackResult

Row = dict[str, Any]
LINF = (1 / 255, 2 / 255, 4 / 255, 8 / 255)


def result(
    name: str,
    epsilons: Sequence[float],
    success: Tensor,
    correct: Tensor,
    distance: Tensor | None = None,
    labels: Tensor | None = None,
) -> AttackResult:
    spec, n = ROBUSTNESS_ATTACKS[name], len(correct)
    assert (distance is not None) is spec.minimal
    facts = {
        "attack": name,
        "norm": spec.norm,
        "epsilons": list(epsilons),
        "settings": attack_settings(name),
        "library": spec.library,
        "library_version": "1.0",
        "zero_gradient_share": 0.25,
    }
    if labels is None:
        labels = torch.arange(n) % 2
    success = success.clone()
    success[:, ~correct] = True
    return AttackResult(torch.arange(n), labels, correct, success, distance, facts)


def from_distances(
    name: str, epsilons: Sequence[float], distance: Tensor, correct: Tensor, **other: Any
) -> AttackResult:
    """Success exactly where the distance fits."""
    distance = torch.where(correct, distance, 0.0)
    success = distance[None] <= torch.tensor(epsilons)[:, None]
    if not ROBUSTNESS_ATTACKS[name].minimal:
        return result(name, epsilons, success, correct, **other)
    return result(name, epsilons, success, correct, distance, **other)


def find(rows: list[Row], metric: str, **columns: Any) -> list[Row]:
    return [row for row in rows if row["metric"] == metric and all(row.get(k) == v for k, v in columns.items())]


def one(rows: list[Row], metric: str, **columns: Any) -> Row:
    (row,) = find(rows, metric, **columns)
    return row


@pytest.fixture
def by_hand() -> list[Row]:
    """Ten images of two classes, the last two misclassified; distances 1 … 8 in steps of 1/255, the 8 never found."""
    distance = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, torch.inf, 0, 0]) / 255
    correct = torch.tensor([True] * 8 + [False] * 2)
    return robustness_rows({"deepfool_linf": from_distances("deepfool_linf", LINF, distance, correct)}, 2)


def test_accuracies_by_hand(by_hand: list[Row]) -> None:
    for definition in ("clip", "norm"):
        found = {row["epsilon"]: row["value"] for row in find(by_hand, "adv_acc", adv_def=definition)}
        assert found == {0.0: 0.8, 1 / 255: 0.7, 2 / 255: 0.6, 4 / 255: 0.4, 8 / 255: 0.1}
        kept = {row["epsilon"]: (row["value"], row["n"]) for row in find(by_hand, "adv_acc_norm", adv_def=definition)}
        assert kept[2 / 255] == (0.75, 8)
        area = one(by_hand, "adv_auc", adv_def=definition)
        assert area["value"] == pytest.approx((0.75 * 1 + 0.65 * 1 + 0.5 * 2 + 0.25 * 4) / 8)
        assert one(by_hand, "adv_auc_norm", adv_def=definition)["value"] == pytest.approx(area["value"] / 0.8)


def test_distances_by_hand(by_hand: list[Row]) -> None:
    assert one(by_hand, "adv_dist_median")["value"] == pytest.approx(4.5 / 255)
    assert one(by_hand, "adv_dist_q10")["value"] == pytest.approx(1.7 / 255)
    mean = one(by_hand, "adv_dist_mean")
    assert (mean["value"], mean["flag"], mean["n"]) == (None, "not_converged", 8)
    assert one(by_hand, "adv_acc", epsilon=0.0, adv_def="clip")["converged_share"] == 7 / 8


def test_classes_by_hand(by_hand: list[Row]) -> None:
    row = one(by_hand, "adv_acc_class", epsilon=2 / 255, class_id=0)  # distances 1, 3, 5, 7; one misclassified
    assert (row["value"], row["n"], row["flag"]) == (0.6, 5, "low_resolution")
    assert one(by_hand, "adv_acc_worst_class", epsilon=8 / 255)["value"] == 0.0
    accuracies = (0.0, 0.2)
    assert one(by_hand, "adv_fair_var_acc", epsilon=8 / 255)["value"] == pytest.approx(np.var(accuracies))
    noise = np.mean([share * (1 - share) / 4 for share in accuracies])
    corrected = one(by_hand, "adv_fair_var_acc_corr", epsilon=8 / 255)["value"]
    assert corrected == pytest.approx(np.var(accuracies) - 0.5 * noise)


def test_rows_have_the_tables_columns_and_what_an_attack_was(by_hand: list[Row]) -> None:
    known = {column.name for column in COLUMNS}
    json.dumps(by_hand, allow_nan=False)
    for row in by_hand:
        assert {"property", "metric", "value", "unit", "n"} <= set(row) <= known
        assert row["property"] == "robustness"
        assert (row["attack"], row["norm"], row["attack_lib"]) == ("deepfool_linf", "linf", "foolbox")
        assert (row["attack_steps"], row["overshoot"], row["candidates"]) == (50, 0.02, 10)
        assert row["value"] is not None or row["flag"]
        if "ci_low" in row:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
            assert row["ci_unit"] == "images"
    assert all("ci_low" in row for row in find(by_hand, "adv_acc"))
    identity = [json.dumps({k: v for k, v in row.items() if k not in ("value",)}, sort_keys=True) for row in by_hand]
    assert len(set(identity)) == len(identity)


def test_many_images_of_a_class_are_not_flagged() -> None:
    correct = torch.ones(40, dtype=torch.bool)
    rows = robustness_rows({"fgsm": from_distances("fgsm", LINF, torch.linspace(0, 0.05, 40), correct)}, 2)
    assert all("flag" not in row for row in find(rows, "adv_acc_class"))


def test_what_is_unequal_between_classes_has_an_interval_about_the_images() -> None:
    """Shares of 0.9, 0.5 and 0.1 of a hundred images each; and where every draw is alike there is none."""
    right = torch.cat([torch.arange(100) < count for count in (90, 50, 10)])
    distance = torch.where(right, 5 / 255, 1 / 255)
    labels = torch.arange(3).repeat_interleave(100)
    found = from_distances("fgsm", LINF, distance, torch.ones(300, dtype=torch.bool))
    rows = robustness_rows({"fgsm": replace(found, labels=labels)}, 3)
    for metric in ("adv_acc_worst_class", "adv_fair_var_acc", "adv_fair_var_acc_corr"):
        row = one(rows, metric, epsilon=2 / 255)
        assert 0 <= row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["ci_method"], row["ci_unit"], row["ci_level"]) == ("bootstrap_recentred", "images", 0.95)
        assert "ci_low" not in one(rows, metric, epsilon=8 / 255), "nothing is left standing there"
    worst = one(rows, "adv_acc_worst_class", epsilon=2 / 255)
    assert worst["value"] == pytest.approx(0.1)
    assert worst["ci_high"] == pytest.approx(0.1 + 1.96 * (0.1 * 0.9 / 100) ** 0.5, abs=0.02)


def test_a_class_without_images_has_no_accuracy() -> None:
    correct = torch.ones(30, dtype=torch.bool)
    rows = robustness_rows({"fgsm": from_distances("fgsm", LINF, torch.linspace(0, 0.05, 30), correct)}, 3)
    missing = one(rows, "adv_acc_class", epsilon=2 / 255, class_id=2)
    assert (missing["value"], missing["n"], missing["flag"]) == (None, 0, "low_resolution")
    assert one(rows, "adv_acc_worst_class", epsilon=2 / 255)["value"] is None


def test_a_single_attack_has_no_ensemble(by_hand: list[Row]) -> None:
    assert find(by_hand, "adv_acc", attack="ensemble_fb") == []
    assert find(by_hand, "adv_gap_strong") == find(by_hand, "rr_beard") == []


booleans = st.lists(st.booleans(), min_size=12, max_size=12)


@settings(max_examples=30)
@given(
    correct=booleans,
    far=st.lists(st.floats(0, 0.05), min_size=12, max_size=12),
    near=st.lists(st.floats(0, 0.05), min_size=12, max_size=12),
    tried=st.lists(booleans, min_size=3, max_size=3),
)
def test_properties(correct: list[bool], far: list[float], near: list[float], tried: list[list[bool]]) -> None:
    """Of any results: monotone, clean at 0, the ensemble nowhere above a member, gaps never negative."""
    right = torch.tensor(correct)
    results = {
        "deepfool_linf": from_distances("deepfool_linf", LINF, torch.tensor(far), right),
        "fmn_linf": from_distances("fmn_linf", LINF, torch.tensor(near), right),
        "fgsm": result("fgsm", LINF, torch.tensor([*tried, tried[0]]), right),
        "pgd_linf": from_distances("pgd_linf", LINF[1:], torch.tensor(near), right),
    }
    rows = robustness_rows(results, 2)
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for row in find(rows, "adv_acc"):
        curves.setdefault((row["attack"], row["adv_def"]), {})[row["epsilon"]] = row["value"]
    for curve in curves.values():
        values = [curve[epsilon] for epsilon in sorted(curve)]
        assert values == sorted(values, reverse=True)
        assert values[0] == pytest.approx(float(right.double().mean()))
    for (_, definition), curve in curves.items():
        if definition == "clip":
            assert all(curves["ensemble_fb", "clip"][epsilon] <= value for epsilon, value in curve.items())
    assert all(row["value"] >= 0 for row in find(rows, "adv_gap_strong"))
    assert len(find(rows, "adv_gap_strong")) == len(LINF)


def test_the_ensemble_is_each_images_worst_case() -> None:
    correct = torch.ones(4, dtype=torch.bool)
    first = from_distances("deepfool_linf", LINF, torch.tensor([0.001, 1.0, 1.0, 1.0]), correct)
    second = result("pgd_linf", (2 / 255,), torch.tensor([[False, True, False, False]]), correct)
    rows = robustness_rows({"deepfool_linf": first, "pgd_linf": second}, 2)
    found = {row["epsilon"]: row["value"] for row in find(rows, "adv_acc", attack="ensemble_fb")}
    assert found == {0.0: 1.0, 1 / 255: 0.75, 2 / 255: 0.5, 4 / 255: 0.5, 8 / 255: 0.5}
    gap = one(rows, "adv_gap_strong")  # only where PGD was run
    assert (gap["epsilon"], gap["value"], gap["strong_attack"]) == (2 / 255, 0.25, "ensemble_fb")


def test_autoattack_is_the_strong_one_where_it_is() -> None:
    correct = torch.ones(4, dtype=torch.bool)
    results = {
        "deepfool_linf": from_distances("deepfool_linf", LINF, torch.tensor([0.001, 1.0, 1.0, 1.0]), correct),
        "fmn_linf": from_distances("fmn_linf", LINF, torch.tensor([0.001, 1.0, 1.0, 1.0]), correct),
        "autoattack": result("autoattack", (8 / 255,), torch.tensor([[True, True, True, False]]), correct),
    }
    gap = one(robustness_rows(results, 2), "adv_gap_strong")
    assert (gap["epsilon"], gap["value"], gap["strong_attack"]) == (8 / 255, 0.5, "autoattack")


def test_beards_ratio_and_what_is_wrong_with_it() -> None:
    """c = 0.6: attacks at 0.59, 0.59 give 0, and 0.5, 0.1 give 0.4, although the second model is far weaker."""
    correct = torch.arange(100) < 60
    for (first, second), expected in (((59, 59), 0.0), ((50, 10), 0.4)):
        results = {
            name: result(name, (8 / 255,), (torch.arange(100) >= count)[None], correct)
            for name, count in (("fgsm", first), ("pgd_linf", second))
        }
        row = one(robustness_rows(results, 2), "rr_beard")
        assert row["value"] == pytest.approx(expected)
        assert row["of_attacks"] == "fgsm+pgd_linf"
    nothing = {
        name: result(name, (8 / 255,), torch.zeros(1, 100, dtype=torch.bool), correct) for name in ("fgsm", "pgd_linf")
    }
    row = one(robustness_rows(nothing, 2), "rr_beard")
    assert (row["value"], row["flag"]) == (None, "degenerate")


@pytest.mark.parametrize("weaker", [True, False])
def test_pgd_weaker_than_one_step_raises_an_alarm(weaker: bool) -> None:
    correct = torch.ones(100, dtype=torch.bool)
    few, many = (torch.arange(100) < 20)[None], (torch.arange(100) < 60)[None]
    results = {
        "fgsm": result("fgsm", (8 / 255,), many if weaker else few, correct),
        "pgd_linf": result("pgd_linf", (8 / 255,), few if weaker else many, correct),
    }
    row = one(robustness_rows(results, 2), "adv_pgd_weaker_than_fgsm")
    assert row["value"] == pytest.approx(0.4 if weaker else -0.4)
    assert row.get("flag") == ("not_converged" if weaker else None)


def test_different_images_are_not_mixed() -> None:
    correct = torch.ones(6, dtype=torch.bool)
    distance = torch.linspace(0, 0.1, 6)
    results = {
        "fgsm": from_distances("fgsm", LINF, distance, correct),
        "deepfool_linf": from_distances("deepfool_linf", LINF, distance[:5], correct[:5]),
    }
    with pytest.raises(ValueError, match="fgsm and deepfool_linf were about different images"):
        robustness_rows(results, 2)
    with pytest.raises(ValueError, match="no attack"):
        robustness_rows({}, 2)


def test_the_clean_row_depends_on_no_attack() -> None:
    correct = torch.rand(50, generator=torch.Generator().manual_seed(0)) > 0.3
    for distance in (torch.zeros(50), torch.full((50,), torch.inf)):
        rows = robustness_rows({"deepfool_l2": from_distances("deepfool_l2", (0.5,), distance, correct)}, 2)
        for definition in ("clip", "norm"):
            row = one(rows, "adv_acc", epsilon=0.0, adv_def=definition)
            assert row["value"] == pytest.approx(float(correct.double().mean()))
