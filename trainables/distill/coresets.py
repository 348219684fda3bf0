"""Coresets: sets of real images that are chosen instead of learned, at random, by herding or by clustering.

Legend: M images of a class, F features of each, n images per class to choose. Features are normalised pixels or the
embedding of one random ConvNet3; choices are made in double precision on the CPU, so that they do not hang on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables import seeds
from trainables.configs import NetworkConfig
from trainables.data.origins import Origin
from trainables.device import laid_out
from trainables.distill.context import DistillContext, initial_images
from trainables.distill.matching import SIZES
from trainables.methods import HerdingSettings, KMeansSettings, RandomSettings
from trainables.models.network import build
from trainables.networks import parse
from trainables.payloads import DistilledSet, load_tensors, save_tensors

Points = NDArray[np.float64]
"""Features (M, F)."""


def random(origin: Origin, settings: RandomSettings, context: DistillContext) -> DistilledSet:
    """``ipc`` images of each class, exactly those that a method with ``init: real`` and the same seed starts from.

    Raises:
        ValueError: A class has fewer than ``ipc`` images.
    """
    config = context.config
    images, indices = initial_images(origin, config.ipc, "real", config.distill_seed, config.origin.classes)
    return context.finish(images, indices, init="real", iterations=0)


def herding(origin: Origin, settings: HerdingSettings, context: DistillContext) -> DistilledSet:
    """Of each class the images whose running mean stays nearest to the class mean (Welling, ICML 2009).

    The greedy rule is that of iCaRL (Rebuffi et al., CVPR 2017), so a smaller set is the beginning of a larger one.
    Nothing is random.

    Differs from published baselines: those take the features of a network trained on the data, which would need a
    training; ours are pixels or a random network's.

    Raises:
        ValueError: A class has fewer than ``ipc`` images.
    """
    return _coreset(origin, settings.features, context, lambda points, position: herd(points, context.ipc))


def kmeans(origin: Origin, settings: KMeansSettings, context: DistillContext) -> DistilledSet:
    """Of each class, clustered into ``ipc`` clusters, the images nearest to the centres (scikit-learn's k-means++).

    One thread, because several add partial sums in the order in which they finish.

    Raises:
        ValueError: A class has fewer than ``ipc`` images.
    """
    config = context.config

    def choose(points: Points, position: int) -> list[int]:
        purpose = ("kmeans", config.distill_seed, config.origin.classes[position])
        starts = [seeds.derive(*purpose, start) % 2**32 for start in range(settings.restarts)]
        return nearest_distinct(points, cluster_centres(points, context.ipc, starts, context.poll))

    return _coreset(origin, settings.features, context, choose)


def herd(points: Points, count: int) -> list[int]:
    """The rows that herding chooses, in order: each brings the mean of those chosen nearest to the mean of all.

    Of rows that do equally well the first is taken.

    Args:
        points: (M, F).
    """
    mean = points.mean(axis=0)
    squares = np.einsum("mf,mf->m", points, points)
    total = np.zeros_like(mean)
    chosen: list[int] = []
    for number in range(1, count + 1):
        # |mean - (total + x) / number|^2 is, times number^2 and without what is the same for all x:
        distances = squares - 2 * (points @ (number * mean - total))
        distances[chosen] = np.inf
        best = int(distances.argmin())
        chosen.append(best)
        total += points[best]
    return chosen


def cluster_centres(points: Points, count: int, starts: Sequence[int], poll: Callable[[], object] = int) -> Points:
    """Centres (count, F) of k-means: of several starts, those with the smallest sum of squared distances.

    Args:
        points: (M, F), M at least ``count``.
        starts: One seed in [0, 2**32) per start of k-means++.
        poll: Called before each start, which takes seconds on thousands of images.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    single = points.astype(np.float32)  # what decides is the distance to the centre, below, in double precision
    best, centres = np.inf, np.empty((0, points.shape[1]))
    for seed in starts:
        poll()
        with threadpool_limits(limits=1):
            clustering = KMeans(n_clusters=count, n_init=1, random_state=seed, algorithm="lloyd").fit(single)
        if clustering.inertia_ < best:
            best, centres = float(clustering.inertia_), clustering.cluster_centers_.astype(np.float64)
    return centres


def nearest_distinct(points: Points, centres: Points) -> list[int]:
    """For each centre a row of its own: pairs of centre and row are taken from the nearest on.

    Args:
        points: (M, F), M at least the number of centres.
        centres: (n, F).
    """
    distances = np.stack([np.square(points - centre).sum(axis=1) for centre in centres])
    chosen = [-1] * len(centres)
    for _ in centres:
        centre, row = np.unravel_index(int(distances.argmin()), distances.shape)
        chosen[int(centre)] = int(row)
        distances[centre] = np.inf
        distances[:, row] = np.inf
    return chosen


def _coreset(
    origin: Origin,
    features: Literal["pixels", "network"],
    context: DistillContext,
    choose: Callable[[Points, int], list[int]],
) -> DistilledSet:
    """The images that ``choose`` takes from each class, class by class; a checkpoint holds the classes done.

    ``choose`` gets the features of a class and its position, and returns rows of them.
    """
    for name, members in zip(context.config.origin.classes, origin.by_class, strict=True):
        if len(members) < context.ipc:
            raise ValueError(
                f"distill: class {name} has {len(members)} images in the origin; got ipc {context.ipc}; expected at "
                f"most {len(members)}. Lower the ipc."
            )
    chosen = torch.empty(0, dtype=torch.int64)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        chosen = load_tensors(folder / "coreset.safetensors")["chosen"]

    def save(folder: Path) -> None:
        save_tensors(folder / "coreset.safetensors", {"chosen": chosen})

    embed = _embedding(features, context)
    for position in context.iterations(context.num_classes, start=done, save=save, unit="class"):
        members = origin.by_class[position].cpu()
        points = embed(origin.images[members.to(origin.images.device)])
        chosen = torch.cat([chosen, members[torch.tensor(choose(points, position))]])
    images = origin.images[chosen.to(origin.images.device)]
    return context.finish(images, origin.indices.cpu()[chosen], init="real", iterations=0)


def _embedding(features: Literal["pixels", "network"], context: DistillContext) -> Callable[[Tensor], Points]:
    """Images (M, C, H, W) -> features (M, F)."""
    if features == "pixels":
        return lambda images: images.flatten(1).cpu().numpy().astype(np.float64)
    dataset = context.config.dataset
    described = NetworkConfig.of(
        parse("convnet3"), image_size=dataset.image_size, channels=dataset.channels, num_classes=context.num_classes
    )
    network = build(described, "coreset", "network", device=context.device).requires_grad_(False)
    chunk = SIZES[torch.device(context.device).type].chunk

    @torch.no_grad()
    def embedded(images: Tensor) -> Points:
        parts = [network.embed(laid_out(part)) for part in torch.split(images, chunk)]
        return torch.cat(parts).cpu().numpy().astype(np.float64)

    return embedded
