"""Robustness, informativeness and embeddings in the report: means over the right seeds, alarms, no mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import worlds

from ddray.plan.graph import Chain, Stage
from ddray.plan.points import GridPoint
from ddray.report.comparable import MixedBlock
from ddray.report.report import machine_report, report
from ddray.report.sections.frame import flag_alarms, flag_information
from ddray.report.words import epsilon_text, shown_epsilons
from ddray.store import files
from trainables.configs import EmbeddingConfig
from trainables.payloads import AttackResult, Embedding, Payload

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_flush", lambda path: None)


def attack_of(facts: Row, name: str) -> Row:
    (block,) = facts["blocks"]
    return next(attack for attack in block["robustness"] if attack["attack"] == name)


def entry_of(attack: Row, method: str, ipc: int | None = None) -> Row:
    return next(entry for entry in attack["rows"] if entry["method"] == method and entry["ipc"] in (ipc, None))


# --- robustness -------------------------------------------------------------------------------------------------------


def test_robust_accuracy_is_a_mean_over_the_seeds_of_the_accuracy(tmp_path: Path) -> None:
    folder = worlds.robust(tmp_path)
    attack = attack_of(machine_report(folder), "deepfool_l2")
    assert (attack["images"], attack["adv_def"], attack["norm"]) == (100, "clip", "l2")
    entry = entry_of(attack, "dm", 2)
    rows = worlds.rows_of(folder, metric="adv_acc", attack="deepfool_l2", adv_def="clip", method="dm", ipc=2)
    for found in [{"epsilon": 0.0, **entry["clean"]}, *entry["adv_acc"]]:
        values = [row["value"] for row in rows if row["epsilon"] == found["epsilon"]]
        assert len(values) == 2
        assert found["mean"] == pytest.approx(sum(values) / 2)
        assert found["seed_level"] == "n=2 trainings"
    distances = [
        row["value"]
        for row in worlds.rows_of(folder, metric="adv_dist_median", attack="deepfool_l2", method="dm", ipc=2)
    ]
    assert entry["adv_dist_median"]["mean"] == pytest.approx(sum(distances) / 2)


def test_the_full_model_stands_once_and_last(tmp_path: Path) -> None:
    attack = attack_of(machine_report(worlds.robust(tmp_path)), "deepfool_linf")
    assert [(entry["ipc"], entry["method"]) for entry in attack["rows"]] == [
        (1, "random"),
        (1, "dm"),
        (2, "random"),
        (2, "dm"),
        (None, "full"),
    ]


def test_gaps_and_crossings_come_from_the_rows(tmp_path: Path) -> None:
    def tougher(point: GridPoint, result: AttackResult) -> AttackResult:
        """Distilled models can only be misled by three times as much."""
        if point.method != "dm" or result.distance is None:
            return result
        distance = 3 * result.distance
        success = distance[None] <= torch.tensor(result.info["epsilons"])[:, None]
        return AttackResult(result.ids, result.labels, result.correct, success | ~result.correct, distance, result.info)

    folder = worlds.robust(tmp_path, change=tougher)
    entry = entry_of(attack_of(machine_report(folder), "deepfool_linf"), "dm", 2)
    crossings = [
        row["value"] for row in worlds.rows_of(folder, metric="eps_cross", attack="deepfool_linf", method="dm", ipc=2)
    ]
    known = [value for value in crossings if value is not None]
    mean = pytest.approx(sum(known) / len(known))
    assert entry["eps_cross"] == {"compared": 2, "crossed": len(known), "mean": mean, "lead": None}
    assert entry["strong_attack"] == ["ensemble_fb of fgsm+pgd_linf+deepfool_linf"]
    rows = worlds.rows_of(folder, metric="adv_gap_strong", attack="deepfool_linf", method="dm", ipc=2)
    for gap in entry["gap_strong"]:
        values = [row["value"] for row in rows if row["epsilon"] == gap["epsilon"]]
        assert gap["mean"] == pytest.approx(sum(values) / 2)
    text = report(folder)
    assert "crosses full at" in text
    assert "points by which ensemble_fb of fgsm+pgd_linf+deepfool_linf is below this attack" in text
    assert entry_of(attack_of(machine_report(folder), "deepfool_linf"), "full")["eps_cross"]["compared"] == 0


TWO_ENSEMBLES = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], ipc: [1], seed: [0], distill_seed: [0]}}
grids:
  few: {axes: {method: [random]}, evaluations: {robustness: {attacks: [deepfool_linf, fgsm], images: 100}}}
  many: {axes: {method: [dm]}, evaluations: {robustness: {attacks: [deepfool_linf, fgsm, pgd_linf], images: 100}}}
"""


