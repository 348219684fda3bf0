"""The DSA augmentation (Zhao & Bilen, ICML 2021; methods.md section 2), IDC's variant of it (Kim et al., ICML 2022),
and the crops and flips that networks are usually trained with.

Everything acts on normalised images (N, C, H, W); the fill value 0 is the data set's mean colour. A ``Params`` is drawn
on the CPU from an explicit generator and then applied to any number of batches: the two calls of a Siamese
augmentation are two ``apply`` with one ``Params``.

Draws, one row for one image or for all that share it. G is 1 (shared by the batch) or N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.configs import OPERATIONS, Operation, parse_operations

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP_SHARE, CUTOUT_SHARE = 0.125, 0.5
SCALE_RATIO, ROTATE_DEGREES = 1.2, 15.0
"""Constants of all three code bases (DC, MTT, IDC)."""
SIDES = 4 / 3
"""Largest ratio of the sides of a resized crop, and of their inverse (torchvision's)."""

_COLUMNS = (
    "brightness",
    "saturation",
    "contrast",
    "crop_h",
    "crop_w",
    "cutout_h",
    "cutout_w",
    "flip",
    "scale_x",
    "scale_y",
    "rotate",
)


Applied = Operation | Literal["resized_crop"]
"""What can be done to an image; the last is no part of DSA."""


@dataclass(frozen=True)
class Strategy:
    """Which operations there are, and which of them one augmentation applies."""

    always: tuple[Applied, ...] = ()
    """Applied every time, before the choice."""
    choice: tuple[Operation, ...] = ()
    """One of these is applied, each with the same probability."""
    finally_: tuple[Operation, ...] = ()
    """Applied every time, after the choice."""
    crop_area: float = 1.0
    """Smallest share of an image that ``resized_crop`` shows."""

    @property
    def order(self) -> tuple[Applied, ...]:
        return self.always + self.choice + self.finally_


@dataclass(frozen=True)
class Params:
    """What happens to each image. G rows: one for every image of any batch (G = 1), or one per image."""

    order: tuple[Applied, ...]
    active: Tensor
    """(G, len(order)) bool on the CPU: the operations applied, in that order."""
    draws: Tensor
    """(G, 11) float32 on the CPU: uniform numbers in [0, 1); where there is ``resized_crop``, ``scale_x`` is the share
    of the image that it shows."""

    def __len__(self) -> int:
        return len(self.draws)

    def repeat(self, counts: Sequence[int]) -> Params:
        """Row g for ``counts[g]`` consecutive images: one augmentation per class of a class-major batch."""
        times = torch.tensor(counts)
        return Params(self.order, self.active.repeat_interleave(times, 0), self.draws.repeat_interleave(times, 0))

    def take(self, rows: Tensor) -> Params:
        """The rows with these numbers (int64 on the CPU), in this order."""
        return Params(self.order, self.active[rows], self.draws[rows])

    def rows(self, start: int, stop: int) -> Params:
        """Rows ``start`` to ``stop``, without the latter."""
        return Params(self.order, self.active[start:stop], self.draws[start:stop])


DSA_OPERATIONS = OPERATIONS


def strategy_for(flip: bool, mode: Literal["S", "M"] = "S") -> Strategy:
    """The default DSA strategy ``color_crop_cutout_flip_scale_rotate``.

    Args:
        flip: False for digits, whose mirror images are not digits (the authors drop the flip by hand).
        mode: ``S`` applies one operation chosen at random (what the authors use), ``M`` all in list order.
    """
    operations = tuple(name for name in DSA_OPERATIONS if flip or name != "flip")
    return Strategy(choice=operations) if mode == "S" else Strategy(always=operations)


def idc_strategy(operations: str, flip: bool) -> Strategy:
    """IDC's order of some operations: flip, color, one of crop, scale and rotate, cutout (methods.md section 2.2).

    Args:
        operations: Their names joined by underscores, in any order: ``color_crop_cutout``.
        flip: False drops the flip, as for digits.

    Raises:
        ValueError: A name is unknown or stands there twice.
    """
    named = parse_operations(operations)
    first, choice, last = (
        tuple(name for name in names if name in named and (flip or name != "flip")) for names in _IDC_ORDER
    )
    return Strategy(always=first, choice=choice, finally_=last)


_IDC_ORDER: tuple[tuple[Operation, ...], ...] = (("flip", "color"), ("crop", "scale", "rotate"), ("cutout",))


def idc_training_strategy(flip: bool) -> Strategy:
    """IDC's augmentation of evaluation: flip, color, one of crop, scale, rotate; no cutout, which CutMix replaces."""
    return idc_strategy("flip_color_crop_scale_rotate", flip)


def crop_and_flip(flip: bool) -> Strategy:
    """Shifted by up to an eighth of the side, and mirrored in half of the cases.

    Args:
        flip: False drops the mirror, as for digits.
    """
    return Strategy(always=("crop", "flip") if flip else ("crop",))


def resized_crop_and_flip(flip: bool, area: float) -> Strategy:
    """A part of the image of at least this share of its area, brought back to its size, and mirrored in half of the
    cases (``flip``)."""
    return Strategy(always=("resized_crop", "flip") if flip else ("resized_crop",), crop_area=area)


def sample(strategy: Strategy, batch: int, *, shared: bool, generator: torch.Generator) -> Params:
    """Draw one augmentation for a batch.

    As in the authors' code the chosen operation is the same for the whole batch; its parameters are one set
    (``shared``, the Siamese augmentation of distillation) or one per image (training a network).

    Args:
        batch: Images; ignored when ``shared``.
        shared: One parameter set for every image of every batch it is applied to.
        generator: A CPU generator; the numbers do not depend on the device of the images.
    """
    rows = 1 if shared else batch
    active = _active(strategy, 1, generator).expand(rows, -1)
    draws = torch.rand(rows, len(_COLUMNS), generator=generator)
    if "resized_crop" in strategy.always:
        draws[:, 8] = strategy.crop_area + (1 - strategy.crop_area) * draws[:, 8]
    return Params(strategy.order, active, draws)


def sample_each(strategy: Strategy, rows: int, *, generator: torch.Generator) -> Params:
    """Draw ``rows`` independent augmentations, each with its own choice of operation: one per class of a step."""
    active = _active(strategy, rows, generator)
    return Params(strategy.order, active, torch.rand(rows, len(_COLUMNS), generator=generator))


def _active(strategy: Strategy, rows: int, generator: torch.Generator) -> Tensor:
    active = torch.ones(rows, len(strategy.order), dtype=torch.bool)
    if strategy.choice:
        chosen = torch.randint(len(strategy.choice), (rows, 1), generator=generator)
        first = len(strategy.always)
        active[:, first : first + len(strategy.choice)] = torch.arange(len(strategy.choice)) == chosen
    return active


def apply(images: Tensor, params: Params) -> Tensor:
    """The augmented images (N, C, H, W): differentiable, and without a loop over images.

    Differs from the authors' code: draws come from an explicit generator instead of a clock; images are never
    edited in place. Grids do not align corners and MTT's do, which comes to the same: the maps keep the centre of a
    square image where it is.

    Args:
        images: Normalised images (N, C, H, W) on any device.
        params: One row, or N rows.
    """
    assert len(params) in (1, len(images)), (len(params), tuple(images.shape))
    # What to do is decided on NumPy's side: on a GPU every small operation on a tensor costs as much as a large one.
    active, draws = params.active.numpy(), params.draws.numpy()
    for name, chosen in zip(params.order, active.T, strict=True):
        rows = np.flatnonzero(chosen)
        if len(rows) == len(params):
            images = _OPERATIONS[name](images, params.draws)
        elif len(rows):
            at = torch.from_numpy(rows).to(images.device)
            some = _OPERATIONS[name](images.index_select(0, at), torch.from_numpy(draws[rows]))
            images = images.index_copy(0, at, some)
    return images


# The operations themselves, each with explicit draws.


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """x + (u - 1/2), in normalised units. ``u`` (G,) in [0, 1)."""
    return images + (_column(u, images) - 0.5) * BRIGHTNESS


def saturation(images: Tensor, u: Tensor) -> Tensor:
    """Distance from each pixel's grey value times 2u. ``u`` (G,) in [0, 1)."""
    grey = images.mean(dim=1, keepdim=True)
    return torch.lerp(grey, images, _column(u, images) * SATURATION)


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """Distance from each image's mean times (u + 1/2). ``u`` (G,) in [0, 1)."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _column(u, images) + CONTRAST)


def crop(images: Tensor, shifts: Tensor) -> Tensor:
    """out[h, w] = x[h + shift_h, w + shift_w], 0 outside.

    Args:
        images: (N, C, H, W).
        shifts: (G, 2) integers on the CPU: rows, columns, each in [-s, s] with s of ``crop_reach``.
    """
    height, width = images.shape[2:]
    if len(shifts) == 1:
        down, right = shifts[0].tolist()
        return F.pad(images, [-right, right, -down, down])
    reach = int(np.abs(shifts.numpy()).max())
    padded = F.pad(images, [reach] * 4)
    shifts = shifts.to(images.device)
    rows = torch.arange(height, device=images.device) + shifts[:, :1] + reach
    columns = torch.arange(width, device=images.device) + shifts[:, 1:] + reach
    padded = padded.gather(2, rows[:, None, :, None].expand(-1, images.shape[1], -1, padded.shape[3]))
    return padded.gather(3, columns[:, None, None, :].expand(-1, images.shape[1], height, -1))


def cutout(images: Tensor, centres: Tensor) -> Tensor:
    """A square of half the image's side set to 0, cut off at the borders.

    Args:
        images: (N, C, H, W).
        centres: (G, 2) integers: row, column of the centre.
    """
    height, width = images.shape[2:]
    side = cutout_side(height)
    first = (centres - side // 2).to(images.device)
    rows = torch.arange(height, device=images.device) - first[:, :1]
    columns = torch.arange(width, device=images.device) - first[:, 1:]
    inside = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
    return images.masked_fill(inside, 0.0)


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Mirrored left to right where u < 1/2. ``u`` (G,) in [0, 1)."""
    if len(u) == 1:
        return images.flip(3) if float(u) < 0.5 else images
    return torch.where(_column(u, images) < 0.5, images.flip(3), images)


def scale(images: Tensor, u: Tensor) -> Tensor:
    """Sampled at (s_x x, s_y y), s = u (1.2 - 1/1.2) + 1/1.2: s > 1 shrinks the content. ``u`` (G, 2), width first."""
    factors = u * (SCALE_RATIO - 1 / SCALE_RATIO) + 1 / SCALE_RATIO
    return _sample_affine(images, torch.diag_embed(factors))


def rotate(images: Tensor, u: Tensor) -> Tensor:
    """Turned by (2u - 1) * 15 degrees. ``u`` (G,) in [0, 1)."""
    angle = (2 * u - 1) * math.radians(ROTATE_DEGREES)
    cos, sin = angle.cos(), angle.sin()
    return _sample_affine(images, torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2))


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """The part of each image in its box, brought to the image's size: bilinear, without a look beyond the box.

    Args:
        images: (N, C, H, W).
        boxes: (G, 4) integers on the CPU: top, left, height, width, within the image.
    """
    sides = images.shape[2:]
    if bool((boxes == torch.tensor([0, 0, *sides])).all()):
        return images
    places = []
    for axis in (1, 0):  # x before y
        first, length = boxes[:, axis, None].float(), boxes[:, axis + 2, None].float()
        steps = (torch.arange(sides[axis]) + 0.5) / sides[axis]
        at = (first + steps * length - 0.5).clamp(first, first + length - 1)
        places.append((2 * at + 1) / sides[axis] - 1)
    across, down = (place.to(device=images.device, dtype=images.dtype) for place in places)
    shape = len(boxes), *sides
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), padding_mode="border", align_corners=False)


