"""The stage privacy, from folders to rows: what is known to leak is found, and nothing is found where nothing leaks."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audited import Audited, digits, exposing, noise
from sklearn.metrics import roc_auc_score
from support import FakeContext, dataset_config, digits_config, folder_bytes, recipe, tiny_network, train_config

from ddray.measurements.buffer import Templates
from trainables import stages
from trainables.attacks import MEMBERSHIP_ATTACKS, MembershipAttack
from trainables.configs import DistillConfig, OriginConfig, PrivacyConfig, SignalsConfig, TrainConfig
from trainables.context import Interrupted
from trainables.data import origins
from trainables.data.cache import Split, open_split
from trainables.data.pixels import Whitening, decode, decode_labels, fit_whitening, normalise
from trainables.evaluate.intervals import Integers, Row
from trainables.evaluate.privacy import designs
from trainables.evaluate.privacy.attacks import score
from trainables.evaluate.privacy.audit import evaluate_privacy
from trainables.evaluate.privacy.blind import blind_scores
from trainables.evaluate.privacy.designs import row_origin
from trainables.evaluate.privacy.inputs import Target
from trainables.evaluate.privacy.release import nearness
from trainables.files import CANARY, INIT, NON_MEMBER, OTHER
from trainables.labels import HardLabels
from trainables.models.network import build
from trainables.payloads import DistilledSet, Metrics, TrainedModel
from trainables.train import predict, train

ON_LOGITS = tuple(attack for attack in MEMBERSHIP_ATTACKS if attack not in ("data_release", "blind"))


def context_of(made: Audited) -> FakeContext:
    context = FakeContext(made.folder)
    context.data, context.cache = made.place
    return context


def evaluate(made: Audited, **other: Any) -> Metrics:
    return evaluate_privacy(made.config(**other), made.inputs, context_of(made))


def rows_where(metrics: Metrics, **wanted: Any) -> list[Row]:
    """Rows with these columns; None: without them. Of the trained models, unless ``iteration`` is asked for."""
    wanted = {"iteration": None, **wanted}
    return [row for row in metrics.rows if all(row.get(name) == value for name, value in wanted.items())]


def headline(metrics: Metrics, attack: str, metric: str = "mia_auc", **wanted: Any) -> Row:
    """The row about all candidates of all targets."""
    found = [
        row
        for row in rows_where(metrics, attack=attack, metric=metric, member_role=wanted.pop("member_role", None))
        if row.get("agg") != "pooled"
        and "repeat" not in row
        and "variant" not in row
        and all(row.get(name) == value for name, value in wanted.items())
    ]
    (row,) = found
    return row


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> tuple[Audited, Metrics]:
    """Images in the set are exposed, other members not at all: what training on published images does."""
    made = Audited(tmp_path_factory.mktemp("leaking"), digits_cache, rows=8, shadows=1)
    made.write_pool(exposing(25), start=noise)
    made.write_seed(exposing(25))
    return made, evaluate(made, audit=("seed", "pool"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Audited:
    """Like ``leaking``, for what does not need many images."""
    asked = SignalsConfig(population=5, reserve=5)
    made = Audited(
        tmp_path_factory.mktemp("small"), digits_cache, per_class=10, rows=6, shadows=1, ipc=3, signals=asked
    )
    made.write_pool(exposing(25), start=noise)
    made.write_seed(exposing(25))
    return made


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> tuple[Audited, Metrics]:
    made = Audited(tmp_path_factory.mktemp("silent"), digits_cache, rows=8, shadows=1)
    made.write_pool(noise)
    made.write_seed(noise)
    return made, evaluate(made, audit=("seed", "pool"), attacks=(*ON_LOGITS, "blind"))


# --- what leaks is found ---


def test_exposed_images_are_found_and_the_others_are_not(leaking: tuple[Audited, Metrics]) -> None:
    metrics = leaking[1]
    for attack in ("loss", "shokri", "lira_online", "lira_offline", "rmia", "data_release"):
        total = headline(metrics, attack, audit="pool", nonmember_source="pool")
        init = headline(metrics, attack, audit="pool", member_role="member_init")
        other = headline(metrics, attack, audit="pool", member_role="member_other")
        rho = headline(metrics, attack, "mia_rho", audit="pool")
        assert rho["value"] == 0.25
        assert init["value"] >= 0.98 - 0.05 * (attack == "rmia"), attack  # a ratio of averages over few IN shadows
        assert abs(other["value"] - 0.5) < 0.05, attack
        assert abs(total["value"] - (0.5 + 0.25 / 2)) < 0.04, attack
        assert total["value"] == pytest.approx(0.25 * init["value"] + 0.75 * other["value"], abs=1e-12)
        assert total["ci_low"] <= total["value"] <= total["ci_high"]
        assert total["ci_unit"] == "targets"
        assert (total["n"], total["n_pos"], total["prior"]) == (800, 400, 0.5)
        k = headline(metrics, attack, "mia_k", audit="pool")
        assert k["value"] == pytest.approx(2 * 40 * (total["value"] - 0.5))
        assert 6 < k["value"] < 14  # ipc 10 images per class are published


@pytest.mark.parametrize("distance", ["relative", "features"])
def test_published_images_are_found_by_any_distance(leaking: tuple[Audited, Metrics], distance: str) -> None:
    for audit, source in (("pool", "pool"), ("seed", "test_balanced")):
        asked = {"attack": "data_release", "metric": "mia_auc", "audit": audit, "nonmember_source": source}
        by_role = {
            row.get("member_role"): row["value"]
            for row in rows_where(leaking[1], distance=distance, **asked)
            if "repeat" not in row
        }
        assert by_role["member_init"] > 0.98
        assert abs(by_role["member_other"] - 0.5) < 0.06
        assert by_role[None] == pytest.approx(0.25 * by_role["member_init"] + 0.75 * by_role["member_other"], abs=1e-12)


def test_nothing_is_above_the_ceiling(leaking: tuple[Audited, Metrics]) -> None:
    metrics = leaking[1]
    tops = rows_where(metrics, metric="mia_auc_ceiling", audit="pool")
    assert {row["attack"] for row in tops} == {*ON_LOGITS, "data_release"}
    assert {row["value"] for row in tops} == {0.625}
    assert not [row for row in metrics.rows if row.get("flag") == "above_ceiling"]
    for attack in (*ON_LOGITS, "data_release"):
        low = headline(metrics, attack, "mia_auc_null_low", audit="pool")["value"]
        high = headline(metrics, attack, "mia_auc_null_high", audit="pool")["value"]
        assert headline(metrics, attack, audit="pool", nonmember_source="pool")["value"] < 0.625 + (high - low) / 2


def test_the_seed_audit_finds_the_same_against_test_images(leaking: tuple[Audited, Metrics]) -> None:
    metrics = leaking[1]
    for source, others in (("test", 500), ("test_balanced", 400)):
        for attack in ("loss", "shokri", "data_release"):
            row = headline(metrics, attack, audit="seed", nonmember_source=source)
            assert abs(row["value"] - 0.625) < 0.06
            assert (row["n_pos"], row["n_neg"], row["ci_unit"]) == (400, others, "images")
            init = headline(metrics, attack, audit="seed", nonmember_source=source, member_role="member_init")
            assert init["value"] > 0.97
    shokri = headline(metrics, "shokri", audit="seed", nonmember_source="test")
    assert (shokri["n_shadows"], shokri["shadow_kind"], shokri["shadow_fidelity"]) == (1, "distilled", "full")
    assert shokri["threat_model"] == "blackbox"
    assert {row["attack"]: row["threat_model"] for row in rows_where(metrics, audit="seed") if row.get("attack")} == {
        **dict.fromkeys(MEMBERSHIP_ATTACKS, "blackbox"),
        "correct": "label_only",
        "data_release": "data_release",
        "blind": "none",
    }
    for attack, lacking in (("lira_online", "two IN shadows"), ("lira_offline", "two OUT shadows")):
        (row,) = rows_where(metrics, attack=attack, audit="seed")
        assert (row["value"], row["flag"]) == (None, "not_applicable")
        assert lacking in row["reason"]


def test_rows_of_the_start_stand_beside_the_others(leaking: tuple[Audited, Metrics]) -> None:
    metrics = leaking[1]
    start = [row for row in metrics.rows if row.get("iteration") == 0]
    assert {row["attack"] for row in start if "attack" in row} == {*ON_LOGITS, "data_release"}
    (near,) = [row for row in start if row.get("attack") == "data_release"]
    assert (near["value"], near["flag"], near["threat_model"]) == (None, "not_applicable", "data_release")
    assert "the model, not the images" in near["reason"]
    (auc,) = [
        row
        for row in start
        if row["metric"] == "mia_auc"
        and row["attack"] == "loss"
        and "repeat" not in row
        and "member_role" not in row
        and row["nonmember_source"] == "pool"
    ]
    assert abs(auc["value"] - 0.5) < 0.05  # the start was made to leak nothing, the trained models much
    assert "pool.start.scores.loss" in metrics.details


def test_every_row_can_be_told_from_every_other(leaking: tuple[Audited, Metrics], tmp_path: Path) -> None:
    metrics = leaking[1]
    metrics.save(tmp_path)
    rows = Metrics.load(tmp_path).rows
    template = Templates().split([dict(row) for row in rows]).template
    assert len({bytes(each) for each in template.hashes}) == len(rows) > 500
    for row in rows:
        assert {"property", "metric", "value", "unit", "n", "audit"} <= set(row)
        assert row["value"] is not None or row["flag"] in ("not_applicable", "low_resolution", "degenerate")
        assert ("ci_low" in row) == ("ci_unit" in row)


def test_details_hold_what_the_numbers_were_made_of(leaking: tuple[Audited, Metrics]) -> None:
    made, metrics = leaking
    details = {name: tensor.numpy() for name, tensor in metrics.details.items()}
    member, targets, roles = details["pool.member"], details["pool.target_row"], details["pool.role"]
    assert member.shape == (8, 800)
    assert targets.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(member[::2] + member[1::2], 1)
    for attack in ON_LOGITS:
        scores = details[f"pool.scores.{attack}"]
        assert scores.shape == (3, 800)
        aucs = [roc_auc_score(member[row], values) for row, values in zip(targets, scores, strict=True)]
        value = headline(metrics, attack, audit="pool", nonmember_source="pool")["value"]
        assert np.mean(aucs) == pytest.approx(value, abs=1e-12)
    assert ((roles <= OTHER) == member[targets].astype(bool)).all()
    assert ((roles == INIT).sum(1) == 100).all()
    assert details["pool.reserve_scores.calib"].shape == (3, 200)
    assert "pool.reserve_scores.lira_online" not in details  # it needs shadows that hold an image
    seed = {name.removeprefix("seed."): values for name, values in details.items() if name.startswith("seed.")}
    assert seed["is_member"].sum() == 400
    assert (seed["from_test"] == 1 - seed["is_member"]).all()
    value = headline(metrics, "loss", audit="seed", nonmember_source="test")["value"]
    assert roc_auc_score(seed["is_member"], seed["scores.loss"]) == pytest.approx(value, abs=1e-12)
    chosen = seed["balanced"] == 1
    value = headline(metrics, "loss", audit="seed", nonmember_source="test_balanced")["value"]
    assert roc_auc_score(seed["is_member"][chosen], seed["scores.loss"][chosen]) == pytest.approx(value, abs=1e-12)
    assert (np.bincount(seed["label"][chosen & (seed["from_test"] == 1)]) == 40).all()
    labels = open_split(digits(), "train", *made.place).labels
    np.testing.assert_array_equal(labels[details["pool.example_id"]], details["pool.label"])


def test_the_reserve_gives_low_false_positive_rates(leaking: tuple[Audited, Metrics]) -> None:
    metrics = leaking[1]
    rows = rows_where(metrics, nonmember_source="reserve", metric="mia_auc", agg="mean_targets", audit="pool")
    assert {row["attack"] for row in rows} == {*ON_LOGITS, "data_release"} - {"lira_online"}
    assert all(row["n_neg"] == 200 for row in rows)
    assert [row["rmia_mode"] for row in rows if row["attack"] == "rmia"] == ["offline"]


def test_accuracy_stands_beside_every_leak(leaking: tuple[Audited, Metrics]) -> None:
    made, metrics = leaking
    rows = rows_where(metrics, metric="mia_target_test_acc", audit="pool")
    assert [row.get("target_row") for row in rows] == [0, 2, 4, None]
    test = TrainedModel.load_outputs(made.inputs["row.2.model"])["test"]
    assert rows[1]["value"] == float((test.logits.argmax(1) == test.labels).double().mean())
    assert rows[3]["value"] == pytest.approx(np.mean([row["value"] for row in rows[:3]]))
    assert len(rows_where(metrics, metric="mia_target_test_acc", audit="seed")) == 1


# --- nothing is found where nothing leaks ---


@pytest.mark.parametrize("audit", ["pool", "seed"])
def test_noise_lies_inside_the_band_for_every_attack(silent: tuple[Audited, Metrics], audit: str) -> None:
    metrics = silent[1]
    seen = set()
    for row in rows_where(metrics, metric="mia_auc", audit=audit, member_role=None, repeat=None):
        if row["value"] is None or row.get("agg") == "pooled" or row["nonmember_source"] == "reserve":
            continue
        same = {name: row.get(name) for name in ("attack", "nonmember_source", "variant")}
        (low,) = rows_where(metrics, metric="mia_auc_null_low", audit=audit, **same)
        (high,) = rows_where(metrics, metric="mia_auc_null_high", audit=audit, **same)
        centre, reach = (high["value"] + low["value"]) / 2, (high["value"] - low["value"]) / 2
        # Some thirty numbers are looked at here; 1.6 of the 95 % reach is passed by chance once in 600 of them.
        assert abs(row["value"] - centre) < 1.6 * reach, row
        seen.add(row["attack"])
    expected = {*ON_LOGITS, "blind"}
    assert seen == (expected if audit == "pool" else expected - {"lira_online", "lira_offline"})


def test_the_band_is_wider_for_attacks_that_shadows_teach(silent: tuple[Audited, Metrics]) -> None:
    """Eight rows, three targets."""
    widths = {}
    for attack in ON_LOGITS:
        low, high = (
            headline(silent[1], attack, f"mia_auc_null_{end}", audit="pool")["value"] for end in ("low", "high")
        )
        widths[attack] = high - low
    narrow = widths.pop("loss")
    for attack, width in widths.items():
        factor = (1 + 2 / 3) ** 0.5 if attack in ("lira_online", "shokri") else 1
        assert width == pytest.approx(factor * narrow), attack


def test_no_threshold_has_the_reason_of_its_own(silent: tuple[Audited, Metrics], small: Audited) -> None:
    missing = rows_where(silent[1], metric="mia_bacc", value=None, audit="pool", nonmember_source="pool")
    assert {(row["attack"], row.get("variant")) for row in missing} == {("rmia", "offline")}
    assert "first variant alone" in missing[0]["reason"]
    metrics = evaluate(small, attacks=("data_release",))
    missing = rows_where(metrics, metric="mia_adv")
    assert missing
    for row in missing:
        assert "shadows are not attacked" in row["reason"]


def test_no_score_depends_on_what_target_and_twin_say_as_shadows(small: Audited, tmp_path: Path) -> None:
    before = evaluate(small, attacks=ON_LOGITS).details
    # Why the twin must go: with it among the shadows, counting in how many of them an image is IN tells who is a
    # member of the target.
    member = before["pool.member"].numpy()
    counts = np.delete(member, 0, axis=0).sum(0)
    assert roc_auc_score(member[0], -counts.astype(float)) == 1.0
    assert set(np.delete(member, [0, 1], axis=0).sum(0).tolist()) == {2}

    def shouting(*told: Any) -> Any:
        return 9 * noise(*told)

    def changed(row: int) -> dict[str, bool]:
        """Whether another model in that row changes an attack's scores of row 0."""
        other = Audited(tmp_path / str(row), small.cache, per_class=10, ipc=3, signals=small.signals)
        other.inputs = {role: path for role, path in small.inputs.items() if ".start" not in role}
        other.write_model(f"row.{row}", shouting)
        after = evaluate(other, attacks=ON_LOGITS).details
        names = [name for name in after if "scores." in name]
        assert len(names) > 20
        return {name: not torch.equal(after[name][0], before[name][0]) for name in names}

    assert not any(changed(1).values())  # the twin
    by_shadow = changed(3)
    learned = [attack for attack in ON_LOGITS if MEMBERSHIP_ATTACKS[attack].needs != "logits"]
    assert all(by_shadow[f"pool.scores.{attack}"] for attack in learned)
    assert not any(by_shadow[f"pool.scores.{attack}"] for attack in ON_LOGITS if attack not in learned)


