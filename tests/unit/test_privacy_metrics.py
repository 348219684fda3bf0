"""Metrics of membership scores against other implementations, simulated truth and exact identities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from trainables.evaluate.privacy import roc
from trainables.evaluate.privacy.metrics import Audited, membership_rows, not_applicable_rows
from trainables.evaluate.privacy.roc import Curve
from trainables.files import CANARY, RESERVE

Row = dict[str, Any]


def audited(
    seed: int, n: int = 400, effect: float = 1.0, init: int = 4, pair: int = 0, decimals: int = 6, exposed: float = 0.0
) -> Audited:
    """Half members, every ``init``-th candidate of which is a start (and surer by ``exposed``); four classes."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(n) % 2 == 0)
    start = member & (np.cumsum(member) % init == 0) if init else np.zeros(n, dtype=bool)
    values = np.round(rng.normal(size=n) + effect * member + exposed * start, decimals)
    role = np.where(start, 0, np.where(member, 1, 2))
    return Audited(values, member, np.arange(n), role, np.arange(n) % 4, 2 * pair, 0.5)


def rows_of(scores: list[Audited], **changes: Any) -> list[Row]:
    settings: dict[str, Any] = {"base": {"attack": "loss"}, "per_class": 50}
    return membership_rows(scores, **(settings | changes))


def pick(rows: list[Row], metric: str, **columns: Any) -> Row:
    """The headline row of a metric, or that of the columns given."""
    wanted = {"member_role": None, "repeat": None, "nonmember_source": None, **columns}
    if "agg" not in columns:
        rows = [row for row in rows if row.get("agg") != "pooled"]
    found = [row for row in rows if row["metric"] == metric and all(row.get(k) == v for k, v in wanted.items())]
    assert len(found) == 1, (metric, columns, len(found))
    return found[0]


def pairwise_auc(values: NDArray[np.float64], member: NDArray[np.bool_]) -> float:
    inside, outside = values[member][:, None], values[~member][None]
    return float((inside > outside).mean() + (inside == outside).mean() / 2)


# --- curves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [6, 0])  # without ties and with many
def test_areas_against_pairs_and_scikit_learn(decimals: int) -> None:
    for seed in range(5):
        each = audited(seed, n=301, decimals=decimals)
        values, member = each.values, each.member
        curve = Curve(values, member)
        assert roc.auc(values, member) == pytest.approx(pairwise_auc(values, member))
        assert roc.auc_estimate(values, member).value == pytest.approx(roc_auc_score(member, values))
        for limit in (0.01, 0.1):
            expected = roc_auc_score(member, values, max_fpr=limit)
            assert roc.partial_area_estimate(curve, limit).value == pytest.approx(expected)
        fpr, tpr, _ = roc_curve(member, values, drop_intermediate=False)
        assert roc.greatest_advantage(curve).value == pytest.approx((tpr - fpr).max())
        for limit in (0.0, 0.01, 0.05, 0.3):
            assert roc.recall_estimate(curve, limit).value == pytest.approx(tpr[fpr <= limit + 1e-12].max())


def test_a_threshold_is_never_interpolated() -> None:
    values = np.array([5.0, 4.0, 3.0, 3.0, 2.0, 1.0])
    member = np.array([True, False, True, False, True, False])
    found = [roc.recall_estimate(Curve(values, member), fpr).value for fpr in (0.0, 0.3, 1 / 3, 0.5, 2 / 3, 1.0)]
    assert found == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 3, 1.0, 1.0])


# --- intervals ------------------------------------------------------------------------------------------------------


