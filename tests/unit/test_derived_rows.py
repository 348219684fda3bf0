"""What is derived from several points: compared with the right ones, by hand, and absent where those are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.point_records import Numbers, metrics, recorded, rows

from ddray.measurements.derived.driver import once
from ddray.measurements.derived.frontier import frontier
from ddray.measurements.derived.persistence import of_mean
from ddray.measurements.derived.records import PRIMARY_ADVERSARY, PointRecord
from ddray.measurements.derived.relative_accuracy import dd_score, relative_accuracy
from ddray.measurements.derived.retention import hardness, retention
from ddray.measurements.derived.transfer import transfer
from ddray.plan.points import GridPoint

SWEEP = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: METHODS, dataset: [cifar10], ipc: IPC, seed: [0, 1], distill_seed: [0, 1] MORE}
    settings: {dm: {iterations: 200}}
"""
Of = Callable[[GridPoint], Numbers | None]


def sweep(methods: str = "[random, dm, full]", ipc: str = "[1]", more: str = "") -> str:
    return SWEEP.replace("METHODS", methods).replace("IPC", ipc).replace("MORE", more)


def told(point: GridPoint) -> float:
    """Accuracies that are all different, and rise with method, ipc and seeds."""
    base = {"random": 0.2, "full": 0.8}.get(point.method, 0.4)
    return base + 0.001 * (point.ipc or 0) + 0.02 * (point.distill_seed or 0) + 0.01 * point.seed


# --- against the full data and random images --------------------------------------------------------------------------


def test_relative_accuracies_by_hand(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep(), lambda point: {"accuracy": told(point)})
    relative_accuracy(points)
    at: dict[str, Any] = {"method": "dm", "distill_seed": 1, "seed": 1}
    ours, random, full = 0.431, 0.231, (0.80 + 0.81) / 2
    expected = {
        "acc_over_full": ours / full,
        "ior": ours - random,
        "dd_ior": ours - random,
        "recovery": (ours - random) / (full - random),
        "dd_hlr": full - ours,
        "dd_lrs": dd_score(((ours - random) - (full - ours)) / 2),
    }
    for metric, value in expected.items():
        (row,) = rows(points, metric, **at)
        assert row["value"] == pytest.approx(value), metric
        assert "flag" not in row
        assert row["n"] == 1000
    assert rows(points, "acc_over_full", method="dm", seed=0)[0]["n_agg"] == 2
    assert len(rows(points, "acc_over_full", method="random")) == 4
    assert rows(points, "ior", method="random") == []
    assert metrics(point for point in points if point.method == "full") == set()
    assert rows(points, "dd_ars") == []


def test_points_are_paired_with_random_images_of_the_same_seeds(tmp_path: Path) -> None:
    """A pair that is not finished is not replaced by another."""

    def numbers(point: GridPoint) -> Numbers | None:
        gone = point.method == "random" and (point.distill_seed, point.seed) == (1, 0)
        return None if gone else {"accuracy": told(point)}

    points = recorded(tmp_path, sweep(), numbers)
    relative_accuracy(points)
    assert len(rows(points, "ior", method="dm")) == 3
    assert rows(points, "ior", method="dm", distill_seed=1, seed=0) == []
    assert len(rows(points, "dd_hlr", method="dm")) == 4


def test_without_the_counterpart_there_is_no_row(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep("[dm]"), lambda point: {"accuracy": told(point)})
    for derive in (relative_accuracy, retention, frontier, transfer):
        derive(points)
    assert metrics(points) == set()


@pytest.mark.parametrize("split", ["train_aug: [dsa, none]", "origin_per_class: [null, 20]", "num_classes: [null, 3]"])
def test_other_blocks_are_never_compared(tmp_path: Path, split: str) -> None:
    """Full data and random images of another recipe or origin are none of a point's business."""
    axis = split.partition(":")[0]

    def only(side: Callable[[Any], bool]) -> Of:
        def numbers(point: GridPoint) -> Numbers | None:
            first = getattr(point, axis) in (None, "dsa")
            return {"accuracy": told(point)} if point.method == "dm" or side(first) else None

        return numbers

    points = recorded(tmp_path, sweep(more=f", {split}"), only(lambda first: first))
    relative_accuracy(points)
    with_rows = [point for point in points if point.distilled and point.derived]
    assert {getattr(point.chain.point, axis) in (None, "dsa") for point in with_rows} == {True}
    assert len(with_rows) == 4
    everything = recorded(tmp_path, sweep(more=f", {split}"), only(lambda first: True))
    relative_accuracy(everything)
    assert len(rows(everything, "ior", method="dm")) == 8