def test_blind_tells_two_distributions_apart_and_one_not(digits_cache: Path, tmp_path: Path) -> None:
    split = open_split(digits(), "train", tmp_path, digits_cache)
    rng = np.random.default_rng(0)
    member = np.zeros(len(split.labels), dtype=np.bool_)
    for label in range(10):
        places = np.flatnonzero(split.labels == label)
        member[rng.choice(places, len(places) // 2, replace=False)] = True
    same = blind_scores(split.images[:], split.labels, member, seed_parts=(0,))
    assert abs(roc_auc_score(member, same.scores) - same.centre) < same.reach
    assert 0.02 < same.reach < 0.06
    paler = np.where(member[:, None, None, None], split.images // 8 * 7, split.images).astype(np.uint8)
    other = blind_scores(paler, split.labels, member, seed_parts=(0,))
    assert roc_auc_score(member, other.scores) > other.centre + 2 * other.reach
    again = blind_scores(paler, split.labels, member, seed_parts=(0,))
    np.testing.assert_array_equal(other.scores, again.scores)


def test_the_band_of_the_control_holds_what_it_promises() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 40)
    inside = 0
    for trial in range(60):
        images = rng.integers(0, 256, (160, 1, 8, 8)).astype(np.uint8)
        member = np.concatenate([rng.permutation(40) < 20 for _ in range(4)])
        found = blind_scores(images, labels, member, seed_parts=(trial,))
        inside += abs(roc_auc_score(member, found.scores) - found.centre) < found.reach
    assert 52 <= inside <= 60  # 57 expected


def test_the_control_does_not_mind_numbers_of_classes_that_are_missing() -> None:
    """A list of members may hold images of some classes only."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
    labels, member = np.repeat([0, 1], 20), np.tile([True, False], 20)
    expected = blind_scores(images, labels, member, seed_parts=(0,))
    found = blind_scores(images, np.array([3, 8])[labels], member, seed_parts=(0,))
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.reach == expected.reach


# --- rows that cannot be had ---


def test_what_does_not_apply_gives_a_row_with_the_reason(small: Audited) -> None:
    unfit = {"pool": "twice 3000 images", "one_run": "coins"}
    metrics = evaluate(small, audit=("seed",), unfit=unfit, shadows=0, attacks=("loss", "shokri", "data_release"))
    rows = {row["audit"]: row for row in metrics.rows if row["audit"] in unfit}
    assert {audit: row["reason"] for audit, row in rows.items()} == unfit
    assert all(row["value"] is None and row["flag"] == "not_applicable" for row in rows.values())
    assert rows["one_run"]["metric"] == "mia_eps_lb"
    (row,) = rows_where(metrics, attack="shokri")
    assert "there are none" in row["reason"]
    assert rows_where(metrics, attack="loss", metric="mia_bacc")[0]["flag"] == "not_applicable"


def test_two_shadows_have_no_variance(digits_cache: Path, tmp_path: Path) -> None:
    made = Audited(tmp_path, digits_cache, per_class=8, rows=4, ipc=2, signals=SignalsConfig())
    made.write_pool(noise)
    metrics = evaluate(made, attacks=("lira_online", "rmia", "calib"))
    (row,) = rows_where(metrics, attack="lira_online")
    assert row["value"] is None
    assert "two IN shadows" in row["reason"]
    assert headline(metrics, "calib")["n_shadows"] == 2
    assert not rows_where(metrics, nonmember_source="reserve")


def test_the_full_data_release_no_set(digits_cache: Path, tmp_path: Path) -> None:
    made = Audited(tmp_path, digits_cache, per_class=8, rows=6, shadows=1, signals=SignalsConfig(population=5))
    made.write_pool(exposing(0, 4), sets=False)
    made.write_seed(exposing(0, 4), sets=False)
    chosen = ("loss", "shokri", "data_release")
    metrics = evaluate(made, audit=("seed", "pool"), method="full", ipc=None, attacks=chosen)
    for row in rows_where(metrics, attack="data_release"):
        assert row["flag"] == "not_applicable"
        assert "no set is released" in row["reason"]
    assert headline(metrics, "loss", audit="pool", member_role="member_init")["value"] is None
    assert headline(metrics, "loss", audit="pool")["value"] > 0.9
    assert headline(metrics, "shokri", audit="pool")["shadow_kind"] == "direct"
    assert not rows_where(metrics, metric="mia_auc_ceiling")
    assert not [row for row in metrics.rows if row.get("iteration") == 0]


# --- a further attack is a record and its function ---


def test_a_further_attack_is_a_record_and_its_function(small: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    record = MembershipAttack(name="margin", title="Margin", needs="logits", score=f"{__name__}:margin")
    monkeypatch.setitem(MEMBERSHIP_ATTACKS, "margin", record)
    monkeypatch.setitem(sys.modules, __name__, types.SimpleNamespace(margin=margin))  # type: ignore[arg-type]
    config = small.config(audit=("seed", "pool"), attacks=("loss",)).model_copy(update={"attacks": ("margin",)})
    metrics = evaluate_privacy(config, small.inputs, context_of(small))
    assert headline(metrics, "margin", audit="pool", nonmember_source="pool")["value"] > 0.6
    assert headline(metrics, "margin", audit="seed", nonmember_source="test")["threat_model"] == "blackbox"
    assert metrics.details["pool.scores.margin"].shape == (3, 200)


def margin(logits: Any, labels: Any) -> Any:
    """The label's logit less the second largest."""
    return np.take_along_axis(logits, labels[:, None], axis=1)[:, 0] - np.sort(logits, axis=1)[:, -2]


# --- canaries, coins, order ---


def test_canaries_are_reported_on_their_own(digits_cache: Path, tmp_path: Path) -> None:
    made = Audited(tmp_path, digits_cache, per_class=12, rows=6, canaries=40, ipc=3, signals=SignalsConfig())
    labels = open_split(digits(), "train", *made.place).labels

    def memorised_canaries(ids: Any, as_trained: Any, member: Any, start: Any, rng: Any) -> Any:
        # In training, canaries alone are told by heart; in the test split no image is one.
        known = ids < len(labels)
        wrong = known & (np.where(known, labels[np.minimum(ids, len(labels) - 1)], as_trained) != as_trained)
        return exposing(30)(ids, as_trained, member, member & wrong, rng)

    made.write_pool(memorised_canaries)
    metrics = evaluate(made, attacks=("loss",))
    assert (metrics.details["pool.role"] == CANARY).sum(1).tolist() == [40, 40, 40]
    row = headline(metrics, "loss", member_role="canary")
    assert row["value"] == 1.0
    assert 30 <= row["n"] <= 40  # of the target with the fewest on either side
    plain = headline(metrics, "loss", nonmember_source="pool")
    assert 190 <= plain["n"] <= 240 - 40
    assert abs(plain["value"] - 0.5) < 0.12


def test_one_run_bounds_epsilon_from_below(digits_cache: Path, tmp_path: Path) -> None:
    bounds = {}
    for name, says in (("leaking", exposing(30, 30)), ("silent", noise)):
        made = Audited(tmp_path / name, digits_cache)
        made.write_set("coin")
        made.write_model("coin", says)
        metrics = evaluate(made, audit=("one_run",), attacks=("loss", "shokri", "data_release", "blind"))
        (bound,) = rows_where(metrics, metric="mia_eps_lb", attack="loss")
        bounds[name] = bound["value"]
        assert 300 < bound["n_pos"] < 500
        assert bound["n"] == 800
        (shokri,) = rows_where(metrics, attack="shokri")
        assert (shokri["metric"], shokri["flag"]) == ("mia_eps_lb", "not_applicable")
        released = rows_where(metrics, metric="mia_eps_lb", attack="data_release")
        assert [row["distance"] for row in released] == ["pixel", "relative", "features"]
        assert min(row["value"] for row in released) > 0  # real images are released
        assert metrics.details["one_run.is_member"].sum() == bound["n_pos"]
    assert bounds["leaking"] > 3
    assert bounds["silent"] == 0


def test_equal_inputs_give_equal_bytes(small: Audited, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        np.random.seed(len(name))  # noqa: NPY002 - global state must not matter
        torch.manual_seed(len(name))
        chosen = ("loss", "shokri", "lira_online", "rmia", "data_release", "blind")
        evaluate(small, audit=("seed", "pool"), attacks=chosen).save(tmp_path / name)
    assert folder_bytes(tmp_path / "first") == folder_bytes(tmp_path / "second")


def test_it_gives_way_between_attacks(small: Audited) -> None:
    context = context_of(small)
    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls == 5:
            raise Interrupted

    context.poll = poll  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        evaluate_privacy(small.config(attacks=ON_LOGITS[:4], targets=1), small.inputs, context)


# --- the attack on the released images ---


def test_nearness_is_the_distance_to_the_nearest_of_the_class() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 3, 6, 6)).astype(np.uint8)
    labels = rng.integers(0, 3, 50)
    stored = torch.from_numpy(rng.normal(0.5, 0.4, (4, 3, 6, 6))).float()
    released = DistilledSet(stored, HardLabels(torch.tensor([0, 0, 1, 1])), torch.full((4,), -1), {"factor": 2})
    (near,) = nearness(images, labels, [released], dataset_config(3, images.shape[-1], images.shape[1]))
    shown, classes = decode(stored, 2).double().numpy(), decode_labels(released.labels.classes, 2).numpy()
    assert len(shown) == 16
    for index in range(50):
        distances = np.square(shown - images[index] / 255).mean((1, 2, 3))
        own = distances[classes == labels[index]]
        if labels[index] == 2:
            assert {scores[index] for scores in near} == {np.finfo(np.float64).min}
            continue
        assert near.pixel[index] == pytest.approx(-own.min())
        assert near.relative[index] == pytest.approx(-own.min() / distances.mean())


def test_an_image_in_the_set_is_nearest_of_all() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8)).astype(np.uint8)
    released = DistilledSet(
        torch.from_numpy(images[:5]).float() / 255,
        HardLabels(torch.zeros(5, dtype=torch.int64)),
        torch.arange(5),
        {"factor": 1},
    )
    (near,) = nearness(
        images, np.zeros(30, dtype=np.int64), [released], dataset_config(3, images.shape[-1], images.shape[1])
    )
    for scores in near:
        assert scores[:5].min() > -1e-9 > -1e-3 > scores[5:].max()


