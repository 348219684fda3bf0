"""Stores whose evaluations are real and whose models are made up: what their logits give away is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from audited import exposing
from support import FakeContext, digits_config, query_sets
from unit import builders as b

from ddray.measurements.rows import MEASUREMENTS_FILE, collect
from ddray.plan.datasets import DatasetFacts
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, make_plan
from ddray.plan.pipeline import Pipeline
from ddray.plan.points import GridPoint
from ddray.store.artifacts import Store
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.configs import AttackConfig, DistillConfig, PrivacyConfig, RobustnessConfig, TrainConfig
from trainables.data.cache import open_split
from trainables.data.known import KNOWN
from trainables.data.origins import origin_indices
from trainables.payloads import AttackResult, DistilledSet, Metrics, Outputs, Payload, TrainedModel, TsneMap
from trainables.seeds import derive

Row = dict[str, Any]
World = tuple[Any, Plan, Store]
Leak = Callable[[GridPoint], tuple[float, float]]
"""Of a point: by how much the true class of images that a set started from stands out, and that of other members."""


def by_method(point: GridPoint) -> tuple[float, float]:
    return {"random": (25.0, 0.0), "full": (1.0, 1.0)}.get(point.method, (3.0, 0.5))


def digits_facts() -> DatasetFacts:
    """The real digits: audits read them."""
    known, config = KNOWN["digits"], digits_config()
    return DatasetFacts(config, known.train_per_class, known.test_per_class, read=True, decoded=True)


def world(folder: Path, text: str) -> World:
    """A sweep of the digits, its plan and an empty store below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = b.sweep_of(folder, text)
    from ddray.prepare import expanded

    pipeline = Pipeline({"digits": digits_facts()}, sweep.resources)
    plan = make_plan(pipeline.chains(expanded(sweep)), pipeline.stages)
    return sweep, plan, Store(str(folder / "store"), folder / "downloads")


def fill(made: World, cache: Path, leak: Leak = by_method) -> None:
    """Commit every stage that can run: audits for real, of models that leak as told."""
    _, plan, store = made
    for chain in plan.chains:
        for stage in chain.all_stages:
            ready = stage.unavailable is None and all(store.has(key) for _, key in stage.inputs)
            if ready and not store.has(stage.key):
                b.commit(store, stage, payload_of(stage, chain, store, cache, leak))


def payload_of(stage: Stage, chain: Chain, store: Store, cache: Path, leak: Leak) -> Payload:
    config = stage.config
    folders = {role: store.open(key).folder for role, key in stage.inputs}
    if isinstance(config, DistillConfig):
        return _set(config, cache)
    if isinstance(config, TrainConfig):
        released = DistilledSet.load(folders["set"]) if "set" in folders else None
        return _model(stage, config, chain, released, cache, leak)
    if isinstance(config, AttackConfig):
        return attacked(config, TrainedModel.load_outputs(folders["model"])["test"], stage.key)
    if isinstance(config, RobustnessConfig):
        from trainables.evaluate.robustness.rows import robustness_rows

        results = {str(name): AttackResult.load(folders[f"attack.{name}"]) for name in config.attacks}
        return Metrics(robustness_rows(results, config.num_classes))
    if isinstance(config, PrivacyConfig):
        from trainables.evaluate.privacy.audit import evaluate_privacy

        context = FakeContext(cache)
        return evaluate_privacy(config, folders, context)
    if stage.kind == "tsne":
        return _map(stage)
    return b.payload_of(stage, chain, b.accuracy_by_seed(chain.point))


def _set(config: DistillConfig, cache: Path) -> DistilledSet:
    """Members as they are, drawn at random; from noise, of no image in particular."""
    split = open_split(config.dataset, "train", cache, cache)
    members = origin_indices(config.origin, split.labels)
    rng = np.random.default_rng(derive("start", config.key_json))
    chosen = np.concatenate(
        [rng.choice(members[split.labels[members] == label], config.ipc, False) for label in config.origin.classes]
    )
    images = torch.from_numpy(split.images[chosen]).float() / 255
    facts = {"space": "pixel01", "factor": 1, "zca": False, "label_kind": "hard"}
    labels = torch.arange(len(config.origin.classes)).repeat_interleave(config.ipc)
    known = torch.from_numpy(chosen) if config.init != "noise" else torch.full((len(chosen),), -1)
    return DistilledSet(images, labels, known, facts)


