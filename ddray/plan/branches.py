"""What evaluations need beside a point's own set and model: shadows and rows of audits, encoders, common maps.

A branch is a path of stages like the main one: ``experts -> distill -> train``. Its seeds follow from the point's, so
points that differ in what a set does not depend on (network, recipe, training seed) share its sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ddray.plan.audits import MOST_ROWS, audits
from ddray.plan.feasible import ENCODER
from ddray.plan.graph import Chain, Making, Part, Stage, label_of
from ddray.plan.keys import short
from trainables.configs import (
    EmbeddingConfig,
    EmbeddingSettings,
    MethodSettings,
    PrivacyConfig,
    PrivacySettings,
    SignalsConfig,
    TsneConfig,
)
from trainables.methods import METHODS

if TYPE_CHECKING:
    from ddray.plan.pipeline import Pipeline
    from ddray.plan.points import GridPoint

SEEDS_OF_A_POINT = 1000
"""Seeds of rows and blocks begin there and leave that many to each seed of a point: rows and coin take the lower
``MOST_ROWS``, blocks the rest."""


def start_of(settings: MethodSettings) -> MethodSettings | None:
    """The settings that stop a method before its first step; None where it has no such start, or is one already."""
    if not settings.length or settings.budget is None:
        return None
    try:
        return type(settings).model_validate({**settings.model_dump(), settings.budget: 0})
    except ValidationError:  # a method of another package may not know an iteration 0
        return None


def needed_images(point: GridPoint, settings: MethodSettings) -> int:
    """Real images of each class that a point's method starts from or chooses; 0: it takes what there is."""
    if point.ipc is None or (point.init != "real" and "init" in METHODS[point.method].uses):
        return 0
    return settings.real_images(point.ipc)


def audit(
    pipeline: Pipeline, point: GridPoint, making: Making, train: Stage
) -> tuple[tuple[tuple[Stage, ...], ...], Stage]:
    """The stage ``privacy`` of a point, and the branches to its inputs.

    Args:
        pipeline: Makes the stages.
        point: With ``origin_per_class``.
        making: Of the point's own set.
        train: Leaves the point's own model.
    """
    asked = pipeline.asked(point, PrivacySettings)
    assert point.origin_per_class is not None, "feasible.py refuses the rest"
    settings = pipeline.completed(point).settings
    class_size = pipeline.facts[point.dataset].train_per_class
    found = audits(
        asked, point.origin_per_class, class_size, needed_images(point, settings), len(pipeline.origin(point).classes)
    )
    start = asked.start and bool(making.stages) and start_of(settings) is not None
    paths: list[tuple[Stage, ...]] = []
    inputs: list[tuple[str, str]] = []

    def branch(role: str, part: Part | None, number: int | None, signals: SignalsConfig, start: bool = False) -> Making:
        made = pipeline.making(point, part, _seed(point.distill_seed, number), start)
        seed = _seed(point.seed, number)
        assert seed is not None
        model = pipeline.training(point, made, part, seed, signals, start)
        paths.append((*made.stages, model))
        inputs.append((role, model.key))
        return made

    def member(role: str, part: Part, number: int, started: bool) -> None:
        made = branch(f"{role}.model", part, number, found.signals)
        inputs.extend((f"{role}.{name}", key) for name, key in made.inputs)
        if started:
            branch(f"{role}.start", part, number, found.signals, start=True)

    if "seed" in found.audit:
        inputs.append(("seed.model", train.key))
        inputs.extend((f"seed.{name}", key) for name, key in making.inputs)
        if start:
            branch("seed.start", None, None, SignalsConfig(), start=True)
        for block in range(1, found.shadows + 1):
            branch(f"shadow.{block}.model", Part("draw", block=block), MOST_ROWS + block, SignalsConfig())
    for row in range(found.rows):
        member(f"row.{row}", Part("pool", row=row, canaries=found.canaries), row, start)
    if "one_run" in found.audit:
        member("coin", Part("coin", row=0), 0, started=False)
    config = PrivacyConfig(
        dataset=pipeline.facts[point.dataset].config,
        origin=pipeline.origin(point),
        method=point.method,
        ipc=point.ipc,
        init=point.init,
        audit=found.audit,
        unfit=dict(found.unfit),
        rows=found.rows,
        targets=found.targets,
        shadows=found.shadows,
        attacks=found.attacks,
        canaries=found.canaries,
        signals=found.signals,
        start=start,
        resamples=asked.resamples,
    )
    return tuple(paths), pipeline.make("privacy", point, label_of("privacy", point), config, tuple(inputs))