def test_delong_against_its_definition_and_a_bootstrap() -> None:
    each = audited(3, n=300, decimals=1)
    inside, outside = each.values[each.member], each.values[~each.member]
    wins = (inside[:, None] > outside).astype(float) + (inside[:, None] == outside) / 2
    variance = wins.mean(axis=1).var(ddof=1) / len(inside) + wins.mean(axis=0).var(ddof=1) / len(outside)
    value, _, interval, method, _ = roc.auc_estimate(each.values, each.member)
    assert interval is not None
    assert method == "delong"
    assert interval == pytest.approx((value - 1.959964 * variance**0.5, value + 1.959964 * variance**0.5))

    def statistic(a: Any, b: Any, axis: int) -> Any:
        product = a.shape[axis] * b.shape[axis]
        return stats.mannwhitneyu(a, b, axis=axis, method="asymptotic").statistic / product

    sampled = stats.bootstrap(
        (inside, outside),
        statistic,
        vectorized=True,
        batch=200,
        method="percentile",
        n_resamples=1000,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    assert interval == pytest.approx((sampled.low, sampled.high), abs=0.01)


@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_delong_covers_the_truth(truth: float) -> None:
    rng, hits, shift = np.random.default_rng(4), 0, stats.norm.ppf(truth) * 2**0.5
    member = np.arange(160) < 80
    for _ in range(600):
        interval = roc.auc_estimate(rng.normal(size=160) + shift * member, member).interval
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    assert stats.binomtest(hits, 600, 0.95).pvalue > 1e-3


def test_perfect_separation_keeps_a_width() -> None:
    member = np.arange(50) < 20
    value, _, interval, method, _ = roc.auc_estimate(member.astype(float), member)
    assert (value, interval, method) == (1.0, (pytest.approx(0.05 ** (1 / 20)), 1.0), "exact")
    assert roc.auc_estimate(-member.astype(float), member).interval == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))
    several = [replace(audited(pair, pair=pair), values=audited(pair).member * 1.0) for pair in range(3)]
    row = pick(rows_of(several), "mia_auc")
    assert (row["value"], row["ci_low"]) == (1.0, pytest.approx(0.05 ** (1 / 200)))


def test_null_band_covers_independent_scores() -> None:
    rng = np.random.default_rng(6)
    member = np.arange(260) < 100
    found = [roc.auc(rng.normal(size=260), member) for _ in range(800)]
    inside = int((abs(np.array(found) - 0.5) <= roc.null_reach(100, 160)).sum())
    assert stats.binomtest(inside, 800, 0.95).pvalue > 1e-3
    assert roc.null_reach(160, 160) == pytest.approx(0.063, abs=5e-4)  # the specification's table
    assert roc.null_reach(4000, 10000) == pytest.approx(0.0106, abs=1e-4)


def several_targets(seed: int, targets: int, n: int, effect: float) -> list[Audited]:
    """The same images under every target: their difficulty is common to all, members are drawn anew."""
    rng = np.random.default_rng(seed)
    difficulty, found = rng.normal(size=n), []
    for pair in range(targets):
        member = rng.permutation(np.arange(n) % 2 == 0)
        values = difficulty + effect * member + rng.normal(size=n)
        found.append(Audited(values, member, np.arange(n), np.where(member, 1, 2), np.arange(n) % 4, 2 * pair))
    return found


def test_means_over_targets_stay_in_their_band_and_interval() -> None:
    in_band = in_interval = 0
    for seed in range(150):
        scores = several_targets(seed, 3, 200, 0.0)
        values = [roc.auc(each.values, each.member) for each in scores]
        in_band += abs(np.mean(values) - 0.5) <= roc.null_reach(100, 100) / 3**0.5
        if seed < 40:
            row = pick(rows_of(scores), "mia_auc")
            in_interval += row["ci_low"] <= 0.5 <= row["ci_high"]
    assert stats.binomtest(in_band, 150, 0.95).pvalue > 1e-3
    assert in_interval >= 34  # wider than it need be here: images do not vary on their own


def width(row: Row) -> float:
    return float(row["ci_high"] - row["ci_low"])