def set_of(images: torch.Tensor, labels: Integers, whitening: Whitening | None = None) -> DistilledSet:
    return DistilledSet(
        images, HardLabels(torch.from_numpy(labels)), torch.full((len(labels),), -1), {"factor": 1}, whitening=whitening
    )


def test_features_find_what_pixels_hide(digits_cache: Path, tmp_path: Path) -> None:
    """A set of members with little contrast: in pixels they are far from themselves, in features they are not."""
    digits = digits_config()
    split = open_split(digits, "train", tmp_path, digits_cache)
    images, labels = split.images[:200], split.labels[:200]
    member = np.arange(200) % 2 == 0
    mean = digits.mean[0]
    paler = mean + 0.3 * (torch.tensor(images[member]).float() / 255 - mean)
    (near,) = nearness(images, labels, [set_of(paler, labels[member])], digits)
    found = {distance: roc_auc_score(member, scores) for distance, scores in near._asdict().items()}
    assert found["features"] > 0.95
    assert found["pixel"] < 0.75


def test_features_find_nothing_where_nothing_was_released(digits_cache: Path, tmp_path: Path) -> None:
    digits = digits_config()
    split = open_split(digits, "train", tmp_path, digits_cache)
    order = np.random.default_rng(0).permutation(len(split.labels))
    candidates, elsewhere = order[:800], order[800:900]
    released = set_of(torch.from_numpy(split.images[elsewhere]).float() / 255, split.labels[elsewhere])
    (near,) = nearness(split.images[candidates], split.labels[candidates], [released], digits)
    member = np.arange(800) % 2 == 0
    for distance, scores in near._asdict().items():
        assert abs(roc_auc_score(member, scores) - 0.5) < 0.06, distance  # three standard errors of no leak