def _seed(own: int | None, number: int | None) -> int | None:
    """The seed of a row or block of a point; None: the point's own, or the method has none."""
    return own if own is None or number is None else SEEDS_OF_A_POINT * (own + 1) + number


# --- embeddings -------------------------------------------------------------------------------------------------------


def embed(pipeline: Pipeline, point: GridPoint, making: Making) -> tuple[Stage, Stage]:
    """The encoder of a point and its stage ``embedding``.

    The encoder is what a point of the method ``full`` would train on all images with the point's own recipe, seed 0.

    Args:
        pipeline: Makes the stages.
        point: Of a method that distils.
        making: Of the point's own set.
    """
    asked = pipeline.asked(point, EmbeddingSettings)
    encoder = pipeline.reference(_of_all_images(point))
    config = EmbeddingConfig(
        dataset=pipeline.facts[point.dataset].config,
        classes=pipeline.origin(point).classes,
        real_per_class=asked.real_per_class,
        neighbours=asked.neighbours,
    )
    inputs = (("encoder", encoder.key), *making.inputs)
    return encoder, pipeline.make("embedding", point, label_of("embedding", point), config, inputs)


def _of_all_images(point: GridPoint) -> GridPoint:
    nothing: dict[str, Any] = dict.fromkeys(
        ("ipc", "init", "distill_seed", "distill_aug", "origin_per_class", "origin_draw")
    )
    return replace(point, method="full", architecture=ENCODER, seed=0, settings={}, evaluations={}, **nothing)


def maps(pipeline: Pipeline, chains: Sequence[Chain]) -> dict[int, Stage]:
    """The stages ``tsne``: one for all sets of the sweep that are of equally many images of the same classes, from the
    same origin and in the features of the same encoder.

    Args:
        pipeline: Makes the stages.
        chains: Of the whole sweep.

    Returns:
        Place in ``chains`` -> the stage, of those with an embedding.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for index, chain in enumerate(chains):
        if "embedding" in chain.point.evaluations and (embedding := chain.stage("embedding")) is not None:
            point = chain.point
            assert isinstance(embedding.config, EmbeddingConfig)
            asked = pipeline.asked(point, EmbeddingSettings)
            origin = (point.origin_per_class, point.origin_draw)
            groups[
                point.ipc, origin, embedding.config.key_json, dict(embedding.inputs)["encoder"], asked.perplexity
            ].append(index)
    found: dict[int, Stage] = {}
    for places in groups.values():
        tsne = _map(pipeline, [chains[index] for index in places])
        found.update(dict.fromkeys(places, tsne))
    return found


def _map(pipeline: Pipeline, chains: Sequence[Chain]) -> Stage:
    sets: dict[str, Chain] = {}
    for chain in chains:
        embedding = chain.stage("embedding")
        assert embedding is not None
        sets.setdefault(embedding.key, chain)
    named = sorted(zip(_names(list(sets.values())), sets, strict=True))
    point, embedding = chains[0].point, chains[0].stage("embedding")
    assert embedding is not None
    assert isinstance(embedding.config, EmbeddingConfig)
    config = TsneConfig(
        dataset=embedding.config.dataset,
        classes=embedding.config.classes,
        real_per_class=embedding.config.real_per_class,
        sources=tuple(name for name, _ in named),
        perplexity=pipeline.asked(point, EmbeddingSettings).perplexity,
    )
    inputs = (
        ("encoder", dict(embedding.inputs)["encoder"]),
        *((f"embedding.{place}", key) for place, (_, key) in enumerate(named)),
    )
    of_all = replace(point, method=f"{len(named)}-sets", init=None, distill_seed=None)
    return pipeline.make("tsne", point, label_of("tsne", of_all), config, inputs)


def _names(chains: Sequence[Chain]) -> list[str]:
    """What sets are called on a map: the method, and of its several sets what tells them apart."""
    names = [chain.point.method for chain in chains]
    distinctions = (
        [str(chain.point.init) for chain in chains],
        [f"aug={chain.point.distill_aug}" for chain in chains],
        [f"distill_seed={chain.point.distill_seed}" for chain in chains],
        [chain.point.grids[0] for chain in chains],
        [short(_set_of(chain)) for chain in chains],
    )
    for values in distinctions:
        among: dict[str, set[str]] = defaultdict(set)
        for name, value in zip(names, values, strict=True):
            among[name].add(value)
        names = [f"{name} {value}" if len(among[name]) > 1 else name for name, value in zip(names, values, strict=True)]
    return names


def _set_of(chain: Chain) -> str:
    made = chain.stage("distill")
    assert made is not None
    return made.key
