"""Attacks on membership against controls: noise, shuffled truth, simulated effects, and themselves turned round."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.neural_network import MLPClassifier

from trainables.attacks import MEMBERSHIP_ATTACKS, load
from trainables.configs import MembershipAttackName
from trainables.evaluate.privacy import learned, lira, rmia
from trainables.evaluate.privacy import statistics as statistic
from trainables.evaluate.privacy.attacks import (
    best_threshold,
    memorisation,
    score,
    threshold_of,
)
from trainables.evaluate.privacy.inputs import NotApplicable, ShadowOutputs, Shadows, Target
from trainables.evaluate.privacy.roc import auc, null_reach
from trainables.seeds import derive

ATTACKS = [
    name for name, attack in MEMBERSHIP_ATTACKS.items() if attack.needs in ("logits", "shadow_outputs", "shadows")
]
STATISTICS = {name: load(attack.score) for name, attack in MEMBERSHIP_ATTACKS.items() if attack.needs == "logits"}
Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def matrix(num_rows: int, n: int, rng: np.random.Generator) -> Flags:
    """Complementary pairs (R, n), half of the candidates IN in each row."""
    rows = []
    for _ in range(num_rows // 2):
        row = np.zeros(n, dtype=bool)
        row[rng.permutation(n)[: n // 2]] = True
        rows += [row, ~row]
    return np.array(rows)


def logits_of(phi: Array, labels: NDArray[np.int64], num_classes: int, rng: np.random.Generator) -> Array:
    """Logits (..., n, K) with these log-odds of the label."""
    found = rng.normal(size=(*phi.shape, num_classes))
    at = np.broadcast_to(labels, phi.shape)[..., None]
    np.put_along_axis(found, at, -np.inf, axis=-1)
    np.put_along_axis(found, at, (phi + special.logsumexp(found, axis=-1))[..., None], axis=-1)
    return found


class Toy:
    """Rows of a matrix with Gaussian phi: means, effects and spreads differ from candidate to candidate."""

    def __init__(self, seed: int, num_rows: int, n: int = 400, effect: float = 1.0, classes: int = 4, m: int = 50):
        rng = np.random.default_rng(seed)
        self.member = matrix(num_rows, n, rng)
        self.labels = np.arange(n) % classes
        mean, spread = rng.normal(1.0, 2.0, n), np.exp(rng.normal(-0.2, 0.5, n))
        self.effect = effect * np.exp(rng.normal(-0.8, 0.8, n))
        phi = mean + self.effect * self.member + spread * rng.normal(size=self.member.shape)
        self.logits = logits_of(phi, self.labels, classes, rng)
        self.z_labels = np.arange(m) % classes
        self.z = logits_of(rng.normal(1.0, 2.0, (num_rows, m)), self.z_labels, classes, rng)

    def target(self, row: int) -> Target:
        return Target(self.logits[row], self.labels, self.z[row], self.z_labels)

    def shadows(self, kept: NDArray[np.int64] | list[int]) -> Shadows:
        return Shadows(self.logits[kept], self.labels, self.member[kept], self.z[kept])

    def left(self, row: int) -> Shadows:
        """Shadows of a target: all rows but itself and its twin."""
        return self.shadows([other for other in range(len(self.member)) if other // 2 != row // 2])

    def auc(self, attack: MembershipAttackName, row: int) -> float:
        shadows = self.left(row)
        return auc(score(attack, self.target(row), shadows.rows(), shadows).values, self.member[row])


# --- statistics -----------------------------------------------------------------------------------------------------


def test_statistics_against_plain_probabilities() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 5)) * 2, rng.integers(0, 5, 200)
    p = special.softmax(logits, axis=1)
    own = p[np.arange(200), labels]
    others = np.where(np.eye(5, dtype=bool)[labels], 0.0, p * np.log(1 - p)).sum(axis=1)
    expected = {
        "loss": np.log(own),
        "conf": np.log(own / (1 - own)),
        "max_conf": np.log(p.max(1) / (1 - p.max(1))),
        "entropy": (p * np.log(p)).sum(axis=1),
        "mentropy": (1 - own) * np.log(own) + others,
        "correct": (p.argmax(1) == labels).astype(float),
    }
    assert set(expected) == set(STATISTICS)
    for name, values in expected.items():
        np.testing.assert_allclose(STATISTICS[name](logits, labels), values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["loss", "conf", "max_conf", "entropy", "mentropy"])
def test_confidence_beyond_rounding_still_ranks(name: str) -> None:
    margins = np.linspace(40, 300, 50)  # (modified entropy is of order p ** 2 and ends at 370)
    logits = np.stack([margins, np.zeros(50), -np.ones(50)], axis=1)
    labels = np.zeros(50, dtype=int)
    assert len(np.unique(special.softmax(logits, axis=1)[:, 0])) == 1  # probabilities see one value
    assert (np.diff(STATISTICS[name](logits, labels)) > 0).all()


def test_an_overfit_network_gives_its_images_away() -> None:
    rng = np.random.default_rng(2)
    images, classes = rng.normal(size=(80, 20)), rng.integers(0, 4, 80)
    network = MLPClassifier((64,), alpha=0, max_iter=1000, random_state=0).fit(images[:40], classes[:40])
    target = Target(np.log(np.maximum(network.predict_proba(images), 1e-300)), classes)
    member = np.arange(80) < 40
    for attack in ("loss", "conf", "mentropy"):
        assert auc(score(cast(MembershipAttackName, attack), target).values, member) > 0.95
    untrained = Target(rng.normal(size=(80, 4)), classes)
    assert abs(auc(score("loss", untrained).values, member) - 0.5) < 2 * null_reach(40, 40)


# --- nothing to find ------------------------------------------------------------------------------------------------


def in_band(values: list[float], n: int) -> None:
    """AUCs of independent repeats under no leak: as often outside the band as they should be, and centred."""
    reach, found = null_reach(n // 2, n // 2), np.array(values) - 0.5
    outside = int((abs(found) > reach).sum())
    assert stats.binomtest(outside, len(found), 0.05, alternative="greater").pvalue > 1e-3, found
    assert abs(found.mean()) < 1.7 * reach / np.sqrt(len(found)), found.mean()


@pytest.mark.parametrize("num_rows", [4, 6, 8])
@pytest.mark.parametrize("attack", ATTACKS)
def test_noise_is_inside_the_null_band(attack: MembershipAttackName, num_rows: int) -> None:
    if num_rows == 4 and attack.startswith("lira"):
        with pytest.raises(NotApplicable, match="a variance needs two"):
            Toy(1, num_rows).auc(attack, 0)
        return
    toys = [Toy(100 + seed, num_rows, n=160, effect=0.0) for seed in range(12)]
    found = [toy.auc(attack, 2 * (seed % (num_rows // 2))) for seed, toy in enumerate(toys)]
    in_band(found, 160)


@pytest.mark.parametrize("attack", ATTACKS)
def test_shuffled_membership_is_inside_the_null_band(attack: MembershipAttackName) -> None:
    found, truth = [], []
    for seed in range(12):
        toy, rng = Toy(200 + seed, 6, n=160, effect=4.0), np.random.default_rng(seed)
        shadows = toy.left(0)
        values = score(attack, toy.target(0), shadows.rows(), shadows).values
        found.append(auc(values, rng.permutation(toy.member[0])))
        truth.append(auc(values, toy.member[0]))
    assert np.mean(truth) > 0.56  # there was something to find
    in_band(found, 160)


def test_counts_of_the_remaining_rows_give_memberships_away() -> None:
    toy = Toy(3, 6, effect=0.0)
    twin_kept = np.delete(toy.member, 0, axis=0)
    assert auc(-twin_kept.sum(axis=0).astype(float), toy.member[0]) == 1.0
    left = toy.left(0)
    assert set(left.member.sum(axis=0)) == {left.num // 2}
    with pytest.raises(
        ValueError, match=r"unequal numbers of shadows, got \[2, 3\].*Leave the target and its twin out"
    ):
        toy.shadows([1, 2, 3, 4, 5])


@pytest.mark.parametrize(("kept", "expected"), [(5, 0.34), (7, 0.43)])
def test_the_twin_spoils_a_likelihood_ratio_without_any_leak(kept: int, expected: float) -> None:
    with_twin, without = [], []
    for seed in range(6):
        toy = Toy(300 + seed, kept + 1, n=600, effect=0.0)
        values = statistic.phi(toy.logits, np.broadcast_to(toy.labels, toy.member.shape))
        for start, found in ((1, with_twin), (2, without)):
            scores = (
                lira.online(values[0], values[start:], toy.member[start:], "per_example")
                if (start == 1 or kept - 1 >= 4)
                else None
            )
            if scores is not None:
                found.append(auc(scores, toy.member[0]))
    assert np.mean(with_twin) == pytest.approx(expected, abs=0.03)
    assert abs(np.mean(without) - 0.5) < 1.7 * null_reach(300, 300) / np.sqrt(6)


@pytest.mark.parametrize("attack", ["lira_online", "lira_offline", "rmia", "calib", "shokri", "loss_classwise"])
def test_target_and_twin_rows_do_not_enter(attack: MembershipAttackName) -> None:
    toy, other = Toy(4, 8), Toy(4, 8)
    other.logits[2:4] = np.random.default_rng(0).normal(size=other.logits[2:4].shape)
    other.member[2:4] = other.member[3:1:-1]
    one, two = toy.left(2), other.left(2)
    first, second = (score(attack, toy.target(2), each.rows(), each) for each in (one, two))
    assert (first.values == second.values).all()
    assert first.settings == second.settings


def test_a_shadow_as_target_leaves_itself_and_its_twin_out() -> None:
    toy = Toy(5, 8)
    everyone = toy.shadows(list(range(8)))
    assert everyone.pairs.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    rest = everyone.without(3)
    assert (rest.member == np.delete(toy.member, [2, 3], axis=0)).all()
    assert sorted(set(everyone.rows().shadow.tolist())) == [0, 2, 4, 6]


# --- something to find ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_points_towards_members(attack: MembershipAttackName) -> None:
    found = np.mean([Toy(seed, 8, effect=3.0).auc(attack, 0) for seed in range(3)])
    assert found > 0.5 + null_reach(200, 200)


def test_swapping_in_and_out() -> None:
    toy = Toy(6, 10)
    left = toy.left(0)
    turned = Shadows(left.logits, left.labels, ~left.member)
    straight, back = (score("lira_online", toy.target(0), shadows=each).values for each in (left, turned))
    np.testing.assert_allclose(back, -straight)
    member = toy.member[0]
    assert auc(straight, member) > 0.6
    assert auc(back, member) == pytest.approx(1 - auc(straight, member))
    assert auc(back, ~member) == pytest.approx(auc(straight, member))


@pytest.mark.parametrize("num_shadows", [2, 4, 6, 8, 16])
def test_no_attack_collapses_with_few_shadows(num_shadows: int) -> None:
    reach = null_reach(400, 400) / np.sqrt(4)
    for attack in ("lira_online", "lira_offline", "rmia", "calib"):
        found = []
        for seed in range(4):
            toy = Toy(400 + seed, num_shadows + 2, n=800)
            try:
                found.append(toy.auc(cast(MembershipAttackName, attack), 0))
            except NotApplicable:
                assert num_shadows == 2
                assert attack.startswith("lira")
        assert not found or np.mean(found) >= 0.5 - reach
        assert num_shadows == 2 or np.mean(found) > 0.55


def test_shrinkage_on_simulated_effects() -> None:
    """The toy study of the specification, in small."""
    found: dict[tuple[int, str], list[float]] = {}
    for num_shadows in (4, 8, 32):
        for seed in range(5):
            toy = Toy(500 + seed, num_shadows + 2, n=1500)
            left, member = toy.left(0), toy.member[0]
            own = statistic.phi(toy.logits[0], toy.labels)
            others = statistic.phi(left.logits, np.broadcast_to(left.labels, left.member.shape))
            rows = {
                "loss": own,
                **{mode: lira.online(own, others, left.member, mode) for mode in ("per_example", "pooled", "shrunk")},
                "offline": lira.offline(own, others, left.out),
                "two_sided": -abs(lira.offline(own, others, left.out)),
                "rmia": score("rmia", toy.target(0), shadows=left).values,
            }
            for name, values in rows.items():
                found.setdefault((num_shadows, name), []).append(auc(values, member))
    mean = {key: np.mean(values) for key, values in found.items()}
    assert mean[4, "shrunk"] > mean[4, "per_example"] + 0.02  # two values give no variance to speak of
    assert mean[32, "shrunk"] > mean[32, "pooled"]  # and many do
    for num_shadows in (4, 8, 32):
        best = max(mean[num_shadows, mode] for mode in ("per_example", "pooled"))
        assert mean[num_shadows, "shrunk"] > best - 0.005
        assert mean[num_shadows, "offline"] > mean[num_shadows, "two_sided"] + 0.1
        for name in ("shrunk", "offline", "rmia"):
            assert mean[num_shadows, name] > mean[num_shadows, "loss"] + 0.02


# --- LiRA -----------------------------------------------------------------------------------------------------------


def test_lira_against_its_formulas() -> None:
    toy = Toy(7, 10, n=12)
    left = toy.left(0)
    own = statistic.phi(toy.logits[0], toy.labels)
    others = statistic.phi(left.logits, np.broadcast_to(left.labels, left.member.shape))
    inside = [others[left.member[:, i], i] for i in range(12)]
    outside = [others[~left.member[:, i], i] for i in range(12)]

    def variances(groups: list[Array], mode: str) -> list[float]:
        pooled = sum(((g - g.mean()) ** 2).sum() for g in groups) / sum(len(g) - 1 for g in groups)
        own = [float(g.var(ddof=1)) for g in groups]
        weight = {"per_example": 0.0, "pooled": 1.0, "shrunk": 4 / (4 + len(groups[0]) - 1)}[mode]
        return [weight * pooled + (1 - weight) * each for each in own]

    for mode in ("per_example", "pooled", "shrunk"):
        var_in, var_out = variances(inside, mode), variances(outside, mode)
        expected = [
            stats.norm.logpdf(own[i], inside[i].mean(), np.sqrt(var_in[i]))
            - stats.norm.logpdf(own[i], outside[i].mean(), np.sqrt(var_out[i]))
            for i in range(12)
        ]
        np.testing.assert_allclose(lira.online(own, others, left.member, mode), expected, rtol=1e-9)
        tails = [-stats.norm.logsf(own[i], outside[i].mean(), np.sqrt(var_out[i])) for i in range(12)]
        offline = lira.offline(own, others, left.out, mode)
        assert (np.argsort(offline) == np.argsort(tails)).all()


@pytest.mark.parametrize("attack", ["lira_offline", "calib", "rmia", "loss"])
def test_being_surer_never_lowers_a_score(attack: MembershipAttackName) -> None:
    toy = Toy(8, 8, n=40)
    left, scores = toy.left(0), []
    for surer in (0.0, 1.0, 5.0, 30.0, 200.0):
        logits = toy.logits[0].copy()
        logits[3, toy.labels[3]] += surer
        target = Target(logits, toy.labels, toy.z[0], toy.z_labels)
        scores.append(score(attack, target, shadows=left).values[3])
    assert (np.diff(scores) > 0).all()


def test_per_example_variances_are_a_second_score_from_sixteen_shadows_on() -> None:
    few, many = Toy(9, 16), Toy(9, 18)
    assert score("lira_online", few.target(0), shadows=few.left(0)).variants == {}
    (variant,) = score("lira_offline", many.target(0), shadows=many.left(0)).variants.values()
    assert variant.settings == {"n_shadows": 16, "variance_mode": "per_example"}


# --- RMIA and calibration -------------------------------------------------------------------------------------------


def test_rmia_against_its_definition() -> None:
    toy = Toy(10, 8, n=60)
    left, target = toy.left(0), toy.target(0)
    p = np.exp(statistic.log_confidence(left.logits, np.broadcast_to(toy.labels, left.member.shape)))
    mean_in = np.array([p[left.member[:, i], i].mean() for i in range(60)])
    mean_out = np.array([p[~left.member[:, i], i].mean() for i in range(60)])
    own = np.exp(statistic.log_confidence(target.logits, toy.labels))
    found = score("rmia", target, shadows=left)
    np.testing.assert_allclose(found.values, np.log(own / (mean_in + mean_out) * 2))
    p_z = np.exp(statistic.log_confidence(left.population, np.broadcast_to(toy.z_labels, (6, 50)))).mean(axis=0)
    r_z = np.exp(statistic.log_confidence(target.population, toy.z_labels)) / p_z
    r_x = np.exp(found.values)
    np.testing.assert_allclose(found.extra["rmia_share"], (r_x[:, None] / r_z > 1).mean(axis=1))
    out = left.out
    logs = np.log(p)
    for a in (0.0, 0.3, 1.0):
        expected = np.log(own / (((1 + a) * mean_out + (1 - a)) / 2))
        np.testing.assert_allclose(rmia.log_ratio_offline(np.log(own), logs, out, a), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_share_of_the_population_never_falls_with_the_ratio(gamma: float) -> None:
    rng = np.random.default_rng(11)
    ratios, population = rng.normal(size=300), rng.normal(size=80)
    shares = rmia.share(np.sort(ratios), population, gamma)
    assert (np.diff(shares) >= 0).all()
    np.testing.assert_allclose(shares, [(np.exp(r - population) > gamma).mean() for r in np.sort(ratios)])


def test_means_of_probabilities_that_round_to_one_differ() -> None:
    logs = -np.geomspace(1e-30, 1e-18, 20)[None, :]
    assert len(np.unique(np.exp(logs))) == 1
    assert len(np.unique(rmia.log_mean(logs, np.ones((1, 20))))) == 20
    deep = np.full((2, 1), -800.0)
    assert rmia.log_mean(deep, np.full((2, 1), 0.5)) == pytest.approx(-800.0)


def test_a_is_tuned_without_the_target() -> None:
    toy = Toy(12, 10)
    assert rmia.tuned_a(toy.left(0)) in rmia.A_GRID
    logs = statistic.log_confidence(toy.logits, np.broadcast_to(toy.labels, toy.member.shape))

    def mean_auc(a: float) -> float:
        found = []
        for index in range(2, 10):  # the rows that are not the target's pair
            others = [row for row in range(2, 10) if row // 2 != index // 2]
            values = rmia.log_ratio_offline(logs[index], logs[others], ~toy.member[others], a)
            found.append(auc(values, toy.member[index]))
        return float(np.mean(found))

    assert rmia.tuned_a(toy.left(0)) == max(rmia.A_GRID, key=mean_auc)
    assert rmia.tuned_a(toy.shadows([2, 3])) == rmia.A_UNTUNED


# --- the reserve ----------------------------------------------------------------------------------------------------


def with_reserve(toy: Toy, extra: int) -> tuple[Shadows, Target]:
    """The candidates' last ``extra`` become images that are members of no row."""
    member = toy.member.copy()
    member[:, -extra:] = False
    left = [row for row in range(len(member)) if row > 1]
    return Shadows(toy.logits[left], toy.labels, member[left], toy.z[left]), toy.target(0)


