"""The report: the right level of repetition, the paper only where it may stand, no mixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import worlds

from ddray.errors import EnvironmentProblem
from ddray.plan.graph import Chain, Stage
from ddray.plan.points import GridPoint
from ddray.report import comparable
from ddray.report.comparable import MixedBlock
from ddray.report.report import machine_report, report
from ddray.results import COVERAGE_FILE, MEASUREMENTS_FILE
from trainables.payloads import Metrics, Payload

CIFAR = """
ddray: 1
grids:
  t:
    protocol: PROTOCOL
    axes: {method: [random, dm, full], dataset: [cifar10], ipc: [10], seed: [0, 1, 2]}
    settings: {dm: {iterations: ITERATIONS}}
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., str]:
    """Text of a sweep -> its report, with every possible stage finished."""

    def make(text: str, accuracy: worlds.Accuracy = worlds.accuracy_by_seed, **said: Any) -> str:
        return report(worlds.filled(tmp_path, text, accuracy, **said))

    return make


def cifar(protocol: str = "paper2023", iterations: int = 20_000) -> str:
    return CIFAR.replace("PROTOCOL", protocol).replace("ITERATIONS", str(iterations))


def test_a_report_shows_means_in_percent_with_their_level(made: Any) -> None:
    text = made(worlds.SWEEP)
    # random, ipc 10: 0.50 + 0.02 * distill_seed + 0.01 * seed over three draws and two trainings
    assert "| 10  | 52.50 ± 2.00 n=3×2 | 62.50 ± 2.00 n=3×2 | 90.50 ± 0.71 n=2 |" in text
    assert "Random n=3 draws × 2 trainings" in text
    assert "DM n=3 distillations × 2 trainings" in text
    assert "Full data n=2 trainings" in text
    assert "Coverage: 26 of 26 points done." in text
    assert "protocol quick" in text
    assert "Budget: DM 1 % (200 iterations)" in text


def test_a_report_names_where_the_numbers_come_from(made: Any) -> None:
    text = made(worlds.SWEEP)
    line = "Numbers computed 2026-01-02T03:04:05+00:00 on cpu; torch 2.9.0, ddray 0.1.0; commit 0123456789ab."
    assert line in text
    assert "Alarms: none." in text


def test_a_dirty_checkout_is_said(made: Any) -> None:
    text = made(worlds.SWEEP, dirty=True)
    assert "commit 0123456789ab, with changes that were not committed." in text
    assert "- some numbers come from a checkout with changes that were not committed" in text


def test_the_paper_stands_below_where_it_may(made: Any) -> None:
    text = made(cifar())
    assert "53.07 ± 0.91" in text
    assert "89.61 ± 0.26" in text
    assert "Not comparable" not in text
    assert "Table 3 of Chen et al. 2023" in text


def test_the_paper_is_absent_where_the_protocol_differs(made: Any) -> None:
    text = made(cifar(protocol="quick"))
    assert "53.07" not in text
    assert "89.61" not in text
    assert "Not comparable with the paper's Table 3: protocol quick." in text


def test_a_cell_below_the_budget_is_marked_and_the_others_are_not(made: Any) -> None:
    text = made(cifar(iterations=1000))
    assert "53.07" not in text
    assert "89.61 ± 0.26" in text
    assert "- [a] budget 5 %" in text
    assert text.count("[a]") == 2  # the cell and its note


def test_incomplete_and_failed_points_are_shown(tmp_path: Path) -> None:
    _, plan, store = world = worlds.world(tmp_path, worlds.SWEEP)
    worlds.fill(store, plan, chains=worlds.chains_of(plan, method="random"))
    worlds.fill(store, plan, chains=worlds.chains_of(plan, method="dm", ipc=1, distill_seed=0))
    stage = worlds.stage_of(worlds.chains_of(plan, method="dm", ipc=10, distill_seed=1)[0], "distill")
    worlds.fail(store, stage, "StageFailure: diverged")
    text = report(worlds.collected(world, tmp_path))
    assert "- coverage 53.8 %: 14 of 26 points are done" in text
    assert "Coverage: 14 of 26 points done, 2 failed, 10 pending." in text
    assert "n=2 (2 of 6 points)" in text
    assert "2 failed, 4 pending" in text
    assert f"- {stage.label}: StageFailure: diverged (2 points; look closer with: ddray debug {stage.key[:12]})" in text


