"""What models say of members and others: asked after the training, kept with the model, read for the attacks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from audited import Audited, digits, exposing, noise
from support import FakeContext, folder_bytes, query_sets, recipe, tiny_network, train_config

from trainables import stages
from trainables.configs import EnsembleConfig, OriginConfig, SignalsConfig, TrainConfig
from trainables.data.cache import open_split
from trainables.data.origins import load_origin, origin_indices, query_indices
from trainables.data.pixels import fit_whitening
from trainables.evaluate.privacy.designs import (
    learning_outputs,
    load_pool,
    row_origin,
    seed_outputs,
    spread,
    start_members,
)
from trainables.labels import HardLabels
from trainables.models.network import build
from trainables.payloads import DistilledSet, TrainedModel
from trainables.train import predict

POOL = OriginConfig(kind="pool", per_class=10, draw=0, row=1, canaries=6, classes=(1, 3, 8))
ASKED = SignalsConfig(population=4, reserve=5)


class OnDigits(FakeContext):
    """WorkerEnv whose data are the decoded digits."""

    def __init__(self, folder: Path, cache: Path) -> None:
        super().__init__(folder)
        self.data, self.cache = folder / "data", cache


def training(**other: object) -> TrainConfig:
    values: dict[str, object] = {
        "dataset": digits(),
        "origin": POOL,
        "network": tiny_network(3),
        "on_origin": True,
        "signals": ASKED,
        "curve_points": 1,
    }
    return train_config(recipe(epochs=3, augmentation="dsa"), **{**values, **other})


def saved(folder: Path, payload: object) -> dict[str, bytes]:
    folder.mkdir()
    payload.save(folder)  # type: ignore[attr-defined]
    return folder_bytes(folder)


def test_signals_are_the_trained_networks_logits(tmp_path: Path, digits_cache: Path) -> None:
    config, context = training(), OnDigits(tmp_path, digits_cache)
    model = stages.run("train", config, {}, context)
    assert isinstance(model, TrainedModel)
    assert set(model.outputs) == {"test", "pool", "population", "reserve"}
    network = build(config.network, "any", "network", 0)
    network.load_state_dict(model.state)
    sets = query_sets(digits(), POOL, ASKED, context.data, context.cache, "cpu")
    for split, images in sets.items():
        assert torch.equal(model.outputs[split].logits, predict(network, images.images))
        assert torch.equal(model.outputs[split].labels, images.labels)
        assert torch.equal(model.outputs[split].ids, images.ids)
    assert [len(model.outputs[split].ids) for split in ("pool", "population", "reserve")] == [60, 12, 15]
    folder = tmp_path / "saved"
    folder.mkdir()
    model.save(folder)
    again = TrainedModel.load_outputs(folder)
    assert all(torch.equal(again[split].logits, model.outputs[split].logits) for split in model.outputs)


def test_without_signals_the_bytes_are_those_from_before(tmp_path: Path, digits_cache: Path) -> None:
    plain, asked = training(signals=None), training()
    assert "signals" not in plain.key_json
    assert "signals" in asked.key_json
    context = OnDigits(tmp_path, digits_cache)
    without = saved(tmp_path / "without", stages.run("train", plain, {}, context))
    with_them = saved(tmp_path / "with", stages.run("train", asked, {}, context))
    assert set(without) == set(with_them)
    assert {name for name in without if without[name] != with_them[name]} == {"signals.safetensors"}
    assert set(TrainedModel.load_outputs(tmp_path / "without")) == {"test"}


def test_each_member_of_an_ensemble_is_asked(tmp_path: Path, digits_cache: Path) -> None:
    context = OnDigits(tmp_path, digits_cache)
    base = training(seed=2)
    together = stages.run("ensemble", EnsembleConfig(base=base, seeds=(2, 5)), {}, context)
    alone = stages.run("train", base, {}, context)
    for split, signals in alone.outputs.items():  # type: ignore[union-attr]
        of_member = together.models[2].outputs[split]  # type: ignore[union-attr]
        assert torch.allclose(of_member.logits, signals.logits, atol=1e-3)
        assert torch.equal(of_member.ids, signals.ids)
        assert not torch.allclose(together.models[5].outputs[split].logits, signals.logits, atol=1e-2)  # type: ignore[union-attr]


def test_queried_images_are_whitened_as_the_test_images_are(tmp_path: Path, digits_cache: Path) -> None:
    context = OnDigits(tmp_path, digits_cache)
    origin = load_origin(digits(), POOL, context.data, context.cache, "cpu")
    whitening = fit_whitening(origin.images, digits().mean, digits().std)
    facts = {"space": "pixel01", "factor": 1, "zca": True, "label_kind": "hard"}
    chosen = torch.cat([places[:4] for places in origin.by_class])
    split = open_split(digits(), "train", context.data, context.cache)
    pixels = torch.from_numpy(split.images[origin.indices[chosen].numpy()]).float() / 255
    folder = tmp_path / "set"
    folder.mkdir()
    DistilledSet(pixels, HardLabels(origin.labels[chosen]), origin.indices[chosen], facts, whitening).save(folder)
    config = training(on_origin=False)
    model = stages.run("train", config, {"set": folder}, context)
    assert isinstance(model, TrainedModel)
    network = build(config.network, "any", "network", 0)
    network.load_state_dict(model.state)
    pool = query_sets(digits(), POOL, ASKED, context.data, context.cache, "cpu")["pool"]
    whitened = whitening.whiten(pool.images, digits().mean, digits().std)
    assert torch.allclose(model.outputs["pool"].logits, predict(network, whitened), atol=1e-5)
    assert not torch.allclose(model.outputs["pool"].logits, predict(network, pool.images), atol=1e-2)


def test_too_few_images_stop_the_stage_before_it_trains(tmp_path: Path, digits_cache: Path) -> None:
    context = OnDigits(tmp_path, digits_cache)
    with pytest.raises(ValueError, match=r"a class holds too few training images; .* expected at least 1024 of each"):
        stages.run("train", training(signals=SignalsConfig(population=4, reserve=1000)), {}, context)
    assert context.counted == []


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Audited:
    made = Audited(tmp_path_factory.mktemp("pool"), digits_cache, per_class=8, rows=6, shadows=2, canaries=5, ipc=3)
    made.write_pool(noise)
    made.write_seed(exposing(20))
    return made


def test_a_target_is_asked_beside_all_rows_but_its_twin(filled: Audited) -> None:
    labels = open_split(digits(), "train", *filled.place).labels
    pool = load_pool(filled.config(), filled.inputs, "model", labels)
    assert pool.member.shape == (6, 160)
    assert pool.canary.sum() == 5
    for row in range(6):
        np.testing.assert_array_equal(
            pool.ids[pool.member[row]], origin_indices(row_origin(filled.config(), row), labels)
        )
    target, shadows = pool.target(2)
    np.testing.assert_array_equal(target.logits, pool.logits[2])
    np.testing.assert_array_equal(shadows.logits, pool.logits[[0, 1, 4, 5]])
    np.testing.assert_array_equal(shadows.member, pool.member[[0, 1, 4, 5]])
    assert (shadows.member.sum(0) == 2).all()
    assert target.population is not None
    assert shadows.population is not None
    assert shadows.population.shape == (4, 200, 10)

    target, shadows = pool.target(3, reserve=True)
    assert target.logits.shape == (160 + 200, 10)
    assert not shadows.member[:, 160:].any()
    assert (shadows.out.sum(0) == 2).all()
    np.testing.assert_array_equal(shadows.logits[1, 160:], pool.reserve[1].logits)
    np.testing.assert_array_equal(target.labels[:160], pool.labels)


def test_rows_that_were_asked_about_other_images_are_refused(filled: Audited, tmp_path: Path) -> None:
    labels = open_split(digits(), "train", *filled.place).labels
    other = Audited(tmp_path, filled.cache, per_class=8, canaries=5, ipc=3, signals=SignalsConfig(population=19))
    other.write_model("row.1", noise)
    with pytest.raises(AssertionError, match="asked about different images of the population"):
        load_pool(filled.config(), {**filled.inputs, **other.inputs}, "model", labels)


def test_shadows_of_the_seed_audit_teach_by_their_own_candidates(filled: Audited) -> None:
    images, split_labels = (lambda split: (split.images, split.labels))(open_split(digits(), "train", *filled.place))
    rows = seed_outputs(filled.config(), filled.inputs, images)
    assert rows is not None
    assert rows.shadow.tolist() == [1] * 160 + [2] * 160
    assert rows.member.tolist() == ([True] * 80 + [False] * 80) * 2
    assert np.bincount(rows.labels).tolist() == [32] * 10
    assert seed_outputs(filled.config(shadows=0), filled.inputs, images) is None
    # Of identical images nobody can tell which was a member: the others of them teach nothing.
    blocks = [query_indices(filled.origin_of(f"shadow.{block}"), SignalsConfig(), split_labels) for block in (1, 2)]
    alike = images.copy()
    alike[blocks[0]["other"][:3]] = images[blocks[0]["origin"][:3]]
    rows = seed_outputs(filled.config(), filled.inputs, alike)
    assert rows is not None
    assert [int(((rows.shadow == block) & ~rows.member).sum()) for block in (1, 2)] == [77, 80]
    assert int(rows.member.sum()) == 160


def test_learning_rows_are_capped_class_by_class(filled: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = open_split(digits(), "train", *filled.place).labels
    _, shadows = load_pool(filled.config(), filled.inputs, "model", labels).target(0)
    assert len(learning_outputs(shadows).labels) == 4 * 160
    monkeypatch.setattr("trainables.evaluate.privacy.designs.LEARNING_ROWS", 4 * 50)
    rows = learning_outputs(shadows)
    assert np.bincount(rows.labels).tolist() == [20] * 10
    assert len(learning_outputs(shadows).labels) == len(rows.labels) == 200
    np.testing.assert_array_equal(learning_outputs(shadows).logits, rows.logits)
    assert spread(np.array([0, 0, 0, 1]), 4).tolist()[-1] == 3


def test_start_images_are_members_or_the_set_is_refused(filled: Audited) -> None:
    labels = open_split(digits(), "train", *filled.place).labels
    pool = load_pool(filled.config(), filled.inputs, "model", labels)
    released = DistilledSet.load(filled.inputs["row.0.set"])
    start = start_members(pool.ids, pool.member[0], released)
    assert start.sum() == 30
    assert not (start & ~pool.member[0]).any()
    assert not start_members(pool.ids, pool.member[0], None).any()
    tiled = DistilledSet(released.images, released.labels, torch.tensor([[-1, int(pool.ids[start][0])]]), {})
    assert start_members(pool.ids, pool.member[0], tiled).sum() == 1
    with pytest.raises(AssertionError, match="images that are no members"):
        start_members(pool.ids, pool.member[1], released)