def test_the_same_target_many_times_is_one_targets_worth_of_images() -> None:
    one = audited(7, n=200)
    row, copies = pick(rows_of([one]), "mia_auc"), pick(rows_of([one] * 10), "mia_auc")
    assert width(copies) == pytest.approx(width(row), rel=0.02)
    assert (row["ci_unit"], copies["ci_unit"]) == ("images", "targets")
    apart = [replace(audited(20 + pair, n=200), example_id=np.arange(200) + 200 * pair) for pair in range(10)]
    assert width(pick(rows_of(apart), "mia_auc")) < 0.7 * width(row)


def test_two_targets_have_no_interval_and_the_row_says_why() -> None:
    rows = rows_of([audited(40 + pair, pair=pair, n=4000) for pair in range(2)])
    for metric, columns in (("mia_auc", {}), ("mia_k", {}), ("mia_tpr_at_fpr", {"fpr": 0.01}), ("mia_adv", {})):
        row = pick(rows, metric, **columns)
        assert "ci_low" not in row
        assert row["reason"] == "no interval: 2 targets say too little of how targets differ"
    assert all("ci_low" in pick(rows, "mia_auc", repeat=index) for index in range(2))


def test_targets_that_differ_make_intervals_wider() -> None:
    steady = [audited(30 + pair, n=400, effect=1.0, pair=pair) for pair in range(6)]
    uneven = [audited(30 + pair, n=400, effect=2.0 * (pair % 2), pair=pair) for pair in range(6)]
    widths = [width(pick(rows_of(each), "mia_auc")) for each in (steady, uneven)]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("decimals", [6, 1])
def test_influences_are_those_of_leaving_an_image_out(decimals: int) -> None:
    """Each number's variance about images against the jackknife's, from numbers without an image."""
    each = audited(9, n=600, decimals=decimals)
    for estimate in (
        lambda one: roc.auc_estimate(one.values, one.member),
        lambda one: roc.class_mean_estimate(one.values, one.member, one.labels),
        lambda one: roc.advantage_estimate(one.values, one.member, 0.5),
        lambda one: roc.partial_area_estimate(one.curve, 0.1),
    ):
        influence = estimate(each).influence
        assert influence is not None
        without = np.array([estimate(each.take(np.arange(600) != image)).value for image in range(0, 600, 5)])
        left_out = estimate(each).value - without
        assert influence[::5] == pytest.approx(left_out, abs=0.02 * np.abs(influence).max() + 4e-4)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_of_one_target() -> None:
    each = audited(8, n=400)
    rows = rows_of([each])
    overall, scaled = pick(rows, "mia_auc"), pick(rows, "mia_k")
    assert (overall["ci_method"], overall["ci_unit"], overall["agg"]) == ("delong", "images", "single")
    assert (overall["n"], overall["n_pos"], overall["n_neg"], overall["prior"]) == (400, 200, 200, 0.5)
    for end in ("value", "ci_low", "ci_high"):
        assert scaled[end] == pytest.approx(100 * (overall[end] - 0.5))
    low, high = pick(rows, "mia_auc_null_low"), pick(rows, "mia_auc_null_high")
    assert high["value"] - low["value"] == pytest.approx(2 * roc.null_reach(200, 200))
    guessed = each.values >= 0.5
    expected = (guessed[each.member].mean() + (~guessed)[~each.member].mean()) / 2
    assert pick(rows, "mia_bacc")["value"] == pytest.approx(expected)
    balanced, advantage = pick(rows, "mia_bacc"), pick(rows, "mia_adv")
    assert advantage["value"] == pytest.approx(guessed[each.member].mean() - guessed[~each.member].mean())
    for end in ("value", "ci_low", "ci_high"):
        assert advantage[end] == pytest.approx(2 * balanced[end] - 1)
    assert advantage["value"] < pick(rows, "mia_adv_max")["value"]
    assert pick(rows, "mia_adv_max")["value"] >= 2 * expected - 1
    classes = [roc.auc(each.values[each.labels == c], each.member[each.labels == c]) for c in range(4)]
    assert pick(rows, "mia_auc_class_mean")["value"] == pytest.approx(np.mean(classes))
    found = pick(rows, "mia_tpr_at_fpr0")
    assert found["value"] == int((each.values[each.member] > each.values[~each.member].max()).sum()) / 200
    assert "fewer than 10 false positives" in found["reason"]
    assert pick(rows, "mia_adv_max")["reason"] == "no interval: chosen on the target itself"
    for row in rows:
        assert row["attack"] == "loss"
        assert row["property"] == "privacy"
        assert isinstance(row["value"], float) or (row["value"] is None and row["flag"])
        if "ci_low" in row:
            assert row["ci_low"] <= row["ci_high"]
            assert {"ci_level", "ci_method", "ci_unit"} <= set(row)


