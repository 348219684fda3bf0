"""Differences of AUCs between the points of a sweep: real audits of models whose leaks are known."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import worlds
from scipy.stats import false_discovery_control, t

from ddray.measurements.derived.roc_curves import RATES
from ddray.measurements.rows import collect
from ddray.plan.points import GridPoint
from ddray.report.audits import null_recall
from ddray.report.figures.roc import ROC
from ddray.report.report import machine_report, report
from ddray.report.words import row_title
from ddray.results import MEASUREMENTS_FILE
from trainables import files

Row = dict[str, Any]
SWEEP = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], ipc: [3], origin_per_class: [30], origin_draw: [0], distill_seed: [0], seed: [0, 1]}
  evaluations:
    privacy: {audit: [seed, pool], rows: 6, targets: 3, shadows: 1, population: 5, reserve: 5,
              canaries: 4, attacks: [loss, shokri, lira_offline, data_release]}
grids:
  methods:
    axes: {method: [dm, dsa], init: [noise, real]}
    settings: {dm: {iterations: 200}, dsa: {iterations: 100}}
  baselines: {axes: {method: [random, full]}}
"""

ONE_SEED = SWEEP.replace("seed: [0, 1]}", "seed: [0]}")
LIGHT = (
    ONE_SEED.replace("audit: [seed, pool]", "audit: [seed]")
    .replace("canaries: 4, ", "")
    .replace("[loss, shokri, lira_offline, data_release]", "[loss, shokri]")
)


ON_MODELS = [("seed", "loss"), ("seed", "shokri"), *(("pool", name) for name in ("loss", "shokri", "lira_offline"))]
"""Audits, and their attacks on what models say. One shadow of the audit seed has no variance."""


def leak(point: GridPoint) -> tuple[float, float]:
    """DM from real images gives away by far the most, DSA as much from either start."""
    if point.method == "dm":
        return (6.0, 3.0) if point.init == "real" else (0.0, 0.5)
    return {"random": (25.0, 0.0), "full": (1.0, 1.0)}.get(point.method, (0.5, 0.5))


class Made:
    """A finished sweep and its table."""

    def __init__(self, folder: Path, cache: Path, text: str = SWEEP) -> None:
        self.world = worlds.world(folder, text, facts=worlds.read_digits)
        worlds.fill(self.world.store, self.world.plan, make=worlds.leaking(cache, leak))
        self.results = worlds.collected(self.world, folder)
        self.rows: list[Row] = pq.read_table(self.results / MEASUREMENTS_FILE).to_pylist()
        self.points = {row["point"]: row for row in self.rows}

    def of(self, metric: str, **wanted: Any) -> list[Row]:
        return [
            row
            for row in self.rows
            if row["metric"] == metric and all(row[name] == value for name, value in wanted.items())
        ]

    def headline(self, point: str, audit: str, attack: str, start: bool = False) -> float:
        """The point's own AUC, or that of its undistilled start."""
        (row,) = [
            row
            for row in self.of("mia_auc", point=point, audit=audit, attack=attack, member_role=None, repeat=None)
            if row["nonmember_source"] in ("test_balanced", "pool")
            and row["agg"] != "pooled"
            and ("iteration" in said(row)) == start
            and "variant" not in said(row)
        ]
        value: float = row["value"]
        return value


def said(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["param_json"] or "{}")
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Made:
    return Made(tmp_path_factory.mktemp("paired"), digits_cache)


def test_it_is_the_difference_of_the_two_aucs(made: Made) -> None:
    rows = made.of("mia_auc_delta")
    everywhere = {(audit, attack) for audit in ("seed", "pool") for attack in ("loss", "shokri", "data_release")}
    # One shadow of the audit seed has no variance.
    assert {(row["audit"], row["attack"]) for row in rows} == {*everywhere, ("pool", "lira_offline")}
    for row in rows:
        asked, start = (row["audit"], row["attack"]), "iteration" in said(row)["against"]
        ours = made.headline(row["point"], *asked)
        theirs = made.headline(said(row)["against_point"], *asked, start)
        assert start == (row["point"] == said(row)["against_point"])
        assert row["value"] == pytest.approx(ours - theirs, abs=1e-12)
        assert row["ci_low"] < row["value"] < row["ci_high"]
        several = row["audit"] == "pool"
        assert (row["agg"], row["n_agg"], row["ci_unit"], row["ci_method"]) == (
            ("mean_targets", 3, "targets", "delong_two_way") if several else ("single", None, "images", "delong")
        )
        assert row["stage_key"] == worlds.stage_of(worlds.chains_of(made.world[1], hash=row["point"])[0], "privacy").key


