"""Stages by key, and those that every path has: what makes a set, and the network that is trained on it.

    experts (MTT) -> distill -> train

The main path of a point, the shadows of its audits and the encoders of its maps all end in such a path. Equal stages
come out with the same key and are one object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ddray.plan.axes import label_words
from ddray.plan.graph import SetStages, Stage
from ddray.plan.imported import Imported
from ddray.plan.keys import lineage_key, stage_key
from ddray.plan.kinds import STAGE_KINDS, Load, Request, cost_class_of, reservation, work_of
from ddray.plan.points import GridPoint
from ddray.plan.resolve import Resolved, SetSpec
from trainables.configs import Config, DistillConfig, Kind
from trainables.teachers import SEED as TEACHER_SEED

Inputs = tuple[tuple[str, str], ...]
"""(role, key)."""


class StageTable:
    """The stages of a plan."""

    def __init__(self, requests: Mapping[str, Request]) -> None:
        self.requests = requests
        self.stages: dict[str, Stage] = {}
        """By key. What a stage needs comes before it."""
        self.set_of = cache(self._set_of)
        self._experts_of = cache(self._experts)

    def add(
        self, kind: Kind, label: str, config: Config, inputs: Inputs, load: Load, *, unavailable: str | None = None
    ) -> Stage:
        """The stage of a configuration and inputs: the one that exists, or a new one.

        Args:
            kind: Of the stage.
            label: How people see it.
            config: Complete, of the kind's type.
            inputs: Keys by role.
            load: What its share, work and bytes follow from.
            unavailable: Why it cannot run on this machine.
        """
        record = STAGE_KINDS[kind]
        key = stage_key(kind, record.version, config.key_json, dict(inputs))
        if key in self.stages:
            return self.stages[key]
        lineage, budget = key, None
        if isinstance(config, DistillConfig) and load.settings.budget is not None:
            budget = load.settings.length
            path = config.lineage_json(load.settings.budget)
            lineage = lineage_key(kind, record.version, path, dict(inputs))
        asked = reservation(kind, config, load, self.requests)
        stage = self.stages[key] = Stage(
            kind=kind,
            key=key,
            lineage=lineage,
            budget=budget,
            version=record.version,
            label=label,
            config=config,
            inputs=inputs,
            unavailable=unavailable,
            cpus=asked.cpus,
            share=asked.share,
            held_mib=asked.held_mib,
            work=work_of(kind, config, load),
            size=record.size(config, load),
            cost_class=cost_class_of(kind, config, load),
        )
        return stage

    def own_set(self, resolved: Resolved) -> SetStages:
        """What makes a point's own set, or stands for it."""
        if resolved.imported is not None and not resolved.imported.is_model:
            return SetStages((self.imported(resolved.imported),))
        return self.set_of(resolved.set) if resolved.set is not None else SetStages()

    def teacher(self, resolved: Resolved, *words: str, number: int | None = None, **other: Any) -> tuple[Stage, ...]:
        """What labels the images of a point's set, trained on the real images that the set was made of; none where the
        set has its own labels.

        Repeats of a point, and its distillations, have one teacher.

        Args:
            resolved: The point.
            words: That tell it from the point's own in labels.
            number: Of the row or block, for the seed; None: the point's own.
            other: Of its training, in place of what is the point's own: its images.
        """
        teacher = resolved.teacher
        if teacher is None:
            return ()
        recipe, seed = teacher.own_recipe, TEACHER_SEED + (0 if number is None else 1 + number)
        config = teacher.training(seed, recipe=recipe, **other)
        length = f"steps={recipe.steps}" if recipe.steps else f"epochs={recipe.epochs}"
        label = label_of("train", teacher.point, "teacher", teacher.point.protocol, length, *words, seed=None)
        return (self.add("train", label, config, (), teacher.load),)

    def imported(self, imported: Imported) -> Stage:
        """The stage that an imported artifact stands for."""
        stage = imported.stage()
        return self.stages.setdefault(stage.key, stage)

    def _set_of(self, spec: SetSpec) -> SetStages:
        """What makes a set; cached as ``set_of``."""
        # Experts are the same for every start and seed of a set.
        experts = self._experts_of(replace(spec, init=None, distill_seed=None))
        label = label_of("distill", spec.point, *spec.words, distill_seed=spec.distill_seed)
        inputs = tuple((f"expert.{index}", expert.key) for index, expert in enumerate(experts))
        return SetStages((*experts, self.add("distill", label, spec.config, inputs, spec.load)))

    def _experts(self, spec: SetSpec) -> tuple[Stage, ...]:
        """Of a set, whatever its start and seed; cached as ``_experts_of``."""
        label = label_of("experts", spec.point, *spec.words)
        return tuple(
            self.add("experts", f"{label} expert={config.index}", config, (), spec.load) for config in spec.experts
        )


def label_of(kind: Kind, point: GridPoint, *further: str, **instead: Any) -> str:
    """How people see a stage: ``train dm cifar10 ipc=10 init=real convnet3 seed=0``.

    Args:
        kind: What it does.
        point: One that needs it.
        further: Words that tell it from others.
        instead: Values of axes that replace the point's.
    """
    return " ".join([kind, *label_words(point, training=STAGE_KINDS[kind].of_model, instead=instead), *further])