def test_an_empty_sweep_still_has_a_report(tmp_path: Path) -> None:
    text = report(worlds.collected(worlds.world(tmp_path, worlds.SWEEP), tmp_path))
    assert "No numbers yet." in text
    assert "coverage 0 %" in text


def test_below_random_is_an_alarm_and_above_is_none(tmp_path: Path) -> None:
    def poor(point: GridPoint) -> float:
        return worlds.accuracy_by_seed(point) - (0.3 if point.method == "dm" and point.ipc == 10 else 0)

    alarms = machine_report(worlds.filled(tmp_path, worlds.SWEEP, poor))["alarms"]
    assert alarms == ["digits, convnet3, protocol quick, full origin: dm is 20.00 points below random at ipc 10"]


@pytest.mark.parametrize("methods", ["random, dm", "dm"])
def test_accuracy_that_guessing_reaches_is_an_alarm_with_and_without_random(tmp_path: Path, methods: str) -> None:
    def guessing(point: GridPoint) -> float:
        return 0.12 if point.method == "dm" and point.ipc == 10 else 0.5

    text = worlds.SWEEP.replace("[random, dm, full]", f"[{methods}]")
    told = machine_report(worlds.filled(tmp_path, text, guessing))["alarms"]
    alarm = "digits, convnet3, protocol quick, full origin: dm is at chance at ipc 10: 12.00 %"
    (found,) = [each for each in told if "at chance" in each]
    assert found.startswith(alarm)
    assert found.endswith(
        "guessing among 10 classes stays below 14.16 % in 39 of 40 cases on 200 test images"
    )  # 10 ± 1.96 * 2.12