def crop_boxes(area: Tensor, u: Tensor, places: Tensor, height: int, width: int, *, sides: float = SIDES) -> Tensor:
    """Boxes of resized crops (G, 4): top, left, height, width.

    Differs from torchvision's ``RandomResizedCrop``: the ratio of the sides is drawn among those that fit, where theirs
    draws share and ratio again, and so has fewer large crops.

    Args:
        area: (G,) share of the image, in (0, 1].
        u: (G,) in [0, 1): of the ratio width / height, uniform in its logarithm.
        places: (G, 2) in [0, 1): top, left.
        height: Of the image, as ``width``.
        sides: Largest ratio, at least 1, and its inverse the smallest; 1: squares.
    """
    reach = torch.minimum(torch.full_like(area, math.log(sides)), -area.log())
    ratio = ((2 * u - 1) * reach).exp()
    tall = (height * (area / ratio).sqrt()).round().clamp(1, height)
    wide = (width * (area * ratio).sqrt()).round().clamp(1, width)
    top, left = (places[:, 0] * (height - tall + 1)).floor(), (places[:, 1] * (width - wide + 1)).floor()
    return torch.stack([top, left, tall, wide], dim=1).long()


def crop_reach(size: int) -> int:
    """Largest shift of ``crop``, pixels."""
    return math.floor(CROP_SHARE * size + 0.5)


