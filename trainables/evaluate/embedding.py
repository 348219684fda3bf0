"""Where a distilled set lies among real images: features of one encoder, numbers about them, and one joint t-SNE.

N decoded distilled images, M real ones, D features, K classes; labels are positions in the origin's list of classes.
Distances are Euclidean, in float64.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from trainables import seeds
from trainables.configs import DatasetConfig, EmbeddingConfig, OriginConfig, TsneConfig
from trainables.context import Context
from trainables.data.cache import open_split
from trainables.data.origins import load_origin
from trainables.data.pixels import decode, decode_labels, denormalise, normalise
from trainables.device import laid_out
from trainables.evaluate.intervals import Row, wilson
from trainables.models.network import build
from trainables.payloads import DistilledSet, Embedding, TrainedModel, TsneMap

MMD_POINTS = 2000
"""Points of either side of one class that the kernel matrix holds at most: 128 MB, and 6 GFLOP for the null."""
MMD_PERMUTATIONS = 200
PCA_COMPONENTS = 50
"""What t-SNE sees of the features: noise goes, and neighbours are found faster (van der Maaten & Hinton 2008, 4.2)."""
MAX_ITERATIONS = 1000
TRUST_POINTS = 4000
"""Points that trustworthiness is measured on at most; it needs all distances between them."""
TRUST_NEIGHBOURS = 10
_IMAGES = {"cpu": 64, "cuda": 1024}
_BLOCK = 2048
_ROUNDING = 1e-5
"""Of a squared distance between features of float32, which two batches or processors need not give alike."""


class Real(NamedTuple):
    """Real images in feature space, equally many of each class."""

    features: Tensor
    """(M, D) float32 on the CPU."""
    labels: Tensor
    """(M,) int64."""
    ids: Tensor
    """(M,) int64: canonical indices in the train split."""


def embed(config: EmbeddingConfig, encoder: TrainedModel, distilled: DistilledSet, context: Context) -> Embedding:
    """Features of a set's decoded images in the encoder's last feature map, and where they lie among real images.

    Args:
        config: Data, classes, real images per class, neighbours.
        encoder: Its own constants (and whitening) prepare the images, whatever the set was made with.
        distilled: In pixel space.
        context: Device and progress.

    Raises:
        ValueError: The encoder tells other classes or other images apart, or the set has classes that are not there.
    """
    assert distilled.info["space"] == "pixel01", distilled.info
    factor = int(distilled.info["factor"])
    _check(encoder, config.dataset, config.classes, distilled)
    real = embed_real(config.dataset, config.classes, config.real_per_class, encoder, context)
    features = encode(encoder, decode(distilled.images, factor), context)
    labels = decode_labels(distilled.labels.classes, factor)
    rows = embedding_rows(
        features, labels, real, len(config.classes), config.neighbours, started_from=_started_from(distilled, factor)
    )
    return Embedding(features, labels, rows)


def embed_real(
    dataset: DatasetConfig, classes: tuple[int, ...], per_class: int, encoder: TrainedModel, context: Context
) -> Real:
    """Real training images: the beginning of draw 0 of each class, fewer where the smallest class holds fewer."""
    labels = open_split(dataset, "train", context.data, context.cache).labels
    each = min(per_class, *(int((labels == label).sum()) for label in classes))
    origin = OriginConfig(kind="draw", per_class=each, draw=0, classes=classes)
    drawn = load_origin(dataset, origin, context.data, context.cache, context.device)
    features = encode(encoder, denormalise(drawn.images, dataset.mean, dataset.std), context)
    return Real(features, drawn.labels.cpu(), drawn.indices)


@torch.no_grad()
def encode(encoder: TrainedModel, images01: Tensor, context: Context) -> Tensor:
    """The last feature map, flattened, (N, D) float32 on the CPU: 2048 numbers for ConvNet3 and images of 32 pixels.

    Args:
        encoder: Network, constants, whitening.
        images01: (N, C, H, W) in pixel space.
        context: Device, and somebody to give way to.
    """
    network = build(encoder.network, "embedding", device=context.device)
    network.load_state_dict(encoder.state)
    network.eval()
    features = []
    for part in torch.split(images01, _IMAGES[context.device]):
        context.poll()
        images = normalise(part.to(context.device), encoder.mean, encoder.std)
        if encoder.whitening is not None:
            images = encoder.whitening.whiten(images, encoder.mean, encoder.std)
        features.append(network.embed(laid_out(images)).float().cpu())
    return torch.cat(features)


def embedding_rows(
    features: Tensor,
    labels: Tensor,
    real: Real,
    num_classes: int,
    neighbours: int,
    *,
    started_from: Tensor | None = None,
) -> list[Row]:
    """Numbers for the picture.

    * ``embed_outlier_rate``: share of distilled images of whose k nearest real images more than half are of other
      classes; ``embed_outlier_rate_real``: the same of the real images, each without itself.
    * ``embed_coverage``: share of real images that have a distilled image of their class no farther away than their
      k-th nearest real image of it (Naeem et al., ICML 2020). It grows with the size of the set:
      ``embed_coverage_expected`` is its mean for as many further real images.
    * ``embed_centroid_distance``: between the centres of the class's distilled and real images, over the root mean
      square distance of the real ones from theirs; overall the mean over classes. ``_expected``: the root of its mean
      square for as many further real images.
    * ``embed_mmd``: *squared* maximum mean discrepancy of the class's distilled and real images, unbiased and hence
      negative now and then (Gretton et al., JMLR 2012, lemma 6), of a Gaussian kernel whose width is the median
      distance; overall the mean over classes. ``embed_mmd_null95``: its 95 % quantile over random divisions of the
      same points. None where a class has a single distilled image.

    Intervals are Wilson's, about the images, for this set and encoder.

    Args:
        features: (N, D).
        labels: (N,) positions.
        real: Every class has images.
        num_classes: K.
        neighbours: k; fewer where there are fewer images.
        started_from: (N,) canonical index of the training image that a distilled one is or began as, -1 if none. It
            does not count among that image's neighbours: nothing is learned from an image being its own neighbour.
    """
    rows = _RowBuffer(dim=features.shape[1], neighbours=min(neighbours, len(real.labels) - 1))
    k = rows.neighbours
    skip = torch.full_like(labels, -1) if started_from is None else started_from
    own, own_real = _votes(features, labels, skip, real, k), _votes(real.features, real.labels, real.ids, real, k)
    rows.rates("embed_outlier_rate", own < k / 2, labels, num_classes)
    rows.rates("embed_outlier_rate_real", own_real < k / 2, real.labels, num_classes)
    covered = torch.zeros(len(real.labels), dtype=torch.bool)
    expected, shifts, usual = [], [], []
    squared: list[float | None] = []
    nulls: list[Tensor | None] = []
    for position in range(num_classes):
        among, made = real.features[real.labels == position], features[labels == position]
        covered[real.labels == position] = covers(made, among, neighbours)
        expected.append(expected_coverage(len(among), len(made), neighbours))
        shifts.append(centroid_distance(made, among))
        usual.append((1 / len(made) + 1 / len(among)) ** 0.5)
        value, null = mmd(made, among, position)
        squared.append(value)
        nulls.append(null)
    rows.rates("embed_coverage", covered, real.labels, num_classes)
    rows.means("embed_coverage_expected", expected, "fraction", real.labels)
    rows.means("embed_centroid_distance", shifts, "ratio", labels)
    rows.means("embed_centroid_distance_expected", usual, "ratio", labels)
    rows.means("embed_mmd", squared, "1", labels)
    rows.quantiles("embed_mmd_null95", nulls, labels)
    return rows.rows


def covers(made: Tensor, among: Tensor, neighbours: int) -> Tensor:
    """Whether each of M real points (M, D) has one of ``made`` (N, D) within its distance to its k-th real neighbour.

    k is at most M - 1; without a second real point nothing is covered. A real image that was chosen into the set is as
    far away as itself: where it is the k-th neighbour the two distances are one, whatever rounding makes of them.
    """
    k = min(neighbours, len(among) - 1)
    if k < 1:
        return torch.zeros(len(among), dtype=torch.bool)
    between = squared_distances(among, among)
    between.fill_diagonal_(torch.inf)
    radius = between.kthvalue(k, dim=1).values
    return squared_distances(among, made).min(dim=1).values <= radius * (1 + _ROUNDING)


def expected_coverage(real: int, made: int, neighbours: int) -> float:
    """Mean coverage when both sides are drawn from one distribution (Naeem et al., ICML 2020).

    A real point stays uncovered when the nearest k of its M - 1 + N others are all real.
    """
    k = min(neighbours, real - 1)
    missed = 1.0
    for step in range(1, k + 1):
        missed *= (real - step) / (real + made - step)
    return 1.0 - missed if k >= 1 else 0.0


def centroid_distance(made: Tensor, among: Tensor) -> float | None:
    """|mean(made) - mean(among)| over the root mean square of |x - mean(among)|; None when the real points coincide."""
    centre = among.double().mean(0)
    spread = float((among.double() - centre).square().sum(1).mean().sqrt())
    return float((made.double().mean(0) - centre).norm()) / spread if spread > 0 else None


def mmd(made: Tensor, among: Tensor, position: int) -> tuple[float | None, Tensor | None]:
    """Squared MMD of two sets of points, and its null: the same of random divisions of all the points.

    Args:
        made: (N, D).
        among: (M, D). Of more than ``MMD_POINTS`` points on a side, so many are taken at random.
        position: Of the class; divisions differ from class to class.

    Returns:
        The value, and (``MMD_PERMUTATIONS``,) float64; None where a side has a single point, or most points coincide.
    """
    made, among = (_subset(points, MMD_POINTS, "mmd") for points in (made, among))
    count, rest = len(made), len(among)
    if min(count, rest) < 2:
        return None, None
    points = torch.cat([made, among])
    total = count + rest
    distances = squared_distances(points, points)
    rows, columns = torch.triu_indices(total, total, 1)
    median = float(distances[rows, columns].median())
    if median <= 0:
        return None, None
    kernel = distances.div_(-2 * median).exp_().fill_diagonal_(0)
    generator = seeds.generator("embedding", "mmd", "null", position)
    member = torch.zeros(total, 1 + MMD_PERMUTATIONS, dtype=torch.float64)
    member[:count, 0] = 1
    for column in range(1, 1 + MMD_PERMUTATIONS):
        member[torch.randperm(total, generator=generator)[:count], column] = 1
    reached = kernel @ member
    within = (member * reached).sum(0)
    across = ((1 - member) * reached).sum(0)
    other = kernel.sum() - within - 2 * across
    values = within / (count * (count - 1)) + other / (rest * (rest - 1)) - 2 * across / (count * rest)
    return float(values[0]), values[1:]


def joint_tsne(config: TsneConfig, encoder: TrainedModel, embeddings: list[Embedding], context: Context) -> TsneMap:
    """One t-SNE (van der Maaten & Hinton, JMLR 2008) of real images and all sets together, so that they share axes.

    Of the features the first 50 principal components are taken. Perplexity is lowered to a third of the points where
    there are too few for it. Equal inputs give equal maps: the arithmetic runs on one thread.

    Args:
        config: Data, classes, names of the sets.
        encoder: That the embeddings were made with.
        embeddings: One per name.
        context: Device and progress.
    """
    assert len(embeddings) == len(config.sources), (len(embeddings), config.sources)
    real = embed_real(config.dataset, config.classes, config.real_per_class, encoder, context)
    features = torch.cat([real.features, *(embedding.features for embedding in embeddings)]).double().numpy()
    labels = torch.cat([real.labels, *(embedding.labels for embedding in embeddings)])
    sizes = [len(real.labels), *(len(embedding.labels) for embedding in embeddings)]
    sources = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    total = len(features)
    perplexity = min(config.perplexity, (total - 1) / 3)
    components = min(PCA_COMPONENTS, total, features.shape[1])
    with threadpool_limits(limits=1):
        reduced = PCA(components, svd_solver="covariance_eigh").fit(features)
        inputs = reduced.transform(features)
        context.poll()
        tsne = TSNE(
            n_components=2,
            perplexity=perplexity,
            init="pca",
            learning_rate="auto",
            max_iter=MAX_ITERATIONS,
            random_state=seeds.derive("embedding", "tsne") % 2**32,
            n_jobs=1,
        )
        points = tsne.fit_transform(inputs)
        chosen = _subset(torch.arange(total), TRUST_POINTS, "trust").numpy()
        near = min(TRUST_NEIGHBOURS, (len(chosen) - 1) // 2)
        trust = float(trustworthiness(features[chosen], points[chosen], n_neighbors=near))
    fit = hashlib.sha256(config.key_json.encode() + features.tobytes()).hexdigest()[:12]
    facts: dict[str, Any] = {
        "fit_id": fit,
        "sources": ["real", *config.sources],
        "points": sizes,
        "perplexity": perplexity,
        "perplexity_asked": config.perplexity,
        "pca_components": components,
        "pca_explained": float(reduced.explained_variance_ratio_.sum()),
        "embed_dim": features.shape[1],
        "init": "pca",
        "learning_rate": float(tsne.learning_rate_),
        "max_iter": MAX_ITERATIONS,
        "iterations": int(tsne.n_iter_) + 1,
        "kl_divergence": float(tsne.kl_divergence_),
        "trustworthiness": trust,
        "trust_neighbours": near,
        "trust_points": len(chosen),
    }
    return TsneMap(torch.from_numpy(np.asarray(points, dtype=np.float32)), labels, sources, facts)


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """(n, m) float64 of points (n, D) and (m, D), never below 0."""
    left, right = left.double(), right.double()
    centre = right.mean(0)  # features are far from the origin and near to each other: digits are lost otherwise
    left, right = left - centre, right - centre
    products = left @ right.T
    return (left.square().sum(1)[:, None] + right.square().sum(1) - 2 * products).clamp_(min=0)


class _RowBuffer:
    """Collects rows of informativeness."""

    def __init__(self, dim: int, neighbours: int) -> None:
        self.neighbours = neighbours
        self.rows: list[Row] = []
        self._common = {"embed_dim": dim, "neighbours": neighbours}

    def add(self, metric: str, value: float | None, unit: str, n: int, **other: Any) -> None:
        row: Row = {"property": "informativeness", "metric": metric, "value": value, "unit": unit, "n": n}
        if value is None:
            row["flag"] = "degenerate"
        self.rows.append({**row, **self._common, **other})

    def rates(self, metric: str, holds: Tensor, labels: Tensor, num_classes: int) -> None:
        """The share for which something holds, over all and by class."""
        self._rate(metric, holds)
        for position in range(num_classes):
            self._rate(metric, holds[labels == position], class_id=position)

    def _rate(self, metric: str, holds: Tensor, **other: Any) -> None:
        n, count = len(holds), int(holds.sum())
        self.add(metric, count / n, "fraction", n, **wilson(holds.numpy()), **other)

    def means(self, metric: str, by_class: list[Any], unit: str, labels: Tensor) -> None:
        """The mean over classes, and the classes' own values."""
        known = [value for value in by_class if value is not None]
        mean = sum(known) / len(known) if len(known) == len(by_class) else None
        self.add(metric, mean, unit, len(labels))
        for position, value in enumerate(by_class):
            self.add(metric, value, unit, int((labels == position).sum()), class_id=position)

    def quantiles(self, metric: str, nulls: list[Tensor | None], labels: Tensor) -> None:
        """95 % quantiles of the classes' nulls, and of the mean over classes."""
        known = [null for null in nulls if null is not None]
        overall = _upper(torch.stack(known).mean(0)) if len(known) == len(nulls) else None
        self.add(metric, overall, "1", len(labels))
        for position, null in enumerate(nulls):
            value = None if null is None else _upper(null)
            self.add(metric, value, "1", int((labels == position).sum()), class_id=position)