def test_ensembles_of_other_attacks_are_other_attacks(tmp_path: Path) -> None:
    folder = worlds.robust(tmp_path, TWO_ENSEMBLES)
    attacks = machine_report(folder)["blocks"][0]["robustness"]
    found = {
        attack["of_attacks"]: {entry["method"] for entry in attack["rows"]}
        for attack in attacks
        if attack["attack"] == "ensemble_fb"
    }
    assert found == {"fgsm+deepfool_linf": {"random"}, "fgsm+pgd_linf+deepfool_linf": {"dm"}}
    text = report(folder)
    assert "gap to strongest: not shown, because it is to different attacks" in text
    assert "points by which" not in text


TWO_SIZES = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], ipc: [1], seed: [0], distill_seed: [0]}
  settings: {dm: {iterations: 200}}
grids:
  one: {axes: {method: [random]}, evaluations: {robustness: {attacks: [deepfool_l2], images: 100}}}
  two: {axes: {method: [dm]}, evaluations: {robustness: {attacks: [deepfool_l2], images: IMAGES}}}
"""


def test_numbers_of_images_are_never_mixed(tmp_path: Path) -> None:
    assert worlds.robust(tmp_path / "equal", TWO_SIZES.replace("IMAGES", "100"))
    report(tmp_path / "equal" / "results")
    with pytest.raises(MixedBlock, match=r"deepfool_l2: .*got n: 100, 50"):
        report(worlds.robust(tmp_path / "mixed", TWO_SIZES.replace("IMAGES", "50")))


def test_steps_of_an_attack_are_never_mixed(tmp_path: Path) -> None:
    def shorter(point: GridPoint, result: AttackResult) -> AttackResult:
        if point.method == "dm":
            result.info["settings"] = {**result.info["settings"], "steps": 10}
        return result

    with pytest.raises(MixedBlock, match=r"attack_steps: 10, 50"):
        report(worlds.robust(tmp_path, TWO_SIZES.replace("IMAGES", "100"), shorter))


def _like_fgsm(result: AttackResult, share: float) -> AttackResult:
    """An attack that misleads that share of the correct images at every epsilon."""
    reached = torch.arange(len(result.ids)) < share * len(result.ids)
    success = (reached | ~result.correct).expand(len(result.info["epsilons"]), -1).clone()
    return AttackResult(result.ids, result.labels, result.correct, success, result.distance, result.info)


@pytest.mark.parametrize("weaker", [True, False])
def test_many_steps_that_find_less_than_one_alarm(tmp_path: Path, weaker: bool) -> None:
    def change(point: GridPoint, result: AttackResult) -> AttackResult:
        match result.info["attack"]:
            case "fgsm":
                return _like_fgsm(result, 0.8 if weaker else 0.1)
            case "pgd_linf":
                return _like_fgsm(result, 0.1 if weaker else 0.8)
        return result

    alarms = machine_report(worlds.robust(tmp_path, change=change))["alarms"]
    said = [alarm for alarm in alarms if "PGD (Linf) found less than one step of FGSM" in alarm]
    assert len(said) == weaker
    assert not weaker or "random, dm, full" in said[0]


def test_attacks_that_do_not_end_and_gradients_that_vanish_alarm(tmp_path: Path) -> None:
    def change(point: GridPoint, result: AttackResult) -> AttackResult:
        if point.method == "dm":
            result.info["zero_gradient_share"] = 0.7
        if point.method != "dm" or result.info["attack"] != "deepfool_l2":
            return result
        distance = result.distance.clone()  # type: ignore[union-attr]
        distance[result.correct & (torch.arange(len(result.ids)) % 2 == 0)] = torch.inf
        return AttackResult(result.ids, result.labels, result.correct, result.success, distance, result.info)

    alarms = machine_report(worlds.robust(tmp_path, change=change))["alarms"]
    (ended,) = [alarm for alarm in alarms if "DeepFool (L2)" in alarm]
    assert "did not end for up to" in ended
    assert ended.endswith("of what dm had right")
    # Of the cross-entropy's gradients: DeepFool follows the logits'.
    vanished = [alarm for alarm in alarms if "gradients are exactly 0 for up to 70 % of the images of dm" in alarm]
    assert vanished
    assert all("PGD" in alarm or "FGSM" in alarm for alarm in vanished)


def test_a_median_beyond_what_was_found_is_said(tmp_path: Path) -> None:
    def never(point: GridPoint, result: AttackResult) -> AttackResult:
        if result.distance is None or point.method != "dm":
            return result
        distance = torch.where(result.correct, torch.inf, 0.0)
        return AttackResult(result.ids, result.labels, result.correct, result.success, distance, result.info)

    text = report(worlds.robust(tmp_path, TWO_SIZES.replace("IMAGES", "100"), never))
    assert "beyond what was found" in text


def test_epsilons_of_a_table() -> None:
    assert shown_epsilons([0.05, 0.1, 0.25, 2.0], "l2") == [0.1, 0.25]
    assert shown_epsilons([1 / 510, 2 / 255, 8 / 255], "linf") == [2 / 255, 8 / 255]
    assert shown_epsilons([0.3, 0.6], "l2") == [0.3, 0.6]
    assert shown_epsilons([index / 100 + 0.3 for index in range(10)], "l2") == pytest.approx([0.3, 0.33, 0.36, 0.39])
    assert [epsilon_text(value, "linf") for value in (8 / 255, 0.25 / 255, 0.03)] == ["8/255", "0.25/255", "0.03"]
    assert epsilon_text(0.25, "l2") == "0.25"


# --- informativeness --------------------------------------------------------------------------------------------------

NETWORKS = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, dsa, dm, mtt, full], dataset: [digits], ipc: [1], architecture: [convnet3, resnet18],
           seed: [0, 1], distill_seed: [0]}
    settings: {dm: {iterations: 200}, dsa: {iterations: 5}}
"""