def test_the_reserve_gets_one_shadow_of_each_pair() -> None:
    shadows, target = with_reserve(Toy(13, 10, effect=0.0), 100)
    assert (shadows.out.sum(axis=0) == 4).all()
    for pair in range(4):
        assert (shadows.out[2 * pair : 2 * pair + 2].sum(axis=0) == 1).all()
    assert 20 < shadows.out[0, -100:].sum() < 80  # drawn for each image on its own
    assert len(shadows.rows().labels) == 8 * 300
    with pytest.raises(NotApplicable, match="IN shadows"):
        score("lira_online", target, shadows=shadows)
    assert score("rmia", target, shadows=shadows).settings["rmia_mode"] == "offline"


@pytest.mark.parametrize("attack", ["lira_offline", "calib", "rmia"])
def test_without_leak_the_reserve_looks_like_non_members(attack: MembershipAttackName) -> None:
    values = []
    for seed in range(12):
        shadows, target = with_reserve(Toy(600 + seed, 8, n=320, effect=0.0), 160)
        reserve = np.arange(320) >= 160
        values.append(auc(score(attack, target, shadows=shadows).values, reserve))
    in_band(values, 320)


# --- learned attacks ------------------------------------------------------------------------------------------------


def test_features_are_the_registered_ones() -> None:
    rng = np.random.default_rng(14)
    logits, labels = rng.normal(size=(30, 12)), rng.integers(0, 12, 30)
    found, p = learned.features(logits, labels), special.softmax(logits, axis=1)
    assert found.shape == (30, 15)
    np.testing.assert_allclose(found[:, :10], -np.sort(-p, axis=1)[:, :10])
    np.testing.assert_allclose(found[:, 10], p[np.arange(30), labels])
    np.testing.assert_allclose(found[:, 11], -np.log(p[np.arange(30), labels]))
    np.testing.assert_allclose(found[:, 12], stats.entropy(p, axis=1))
    assert learned.features(logits[:, :3], labels % 3).shape == (30, 8)


