"""A tiny sweep, its plan, and a store filled without computing anything: what tests of the last rooms start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddray.plan.datasets import DatasetFacts
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, make_plan
from ddray.plan.pipeline import Pipeline
from ddray.plan.points import GridPoint, Sweep
from ddray.prepare import expanded, load
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest
from trainables.configs import (
    AttackConfig,
    DatasetConfig,
    EmbeddingConfig,
    EnsembleConfig,
    NetworkConfig,
    PrivacyConfig,
    RobustnessConfig,
    TrainConfig,
    TsneConfig,
)
from trainables.data.known import KNOWN

if TYPE_CHECKING:  # plans and stores need no torch, and benchmarks measure memory
    from trainables.payloads import AttackResult, DistilledSet, Payload, TrainedModel

SWEEP = """
ddray: 1
defaults:
  protocol: quick
  axes: {architecture: [convnet3], seed: [0, 1], distill_seed: [0, 1, 2]}
grids:
  small:
    axes: {method: [random, dm, full], dataset: [digits], ipc: [1, 10]}
    settings: {dm: {iterations: 200}}
"""
TEST_IMAGES = 20
"""Per class."""

Accuracy = Callable[[GridPoint], float]


def sweep_of(folder: Path, text: str = SWEEP, name: str = "tiny") -> Sweep:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return load(path)


def facts_of(name: str) -> DatasetFacts:
    """A known data set's constants, as if it had been read."""
    known = KNOWN[name]
    config = DatasetConfig(
        name=name,
        base=name,
        digest=f"sha256:{name}",
        num_classes=known.num_classes,
        image_size=known.image_size,
        channels=1 if known.channels == 1 else 3,
        mean=known.mean,
        std=known.std,
        flip=known.flip,
    )
    return DatasetFacts(config, known.train_per_class, known.test_per_class, read=True, decoded=True)


def plan_of(sweep: Sweep) -> Plan:
    points = expanded(sweep)
    pipeline = Pipeline({name: facts_of(name) for name in {point.dataset for point in points}}, sweep.resources)
    return make_plan(pipeline.chains(points), pipeline.stages)


def world(folder: Path, text: str = SWEEP, name: str = "tiny") -> tuple[Sweep, Plan, Store]:
    """A sweep, its plan and an empty store below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = sweep_of(folder, text, name)
    return sweep, plan_of(sweep), Store(str(folder / "store"), folder / "downloads")


def accuracy_by_seed(point: GridPoint) -> float:
    """Something that depends on method, ipc and both seeds, and repeats exactly."""
    base = {"random": 0.40, "full": 0.90}.get(point.method, 0.50) + 0.01 * (point.ipc or 0)
    return base + 0.02 * (point.distill_seed or 0) + 0.01 * point.seed


def fill(
    store: Store, plan: Plan, accuracy: Accuracy = accuracy_by_seed, chains: Iterable[Chain] | None = None, **said: Any
) -> None:
    """Commit every stage of the chains that can run here, branches too.

    Args:
        store: Where.
        plan: Of the whole sweep.
        accuracy: Test accuracy of a point's model.
        chains: All of them unless given.
        said: Replaces parts of the provenance.
    """
    for chain in plan.chains if chains is None else chains:
        for stage in chain.all_stages:
            ready = stage.unavailable is None and all(store.has(key) for _, key in stage.inputs)
            if ready and not store.has(stage.key):
                commit(store, stage, payload_of(stage, chain, accuracy(chain.point)), **said)


def payload_of(stage: Stage, chain: Chain, accuracy: float) -> Payload:
    """Something of the stage's kind. Numbers of robustness, privacy and embedding follow from the accuracy."""
    import torch

    from trainables.evaluate.accuracy import accuracy_rows, training_rows
    from trainables.evaluate.fairness import fairness_rows
    from trainables.payloads import Embedding, Metrics, TrainedEnsemble, TsneMap

    train = chain.stage("train")
    assert train is not None
    assert isinstance(train.config, TrainConfig)
    if isinstance(stage.config, TrainConfig):
        return trained_model(stage.config.network, accuracy, stage.config, stage.config.seed)
    if isinstance(stage.config, AttackConfig):
        return attack_result(stage.config, accuracy)
    if isinstance(stage.config, RobustnessConfig):
        return Metrics([_row("robustness", "adv_acc", accuracy / 2, attack=name) for name in stage.config.attacks])
    if isinstance(stage.config, PrivacyConfig):
        return Metrics(
            [_row("privacy", "mia_auc", accuracy, attack="shokri", audit=audit) for audit in stage.config.audit]
        )
    if isinstance(stage.config, EmbeddingConfig):
        positions = torch.arange(len(stage.config.classes))
        rows = [_row("informativeness", "embed_outlier_rate", accuracy / 4)]
        return Embedding(torch.ones(len(positions), 4), positions, rows)
    if isinstance(stage.config, TsneConfig):
        places, sources = torch.zeros(2, dtype=torch.long), list(stage.config.sources)
        return TsneMap(torch.ones(2, 2), places, places, {"sources": ["real", *sources], "perplexity": 5.0})
    if stage.kind == "distill":
        return distilled_set(train.config, chain.point)
    if isinstance(stage.config, EnsembleConfig):
        members = {seed: stage.config.member(seed) for seed in stage.config.seeds}
        return TrainedEnsemble(
            {seed: trained_model(each.network, accuracy, each, seed) for seed, each in members.items()}
        )
    assert stage.kind == "accuracy", f"{stage.kind}: say here what it leaves"
    model = trained_model(train.config.network, accuracy, train.config, chain.point.seed)
    signals = model.outputs["test"]
    logits, labels, classes = signals.logits.numpy(), signals.labels.numpy(), train.config.network.num_classes
    return Metrics(
        accuracy_rows(logits, labels, classes) + training_rows(model) + fairness_rows(logits, labels, classes)
    )


