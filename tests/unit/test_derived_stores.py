"""Derived rows in whole tables: from the logits and the attacked images of a store, as rows of their points."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import worlds
from unit.point_records import metrics, recorded

from ddray.measurements.columns import comparable
from ddray.measurements.derived import persistence
from ddray.measurements.derived.driver import DERIVATIONS
from ddray.measurements.derived.relative_accuracy import relative_accuracy
from ddray.measurements.derived.transfer import transfer
from ddray.measurements.rows import collect
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan
from ddray.results import MEASUREMENTS_FILE
from ddray.store.artifacts import DamagedArtifact, Store
from trainables.configs import AttackConfig, RobustnessConfig
from trainables.evaluate.paired import adv_delta, crossover, robust_curve
from trainables.evaluate.robustness.rows import robustness_rows
from trainables.files import OUTPUTS
from trainables.payloads import AttackResult, Metrics, Payload, TrainedModel

METRICS = {metric.id for derivation in DERIVATIONS for metric in derivation.metrics}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
World = tuple[Any, Plan, Store]
SWEEP = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, dm, full], dataset: [digits], ipc: [1, 5], seed: [0, 1], distill_seed: [0, 1]}
    settings: {dm: {iterations: 200}}
    evaluations: {robustness: {attacks: [deepfool_l2, fgsm], images: 40}}
"""
NETWORKS = (
    SWEEP.replace("dm, full]", "dm, dsa, mtt, full]")
    .replace("digits", "cifar10")
    .replace(
        "seed: [0, 1], distill", "seed: [0, 1], architecture: [convnet3, resnet18], train_aug: [dsa, none], distill"
    )
)


def attacked(config: AttackConfig, chain: Chain) -> AttackResult:
    """Distances that follow from the point: the full-data models are the more robust to small budgets alone."""
    point = chain.point
    random = np.random.default_rng([point.seed, point.distill_seed or 0, len(point.method), point.ipc or 0])
    full = point.method == "full"
    images = 40
    correct = random.random(images) < (0.9 if full else 0.6)
    distance = np.where(correct, random.uniform(0.2, 0.43, images) if full else random.uniform(0.1, 3, images), 0)
    if not full:
        distance[correct & (np.arange(images) % 10 == 9)] = np.inf
    success = distance[None] <= np.array(config.epsilons)[:, None]
    minimal = config.attack.startswith("deepfool")
    facts = {
        "attack": config.attack,
        "norm": "l2" if minimal else "linf",
        "epsilons": list(config.epsilons),
        "settings": config.settings,
        "library": "foolbox",
        "library_version": "3",
        "zero_gradient_share": 0.0,
    }
    return AttackResult(
        torch.arange(images),
        torch.arange(images) % 10,
        torch.from_numpy(correct),
        torch.from_numpy(success),
        torch.from_numpy(distance.astype(np.float32)) if minimal else None,
        facts,
    )


