"""Baselines with a guarantee, from the sweep file to the report: a set of noisy means, a network of noisy gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import compute as pc
from workspace import Ran, Workspace, places_in

SWEEP = """
ddray: 1
defaults:
  axes: {dataset: [digits], architecture: [convnet3-d2-w8], num_classes: [2], origin_per_class: [40], seed: [0]}
  evaluations: {privacy: {audit: [one_run]}}
grids:
  sets:
    protocol: quick
    train: {epochs: 3}
    axes: {method: [random, dpdm], ipc: [2], distill_seed: [0]}
    settings: {dpdm: {iterations: 6, rounds: 3, batch_real: 10, width: 8, depth: 2, epsilon: 5, delta: 0.01}}
  networks:
    protocol: dpsgd_eps10
    train: {epochs: 3, batch: 20, private: {epsilon: 10, delta: 0.01}}
    axes: {method: [full]}
"""

REFUSED = """
ddray: 1
grids:
  wrong:
    protocol: dpsgd_eps1
    axes: {dataset: [digits], method: [dm, full], architecture: [convnet3, convnet3-batch], ipc: [1]}
  worse:
    protocol: quick
    axes: {dataset: [digits], method: [dpdm], architecture: [convnet3], ipc: [1]}
    settings: {dpdm: {norm: batch}}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Iterator[tuple[Ran, Any, str]]:
    """What the sweep said, its table, its report."""
    with places_in(tmp_path_factory.mktemp("guarantees"), digits_cache) as workspace:
        ran = workspace.run("sweep", workspace.write("guarantees", SWEEP), "--local", "--no-mlflow")
        assert ran.code == 0, ran.err
        page = workspace.results("guarantees").folder / "report.md"
        yield ran, workspace.table("guarantees"), page.read_text()


def stated(rows: Any, method: str) -> dict[str, float]:
    """What the mechanism of a method's points states."""
    own = rows.filter(pc.equal(pc.cast(rows["method"], "string"), method))
    return {
        name: value
        for name, value in zip(own["metric"].to_pylist(), own["value"].to_pylist(), strict=True)
        if name.startswith("dp_")
    }


def test_rows_say_what_mechanisms_state(swept: tuple[Ran, Any, str]) -> None:
    _, rows, _ = swept
    noisy_set, noisy_network = stated(rows, "dpdm"), stated(rows, "full")
    assert 4.99 < noisy_set["dp_epsilon"] <= 5.0
    assert (noisy_set["dp_delta"], noisy_set["dp_rounds"], noisy_set["dp_rate"]) == (0.01, 3, 0.25)
    assert 9.99 < noisy_network["dp_epsilon"] <= 10.0
    assert (noisy_network["dp_rounds"], noisy_network["dp_rate"]) == (12, 0.25)
    assert stated(rows, "random") == {}, "real images have no guarantee"


def test_an_audit_finds_no_more_than_what_is_stated(swept: tuple[Ran, Any, str]) -> None:
    """Canaries are in by coins, as the mechanisms presume."""
    _, rows, page = swept
    bounds = rows.filter(pc.equal(pc.cast(rows["metric"], "string"), "mia_eps_lb"))
    limits = {"dpdm": 5.0, "full": 10.0}
    found = [
        (method, value)
        for method, value in zip(bounds["method"].to_pylist(), bounds["value"].to_pylist(), strict=True)
        if method in limits and value is not None
    ]
    assert {method for method, _ in found} == limits.keys()
    assert all(value <= limits[method] for method, value in found)
    assert "contradicts the epsilon" not in page


def test_the_report_shows_it_beside_accuracy(swept: tuple[Ran, Any, str]) -> None:
    _, _, page = swept
    assert page.count("Differential privacy, as the mechanisms state it of one image added or removed") == 2
    assert "who knows the seed can take it off" in page
    assert "stated by the mechanism" in page
    assert re.search(r"\| 2 +\| DP-DM +\| [^|]+ \| (4\.99\d|5\.000) +\| 0\.01 +\|", page)
    assert "dpsgd_eps10 with batch=20, epochs=3, private.clip=1.0, private.delta=0.01, private.epsilon=10.0." in page


def test_what_cannot_have_a_guarantee_is_refused_with_its_line(workspace: Workspace) -> None:
    ran = workspace.run("plan", workspace.write("refused", REFUSED))
    assert ran.code == 2
    assert "refused.yaml:6: grids.wrong.axes.method: networks are trained on a set" in ran.err
    assert "got dm; expected full" in ran.err
    assert "refused.yaml:6: grids.wrong.axes.architecture: an image changes what batch norm makes of all" in ran.err
    assert "an image changes the embeddings of all others under batch norm" in ran.err
    assert "Traceback" not in ran.err
