"""Membership inference in the report: tables across origins, draws as repeats, the paper only where it may stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
from panels import ONE, REACH, panel_of, row, table1
from scipy import stats

from ddray.plan.graph import Chain, Stage
from ddray.plan.points import GridPoint
from ddray.report.comparable import MixedBlock
from ddray.report.repeats import combined
from ddray.report.report import machine_report, report
from ddray.store import files
from trainables.configs import PrivacyConfig
from trainables.payloads import Metrics, Payload

Row = dict[str, Any]
Rows = Callable[[GridPoint], list[Row]]


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_flush", lambda path: None)


def auc(point: GridPoint) -> float:
    """Falls with the origin, rises with the draw; real starts leak more."""
    base = {"random": 0.60, "full": 0.55}.get(point.method, 0.70)
    per_class = point.origin_per_class or 0
    return base - per_class / 1000 + 0.02 * (point.origin_draw or 0) + (0.01 if point.init == "real" else 0.0)


def audited(value: float, **columns: Any) -> list[Row]:
    """What a report reads of one audit, in short."""
    per_class = {"unit": "images", "value": 80 * (value - 0.5)}
    rows = [
        row("mia_auc", value, **columns),
        row("mia_auc", value - 0.05, **{**columns, "attack": "loss"}),
        row("mia_auc", 0.5, **{**columns, "attack": "blind", "threat_model": "none"}),
        row("mia_auc_strongest", value, **{**columns, "ci_low": value - 2 * REACH, "ci_high": value + 2 * REACH}),
        row("mia_auc_strongest_null_low", 0.46, **columns),
        row("mia_auc_strongest_null_high", 0.54, **columns),
        row("mia_tpr_at_fpr", value / 4, fpr=0.01, **columns),
        row("mia_rho", 0.25, **columns),
        row("mia_auc", 0.99, member_role="member_init", **columns),
        row("mia_auc", 0.51, member_role="member_other", **columns),
        row("mia_target_test_acc", 0.40, **{**columns, "attack": None, "nonmember_source": None}),
    ]
    return [*rows, {**row("mia_k", 0, **columns), **per_class}]


def filled(folder: Path, text: str, rows: Rows = lambda point: audited(auc(point))) -> Path:
    """Results whose privacy stages left these rows."""
    return worlds.filled(folder, text, make=lambda stage, chain, inputs: evaluated(stage, chain, rows(chain.point)))


def evaluated(stage: Stage, chain: Chain, rows: list[Row] | None) -> Payload | None:
    """What tables read of a point: accuracy, and with rows its audit. Sets and models are not needed."""
    if stage.kind == "accuracy":
        return worlds.payload_of(stage, chain, worlds.accuracy_by_seed(chain.point))
    return Metrics(rows) if isinstance(stage.config, PrivacyConfig) and rows is not None else None


def cells(table: Row) -> dict[tuple[Any, Any, str], Row]:
    """(origin, init, column) -> cell."""
    return {
        (entry["origin_per_class"], entry["init"], column): cell
        for entry in table["rows"]
        for column, cell in entry["cells"].items()
    }


def line_of(text: str, *parts: str) -> str:
    return next(line for line in text.splitlines() if all(part in line for part in parts))


def test_a_table_spans_origins_and_draws_are_repeats(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(machine_report(filled(tmp_path, table1()))))
    assert len(facts["blocks"]) == 4, "accuracy has a block per origin and draw"
    (table,) = facts["privacy"]
    assert (table["audit"], table["panel"], table["row_axes"]) == (
        "seed",
        ["loss", "shokri"],
        ["origin_per_class", "init"],
    )
    assert [(entry["origin_per_class"], entry["init"]) for entry in table["rows"]] == [
        (40, "noise"),
        (40, "real"),
        (80, "noise"),
        (80, "real"),
    ]
    found = cells(table)[40, "real", "dm"]["attacks"]["shokri"]
    assert (found["value"], found["level"]) == (pytest.approx(0.68), "2 origin draws")
    strongest = cells(table)[40, "real", "dm"]["strongest"]
    assert (strongest["attack"], strongest["value"], strongest["panel"]) == ("shokri", pytest.approx(0.68), 2)
    assert strongest["low"] < found["low"] < found["high"] < strongest["high"], "it was chosen among two"
    # What has no start stands in the rows of both.
    assert cells(table)[40, "noise", "random"] == cells(table)[40, "real", "random"]


@pytest.mark.parametrize(("tested", "share"), [(40, 0.5), (80, 0.25), (40_000, 0.0005)])
def test_test_images_that_draws_have_in_common_count_once(tmp_path: Path, tested: int, share: float) -> None:
    """Members of a draw are its own; its 40 others are drawn from the same test images as those of another."""

    def rows(point: GridPoint) -> list[Row]:
        whole = row("mia_auc", auc(point), **{"nonmember_source": "test", "n_neg": tested})
        return [*audited(auc(point)), whole]

    (table,) = machine_report(filled(tmp_path, table1(), rows))["privacy"]
    found = cells(table)[40, "real", "dm"]["attacks"]["shokri"]
    own, shared = float(stats.sem([0.67, 0.69])) ** 2, share * (REACH / stats.norm.ppf(0.975)) ** 2
    reach = max(
        stats.t.ppf(0.975, ((own + shared) / own) ** 2) * (own + shared) ** 0.5, stats.t.ppf(0.975, 1) * own**0.5
    )
    assert (found["low"], found["high"]) == (pytest.approx(0.68 - reach), pytest.approx(min(1.0, 0.68 + reach)))
    band = table["rows"][0]["null_band"]
    reach = 0.04 * (share + (1 - share) / 2) ** 0.5
    assert (band["low"], band["high"], band["draws"]) == (pytest.approx(0.5 - reach), pytest.approx(0.5 + reach), 2)


@pytest.mark.parametrize("units", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("apart", [0.0, 2.0, 10.0])
def test_the_interval_over_draws_holds_the_truth(units: int, share: float, apart: float) -> None:
    """Each with variance 1 about images, of which draws have a share in common, and ``apart`` of their own."""
    rng, far = np.random.default_rng(units), 0.001 * stats.norm.ppf(0.975)
    members = [
        {"point": str(index), "class_draw": None, "origin_draw": index, "distill_seed": 0} for index in range(units)
    ]
    missed = alone = 0
    for _ in range(400):
        common, own = rng.normal(0, share**0.5), rng.normal(0, (1 - share + apart) ** 0.5, units)
        values = 0.5 + 0.001 * (common + own)
        rows = [
            {
                "point": member["point"],
                "stage_key": member["point"],
                "value": value,
                "ci_low": value - far,
                "ci_high": value + far,
                "flag": None,
                "unit": "fraction",
            }
            for member, value in zip(members, values.tolist(), strict=True)
        ]
        found = combined(members, rows, common={"origin draws": share})
        plain = combined(members, rows)
        assert found is not None
        assert plain is not None
        missed += not found["low"] <= 0.5 <= found["high"]
        alone += not plain["low"] <= 0.5 <= plain["high"]
    assert stats.binomtest(missed, 400, 0.06, alternative="greater").pvalue > 1e-3, missed
    assert missed <= alone
    if share == 0.99 and apart == 0.0:
        assert alone > 150, "Student's alone knows nothing of it"


def test_a_single_draw_keeps_the_interval_it_came_with(tmp_path: Path) -> None:
    text = table1().replace("origin_draw: [0, 1]", "origin_draw: [0]")
    several = {"agg": "mean_targets", "n_agg": 6, "ci_unit": "targets"}
    folder = filled(tmp_path, text, lambda point: audited(auc(point), **several))
    (table,) = machine_report(folder)["privacy"]
    found = cells(table)[80, "noise", "dm"]["attacks"]["shokri"]
    assert (found["value"], found["low"], found["high"]) == (
        pytest.approx(0.62),
        pytest.approx(0.59),
        pytest.approx(0.65),
    )
    assert (found["unit"], found["level"]) == ("targets", "6 targets")
    assert "62.0 (59.0 to 65.0)" in report(folder)


def test_one_audit_behind_two_points_is_one_draw(tmp_path: Path) -> None:
    """Or its interval would have no width: two draws that agree to the last digit."""
    member = {"class_draw": None, "distill_seed": 0}
    members = [{**member, "point": str(draw), "origin_draw": draw} for draw in range(2)]
    audit = {**row("mia_auc", 0.7), "flag": None, "n_agg": None, "stage_key": "a"}
    other = {**audit, "value": 0.6, "stage_key": "b"}
    (one, two) = ({**audit, "point": "0"}, {**audit, "point": "1"})
    same = combined(members, [one, two])
    assert same is not None
    assert (same["count"], same["low"], same["high"]) == (1, pytest.approx(0.7 - REACH), pytest.approx(0.7 + REACH))
    differ = combined(members, [one, {**other, "point": "1"}])
    assert differ is not None
    assert (differ["count"], differ["unit"]) == (2, "origin draws")


def test_the_paper_stands_below_where_it_may(tmp_path: Path) -> None:
    text = report(filled(tmp_path, table1()))
    panel = text.partition("### Each attack of the panel")[2].partition("###")[0]
    assert line_of(panel, "| 40 · real ", "68.0 (").split("|")[-2].strip() == "77.73"
    assert "75.08" in text
    assert "paper: Tables 1 and 2 of Chen et al. 2023" in text
    assert "The paper names neither its non-members nor the details of its attack; its numbers are of the kind" in text


def test_the_paper_is_absent_where_the_recipe_differs(tmp_path: Path) -> None:
    text = report(filled(tmp_path, table1("dc300")))
    assert "75.08" not in text
    assert "Not comparable with the paper's Tables 1 and 2: protocol dc300." in text


def test_classes_are_rows_and_their_draws_repeats(tmp_path: Path) -> None:
    text = """
    ddray: 1
    defaults:
      protocol: paper2023
      axes: {dataset: [cifar10], ipc: [10], origin_per_class: [80], origin_draw: [0], num_classes: [2, 5],
             class_draw: [0, 1, 2]}
      evaluations: {privacy: {audit: [seed], shadows: 0}}
    grids:
      methods: {axes: {method: [dm], init: [real]}, settings: {dm: {iterations: 20000}}}
      baselines: {axes: {method: [random, full]}}
    """
    folder = filled(tmp_path, text, lambda point: audited(0.5 + 0.02 * (point.class_draw or 0)))
    (table,) = machine_report(folder)["privacy"]
    assert table["row_axes"] == ["num_classes", "origin_per_class"]
    assert [entry["num_classes"] for entry in table["rows"]] == [2, 5]
    found = table["rows"][0]["cells"]["dm"]["attacks"]["shokri"]
    assert (found["value"], found["level"]) == (pytest.approx(0.52), "3 class draws")
    assert "49.78" in report(folder)
    assert "53.30" in report(folder)


def test_audits_are_tables_of_their_own(tmp_path: Path) -> None:
    text = table1().replace("audit: [seed]", "audit: [seed, pool], rows: 4")
    folder = filled(tmp_path, text, lambda point: audited(auc(point)) + audited(0.9, audit="pool"))
    tables = machine_report(folder)["privacy"]
    assert [table["audit"] for table in tables] == ["seed", "pool"]
    assert cells(tables[0])[40, "real", "dm"]["attacks"]["shokri"]["value"] == pytest.approx(0.68)
    assert cells(tables[1])[40, "real", "dm"]["attacks"]["shokri"]["value"] == pytest.approx(0.9)
    assert cells(tables[1])[40, "real", "dm"]["objections"] == ["audit pool"]
    assert report(folder).count("77.73") == 1, "the paper's setting is seed"


def test_what_stands_behind_an_auc_is_shown(tmp_path: Path) -> None:
    def rows(point: GridPoint) -> list[Row]:
        start = row("mia_auc", 0.93, iteration=0)
        return [*audited(auc(point)), start] if point.method == "dm" else audited(auc(point))

    folder = filled(tmp_path, table1(), rows)
    (table,) = machine_report(folder)["privacy"]
    cell = cells(table)[40, "real", "dm"]
    assert cell["attacks"]["loss"]["value"] == pytest.approx(0.63)
    behind = cell["by_attack"]["shokri"]
    assert behind["k"]["value"] == pytest.approx(80 * 0.18)
    assert behind["strata"]["member_init"]["value"] == pytest.approx(0.99)
    assert behind["strata"]["member_other"]["value"] == pytest.approx(0.51)
    assert behind["iteration_0"]["value"] == pytest.approx(0.93)
    assert cell["target_accuracy"]["value"] == pytest.approx(0.40)
    assert cell["attacks"]["shokri"]["value"] != behind["iteration_0"]["value"], "never the same number"
    text = report(folder)
    assert "99.0 (25 % of members)" in text
    assert text.count("| 40 · any   ") == 6, "a baseline has one line for all starts"


def test_missing_baselines_are_said_and_alarm(tmp_path: Path) -> None:
    folder = filled(tmp_path / "few", table1(baselines="random"))
    text = report(folder)
    assert "full (missing)" in text.lower() or "Full data (missing)" in text
    assert "No numbers of full beside 4 of 4 rows" in text
    (alarm,) = [alarm for alarm in machine_report(folder)["alarms"] if "no full" in alarm]
    assert "beside 4 of 4 rows" in alarm
    whole = filled(tmp_path / "all", table1())
    assert not any("beside" in alarm for alarm in machine_report(whole)["alarms"])
    assert "missing" not in report(whole)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"n_neg": 500}, "n_neg"), ({"n_shadows": 4}, "n_shadows"), ({"threat_model": "data_release"}, "threat_model")],
)
def test_a_row_never_mixes_parameters_of_an_attack(tmp_path: Path, change: Row, name: str) -> None:
    def rows(point: GridPoint) -> list[Row]:
        return audited(auc(point), **(change if point.method == "random" else {}))

    with pytest.raises(MixedBlock, match=rf"origin_per_class 40.*attack .*{name}"):
        report(filled(tmp_path, table1(), rows))


def test_rows_of_the_table_may_differ_in_what_follows_from_the_origin(tmp_path: Path) -> None:
    def rows(point: GridPoint) -> list[Row]:
        size = point.origin_per_class or 0
        return audited(auc(point), n_pos=10 * size, n_neg=10 * size, n_shadows=4000 // size)

    assert "400 to 800 members" in report(filled(tmp_path, table1(), rows))


def test_numbers_above_the_ceiling_and_controls_outside_their_band_alarm(tmp_path: Path) -> None:
    def rows(point: GridPoint) -> list[Row]:
        found = audited(auc(point))
        if point.method == "random" and point.origin_per_class == 40:
            found.append(row("mia_auc_efficiency", 1.3, flag="above_ceiling"))
        for each in found:
            if each["attack"] == "blind" and point.method == "dm" and point.init == "real":
                each["flag"] = "outside_band"
        return found

    alarms = machine_report(filled(tmp_path, table1(), rows))["alarms"]
    assert any("2 AUCs of random are above the ceiling" in alarm for alarm in alarms)
    assert any("outside its 95 % band in 4 of 16 cases (0.8 by chance)" in alarm for alarm in alarms)
    quiet = machine_report(filled(tmp_path / "quiet", table1()))["alarms"]
    assert not any("ceiling" in alarm or "band" in alarm for alarm in quiet)


def test_what_cannot_be_audited_says_why_and_alarms_nobody(tmp_path: Path) -> None:
    def rows(point: GridPoint) -> list[Row]:
        if point.origin_per_class == 80:
            empty = {"flag": "not_applicable", "reason": "too few images", "n": 0}
            return [row("mia_auc", None, **{**empty, "attack": None})]
        return audited(auc(point))

    folder = filled(tmp_path, table1(), rows)
    text = report(folder)
    assert "Not applicable: too few images." in text
    assert "not applicable" in line_of(text, "| 80 · noise ")
    assert not any("not_applicable" in alarm for alarm in machine_report(folder)["alarms"])


def test_points_without_a_result_are_counted(tmp_path: Path) -> None:
    def rows(point: GridPoint) -> list[Row] | None:
        return None if point.origin_draw == 1 else audited(auc(point))

    world = worlds.world(tmp_path, table1())
    worlds.fill(world.store, world.plan, make=lambda stage, chain, inputs: evaluated(stage, chain, rows(chain.point)))
    for chain in worlds.chains_of(world.plan, origin_draw=1):
        worlds.fail(world.store, worlds.stage_of(chain, "privacy"))
    worlds.collected(world, tmp_path)
    line = line_of(report(tmp_path / "results"), "| 40 · real ", "(1 of 2 points)")
    assert "67.0 (61.0 to 73.0) `shokri` (1 of 2 points)" in line


@pytest.mark.parametrize("iterations", [20_000, 1_000])
def test_a_budget_cut_short_is_said_to_understate(tmp_path: Path, iterations: int) -> None:
    """E6c: DM from noise leaks 67 after a twentieth of the iterations and 75 after a quarter."""
    said = report(filled(tmp_path, table1().replace("20000", str(iterations))))
    assert ("Budget: DM distilled for a part of the authors' iterations." in said) == (iterations < 20_000)


def test_a_bound_on_epsilon_is_shown_for_every_attack(tmp_path: Path) -> None:
    text = table1().replace("audit: [seed]", "audit: [one_run]").replace("origin_draw: [0, 1]", "origin_draw: [0]")

    def rows(point: GridPoint) -> list[Row]:
        bound = {"unit": "nat", "audit": "one_run", "ci_high": None}
        return [
            row("mia_eps_lb", 1.25, **{**bound, "attack": "loss"}),
            row("mia_eps_lb", 0.0, **{**bound, "attack": "entropy"}),
        ]

    folder = filled(tmp_path, text, rows)
    (table,) = machine_report(folder)["privacy"]
    assert cells(table)[40, "real", "dm"]["eps_lower_bound"]["loss"]["value"] == pytest.approx(1.25)
    assert re.search(r"\| 40 · real +\| DM +\| 0.00 +\| 1.25 +\|", report(folder))


def test_several_bounds_on_epsilon_are_not_averaged(tmp_path: Path) -> None:
    """The mean of bounds that each hold in 95 % of runs does not; the smallest does."""
    text = table1().replace("audit: [seed]", "audit: [one_run]")

    def rows(point: GridPoint) -> list[Row]:
        value = 1.0 + (point.origin_draw or 0)
        return [row("mia_eps_lb", value, unit="nat", audit="one_run", ci_high=None, attack="loss")]

    folder = filled(tmp_path, text, rows)
    (table,) = machine_report(folder)["privacy"]
    found = cells(table)[40, "real", "dm"]["eps_lower_bound"]["loss"]
    assert (found["value"], found["level"]) == (1.0, "smallest of 2 runs")
    assert re.search(r"\| 40 · real +\| DM +\| 1.00 \(smallest of 2 runs\)", report(folder))


def test_no_text_claims_that_anything_is_private(tmp_path: Path) -> None:
    text = table1().replace("audit: [seed]", "audit: [seed, pool], rows: 4")
    said = report(filled(tmp_path, text, lambda point: audited(0.5) + audited(0.5, audit="pool"))).lower()
    said = said.partition("## membership inference")[2]
    assert said
    assert not re.search(r"\bprivate\b|\bsafe\b|\bprotect|\bno leak|does not leak|\bsecure", said)


# --- the strongest attack, chosen -------------------------------------------------------------------------------------


def test_the_strongest_over_trainings_is_one_attack_and_no_mean_of_maxima(tmp_path: Path) -> None:
    """What a set gives away is the same for every training; in two of three another attack happens to be above it."""
    others = {0: 0.74, 1: 0.74, 2: 0.68}
    text = ONE.replace("seed: [0]}\n  eval", "seed: [0, 1, 2]}\n  eval")

    def rows(point: GridPoint) -> list[Row]:
        return panel_of({"data_release": 0.73, "loss": others[point.seed]})

    (table,) = machine_report(filled(tmp_path, text, rows))["privacy"]
    found = cells(table)[40, "real", "dm"]["strongest"]
    assert (found["attack"], found["value"]) == ("data_release", pytest.approx(0.73))
    assert (found["low"], found["high"]) == (pytest.approx(0.73 - 2 * REACH), pytest.approx(0.73 + 2 * REACH))


def test_k_of_the_strongest_knows_that_it_was_chosen(tmp_path: Path) -> None:
    (table,) = machine_report(filled(tmp_path, ONE, lambda point: panel_of({"shokri": 0.6, "loss": 0.7})))["privacy"]
    found = cells(table)[40, "real", "dm"]["strongest"]
    assert found["k"]["value"] == pytest.approx(80 * 0.2)
    assert (found["k"]["low"], found["k"]["high"]) == (pytest.approx(80 * 0.14), pytest.approx(80 * 0.26))


def test_two_targets_promise_no_interval_and_say_why(tmp_path: Path) -> None:
    why = {"reason": "no interval: 2 targets say too little of how targets differ"}
    two = {
        "agg": "mean_targets",
        "n_agg": 2,
        **dict.fromkeys(("ci_low", "ci_high", "ci_level", "ci_method", "ci_unit")),
    }
    folder = filled(tmp_path, ONE, lambda point: panel_of({"shokri": 0.6, "loss": 0.7}, **two, **why))
    said = report(folder).partition("## Membership inference")[2].partition("\n## ")[0]
    assert "### The strongest attack of the panel: AUC, percent\n" in said
    assert "95 % interval" not in said
    assert "Intervals" not in said
    assert "No interval: 2 targets say too little of how targets differ." in said


# --- alarms -----------------------------------------------------------------------------------------------------------


def test_attacks_that_disagree_beyond_their_intervals_alarm(tmp_path: Path) -> None:
    def alarms(weak: float, folder: str) -> list[str]:
        rows = {"shokri": weak, "loss": 0.7}
        found = machine_report(filled(tmp_path / folder, ONE, lambda point: panel_of(rows)))["alarms"]
        return [alarm for alarm in found if "disagree" in alarm]

    (alarm,) = alarms(0.6, "apart")
    assert "in 4 of 4 cells" in alarm
    assert "`loss` 70.0 and `shokri` 60.0" in alarm
    assert alarms(0.65, "near") == [], "0.62 to 0.68 and 0.67 to 0.73 overlap"


def test_a_set_that_leaks_more_than_as_many_real_images_alarms(tmp_path: Path) -> None:
    """10 of 40 published: 62.5 on average. Of real images, and within the interval of the chosen attack, no alarm."""

    def alarms(value: float, folder: str) -> list[str]:
        found = machine_report(filled(tmp_path / folder, ONE, lambda point: panel_of({"shokri": 0.6, "loss": value})))
        return [alarm for alarm in found["alarms"] if "gives away more" in alarm]

    found = alarms(0.70, "above")
    assert len(found) == 2, "DM from both starts; random and full are what it is compared with"
    assert all("70.0 (64.0 to 76.0) by `loss`" in alarm and "62.5 at most on average" in alarm for alarm in found)
    assert alarms(0.67, "within") == [], "61.0 to 73.0 holds it, though one attack's own interval does not"


# --- what mechanisms state --------------------------------------------------------------------------------------------


def stating(folder: Path, text: str, epsilon: float, rows: Rows) -> Path:
    """Results of which those of DM state an epsilon."""
    told = {"property": "privacy", "metric": "dp_epsilon", "value": epsilon, "unit": "1", "n": 1, "split": "train"}

    def make(stage: Stage, chain: Chain, inputs: Any) -> Payload | None:
        made = evaluated(stage, chain, rows(chain.point))
        if stage.kind == "accuracy" and chain.point.method == "dm":
            assert isinstance(made, Metrics)
            return Metrics([*made.rows, told])
        return made

    return worlds.filled(folder, text, make=make)


@pytest.mark.parametrize(("epsilon", "contradicted"), [(0.05, True), (1.0, False)])
def test_an_auc_that_no_attack_can_reach_is_an_alarm(tmp_path: Path, epsilon: float, contradicted: bool) -> None:
    """Within epsilon 0.05 no AUC is above 1 / (1 + e^-0.1) = 0.525; intervals of 0.66 begin at 0.60."""
    page = report(stating(tmp_path, ONE, epsilon, lambda point: audited(auc(point))))
    alarms = [line for line in page.splitlines() if "contradicts the epsilon of" in line]
    assert len(alarms) == (2 if contradicted else 0), "one a start"
    assert all("an AUC of" in line and "`shokri`" in line for line in alarms)
    assert "compatible with stated epsilon" in page
    assert f"{100 / (1 + np.exp(-2 * epsilon)):.1f} ({epsilon:.3g})" in page


@pytest.mark.parametrize(("epsilon", "contradicted"), [(1.0, True), (1.5, False)])
def test_a_lower_bound_above_what_is_stated_is_an_alarm(tmp_path: Path, epsilon: float, contradicted: bool) -> None:
    text = ONE.replace("audit: [seed]", "audit: [one_run]")
    bound = {"unit": "nat", "audit": "one_run", "ci_high": None}

    def rows(point: GridPoint) -> list[Row]:
        registered = row("mia_eps_lb", 1.25, **{**bound, "attack": "loss"})
        return [registered, row("mia_eps_lb", 9.0, **{**bound, "attack": "entropy"})]

    page = report(stating(tmp_path, text, epsilon, rows))
    alarms = [line for line in page.splitlines() if "contradicts the epsilon of" in line]
    assert len(alarms) == (2 if contradicted else 0)
    assert all("`loss` bounds it from below by 1.25" in line for line in alarms), "only what was registered speaks"
    assert "stated by the mechanism" in page
