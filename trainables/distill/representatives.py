"""Real images that stand for their class: those nearest to the centres of clusters (DREAM; Liu et al., ICCV 2023).

M images of a class, F numbers in an embedding, k clusters. Everything stays on the device and takes a fixed number of
rounds, so that a card is not waited for: the coreset ``kmeans`` clusters once, with scikit-learn on the CPU, this every
few steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data.origins import Origin
from trainables.device import laid_out
from trainables.distill.matching import SIZES
from trainables.models.network import Network

ROUNDS = 10
"""Of Lloyd's algorithm. What is wanted are images from all over the class, not the best clustering."""
TIED = 1e-4
"""Relative difference of distances up to which two points are equally near."""


@torch.no_grad()
def representatives(origin: Origin, network: Network, count: int, generator: torch.Generator) -> list[Tensor]:
    """For each class, the positions in the origin of the images that are nearest to the centres of its clusters.

    Two centres may have the same nearest image, which then stands there twice, as in the authors' program.

    Args:
        network: In evaluation mode; clusters are of its embeddings, of images without augmentation.
        count: k; a class with fewer images gives all of them.
        generator: Of the images that clustering starts from.
    """
    together = SIZES[origin.images.device.type].group
    found = []
    for members in origin.by_class:
        start = torch.randperm(len(members), generator=generator)[:count].to(members.device)
        if len(members) <= count:
            found.append(members)
            continue
        members = members.to(origin.images.device)
        parts = [network.embed(laid_out(origin.images[rows])) for rows in torch.split(members, together)]
        points = torch.cat(parts)
        found.append(members[nearest(points, cluster_centres(points, points[start]))])
    return found


def cluster_centres(points: Tensor, centres: Tensor) -> Tensor:
    """Centres (k, F) after ``ROUNDS`` rounds of Lloyd's algorithm; one whose cluster is empty stays.

    Args:
        points: (M, F).
        centres: (k, F), where they begin.
    """
    numbers = torch.arange(len(centres), device=points.device)
    for _ in range(ROUNDS):
        owner = torch.cdist(points, centres).argmin(1)
        belongs = (owner[None] == numbers[:, None]).to(points.dtype)
        counts = belongs.sum(1, keepdim=True)
        centres = torch.where(counts > 0, belongs @ points / counts.clamp(min=1), centres)
    return centres


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """For each of k centres (k, F) the row (k,) of the nearest point; of equally near ones the first.

    A cluster of two has its centre between them: without a tolerance rounding would choose, on every device another.
    """
    # Not by products of matrices, which lose what distinguishes close points far from 0.
    distances = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
    return (distances <= distances.amin(1, keepdim=True) * (1 + TIED)).int().argmax(1)
