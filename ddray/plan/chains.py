"""A point's chain: its main path, and what its evaluations need beside it.

    experts (MTT) -> distill -> [ensemble ->] train -> accuracy, attack ... -> robustness

A teacher that labels the images of the set is a side path, because the ``train`` of the main path is the point's own.
``privacy`` and ``embedding`` also need sets distilled from other images and models trained on them (``shadows.py``),
and encoders (``maps.py``).
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from ddray.plan.datasets import DatasetInfo
from ddray.plan.graph import Chain, Stage
from ddray.plan.imported import Imported
from ddray.plan.kinds import STAGE_KINDS, Request
from ddray.plan.maps import embed, with_maps
from ddray.plan.points import GridPoint
from ddray.plan.resolve import Resolved, Resolver
from ddray.plan.sets import Inputs, StageTable, label_of
from ddray.plan.shadows import privacy
from trainables.attacks import ROBUSTNESS_ATTACKS, RobustnessAttack, attack_settings, epsilons_for
from trainables.configs import (
    AttackConfig,
    DatasetConfig,
    EnsembleConfig,
    RobustnessConfig,
    RobustnessSettings,
)


def make_chains(
    points: Iterable[GridPoint],
    datasets: Mapping[str, DatasetInfo],
    requests: Mapping[str, Request],
    imported: Mapping[str | None, Imported] | None = None,
) -> tuple[list[Chain], dict[str, Stage]]:
    """The chains of a whole sweep's points, in their order, and all stages by key, each after what it needs.

    Which repeats form an ensemble, and which sets share a map, is judged on all points, so that filters and finished
    work never regroup.

    ``requests`` are the sweep's ``resources``; ``imported`` is what points of the method ``external`` are about, as
    ``Resolver`` has it.
    """
    points = list(points)
    resolver, table = Resolver(datasets, imported), StageTable(requests)
    repeats = _repeats(table, resolver, points)
    chains = [_chain(table, resolver, resolver(point), repeats) for point in points]
    return with_maps(table, resolver, chains), table.stages


def _chain(table: StageTable, resolver: Resolver, resolved: Resolved, repeats: Mapping[object, set[int]]) -> Chain:
    point = resolved.point
    own_set, teacher = table.own_set(resolved), table.teacher(resolved)
    stages = [*own_set.stages, *_trained(table, resolved, own_set.taught_by(teacher), repeats)]
    train = stages[-1]
    stages += _of_model_alone(table, resolved, train)
    side_paths: list[tuple[Stage, ...]] = [teacher] if teacher else []
    if "robustness" in point.evaluations:
        stages += _robustness(table, resolved, train)
    if "privacy" in point.evaluations:
        paths, stage = privacy(table, resolved, own_set, train)
        side_paths += paths
        stages.append(stage)
    if "embedding" in point.evaluations and own_set.stages:
        encoder, stage = embed(table, resolver, resolved, own_set)
        side_paths.append((encoder,))
        stages.append(stage)
    return Chain(point, tuple(stages), resolved.protocol, resolved.changes, resolved.unpublished, tuple(side_paths))


# --- the point's own network ------------------------------------------------------------------------------------------


def _repeats(table: StageTable, resolver: Resolver, points: Iterable[GridPoint]) -> dict[object, set[int]]:
    """What is trained together: the training without its seed -> the seeds."""
    seeds: dict[object, set[int]] = defaultdict(set)
    for point in points:
        if point.train.get("ensemble"):
            resolved = resolver(point)
            inputs = table.own_set(resolved).taught_by(table.teacher(resolved))
            seeds[_repeat(resolved, inputs)].add(point.seed)
    return seeds


def _repeat(resolved: Resolved, inputs: Inputs) -> object:
    """Equal for points whose trainings differ in the seed alone.

    Args:
        resolved: The point.
        inputs: Of its training.
    """
    return inputs, resolved.training(0, signals=resolved.signals).key_json


def _trained(
    table: StageTable, resolved: Resolved, inputs: Inputs, repeats: Mapping[object, set[int]]
) -> tuple[Stage, ...]:
    """The stage that leaves the point's model; before it the ensemble that it is taken from, if there is one.

    Args:
        table: Where they are added.
        resolved: The point.
        inputs: Of its training.
        repeats: What is trained together.
    """
    if resolved.imported is not None and resolved.imported.is_model:
        return (table.imported(resolved.imported),)
    point, recipe, signals = resolved.point, resolved.recipe, resolved.signals
    label = label_of("train", point)
    seeds = tuple(sorted(repeats[_repeat(resolved, inputs)])) if recipe.ensemble else ()
    if len(seeds) < 2:  # an ensemble of one is the training itself
        config = resolved.training(point.seed, recipe=resolved.own_recipe, signals=signals)
        return (table.add("train", label, config, inputs, resolved.load),)
    first = resolved.training(seeds[0], signals=signals)
    together = label_of("ensemble", point, f"seeds={','.join(map(str, seeds))}", seed=None)
    ensemble = table.add("ensemble", together, EnsembleConfig(base=first, seeds=seeds), inputs, resolved.load)
    config = resolved.training(point.seed, signals=signals, ensemble=seeds)
    return ensemble, table.add("train", label, config, (("ensemble", ensemble.key),), resolved.load)


# --- evaluations of it ------------------------------------------------------------------------------------------------


def _of_model_alone(table: StageTable, resolved: Resolved, train: Stage) -> Iterator[Stage]:
    """Accuracy, which every point gets, and what else needs nothing but the model."""
    point, num_classes = resolved.point, len(resolved.origin.classes)
    for kind, record in STAGE_KINDS.items():
        if record.of_model_alone is not None and (record.settings is None or kind in point.evaluations):
            requested = None if record.settings is None else resolved.requested(kind, record.settings)
            config = record.of_model_alone(requested, resolved.data.config, num_classes)
            yield table.add(kind, label_of(kind, point), config, (("model", train.key),), resolved.load)


def _robustness(table: StageTable, resolved: Resolved, train: Stage) -> tuple[Stage, ...]:
    """An attack each, and their summary."""
    point, classes = resolved.point, resolved.origin.classes
    requested = resolved.requested("robustness", RobustnessSettings)
    configs = _attacks(resolved.data.config, classes, resolved.data.test_per_class, requested)
    attacks = [
        table.add(
            "attack",
            label_of("attack", point, config.attack),
            config,
            (("model", train.key),),
            resolved.load,
            unavailable=missing_library(ROBUSTNESS_ATTACKS[config.attack]),
        )
        for config in configs
    ]
    summary = RobustnessConfig(num_classes=len(classes), attacks=tuple(config.attack for config in configs))
    inputs = tuple((f"attack.{config.attack}", stage.key) for config, stage in zip(configs, attacks, strict=True))
    return *attacks, table.add("robustness", label_of("robustness", point), summary, inputs, resolved.load)


@cache
def _attacks(
    dataset: DatasetConfig, classes: tuple[int, ...], test_per_class: int, requested: RobustnessSettings
) -> tuple[AttackConfig, ...]:
    """In the order of ``ROBUSTNESS_ATTACKS``: how a sweep lists them makes no difference."""
    return tuple(
        AttackConfig(
            attack=spec.name,
            dataset=dataset,
            classes=classes,
            settings=attack_settings(spec.name),
            images=min(requested.images, len(classes) * test_per_class),
            epsilons=epsilons_for(spec.name, requested.epsilons_l2, requested.epsilons_linf),
        )
        for spec in ROBUSTNESS_ATTACKS.values()
        if spec.name in requested.attacks
    )


def missing_library(spec: RobustnessAttack) -> str | None:
    """Why an attack cannot run here, or None. Looked for and not loaded, where the sweep is planned."""
    if spec.extra is None or _is_there(spec.library):
        return None
    return f"attack {spec.name} needs {spec.library}, which is not installed: pip install 'ddray[{spec.extra}]'"


@cache
def _is_there(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
