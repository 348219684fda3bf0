"""A set or a model that ddray did not make: what is known of it, and the stage that its artifact stands for."""

from __future__ import annotations

from dataclasses import dataclass

from ddray.plan.graph import Stage
from ddray.plan.keys import stage_key
from ddray.plan.kinds import STAGE_KINDS
from trainables.configs import DistillConfig, ExternalConfig, Kind, OriginConfig

NAME = "imported"
"""The setting of the method that names what was imported."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported. Its artifact stands where the stage ``distill`` or ``train`` would; everything after it is as
    for any point."""

    config: DistillConfig | ExternalConfig
    """Of a distilled set, or of a model."""
    members: OriginConfig | None
    """Training images that it was made of; None: not known."""
    classes: tuple[int, ...]
    label: str

    @property
    def is_model(self) -> bool:
        return isinstance(self.config, ExternalConfig)

    @property
    def origin(self) -> OriginConfig:
        """Its members where they are known, else all images of its classes."""
        return self.members or OriginConfig(classes=self.classes)

    @property
    def factor(self) -> int:
        """Each stored image is cut into factor x factor training images."""
        return int(self.config.settings["factor"]) if isinstance(self.config, DistillConfig) else 1

    def stage(self) -> Stage:
        """It is in the store, or cannot be had."""
        kind: Kind = "train" if self.is_model else "distill"
        version = STAGE_KINDS[kind].version
        key = stage_key(kind, version, self.config.key_json, {})
        return Stage(
            kind=kind,
            key=key,
            lineage=key,
            budget=None,
            version=version,
            label=self.label,
            config=self.config,
            inputs=(),
            unavailable="it was imported and is gone from the store: import it again with ddray evaluate",
            cpus=1.0,
            share=0.0,
            work=0.0,
            size=0,
        )