def _model(
    stage: Stage, config: TrainConfig, chain: Chain, released: DistilledSet | None, cache: Path, leak: Leak
) -> TrainedModel:
    split, test = (open_split(config.dataset, name, cache, cache) for name in ("train", "test"))
    members = origin_indices(config.origin, split.labels)
    start = released.indices.numpy() if released is not None else np.array([], dtype=np.int64)
    says, rng = exposing(*leak(chain.point)), np.random.default_rng(derive(stage.key))
    classes = config.origin.classes
    signals = {}
    asked = [(name, images.ids.numpy()) for name, images in _asked(config, cache).items()]
    for name, ids in [*asked, ("test", np.flatnonzero(np.isin(test.labels, classes)))]:
        labels = np.searchsorted(classes, (test if name == "test" else split).labels[ids])
        nobody = np.zeros(len(ids), dtype=np.bool_)
        inside, started = (nobody, nobody) if name == "test" else (np.isin(ids, members), np.isin(ids, start))
        logits = says(ids + (100_000 if name == "test" else 0), labels, inside, started, rng)[:, : len(classes)]
        signals[name] = Outputs(torch.from_numpy(logits).float(), torch.from_numpy(labels), torch.from_numpy(ids))
    return TrainedModel({"w": torch.zeros(1)}, config.network, (0.5,), (0.5,), signals, _facts())


def _asked(config: TrainConfig, cache: Path) -> dict[str, Any]:
    if config.signals is None:
        return {}
    return dict(query_sets(config.dataset, config.origin, config.signals, cache, cache, "cpu"))


def _facts() -> dict[str, Any]:
    return {
        "optimiser_steps": 100,
        "epochs": 100.0,
        "train_acc": 1.0,
        "train_loss": 0.01,
        "train_images": 10,
        "num_parameters": 4,
        "curve": [],
    }


def attacked(config: AttackConfig, said: Outputs, key: str) -> AttackResult:
    """The first images of the test split; distances that are normal up to the sign, some of them never found."""
    spec, count = ROBUSTNESS_ATTACKS[config.attack], config.images
    generator = torch.Generator().manual_seed(derive("attacked", key) % 2**31)
    correct = said.logits[:count].argmax(1) == said.labels[:count]
    reach = config.epsilons[-1]
    distance = torch.randn(count, generator=generator).abs() * reach / 2
    distance[torch.rand(count, generator=generator) < 0.05] = torch.inf
    distance[~correct] = 0
    # What is tried within a budget may succeed where the raw perturbation is longer.
    success = (0.9 * distance)[None] <= torch.tensor(config.epsilons)[:, None]
    facts = {
        "attack": config.attack,
        "norm": spec.norm,
        "epsilons": list(config.epsilons),
        "settings": config.settings,
        "library": spec.library,
        "library_version": "1.0",
        "zero_gradient_share": 0.25,
    }
    found = distance if spec.minimal else None
    return AttackResult(said.ids[:count], said.labels[:count], correct, success | ~correct, found, facts)


def _map(stage: Stage) -> TsneMap:
    sources = list(stage.config.sources)  # type: ignore[attr-defined]
    total = 5 * (1 + len(sources))
    points = torch.arange(2 * total).reshape(total, 2).float()
    labels, of = torch.arange(total) % 3, torch.arange(1 + len(sources)).repeat_interleave(5)
    facts = {
        "sources": ["real", *sources],
        "points": [5] * (1 + len(sources)),
        "perplexity": 5.0,
        "trustworthiness": 0.9,
        "kl_divergence": 1.0,
        "fit_id": "a map",
    }
    return TsneMap(points, labels, of, facts)


def gathered(made: World, folder: Path) -> Path:
    """The results folder, with its tables."""
    sweep, plan, store = made
    collect(plan, sweep, store, folder / "results")
    return folder / "results"


def rows_of(folder: Path, metric: str, **wanted: Any) -> list[Row]:
    """Rows of a metric with these values."""
    table = pq.read_table(folder / MEASUREMENTS_FILE)
    rows = table.filter(pc.equal(pc.cast(table["metric"], "string"), metric)).to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


PRIVACY = """
ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], ipc: [3], origin_per_class: [20, 30], origin_draw: [0, 1], distill_seed: [0]}
  evaluations:
    privacy: {audit: [seed, pool], rows: 6, targets: 2, shadows: 1, population: 5, reserve: 5, resamples: 100,
              attacks: [loss, shokri, lira_offline, data_release, blind]}
grids:
  methods: {axes: {method: [dm], init: [noise, real]}, settings: {dm: {iterations: 200}}}
  baselines: {axes: {method: [random, full]}}
"""
ROBUST = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, dm, full], dataset: [digits], ipc: [1, 2], seed: [0, 1], distill_seed: [0]}
    settings: {dm: {iterations: 200}}
    evaluations: {robustness: {attacks: [deepfool_l2, deepfool_linf, fgsm, pgd_linf], images: 100}}
"""