def cutout_side(size: int) -> int:
    """Side of the square of ``cutout``, pixels."""
    return math.floor(CUTOUT_SHARE * size + 0.5)


def _column(u: Tensor, images: Tensor) -> Tensor:
    return u.to(device=images.device, dtype=images.dtype).reshape(-1, 1, 1, 1)


def _sample_affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Bilinear sampling at ``matrices`` (G, 2, 2) times the coordinates, zeros outside, corners not aligned."""
    matrices = matrices.to(device=images.device, dtype=images.dtype)
    theta = F.pad(matrices, [0, 1])
    grid = F.affine_grid(theta, [len(matrices), *images.shape[1:]], align_corners=False)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), padding_mode="zeros", align_corners=False)


def _integers(draws: Tensor, first: int, count: int) -> Tensor:
    """Uniform integers in [first, first + count) from uniform numbers in [0, 1)."""
    return (draws * count).floor().clamp(max=count - 1).long() + first


def _color(images: Tensor, draws: Tensor) -> Tensor:
    return contrast(saturation(brightness(images, draws[:, 0]), draws[:, 1]), draws[:, 2])


def _crop(images: Tensor, draws: Tensor) -> Tensor:
    reach = crop_reach(images.shape[2])
    return crop(images, _integers(draws[:, 3:5], -reach, 2 * reach + 1))


def _cutout(images: Tensor, draws: Tensor) -> Tensor:
    size = images.shape[2]
    # The centre may lie one past the border when the side is even (all three code bases).
    return cutout(images, _integers(draws[:, 5:7], 0, size + (cutout_side(size) % 2 == 0)))


def _resized_crop(images: Tensor, draws: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return resized_crop(images, crop_boxes(draws[:, 8], draws[:, 9], draws[:, 3:5], height, width))


_OPERATIONS: dict[Applied, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": lambda images, draws: flip(images, draws[:, 7]),
    "scale": lambda images, draws: scale(images, draws[:, 8:10]),
    "rotate": lambda images, draws: rotate(images, draws[:, 10]),
    "resized_crop": _resized_crop,
}


def cutmix(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """CutMix (Yun et al., ICCV 2019) as IDC uses it: a box of each image comes from another image of the batch.

    The box has sides H sqrt(1 - lambda), W sqrt(1 - lambda) around a uniform centre, clipped, with lambda uniform
    (Beta(1, 1)); one box for the batch.

    Args:
        images: (N, C, H, W).
        labels: (N,) int64.
        generator: A CPU generator.

    Returns:
        The mixed images, the partners' labels (N,), and the share r of the area that was not replaced: the loss is
        r * loss(labels) + (1 - r) * loss(partners).
    """
    height, width = images.shape[2:]
    draws = torch.rand(3, generator=generator, dtype=torch.float64)
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    side = math.sqrt(1.0 - float(draws[0]))
    top, bottom = _clipped(int(draws[1] * height), int(height * side), height)
    left, right = _clipped(int(draws[2] * width), int(width * side), width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    kept = 1.0 - (bottom - top) * (right - left) / (height * width)
    return mixed, labels[partner], kept


def mixup(images: Tensor, labels: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixup (Zhang et al., ICLR 2018): each image is drawn over another one of the batch, in one mixture for all.

    Args:
        images: (N, C, H, W).
        labels: (N,) int64, or rows (N, K).
        alpha: The share of the own image is drawn from Beta(alpha, alpha).
        generator: A CPU generator.

    Returns:
        As ``cutmix``; the share is that of the own image.
    """
    from scipy.special import betaincinv  # the rest of training does without SciPy

    kept = float(betaincinv(alpha, alpha, float(torch.rand(1, generator=generator, dtype=torch.float64))))
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    return torch.lerp(images[partner], images, kept), labels[partner], kept


def _clipped(centre: int, side: int, size: int) -> tuple[int, int]:
    return max(centre - side // 2, 0), min(centre + side // 2, size)
