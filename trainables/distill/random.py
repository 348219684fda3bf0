"""The control without distillation: real images drawn at random."""

from __future__ import annotations

from trainables.configs import DistillConfig
from trainables.context import Context
from trainables.data.origins import Origin
from trainables.distill.initial import distilled_set, initial_images
from trainables.payloads import DistilledSet


def distill(origin: Origin, config: DistillConfig, context: Context) -> DistilledSet:
    """``ipc`` images of each class, exactly those that a method with ``init: real`` and the same seed starts from.

    Raises:
        ValueError: A class has fewer than ``ipc`` images.
    """
    images, indices = initial_images(origin, config.ipc, "real", config.distill_seed, config.origin.classes)
    return distilled_set(images, indices, config, init="real", iterations=0)