def of_network(point: GridPoint) -> float:
    """ResNet18 keeps half of it, and turns the ranking round."""
    rank = {"random": 0.2, "dsa": 0.3, "dm": 0.4, "mtt": 0.5, "full": 0.9}
    if point.architecture == "convnet3" or point.method in ("random", "full"):
        return rank[point.method] + 0.01 * point.seed
    return (0.8 - rank[point.method]) / 2 + 0.01 * point.seed


def filled(folder: Path, text: str, accuracy: worlds.Accuracy) -> Path:
    """Results with the accuracy stages alone."""

    def make(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload | None:
        return worlds.payload_of(stage, chain, accuracy(chain.point)) if stage.kind == "accuracy" else None

    return worlds.filled(folder, text, make=make)


def test_what_a_set_is_worth_is_shown_per_cell(tmp_path: Path) -> None:
    folder = filled(tmp_path, NETWORKS, of_network)
    facts = machine_report(folder)
    convnet, resnet = facts["blocks"]
    found = {entry["method"]: entry["numbers"] for entry in convnet["generalisation"]}
    recovery = {entry["method"]: entry["recovery"] for entry in convnet["generalisation"]}
    accuracy = {column: cell["accuracy"]["mean"] for column, cell in convnet["rows"][0]["cells"].items()}
    assert recovery["dm"]["share"]["value"] == pytest.approx(
        (accuracy["dm"] - accuracy["random"]) / (accuracy["full"] - accuracy["random"])
    )
    assert recovery["random"] is recovery.get("full") is None
    assert found["dm"]["dd_hlr"]["mean"] == pytest.approx(accuracy["full"] - accuracy["dm"])
    assert found["dm"]["ior"]["mean"] == pytest.approx(accuracy["dm"] - accuracy["random"])
    other = {entry["method"]: entry["numbers"] for entry in resnet["generalisation"]}
    kept = resnet["rows"][0]["cells"]["dm"]["accuracy"]["mean"] / accuracy["dm"]
    assert other["dm"]["xarch_retention"]["mean"] == pytest.approx(kept, rel=0.05)
    text = report(folder)
    for heading in ("recovery %", "HLR points", "IOR points", "of convnet3 %", "LRS"):
        assert heading in text, heading


def test_networks_that_rank_methods_the_other_way_round_disagree(tmp_path: Path) -> None:
    folder = filled(tmp_path, NETWORKS, of_network)
    (ranking,) = machine_report(folder)["rankings"]
    assert ranking["architectures"] == ["convnet3", "resnet18"]
    assert ranking["methods"] == 3
    assert ranking["kendall_tau"] == pytest.approx(-1)
    assert ranking["p_adjusted"] is None, "three methods cannot give a small p"
    assert "Do networks agree on the ranking of methods?" in report(folder)
    assert "| convnet3 and resnet18 | -1.00" in report(folder)


FRONTIER = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], seed: [0], distill_seed: [0, 1, 2]}}
grids:
  real: {axes: {method: [random], ipc: [1, 2, 5]}}
  made: {axes: {method: [dm], ipc: [1, 2]}, settings: {dm: {iterations: 200}}}
