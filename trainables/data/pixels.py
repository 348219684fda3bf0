"""What networks see of stored images: normalised or whitened, and several of one (IDC's multi-formation).

N images (N, C, H, W) float32, pixels in [0, 1] before normalising.

ZCA whitening is MTT's (Kornia's ``ZCAWhitening``, eps 0.1; MTT utils.py; methods.md section 1.2). Of pixels x,
flattened to D = C * H * W numbers, with mean m and covariance U L U^T over the origin:

    y = U (L + eps)^(-1/2) U^T (x - m)

Origins hold normalised images, so whitening takes those with their constants and undoes them first.

Multi-formation is IDC's (Kim et al., ICML 2022, section 4; condense.py): a stored image is cut into f x f patches, row
by row, and each is enlarged to the image's own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 0.1
"""Added to every eigenvalue of a whitening: directions with less variance than this are hardly amplified."""
FILL = 0.5
"""What sides that the factor f does not divide are filled up with, on the right and at the bottom, in [0, 1]."""
_CHUNK = 2048
"""Images that are whitened at once."""
_USUAL = (-4.0, 5.0)
"""Learned images leave [0, 1]; nearly all their numbers stay in here. Bytes, counts and percent do not."""
_LARGEST = 20.0
"""Of the few numbers outside ``_USUAL``."""
_RAN_AWAY = 1000.0


def normalise(images01: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std per channel; differentiable, a new tensor on the same device.

    Args:
        images01: (N, C, H, W), scaled to [0, 1].
        mean: (C,) per channel, of images scaled to [0, 1].
        std: (C,) likewise.
    """
    return (images01 - _per_channel(mean, images01)) / _per_channel(std, images01)


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The inverse of ``normalise``. Values outside [0, 1] stay: distilled images have such, and nothing clips here."""
    return images * _per_channel(std, images) + _per_channel(mean, images)


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    assert images.ndim == 4, f"(N, C, H, W), got {tuple(images.shape)}"
    assert images.shape[1] == len(values), f"{len(values)} constants for {tuple(images.shape)}"
    return torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)


def pixel_problem(images: Tensor) -> str | None:
    """Why images can hardly be in pixel space, with their range; None where they can.

    Numbers that are not finite, of another scale, all the same, or the same image again and again. Distilled images
    may leave [0, 1].

    Args:
        images: (N, C, H, W), of any origin.
    """
    if not bool(torch.isfinite(images).all()):
        return f"{int((~torch.isfinite(images)).sum())} of {images.numel()} numbers that are not finite"
    if (values := far_range(images)) is not None:
        return values
    low, high = float(images.min()), float(images.max())
    values = f"values from {low:.3g} to {high:.3g}"
    if high - low < 0.02:  # a picture that was divided by 255 twice has less
        return f"{values}, which is one colour"
    if len(images) > 1 and bool((images == images[0]).all()):
        return f"{values} and {len(images)} times the same image"
    return None


def ran_away(images: Tensor) -> str | None:
    """The range of learned images that are images no more; None where they may be.

    Far beyond what a set reaches on its way to something good, so that no distillation is lost to a rule of thumb.

    Args:
        images: (N, C, H, W), finite.
    """
    low, high = float(images.min()), float(images.max())
    return f"values from {low:.3g} to {high:.3g}" if max(-low, high) > _RAN_AWAY else None


def far_range(images: Tensor) -> str | None:
    """The range of images whose numbers are of another scale than those in pixel space; None where they are not.

    Sets learned with published settings reach about -3 to 4.

    Args:
        images: (N, C, H, W), finite.
    """
    low, high = float(images.min()), float(images.max())
    outside = float(((images < _USUAL[0]) | (images > _USUAL[1])).float().mean())
    return f"values from {low:.3g} to {high:.3g}" if outside > 0.01 or max(-low, high) > _LARGEST else None


def looks_normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether images that should be in pixel space are about 0 on average, as normalised ones are.

    Learned images may reach as far, but around the mean of the data.

    Args:
        images: (N, C, H, W).
        mean: (C,) of the data set's images, in [0, 1].
        std: (C,) likewise.
    """
    share, contrast = _beside(images, mean, std)
    return share < 0.5 and contrast > 1.5 and float((images < 0).float().mean()) > 0.25


def looks_like_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether images that should be normalised are about as bright and as high in contrast as those in pixel space.

    Args:
        images: (N, C, H, W).
        mean: (C,) with which they should be normalised.
        std: (C,) likewise.
    """
    if min(mean) <= 0:  # then the two are the same, or nearly
        return False
    share, contrast = _beside(images, mean, std)
    return float(images.min()) >= 0 or (share > 0.5 and contrast < 1.5)


def _beside(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation of images in units of constants of images in pixel space: 0 and 1 / std for normalised ones,
    1 and 1 for others."""
    usual = torch.tensor(mean, dtype=torch.float64)
    found = images.double().mean((0, 2, 3)).cpu()
    deviation = images.double().std((0, 2, 3)).mean()
    return float(found @ usual / (usual @ usual)), float(deviation) * len(std) / sum(std)