def test_numbers_that_ran_away_are_an_alarm(tmp_path: Path) -> None:
    def losing(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload:
        made = worlds.payload_of(stage, chain, worlds.accuracy_by_seed(chain.point))
        if isinstance(made, Metrics) and chain.point.method == "dm":
            rows = [{**row, "value": 1e75} if row["metric"] == "test_loss" else row for row in made.rows]
            return Metrics(rows)
        return made

    (alarm,) = machine_report(worlds.filled(tmp_path, worlds.SWEEP, make=losing))["alarms"]
    assert alarm.startswith("flagged implausible: 12 test_loss")
    assert machine_report(worlds.filled(tmp_path / "sound", worlds.SWEEP))["alarms"] == []


def test_differences_to_random_are_paired_by_distillation(tmp_path: Path) -> None:
    (block,) = machine_report(worlds.filled(tmp_path, worlds.SWEEP))["blocks"]
    for entry in block["rows"]:
        difference = entry["against_random"]["dm"]
        assert difference["pairs"] == 3
        assert difference["mean"] == pytest.approx(0.10)
        assert difference["unit"] == "distillations"
        assert difference["trainings"] == (2, 2)


def test_one_distilled_set_gives_no_interval(made: Any) -> None:
    text = made(cifar())
    assert "none: one pair" in text
    assert "± is over trainings of one distilled set" in text


def test_two_protocols_are_two_blocks_and_an_alarm(made: Any) -> None:
    text = made("""
    ddray: 1
    defaults: {axes: {method: [random], dataset: [digits], ipc: [1]}}
    grids: {one: {protocol: quick}, two: {protocol: dsa1000}, three: {protocol: quick, train: {epochs: 3}}}
    """)
    assert "## digits, convnet3, protocol quick, full origin" in text
    assert "## digits, convnet3, protocol dsa1000, full origin" in text
    assert "## digits, convnet3, protocol quick*, full origin" in text
    assert "quick with epochs=3" in text
    assert "- 3 protocols (dsa1000, quick, quick*): compare within a block, never across" in text


SETTINGS = """
ddray: 1
defaults: {protocol: quick, axes: {method: [random, dm], dataset: [digits], ipc: [1]}}
grids:
  one: {settings: {dm: {iterations: 100, lr_img: 1.0}}}
  two: {settings: {dm: {iterations: SECOND}}}
"""


def test_other_settings_of_one_method_are_another_column(tmp_path: Path) -> None:
    text = SETTINGS.replace("{iterations: SECOND}", "{iterations: 100, lr_img: 2.0}")
    (block,) = machine_report(worlds.filled(tmp_path, text))["blocks"]
    assert block["methods"] == ["random", "dm (lr_img 1.0)", "dm (lr_img 2.0)"]
    (entry,) = block["rows"]
    assert [cell["planned"] for cell in entry["cells"].values()] == [1, 1, 1]
    assert "| DM (lr_img 2.0)" in report(tmp_path / "results")
    assert set(entry["against_random"]) == {"dm (lr_img 1.0)", "dm (lr_img 2.0)"}


def test_settings_that_follow_from_the_ipc_are_not_told_apart(tmp_path: Path) -> None:
    """Published values differ between numbers of images; one method remains one column."""
    text = """
    ddray: 1
    grids: {g: {protocol: quick, axes: {method: [dsa], dataset: [digits], ipc: [1, 10]}}}
    """
    (block,) = machine_report(worlds.filled(tmp_path, text))["blocks"]
    assert block["methods"] == ["dsa"]


def test_budgets_of_several_methods_are_columns(tmp_path: Path) -> None:
    text = """
    ddray: 1
    defaults: {protocol: quick, axes: {dataset: [digits], ipc: [1]}}
    grids:
      one: {axes: {method: [dm, dsa]}, settings: {dm: {iterations: 100}, dsa: {iterations: 7}}}
      two: {axes: {method: [dm]}, settings: {dm: {iterations: 200}}}
    """
    (block,) = machine_report(worlds.filled(tmp_path, text))["blocks"]
    assert block["row_axes"] == ["ipc"]
    assert block["methods"] == ["dsa", "dm (iterations 100)", "dm (iterations 200)"]


def test_trainings_together_and_apart_are_two_columns(tmp_path: Path) -> None:
    text = """
    ddray: 1
    defaults: {protocol: quick, axes: {method: [random], dataset: [digits], ipc: [1], seed: [0, 1]}}
    grids: {apart: {}, together: {train: {ensemble: true}}}
    """
    (block,) = machine_report(worlds.filled(tmp_path, text))["blocks"]
    assert block["methods"] == ["random (ensemble no)", "random (ensemble yes)"]
    assert [cell["planned"] for cell in block["rows"][0]["cells"].values()] == [2, 2]


def test_a_cell_never_mixes_networks(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    """What no setting explains is refused: the control that a mixture is seen at all."""
    monkeypatch.setattr(comparable, "differing_settings", lambda rows: {})
    with pytest.raises(MixedBlock, match=r"dm, ipc 1: rows with different parameters.*distill_cfg_hash") as caught:
        made(SETTINGS.replace("{iterations: SECOND}", "{iterations: 100, lr_img: 2.0}"))
    assert caught.value.exit_code == 2


def test_equal_settings_are_no_mixture(made: Any) -> None:
    assert "### Test accuracy" in made(SETTINGS.replace("{iterations: SECOND}", "{iterations: 100, lr_img: 1.0}"))


def test_two_budgets_are_two_rows_and_random_is_in_both(tmp_path: Path) -> None:
    (block,) = machine_report(worlds.filled(tmp_path, SETTINGS.replace("SECOND", "200, lr_img: 1.0")))["blocks"]
    assert block["row_axes"] == ["ipc", "distill_iters"]
    assert [(entry["ipc"], entry["distill_iters"]) for entry in block["rows"]] == [(1, 100), (1, 200)]
    assert all(set(entry["cells"]) == {"random", "dm"} for entry in block["rows"])
    assert "1 · 200" in report(tmp_path / "results")


def test_two_inits_are_two_rows(made: Any) -> None:
    text = made("""
    ddray: 1
    grids:
      g:
        protocol: quick
        axes: {method: [random, dm], dataset: [digits], ipc: [1], init: [noise, real], distill_seed: [0, 1]}
    """)
    assert "| 1 · noise " in text
    assert "| 1 · real " in text
    assert "With init noise a pair shares its training seeds, not its images." in text


def test_origins_and_classes_are_blocks_of_their_own(tmp_path: Path) -> None:
    text = """
    ddray: 1
    grids:
      g:
        protocol: quick
        axes: {method: [random], dataset: [digits], ipc: [1], origin_per_class: [null, 20], origin_draw: [0, 1],
               num_classes: [null, 3]}
    """
    titles = [block["title"] for block in machine_report(worlds.filled(tmp_path, text))["blocks"]]
    assert len(set(titles)) == len(titles) == 6
    assert "digits, convnet3, protocol quick, 3 classes (draw 0), origin 20 per class (draw 1)" in titles


def test_an_axis_that_makes_blocks_is_told_in_their_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an axis that the title has no words for, name and value: two blocks never have the same title."""
    monkeypatch.setattr(comparable, "BLOCK_AXES", (*comparable.BLOCK_AXES, "temperature"))
    row = dict.fromkeys(comparable.BLOCK_AXES) | {"method": "dm", "dataset": "digits", "architecture": "vgg16"}
    title = comparable.block_title(row | {"protocol": "quick", "temperature": 2})
    assert title == "digits, vgg16, protocol quick, full origin, temperature 2"


def test_the_machine_report_holds_fractions_and_is_json(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(machine_report(worlds.filled(tmp_path, worlds.SWEEP))))
    cells = [cell for block in facts["blocks"] for entry in block["rows"] for cell in entry["cells"].values()]
    assert len(cells) == 6
    assert all(0 < cell["accuracy"]["mean"] < 1 for cell in cells)
    assert facts["coverage"]["points"]["planned"] == 26
    assert facts["provenance"]["commits"] == ["0123456789abcdef"]


def test_fairness_means_are_over_the_same_seeds(tmp_path: Path) -> None:
    from trainables.payloads import Metrics

    _, plan, store = world = worlds.world(tmp_path, worlds.SWEEP)
    worlds.fill(store, plan)
    (block,) = machine_report(worlds.collected(world, tmp_path))["blocks"]
    cell = next(entry for entry in block["rows"] if entry["ipc"] == 10)["cells"]["full"]
    values = []
    for chain in worlds.chains_of(plan, method="full"):
        rows = Metrics.load(store.open(worlds.stage_of(chain, "accuracy").key).folder).rows
        values += [row["value"] for row in rows if row["metric"] == "fair_var_acc"]
    assert cell["fairness"]["fair_var_acc"]["mean"] == pytest.approx(sum(values) / 2)
    assert f"{1e4 * sum(values) / 2:.1f}" in report(tmp_path / "results")


def test_lines_of_a_table_are_equally_long(made: Any) -> None:
    lines = made(worlds.SWEEP).splitlines()
    tables: dict[int, set[int]] = {}
    start = 0
    for number, line in enumerate(lines):
        start = start if line.startswith("|") else number
        if line.startswith("|"):
            tables.setdefault(start, set()).add(len(line))
    assert len(tables) == 5
    assert all(len(widths) == 1 for widths in tables.values())


@pytest.mark.parametrize("name", [MEASUREMENTS_FILE, COVERAGE_FILE])
def test_missing_and_broken_files_say_what_to_do(tmp_path: Path, name: str) -> None:
    folder = worlds.collected(worlds.world(tmp_path, worlds.SWEEP), tmp_path)
    (folder / name).write_bytes(b"PAR1 this is not a table")
    with pytest.raises(EnvironmentProblem, match="ddray collect"):
        report(folder)
    (folder / name).unlink()
    with pytest.raises(EnvironmentProblem, match="ddray collect"):
        report(folder)