def test_rows_of_several_targets() -> None:
    scores = [audited(40 + pair, pair=pair) for pair in range(3)]
    rows = rows_of(scores)
    values = [roc.auc(each.values, each.member) for each in scores]
    overall = pick(rows, "mia_auc")
    assert (overall["value"], overall["std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (overall["agg"], overall["n_agg"], overall["ci_method"]) == ("mean_targets", 3, "student_two_way")
    for index in range(3):
        row = pick(rows, "mia_auc", repeat=index)
        assert (row["value"], row["target_row"], row["ci_unit"]) == (values[index], 2 * index, "images")
    band = pick(rows, "mia_auc_null_high")["value"] - 0.5
    assert band == pytest.approx(roc.null_reach(200, 200) / 3**0.5)
    assert not [row for row in rows if row["agg"] == "pooled"]


@pytest.mark.parametrize("targets", [1, 3])
def test_strata_add_up_exactly(targets: int) -> None:
    rows = rows_of([audited(50 + pair, pair=pair, exposed=2.0, decimals=1) for pair in range(targets)])
    rho = pick(rows, "mia_rho")["value"]
    init, other = (pick(rows, "mia_auc", member_role=role)["value"] for role in ("member_init", "member_other"))
    assert rho == 0.25
    assert init > other + 0.1
    assert pick(rows, "mia_auc")["value"] == pytest.approx(rho * init + (1 - rho) * other, abs=1e-12)


def test_an_empty_stratum_is_empty() -> None:
    rows = rows_of([audited(9, init=0)])
    row = pick(rows, "mia_auc", member_role="member_init")
    assert (row["value"], row["flag"]) == (None, "not_applicable")
    assert pick(rows, "mia_rho")["value"] == 0
    assert pick(rows, "mia_auc", member_role="member_other")["value"] == pick(rows, "mia_auc")["value"]


@pytest.mark.parametrize(
    ("outside", "flags"),
    [
        (50, ["low_resolution"] * 2),
        (100, ["low_resolution"] * 2),
        (1000, [None, "low_resolution"]),
        (10000, [None, None]),
    ],
)
def test_resolution_of_low_false_positive_rates(outside: int, flags: list[str | None]) -> None:
    rng, member = np.random.default_rng(10), np.arange(outside + 200) < 200
    each = Audited(
        rng.normal(size=outside + 200) + member,
        member,
        np.arange(len(member)),
        np.where(member, 1, 2),
        np.zeros(len(member)),
    )
    rows = rows_of([each])
    found = [pick(rows, "mia_tpr_at_fpr", fpr=fpr) for fpr in (0.01, 0.001)]
    assert [row.get("flag") for row in found] == flags
    assert [row["value"] is None for row in found] == [outside < 100, outside < 1000]
    for metric in ("mia_bacc", "mia_adv"):
        assert (pick(rows, metric)["value"], pick(rows, metric)["flag"]) == (None, "not_applicable")


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"attack": "loss", "threat_model": "blackbox"}, "no shadows"),
        ({"attack": "data_release", "threat_model": "data_release"}, "released sets of shadows are not attacked"),
        ({"attack": "lira_online", "n_shadows": 14, "variant": "per_example"}, "first variant alone"),
        ({"attack": "rmia", "n_shadows": 14, "variant": "offline"}, "first variant alone"),
        ({"attack": "calib", "n_shadows": 2}, "too few shadows"),
    ],
)
def test_a_missing_threshold_says_why(base: Row, words: str) -> None:
    rows = rows_of([replace(audited(8), threshold=None)], base=base)
    for metric in ("mia_bacc", "mia_adv"):
        row = pick(rows, metric)
        assert (row["value"], row["flag"]) == (None, "not_applicable")
        assert words in row["reason"]