def test_only_points_that_differ_in_one_thing_are_compared_and_once(made: Made) -> None:
    compared = Counter()
    for row in made.of("mia_auc_delta", audit="seed", attack="loss", seed=1):
        other = made.points[said(row)["against_point"]]
        assert other["seed"] == 1
        against = said(row)["against"]
        if "iteration" in against:
            assert other["point"] == row["point"]
        else:
            assert all(other[axis] == value != row[axis] for axis, value in against.items())
        if "method" not in against:
            assert other["method"] == row["method"]
        elif against["method"] not in ("random", "full"):
            assert other["init"] == row["init"]
        compared[f"{row['method']} {row['init']}", *against.items()] += 1
    assert compared == Counter(
        {
            **{
                (f"{method} {init}", ("method", baseline)): 1
                for method in ("dm", "dsa")
                for init in ("noise", "real")
                for baseline in ("random", "full")
            },
            ("dsa noise", ("method", "dm")): 1,
            ("dsa real", ("method", "dm")): 1,
            ("dm real", ("init", "noise")): 1,
            ("dsa real", ("init", "noise")): 1,
            **{(f"{method} {init}", ("iteration", 0)): 1 for method in ("dm", "dsa") for init in ("noise", "real")},
            ("random None", ("method", "full")): 1,
        }
    )


def test_what_leaks_more_is_found_and_what_leaks_alike_is_not(made: Made) -> None:
    def against(name: str, value: str, audit: str, **wanted: Any) -> list[Row]:
        rows = made.of("mia_auc_delta_p_adjusted", audit=audit, attack="loss", **wanted)
        return [row for row in rows if said(row)["against"] == {name: value}]

    for audit in ("seed", "pool"):
        started = against("init", "noise", audit, method="dm", init="real")
        assert len(started) == 2
        assert all(row["value"] < 0.05 for row in started)
        alike = against("init", "noise", audit, method="dsa", init="real")
        assert all(row["value"] > 0.05 for row in alike)
    others = [
        row
        for row in made.of("mia_auc_delta", method="dm", init="real")
        if "iteration" not in said(row)["against"] and row["attack"] != "data_release"
    ]
    assert all(row["value"] > 0 for row in others)
    # What leaks alike by construction: a model and that of its start.
    starts = [row for row in made.of("mia_auc_delta_p_adjusted") if "iteration" in said(row)["against"]]
    assert len(starts) == len(ON_MODELS) * 2 * 2 * 2
    assert all(row["value"] > 0.05 for row in starts)


def test_p_is_adjusted_over_all_differences_of_the_sweep(made: Made) -> None:
    rows, adjusted = made.of("mia_auc_delta_p"), [row["value"] for row in made.of("mia_auc_delta_p_adjusted")]
    # The full data have no set to be released, and no set that was released has another start.
    assert len(rows) == len(made.of("mia_auc_delta")) == 2 * len(ON_MODELS) * (13 + 4) + 2 * 2 * 8
    tests: dict[tuple[Any, ...], float] = {}
    for row in rows:
        whose = (row["method"], row["init"]) if row["attack"] == "data_release" else row["point"]
        tests[whose, row["audit"], row["attack"], row["value"]] = row["value"]
    assert len(tests) <= len(rows) - 2 * 8, "what a set gives away does not hang on how it is trained on"
    by_p = dict(zip(tests.values(), false_discovery_control(list(tests.values())).tolist(), strict=True))
    assert adjusted == pytest.approx([by_p[row["value"]] for row in rows])
    assert any(row["value"] < 0.05 <= q for row, q in zip(rows, adjusted, strict=True)), "adjusting changes a verdict"


def test_rows_have_names_of_their_own(made: Made) -> None:
    assert len({row["row_id"] for row in made.rows}) == len(made.rows)