def class_shift(seed: int, shadows: int, n: int) -> tuple[ShadowOutputs, Target, Flags]:
    """Shadows of other images (audit seed): two classes, one far surer than the other, a clear effect in both."""
    rng = np.random.default_rng(seed)
    labels, member = np.arange(n) % 2, np.arange(n) // 2 % 2 == 0
    phi = 6.0 * labels + 1.5 * member + rng.normal(size=(shadows + 1, n))
    logits = logits_of(phi, labels, 2, rng)
    rows = ShadowOutputs(
        logits[1:].reshape(-1, 2), np.tile(labels, shadows), np.tile(member, shadows), np.repeat(range(shadows), n)
    )
    return rows, Target(logits[0], labels), member


@pytest.mark.parametrize("n", [60, 600])
def test_classes_are_brought_to_one_level(n: int) -> None:
    brought_level, plain = [], []
    for seed in range(4):
        rows, target, member = class_shift(seed, 4, n)
        plain.append(auc(score("loss", target).values, member))
        found = score("shokri", target, rows)
        assert found.settings == {"by_class": n == 600, "calibrated": True, "learning_rows": 4 * n}
        brought_level.append([auc(found.values, member), auc(score("loss_classwise", target, rows).values, member)])
    assert np.mean(brought_level, axis=0) == pytest.approx(special.ndtr(1.5 / np.sqrt(2)), abs=0.04)
    assert np.mean(plain) < 0.75