def test_copies_of_the_data_change_nothing() -> None:
    each = audited(11, n=300)
    twice = each.take(np.tile(np.arange(300), 2))
    one, two = rows_of([each]), rows_of([twice])
    for metric, columns in (
        ("mia_tpr_at_fpr", {"fpr": 0.01}),
        ("mia_tpr_at_fpr", {"fpr": 0.001}),
        ("mia_tpr_at_fpr0", {}),
        ("mia_auc", {}),
    ):
        first, second = pick(one, metric, **columns), pick(two, metric, **columns)
        assert first["value"] == (None if second["value"] is None else pytest.approx(second["value"], abs=1e-12))
        assert first.get("flag") == second.get("flag")


def test_pooled_scores_are_distinct_images_in_number() -> None:
    scores = several_targets(12, 3, 800, 1.0)
    scores = [replace(each, pooled=each.values) for each in scores]
    rows = rows_of(scores)
    overall = pick(rows, "mia_auc", agg="pooled")
    values, member = (np.concatenate([getattr(each, name) for each in scores]) for name in ("values", "member"))
    assert overall["value"] == pytest.approx(roc_auc_score(member, values))
    assert (overall["n"], overall["n_neg"], overall["n_agg"]) == (2400, 1200, 3)
    assert "ci_low" not in overall
    assert "dependent" in overall["reason"]
    found = pick(rows, "mia_tpr_at_fpr", agg="pooled", fpr=0.001)
    # 1200 non-members are fewer distinct images, all 800 of them at most: too few for one in a thousand.
    assert (found["value"], found["flag"]) == (None, "low_resolution")
    assert pick(rows, "mia_tpr_at_fpr", agg="pooled", fpr=0.01)["flag"] == "low_resolution"


def test_canaries_reserve_and_the_exposed_stand_apart() -> None:
    each = audited(14, n=1200)
    role, values, member = each.role.copy(), each.values.copy(), each.member.copy()
    role[:100], values[:100] = CANARY, 5.0 * member[:100] - 2
    reserve = (np.arange(1200) >= 600) & ~member
    role[reserve] = RESERVE
    memorised = np.where((np.arange(1200) >= 100) & (np.arange(1200) % 12 == 0), 1.0, 0.0)
    values[memorised > 0] += 10.0 * member[memorised > 0]
    each = replace(each, role=role, values=values, memorisation=memorised)
    rows = rows_of([each])
    main = each.main
    assert len(main.values) == 1200 - 100 - reserve.sum()
    assert pick(rows, "mia_auc")["value"] == roc.auc(main.values, main.member)
    canaries = pick(rows, "mia_auc", member_role="canary")
    assert (canaries["value"], canaries["n"]) == (1.0, 100)
    exposed = pick(rows, "mia_auc", member_role="top_decile")
    assert exposed["n"] == len(main.values) // 10
    assert exposed["value"] > pick(rows, "mia_auc")["value"] + 0.1
    against = pick(rows, "mia_auc", nonmember_source="reserve")
    chosen = (role <= 1) | (role == RESERVE)
    assert against["value"] == roc.auc(values[chosen], member[chosen])
    assert against["n_neg"] == reserve.sum()


