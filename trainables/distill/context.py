"""What a method is given besides its origin and its settings: the common ground of all distillation.

Seeds, starts, fresh networks, real batches, augmentations, checkpoints, progress and the payload at the end are the
same for every method; a method's file holds what is its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables import seeds
from trainables.configs import DistillConfig, Init
from trainables.context import Context, Save, StageFailure
from trainables.data import augment
from trainables.data.origins import Origin
from trainables.data.pixels import denormalise
from trainables.labels import HardLabels, Labels
from trainables.models.network import Network, build
from trainables.payloads import DistilledSet

FAR = 100.0
"""Images with larger values have diverged themselves: normalised or in [0, 1], values are of the order of 1."""


class DistillContext:
    """What one distillation is given.

    Attributes:
        config: The whole request: data set, origin, ipc, start, seed.
        device: Where tensors go.
        inputs: Folders of payloads made before, by role (``expert.0``, …).
        strategy: The DSA augmentation, or None when the sweep switched it off or the method has none.
    """

    def __init__(self, config: DistillConfig, context: Context, inputs: Mapping[str, Path] | None = None) -> None:
        self.config = config
        self.device = context.device
        self.inputs = dict(inputs or {})
        self.strategy = augment.strategy_for(config.dataset.flip) if config.augmentation == "dsa" else None
        self._context = context

    @property
    def ipc(self) -> int:
        """Distilled images per class."""
        return self.config.ipc

    @property
    def init(self) -> Init:
        """Where the images start."""
        assert self.config.init is not None, f"{self.config.method} is declared without a start"
        return self.config.init

    @property
    def num_classes(self) -> int:
        return len(self.config.origin.classes)

    @cached_property
    def needs_two_images(self) -> bool:
        """Whether the matched network cannot be trained on one image: batch norm of maps of one pixel.

        Where maps are larger batch norm takes one image, and a batch of one stays one.
        """
        config = self.config.network
        if config is None or config.norm != "batch":
            return False
        network = build(config, "one image")
        try:
            network.train()(torch.zeros(1, config.channels, config.image_size, config.image_size))
        except ValueError:
            return True
        return False

    # --- randomness, derived from (method, purpose, seed, numbers) ---

    def generator(self, purpose: str, *numbers: int) -> torch.Generator:
        """A CPU generator for one purpose at one step of the computation, e.g. ``generator("order", iteration)``.

        Drawing by step instead of in sequence is what makes interruptions leave no trace.
        """
        return seeds.generator(self.config.method, purpose, self.config.distill_seed, *numbers)

    def network(self, *numbers: int) -> Network:
        """A fresh random network of the matched architecture, on the device."""
        assert self.config.network is not None, f"{self.config.method} is declared without a network"
        return build(
            self.config.network, self.config.method, "network", self.config.distill_seed, *numbers, device=self.device
        )

    def real_batches(self, origin: Origin, batch: int, *numbers: int, purpose: str = "real") -> list[Tensor]:
        """For each class, the positions in the origin of up to ``batch`` of its images, drawn without replacement."""
        generator = self.generator(purpose, *numbers)
        return [
            members[torch.randperm(len(members), generator=generator)[:batch].to(members.device)]
            for members in origin.by_class
        ]

    def omegas(self, *numbers: int, strategy: augment.Strategy | None = None) -> augment.Params | None:
        """One augmentation per class for a Siamese step, or None without augmentation.

        Args:
            numbers: Of the step.
            strategy: Other operations than DSA's own; applied only when the augmentation is on.
        """
        if self.strategy is None:
            return None
        return augment.sample_each(
            strategy or self.strategy, self.num_classes, generator=self.generator("augment", *numbers)
        )

    # --- start and end ---

    def initial_images(self, origin: Origin, preferred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (K * ipc, C, H, W) normalised, and canonical indices (K * ipc,), -1 for noise; see the function.

        Raises:
            ValueError: A class has fewer than ``ipc`` images to start from.
        """
        config = self.config
        return initial_images(origin, self.ipc, self.init, config.distill_seed, config.origin.classes, preferred)

    def initial_pixels(self, origin: Origin, factor: int = 1) -> tuple[Tensor, Tensor]:
        """Images (K * ipc, C, H, W) in pixel space, and canonical indices of the real images in them.

        Args:
            factor: A real start holds factor x factor shrunken images (``tiled_images``); noise is about 0.5 and within
                [0, 1].

        Raises:
            ValueError: A class has fewer images than the start takes.
        """
        dataset = self.config.dataset
        if self.init == "noise":
            noise, indices = self.initial_images(origin)
            return (noise / 4 + 0.5).clamp(0, 1), indices
        real, indices = self.initial_tiles(origin, factor)
        return denormalise(real, dataset.mean, dataset.std), indices

    def initial_tiles(self, origin: Origin, factor: int) -> tuple[Tensor, Tensor]:
        """The same normalised, noise too: that is N(0, 1), whatever the factor."""
        if factor > 1 and self.init == "real":
            return tiled_images(origin, self.ipc, factor, self.config.distill_seed, self.config.origin.classes)
        return self.initial_images(origin)

    def finish(
        self, images: Tensor, indices: Tensor, *, in_pixels: bool = False, labels: Labels | None = None, **info: Any
    ) -> DistilledSet:
        """The payload of finished images, back in pixel space and not clamped.

        Args:
            images: (K * ipc, C, H, W) normalised, class-major, on any device.
            indices: (K * ipc,) int64 canonical index of the image each row started from, -1 if none; (K * ipc, tiles)
                where a row started from several.
            in_pixels: The images are in pixel space already.
            labels: Soft ones, where the method has them.
            info: What else is worth knowing; ``iterations`` at least.
        """
        dataset, classes = self.config.dataset, self.config.origin.classes
        labels = labels or HardLabels(class_major_labels(len(classes), self.ipc))
        common = {
            "space": "pixel01",
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "zca": False,
            "factor": 1,
            "label_kind": labels.kind,
            "method": self.config.method,
            "ipc": self.ipc,
            "classes": list(classes),
            "init": self.config.init,
        }
        pixels = images if in_pixels else denormalise(images, dataset.mean, dataset.std)
        return DistilledSet(pixels.cpu(), labels, indices.cpu(), {**common, **info})

    # --- the loop ---

    def restore(self) -> tuple[int, Path] | None:
        """See ``trainables.context.Context``; so are the next three."""
        return self._context.restore()

    def iterations(self, total: int, *, start: int = 0, save: Save | None = None, unit: str = "it") -> Iterator[int]:
        return self._context.iterations(total, start=start, save=save, unit=unit)

    def poll(self) -> None:
        self._context.poll()

    def measure(self, **values: float) -> None:
        self._context.measure(**values)

    def check_loss(self, loss: float, iteration: int, setting: str = "lr_img") -> None:
        """Report the loss, or end the stage when it is not finite.

        Args:
            loss: Of this iteration.
            iteration: Counted from 0.

        Raises:
            StageFailure: Naming the iteration and what to do.
        """
        if not math.isfinite(loss):
            self.diverged(f"the loss is {loss}", iteration, setting)
        self.measure(loss=loss)

    def check_images(self, images: Tensor, iteration: int, setting: str = "lr_img") -> None:
        """End the stage when an update left images that are not finite: the next loss would say so, but the last update
        has none.

        Args:
            iteration: Counted from 0.

        Raises:
            StageFailure: Naming the iteration and what to do.
        """
        if not images.isfinite().all():
            self.diverged("an image is not finite", iteration, setting)

    def check_training(self, losses: Sequence[Tensor], iteration: int, setting: str = "lr_net") -> None:
        """End the stage when the network that is matched on diverged, before its gradients make the images look guilty.

        Args:
            losses: Of its training on this turn; read once, so that a GPU is not waited for after every batch.
            iteration: Counted from 0.

        Raises:
            StageFailure: Naming the iteration and what to do.
        """
        if losses and not torch.stack(list(losses)).isfinite().all():
            self.diverged("a loss of the network's training is not finite", iteration, setting)

    def to_lower(self, images: Tensor, setting: str = "lr_img", *, trained: bool) -> str:
        """The setting to blame when what a network makes of the images is not finite.

        Its training may have spoilt a network without an infinite loss: the last step has no loss after it, and a
        finite loss may have infinite gradients.

        Args:
            images: As the network sees them, or stored.
            setting: The rate that the images are learned at.
            trained: Whether the network was trained, at ``lr_net``.

        Returns:
            ``lr_net`` if it was, unless the images are far from what images are.
        """
        return "lr_net" if trained and float(images.abs().max()) <= FAR else setting

    def diverged(self, what: str, iteration: int, setting: str = "lr_img") -> NoReturn:
        """End the stage: ``what`` happened at an iteration; lowering ``setting`` helps.

        Raises:
            StageFailure: Always.
        """
        name = self.config.method
        raise StageFailure(
            f"{name}: {what} at iteration {iteration}; expected a finite number. Lower settings.{name}.{setting}."
        )


