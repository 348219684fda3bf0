"""ZCA whitening of images, as MTT uses it (Kornia's ``ZCAWhitening``, eps 0.1; MTT utils.py; methods.md section 1.2).

Of pixels x in [0, 1], flattened to D = C * H * W numbers, with mean m and covariance U L U^T over the origin:

    y = U (L + eps)^(-1/2) U^T (x - m)

Origins hold normalised images, so every function here takes those with their constants and undoes them first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.data.origins import denormalise

EPS = 0.1
"""Added to every eigenvalue: directions with less variance than this are hardly amplified."""
_CHUNK = 2048


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


def fit(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Whitening:
    """The transform of an origin, from its covariance in float64 (divided by N - 1).

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
