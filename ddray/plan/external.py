"""The plan of what ddray did not make: points whose set, or whose model, was imported into the store.

The imported artifact stands where the stage ``distill`` or ``train`` would; everything after it is as for any point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ddray.plan import resources
from ddray.plan.datasets import DatasetFacts
from ddray.plan.graph import Chain, Making, Part, Stage, label_of
from ddray.plan.keys import stage_key
from ddray.plan.pipeline import Completed, Pipeline
from ddray.plan.points import GridPoint
from trainables.attacks import Audit
from trainables.configs import (
    VERSIONS,
    DistillConfig,
    ExternalConfig,
    Kind,
    MethodSettings,
    OriginConfig,
    PrivacyConfig,
    PrivacySettings,
    RecipeConfig,
    SignalsConfig,
)
from trainables.protocols import PROTOCOLS

EXTERNAL = "external"
"""In the column ``method``; of a model also in the column ``protocol``."""

NO_MEMBERS = "seed: its members are not known; got no list of them; expected the images it was made of (--members)"
"""Why membership is not audited."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was imported."""

    config: DistillConfig | ExternalConfig
    """Of a distilled set, or of a model."""
    members: OriginConfig | None
    """Training images that it was made of; None: not known."""
    classes: tuple[int, ...]
    label: str

    @property
    def is_model(self) -> bool:
        return isinstance(self.config, ExternalConfig)

    def stage(self) -> Stage:
        """The stage that its artifact stands for. It is in the store, or cannot be had."""
        kind: Kind = "train" if self.is_model else "distill"
        key = stage_key(kind, VERSIONS[kind], self.config.key_json, {})
        return Stage(
            kind=kind,
            key=key,
            lineage=key,
            budget=None,
            version=VERSIONS[kind],
            label=self.label,
            config=self.config,
            inputs=(),
            unavailable="it was imported and is gone from the store: import it again with ddray evaluate",
            cpus=1.0,
            share=0.0,
            work=0.0,
            size=0,
        )


class ExternalPipeline(Pipeline):
    """Makes the chains of the points of one imported set or model."""

    def __init__(
        self, facts: Mapping[str, DatasetFacts], requests: Mapping[str, resources.Request], subject: Subject
    ) -> None:
        super().__init__(facts, requests)
        self._subject = subject
        self._imported = subject.stage()
        self.stages[self._imported.key] = self._imported

    def making(
        self, point: GridPoint, part: Part | None = None, distill_seed: int | None = None, start: bool = False
    ) -> Making:
        if point.method != EXTERNAL:
            return super().making(point, part, distill_seed, start)
        return Making() if self._subject.is_model else Making((self._imported,))

    def completed(self, point: GridPoint) -> Completed:
        return Completed(MethodSettings(), ()) if point.method == EXTERNAL else super().completed(point)

    def origin(self, point: GridPoint, part: Part | None = None) -> OriginConfig:
        members = self._subject.members if point.method == EXTERNAL else None
        return members or OriginConfig(classes=self._subject.classes)

    def recipe(self, point: GridPoint) -> tuple[RecipeConfig, dict[str, Any]]:
        if point.protocol == EXTERNAL:  # of a model; nothing is trained by it
            return next(iter(PROTOCOLS.values())).recipe, {}
        return super().recipe(point)

    def _train(self, point: GridPoint, recipe: RecipeConfig, making: Making) -> tuple[Stage, ...]:
        if point.method == EXTERNAL and self._subject.is_model:
            return (self._imported,)
        return super()._train(point, recipe, making)

    def _own_signals(self, point: GridPoint) -> SignalsConfig | None:
        known = point.method == EXTERNAL and self._subject.members is not None
        return SignalsConfig() if known else None

    def _chain(self, point: GridPoint) -> Chain:
        others = {kind: asked for kind, asked in point.evaluations.items() if kind != "privacy"}
        chain = super()._chain(replace(point, evaluations=others))
        stages = chain.stages
        if "privacy" in point.evaluations:
            stages = (*stages, self._privacy(point, chain))
        return replace(chain, point=point, stages=stages)

    def _privacy(self, point: GridPoint, chain: Chain) -> Stage:
        """The audit against test images where members are known; else why there is none.

        There are no shadows: what was made elsewhere cannot be made again from other images. The audits that need them
        are not asked for.
        """
        asked = self.asked(point, PrivacySettings)
        fit: tuple[Audit, ...] = ("seed",) if self._subject.members is not None else ()
        inputs: list[tuple[str, str]] = []
        if fit:
            train = chain.stage("train")
            assert train is not None
            inputs.append(("seed.model", train.key))
            inputs.extend((f"seed.{name}", key) for name, key in self.making(point).inputs)
        config = PrivacyConfig(
            dataset=self.facts[point.dataset].config,
            origin=self.origin(point),
            method=point.method,
            ipc=point.ipc,
            init=None,
            audit=fit,
            unfit={} if fit else {"seed": NO_MEMBERS},
            rows=0,
            targets=1,
            shadows=0,
            attacks=asked.attacks,
            canaries=0,
            signals=SignalsConfig(),
            start=False,
            resamples=asked.resamples,
        )
        return self.make("privacy", point, label_of("privacy", point), config, tuple(inputs))