def test_audits_that_asked_other_questions_are_not_compared(tmp_path: Path, digits_cache: Path) -> None:
    """Fewer targets for the baselines: what the audit ``seed`` says can be compared, and ``pool`` cannot."""
    text = ONE_SEED.replace("lira_offline, data_release", "calib").replace(
        "{axes: {method: [random, full]}}", "{axes: {method: [random, full]}, evaluations: {privacy: {targets: 2}}}"
    )
    made = Made(tmp_path, digits_cache, text)
    found = {(row["audit"], *said(row)["against"].values()) for row in made.of("mia_auc_delta", method="dsa")}
    assert found == {
        ("seed", "random"),
        ("seed", "full"),
        ("seed", "dm"),
        ("seed", "noise"),
        ("pool", "dm"),
        ("pool", "noise"),
        ("seed", 0),
        ("pool", 0),
    }


def test_a_broken_file_costs_its_own_differences_alone(
    tmp_path: Path, digits_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Made(tmp_path, digits_cache, LIGHT)
    sweep, plan, store = made.world
    before = len(made.of("mia_auc_delta"))
    key = worlds.stage_of(worlds.chains_of(plan, method="random")[0], "privacy").key
    path = store.open(key).folder / "details.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        collect(plan, sweep, store, tmp_path / "again")
    left = [
        row
        for row in pq.read_table(tmp_path / "again" / MEASUREMENTS_FILE).to_pylist()
        if row["metric"] == "mia_auc_delta"
    ]
    assert 0 < len(left) < before
    assert not any(said(row)["against"] == {"method": "random"} for row in left)
    assert any("not compared" in record.getMessage() or "details" in record.getMessage() for record in caplog.records)


def test_a_method_is_compared_with_itself_at_the_same_budget_alone(tmp_path: Path, digits_cache: Path) -> None:
    """More iterations from another start: neither would explain the difference."""
    text = LIGHT.replace("{method: [dm, dsa], init: [noise, real]}", "{method: [dm], init: [noise]}")
    text = text.replace("dsa: {iterations: 100}", "").replace("[loss, shokri]", "[loss]")
    text += "  longer: {axes: {method: [dm], init: [real]}, settings: {dm: {iterations: 400}}}\n"
    made = Made(tmp_path, digits_cache, text)
    rows = made.of("mia_auc_delta", method="dm", audit="seed", attack="loss")
    assert sorted((row["init"], said(row)["against"].get("method", "")) for row in rows) == [
        ("noise", ""),
        ("noise", "full"),
        ("noise", "random"),
        ("real", ""),
        ("real", "full"),
        ("real", "random"),
    ]
    _, _, text = report(made.results).partition("### Who leaks more")
    assert "| `loss`" in text.partition("###")[0], "the report shows what there is"


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_names_what_leaks_more(made: Made) -> None:
    _, _, text = report(made.results).partition("### Who leaks more: AUC")
    text = text.partition("###")[0]
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "origin per class · init",
        "method",
        "attack",
        "less Random",
        "less DM",
        "less Full data",
        "less init noise",
        "less iteration 0",
    ]
    shown = Counter(row.split("|")[3].strip() for row in rows)
    assert shown == {"`loss`": 5, "`shokri`": 5, "`data_release`": 4}, "random sets are compared with no other set"
    assert "intervals are over 1 model, 2 trainings" in text


def test_the_machine_report_has_every_difference_with_its_p(made: Made) -> None:
    tables = machine_report(made.results)["privacy"]
    found = {
        (table["audit"], row["init"], column, attack, name): entry
        for table in tables
        for row in table["rows"]
        for column, cell in row["cells"].items()
        for attack, behind in cell["by_attack"].items()
        for name, entry in behind["less"].items()
    }
    assert {name for *_, name in found} == {"random", "full", "dm", "init noise", "iteration 0"}
    # What has no start stands in the rows of both, and is one test.
    tests = {
        (audit, column, attack, entry["value"], entry["p"]): entry
        for (audit, _, column, attack, _), entry in found.items()
    }
    assert len(tests) < len(found)
    assert {table["differences"] for table in tables} == {len(tests)}
    assert [entry["p_adjusted"] for entry in tests.values()] == pytest.approx(
        false_discovery_control([entry["p"] for entry in tests.values()]).tolist()
    )