"""


def test_excess_over_real_images_is_about_all_seeds_of_a_cell(tmp_path: Path) -> None:
    def accuracy(point: GridPoint) -> float:
        if point.method == "dm" and point.ipc == 2:
            return 0.95
        return (0.45 if point.method == "dm" else 0.2 + 0.1 * (point.ipc or 0)) + 0.01 * (point.distill_seed or 0)

    folder = filled(tmp_path, FRONTIER, accuracy)
    (block,) = machine_report(folder)["blocks"]
    entries = {entry["ipc"]: entry for entry in block["generalisation"] if entry["method"] == "dm"}
    found = next(each for each in entries[1]["excess"] if each["metric"] == "excess_fair_cv_acc")
    (row,) = worlds.rows_of(folder, metric="excess_fair_cv_acc", method="dm", ipc=1)
    assert (found["value"], found["low"], found["high"]) == (row["value"], row["ci_low"], row["ci_high"])
    assert (found["models"], found["about"], found["draws"]) == (3, "distillations", 6)
    assert found["low"] < found["value"] < found["high"]
    beyond = next(each for each in entries[2]["excess"] if each["metric"] == "excess_fair_cv_acc")
    assert (beyond["value"], beyond["flag"]) == (None, "outside_frontier")
    text = report(folder)
    assert "### Over real images at equal accuracy (95 % interval)" in text
    assert "Intervals are about distillations of the method together with draws of real images." in text
    assert "far: compared with a straight line" in text, "0.4 and 0.7 are 30 points apart"
    assert "no such accuracy" in text
    assert not any("outside_frontier" in alarm for alarm in machine_report(folder)["alarms"])


def test_where_one_draw_stands_for_real_images_no_interval_is_promised(tmp_path: Path) -> None:
    text = FRONTIER.replace("method: [random], ipc", "method: [random], distill_seed: [0], ipc")
    accuracies = {"dm": 0.45, "random": 0.3}
    folder = filled(tmp_path, text, lambda point: accuracies[point.method] + 0.1 * ((point.ipc or 0) - 1))
    shown = report(folder)
    assert "### Over real images at equal accuracy\n" in shown
    assert "(no interval)" in shown
    assert "No interval: one draw of real images: how much draws scatter is not known." in shown


# --- embeddings -------------------------------------------------------------------------------------------------------

EMBEDDED = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [dm], dataset: [digits], ipc: [1], seed: [0, 1], distill_seed: SEEDS}
    settings: {dm: {iterations: 200}}
    evaluations: {embedding: {}}
"""


def embedded(folder: Path, seeds: str, **other: Any) -> Path:
    def make(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload | None:
        if isinstance(stage.config, EmbeddingConfig):
            seed = chain.point.distill_seed or 0
            return Embedding(torch.ones(10, 4), torch.arange(10), _embedding_rows(0.2 + 0.1 * seed, **other))
        return worlds.payload_of(stage, chain, 0.5) if stage.kind in ("accuracy", "tsne") else None

    return worlds.filled(folder, EMBEDDED.replace("SEEDS", seeds), make=make)


def _embedding_rows(rate: float, dim: int = 4) -> list[Row]:
    common = {"property": "informativeness", "unit": "fraction", "n": 10, "embed_dim": dim, "neighbours": 10}
    return [
        {**common, "metric": "embed_outlier_rate", "value": rate},
        {**common, "metric": "embed_outlier_rate_real", "value": 0.05},
        {**common, "metric": "embed_outlier_rate", "value": 1.0, "class_id": 3},
        {**common, "metric": "embed_mmd", "value": None, "flag": "degenerate"},
    ]


def test_trainings_of_one_set_have_one_embedding(tmp_path: Path) -> None:
    folder = embedded(tmp_path, "[0]")
    ((entry,),) = [block["embedding"] for block in machine_report(folder)["blocks"]]
    found = entry["numbers"]["embed_outlier_rate"]
    assert (found["mean"], found["sd"], found["seed_level"]) == (pytest.approx(0.2), None, "n=1 set")
    assert "20.0 (5.0)" in report(folder), "the class's own number is not mixed in"
    assert "embed_mmd" not in entry["numbers"]


def test_several_sets_scatter(tmp_path: Path) -> None:
    ((entry,),) = [block["embedding"] for block in machine_report(embedded(tmp_path, "[0, 1, 2]"))["blocks"]]
    found = entry["numbers"]["embed_outlier_rate"]
    assert (found["mean"], found["sd"], found["count"]) == (pytest.approx(0.3), pytest.approx(0.1), 3)


# --- flags ------------------------------------------------------------------------------------------------------------


def test_flags_are_one_line_each_and_information_is_no_alarm() -> None:
    counts = {
        ("mia_pauc", "low_resolution"): 3,
        ("mia_tpr_at_fpr", "low_resolution"): 40,
        ("adv_acc", "not_converged"): 2,
        ("mia_auc", "not_applicable"): 500,
        ("distill_loss", "not_converged"): 4,
    }
    assert flag_alarms(counts) == [
        "the loss ended at 1 or more: the last network came no nearer to its expert than it had begun, at 4 points",
        "flagged not_converged: 2 adv_acc",
    ]
    assert flag_information(counts) == ["low_resolution: 40 mia_tpr_at_fpr, 3 mia_pauc", "not_applicable: 500 mia_auc"]
    assert flag_alarms({}) == []
