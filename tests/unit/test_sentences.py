"""What data make a sentence of the report true or false, and that it is printed then and not otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import worlds

from ddray.measurements.statistics import accuracy_difference, share_of_way
from ddray.plan.graph import Chain, Stage
from ddray.plan.points import GridPoint
from ddray.report.report import machine_report, report
from ddray.report.words import ALIKE, plus_minus
from ddray.store import files
from trainables.configs import TrainConfig
from trainables.payloads import Metrics, Payload

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_flush", lambda path: None)


GRID = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], ipc: [1], seed: SEEDS, distill_seed: DRAWS}}
grids:
  all: {axes: {method: METHODS, init: INITS}, settings: SETTINGS}
OTHER
"""


def sweep(
    methods: str = "[random, dm, full]",
    seeds: str = "[0]",
    draws: str = "[0]",
    inits: str = "[real]",
    settings: str = "{dm: {iterations: 200}}",
    other: str = "",
) -> str:
    text = GRID
    for word, value in (
        *(("METHODS", methods), ("SEEDS", seeds), ("DRAWS", draws), ("INITS", inits)),
        *(("SETTINGS", settings), ("OTHER", other)),
    ):
        text = text.replace(word, value)
    return text


def apart(point: GridPoint) -> float:
    return {"random": 0.4, "full": 0.9}.get(point.method, 0.6) + 0.03 * point.seed + 0.02 * (point.distill_seed or 0)


def alike(point: GridPoint) -> float:
    return {"random": 0.4, "full": 0.9}.get(point.method, 0.6)


def no_better(point: GridPoint) -> float:
    """The full data, on which nothing is learned that random images do not teach."""
    return {"random": 0.60, "full": 0.605, "dm": 0.5}[point.method] + 0.01 * point.seed


class Said(NamedTuple):
    """Data, and what of them is said."""

    text: str
    accuracy: Callable[[GridPoint], float]
    printed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


