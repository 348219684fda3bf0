"""Hard labels and a teacher's side by side: rows that say which, tables that do not mix them, and what each does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import worlds
from scipy.stats import t
from unit.point_records import recorded, rows

from ddray.measurements.statistics import differences, mean_of, paired
from ddray.plan.points import GridPoint
from ddray.report.comparable import show_null
from ddray.report.report import machine_report, report
from ddray.report.sections.labels import EFFECTS, effects

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], ipc: [1, 10], seed: [0, 1], distill_seed: [0, 1, 2]}
grids:
  g:
    axes: {method: [random, dm, full], labels: LABELS}
    settings: {dm: {iterations: 200}}
"""
TEACHERS = SWEEP.replace("LABELS", "[null, teacher-e3, teacher-t4]")
FOUR = SWEEP.replace("LABELS", "[null, teacher]")


def accuracy(point: GridPoint) -> float:
    """In twentieths, which worlds keep to the last digit: DM 0.1 above random, a teacher 0.2 more for both and another
    0.1 for DM; distillation 2 gives labels 0.05 less."""
    if point.method == "full":
        return 0.9
    value = 0.3 + (0.1 if point.method == "dm" else 0.0) + 0.05 * point.seed
    if point.labels is not None:
        value += 0.2 + (0.1 if point.method == "dm" else 0.0) - (0.05 if point.distill_seed == 2 else 0.0)
    return value


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[str], Any]:
    return lambda text: machine_report(worlds.filled(tmp_path, text, accuracy))


# --- arithmetic -------------------------------------------------------------------------------------------------------


def cells(*values: tuple[str, list[list[float]]]) -> dict[str, Any]:
    """Name -> accuracies, a list for each distill_seed."""
    return {name: {index: dict(enumerate(each)) for index, each in enumerate(sets)} for name, sets in values}


def test_effects_by_hand() -> None:
    found = effects(
        cells(
            ("random_hard", [[0.1, 0.3], [0.2, 0.2]]),
            ("random_soft", [[0.5, 0.5], [0.4, 0.6]]),
            ("hard", [[0.4, 0.4], [0.5, 0.5]]),
            ("soft", [[0.6, 0.8], [0.7, 0.9]]),
        ),
        seeded=True,
    )
    means = {name: each.mean for name, each in found.items() if each is not None}
    assert means == pytest.approx(
        {
            "image_gain_hard": 0.45 - 0.2,
            "image_gain_soft": 0.75 - 0.5,
            "label_gain_random": 0.5 - 0.2,
            "label_gain": 0.75 - 0.45,
            "interaction": 0.0,
        }
    )
    gain = found["image_gain_hard"]
    assert gain is not None
    assert gain.pairs == 2
    by_set = [0.2, 0.3]
    reach = t.ppf(0.975, 1) * (by_set[1] - by_set[0]) / 2  # of two values: sd / sqrt(2) is half their distance
    assert (gain.low, gain.high) == pytest.approx((fmean(by_set) - reach, fmean(by_set) + reach))


def test_gains_add_up_both_ways() -> None:
    """From random images with hard labels to distilled ones with soft: images first or labels first."""
    found = effects(
        cells(
            ("random_hard", [[0.11], [0.23], [0.31]]),
            ("random_soft", [[0.57], [0.41], [0.62]]),
            ("hard", [[0.44], [0.29], [0.53]]),
            ("soft", [[0.61], [0.74], [0.88]]),
        ),
        seeded=True,
    )
    images_hard, images_soft, labels_random, labels, interaction = (found[name].mean for name in EFFECTS)  # type: ignore[union-attr]
    whole = fmean([0.61, 0.74, 0.88]) - fmean([0.11, 0.23, 0.31])
    assert images_hard + labels == pytest.approx(whole)
    assert labels_random + images_soft == pytest.approx(whole)
    assert interaction == pytest.approx(labels - labels_random) == pytest.approx(images_soft - images_hard)


def test_only_seeds_that_all_four_have_enter_the_interaction() -> None:
    found = effects(
        cells(
            ("random_hard", [[0.1, 0.9], [0.1]]),
            ("random_soft", [[0.2]]),
            ("hard", [[0.3], [0.3]]),
            ("soft", [[0.7], [0.9]]),
        ),
        seeded=True,
    )
    pairs = {name: each.pairs for name, each in found.items() if each is not None}
    expected = {"image_gain_hard": 2, "image_gain_soft": 1, "label_gain_random": 1, "label_gain": 2, "interaction": 1}
    assert pairs == expected
    assert found["interaction"].mean == pytest.approx(0.5 - 0.2)  # type: ignore[union-attr]
    assert found["interaction"].low is None, "one pair has no interval"  # type: ignore[union-attr]


