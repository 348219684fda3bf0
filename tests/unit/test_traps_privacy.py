"""Mistakes that make membership inference find what is not there, or miss that it did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audited import Audited, digits, noise
from numpy.typing import NDArray
from support import FakeContext, distil, distill_config, query_sets, recipe, tiny_network, train_config

from trainables import stages
from trainables.attacks import MEMBERSHIP_ATTACKS
from trainables.configs import MembershipAttackName, OriginConfig, PrivacyConfig, SignalsConfig
from trainables.data.cache import open_split
from trainables.data.origins import load_origin, origin_indices, query_indices
from trainables.evaluate.privacy.attacks import score
from trainables.evaluate.privacy.audit import evaluate_privacy
from trainables.evaluate.privacy.designs import Pool, learning_outputs, load_pool, row_origin
from trainables.evaluate.privacy.inputs import ShadowOutputs, Shadows, Target
from trainables.evaluate.privacy.roc import auc, null_reach
from trainables.methods import METHODS
from trainables.models.network import build
from trainables.payloads import TrainedModel
from trainables.train import predict

ON_LOGITS = [
    name for name, attack in MEMBERSHIP_ATTACKS.items() if attack.needs in ("logits", "shadow_outputs", "shadows")
]
SENSITIVE = [attack for attack in ON_LOGITS if attack != "correct"]
"""Digits are too easy for a network to be wrong about those it has not seen."""


# --- 10: networks that cannot know the members ------------------------------------------------------------------------

EACH, ROWS = 15, 6
ASKED = SignalsConfig(population=5, reserve=15)


@dataclass
class Trained:
    """Networks trained on the rows of a matrix, and two that have seen none of its pool."""

    pool: Pool
    strangers: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    """Logits (n, K) of the pool and (m, K) of the population."""
    learned: dict[int, tuple[Shadows, ShadowOutputs]] = field(default_factory=dict)
    """By target: what attacks learn from, once for all networks."""

    def target(self, row: int, name: str) -> Target:
        own, shadows = self.pool.target(row)
        self.learned.setdefault(row, (shadows, learning_outputs(shadows)))
        if name == "own":
            return own
        logits, population = self.strangers[name]
        return Target(logits, own.labels, population, own.population_labels)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    context = FakeContext(folder)
    context.data, context.cache = folder / "data", digits_cache
    place = (context.data, context.cache)
    labels = open_split(digits(), "train", *place).labels
    own = OriginConfig(kind="draw", per_class=EACH, draw=0, classes=tuple(range(10)))
    config = PrivacyConfig(
        dataset=digits(),
        origin=own,
        method="full",
        ipc=None,
        init=None,
        audit=("pool",),
        rows=ROWS,
        targets=3,
        shadows=0,
        attacks=("loss",),
        canaries=0,
        signals=ASKED,
        start=False,
    )
    network = tiny_network(10, width=16)

    def model(origin: OriginConfig, signals: SignalsConfig | None, seed: int) -> TrainedModel:
        asked = train_config(
            recipe(epochs=40, batch=32, weight_decay=0.0),
            seed=seed,
            dataset=digits(),
            origin=origin,
            on_origin=True,
            network=network,
            signals=signals,
            curve_points=0,
        )
        found = stages.run("train", asked, {}, context)
        assert isinstance(found, TrainedModel)
        return found

    inputs = {}
    for row in range(ROWS):
        inputs[f"row.{row}.model"] = folder / str(row)
        inputs[f"row.{row}.model"].mkdir()
        model(row_origin(config, row), ASKED, row).save(inputs[f"row.{row}.model"])
    pool = load_pool(config, inputs, "model", labels)

    # Of equal size, from the same draw, and outside the pool and the population.
    elsewhere = query_indices(row_origin(config, 0), ASKED, labels)["reserve"]
    assert not set(elsewhere.tolist()) & set(pool.ids.tolist())
    listed = OriginConfig(kind="listed", indices=tuple(elsewhere.tolist()), classes=own.classes)
    sets = query_sets(digits(), row_origin(config, 0), ASKED, *place, "cpu")
    untrained, unrelated = build(network, "untrained", "network", 9), build(network, "unrelated", "network", 9)
    unrelated.load_state_dict(model(listed, None, 9).state)
    strangers = {
        name: tuple(predict(one, sets[split].images).double().numpy() for split in ("pool", "population"))
        for name, one in (("untrained", untrained), ("unrelated", unrelated))
    }
    return Trained(pool, strangers)  # type: ignore[arg-type]


def aucs(real: Trained, attack: MembershipAttackName, name: str) -> list[float]:
    """Of three targets, none of them another's twin."""
    found = []
    for row in range(0, ROWS, 2):
        target = real.target(row, name)
        shadows, rows = real.learned[row]
        found.append(auc(score(attack, target, rows, shadows).values, real.pool.member[row]))
    return found


@pytest.mark.parametrize("name", ["untrained", "unrelated"])
@pytest.mark.parametrize("attack", ON_LOGITS)
def test_a_network_that_never_saw_the_pool_gives_nobody_away(
    attack: MembershipAttackName, name: str, real: Trained
) -> None:
    reach = null_reach(10 * EACH, 10 * EACH)
    found = aucs(real, attack, name)
    # Thirty numbers are looked at here: 1.6 of the 95 % reach is passed by chance once in 600 of them.
    assert abs(float(np.mean(found)) - 0.5) < 1.6 * reach / 3**0.5, found
    assert max(abs(value - 0.5) for value in found) < 2 * reach, found