@pytest.mark.parametrize("role", ["canary", "top_decile"])
def test_a_few_candidates_that_are_members_here_and_others_there_have_no_metrics(role: str) -> None:
    """One canary is a member of some rows: no target has both, and no side is in all of them."""
    scores = []
    for pair in range(3):
        each = audited(70 + pair, n=10 if role == "top_decile" else 60, pair=pair, init=0)
        first = int(np.flatnonzero(each.member == (pair == 0))[0])
        roles, memorised = each.role.copy(), np.zeros(len(each.values))
        memorised[first] = 1.0
        if role == "canary":
            roles[first] = CANARY
        scores.append(replace(each, role=roles, memorisation=memorised))
    row = pick(rows_of(scores), "mia_auc", member_role=role)
    assert (row["value"], row["flag"], row["n"], row["prior"]) == (None, "low_resolution", 0, None)


def test_negated_scores_turn_the_auc() -> None:
    for scores in ([audited(15)], [audited(60 + pair, pair=pair) for pair in range(3)]):
        straight = rows_of(scores)
        back = rows_of([replace(each, values=-each.values) for each in scores])
        for columns in ({}, {"member_role": "member_init"}):
            one, two = pick(straight, "mia_auc", **columns), pick(back, "mia_auc", **columns)
            assert two["value"] == pytest.approx(1 - one["value"])
            assert (two["ci_low"], two["ci_high"]) == pytest.approx((1 - one["ci_high"], 1 - one["ci_low"]), abs=1e-6)


def test_scores_that_say_nothing_are_flagged() -> None:
    for targets in (1, 3):
        scores = [replace(audited(16, pair=pair), values=np.zeros(400)) for pair in range(targets)]
        row = pick(rows_of(scores), "mia_auc")
        assert (row["value"], row["flag"]) == (0.5, "degenerate")
        assert "ci_low" not in row


# --- the ceiling of published images --------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [1, 3])
def test_published_images_reach_exactly_the_ceiling(targets: int) -> None:
    """A set of real members is fully exposed; of the others nothing is known."""
    scores = []
    for pair in range(targets):
        each = audited(70 + pair, n=2000, effect=0.0, pair=pair)
        # The best attack there can be: published images on top, all others in an order that is balanced by design.
        values = np.zeros(2000)
        for chosen in (each.role == 1, each.role == 2):
            values[chosen] = np.linspace(0, 1, chosen.sum())
        values[each.role == 0] = 2.0
        scores.append(replace(each, values=values))
    rows = rows_of(scores, ceiling=True)
    assert pick(rows, "mia_auc_ceiling")["value"] == 0.625
    assert pick(rows, "mia_auc")["value"] == pytest.approx(0.625, abs=1e-3)
    efficiency = pick(rows, "mia_auc_efficiency")
    assert efficiency["value"] == pytest.approx(1, abs=0.01)
    assert efficiency["ci_low"] < 1 < efficiency["ci_high"]
    assert pick(rows, "mia_tpr_at_fpr_ceiling", fpr=0.01)["value"] == pytest.approx(0.2575)
    assert pick(rows, "mia_tpr_at_fpr_efficiency", fpr=0.01)["value"] == pytest.approx(1, abs=0.02)
    assert "flag" not in efficiency


def test_more_than_can_be_known_raises_the_alarm() -> None:
    rows = rows_of([audited(17, n=2000, effect=2.0)], ceiling=True)
    efficiency = pick(rows, "mia_auc_efficiency")
    assert efficiency["value"] > 1
    assert efficiency["flag"] == "above_ceiling"
    nothing = pick(rows_of([audited(17, init=0)], ceiling=True), "mia_auc_efficiency")
    assert (nothing["value"], nothing["flag"]) == (None, "degenerate")


def test_an_attack_that_cannot_run_leaves_a_row_with_the_reason() -> None:
    (row,) = not_applicable_rows("needs shadows", {"attack": "rmia", "audit": "seed"})
    assert (row["metric"], row["value"], row["flag"], row["reason"]) == (
        "mia_auc",
        None,
        "not_applicable",
        "needs shadows",
    )
    assert row["audit"] == "seed"


def test_the_same_scores_give_the_same_rows() -> None:
    scores = [replace(audited(80 + pair, pair=pair), pooled=audited(80 + pair).values) for pair in range(2)]
    assert rows_of(scores) == rows_of(scores)
