"""What the command line says when ``--set`` takes apart points that grids share, and of a part of a sweep."""

from __future__ import annotations

import json

import pytest
from workspace import Workspace

SHARED = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], architecture: [convnet3-d2], ipc: [1, 5], init: [real], seed: [0, 1]}
  settings: {dm: {iterations: 5}}
grids:
  plain: {axes: {method: [dm, random]}}
  attacked: {axes: {method: [dm, random], seed: [0]}, evaluations: {robustness: {attacks: [fgsm], images: 50}}}
  other: {axes: {method: [dm], ipc: [5]}, evaluations: {embedding: {}}}
"""
ONE_GRID = "grids.plain.settings.dm.iterations=7"


@pytest.mark.parametrize("command", ["check", "plan"])
def test_grids_that_are_set_apart_are_named(workspace: Workspace, command: str) -> None:
    path = workspace.write("shared", SHARED)
    assert "note:" not in workspace.run(command, path).out
    ran = workspace.run(command, path, "--set", ONE_GRID)
    assert ran.code == 0, ran.err
    notes = [line for line in ran.out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3
    assert all(f"--set {ONE_GRID}" in note for note in notes)
    assert "grids plain and attacked no longer share 1 point:" in notes[0], "ipc 1, seed 0"
    assert "grids plain and attacked, other no longer share 1 point:" in notes[1], "ipc 5, seed 0"
    assert "grids plain and other no longer share 1 point:" in notes[2], "ipc 5, seed 1"
    assert "(8 points of the sweep became 11)" in notes[0]


def test_what_is_set_for_all_splits_nothing(workspace: Workspace) -> None:
    path = workspace.write("shared", SHARED)
    everywhere = [f"grids.{grid}.settings.dm.iterations=7" for grid in ("plain", "attacked", "other")]
    sets = [option for each in everywhere for option in ("--set", each)]
    for options in (sets, ["--set", "defaults.settings.dm.iterations=7"], ["--set", "resources.dm.cpus=2"]):
        assert "note:" not in workspace.run("check", path, *options).out
    values = ["--set", "defaults.axes.ipc=[5, 10]"]
    assert "note:" not in workspace.run("check", path, *values).out, "values of axes take no point apart"


def test_grids_that_differ_in_the_file_are_no_doing_of_set(workspace: Workspace) -> None:
    text = SHARED.replace(
        "plain: {axes: {method: [dm, random]}}", "plain: {axes: {method: [dm]}, settings: {dm: {lr_img: 2.0}}}"
    )
    path = workspace.write("shared", text)
    assert "note:" not in workspace.run("check", path, "--set", ONE_GRID).out


def test_a_file_that_is_whole_only_with_set_is_no_error(workspace: Workspace) -> None:
    path = workspace.write("shared", SHARED.replace("method: [dm, random]}}\n  attacked", "ipc: [1]}}\n  attacked"))
    assert workspace.run("check", path).code == 2
    ran = workspace.run("check", path, "--set", "grids.plain.axes.method=[dm]")
    assert (ran.code, "note:" in ran.out) == (0, False), ran.err


def test_a_sweep_says_it_and_goes_on(workspace: Workspace) -> None:
    path = workspace.write("shared", SHARED)
    options = ("sweep", path, "--local", "--no-mlflow", "--set", ONE_GRID)
    ran = workspace.run(*options, "--only", "method=random", "--limit", 1)
    assert ran.code == 0, ran.err
    assert "note:" not in ran.err, "only random is run, and its points are as they were"
    ran = workspace.run(*options, "--only", "method=dm", "--limit", 1)
    assert ran.code == 0, ran.err
    assert f"note: --set {ONE_GRID}: grids plain and attacked" in ran.err
    ran = workspace.run("plan", path, "--set", ONE_GRID, "--only", "method=dm", "--only", "ipc=1", "--json")
    (note,) = json.loads(ran.out)["notes"]
    assert "plain and attacked" in note


def test_a_plan_of_some_points_has_notes_on_those_alone(workspace: Workspace) -> None:
    """Borrowed settings, audits that get less, data sets that were not read."""
    text = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], architecture: [convnet3-d2], ipc: [1]}}
grids:
  g: {axes: {method: [random, dm, idc], init: [real]}, settings: {dm: {iterations: 5}, idc: {iterations: 5}}}
  far: {axes: {dataset: [svhn], method: [random]}}
  small:
    axes: {method: [random], origin_per_class: [120], init: [real]}
    evaluations: {privacy: {rows: 6, targets: 2, shadows: 1}}
"""
    path = workspace.write("notes", text)

    def facts(*options: str) -> dict[str, object]:
        ran = workspace.run("plan", path, "--json", *options)
        assert ran.code == 0, ran.err
        found: dict[str, object] = json.loads(ran.out)
        return found

    def borrowing(found: dict[str, object]) -> set[str]:
        entries = found["unpublished_settings"]
        assert isinstance(entries, list)
        return {entry["method"] for entry in entries}

    whole = facts()
    assert borrowing(whole) == {"dm", "idc"}
    assert whole["unread_datasets"] == ["svhn"]
    assert borrowing(facts("--only", "method=dm")) == {"dm"}
    assert borrowing(facts("--skip", "method=dm")) == {"idc"}
    near = facts("--only", "dataset=digits", "--only", "method=random")
    assert (borrowing(near), near["unread_datasets"]) == (set(), [])
    reduced = [each["privacy"] for each in (whole, facts("--only", "method=dm"))]  # type: ignore[index]
    assert [each["points"] for each in reduced] == [1, 0]  # type: ignore[index]
    assert (bool(reduced[0]["reduced"] or reduced[0]["not_applicable"]), reduced[1]["reduced"]) == (True, {})  # type: ignore[index]
