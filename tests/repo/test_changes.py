"""A change touches what it is about: one of each kind is made in a copy of the repository, and a small sweep uses it.

What each has to touch stands here, and nothing else of the product may be needed. CONTRIBUTING.md has a how-to for
each.
A change that no longer applies says which line it looked for: bring it up to date, and the how-to with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from pyarrow import parquet

PACKAGES = ("ddray", "trainables")


@dataclass(frozen=True)
class Change:
    """Something new, and all that has to be written for it.

    Attributes:
        limit: Files of the product that it may touch.
        written: New files, with their text.
        inserted: File -> pairs of a line's beginning (or several lines) and the text that is put before it.
    """

    limit: int
    written: Mapping[str, str]
    inserted: Mapping[str, tuple[tuple[str, str], ...]]

    def apply(self, copy: Path) -> None:
        for name, text in self.written.items():
            assert not (copy / name).exists(), name
            (copy / name).write_text(text, encoding="utf-8")
        for name, insertions in self.inserted.items():
            content = (copy / name).read_text(encoding="utf-8")
            for anchor, text in insertions:
                assert content.count(anchor) == 1, f"{name} has {content.count(anchor)} times: {anchor}"
                content = content.replace(anchor, text + anchor)
            (copy / name).write_text(content, encoding="utf-8")

    @property
    def touched(self) -> set[str]:
        return {*self.written, *self.inserted}


NETWORK = Change(
    limit=2,
    written={
        "trainables/models/linear.py": '''
"""One linear layer after flattening."""

from torch import Tensor, nn

from trainables.configs import NetworkConfig
from trainables.models.network import Network


class Linear(Network):
    """The pixels themselves are the embedding."""

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        self.embedding_size = network.channels * network.image_size**2
        self.classifier = nn.Linear(self.embedding_size, network.num_classes)

    def maps(self, images: Tensor) -> Tensor:
        return images.flatten(1)
'''
    },
    inserted={
        "trainables/networks.py": (
            (
                '    "resnet18": NetworkSpec(',
                """    "linear": NetworkSpec(
        module="trainables.models.linear:Linear",
        width=1,
        depth=1,
        norm="none",
        depths=(1,),
        norms=("none",),
        forward=0.01,
        held=Activations(0.1, 0.1, 0.1),
        file_bytes=2**20,
        sizes=lambda depth, norm: (4, LARGEST),
    ),
""",
            ),
        )
    },
)
ROBUSTNESS_ATTACK = Change(
    limit=2,
    written={
        "trainables/evaluate/robustness/grey.py": '''
"""All pixels a step towards mid grey."""

import torch


def run(attack, settings, network, batch, epsilons):
    towards = torch.sign(0.5 - batch.pixels)
    steps = [(batch.pixels + epsilon * towards).clamp(0, 1) for epsilon in epsilons]
    return torch.stack([network(pixels).argmax(1) != batch.labels for pixels in steps])
'''
    },
    inserted={
        "trainables/attacks.py": (
            (
                '        RobustnessAttack(\n            name="fgsm"',
                """        RobustnessAttack(
            name="grey",
            title="Grey (Linf)",
            norm="linf",
            minimal=False,
            run="trainables.evaluate.robustness.grey:run",
            settings={},
            epsilons=FEW_LINF,
            library="ddray",
            passes=lambda settings: 1.0,
        ),
""",
            ),
        )
    },
)
MEMBERSHIP_ATTACK = Change(
    limit=2,
    written={
        "trainables/evaluate/privacy/margin.py": '''
"""The margin between the true class and the best other one."""

import numpy as np


def score(logits, labels):
    true = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    others = np.where(np.arange(logits.shape[-1]) == labels[..., None], -np.inf, logits)
    return true - others.max(-1)
'''
    },
    inserted={
        "trainables/attacks.py": (
            (
                '        MembershipAttack(\n            name="shokri"',
                """        MembershipAttack(
            name="margin",
            title="Margin",
            needs="logits",
            score="trainables.evaluate.privacy.margin:score",
        ),