@pytest.mark.parametrize("attack", SENSITIVE)
def test_the_same_attack_finds_the_members_of_a_network_that_saw_them(
    attack: MembershipAttackName, real: Trained
) -> None:
    """The control of the test above."""
    reach = null_reach(10 * EACH, 10 * EACH)
    assert np.mean(aucs(real, attack, "own")) > 0.5 + 1.6 * reach / 3**0.5


# --- 14: calibration images are nobody's candidates -------------------------------------------------------------------


def test_a_population_that_overlaps_the_pool_is_refused(tmp_path: Path, digits_cache: Path) -> None:
    small = SignalsConfig(population=3)
    made = Audited(tmp_path, digits_cache, per_class=6, rows=4, ipc=2, signals=small)
    made.write_pool(noise, sets=False)
    labels = open_split(digits(), "train", *made.place).labels
    load_pool(made.config(), made.inputs, "model", labels)
    for row in range(4):
        model = TrainedModel.load(made.inputs[f"row.{row}.model"])
        population = model.outputs["population"]
        ids = population.ids.clone()
        ids[0] = model.outputs["pool"].ids[0]
        outputs = {**model.outputs, "population": replace(population, ids=ids)}
        replace(model, outputs=outputs).save(made.inputs[f"row.{row}.model"])
    with pytest.raises(AssertionError, match="population, reserve and pool overlap"):
        load_pool(made.config(), made.inputs, "model", labels)


# --- 16: classes are equally many on either side ----------------------------------------------------------------------


def by_class_alone(ids: Any, labels: Any, member: Any, start: Any, rng: Any) -> NDArray[np.float64]:
    """Surer of the higher classes, and of nothing else."""
    logits = np.zeros((len(ids), int(labels.max()) + 1))
    logits[np.arange(len(ids)), labels] = 1.0 + labels
    return logits


@pytest.mark.parametrize("classes", [(3, 8), (0, 2, 4, 6, 9)])
def test_knowing_the_class_says_nothing_of_membership(
    classes: tuple[int, ...], tmp_path: Path, digits_cache: Path
) -> None:
    signals = SignalsConfig(population=3, reserve=3)
    made = Audited(tmp_path, digits_cache, per_class=12, rows=4, ipc=2, classes=classes, signals=signals)
    made.write_pool(by_class_alone)
    made.write_seed(by_class_alone)
    context = FakeContext(tmp_path)
    context.data, context.cache = made.place
    chosen: tuple[MembershipAttackName, ...] = ("loss", "entropy", "mentropy", "correct")
    metrics = evaluate_privacy(made.config(audit=("seed", "pool"), attacks=chosen, start=False), made.inputs, context)
    for source in ("pool", "test_balanced"):
        found = [
            row["value"]
            for row in metrics.rows
            if row["metric"] == "mia_auc" and row["nonmember_source"] == source and "member_role" not in row
        ]
        assert len(found) >= 4
        assert found == pytest.approx([0.5] * len(found), abs=1e-12)
    labels = metrics.details["pool.label"].numpy()
    for member in metrics.details["pool.member"].numpy().astype(bool):
        assert np.unique(labels[member], return_counts=True)[1].tolist() == [12] * len(classes)
    scores = metrics.details["pool.scores.loss"][0].numpy()
    uneven = np.random.default_rng(0).random(len(labels)) < np.where(labels == labels.max(), 0.8, 0.2)
    assert auc(scores, uneven) > 0.6, "the control: with classes in unequal shares it would say much"


# --- 17: a set starts from its own members ----------------------------------------------------------------------------

STARTS: list[tuple[str, dict[str, Any]]] = [("random", {})]
STARTS += [(name, {}) for name, method in METHODS.items() if "init" in method.uses]
STARTS += [("idc", {"layout": "mix"})]


@pytest.mark.parametrize(("name", "settings"), STARTS, ids=lambda value: str(value or "plain"))
def test_real_starts_are_images_of_the_row_that_was_asked_for(
    name: str, settings: dict[str, Any], tmp_path: Path, digits_cache: Path
) -> None:
    """Two twins after each other in one place: what is kept of the first must not reach the second."""
    split = open_split(digits(), "train", tmp_path / "data", digits_cache)
    if name != "random":
        settings = {**settings, "iterations": 0}
    taken = []
    for row in (2, 3):
        origin = OriginConfig(kind="pool", per_class=12, draw=1, row=row, classes=(1, 4, 7))
        config = distill_config(
            name,
            ipc=3,
            dataset=digits(),
            origin=origin,
            network=tiny_network() if name != "random" else None,
            **settings,
        )
        images = load_origin(digits(), origin, tmp_path / "data", digits_cache, "cpu")
        found = distil(config, FakeContext(tmp_path / "shared", keep=False), images)
        named = found.indices[found.indices >= 0].unique().numpy()
        assert len(named) == 9 * (4 if settings.get("layout") == "mix" else 1)
        assert set(named.tolist()) <= set(origin_indices(origin, split.labels).tolist())
        if found.indices.ndim == 1:  # whole images: their content is that of the numbers
            pixels = torch.from_numpy(split.images[found.indices.numpy()]).float() / 255
            torch.testing.assert_close(found.images, pixels, rtol=0, atol=1e-6)
            assert (split.labels[found.indices.numpy()] == np.array([1, 4, 7])[found.labels.classes.numpy()]).all()
        taken.append(set(named.tolist()))
    assert not taken[0] & taken[1]