def test_a_set_that_no_seed_made_is_compared_with_every_draw() -> None:
    of_random = cells(("random_hard", [[0.1], [0.3]]), ("random_soft", [[0.4], [0.8]]))
    own = {"hard": {None: {0: 0.5}}, "soft": {None: {0: 0.9}}}
    found = effects({**of_random, **own}, seeded=False)
    means = {name: (each.mean, each.pairs) for name, each in found.items() if each is not None}
    assert means == {
        "image_gain_hard": (pytest.approx(0.3), 2),
        "image_gain_soft": (pytest.approx(0.3), 2),
        "label_gain_random": (pytest.approx(0.4), 2),
        "label_gain": (pytest.approx(0.4), 1),
        "interaction": (pytest.approx(0.0), 2),
    }


def test_what_is_missing_is_none() -> None:
    assert set(effects({}, seeded=True).values()) == {None}
    found = effects(cells(("random_hard", [[0.1]]), ("hard", [[0.2]])), seeded=True)
    assert [name for name, each in found.items() if each is not None] == ["image_gain_hard"]


def test_a_paired_difference_is_the_mean_of_its_differences() -> None:
    ours, other = {0: {0: 0.5, 1: 0.7}, 1: {0: 0.4}}, {0: {0: 0.1, 2: 0.9}, 2: {0: 0.3}}
    assert differences(ours, other) == {0: {0: pytest.approx(0.4)}}
    assert paired(ours, other) == mean_of(differences(ours, other))
    assert mean_of({}) is None


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_say_which_labels_a_network_learned(tmp_path: Path) -> None:
    folder = worlds.filled(tmp_path, TEACHERS, accuracy)
    (world,) = [worlds.plan_of(worlds.sweep_of(tmp_path, TEACHERS))]
    for chain in world.chains:
        (row,) = worlds.rows_of(folder, metric="test_acc", point=chain.point.hash, class_id=None)
        said = json.loads(row["param_json"] or "{}")
        assert row["labels"] == chain.point.labels
        assert row["label_kind"] == (None if row["method"] == "full" else "soft" if row["labels"] else "hard")
        if row["labels"] is None:
            assert "labels" not in said
            continue
        train = chain.stage("train")
        assert train is not None
        assert said["labels"] == {
            "form": "logits",
            "source": "teacher",
            "loss": "soft_ce",
            "temperature": 4.0 if row["labels"] == "teacher-t4" else 1.0,
            "scaled": False,
            "teacher": {"name": row["labels"], "key": dict(train.inputs)["teacher"]},
        }


def test_points_are_compared_among_their_own_labels(tmp_path: Path) -> None:
    points = recorded(tmp_path, FOUR, lambda point: {"accuracy": accuracy(point)})
    from ddray.measurements.derived.relative_accuracy import relative_accuracy

    relative_accuracy(points)
    for labels in (None, "teacher"):
        gains = [row["value"] for row in rows(points, "ior", method="dm", labels=labels)]
        assert len(gains) == 2 * 2 * 3
        assert gains == pytest.approx([0.1 if labels is None else 0.2] * len(gains))
    assert not rows(points, "dd_hlr", labels="teacher"), "DD-Ranking's is of hard labels"
    assert rows(points, "dd_hlr", labels=None, method="dm")


def test_students_of_a_teacher_that_failed_say_so_and_nobody_else(tmp_path: Path) -> None:
    made = worlds.world(tmp_path, FOUR)
    (of_one, *_) = (chain for chain in made.plan.chains if (chain.point.labels, chain.point.ipc) == ("teacher", 1))
    train = worlds.stage_of(of_one, "train")
    teacher = made.plan.stages[dict(train.inputs)["teacher"]]
    worlds.fail(made.store, teacher)
    waiting = [chain for chain in made.plan.chains if teacher in chain.all_stages]
    assert {(chain.point.labels, chain.point.ipc) for chain in waiting} == {("teacher", 1)}
    worlds.fill(made.store, made.plan, accuracy, [chain for chain in made.plan.chains if chain not in waiting])
    folder = worlds.collected(made, tmp_path)
    overall = worlds.rows_of(folder, metric="test_acc", class_id=None)
    assert {(row["labels"], row["ipc"]) for row in overall if row["status"] != "ok"} == {("teacher", 1)}
    lost = [row for row in overall if row["status"] != "ok"]
    assert len(lost) == len(waiting) == 2 * 2 * 3
    assert {row["status"] for row in lost} == {"failed"}
    assert all(row["note"].startswith(f"train {teacher.key[:12]}: ") for row in lost)


# --- the report -------------------------------------------------------------------------------------------------------