def test_held_out_scores_come_from_other_shadows() -> None:
    rows, _, _ = class_shift(1, 4, 60)
    before = learned.attack_classifier(rows).held_out
    turned = rows.member.copy()
    turned[rows.shadow == 2] = ~turned[rows.shadow == 2]
    raw = []
    for member in (rows.member, turned):
        fold = ShadowOutputs(rows.logits, rows.labels, member, rows.shadow)
        seen = rows.shadow != 2
        rest = ShadowOutputs(rows.logits[seen], rows.labels[seen], member[seen], rows.shadow[seen])
        raw.append((learned.attack_classifier(fold), learned.attack_classifier(rest)))
    assert (raw[0][1].calibration == raw[1][1].calibration).all()
    # Held out, shadow 2 is scored by what the others say, whatever its own memberships are: only the calibration moves.
    own = rows.shadow == 2
    for label in (0, 1):
        chosen = own & (rows.labels == label)
        straight, moved = before[chosen], raw[1][0].held_out[chosen]
        assert np.corrcoef(straight, moved)[0, 1] == pytest.approx(1.0)


def test_one_shadow_alone_cannot_calibrate() -> None:
    rows, target, _ = class_shift(2, 1, 60)
    assert score("shokri", target, rows).settings["calibrated"] is False


