"""`ddray failures` and `ddray retry`: what failed, by cause, and only that again."""

from __future__ import annotations

import json

import pytest
from workspace import Workspace

from trainables.distill import dm

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 1}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [2], ipc: [1], init: [real]}
grids:
  dm:
    axes: {method: [dm], seed: [0, 1]}
    settings: {dm: {iterations: 2, batch_real: 8, width: 8}}
  diverges:
    axes: {method: [dm], ipc: [2]}
    settings: {dm: {iterations: 3, batch_real: 8, width: 8, norm: none, lr_img: 1.0e+30}}
  random:
    axes: {method: [random]}
"""


def test_they_are_listed_by_cause_and_only_they_are_run_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, usual = workspace.write("broken", SWEEP), dm.distill

    def distill(origin, settings, context):  # type: ignore[no-untyped-def]
        if context.ipc == 1:
            raise RuntimeError("the file system hiccupped")
        return usual(origin, settings, context)

    options = ("--local", "--no-mlflow", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(dm, "distill", distill)
        assert workspace.run("sweep", sweep, *options).code == 1
        before = workspace.manifests()
        told = workspace.run("failures", sweep)
    assert told.code == 0, told.err
    first, second = told.out.split("\n1 x ")[0], "1 x " + told.out.split("\n1 x ")[1]
    assert {line.split(",")[0] for line in (first.splitlines()[0], second.splitlines()[0])} == {
        "1 x error (error)",
        "1 x the computation cannot go on (computation)",
    }
    assert "RuntimeError: the file system hiccupped" in told.out
    assert "2 points incomplete, 4 more wait for them" in told.out, "two trainings and what is measured of them"
    assert "Lower settings.dm.lr_img" in told.out

    facts = json.loads(workspace.run("failures", sweep, "--json").out)
    (error,) = (cause for cause in facts["causes"] if cause["kind"] == "error")
    key = error["stages"][0]["key"]
    assert key in workspace.store.failures()
    assert f"ddray debug {key[:12]}" in told.out, "a command that can be copied"

    refused = workspace.run("retry", "broken", "--cause", "card", *options)
    assert refused.code == 2
    assert "no stage failed for card; got failures for" in refused.err
    again = workspace.run("retry", "broken", "--cause", "error", *options)
    assert again.code == 1, "one of the sweep's points is still without its set"
    assert "2 points with failures are run again" in again.err
    after = workspace.manifests()
    assert all(after[name] == content for name, content in before.items()), "nothing finished was touched"
    assert key in after
    left = json.loads(workspace.run("failures", "broken", "--json").out)
    assert [cause["kind"] for cause in left["causes"]] == ["computation"]
    assert workspace.run("retry", "broken", *options).code == 1, "it diverges again"


def test_a_sweep_without_failures_says_so(workspace: Workspace) -> None:
    sweep = workspace.write("whole", SWEEP)
    assert workspace.run("failures", sweep).out == "whole: nothing failed\n"
    assert workspace.run("retry", sweep, "--local").code == 2