def made(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload:
    if isinstance(stage.config, AttackConfig):
        return attacked(stage.config, chain)
    if isinstance(stage.config, RobustnessConfig):
        results: dict[str, AttackResult] = {
            name: AttackResult.load(inputs[f"attack.{name}"]) for name in stage.config.attacks
        }
        return Metrics(robustness_rows(results, 10))
    return worlds.payload_of(stage, chain, worlds.accuracy_by_seed(chain.point))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    """A world with every stage done, and the folder of its table."""
    folder = tmp_path_factory.mktemp("derived")
    sweep, plan, store = worlds.world(folder, SWEEP)
    worlds.fill(store, plan, make=made)
    assert collect(plan, sweep, store, folder / "r").complete
    return (sweep, plan, store), folder / "r"


# --- the table --------------------------------------------------------------------------------------------------------


def test_derived_rows_are_rows_of_their_points(finished: tuple[World, Path]) -> None:
    (_, plan, _), folder = finished
    rows = worlds.rows_of(folder)
    assert len({row["row_id"] for row in rows}) == len(rows)
    chains = {chain.point.hash: chain for chain in plan.chains}
    for metric, kind in (("ior", "accuracy"), ("fair_persistent", "accuracy"), ("adv_delta_full", "robustness")):
        found = [row for row in rows if row["metric"] == metric]
        assert found
        for row in found:
            chain = chains[row["point"]]
            point = chain.point
            assert (row["method"], row["ipc"], row["seed"], row["distill_seed"]) == (
                point.method,
                point.ipc,
                point.seed,
                point.distill_seed,
            )
            assert row["stage_key"] == worlds.stage_of(chain, kind).key
            assert (row["status"], row["device"], row["code_version"]) == ("ok", "cpu", "0.1.0")
            assert row["model_hash"] is not None


def test_what_every_metric_means_is_on_its_page(finished: tuple[World, Path], tmp_path: Path) -> None:
    emitted = {row["metric"] for row in worlds.rows_of(finished[1])} - others_of(finished)
    points = recorded(tmp_path, NETWORKS, lambda point: {"accuracy": worlds.accuracy_by_seed(point)})
    relative_accuracy(points)
    transfer(points)
    emitted |= metrics(points)
    assert {"dd_ars", "xarch_kendall_p", "fair_hardness_p_adjusted", "excess_test_loss", "eps_cross"} <= emitted
    page = PAGE.read_text()
    assert sorted(metric for metric in emitted | METRICS if f"`{metric}`" not in page) == []


def test_derived_metrics_have_records(finished: tuple[World, Path], tmp_path: Path) -> None:
    """Every derived metric has a record with its derivation; what is not derived from other points has none there."""
    (_, _, store), folder = finished
    points = recorded(tmp_path, NETWORKS, lambda point: {"accuracy": worlds.accuracy_by_seed(point)})
    relative_accuracy(points)
    transfer(points)
    own = {row["metric"] for row in worlds.rows_of(folder, property="cost")}
    for key in {row["stage_key"] for row in worlds.rows_of(folder) if row["metric"] in ("test_acc", "adv_acc")}:
        own |= {row["metric"] for row in Metrics.load(store.open(key).folder).rows}
    assert not own & METRICS
    derived = {row["metric"] for row in worlds.rows_of(folder)} - own | metrics(points)
    assert derived <= METRICS
    audited = {"excess_mia_auc", "mia_auc_delta", "mia_auc_delta_p", "mia_auc_delta_p_adjusted", "mia_roc_tpr"}
    assert METRICS - derived == audited, "there is no audit here"


def others_of(finished: tuple[World, Path]) -> set[str]:
    """Metrics of one model's robustness, which are that evaluation's own."""
    (_, _, store), folder = finished
    keys = {row["stage_key"] for row in worlds.rows_of(folder, metric="adv_acc")}
    return {row["metric"] for key in keys for row in Metrics.load(store.open(key).folder).rows}


def test_experts_of_a_point_have_rows_of_their_own(tmp_path: Path) -> None:
    from trainables.payloads import Expert

    text = SWEEP.replace("random, dm, full", "mtt").replace("dm: {iterations: 200}", "mtt: {num_experts: 3}")
    sweep, plan, store = worlds.world(
        tmp_path, text[: text.index("    evaluations")].replace("ipc: [1, 5]", "ipc: [1]")
    )
    experts = [stage for stage in plan.stages.values() if stage.kind == "experts"]
    assert len(experts) == 3
    for stage in experts:
        worlds.commit(store, stage, Expert(torch.zeros(2, 3), torch.zeros(2, 2).double(), [], {}))
    worlds.fill(store, plan, make=made)
    collect(plan, sweep, store, tmp_path / "r")
    rows = worlds.rows_of(tmp_path / "r")
    assert len({row["row_id"] for row in rows}) == len(rows)
    assert {row["repeat"] for row in rows if row["metric"] == "experts_s"} == {0, 1, 2}


def test_the_same_store_gives_the_same_rows(finished: tuple[World, Path], tmp_path: Path) -> None:
    (sweep, plan, store), folder = finished
    collect(plan, sweep, store, tmp_path / "again")
    assert (tmp_path / "again" / MEASUREMENTS_FILE).read_bytes() == (folder / MEASUREMENTS_FILE).read_bytes()
    table = pq.read_table(folder / MEASUREMENTS_FILE)
    assert comparable(table).num_rows > 0


def test_rows_vanish_with_what_they_are_compared_with(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, SWEEP.replace("distill_seed: [0, 1]", "distill_seed: [0]"))
    full = {stage.key for chain in plan.chains if chain.point.method == "full" for stage in chain.stages}
    worlds.fill(store, plan, make=lambda stage, *others: None if stage.key in full else made(stage, *others))
    collect(plan, sweep, store, tmp_path / "r")
    found = {row["metric"] for row in worlds.rows_of(tmp_path / "r")}
    assert {"ior", "excess_test_loss", "fair_persistent"} <= found
    assert not {"acc_over_full", "fair_retention_c", "fair_confusion_excess", "adv_delta_full", "recovery"} & found


def test_classes_have_the_data_sets_names(tmp_path: Path) -> None:
    text = SWEEP.replace("distill_seed: [0, 1]}", "distill_seed: [0], num_classes: [3], class_draw: [1]}")
    text = text[: text.index("    evaluations")]
    sweep, plan, store = worlds.world(tmp_path, text)
    worlds.fill(store, plan, make=made)
    collect(plan, sweep, store, tmp_path / "r")
    classes = list(plan.chains[0].stages[-2].config.origin.classes)
    assert classes != [0, 1, 2]
    for metric in ("fair_retention_c", "fair_confusion_excess"):
        found = [
            row
            for row in worlds.rows_of(tmp_path / "r", metric=metric, method="dm", ipc=1, seed=0)
            if row["class_id"] is not None
        ]
        assert [row["class_id"] for row in found] == classes


# --- logits -----------------------------------------------------------------------------------------------------------


def logits_of(store: Store, chain: Chain) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    model = TrainedModel.load(store.open(worlds.stage_of(chain, "train").key).folder)
    return model.outputs["test"].logits.double().numpy(), model.outputs["test"].labels.numpy()


def test_persistent_unfairness_by_hand(finished: tuple[World, Path]) -> None:
    (_, plan, store), folder = finished
    chains = worlds.chains_of(plan, method="dm", ipc=5, distill_seed=1)
    for metric, unit in (("fair_persistent", "fraction^2"), ("fair_persistent_loss", "nat^2")):
        means = []
        for chain in chains:
            logits, labels = logits_of(store, chain)
            right = (logits.argmax(1) == labels).astype(float)
            loss = -np.log(np.exp(logits)[np.arange(len(labels)), labels] / np.exp(logits).sum(1))
            values = right if metric == "fair_persistent" else loss
            means.append([[values[labels == index][side::2].mean() for index in range(10)] for side in (0, 1)])
        both = [np.cov(means[0][0], means[1][1], ddof=0)[0, 1], np.cov(means[1][0], means[0][1], ddof=0)[0, 1]]
        (row,) = worlds.rows_of(folder, metric=metric, method="dm", ipc=5, distill_seed=1)
        assert row["value"] == pytest.approx(np.mean(both))
        assert (row["n_agg"], row["agg"], row["unit"], row["seed"]) == (2, "pooled", unit, 0)


def test_confusions_by_hand(finished: tuple[World, Path]) -> None:
    (_, plan, store), folder = finished

    def confusion(chain: Chain) -> Any:
        logits, labels = logits_of(store, chain)
        given = logits.argmax(1)
        return np.array([[np.mean(given[labels == row] == column) for column in range(10)] for row in range(10)])

    full = np.mean([confusion(chain) for chain in worlds.chains_of(plan, method="full")], axis=0)
    (chain,) = worlds.chains_of(plan, method="dm", ipc=1, distill_seed=0, seed=1)
    excess = confusion(chain) - full
    np.fill_diagonal(excess, -1)
    found = worlds.rows_of(folder, metric="fair_confusion_excess", point=chain.point.hash)
    by_class = {row["class_id"]: row["value"] for row in found}
    assert by_class.pop(None) == pytest.approx(excess.max())
    assert [by_class[index] for index in range(10)] == pytest.approx(excess.max(axis=1).tolist())
    assert worlds.rows_of(folder, metric="fair_confusion_excess", method="full") == []


def test_too_many_models_are_not_read(
    finished: tuple[World, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sweep, plan, store), folder = finished

    def refuse(self: Store, key: str, name: str, entry: Any) -> Path:
        assert name != OUTPUTS, "a model was read"
        return original(self, key, name, entry)

    original = Store.file
    monkeypatch.setattr(Store, "file", refuse)
    with pytest.raises(AssertionError, match="a model was read"):
        collect(plan, sweep, store, tmp_path / "control")
    monkeypatch.setattr(persistence, "MOST_MODELS", 5)
    collect(plan, sweep, store, tmp_path / "r")
    for metric in ("fair_persistent", "fair_confusion_excess"):
        found = worlds.rows_of(tmp_path / "r", metric=metric, class_id=None)
        assert {(row["value"], row["flag"]) for row in found} == {(None, "not_applicable")}
        assert len(found) == len(worlds.rows_of(folder, metric=metric, class_id=None))


def test_a_model_with_damaged_logits_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = SWEEP.replace("seed: [0, 1], distill_seed: [0, 1]", "seed: [0, 1, 2]").replace("[1, 5]", "[1]")
    sweep, plan, store = worlds.world(tmp_path, text[: text.index("    evaluations")].replace("random, ", ""))
    worlds.fill(store, plan, make=made)
    chain = worlds.chains_of(plan, method="dm", seed=2)[0]
    train = worlds.stage_of(chain, "train")
    (store.open(train.key).folder / OUTPUTS).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        coverage = collect(plan, sweep, store, tmp_path / "r")
    assert coverage.complete, "its numbers are there"
    assert "damaged" in caplog.text
    (row,) = worlds.rows_of(tmp_path / "r", metric="fair_persistent", method="dm")
    assert row["n_agg"] == 2
    assert worlds.rows_of(tmp_path / "r", metric="fair_confusion_excess", point=chain.point.hash) == []
    assert not store.has(train.key)


# --- attacks ----------------------------------------------------------------------------------------------------------


def result_of(chain: Chain, name: str) -> tuple[AttackResult, AttackConfig]:
    stage = next(
        stage for stage in chain.stages if isinstance(stage.config, AttackConfig) and stage.config.attack == name
    )
    assert isinstance(stage.config, AttackConfig)
    return attacked(stage.config, chain), stage.config


def test_robustness_against_the_full_data_by_hand(finished: tuple[World, Path]) -> None:
    (_, plan, _), folder = finished
    (chain,) = worlds.chains_of(plan, method="dm", ipc=1, distill_seed=0, seed=1)
    for name, norm in (("deepfool_l2", "l2"), ("fgsm", "linf")):
        ours, config = result_of(chain, name)
        fulls = [result_of(each, name)[0] for each in worlds.chains_of(plan, method="full")]
        robust = robust_curve(ours.correct, ours.success)
        theirs = np.mean([robust_curve(each.correct, each.success) for each in fulls], axis=0)
        found = worlds.rows_of(folder, metric="adv_delta_full", attack=name, point=chain.point.hash)
        assert [row["epsilon"] for row in found] == [0, *config.epsilons]
        for row, expected in zip(found, adv_delta(robust, theirs), strict=True):
            assert row["value"] == pytest.approx(expected.value)
            assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.ci_low, expected.ci_high))
            assert (row["norm"], row["n"], row["n_agg"], row["ci_unit"]) == (norm, 40, 2, "images")
            assert row["adv_def"] == "clip"
        (row,) = worlds.rows_of(folder, metric="eps_cross", attack=name, point=chain.point.hash)
        assert row["value"] == crossover((0.0, *config.epsilons), robust, theirs)
        if name == "deepfool_l2":
            assert row["value"] is not None, "the world is made so that the curves cross"
    assert worlds.rows_of(folder, metric="adv_delta_full", method="full") == []