""",
            ),
        )
    },
)
METRIC = Change(
    limit=2,  # the number; its record (unit, direction, meaning, title of its column)
    written={},
    inserted={
        "trainables/evaluate/fairness.py": (
            ('    "fair_gini_acc": "ratio",\n    "fair_jain"', '    "fair_median_acc": "fraction",\n'),
            ('        "fair_gini_acc": gini(', '        "fair_median_acc": np.median(accuracies, axis=-1),\n'),
        ),
        "ddray/measurements/metrics.py": (
            (
                '        ("fair_gini_acc", "ratio"',
                '        ("fair_median_acc", "fraction", "higher", "median of a_c", "median class"),\n',
            ),
        ),
    },
)
REPORT_TABLE = Change(
    limit=1,
    written={
        "ddray/report/sections/sizes.py": '''
"""How many points each method has."""

from collections import Counter

from ddray.report.sections import SweepSection
from ddray.report.table import Column, Table


def _facts(measured, report):
    return Counter(point["method"] for point in measured.points)


def _elements(report):
    rows = [{"method": name, "points": count} for name, count in sorted(report["sizes"].items())]
    yield Table("Points of each method", [Column("method", "method"), Column("points", "points")], rows)


SIZES = SweepSection(id="sizes", order=145, facts=_facts, elements=_elements)
'''
    },
    inserted={},
)
COMMAND = Change(
    limit=2,
    written={
        "ddray/commands/count.py": '''
"""How many points a prepared sweep has."""


def count_text(prepared) -> str:
    return f"{len(prepared.plan.chains)} points"
'''
    },
    inserted={
        "ddray/cli.py": (
            (
                '@cli.command(short_help="What runs and what is done.")',
                '''@cli.command(short_help="How many points a sweep has.")
@sweep_options
@prepared_command
def count(prepared: Any) -> None:
    """How many points a sweep has."""
    from ddray.commands.count import count_text

    click.echo(count_text(prepared))


''',
            ),
        )
    },
)
METHOD = Change(
    limit=1,
    written={
        "mean_method.py": '''
"""One image of each class: the mean of all, repeated. Declared by an entry point, as another package would."""

from trainables.configs import Held, MethodSettings
from trainables.registry import method


@method("mean", title="Class means", uses=frozenset({"ipc"}))
class MeanSettings(MethodSettings):
    """Nothing to set."""

    def passes(self, num_classes, ipc, real_images):
        return 7.0 * num_classes

    def stored_bytes(self, num_classes, ipc, numbers):
        return 4 * num_classes * ipc * numbers

    def held(self, num_classes, ipc, real_images, batch_statistics):
        return Held(graph=35_000)


def distill(origin, settings, context):
    import torch

    means = torch.stack([origin.images[rows].mean(0) for rows in origin.by_class])
    means = means.repeat_interleave(context.ipc, dim=0)
    return context.finish(means, torch.full((len(means),), -1))
'''
    },
    inserted={},
)
ENTRY_POINT = {
    "METADATA": "Metadata-Version: 2.1\nName: mean-method\nVersion: 1\n",
    "entry_points.txt": "[ddray.methods]\nmean = mean_method\n",
}
"""What installing the package of ``METHOD`` leaves."""
AXIS = Change(
    limit=2,
    written={},
    inserted={
        "ddray/plan/axes.py": (
            (
                "\n\n_HINTS = get_type_hints(AxisValues",
                """    train_batch: Annotated[
        int | None,
        Axis(
            given=Count,
            description="Images per training step. Left out: the protocol's own.",
            null_means=lambda _, recipe: recipe.batch,
            of_training=True,
            label=Word(20, lambda batch, _: f"batch={batch}"),
            report="block",
            meaning="images per training step; null: the protocol's own",
        ),
    ] = None
""",
            ),
        ),
        "ddray/plan/resolve.py": (
            (
                "        return _recipe(point.protocol,",
                """        if point.train_batch is not None:
            point = replace(point, train={**point.train, "batch": point.train_batch})
""",
            ),
        ),
    },
)
KIND = Change(
    limit=4,  # its name and configuration, its computation, its record; and the record of the number that it makes
    written={},
    inserted={
        "trainables/configs.py": (
            ('"experts", "distill", "ensemble"', '"confidence", '),
            (
                "class AccuracyConfig(Config):",
                '''class ConfidenceSettings(Config):
    """What a sweep says of it."""

    top: int = 1


class ConfidenceConfig(Config):
    """How sure the input ``model`` is of its first classes."""

    top: int
    num_classes: int


''',
            ),
        ),
        "trainables/stages.py": (
            (
                "_COMPUTATIONS: dict[",
                """def _confidence(config: Any, inputs: Inputs, context: Context) -> Metrics:
    from trainables.payloads import Metrics, TrainedModel

    logits = TrainedModel.load_outputs(inputs["model"])["test"].logits
    value = float(logits.softmax(1).topk(config.top).values.sum(1).mean())
    row = {"property": "performance", "metric": "confidence", "value": value, "unit": "fraction", "n": len(logits)}
    return Metrics([row])


""",
            ),
            ('    "accuracy": _accuracy,', '    "confidence": _confidence,\n'),
        ),
        "ddray/plan/kinds.py": (
            ("    AccuracyConfig,\n    AttackConfig,", "    ConfidenceConfig,\n    ConfidenceSettings,\n"),
            (
                '    "attack": StageKind(',
                """    "confidence": StageKind(
        config=ConfidenceConfig,
        version=1,
        settings=ConfidenceSettings,
        of_model_alone=lambda asked, _, num_classes: ConfidenceConfig(top=asked.top, num_classes=num_classes),
        first_metric="confidence",
        memory=_none,
        work=lambda config, load: COPYING,
        size=_small,
    ),