def test_trainings_of_one_set_are_no_independent_tests(made: Made) -> None:
    """Their differences hold the same images, of which nothing shows between them: it is added."""
    (table,) = [each for each in machine_report(made.results)["privacy"] if each["audit"] == "seed"]
    (cells,) = [row["cells"] for row in table["rows"] if row["init"] == "real"]
    entry = cells["dm"]["by_attack"]["shokri"]["less"]["random"]
    rows = [
        row
        for row in made.of("mia_auc_delta", audit="seed", attack="shokri", method="dm", init="real")
        if said(row)["against"] == {"method": "random"}
    ]
    values = [row["value"] for row in rows]
    own, images = np.var(values, ddof=1) / 2, np.mean([((row["ci_high"] - row["ci_low"]) / 3.92) ** 2 for row in rows])
    assert (entry["value"], entry["count"], entry["unit"]) == (pytest.approx(np.mean(values)), 2, "trainings")
    assert entry["error"] == pytest.approx((own + images) ** 0.5, rel=1e-4)
    assert entry["freedom"] == pytest.approx(((own + images) / own) ** 2, rel=1e-3)
    both = 2 * t.sf(entry["value"] / entry["error"], entry["freedom"]), 2 * t.sf(entry["value"] / own**0.5, 1)
    assert entry["p"] == pytest.approx(max(both), rel=1e-3)


def test_a_method_without_an_axis_is_compared_in_every_row_with_what_stands_there(
    tmp_path: Path, digits_cache: Path
) -> None:
    """DC knows no augmentation: beside DM with it and DM without."""
    text = LIGHT.replace("    settings: {dm: {iterations: 200}, dsa: {iterations: 100}}\n", "").replace(
        "{method: [dm, dsa], init: [noise, real]}", "{method: [dm, dc], init: [real], distill_aug: [dsa, none]}"
    )
    made = Made(tmp_path, digits_cache, text)
    wanted = {
        made.points[said(row)["against_point"]]["distill_aug"]: row
        for row in made.of("mia_auc_delta", audit="seed", attack="shokri", method="dc")
        if said(row)["against"] == {"method": "dm"}
    }
    assert set(wanted) == {"dsa", "none"}
    (table,) = [each for each in machine_report(made.results)["privacy"] if each["audit"] == "seed"]
    shown = {row["distill_aug"]: row["cells"]["dc"]["by_attack"]["shokri"]["less"]["dm"] for row in table["rows"]}
    assert {name: entry["value"] for name, entry in shown.items()} == {
        name: pytest.approx(row["value"]) for name, row in wanted.items()
    }
    p_of = {
        said(row)["against_point"]: row["value"]
        for row in made.of("mia_auc_delta_p", audit="seed", attack="shokri", method="dc")
    }
    assert {name: entry["p"] for name, entry in shown.items()} == {
        name: p_of[said(row)["against_point"]] for name, row in wanted.items()
    }


def test_one_full_model_beside_several_distillations_gives_no_p(tmp_path: Path, digits_cache: Path) -> None:
    """What another training of it would change is in no interval; and it stands beside its own seed alone."""
    text = LIGHT.replace("distill_seed: [0]", "distill_seed: [0, 1]")
    text = text.replace("method: [dm, dsa], init: [noise, real]", "method: [dm], init: [real], seed: [0, 1]")
    made = Made(tmp_path, digits_cache, text)
    against_full = [row for row in made.of("mia_auc_delta") if said(row)["against"] == {"method": "full"}]
    assert {row["seed"] for row in against_full} == {0}
    (table,) = [each for each in machine_report(made.results)["privacy"] if each["audit"] == "seed"]
    less = table["rows"][0]["cells"]["dm"]["by_attack"]["shokri"]["less"]
    assert (less["full"]["count"], less["full"]["unit"], less["full"]["p"]) == (2, "distillations", None)
    assert less["random"]["p"] is not None
    assert "No p where one model is compared with several." in report(made.results)


def test_attacks_that_learned_from_other_shadows_are_not_compared(tmp_path: Path, digits_cache: Path) -> None:
    text = LIGHT.replace("method: [random, full]}}", "method: [random]}, evaluations: {privacy: {shadows: 3}}}")
    rows = [
        row
        for row in Made(tmp_path, digits_cache, text).of("mia_auc_delta", method="dm", init="real")
        if said(row)["against"] == {"method": "random"}
    ]
    assert [(row["attack"], row["n_shadows"]) for row in rows] == [("loss", None)]


def test_shadows_are_told(made: Made) -> None:
    for row in made.of("mia_auc_delta"):
        start = "iteration" in said(row)["against"]
        wanted = (None, None)
        if row["attack"] in ("shokri", "lira_offline"):
            wanted = (1 if row["audit"] == "seed" else 4, "unequal" if start and row["audit"] == "seed" else None)
        assert (row["n_shadows"], row["shadow_fidelity"]) == wanted