@dataclass(frozen=True)
class Whitening:
    """One fitted transform. The matrix is symmetric and well conditioned, so it alone is kept and inverted on demand:
    36 MiB for images of 32 pixels in colour."""

    mean: Tensor
    """(D,) float32 on the CPU: m."""
    matrix: Tensor
    """(D, D) float32 on the CPU: U (L + eps)^(-1/2) U^T."""

    def whiten(self, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Whitened images: a new tensor on the same device.

        Args:
            images: (N, C, H, W) normalised.
            mean: (C,) with which they were normalised.
            std: (C,) likewise.
        """
        centre, matrix = self.mean.to(images.device), self.matrix.to(images.device)
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        for start in range(0, len(images), _CHUNK):
            part = denormalise(images[start : start + _CHUNK], mean, std).flatten(1)
            out[start : start + _CHUNK] = ((part - centre) @ matrix).view(len(part), *images.shape[1:])
        return out

    def pixels(self, images: Tensor) -> Tensor:
        """The inverse: images (N, C, H, W) float32 in pixel space, [0, 1] for real ones, not clamped, on the CPU."""
        whitened = images.detach().cpu().flatten(1).double()
        flat: Tensor = torch.linalg.solve(self.matrix.double(), whitened.T).T + self.mean
        return flat.float().reshape(images.shape)


def fit_whitening(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Whitening:
    """The whitening of an origin, from its covariance in float64 (divided by N - 1).

    Takes 2 N D^2 + 10 D^3 operations and four matrices of D^2 float64 numbers: 300 MiB at D = 3072.

    Args:
        images: (N, C, H, W) normalised, N >= 2.
        mean: (C,) with which they were normalised.
        std: (C,) likewise.
    """
    assert len(images) >= 2, f"a covariance needs two images, got {len(images)}"
    size = images[0].numel()
    total = torch.zeros(size, dtype=torch.float64, device=images.device)
    products = torch.zeros(size, size, dtype=torch.float64, device=images.device)
    for start in range(0, len(images), _CHUNK):
        part = denormalise(images[start : start + _CHUNK].double(), mean, std).flatten(1)
        total += part.sum(0)
        products.addmm_(part.T, part)
    centre = total / len(images)
    covariance = products.sub_(torch.outer(total, centre)).div_(len(images) - 1)
    values, vectors = torch.linalg.eigh(covariance)
    matrix = (vectors * (values.clamp(min=0) + EPS).rsqrt()) @ vectors.T
    return Whitening(centre.float().cpu(), matrix.float().cpu())


def decode(images: Tensor, factor: int, num_classes: int = 1) -> Tensor:
    """The training images that stored images hold.

    Differs from the authors' code: the bilinear enlargement (corners not aligned) is two products with the matrix of
    its weights, whose gradient is the same on every run, on a GPU too.

    Args:
        images: (N, C, H, W) in [0, 1] units, class-major where classes are told apart.
        factor: f; 1 gives the images back.
        num_classes: K, equally many images each. The order is class, then patch, then image of the class; so with one
            class (the authors' order) the first N results are the first patch of every image.

    Returns:
        (N * f^2, C, H, W); differentiable.
    """
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    images = F.pad(images, [0, -width % factor, 0, -height % factor], value=FILL)
    rows, columns = images.shape[2] // factor, images.shape[3] // factor
    # class, image, channel, patch row, row, patch column, column -> class, patch row, patch column, image, ...
    cut = images.reshape(num_classes, count // num_classes, channels, factor, rows, factor, columns)
    patches = cut.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, channels, rows, columns)
    downwards, across = (_enlargement(*sizes).to(images) for sizes in ((rows, height), (columns, width)))
    return downwards @ patches @ across.T


def decode_labels(labels: Tensor, factor: int) -> Tensor:
    """The labels (N * f^2, ...) of ``decode(images, factor)`` from those of the images: (N,) classes or (N, K) rows."""
    return labels.repeat(factor**2, *[1] * (labels.ndim - 1))


@cache
def _enlargement(small: int, large: int) -> Tensor:
    """(large, small): the share of each old pixel in each new one, of bilinear interpolation along one side."""
    pixels = torch.eye(small, dtype=torch.float64)[None]
    return F.interpolate(pixels, size=large, mode="linear", align_corners=False)[0].T.contiguous()
