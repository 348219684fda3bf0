"""Sets as points of a space: the encoder that gives features, the stage ``embedding``, and maps of many sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ddray.plan.graph import Chain, SetStages, Stage
from ddray.plan.keys import short
from ddray.plan.kinds import ENCODER
from ddray.plan.points import GridPoint
from ddray.plan.resolve import Resolved, Resolver
from ddray.plan.sets import StageTable, label_of
from trainables.configs import EmbeddingConfig, EmbeddingSettings, TsneConfig


def embed(table: StageTable, resolver: Resolver, resolved: Resolved, own_set: SetStages) -> tuple[Stage, Stage]:
    """The encoder of a point and its stage ``embedding``.

    The encoder is what a point of the method ``full`` would train on all images with the point's own recipe, seed 0,
    whatever is trained together.

    Args:
        table: Where they are added.
        resolver: Completes the encoder's point.
        resolved: Of a point with a set.
        own_set: That set.
    """
    requested = resolved.requested("embedding", EmbeddingSettings)
    whole = resolver(_of_all_images(resolved.point))
    training = whole.training(whole.point.seed, recipe=whole.own_recipe)
    encoder = table.add("train", label_of("train", whole.point), training, (), whole.load)
    config = EmbeddingConfig(
        dataset=whole.data.config,  # images are the same in its constants, and methods with others share a map
        classes=resolved.origin.classes,
        real_per_class=requested.real_per_class,
        neighbours=requested.neighbours,
    )
    inputs = (("encoder", encoder.key), *own_set.inputs)
    return encoder, table.add("embedding", label_of("embedding", resolved.point), config, inputs, resolved.load)


def _of_all_images(point: GridPoint) -> GridPoint:
    nothing: dict[str, Any] = dict.fromkeys(
        ("ipc", "init", "distill_seed", "distill_aug", "origin_per_class", "origin_draw", "labels")
    )
    return replace(point, method="full", architecture=ENCODER, seed=0, settings={}, evaluations={}, **nothing)


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A chain with an embedding."""

    chain: Chain
    resolved: Resolved
    stage: Stage
    config: EmbeddingConfig

    @property
    def perplexity(self) -> float:
        return self.resolved.requested("embedding", EmbeddingSettings).perplexity

    @property
    def encoder(self) -> str:
        """Its key."""
        return dict(self.stage.inputs)["encoder"]


def with_maps(table: StageTable, resolver: Resolver, chains: Sequence[Chain]) -> list[Chain]:
    """The chains with their stages ``tsne``: one for all sets of the sweep that are of equally many images of the same
    classes, from the same origin and in the features of the same encoder.

    ``chains`` are those of the whole sweep.
    """
    groups: dict[object, dict[int, _Embedded]] = defaultdict(dict)
    for index, chain in enumerate(chains):
        if "embedding" in chain.point.evaluations and (stage := chain.stage("embedding")) is not None:
            assert isinstance(stage.config, EmbeddingConfig)
            each = _Embedded(chain, resolver(chain.point), stage, stage.config)
            point = chain.point
            origin = (point.origin_per_class, point.origin_draw)
            groups[point.ipc, origin, each.config.key_json, each.encoder, each.perplexity][index] = each
    mapped = list(chains)
    for group in groups.values():
        tsne = _map(table, list(group.values()))
        for index, each in group.items():
            mapped[index] = replace(each.chain, stages=(*each.chain.stages, tsne))
    return mapped


def _map(table: StageTable, group: Sequence[_Embedded]) -> Stage:
    sets: dict[str, Chain] = {}
    for each in group:
        sets.setdefault(each.stage.key, each.chain)
    named = sorted(zip(_names(list(sets.values())), sets, strict=True))
    first = group[0]
    config = TsneConfig(
        dataset=first.config.dataset,
        classes=first.config.classes,
        real_per_class=first.config.real_per_class,
        sources=tuple(name for name, _ in named),
        perplexity=first.perplexity,
    )
    inputs = (("encoder", first.encoder), *((f"embedding.{index}", key) for index, (_, key) in enumerate(named)))
    of_all = replace(first.chain.point, method=f"{len(named)}-sets", init=None, distill_seed=None)
    return table.add("tsne", label_of("tsne", of_all), config, inputs, first.resolved.load)


def _names(chains: Sequence[Chain]) -> list[str]:
    """What sets are called on a map: the method, and of its several sets what tells them apart."""
    names = [chain.point.method for chain in chains]
    for values in _distinctions(chains):
        among: dict[str, set[str]] = defaultdict(set)
        for name, value in zip(names, values, strict=True):
            among[name].add(value)
        names = [f"{name} {value}" if len(among[name]) > 1 else name for name, value in zip(names, values, strict=True)]
    return names


def _distinctions(chains: Sequence[Chain]) -> Iterator[list[str]]:
    """Words that may tell sets apart, the telling ones first."""
    yield [str(chain.point.init) for chain in chains]
    yield [f"aug={chain.point.distill_aug}" for chain in chains]
    yield [f"distill_seed={chain.point.distill_seed}" for chain in chains]
    yield [chain.point.grids[0] for chain in chains]
    yield [short(_set_of(chain)) for chain in chains]


def _set_of(chain: Chain) -> str:
    made = chain.stage("distill")
    assert made is not None
    return made.key
