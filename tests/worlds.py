"""What tests of the last rooms start from: a tiny sweep, its plan, and a store filled without training anything.

``fill`` makes every payload up. With ``leaking`` the models' logits are made up, with memberships in them, and the
evaluations are real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddray.plan.chains import make_chains
from ddray.plan.datasets import DatasetInfo
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, make_plan
from ddray.plan.points import GridPoint, Sweep
from ddray.prepare import expanded, load
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest
from trainables.configs import (
    AttackConfig,
    DatasetConfig,
    DistillConfig,
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
    from trainables.payloads import AttackResult, DistilledSet, Outputs, Payload, TrainedModel, TsneMap

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
ATTACKED = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, dm, full], dataset: [digits], ipc: [1, 2], seed: [0, 1], distill_seed: [0]}
    settings: {dm: {iterations: 200}}
    evaluations: {robustness: {attacks: [deepfool_l2, deepfool_linf, fgsm, pgd_linf], images: 100}}
"""
TEST_IMAGES = 20
"""Per class."""

Row = dict[str, Any]
Accuracy = Callable[[GridPoint], float]
Facts = Callable[[str], DatasetInfo]
Make = Callable[[Stage, Chain, Mapping[str, Path]], "Payload | None"]
"""Of a stage, its chain and the folders of its inputs by role: what the stage leaves, or None for nothing."""
Change = Callable[[GridPoint, "AttackResult"], "AttackResult"]
"""Of a point and what an attack did: another thing that it did."""
Leak = Callable[[GridPoint], tuple[float, float]]
"""Of a point: by how much the true class of images that a set started from stands out, and that of other members."""


class World(NamedTuple):
    """A sweep, its plan and a store."""

    sweep: Sweep
    plan: Plan
    store: Store


def accuracy_by_seed(point: GridPoint) -> float:
    """Something that depends on method, ipc and both seeds, and repeats exactly."""
    base = {"random": 0.40, "full": 0.90}.get(point.method, 0.50) + 0.01 * (point.ipc or 0)
    return base + 0.02 * (point.distill_seed or 0) + 0.01 * point.seed


def sweep_of(folder: Path, text: str = SWEEP, name: str = "tiny") -> Sweep:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return load(path)


def facts_of(name: str) -> DatasetInfo:
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
    return DatasetInfo(config, known.train_per_class, known.test_per_class, read=True, decoded=True)


def read_digits(name: str) -> DatasetInfo:
    """The real digits: audits read them."""
    from support import digits_config

    assert name == "digits"
    return DatasetInfo(
        digits_config(), KNOWN[name].train_per_class, KNOWN[name].test_per_class, read=True, decoded=True
    )


def plan_of(sweep: Sweep, facts: Facts = facts_of) -> Plan:
    points = expanded(sweep)
    datasets = {name: facts(name) for name in {point.dataset for point in points}}
    return make_plan(*make_chains(points, datasets, sweep.resources))


def world(folder: Path, text: str = SWEEP, name: str = "tiny", facts: Facts = facts_of) -> World:
    """A sweep, its plan and an empty store below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = sweep_of(folder, text, name)
    return World(sweep, plan_of(sweep, facts), Store(str(folder / "store"), folder / "downloads"))


def filled(
    folder: Path,
    text: str,
    accuracy: Accuracy = accuracy_by_seed,
    make: Make | None = None,
    facts: Facts = facts_of,
    **said: Any,
) -> Path:
    """The results folder of a world that is filled: see ``fill``."""
    made = world(folder, text, facts=facts)
    fill(made.store, made.plan, accuracy, make=make, **said)
    return collected(made, folder)


def robust(folder: Path, text: str = ATTACKED, change: Change | None = None) -> Path:
    """Results with real rows of made-up attacks; everything else as always."""
    from trainables.evaluate.robustness.rows import robustness_rows
    from trainables.payloads import AttackResult, Metrics, TrainedModel

    def make(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload:
        if isinstance(stage.config, AttackConfig):
            said = TrainedModel.load_outputs(inputs["model"])["test"]
            result = attacked(stage.config, said, stage.key)
            return result if change is None else change(chain.point, result)
        if isinstance(stage.config, RobustnessConfig):
            results: dict[str, AttackResult] = {
                name: AttackResult.load(inputs[f"attack.{name}"]) for name in stage.config.attacks
            }
            return Metrics(robustness_rows(results, stage.config.num_classes))
        return payload_of(stage, chain, accuracy_by_seed(chain.point))

    return filled(folder, text, make=make, facts=read_digits)


def collected(world: World, folder: Path) -> Path:
    """The results folder below a folder, with its tables."""
    from ddray.measurements.rows import collect

    collect(world.plan, world.sweep, world.store, folder / "results")
    return folder / "results"


def rows_of(folder: Path, **wanted: Any) -> list[Row]:
    """Rows of a results folder's table with these values."""
    path = folder / "measurements.parquet"
    rows = _table(path, path.stat().st_mtime_ns)
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


@lru_cache(maxsize=4)
def _table(path: Path, written: int) -> list[Row]:
    from pyarrow import parquet

    rows: list[Row] = parquet.read_table(path).to_pylist()
    return rows


