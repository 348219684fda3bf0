"""Where a distilled set starts, noise or real images, the same for every method; and the payload it ends as."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables import seeds
from trainables.configs import DistillConfig, Init
from trainables.data.origins import Origin, denormalise
from trainables.payloads import DistilledSet


def class_major_labels(num_classes: int, ipc: int, device: str | torch.device = "cpu") -> Tensor:
    """Labels (num_classes * ipc,): ``ipc`` times 0, then ``ipc`` times 1, and so on."""
    return torch.arange(num_classes, device=device).repeat_interleave(ipc)


def initial_images(
    origin: Origin, ipc: int, init: Init, distill_seed: int, classes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Starting images, class by class.

    ``real`` takes the first ``ipc`` of a permutation of each class, in canonical order, that depends on
    ``distill_seed`` and the class alone: a smaller set is contained in a larger one, and ``random`` with the same seed
    is where every method starts. ``noise`` is N(0, 1) in normalised space.

    Differs from the authors' code: IDC takes the first images of each class in the data set's order.

    Args:
        origin: What is distilled.
        ipc: Images per class.
        init: ``noise`` or ``real``.
        distill_seed: The seed of the distilled set.
        classes: The data set's own label of each class position.

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
    positions = []
    for name, members in zip(classes, origin.by_class, strict=True):
        if len(members) < ipc:
            raise ValueError(
                f"distill: class {name} has {len(members)} images in the origin; got ipc {ipc}; expected at most "
                f"{len(members)}. Lower the ipc or start from noise."
            )
        order = torch.randperm(len(members), generator=seeds.generator("initial", distill_seed, name))
        positions.append(members.cpu()[order[:ipc]])
    chosen = torch.cat(positions)
    return origin.images[chosen.to(origin.images.device)], origin.indices.cpu()[chosen]


def distilled_set(images: Tensor, indices: Tensor, config: DistillConfig, **facts: Any) -> DistilledSet:
    """The payload of finished images, back in pixel space and not clamped.

    Args:
        images: (K * ipc, C, H, W) normalised, class-major, on any device.
        indices: (K * ipc,) int64 canonical index of the image each row started from, -1 if none.
        config: What was asked for.
        facts: Further facts; ``init`` and ``iterations`` at least.
    """
    dataset, classes = config.dataset, config.origin.classes
    common = {
        "space": "pixel01", "mean": list(dataset.mean), "std": list(dataset.std), "zca": False, "factor": 1,
        "label_kind": "hard", "method": config.method, "ipc": config.ipc, "classes": list(classes),
    }  # fmt: skip
    pixels = denormalise(images, dataset.mean, dataset.std).cpu()
    return DistilledSet(pixels, class_major_labels(len(classes), config.ipc), indices.cpu(), {**common, **facts})