def test_hard_and_soft_labels_are_rows_of_one_table(facts: Any) -> None:
    (block,) = facts(TEACHERS)["blocks"]
    assert block["row_axes"] == ["ipc", "labels"]
    places = [(row["ipc"], row["labels"]) for row in block["rows"]]
    assert places == [(ipc, labels) for ipc in (1, 10) for labels in ("hard", "teacher-e3", "teacher-t4")]
    for row in block["rows"]:
        assert row["cells"].keys() == {"random", "dm", "full"}
        for method in ("random", "dm"):
            cell = row["cells"][method]
            assert cell["planned"] == 6, "no repeat of other labels is among them"
            assert ("labels" in cell) == (row["labels"] != "hard")
    teacher = block["rows"][1]["cells"]["random"]["accuracy"]["mean"]
    assert teacher - block["rows"][0]["cells"]["random"]["accuracy"]["mean"] == pytest.approx(0.2 - 0.05 / 3, abs=0.01)


def test_the_report_says_what_images_and_labels_do_apart(facts: Any) -> None:
    (block,) = facts(FOUR)["blocks"]
    assert [(entry["ipc"], entry["labels"], entry["method"]) for entry in block["labels"]] == [
        (1, "teacher", "dm"),
        (10, "teacher", "dm"),
    ]
    for entry in block["labels"]:
        means = {name: entry[name]["mean"] for name in EFFECTS}
        expected = {
            "image_gain_hard": 0.1,
            "image_gain_soft": 0.2,
            "label_gain_random": 0.2 - 0.05 / 3,
            "label_gain": 0.3 - 0.05 / 3,
            "interaction": 0.1,
        }
        assert means == pytest.approx(expected, abs=1e-9)
        assert {entry[name]["pairs"] for name in EFFECTS} == {3}
        assert entry["unit"] == "distillations"
        assert entry["image_gain_hard"]["low"] == pytest.approx(0.1), "alike in all distillations"
        assert entry["label_gain"]["low"] < entry["label_gain"]["mean"] < entry["label_gain"]["high"]
        # Both ways from random images with hard labels to distilled ones with a teacher's.
        one, other = (
            means["image_gain_hard"] + means["label_gain"],
            means["label_gain_random"] + means["image_gain_soft"],
        )
        assert one == pytest.approx(other)


def test_the_printed_report_names_teacher_and_gains(tmp_path: Path) -> None:
    text = report(worlds.filled(tmp_path, FOUR, accuracy))
    assert "### Images and labels: differences of test accuracy, points" in text
    assert "| 1 · teacher  | DM     | +10.00 (+10.00 to +10.00) n=3 |" in text
    assert "Labels: teacher soft (logits, of the teacher " in text
    assert "soft_ce at temperature 1, not scaled" in text


def test_null_is_spelled_out_beside_other_labels_by_what_a_set_has() -> None:
    def points(teacher: str | None) -> list[dict[str, Any]]:
        kinds = {"full": None, "random": "hard", "external": "soft", "dm": "soft"}
        return [
            {"method": method, "label_kind": kind, "labels": teacher if method == "dm" else None}
            for method, kind in kinds.items()
        ]

    beside, alone = points("teacher"), points(None)
    show_null(beside)
    assert {point["method"]: point["labels"] for point in beside} == {
        "full": None,
        "random": "hard",
        "external": "own",
        "dm": "teacher",
    }
    show_null(alone)
    assert {point["labels"] for point in alone} == {None}, "there is nothing to tell apart"


@pytest.mark.parametrize("labels", ["[null]", "[teacher]"])
def test_with_one_kind_of_labels_there_is_no_such_table(facts: Any, labels: str) -> None:
    (block,) = facts(SWEEP.replace("LABELS", labels))["blocks"]
    assert block["labels"] == []
    assert "labels" not in block["row_axes"]


def test_random_images_alone_have_a_label_gain(facts: Any) -> None:
    (block,) = facts(FOUR.replace("[random, dm, full]", "[random, full]"))["blocks"]
    assert [entry["method"] for entry in block["labels"]] == ["random"] * 2
    for entry in block["labels"]:
        assert entry["label_gain_random"]["mean"] == pytest.approx(0.2 - 0.05 / 3)
        assert all(entry[name] is None for name in EFFECTS if name != "label_gain_random")


AS_PUBLISHED = (
    FOUR.replace("digits", "cifar10").replace("quick", "paper2023").replace("iterations: 200", "iterations: 20000")
)


def test_soft_labels_do_not_stand_beside_the_paper(facts: Any) -> None:
    (block,) = facts(AS_PUBLISHED)["blocks"]
    for row in block["rows"]:
        assert row["cells"]["dm"]["objections"] == (["labels of teacher"] if row["labels"] == "teacher" else [])


def test_the_paper_s_claims_are_about_hard_labels(facts: Any) -> None:
    hard = facts(AS_PUBLISHED.replace("[null, teacher]", "[null]"))["claims"]
    assert sum(claim["contrasts"] for claim in hard) > 0
    assert facts(AS_PUBLISHED)["claims"] == hard
    assert (
        sum(claim["contrasts"] for claim in facts(AS_PUBLISHED.replace("[null, teacher]", "[teacher]"))["claims"]) == 0
    )