def test_a_class_without_signal_is_not_turned_round() -> None:
    for seed in range(5):
        toy = Toy(700 + seed, 8, effect=0.0)
        assert (learned.attack_classifier(toy.left(0).rows()).calibration[:, 0] > 0).all()


# --- thresholds, memorisation, refusals -----------------------------------------------------------------------------


def test_the_best_threshold_against_all_of_them() -> None:
    rng = np.random.default_rng(15)
    for _ in range(20):
        member = rng.random(40) < 0.4
        values = np.round(rng.normal(size=40) + member, 1)
        grid = [*np.unique(values), np.inf]
        gains = [
            ((values >= t) & member).sum() / member.sum() - ((values >= t) & ~member).sum() / (~member).sum()
            for t in grid
        ]
        t = best_threshold(values, member)
        found = (values >= t)[member].mean() - (values >= t)[~member].mean()
        assert found == pytest.approx(max(max(gains[:-1]), 0.0))


@pytest.mark.parametrize("attack", ATTACKS)
def test_thresholds_from_shadows_work_on_the_target(attack: MembershipAttackName) -> None:
    accuracies = []
    for seed in range(3):
        toy = Toy(800 + seed, 10, effect=5.0)
        left = toy.left(0)
        threshold = threshold_of(attack, left.rows(), left)
        assert threshold is not None
        guessed = score(attack, toy.target(0), left.rows(), left).values >= threshold
        accuracies.append((guessed[toy.member[0]].mean() + (~guessed)[~toy.member[0]].mean()) / 2)
    assert np.mean(accuracies) > (0.52 if attack == "correct" else 0.6)


