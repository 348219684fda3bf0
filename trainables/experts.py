"""Experts: networks trained on an origin whose parameters are kept along the way, for MTT (buffer.py; methods.md 5.1).

N images, P parameters, S snapshots after the initial one. Images (N, C, H, W) float32 normalised, or whitened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainables import optimise, seeds
from trainables.configs import ExpertConfig
from trainables.context import Context
from trainables.data import augment, pixels
from trainables.data.origins import Origin
from trainables.files import load_json, save_json
from trainables.models.network import Network, build, num_parameters, uses_batch_statistics
from trainables.optimise import batch_gradient, batches_per_epoch
from trainables.payloads import Expert, load_tensors, save_tensors
from trainables.train import accuracy

ACCURACY_IMAGES = 2000
"""Images on which train accuracy is taken at each snapshot, the first ones of each class in canonical order, without
augmentation: about a hundredth of an epoch's work on CIFAR-10, and all of a small origin."""


def train_expert(config: ExpertConfig, origin: Origin, context: Context) -> Expert:
    """Train one network by plain stochastic gradient descent and keep its parameters every so many steps.

    With a ``radius`` the gradient is that of a flatter place (``sharpness_aware``). The learning rate is constant, but
    for the configuration's milestones; a fresh permutation per epoch; each image under its own augmentation. Random
    numbers are derived from (the expert's number, purpose, step). A checkpoint holds the network and the snapshots so
    far.

    Differs from the authors' code (MTT buffer.py): snapshots are copies (theirs alias the last weights when training
    on a CPU); they are taken by steps where epochs are short; train accuracy is of images without augmentation.

    Raises:
        StageFailure: The loss or a parameter is not finite.
        ValueError: The network cannot be built, or it has batch norm and batches hold one image.
    """
    device = torch.device(context.device)
    images, labels = origin.images.to(device), origin.labels.to(device)
    if config.zca:
        constants = config.dataset.mean, config.dataset.std
        images = pixels.fit_whitening(images, *constants).whiten(images, *constants)
    network = build(config.network, "expert", config.index, "network", device=context.device)
    name = f"expert {config.index}"
    per_epoch = batches_per_epoch(
        len(images),
        config.batch,
        batch_statistics=uses_batch_statistics(network),
        who=name,
        setting=f"settings.{config.method}.batch_expert",
    )
    every = config.steps_between(per_epoch)

    def order(epoch: int) -> Tensor:
        return torch.randperm(len(images), generator=seeds.generator("expert", config.index, "order", epoch))

    def gradient(rows: Tensor, step: int) -> Tensor:
        params, mix = _augmentation(config, len(rows), step), None
        if config.cutmix:
            mix = optimise.Mix(config.cutmix, 0.0, seeds.generator("expert", config.index, "cutmix", step))

        def at_parameters() -> Tensor:
            return batch_gradient(network, images[rows], labels[rows], params=params, mix=mix)

        if not config.radius:
            return at_parameters()
        return sharpness_aware(network, at_parameters, config.radius, config.alignment)

    each = max(1, ACCURACY_IMAGES // len(origin.by_class))
    looked_at = torch.cat([members[:each] for members in origin.by_class]).to(device)
    names = optimise.Names([name], f"Lower settings.{config.method}.lr_expert.")

    def check(done: int, parameters: Tensor) -> None:
        if not parameters.isfinite().all():
            raise names.diverged("a parameter", done - 1, per_epoch)

    at = range(0, config.snapshots * every + 1, every)
    snapshots = _Snapshots(network, images[looked_at], labels[looked_at], at, check, context)
    steps = config.snapshots * every

    def rate(step: int) -> float:
        return config.lr * optimise.drops(step, steps, config.milestones, config.gamma)

    optimise.descend(
        optimise.Learner.of(network, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay),
        batch=config.batch,
        steps=steps,
        per_epoch=per_epoch,
        order=order,
        gradient=gradient,
        rate=rate if config.milestones else None,
        record=snapshots,
        names=names,
        context=context,
    )
    info = {
        "index": config.index,
        "zca": config.zca,
        "lr": config.lr,
        "accuracy_images": len(looked_at),
        "steps": [int(point["steps"]) for point in snapshots.points],
        "train_acc": [point["train_acc"] for point in snapshots.points],
    }
    parameters = [(name, list(weight.shape)) for name, weight in network.named_parameters()]
    return Expert(snapshots.parameters, squared_distances(snapshots.parameters), parameters, info)


def sharpness_aware(network: Network, gradient: Callable[[], Tensor], radius: float, alignment: float) -> Tensor:
    """Set the parameters' ``grad`` to that of a flatter place (GSAM, as FTD has it; Du et al., CVPR 2023; methods2.md
    3.5).

        e = rho theta^2 g / (| |theta| g | + 1e-12),   g' = gradient at theta + e
        v = g - cos(g, g') |g| g' / |g'|,   grad = g' - a v

    Norms and the cosine are over all parameters together; products go number by number.

    Args:
        network: Whose ``grad`` are 0.
        gradient: Adds the gradient at the network's parameters to their ``grad``; returns the loss.
        radius: rho, above 0.
        alignment: a; 0 gives sharpness-aware minimisation.

    Returns:
        The loss at the parameters, detached.
    """
    weights = list(network.parameters())
    loss = gradient()
    kept = [weight.detach().clone() for weight in weights]
    first = [_taken(weight) for weight in weights]
    scaled = [place.abs() * slope for place, slope in zip(kept, first, strict=True)]
    length = _product(scaled, scaled).sqrt()
    with torch.no_grad():
        for weight, slope in zip(weights, first, strict=True):
            weight.add_(radius * weight.square() * slope / (length + 1e-12))
    gradient()
    second = [_taken(weight) for weight in weights]
    along = _product(first, second) / (_product(second, second) + 1e-24)  # cos |g| / |g'|
    with torch.no_grad():
        for weight, place, one, other in zip(weights, kept, first, second, strict=True):
            weight.copy_(place)
            weight.grad = other - alignment * (one - along * other)
    return loss


def _taken(weight: Tensor) -> Tensor:
    """The gradient of a weight, which has none afterwards."""
    assert weight.grad is not None
    slope, weight.grad = weight.grad, None
    return slope


def _product(ones: list[Tensor], others: list[Tensor]) -> Tensor:
    """The scalar product () of two vectors that are in parts."""
    return torch.stack([(one * other).sum() for one, other in zip(ones, others, strict=True)]).sum()


class _Snapshots:
    """Copies of the parameters along the way, and the accuracy on some training images.

    Attributes:
        parameters: (S + 1, P), filled row by row.
        points: ``steps`` and ``train_acc`` of the rows so far.
    """

    def __init__(
        self,
        network: Network,
        images: Tensor,
        labels: Tensor,
        at: range,
        check: Callable[[int, Tensor], None],
        context: Context,
    ) -> None:
        self.at = at
        self.parameters = torch.empty(len(at), num_parameters(network))
        self.points: list[dict[str, float]] = []
        self._network, self._images, self._labels = network, images, labels
        self._check, self._context = check, context

    def look(self, done: int) -> None:
        row = self.parameters[len(self.points)]
        row.copy_(flat_parameters(self._network))
        self._check(done, row)
        share = accuracy(self._network, self._images, self._labels)
        self.points.append({"steps": done, "train_acc": share})
        self._context.measure(train_acc=share)

    def save(self, folder: Path) -> None:
        save_json(folder / "curve.json", self.points)
        save_tensors(folder / "snapshots.safetensors", {"snapshots": self.parameters[: len(self.points)]})

    def restore(self, folder: Path) -> None:
        self.points = load_json(folder / "curve.json")
        self.parameters[: len(self.points)] = load_tensors(folder / "snapshots.safetensors")["snapshots"]


def flat_parameters(network: Network) -> Tensor:
    """All parameters as one new vector (P,), in the order of ``named_parameters``."""
    return torch.cat([weight.detach().reshape(-1) for weight in network.parameters()])


def squared_distances(snapshots: Tensor) -> Tensor:
    """Squared Euclidean distances (S + 1, S + 1) in float64 between rows (S + 1, P)."""
    squared = torch.zeros(len(snapshots), len(snapshots), dtype=torch.float64)
    for index, row in enumerate(snapshots[:-1]):
        squared[index, index + 1 :] = (snapshots[index + 1 :] - row).double().square().sum(1)
    return squared + squared.T


def _augmentation(config: ExpertConfig, batch: int, step: int) -> augment.Params | None:
    if config.augmentation != "dsa":
        return None
    generator, flip = seeds.generator("expert", config.index, "augment", step), config.dataset.flip
    strategy = augment.idc_strategy(config.operations, flip) if config.operations else augment.strategy_for(flip)
    return augment.sample(strategy, batch, shared=False, generator=generator)