def test_common_distances_are_over_images_that_both_get_right(finished: tuple[World, Path]) -> None:
    (_, plan, _), folder = finished
    (chain,) = worlds.chains_of(plan, method="dm", ipc=1, distill_seed=0, seed=1)
    (ours, _), (full, _) = (
        result_of(chain, "deepfool_l2"),
        result_of(worlds.chains_of(plan, method="full")[1], "deepfool_l2"),
    )
    both = (ours.correct & full.correct).numpy()
    assert ours.distance is not None
    assert full.distance is not None
    found = {row["metric"]: row for row in worlds.rows_of(folder, point=chain.point.hash) if "_common" in row["metric"]}
    assert found["adv_dist_median_common"]["value"] == pytest.approx(np.median(ours.distance.numpy()[both]))
    assert found["adv_dist_median_common_full"]["value"] == pytest.approx(np.median(full.distance.numpy()[both]))
    assert {row["n"] for row in found.values()} == {int(both.sum())}
    infinite = np.isinf(ours.distance.numpy()[both]).any()
    assert infinite
    assert found["adv_dist_mean_common"]["flag"] == "not_converged"
    assert found["adv_dist_mean_common_full"]["value"] == pytest.approx(full.distance.numpy()[both].mean())


def test_attacks_of_other_settings_are_not_compared(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(
        tmp_path, SWEEP.replace("seed: [0, 1], distill_seed: [0, 1]", "seed: [0]").replace("[1, 5]", "[1]")
    )
    worlds.fill(store, plan, make=made)
    (full,) = worlds.chains_of(plan, method="full")
    stage = next(stage for stage in full.stages if isinstance(stage.config, AttackConfig))
    assert isinstance(stage.config, AttackConfig)
    assert stage.config.attack == "deepfool_l2"
    store.files.remove(f"artifacts/{stage.key[:2]}/{stage.key}")
    other = attacked(stage.config, full)
    other.info["settings"] = {**stage.config.settings, "steps": 7}
    worlds.commit(store, stage, other)
    collect(plan, sweep, store, tmp_path / "r")
    assert {row["attack"] for row in worlds.rows_of(tmp_path / "r", metric="adv_delta_full")} == {"fgsm"}


def test_costs_tell_attacks_apart(finished: tuple[World, Path]) -> None:
    _, folder = finished
    found = worlds.rows_of(folder, metric="attack_s", method="dm", ipc=1, distill_seed=0, seed=0)
    assert sorted(row["attack"] for row in found) == ["deepfool_l2", "fgsm"]


def test_table_of_a_map(tmp_path: Path) -> None:
    from trainables.payloads import Embedding, TsneMap

    text = SWEEP[: SWEEP.index("    evaluations")] + "    evaluations: {embedding: {}}\n"
    text = text.replace("distill_seed: [0, 1]", "distill_seed: [0]")
    sweep, plan, store = worlds.world(tmp_path, text)
    for stage in plan.stages.values():
        chain = next((chain for chain in plan.chains if stage in chain.stages), plan.chains[0])
        payload: Any
        if stage.kind == "tsne":
            facts = {"trustworthiness": 0.9, "kl_divergence": 1.5, "points": [100, 20], "perplexity": 30.0}
            payload = TsneMap(torch.zeros(120, 2), torch.zeros(120).long(), torch.zeros(120).long(), facts)
        elif stage.kind == "embedding":
            rate = {
                "property": "informativeness",
                "metric": "embed_outlier_rate",
                "value": 0.1,
                "unit": "fraction",
                "n": 1,
            }
            payload = Embedding(torch.zeros(2, 3), torch.zeros(2).long(), [rate])
        else:
            payload = worlds.payload_of(stage, chain, 0.5)
        worlds.commit(store, stage, payload)
    coverage = collect(plan, sweep, store, tmp_path / "r")
    assert coverage.complete
    assert coverage.evaluations["tsne"]["done"] == coverage.evaluations["embedding"]["done"] > 0
    (row, *_) = worlds.rows_of(tmp_path / "r", metric="tsne_trustworthiness")
    assert (row["value"], row["n"], row["perplexity"]) == (0.9, 120, 30.0)


# --- one file of an artifact ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_one_file_is_checked_and_no_other(tmp_path: Path, place: str) -> None:
    _, plan, store = worlds.world(tmp_path, SWEEP)
    if place == "memory":
        store = Store(f"memory://{tmp_path.name}/store", tmp_path / "downloads")
    chain = plan.chains[0]
    train = worlds.stage_of(chain, "train")
    worlds.commit(store, train, worlds.payload_of(train, chain, 0.5))
    files = store.manifest(train.key).files
    at = f"artifacts/{train.key[:2]}/{train.key}"
    store.files.write(f"{at}/model.safetensors", b"broken")
    path = store.file(train.key, "model.json", files["model.json"])
    assert json.loads(path.read_text())["facts"]["optimiser_steps"] == 100
    with pytest.raises(KeyError):
        store.file("0" * 64, "model.json", files["model.json"])
    assert store.has(train.key)
    with pytest.raises(DamagedArtifact, match=r"model\.safetensors"):
        store.file(train.key, "model.safetensors", files["model.safetensors"])
    assert not store.has(train.key)