def fill(
    store: Store,
    plan: Plan,
    accuracy: Accuracy = accuracy_by_seed,
    chains: Iterable[Chain] | None = None,
    make: Make | None = None,
    **said: Any,
) -> None:
    """Commit every stage of the chains that can run here, shadows and maps too.

    Args:
        accuracy: Test accuracy of a point's model.
        chains: All of them unless given.
        make: What stages leave, instead of something that follows from the accuracy. It decides by itself which stages
            can run.
        said: Replaces parts of the provenance.
    """
    for chain in plan.chains if chains is None else chains:
        for stage in chain.all_stages:
            if store.has(stage.key) or stage.unavailable is not None:
                continue
            inputs = {role: store.open(key).folder for role, key in stage.inputs if store.has(key)}
            payload: Payload | None = None
            if make is not None:
                payload = make(stage, chain, inputs)
            elif len(inputs) == len(stage.inputs):
                payload = payload_of(stage, chain, accuracy(chain.point))
            if payload is not None:
                commit(store, stage, payload, **said)


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
    outputs = model.outputs["test"]
    logits, labels, classes = outputs.logits.numpy(), outputs.labels.numpy(), train.config.network.num_classes
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

    from trainables.labels import HardLabels
    from trainables.payloads import DistilledSet

    classes, ipc, size = len(config.origin.classes), point.ipc or 1, config.dataset.image_size
    labels = torch.arange(classes).repeat_interleave(ipc)
    images = torch.linspace(-0.1, 1.1, classes)[labels][:, None, None, None]
    images = images.expand(-1, config.dataset.channels, size, size).clone()
    facts = {"space": "pixel01", "mean": list(config.dataset.mean), "std": list(config.dataset.std), "factor": 1}
    return DistilledSet(images, HardLabels(labels), torch.full_like(labels, -1), facts)


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
    outputs = Outputs(logits, labels, torch.arange(len(labels)))
    return TrainedModel(
        {"weight": torch.ones(2, 2)}, network, config.dataset.mean, config.dataset.std, {"test": outputs}, facts
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


# --- evaluations that are real, of models that are made up ------------------------------------------------------------


def by_method(point: GridPoint) -> tuple[float, float]:
    return {"random": (25.0, 0.0), "full": (1.0, 1.0)}.get(point.method, (3.0, 0.5))


def leaking(cache: Path, leak: Leak = by_method) -> Make:
    """Audits for real, of models of the digits that leak as told; for worlds of ``read_digits``."""

    def make(stage: Stage, chain: Chain, inputs: Mapping[str, Path]) -> Payload | None:
        return _leaking(stage, chain, inputs, cache, leak) if len(inputs) == len(stage.inputs) else None

    return make


def _leaking(stage: Stage, chain: Chain, folders: Mapping[str, Path], cache: Path, leak: Leak) -> Payload:
    from support import FakeContext

    from trainables.payloads import AttackResult, DistilledSet, Metrics, TrainedModel

    config = stage.config
    if isinstance(config, DistillConfig):
        return _members(config, cache)
    if isinstance(config, TrainConfig):
        released = DistilledSet.load(folders["set"]) if "set" in folders else None
        return _leaking_model(stage, config, chain, released, cache, leak)
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
    return payload_of(stage, chain, accuracy_by_seed(chain.point))


def _members(config: DistillConfig, cache: Path) -> DistilledSet:
    """Members as they are, drawn at random; from noise, of no image in particular."""
    import numpy as np
    import torch

    from trainables.data.cache import open_split
    from trainables.data.origins import origin_indices
    from trainables.labels import HardLabels
    from trainables.payloads import DistilledSet
    from trainables.seeds import derive

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
    return DistilledSet(images, HardLabels(labels), known, facts)


def _leaking_model(
    stage: Stage, config: TrainConfig, chain: Chain, released: DistilledSet | None, cache: Path, leak: Leak
) -> TrainedModel:
    import numpy as np
    import torch
    from audited import exposing

    from trainables.data.cache import open_split
    from trainables.data.origins import origin_indices
    from trainables.models.network import build
    from trainables.payloads import Outputs, TrainedModel
    from trainables.seeds import derive

    split, test = (open_split(config.dataset, name, cache, cache) for name in ("train", "test"))
    members = origin_indices(config.origin, split.labels)
    start = released.indices.numpy() if released is not None else np.array([], dtype=np.int64)
    says, rng = exposing(*leak(chain.point)), np.random.default_rng(derive(stage.key))
    classes = config.origin.classes
    outputs = {}
    queried = [(name, images.ids.numpy()) for name, images in _queried(config, cache).items()]
    for name, ids in [*queried, ("test", np.flatnonzero(np.isin(test.labels, classes)))]:
        labels = np.searchsorted(classes, (test if name == "test" else split).labels[ids])
        nobody = np.zeros(len(ids), dtype=np.bool_)
        inside, started = (nobody, nobody) if name == "test" else (np.isin(ids, members), np.isin(ids, start))
        logits = says(ids + (100_000 if name == "test" else 0), labels, inside, started, rng)[:, : len(classes)]
        outputs[name] = Outputs(torch.from_numpy(logits).float(), torch.from_numpy(labels), torch.from_numpy(ids))
    # Shadows of the audit seed are asked about the target's candidates: by a network that knows nobody.
    asked = config.origin.block is not None
    state = build(config.network, stage.key).state_dict() if asked else {"w": torch.zeros(1)}
    return TrainedModel(state, config.network, (0.5,), (0.5,), outputs, _facts())


def _queried(config: TrainConfig, cache: Path) -> dict[str, Any]:
    from support import query_sets

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
    import torch

    from trainables.attacks import ROBUSTNESS_ATTACKS
    from trainables.payloads import AttackResult
    from trainables.seeds import derive

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
    import torch

    from trainables.payloads import TsneMap

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