def test_thresholds_need_shadows() -> None:
    assert threshold_of("loss") is None
    assert threshold_of("shokri") is None
    assert threshold_of("calib", shadows=Toy(1, 4).left(0)) is None
    assert threshold_of("lira_online", shadows=Toy(1, 6).left(0)) == 0.0


def test_memorisation_finds_the_exposed() -> None:
    toy = Toy(16, 34)
    found = memorisation(toy.left(0))
    assert stats.spearmanr(found, toy.effect).statistic > 0.5
    shadows, _ = with_reserve(toy, 100)
    assert (memorisation(shadows)[-100:] == 0).all()


def test_attacks_without_what_they_need_say_so() -> None:
    target = Toy(17, 4).target(0)
    for attack in ATTACKS:
        if MEMBERSHIP_ATTACKS[attack].needs != "logits":
            with pytest.raises(NotApplicable, match="there are none"):
                score(attack, target)
    with pytest.raises(NotApplicable, match="two IN shadows of every candidate, got 1"):
        score("lira_online", target, shadows=Toy(17, 4).left(0))
    rows, seen, _ = class_shift(1, 2, 40)
    for one_sided in (np.ones(80, dtype=bool), rows.member | (rows.labels == 1)):
        bad = ShadowOutputs(rows.logits, rows.labels, one_sided, rows.shadow)
        with pytest.raises(NotApplicable, match="has no non-members"):
            score("shokri", seen, bad)
        with pytest.raises(NotApplicable, match="has no non-members"):
            score("entropy_classwise", seen, bad)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="target: some logits are not finite"):
        Target(np.array([[0.0, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="shadows: got logits"):
        Shadows(np.zeros((3, 2)), np.array([0, 1, 0]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"got labels \(2,\); expected \(1,\)"):
        Target(np.zeros((1, 3)), np.array([0, 1]))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
@pytest.mark.parametrize("attack", ATTACKS)
def test_scores_are_finite_whatever_the_scale(attack: MembershipAttackName, scale: float) -> None:
    toy = Toy(18, 20, n=80)
    toy.logits = (toy.logits * scale).astype(np.float32)
    toy.z = toy.z * scale
    left = toy.left(0)
    found = score(attack, toy.target(0), left.rows(), left)
    for each in (found, *found.variants.values()):
        assert each.values.dtype == np.float64
        assert np.isfinite(each.values).all()


def test_the_same_inputs_give_the_same_bytes() -> None:
    toy = Toy(derive("attacks") % 1000, 8)
    left = toy.left(0)
    for attack in ATTACKS:
        one, two = (score(attack, toy.target(0), left.rows(), left).values for _ in range(2))
        assert one.tobytes() == two.tobytes()