def _row(property: str, metric: str, value: float, **parameters: Any) -> dict[str, Any]:
    return {"property": property, "metric": metric, "value": value, "unit": "fraction", "n": 10, **parameters}


def attack_result(config: AttackConfig, accuracy: float) -> AttackResult:
    """Images of which the share ``accuracy`` is correct; each further epsilon fells one more."""
    import torch

    from trainables.payloads import AttackResult

    count = config.images
    correct = torch.arange(count) < round(accuracy * count)
    felled = torch.arange(1, len(config.epsilons) + 1)[:, None] > torch.arange(count)[None, :]
    facts = {"attack": config.attack, "norm": "l2", "epsilons": list(config.epsilons), "settings": config.settings}
    return AttackResult(
        torch.arange(count), torch.arange(count) % len(config.classes), correct, felled | ~correct, None, facts
    )


def distilled_set(config: TrainConfig, point: GridPoint) -> DistilledSet:
    """Images that brighten from class to class, a little outside [0, 1] at both ends."""
    import torch

    from trainables.payloads import DistilledSet

    classes, ipc, size = len(config.origin.classes), point.ipc or 1, config.dataset.image_size
    labels = torch.arange(classes).repeat_interleave(ipc)
    images = torch.linspace(-0.1, 1.1, classes)[labels][:, None, None, None]
    images = images.expand(-1, config.dataset.channels, size, size).clone()
    facts = {"space": "pixel01", "mean": list(config.dataset.mean), "std": list(config.dataset.std), "factor": 1}
    return DistilledSet(images, labels, torch.full_like(labels, -1), facts)


def trained_model(network: NetworkConfig, accuracy: float, config: TrainConfig, seed: int) -> TrainedModel:
    """A model whose test logits have the given accuracy, less so for higher classes."""
    import numpy as np
    import torch

    from trainables.payloads import Outputs, TrainedModel

    classes = network.num_classes
    labels = torch.arange(classes).repeat_interleave(TEST_IMAGES)
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, 0.1, (len(labels), classes)).astype(np.float32))
    tilt = torch.linspace(0.05, -0.05, classes)
    hits = ((accuracy + tilt) * TEST_IMAGES).round().int().clamp(0, TEST_IMAGES)
    right = torch.arange(TEST_IMAGES).repeat(classes) < hits[labels]
    logits[torch.arange(len(labels)), torch.where(right, labels, (labels + 1) % classes)] += 5
    facts = {
        "optimiser_steps": 100,
        "epochs": 100.0,
        "train_acc": 1.0,
        "train_loss": 0.01,
        "train_images": 10,
        "num_parameters": 4,
        "curve": [
            {"epoch": 50.0, "steps": 50, "test_acc": accuracy / 2},
            {"epoch": 100.0, "steps": 100, "test_acc": accuracy},
        ],
    }
    signals = Outputs(logits, labels, torch.arange(len(labels)))
    return TrainedModel(
        {"weight": torch.ones(2, 2)}, network, config.dataset.mean, config.dataset.std, {"test": signals}, facts
    )


def provenance(**said: Any) -> dict[str, Any]:
    return {
        "commit": "0123456789abcdef",
        "dirty": False,
        "device": "cpu",
        "seconds": 2.5,
        "peak_mib": 300.0,
        "host": "somewhere",
        "started_at": "2026-01-02T03:04:05+00:00",
        "cpus": 1,
        "gpu_share": 0.0,
        "versions": {"ddray": "0.1.0", "torch": "2.9.0", "numpy": "2.0.0", "sklearn": "1.7.0", "python": "3.11.9"},
        "numerics": {"device": "cpu", "torch": "2.9.0", "threads": 1},
        **said,
    }


def commit(store: Store, stage: Stage, payload: Payload, **said: Any) -> None:
    """Make a stage's artifact as a worker does."""
    with store.writing() as folder:
        payload.save(folder)
        manifest = Manifest(
            key=stage.key,
            kind=stage.kind,
            version=stage.version,
            label=stage.label,
            config=stage.config.model_dump(mode="json"),
            inputs=dict(stage.inputs),
            files={},
            provenance=provenance(**said),
        )
        store.commit(folder, manifest)


def fail(store: Store, stage: Stage, cause: str = "StageFailure: the loss is not finite") -> None:
    store.record_failure(stage.key, {"label": stage.label, "kind": stage.kind, "cause": cause, "traceback": "…"})


def chains_of(plan: Plan, **axes: Any) -> list[Chain]:
    """The chains whose points have these values."""
    return [chain for chain in plan.chains if all(getattr(chain.point, name) == axes[name] for name in axes)]


def stage_of(chain: Chain, kind: str) -> Stage:
    return next(stage for stage in chain.stages if stage.kind == kind)
