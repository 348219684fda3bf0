"""RDED: realistic, diverse and efficient dataset distillation (Sun et al., CVPR 2024; methods2.md 3.8): parts of real
images that a trained network finds easiest. Nothing is learned.

Of each class c, with theta a trained network (``experts.py``):

    take M random images, of each k random squares, brought to the side of a tile, and keep the square with the
    smallest cross-entropy of theta with c
    of those M squares take the n g^2 easiest, in their order, g^2 to an image of g x g tiles

K classes, n images of a class in the set (K n, C, H, W). What such sets are worth depends almost wholly on the labels
they are trained with, so random images with the same labels belong beside them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters

from trainables.data import augment
from trainables.data.origins import Origin
from trainables.distill.context import DistillContext
from trainables.methods import RDEDSettings
from trainables.payloads import DistilledSet, StoredExpert, load_tensors, save_tensors
from trainables.train import predict


def distill(origin: Origin, settings: RDEDSettings, context: DistillContext) -> DistilledSet:
    """Choose parts of the images of ``origin``.

    A checkpoint holds the classes that are done.

    Differs from the authors' code: images are kept as numbers, not as JPEG; the network that chooses has instance norm
    and is trained as NCFM trains its own, and need not be the one that labels; squares smaller than an image lie in
    its middle for that network, in the mean colour; random numbers are derived from (seed, class).

    Raises:
        ValueError: A class has fewer images than the set takes.
    """
    config = context.config
    needed = context.ipc * settings.tiles**2
    for name, members in zip(config.origin.classes, origin.by_class, strict=True):
        if len(members) < needed:
            raise ValueError(
                f"distill: class {name} has {len(members)} images in the origin; got ipc {context.ipc} of "
                f"{settings.tiles**2} tiles, each of an image of its own; expected at most "
                f"{len(members) // settings.tiles**2}. Lower the ipc, or tiles."
            )
    network = context.network(0).requires_grad_(False)
    expert = StoredExpert(context.inputs["expert.0"])
    vector_to_parameters(expert.snapshot(len(expert) - 1).to(context.device), network.parameters())
    candidates = max(settings.candidates, needed)
    side = -(-origin.images.shape[2] // settings.tiles)
    squares = torch.empty(0, *origin.images.shape[1:2], side, side)
    chosen = torch.empty(0, dtype=torch.int64)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / "rded.safetensors")
        squares, chosen = saved["squares"], saved["chosen"]

    def save(folder: Path) -> None:
        save_tensors(folder / "rded.safetensors", {"squares": squares, "chosen": chosen})

    for position in context.iterations(context.num_classes, start=done, save=save, unit="class"):
        members = origin.by_class[position].cpu()
        drawn = context.generator("candidates", config.origin.classes[position])
        looked_at = members[torch.randperm(len(members), generator=drawn)[:candidates].sort().values]
        parts = random_squares(origin.images[looked_at.to(origin.images.device)], settings, drawn)
        shown = in_the_middle(parts.flatten(0, 1), origin.images.shape[2])
        classes = torch.full((len(shown),), position, device=shown.device)
        losses = F.cross_entropy(predict(network, shown), classes, reduction="none")
        images, easiest = easiest_squares(losses.view(len(parts), -1).cpu(), needed)
        squares = torch.cat([squares, parts[images, easiest].cpu()])
        chosen = torch.cat([chosen, looked_at[images]])
    tiled = in_tiles(squares, settings.tiles)[:, :, : origin.images.shape[2], : origin.images.shape[3]]
    indices = origin.indices.cpu()[chosen]
    if settings.tiles > 1:
        indices = indices.view(-1, settings.tiles**2)
    return context.finish(tiled.contiguous(), indices, init="real", iterations=0)


def random_squares(images: Tensor, settings: RDEDSettings, generator: torch.Generator) -> Tensor:
    """Random squares of images (M, C, H, W), brought to the side s of a tile: (M, k, C, s, s).

    As torchvision's ``RandomResizedCrop`` with squares alone: the share of the area is uniform; smaller ones are
    enlarged, larger ones averaged.
    """
    height, width = images.shape[2:]
    side = -(-height // settings.tiles)
    draws = torch.rand(len(images), settings.crops, 3, generator=generator)
    area = settings.crop_area + (1 - settings.crop_area) * draws[..., 0]
    boxes = augment.crop_boxes(
        area.flatten(), torch.zeros(area.numel()), draws[..., 1:].flatten(0, 1), height, width, sides=1.0
    )
    parts = []
    for number, (top, left, tall, wide) in enumerate(boxes.tolist()):
        part = images[number // settings.crops, None, :, top : top + tall, left : left + wide]
        parts.append(F.interpolate(part, size=(side, side), mode="bilinear", antialias=True))
    return torch.cat(parts).view(len(images), settings.crops, images.shape[1], side, side)


def in_the_middle(squares: Tensor, size: int) -> Tensor:
    """Squares (N, C, s, s) in the middle of images (N, C, size, size) that are 0 elsewhere, the mean colour."""
    left = size - squares.shape[3]
    return F.pad(squares, [left // 2, left - left // 2] * 2)


def easiest_squares(losses: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The images whose easiest square is among the ``count`` easiest, and which of their squares that is, from the
    easiest on; of equal ones the first.

    Args:
        losses: (M, k), of the squares of each image.
    """
    own = losses.argmin(1)
    images = losses.gather(1, own[:, None]).squeeze(1).argsort(stable=True)[:count]
    return images, own[images]


def in_tiles(squares: Tensor, tiles: int) -> Tensor:
    """Squares (n g^2, C, s, s), g^2 after one another to an image, row by row: (n, C, g s, g s)."""
    grid = squares.view(-1, tiles, tiles, *squares.shape[1:]).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(len(grid), squares.shape[1], tiles * squares.shape[2], tiles * squares.shape[3])