def class_major_labels(num_classes: int, ipc: int, device: str | torch.device = "cpu") -> Tensor:
    """Labels (num_classes * ipc,): ``ipc`` times 0, then ``ipc`` times 1, and so on."""
    return torch.arange(num_classes, device=device).repeat_interleave(ipc)


def initial_images(
    origin: Origin,
    ipc: int,
    init: Init,
    distill_seed: int,
    classes: tuple[int, ...],
    preferred: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Starting images, class by class.

    ``real`` takes the first ``ipc`` of a permutation of each class, in canonical order, that depends on
    ``distill_seed`` and the class alone: a smaller set is contained in a larger one, and ``random`` with the same seed
    is where every method starts. ``noise`` is N(0, 1) in normalised space.

    Differs from the authors' code: IDC takes the first images of each class in the data set's order.

    Args:
        classes: The data set's own label of each class position.
        preferred: (N,) bool: real images of the origin that come before the others of their class.

    Returns:
        Images (K * ipc, C, H, W) normalised on the origin's device, and canonical indices (K * ipc,) int64 on the CPU,
        -1 for noise.

    Raises:
        ValueError: If a class has fewer than ``ipc`` images and ``init`` is ``real``.
    """
    if init == "noise":
        shape = (ipc, *origin.images.shape[1:])
        noise = [torch.randn(shape, generator=seeds.generator("noise", distill_seed, name)) for name in classes]
        return torch.cat(noise).to(origin.images.device), torch.full((len(classes) * ipc,), -1)
    for name, members in zip(classes, origin.by_class, strict=True):
        if len(members) < ipc:
            raise ValueError(
                f"distill: class {name} has {len(members)} images in the origin; got ipc {ipc}; expected at most "
                f"{len(members)}. Lower the ipc or start from noise."
            )
    chosen = torch.cat(_first(origin, ipc, distill_seed, classes, preferred))
    return origin.images[chosen.to(origin.images.device)], origin.indices.cpu()[chosen]


def tiled_images(
    origin: Origin, ipc: int, factor: int, distill_seed: int, classes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Starting images that each hold factor x factor shrunken real ones (IDC's ``mix``).

    The first ``ipc * factor^2`` images of the permutation that ``initial_images`` takes ``ipc`` of, shrunken by nearest
    interpolation; tile k (row by row) of image j of a class is number ``k * ipc + j`` of them. Where factor does not
    divide the side, tiles are rounded up and the last ones cut off at the border.

    Args:
        factor: Tiles along each side.
        classes: The data set's own label of each class position.

    Returns:
        Images (K * ipc, C, H, W) normalised on the origin's device, and canonical indices (K * ipc, factor^2) int64 on
        the CPU: a row per image, a column per tile.

    Raises:
        ValueError: If a class has fewer than ``ipc * factor^2`` images.
    """
    needed = ipc * factor**2
    for name, members in zip(classes, origin.by_class, strict=True):
        if len(members) < needed:
            raise ValueError(
                f"distill: class {name} has {len(members)} images in the origin; got ipc {ipc}, whose tiles of factor "
                f"{factor} take {needed}; expected at most {len(members)}. Lower the ipc, use layout whole, or start "
                "from noise."
            )
    # class, tile, image -> class, image, tile
    tiles = torch.stack(_first(origin, needed, distill_seed, classes)).reshape(-1, factor**2, ipc).transpose(1, 2)
    chosen = tiles.reshape(-1)
    channels, height, width = origin.images.shape[1:]
    size = (-(-height // factor), -(-width // factor))
    small = F.interpolate(origin.images[chosen.to(origin.images.device)], size=size, mode="nearest")
    grid = small.reshape(-1, factor, factor, channels, *size).permute(0, 3, 1, 4, 2, 5)
    images = grid.reshape(-1, channels, factor * size[0], factor * size[1])[:, :, :height, :width]
    return images.contiguous(), origin.indices.cpu()[chosen].reshape(-1, factor**2)


def _first(
    origin: Origin, count: int, distill_seed: int, classes: tuple[int, ...], preferred: Tensor | None = None
) -> list[Tensor]:
    """Of each class, the positions of the first ``count`` images of its permutation, preferred ones before others."""
    chosen = []
    for name, members in zip(classes, origin.by_class, strict=True):
        order = torch.randperm(len(members), generator=seeds.generator("initial", distill_seed, name))
        ordered = members.cpu()[order]
        if preferred is not None:
            wanted = preferred.cpu()[ordered]
            ordered = torch.cat([ordered[wanted], ordered[~wanted]])
        chosen.append(ordered[:count])
    return chosen