def _upper(null: Tensor) -> float:
    return float(torch.quantile(null, 0.95))


def _votes(points: Tensor, labels: Tensor, skip: Tensor, real: Real, k: int) -> Tensor:
    """How many of each point's k nearest real images are of its class (n,); the image named by ``skip`` is left out."""
    votes = []
    for rows in torch.split(torch.arange(len(points)), _BLOCK):
        distances = squared_distances(points[rows], real.features)
        distances[skip[rows, None] == real.ids] = torch.inf
        nearest = distances.topk(k, dim=1, largest=False).indices
        votes.append((real.labels[nearest] == labels[rows, None]).sum(1))
    return torch.cat(votes)


def _started_from(distilled: DistilledSet, factor: int) -> Tensor:
    """(N * f^2,) canonical indices of decoded images: those of the tiles, where an image began as several."""
    if distilled.indices.ndim == 2 and distilled.indices.shape[1] == factor**2:
        return distilled.indices.T.reshape(-1)
    if distilled.indices.ndim == 1:
        return distilled.indices.repeat(factor**2)
    return torch.full((len(distilled.labels) * factor**2,), -1)


def _subset(points: Tensor, most: int, *purpose: str) -> Tensor:
    if len(points) <= most:
        return points
    order = torch.randperm(len(points), generator=seeds.generator("embedding", *purpose))
    return points[order[:most].sort().values]


def _check(encoder: TrainedModel, dataset: DatasetConfig, classes: tuple[int, ...], distilled: DistilledSet) -> None:
    network = encoder.network
    wanted = (dataset.channels, dataset.image_size, dataset.image_size)
    if (network.channels, network.image_size, network.image_size) != wanted or distilled.images.shape[1:] != wanted:
        raise ValueError(
            f"embedding: images do not fit; got a set of {tuple(distilled.images.shape[1:])} and an encoder of "
            f"{network.channels} channels and {network.image_size} pixels; expected {wanted}. Take an encoder of the "
            "same data."
        )
    present = torch.unique(distilled.labels.classes).tolist()
    if present != list(range(len(classes))):
        raise ValueError(
            f"embedding: classes of the set: got {present}; expected every one from 0 to {len(classes) - 1}. Give the "
            "set images of every class."
        )