SCATTER = "± is over trainings of one distilled set"
NO_SCATTER = "One training of each: how much trainings scatter is not known here"
TWO = "[0, 1]"
SENTENCES = {
    "one training has no ±": Said(sweep(), apart, (NO_SCATTER,), (SCATTER, "±  ", "± 0.00")),
    "trainings of one set": Said(sweep(seeds=TWO), apart, (SCATTER,), (NO_SCATTER,)),
    "equal repeats are not exact": Said(
        sweep(seeds=TWO), alike, (f"60.00 {ALIKE}", "200 test images tell accuracies apart in steps of 0.5 points"),
        ("± 0.00",),
    ),
    "no seed in common": Said(
        sweep(other="  more: {axes: {method: [dm], seed: [7]}}", methods="[random]"), apart,
        ("No method has a distillation seed and a training seed in common with random here.",), ("t-interval",),
    ),
    "noise is no pair of images": Said(sweep(inits="[noise]"), apart, ("With init noise a pair shares its training",)),
    "real images are": Said(sweep(), apart, (), ("With init noise",)),
    "a set that no seed made": Said(
        sweep(methods="[random, herding]", draws="[0, 1, 2]"), apart, ("3 draws",), ("3 distillations ",)
    ),
    "a way to go a share of": Said(sweep(), apart, ("recovery: the share of the way",), ("no way",)),
    "no way": Said(sweep(), no_better, ("no way: +0.5 (", "not shown to be ahead of random images"), ()),
    "one network byte for byte": Said(
        sweep(methods="[random]", seeds=TWO), alike, (), ("copies to the last byte",)
    ),
    "the test images do not tell": Said(
        sweep(methods="[random, dm]"), lambda point: 0.5 + (0.01 if point.method == "random" else 0),
        ("dm is 1.00 points below random at ipc 1, which the test images do not tell from 0",),
    ),
    "they do": Said(
        sweep(methods="[random, dm]"), lambda point: 0.5 + (0.3 if point.method == "random" else 0),
        ("dm is 30.00 points below random at ipc 1\n",), ("do not tell from 0",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", SENTENCES.values(), ids=SENTENCES)
def test_what_the_data_say(said: Said, tmp_path: Path) -> None:
    page = report(worlds.filled(tmp_path, said.text, said.accuracy))
    assert [sentence for sentence in said.printed if sentence not in page] == []
    assert [sentence for sentence in said.missing if sentence in page] == []


# --- numbers that would read as exact ---------------------------------------------------------------------------------


def test_a_scatter_is_never_printed_as_0() -> None:
    assert plus_minus({"mean": 0.8, "sd": 0.0}) == f"80.00 {ALIKE}"
    assert plus_minus({"mean": 0.8, "sd": 1e-17}) == f"80.00 {ALIKE}", "rounding of a mean of equal numbers"
    assert plus_minus({"mean": 0.8, "sd": 1e-6}) == "80.00 ± <0.01"
    assert plus_minus({"mean": 0.8, "sd": 6e-5}) == "80.00 ± 0.01"
    assert plus_minus({"mean": 0.8, "sd": None, "level": "n=1"}) == "80.00 n=1"


def test_copies_are_an_alarm(tmp_path: Path) -> None:
    """Repeats that left one network to the last byte, as a seed that nobody reads makes them."""

    def copied(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload:
        if isinstance(stage.config, TrainConfig) and chain.point.method == "dm":
            return worlds.trained_model(stage.config.network, 0.6, stage.config, 0)
        return worlds.payload_of(stage, chain, 0.6)

    text = sweep(methods="[random, dm]", seeds="[0, 1, 2]")
    (alarm,) = [
        each for each in machine_report(worlds.filled(tmp_path, text, make=copied))["alarms"] if "copies" in each
    ]
    assert "dm at ipc 1: 3 trainings left 1 different networks" in alarm


def test_an_accuracy_difference_covers_repeats_and_images() -> None:
    """Two sides of three trainings, tested on the same 500 images: 95 % intervals miss the truth in at most 7 %."""
    random = np.random.default_rng(5)
    missed = 0
    for _ in range(400):
        true = [0.9 + 0.01 * random.standard_normal(3), 0.85 + 0.02 * random.standard_normal(3)]
        seen = [[random.binomial(500, value) / 500 for value in side] for side in true]
        low, high = accuracy_difference(*seen, 500)[1:]
        missed += not low <= 0.05 <= high
    assert missed / 400 < 0.07
    assert accuracy_difference([0.9], [0.9], 500).low < 0 < accuracy_difference([0.9], [0.9], 500).high
    assert accuracy_difference([1.0], [0.0], 500) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("way", [0.005, 0.05, 0.3])
def test_a_share_of_the_way_covers_the_truth_or_is_no_number(way: float) -> None:
    """Three trainings of each on 500 images; half of the way is gone. Of half a point of way nothing is said at most
    once in forty times, and where something is, 95 % intervals hold the truth in 93 % and more."""
    random, shown, missed = np.random.default_rng(7), 0, 0
    for _ in range(300):
        true = [0.6 + part * way + 0.01 * random.standard_normal(3) for part in (0.5, 0.0, 1.0)]
        seen = [[random.binomial(500, value) / 500 for value in side] for side in true]
        share = share_of_way(*seen, 500)
        if share is not None:
            shown += 1
            missed += not share.low <= 0.5 <= share.high
    assert shown < 0.06 * 300 if way == 0.005 else shown > (0.15 if way == 0.05 else 0.99) * 300
    assert missed <= 0.07 * max(shown, 100)


# --- evaluations of other sets ----------------------------------------------------------------------------------------

SHARED = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], ipc: [1], distill_seed: [0]}, settings: {dm: {iterations: 100}}}
grids:
  plain: {axes: {method: [dm], seed: [0, 1]}, settings: {dm: {iterations: ITERATIONS}}}
  attacked: {axes: {method: [dm]}, evaluations: {robustness: {attacks: [deepfool_l2], images: 20}}}
"""


@pytest.mark.parametrize(("iterations", "said"), [(100, False), (200, True)])
def test_what_is_attacked_is_what_the_accuracy_is_of(tmp_path: Path, iterations: int, said: bool) -> None:
    """As ``--set grids.plain.settings.dm.iterations=200`` makes it."""
    alarms = machine_report(worlds.filled(tmp_path, SHARED.replace("ITERATIONS", str(iterations)), apart))["alarms"]
    found = [alarm for alarm in alarms if alarm.startswith("robustness of dm at ipc 1 on digits")]
    assert len(found) == said
    assert (
        not said
        or "is of sets with 100 iterations alone; accuracy is also shown of sets with 200 iterations" in found[0]
    )


# --- a rate that was learned ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "said"), [(0.01, False), (0.0234, True)])
def test_the_recipe_names_rates_that_were_learned(tmp_path: Path, rate: float, said: bool) -> None:
    def make(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload:
        made = worlds.payload_of(stage, chain, apart(chain.point))
        if isinstance(made, Metrics) and chain.point.method == "dm":
            common = {"property": "performance", "unit": "1", "n": 1, "split": "train"}
            return Metrics([*made.rows, {**common, "metric": "trained_lr", "value": rate}])
        return made

    page = report(worlds.filled(tmp_path, sweep(), make=make))
    assert ("; DM at the rate learned with its sets, lr 0.0234" in page) == said
    assert ("at the rate learned" in page) == said
