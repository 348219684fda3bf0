"""The control without distillation: real images drawn at random."""

from __future__ import annotations

from trainables.data.origins import Origin
from trainables.distill.context import DistillContext
from trainables.distill.initial import initial_images
from trainables.methods import RandomSettings
from trainables.payloads import DistilledSet


def distill(origin: Origin, settings: RandomSettings, context: DistillContext) -> DistilledSet:
    """``ipc`` images of each class, exactly those that a method with ``init: real`` and the same seed starts from.

    Raises:
        ValueError: A class has fewer than ``ipc`` images.
    """
    config = context.config
    images, indices = initial_images(origin, config.ipc, "real", config.distill_seed, config.origin.classes)
    return context.finish(images, indices, init="real", iterations=0)