def test_of_one_point_the_report_has_the_tables_own_p_and_a_star(tmp_path: Path, digits_cache: Path) -> None:
    made = Made(tmp_path, digits_cache, LIGHT)
    tables = machine_report(made.results)["privacy"]
    (row,) = [row for row in tables[0]["rows"] if row["init"] == "real"]
    entry = row["cells"]["dm"]["by_attack"]["shokri"]["less"]["init noise"]
    (wanted,) = [
        each
        for each in made.of("mia_auc_delta_p", audit="seed", attack="shokri", method="dm", init="real")
        if "init" in said(each)["against"]
    ]
    assert entry["p"] == wanted["value"] < 0.001
    text = report(made.results)
    assert f"({100 * entry['low']:+.1f} to {100 * entry['high']:+.1f}) *" in text
    assert "*: p below 0.05" in text


# --- curves -----------------------------------------------------------------------------------------------------------


def test_a_curve_is_that_of_the_scores_of_every_target(made: Made) -> None:
    """Recall at the highest threshold that lets so many others pass, by sorting."""
    store = made.world.store
    checked = 0
    for point in made.world.plan.chains:
        stage = point.stage("privacy")
        if stage is None or not made.of("mia_roc_tpr", point=point.point.hash):
            continue
        details = files.load_arrays(store.open(stage.key).folder / files.DETAILS)
        canaries = (details["pool.role"] == files.CANARY).any(axis=0)
        for audit, attack in ON_MODELS:
            rows = made.of("mia_roc_tpr", point=point.point.hash, audit=audit, attack=attack)
            scores = np.atleast_2d(details[f"{audit}.scores.{attack}"])
            member = np.atleast_2d(details["seed.is_member"]).astype(bool)
            if audit == "pool":
                member = details["pool.member"].astype(bool)[details["pool.target_row"]][:, ~canaries]
                scores = scores[:, ~canaries]
            others = int((~member).sum(1).min())
            assert [row["fpr"] for row in rows] == [rate for rate in RATES if rate * others >= 1]
            for row in rows:
                allowed = int(row["fpr"] * others + 1e-9)
                recalls = []
                for values, inside in zip(scores, member, strict=True):
                    bar = np.sort(values[~inside])[::-1][allowed]
                    recalls.append((values[inside] > bar).mean())
                assert row["value"] == pytest.approx(np.mean(recalls))
                assert (row["flag"] == "low_resolution") == (allowed < 10)
                assert (row["n_pos"], row["n_neg"]) == (int(member.sum(1).min()), others)
                checked += 1
    assert checked > 100


def test_rates_rise_along_a_curve(made: Made) -> None:
    curves: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in made.of("mia_roc_tpr"):
        curves.setdefault((row["point"], row["audit"], row["attack"]), []).append((row["fpr"], row["value"]))
    assert curves
    for curve in curves.values():
        ordered = [value for _, value in sorted(curve)]
        assert ordered == sorted(ordered)


def test_a_curve_is_drawn_of_the_strongest_attack_alone(made: Made) -> None:
    facts = machine_report(made.results)
    drawn = list(ROC.drawings(facts))
    assert len(drawn) == 2, "one an audit"
    for table, drawing in zip(facts["privacy"], drawn, strict=True):
        for row in drawing.rows:
            cell = next(
                entry["cells"][row["method"]]
                for entry in table["rows"]
                if row_title(table["row_axes"], entry) == row["place"]
            )
            assert row["attack"] == cell["strongest"]["attack"]
            assert 0 <= row["null_low"] <= row["null_high"] <= 1
            assert row["tpr"] in [at["tpr"] for at in cell["roc"]]


@pytest.mark.parametrize(("members", "others", "fpr"), [(40, 40, 0.1), (200, 1000, 0.002), (30, 500, 0.05)])
def test_the_null_band_of_a_rate_holds_most_of_what_chance_gives(members: int, others: int, fpr: float) -> None:
    low, high = null_recall(fpr, members, others)
    random = np.random.default_rng(0)
    allowed = int(fpr * others + 1e-9)
    outside = 0
    for _ in range(2000):
        bar = np.sort(random.random(others))[::-1][allowed]
        outside += not low <= (random.random(members) > bar).mean() <= high
    assert outside / 2000 < 0.065, "of a number of images, so that it holds 95 % and somewhat more"
    assert outside > 0