def test_ars_needs_both_augmentations(tmp_path: Path) -> None:
    def accuracy(point: GridPoint) -> float:
        return told(point) - (0.1 if point.train_aug == "none" else 0.0) * (2 if point.method == "dm" else 1)

    text = sweep(more=", train_aug: [dsa, none]")
    points = recorded(tmp_path, text, lambda point: {"accuracy": accuracy(point)})
    relative_accuracy(points)
    found = rows(points, "dd_ars")
    assert len(found) == 4
    assert all(row["value"] == pytest.approx(dd_score((0.2 + 0.1) / 2)) for row in found)
    assert rows(points, "dd_ars", train_aug="none") == []
    assert len(rows(points, "ior", method="dm")) == 8


def test_comparisons_of_unequal_steps_say_so(tmp_path: Path) -> None:
    def numbers(point: GridPoint) -> Numbers:
        steps = {"full": 5000, "random": 100}.get(point.method, 100 + point.seed * 2)
        return {"accuracy": told(point), "steps": steps}

    points = recorded(tmp_path, sweep(), numbers)
    relative_accuracy(points)
    assert [row.get("flag") for row in rows(points, "ior", method="dm", distill_seed=0)] == [None, "unequal_steps"]
    assert {row.get("flag") for row in rows(points, "acc_over_full")} == {"unequal_steps"}
    assert all(row["value"] is not None for row in rows(points, "recovery"))


def test_what_has_no_meaning_has_no_value(tmp_path: Path) -> None:
    """Random images that are as good as everything leave nothing to recover."""
    points = recorded(tmp_path, sweep(), lambda point: {"accuracy": 0.0 if point.method != "dm" else 0.3, "steps": 1})
    relative_accuracy(points)
    for metric in ("recovery", "acc_over_full"):
        assert {(row["value"], row["flag"]) for row in rows(points, metric, method="dm")} == {(None, "degenerate")}
    assert {row["value"] for row in rows(points, "ior")} == {0.3}


# --- fairness ---------------------------------------------------------------------------------------------------------

STAR = np.array([0.5, 0.9, 0.7, 0.8, 0.6])


def with_classes(of: Callable[[GridPoint], Any]) -> Of:
    def numbers(point: GridPoint) -> Numbers:
        classes = np.asarray(of(point), dtype=float)
        return {"accuracy": float(classes.mean()), "classes": classes.tolist()}

    return numbers


def squared(point: GridPoint) -> Any:
    """Two full-data models around STAR; the method squares it: hard classes lose more."""
    return STAR + (0.01 if point.seed else -0.01) if point.method == "full" else STAR**2


