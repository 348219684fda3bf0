"""Fairness between groups, from the sweep file to the report; and data without groups as before."""

from __future__ import annotations

import re

import pyarrow.compute as pc
from workspace import Workspace

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 10}
  axes: {architecture: [convnet3-d2-w8], seed: [0]}
grids:
  groups:
    axes: {method: [random, fairdd, full], dataset: [cdigits_fg], ipc: [4], distill_seed: [0]}
    settings: {fairdd: {iterations: 3, batch_real: 64, width: 8, norm: instance}}
  none:
    axes: {method: [random], dataset: [digits], ipc: [4], distill_seed: [0]}
"""


def test_a_sweep_of_data_with_groups(workspace: Workspace) -> None:
    """Networks learn the colours that lean to a class: far beyond what chance gives."""
    ran = workspace.run("sweep", workspace.write("groups", SWEEP), "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    table = workspace.table("groups")
    table = table.filter(pc.starts_with(pc.cast(table["metric"], "string"), "group_"))
    assert set(table["dataset"].to_pylist()) == {"cdigits_fg"}
    assert set(table["property"].to_pylist()) == {"fairness"}
    values = {
        (method, metric): value
        for method, metric, value in zip(
            *(table[name].to_pylist() for name in ("method", "metric", "value")), strict=True
        )
    }
    assert len(values) == 30
    full = {metric: value for (method, metric), value in values.items() if method == "full"}
    assert full["group_eod_mean"] > full["group_eod_mean_null_high"]
    assert full["group_eod_mean_null"] < full["group_eod_mean_null_high"]
    page = (workspace.results("groups").folder / "report.md").read_text()
    with_groups, without = page.split("\n## digits")[0], page.split("\n## digits")[1]
    assert re.search(r"\| worst group % +\| EOD mean % +\| EOD max % +\|", with_groups)
    assert "EOD" not in without