def test_every_candidate_and_every_set_is_looked_at_by_itself() -> None:
    """Company changes nothing but the last digits, in one chunk or several."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (1100, 1, 8, 8)).astype(np.uint8), rng.integers(0, 3, 1100)
    sets = [set_of(torch.from_numpy(rng.random((6, 1, 8, 8))).float(), np.arange(6) % 3) for _ in range(2)]
    together = nearness(images, labels, sets, dataset_config())
    for released, found in zip(sets, together, strict=True):
        (alone,) = nearness(images[1000:], labels[1000:], [released], dataset_config())
        for name, scores in alone._asdict().items():
            assert scores == pytest.approx(getattr(found, name)[1000:], rel=1e-4), name
    assert not np.allclose(together[0].features, together[1].features)


def test_random_networks_see_what_networks_are_trained_on() -> None:
    """Candidates and set are whitened alike, so that a candidate in the set is still nearest of all."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 1, 8, 8)).astype(np.uint8), np.zeros(30, dtype=np.int64)
    shown = torch.from_numpy(images[:5]).float() / 255
    dataset = dataset_config()
    whitening = fit_whitening(
        normalise(torch.from_numpy(images).float() / 255, dataset.mean, dataset.std), dataset.mean, dataset.std
    )
    plain, whitened = nearness(
        images, labels, [set_of(shown, labels[:5]), set_of(shown, labels[:5], whitening)], dataset
    )
    assert np.array_equal(plain.pixel, whitened.pixel)
    assert not np.allclose(plain.features[5:], whitened.features[5:])
    assert whitened.features[:5].min() > -1e-9 > -1e-3 > whitened.features[5:].max()


