"""Where a distilled set starts, noise or real images, the same for every method; and the payload it ends as."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables import seeds
from trainables.configs import DistillConfig, Init
from trainables.data.origins import Origin
from trainables.data.pixels import denormalise
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
    for name, members in zip(classes, origin.by_class, strict=True):
        if len(members) < ipc:
            raise ValueError(
                f"distill: class {name} has {len(members)} images in the origin; got ipc {ipc}; expected at most "
                f"{len(members)}. Lower the ipc or start from noise."
            )
    chosen = torch.cat(_first(origin, ipc, distill_seed, classes))
    return origin.images[chosen.to(origin.images.device)], origin.indices.cpu()[chosen]


def tiled_images(
    origin: Origin, ipc: int, factor: int, distill_seed: int, classes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Starting images that each hold factor x factor shrunken real ones (IDC's ``mix``).

    The first ``ipc * factor^2`` images of the permutation that ``initial_images`` takes ``ipc`` of, shrunken by nearest
    interpolation; tile k (row by row) of image j of a class is number ``k * ipc + j`` of them. Where factor does not
    divide the side, tiles are rounded up and the last ones cut off at the border.

    Args:
        origin: What is distilled.
        ipc: Stored images per class.
        factor: Tiles along each side.
        distill_seed: The seed of the distilled set.
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


def _first(origin: Origin, count: int, distill_seed: int, classes: tuple[int, ...]) -> list[Tensor]:
    """Of each class, the positions of the first ``count`` images of its permutation."""
    found = []
    for name, members in zip(classes, origin.by_class, strict=True):
        order = torch.randperm(len(members), generator=seeds.generator("initial", distill_seed, name))
        found.append(members.cpu()[order[:count]])
    return found


def distilled_set(
    images: Tensor, indices: Tensor, config: DistillConfig, *, in_pixels: bool = False, **facts: Any
) -> DistilledSet:
    """The payload of finished images, back in pixel space and not clamped.

    Args:
        images: (K * ipc, C, H, W) normalised, class-major, on any device.
        indices: (K * ipc,) int64 canonical index of the image each row started from, -1 if none; (K * ipc, tiles) where
            a row started from several.
        config: What was asked for.
        in_pixels: The images are in pixel space already.
        facts: Further facts; ``init`` and ``iterations`` at least.
    """
    dataset, classes = config.dataset, config.origin.classes
    common = {
        "space": "pixel01",
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "zca": False,
        "factor": 1,
        "label_kind": "hard",
        "method": config.method,
        "ipc": config.ipc,
        "classes": list(classes),
    }
    pixels = images if in_pixels else denormalise(images, dataset.mean, dataset.std)
    return DistilledSet(pixels.cpu(), class_major_labels(len(classes), config.ipc), indices.cpu(), {**common, **facts})