def test_retention_and_its_ranks_by_hand(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep("[dm, full]"), with_classes(squared))
    retention(points)
    found = rows(points, "fair_retention_c", distill_seed=0, seed=0)
    assert [row["value"] for row in found] == pytest.approx(STAR.tolist())
    assert [row["class_id"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["class_rank"] for row in found] == [5, 1, 3, 2, 4], "1 is the full data's best class"
    assert {row["n"] for row in found} == {200}
    expected = {
        "fair_retention_min": 0.5,
        "fair_retention_std": STAR.std(),
        "fair_hardness_rho": 1.0,
        "fair_hardness_slope": 2.0,
        "fair_amplification": ((STAR**2).std() / (STAR**2).mean())
        / np.mean([STAR.std() / (STAR.mean() + step) for step in (-0.01, 0.01)]),
    }
    for metric, value in expected.items():
        (row,) = rows(points, metric, distill_seed=0, seed=0)
        assert row["value"] == pytest.approx(value), metric
        assert row["n_agg"] == 2
    assert rows(points, "fair_retention_c", method="full") == []


def test_every_class_has_as_many_images_as_it_has(tmp_path: Path) -> None:
    """SVHN's classes are not equally large."""
    unequal = [400, 100, 300, 150, 50]
    of = with_classes(squared)
    points = recorded(tmp_path, sweep("[dm, full]"), lambda point: {**of(point), "class_images": unequal})
    retention(points)
    assert [row["n"] for row in rows(points, "fair_retention_c", distill_seed=0, seed=0)] == unequal


def test_a_class_that_the_full_data_never_get_right_has_no_retention(tmp_path: Path) -> None:
    never = STAR * (np.arange(5) > 0)
    points = recorded(tmp_path, sweep("[dm, full]"), with_classes(lambda point: never if point.ipc is None else STAR))
    retention(points)
    found = rows(points, "fair_retention_c", distill_seed=0, seed=0)
    assert (found[0]["value"], found[0]["flag"]) == (None, "degenerate")
    assert [row["value"] for row in found[1:]] == pytest.approx([1, 1, 1, 1])
    (lowest,) = rows(points, "fair_retention_min", distill_seed=0, seed=0)
    assert (lowest["value"], lowest["n"]) == (pytest.approx(1.0), 4)
    for metric in ("fair_hardness_rho", "fair_hardness_slope", "fair_hardness_p"):
        assert {row["flag"] for row in rows(points, metric)} == {"degenerate"}


def test_the_test_of_hardness_is_made_once_per_method(tmp_path: Path) -> None:
    """On what all its seeds average to: trainings are no independent tests of a method."""
    points = recorded(tmp_path, sweep(ipc="[1, 2]"), with_classes(squared))
    retention(points)
    found, corrected = rows(points, "fair_hardness_p"), rows(points, "fair_hardness_p_adjusted")
    assert len(found) == len(corrected) == 4, "random and dm at two ipc"
    assert {(row["agg"], row["n_agg"], row["n"]) for row in found} == {("mean_seeds", 2, 5)}
    assert [row["value"] for row in found] == pytest.approx([2 / 120] * 4)
    assert all(q["value"] >= p["value"] for p, q in zip(found, corrected, strict=True))
    four = recorded(tmp_path, sweep("[dm, full]"), with_classes(lambda point: squared(point)[:4]))
    retention(four)
    assert {(row["value"], row["flag"]) for row in rows(four, "fair_hardness_p")} == {(None, "low_resolution")}


def test_the_noise_of_the_reference_does_not_make_classes_hard() -> None:
    """All classes keep the same share, so nothing is lost in hard classes; the noise of the full-data models, which
    stands on both sides of the correlation, says otherwise unless the two sides come from different models."""
    random, coupled, apart = np.random.default_rng(3), [], []
    for _ in range(400):
        models = 0.8 + random.normal(0, 0.02, (4, 10))
        point = 0.4 + random.normal(0, 0.02, (1, 10))
        coupled.append(hardness(models[:1], point)[0])
        apart.append(hardness(models, point)[0])
    error = np.std(apart) / 20
    assert np.mean(coupled) < -10 * error
    assert abs(np.mean(apart)) < 3 * error


def test_variances_of_the_mean_are_below_the_mean_of_variances(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    points = recorded(tmp_path, sweep(), with_classes(lambda point: np.clip(STAR + random.normal(0, 0.1, 5), 0, 1)))
    of_mean(points)
    found = rows(points, "fair_var_acc_of_mean")
    assert len(found) == 2 * 2 + 1, "one per set, on its first point; the full data are one"
    assert {(row["n_agg"], row["agg"]) for row in found} == {(2, "mean_seeds")}
    first, second = (point for point in points if point.method == "dm" and point.chain.point.distill_seed == 0)
    both = np.array([first.class_accuracies, second.class_accuracies])
    (row,) = rows([first], "fair_var_acc_of_mean")
    assert row["value"] == pytest.approx(both.mean(axis=0).var())
    assert row["value"] < both.var(axis=1).mean()
    assert rows([first], "fair_var_loss_of_mean")[0]["value"] == 0


# --- networks ---------------------------------------------------------------------------------------------------------

NETWORKS = ", architecture: [convnet3, resnet18, vgg16]"


def of_network(point: GridPoint) -> Numbers:
    return {"accuracy": told(point) * {"convnet3": 1.0, "resnet18": 0.8, "vgg16": 0.5}[point.architecture]}


def test_what_other_networks_keep(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep("[dm]", more=NETWORKS), of_network)
    transfer(points)
    assert [row["value"] for row in rows(points, "xarch_retention", architecture="vgg16")] == pytest.approx([0.5] * 4)
    assert rows(points, "xarch_retention", architecture="convnet3") == []
    means, worst = rows(points, "xarch_mean"), rows(points, "xarch_worst")
    assert [row["value"] for row in means] == pytest.approx([0.65, 0.65]), "one per set"
    assert [row["value"] for row in worst] == pytest.approx([0.5, 0.5])
    assert {(row["n"], row["n_agg"], row["agg"]) for row in means} == {(2, 2, "mean_seeds")}
    assert all(rows([point], "xarch_mean") == [] for point in points if point.chain.point.architecture != "convnet3")


def test_a_set_that_no_seed_made_is_compared_with_all_draws(tmp_path: Path) -> None:
    """Herding has no distill_seed: the mean over both draws of random images, not the first."""
    points = recorded(tmp_path, sweep("[random, herding, full]"), lambda point: {"accuracy": told(point)})
    relative_accuracy(points)
    found = rows(points, "ior", method="herding", seed=1)
    assert [row["value"] for row in found] == [pytest.approx((0.401 + 0.01) - (0.201 + 0.01 + 0.01))]


def test_retention_needs_the_same_set_and_seed(tmp_path: Path) -> None:
    def numbers(point: GridPoint) -> Numbers | None:
        gone = point.architecture == "convnet3" and (point.distill_seed, point.seed) != (0, 1)
        return None if gone else of_network(point)

    points = recorded(tmp_path, sweep("[dm]", more=NETWORKS), numbers)
    transfer(points)
    found = rows(points, "xarch_retention")
    assert len(found) == 2
    assert found == rows(points, "xarch_retention", distill_seed=0, seed=1)


FIVE = "[dsa, dm, mtt, idc, dc, random, full]"
_BY_METHOD = {"dsa": 0.1, "dm": 0.2, "mtt": 0.3, "idc": 0.4, "dc": 0.5, "random": 0.05, "full": 0.9}


def test_the_ranking_of_methods_between_networks(tmp_path: Path) -> None:
    text = sweep(FIVE, more=", architecture: [convnet3, vgg16]").replace("settings: {dm: {iterations: 200}}", "")

    def numbers(kept: bool) -> Of:
        def of(point: GridPoint) -> Numbers:
            value = _BY_METHOD[point.method] + 0.001 * point.seed
            return {"accuracy": value if kept or point.architecture == "convnet3" else 1 - value}

        return of

    for kept, tau in ((True, 1.0), (False, -1.0)):
        points = recorded(tmp_path, text, numbers(kept))
        transfer(points)
        (row,) = rows(points, "xarch_kendall_tau")
        assert row["value"] == tau
        assert (row["n"], row["agg"], row["architectures"]) == (5, "pooled", ["convnet3", "vgg16"])
        for metric in ("xarch_kendall_p", "xarch_kendall_p_adjusted"):
            (row,) = rows(points, metric)
            assert row["value"] == pytest.approx(2 / 120)
    four = recorded(tmp_path, text.replace("mtt, ", ""), numbers(True))
    transfer(four)
    assert [(row["value"], row["flag"]) for row in rows(four, "xarch_kendall_p")] == [(None, "low_resolution")]


def test_settings_of_one_method_are_no_further_methods(tmp_path: Path) -> None:
    """Its starts and augmentations would agree with themselves on any two networks, and count as many methods."""
    more = ", architecture: [convnet3, vgg16], init: [noise, real], distill_aug: [dsa, none]"
    points = recorded(
        tmp_path, sweep("[dm, dsa]", more=more).replace("{dm:", "{dsa: {iterations: 100}, dm:"), of_network
    )
    transfer(points)
    assert len({point.cell for point in points}) == 8
    assert rows(points, "xarch_kendall_tau") == [], "two methods have no ranking worth the name"


def test_a_ranking_is_of_the_sets_that_both_networks_have(tmp_path: Path) -> None:
    """Equal on both networks, but what is missing on one of them had the highest and the lowest numbers."""
    text = sweep("[dm, dsa, dc]", more=", architecture: [convnet3, resnet18]")
    text = text.replace("settings: {dm: {iterations: 200}}", "")

    def numbers(point: GridPoint) -> Numbers | None:
        value = {"dm": 0.40, "dc": 0.41, "dsa": 0.42}[point.method] + 0.05 * (point.distill_seed or 0)
        missing = {("dm", 0), ("dsa", 1)} if point.architecture == "resnet18" else set[tuple[str, int | None]]()
        return None if (point.method, point.distill_seed) in missing else {"accuracy": value}

    points = recorded(tmp_path, text, numbers)
    transfer(points)
    (row,) = rows(points, "xarch_kendall_tau")
    assert row["value"] == 1.0, "of the sets that both have: 0.45, 0.435 and 0.42 on either"


# --- the frontier -----------------------------------------------------------------------------------------------------


def curve(accuracy: float) -> float:
    return 0.1 * accuracy


def on_curve(point: GridPoint) -> Numbers:
    """Random images lie on a line; dm has 0.02 more variance than real images of the same accuracy."""
    if point.method == "random":
        accuracy = {1: 0.2, 10: 0.4, 50: 0.6}[point.ipc or 0] + 0.01 * (point.distill_seed or 0)
        return {"accuracy": accuracy, "fair_var_acc": curve(accuracy), "test_loss": 2.0}
    accuracy = {1: 0.5, 10: 0.7, 50: 0.1}[point.ipc or 0]
    return {"accuracy": accuracy, "fair_var_acc": curve(accuracy) + 0.02, "test_loss": 1.5}


def test_an_excess_is_over_real_images_of_the_same_accuracy(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep("[random, dm]", "[1, 10, 50]"), on_curve)
    frontier(points)
    (row,) = rows(points, "excess_fair_var_acc", method="dm", ipc=1)
    assert row["value"] == pytest.approx(0.02)
    assert row["ci_low"] == pytest.approx(0.02), "its draws lie on the line, and its models are alike"
    assert (row["ci_unit"], row["ci_method"], row["n"], row["property"]) == ("distillations", "t", 4, "fairness")
    assert (row["agg"], row["n_agg"], row["knots_apart"]) == ("mean_seeds", 4, pytest.approx(0.2))
    (row,) = rows(points, "excess_test_loss", method="dm", ipc=1)
    assert row["value"] == pytest.approx(-0.5)
    for ipc in (10, 50):
        (row,) = rows(points, "excess_fair_var_acc", method="dm", ipc=ipc)
        assert (row["value"], row["flag"]) == (None, "outside_frontier")
        assert "ci_low" not in row
    assert metrics(point for point in points if point.method == "random") == set()


def test_an_excess_knows_how_much_its_own_models_scatter(tmp_path: Path) -> None:
    def scattered(point: GridPoint) -> Numbers:
        found = on_curve(point)
        if point.method == "dm":
            found["fair_var_acc"] = found["fair_var_acc"] + 0.01 * (point.distill_seed or 0) + 0.001 * point.seed
        return found

    points = recorded(tmp_path, sweep("[random, dm]", "[1, 10, 50]"), scattered)
    frontier(points)
    (row,) = rows(points, "excess_fair_var_acc", method="dm", ipc=1)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 12.706 * 0.005, rel=1e-3), "two distillations"
    alone = recorded(tmp_path, sweep("[random, dm]", "[1, 10, 50]"), scattered)
    kept = [each for each in alone if each.method == "random" or each.order == (0, 0)]
    frontier(kept)
    (row,) = rows(kept, "excess_fair_var_acc", method="dm", ipc=1)
    assert "ci_low" not in row
    assert row["reason"] == "no interval: one model: how much models scatter is not known"
    assert row["agg"] == "single"


def test_where_others_have_a_frontier_its_lack_is_said(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep("[random, dm]", "[1, 10, 50]"), on_curve)
    lone = recorded(tmp_path, sweep("[random, dm]", "[1, 10]", ", origin_per_class: [50]"), on_curve)
    lone = [point for point in lone if (point.method, point.chain.point.ipc) != ("random", 10)]
    frontier([*points, *lone])
    found = rows(lone, "excess_fair_var_acc", method="dm")
    assert found
    assert {(row["value"], row["flag"], row["n"]) for row in found} == {(None, "not_applicable", 0)}
    assert all(row["value"] is not None for row in rows(points, "excess_fair_var_acc", method="dm", ipc=1))


def test_one_ipc_is_no_frontier(tmp_path: Path) -> None:
    points = recorded(tmp_path, sweep("[random, dm]", "[1]"), on_curve)
    frontier(points)
    assert metrics(points) == set()


def test_a_frontier_of_other_steps_says_so(tmp_path: Path) -> None:
    text = sweep("[random, dm]", "[1, 10, 50]")
    points = recorded(tmp_path, text, lambda point: {**on_curve(point), "steps": 10 * (point.ipc or 0)})
    frontier(points)
    assert {row["flag"] for row in rows(points, "excess_test_loss", ipc=1)} == {"unequal_steps"}


def adversarial(attack: str, epsilon: float, value: float, **other: Any) -> dict[str, Any]:
    return {
        "property": "robustness",
        "metric": "adv_acc",
        "value": value,
        "unit": "fraction",
        "n": 100,
        "split": "test",
        "attack": attack,
        "norm": "l2",
        "epsilon": epsilon,
        "adv_def": "clip",
        **other,
    }


def leak(attack: str, value: float, **other: Any) -> dict[str, Any]:
    return {
        "property": "privacy",
        "metric": "mia_auc",
        "value": value,
        "unit": "fraction",
        "n": 100,
        "attack": attack,
        "audit": "seed",
        **other,
    }


def test_the_primary_adversary_and_each_attack_of_a_panel_are_compared_at_equal_accuracy(tmp_path: Path) -> None:
    def numbers(point: GridPoint) -> Numbers:
        more = 0.0 if point.method == "random" else 0.05
        robust = [
            adversarial(PRIMARY_ADVERSARY, 0.0, 0.9),
            adversarial(PRIMARY_ADVERSARY, 0.5, 0.3 + more),
            adversarial(PRIMARY_ADVERSARY, 1.0, 0.1 + more),
            adversarial(PRIMARY_ADVERSARY, 1.0, 0.2, adv_def="norm"),
            adversarial("fgsm", 1.0, 0.2),
            adversarial(PRIMARY_ADVERSARY, 1.0, 0.2, class_id=3),
        ]
        leaks = [
            leak("shokri", 0.6 + more),
            leak("shokri", 0.7 - more, audit="pool"),
            leak("rmia", 0.6 + 2 * more, audit="pool"),
            leak("entropy", 0.5),
            leak("lira_online", 0.5),
            leak("rmia", 0.9, audit="pool", variant="offline"),
            leak("rmia", 0.9, audit="pool", agg="pooled"),
            leak("shokri", 0.9, member_role="member_init"),
            leak("shokri", 0.9, audit="pool", target_row=2),
            leak("shokri", 0.9, iteration=0),
            leak("shokri", 0.9, audit="pool", repeat=0),
        ]
        return {**on_curve(point), "robustness": robust, "privacy": leaks}

    text = sweep("[random, dm]", "[1, 10, 50]", ", origin_per_class: [60]")
    text += "    evaluations: {robustness: {attacks: [deepfool_l2, fgsm]}, privacy: {}}\n"
    points = recorded(tmp_path, text, numbers)
    frontier(points)
    found = rows(points, "excess_adv_acc", method="dm", ipc=1)
    assert [(row["epsilon"], row["norm"], row["attack"], row["adv_def"]) for row in found] == [
        (0.5, "l2", PRIMARY_ADVERSARY, "clip"),
        (1.0, "l2", PRIMARY_ADVERSARY, "clip"),
    ]
    assert [row["value"] for row in found] == pytest.approx([0.05, 0.05])
    found = rows(points, "excess_mia_auc", method="dm", ipc=1)
    assert [(row["audit"], row["attack"], row["property"]) for row in found] == [
        ("seed", "shokri", "privacy"),
        ("pool", "shokri", "privacy"),
        ("pool", "rmia", "privacy"),
    ]
    assert [row["value"] for row in found] == pytest.approx([0.05, -0.05, 0.1])
    point = next(point for point in points if point.distilled)
    assert set(point.derived) == {"accuracy", "robustness", "privacy"}, "each with the evaluation it is derived from"


def test_derived_numbers_belong_to_finished_evaluations(tmp_path: Path) -> None:
    points: list[PointRecord] = recorded(tmp_path, sweep(ipc="[1, 10, 50]"), lambda point: {"accuracy": told(point)})
    for derive in (relative_accuracy, retention, of_mean, frontier):
        derive(points)
    for point in points:
        assert point.derived.keys() <= point.stages.keys()


def test_a_network_behind_two_points_is_compared_once(tmp_path: Path) -> None:
    """A setting said in one grid and left to its preset in another: two points, one training."""
    said = """
    ddray: 1
    defaults: {protocol: quick, axes: {dataset: [digits], ipc: [1], seed: [0, 1, 2], distill_seed: [0]}}
    grids:
      left_out: {axes: {method: [dm]}}
      said: {axes: {method: [dm]}, settings: {dm: {lr_img: 1.0}}}
    """
    points = recorded(tmp_path, said, lambda point: {"accuracy": told(point)})
    assert (len(points), len({point.model_key for point in points})) == (6, 3)
    assert [point.chain.point.seed for point in once(points)] == [0, 1, 2]
    assert once(points)[0] is points[0]
    points[4].stages["privacy"] = ("a key", ())
    assert [points.index(point) for point in once(points)] == [0, 4, 2], "the one of which more is known"