@pytest.mark.parametrize("size", [4, 6, 28, 128])
def test_random_networks_take_images_of_any_size(size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, size, size)).astype(np.uint8)
    released = set_of(torch.from_numpy(images[:2]).float() / 255, np.zeros(2, dtype=np.int64))
    (near,) = nearness(images, np.zeros(4, dtype=np.int64), [released], dataset_config(3, size))
    assert near.features[:2].min() > -1e-9 > -1e-3 > near.features[2:].max()


# --- controls on networks, and the whole way ---


def test_an_overfit_network_gives_its_members_away_and_an_untrained_one_nothing(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    images, labels = torch.randn(80, 1, 8, 8, generator=chance), torch.randint(0, 3, (80,), generator=chance)
    member = np.arange(80) < 40
    config = train_config(recipe(epochs=60, lr=0.05, weight_decay=0.0), network=tiny_network(width=16))
    test = origins.TestSet(images[40:], labels[40:], torch.arange(40))
    model = train(config, images[:40], labels[:40], test, FakeContext(tmp_path))
    assert model.info["train_acc"] == 1.0
    network = build(config.network, "train", "network", config.seed)

    def loss_auc() -> float:
        target = Target(predict(network, images).double().numpy(), labels.numpy())
        return float(roc_auc_score(member, score("loss", target).values))

    untrained = loss_auc()
    network.load_state_dict(model.state)
    assert loss_auc() > 0.95
    assert abs(untrained - 0.5) < 0.127  # the null band of 40 against 40


def test_a_whole_audit_of_random_images(tmp_path: Path, digits_cache: Path) -> None:
    """Six rows of ``random``: chosen, trained, attacked. Of 12 members of a class, 6 are trained on."""
    context = FakeContext(tmp_path)
    context.data, context.cache = tmp_path / "data", digits_cache
    classes = (1, 4, 7)
    own = OriginConfig(kind="draw", per_class=12, draw=0, classes=classes)
    signals = SignalsConfig(population=10, reserve=10)
    config = PrivacyConfig(
        dataset=digits(),
        origin=own,
        method="random",
        ipc=6,
        init=None,
        audit=("pool",),
        rows=6,
        targets=3,
        shadows=0,
        attacks=("loss", "shokri", "lira_offline", "data_release", "blind"),
        canaries=0,
        signals=signals,
        start=True,
    )
    inputs: dict[str, Path] = {}

    def stage(role: str, kind: Any, asked: Any, **given: Path) -> None:
        inputs[role] = tmp_path / role
        inputs[role].mkdir()
        stages.run(kind, asked, given, context).save(inputs[role])

    for row in range(6):
        origin = row_origin(config, row)
        distill = DistillConfig(
            method="random",
            method_version=1,
            dataset=digits(),
            origin=origin,
            ipc=6,
            init=None,
            augmentation=None,
            network=None,
            settings={},
            distill_seed=0,
        )
        training = TrainConfig(
            dataset=digits(),
            origin=origin,
            on_origin=False,
            network=tiny_network(3, width=16),
            seed=row,
            recipe=recipe(epochs=40, batch=18),
            curve_points=0,
            signals=signals,
        )
        stage(f"row.{row}.set", "distill", distill)
        stage(f"row.{row}.model", "train", training, set=inputs[f"row.{row}.set"])
    metrics = stages.run("privacy", config, inputs, context)
    assert isinstance(metrics, Metrics)
    assert headline(metrics, "data_release", member_role="member_init")["value"] == 1.0
    init = headline(metrics, "loss", member_role="member_init")
    other = headline(metrics, "loss", member_role="member_other")
    assert init["n_pos"] == 18
    assert init["value"] > 0.6  # trained on
    assert abs(other["value"] - 0.5) < 0.25  # never seen
    assert init["value"] > other["value"] + 0.1
    assert (metrics.details["pool.role"] == NON_MEMBER).sum(1).tolist() == [36] * 3
    assert headline(metrics, "blind")["value"] is not None


# --- identical images ---


def with_copies(made: Audited, monkeypatch: pytest.MonkeyPatch, pairs: dict[str, list[tuple[int, int]]]) -> None:
    """Make images of a split the same as training images: (index in the split, training image)."""

    def changed(dataset: Any, split: str, data: Path, cache: Path) -> Split:
        whole = open_split(dataset, split, data, cache)  # type: ignore[arg-type]
        train = open_split(dataset, "train", data, cache)
        images = np.array(whole.images)
        for index, original in pairs.get(split, ()):
            images[index] = train.images[original]
        return Split(images, whole.labels)

    monkeypatch.setattr(designs, "open_split", changed)


def members_of(made: Audited, role: str) -> Integers:
    return origins.origin_indices(made.origin_of(role), open_split(digits(), "train", *made.place).labels)


def test_test_images_that_are_members_are_no_non_members(small: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"audit": ("seed",), "attacks": ("loss",), "start": False}
    plain = headline(evaluate(small, **asked), "loss", audit="seed", nonmember_source="test")
    assert (plain["n_pos"], plain["n_neg"], plain.get("left_out")) == (100, 500, None)
    members = members_of(small, "seed").tolist()
    others = [index for index in range(200) if index not in members]
    copies = [(100 + place, index) for place, index in enumerate([*members[:60], *others[:30]])]
    with_copies(small, monkeypatch, {"test": copies})
    found = evaluate(small, **asked)
    row = headline(found, "loss", audit="seed", nonmember_source="test")
    assert (row["n_pos"], row["n_neg"], row["left_out"]) == (100, 440, 60)  # copies of non-members may stay
    left = found.details["seed.example_id"][found.details["seed.from_test"] == 1].tolist()
    assert not set(left) & set(range(100, 160))
    with_copies(small, monkeypatch, {"test": [(index, members[0]) for index in range(500)]})
    with pytest.raises(ValueError, match=r"audit seed: all 500 images that could be non-members are identical"):
        evaluate(small, **asked)


def test_images_that_are_in_a_pool_twice_are_no_candidates(small: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"audit": ("pool",), "attacks": ("loss", "lira_online", "data_release"), "start": False}
    pool = evaluate(small, **asked).details["pool.example_id"].tolist()
    assert len(pool) == 200
    signals = origins.query_indices(row_origin(small.config(), 0), small.signals, labels_of(small))
    reserve = signals["reserve"].tolist()
    with_copies(small, monkeypatch, {"train": [(pool[0], pool[7]), (pool[1], pool[7]), (reserve[0], pool[9])]})
    found = evaluate(small, **asked)
    assert sorted(set(pool) - set(found.details["pool.example_id"].tolist())) == sorted([*pool[:2], pool[7], pool[9]])
    assert len(found.details["pool.reserve_id"]) == len(reserve) - 1
    assert headline(found, "loss", audit="pool", nonmember_source="pool")["left_out"] == 4


def labels_of(made: Audited) -> Integers:
    return open_split(digits(), "train", *made.place).labels


def test_one_run_asks_about_no_image_twice(digits_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Audited(tmp_path, digits_cache, per_class=20)
    made.write_set("coin")
    made.write_model("coin", exposing(25, 25))
    asked: dict[str, Any] = {"audit": ("one_run",), "attacks": ("loss",), "start": False}
    pool = evaluate(made, **asked).details["one_run.example_id"].tolist()
    with_copies(made, monkeypatch, {"train": [(pool[0], pool[7])]})
    found = evaluate(made, **asked)
    assert set(pool) - set(found.details["one_run.example_id"].tolist()) == {pool[0], pool[7]}
    assert {row.get("left_out") for row in found.rows if row.get("attack") == "loss"} == {2}