""",
            ),
        ),
        "ddray/measurements/metrics.py": (
            (
                '        ("train_loss", "nat", "",',
                '        ("confidence", "fraction", "", "mean of the largest probabilities"),\n',
            ),
        ),
    },
)
CHANGES = {
    "stage kind": KIND,
    "distillation method": METHOD,
    "axis": AXIS,
    "network": NETWORK,
    "attack on robustness": ROBUSTNESS_ATTACK,
    "attack on membership": MEMBERSHIP_ATTACK,
    "metric with its column": METRIC,
    "table of the report": REPORT_TABLE,
    "command": COMMAND,
}
SWEEP = """
ddray: 1
defaults:
  protocol: quick
  train: {steps: 3}
  axes: {dataset: [digits], num_classes: [3], method: [mean], ipc: [1], seed: [0], architecture: [linear],
         train_batch: [2]}
grids:
  changed:
    axes: {origin_per_class: [10]}
    evaluations:
      confidence: {top: 2}
      robustness: {attacks: [grey], images: 6}
      privacy: {audit: [pool], attacks: [margin], rows: 4, targets: 1, shadows: 0, population: 2, reserve: 2,
                start: false}
"""


@dataclass(frozen=True)
class Changed:
    """A copy of the repository with all changes, after its sweep.

    Attributes:
        rows: Of ``measurements.parquet``.
        report: Markdown.
        facts: The report for machines.
        counted: What the new command prints.
        plan: For machines, before the sweep.
    """

    rows: list[dict[str, Any]]
    report: str
    facts: dict[str, Any]
    counted: str
    plan: dict[str, Any]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Changed:
    copy = tmp_path_factory.mktemp("changed")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for change in CHANGES.values():
        change.apply(copy)
    (copy / "changed.yaml").write_text(SWEEP)
    installed = copy / "mean_method-1.dist-info"
    installed.mkdir()
    for name, text in ENTRY_POINT.items():
        (installed / name).write_text(text)
    folders = {"HOME": copy / "home", "STORE": copy / "home" / "store", "CACHE": digits_cache}
    environment = {**os.environ, **{f"DDRAY_{name}": str(path) for name, path in folders.items()}}
    environment.pop("DDRAY_DATA", None)

    def run(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "ddray", *arguments], cwd=copy, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    plan = json.loads(run("plan", "changed.yaml", "--json"))
    run("sweep", "changed.yaml", "--local", "--no-mlflow", "--quiet")
    report = run("report", "changed.yaml", "--full")
    table = parquet.read_table(copy / "home" / "results" / "changed" / "measurements.parquet")
    facts = json.loads(run("report", "changed.yaml", "--json"))
    return Changed(table.to_pylist(), report, facts, run("count", "changed.yaml"), plan)


@pytest.mark.parametrize("name", CHANGES)
def test_no_more_files_than_the_change_is_about(name: str) -> None:
    change = CHANGES[name]
    assert len(change.touched) <= change.limit, sorted(change.touched)


def test_a_distillation_method(changed: Changed) -> None:
    assert {row["method"] for row in changed.rows} == {"mean"}
    assert "Class means" in changed.report
    assert "1/4" in changed.plan["gpu_shares"], "the share that its record says"


def test_a_stage_kind(changed: Changed) -> None:
    (row,) = [row for row in changed.rows if row["metric"] == "confidence"]
    assert 2 / 3 < row["value"] <= 1
    assert changed.plan["stages"]["confidence"]["todo"] == 1


def test_an_axis(changed: Changed) -> None:
    assert {row["train_batch"] for row in changed.rows} == {2}
    assert {json.loads(row["param_json"])["protocol_changes"]["batch"] for row in changed.rows} == {2}
    assert "batch" in changed.report


def test_a_network(changed: Changed) -> None:
    assert {row["architecture"] for row in changed.rows} == {"linear"}
    (row,) = [row for row in changed.rows if row["metric"] == "num_parameters"]
    assert row["value"] == 64 * 3 + 3


def test_an_attack_on_robustness(changed: Changed) -> None:
    values = [row["value"] for row in changed.rows if row["attack"] == "grey" and row["metric"] == "adv_acc"]
    assert len(values) >= 3
    assert all(0 <= value <= 1 for value in values)
    assert "Grey (Linf)" in changed.report


def test_an_attack_on_membership(changed: Changed) -> None:
    assert any(row["attack"] == "margin" and row["metric"] == "mia_auc" for row in changed.rows)


def test_a_metric_with_its_column(changed: Changed) -> None:
    (row,) = [row for row in changed.rows if row["metric"] == "fair_median_acc"]
    assert "median class %" in changed.report
    assert f"{100 * row['value']:.1f}" in changed.report


def test_a_table_of_the_report(changed: Changed) -> None:
    assert "### Points of each method" in changed.report
    assert changed.facts["sizes"] == {"mean": 1}


def test_a_command(changed: Changed) -> None:
    assert changed.counted == "1 points\n"
