"""DC and DSA: dataset condensation with gradient matching (Zhao et al., ICLR 2021), and with differentiable Siamese
augmentation (Zhao & Bilen, ICML 2021; main.py, utils.py). methods.md section 3.

    for each iteration: a new random network theta
        repeat ``outer`` times:
            S <- S - lr_img * gradient of sum over classes c of D(grad loss(A_w(S_c)), grad loss(A_w(T_c)))
            train theta on S for ``inner`` epochs (not after the last update)

The network never sees real images except through the gradients it is matched on. With one image per class ``outer`` is
1 and no network is ever trained.

K classes, n images per class. Images (N, C, H, W) float32 normalised. DC is the same without augmentation, from noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainables.data import augment
from trainables.data.origins import Origin
from trainables.distill.context import DistillContext, class_major_labels
from trainables.distill.matching import Distance, match_gradients
from trainables.methods import DSASettings
from trainables.models.network import Network, uses_batch_statistics
from trainables.optimise import batch_gradient, in_batches
from trainables.payloads import DistilledSet, load_tensors, save_tensors

STATISTICS_IMAGES = 16
"""Real images per class that set batch norm's statistics before each update (DC main.py)."""


def distill(origin: Origin, settings: DSASettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by gradient matching.

    A checkpoint holds the images, their momentum and, between two updates of one iteration, the network.

    Differs from the authors' code: ``iterations`` networks instead of one more; all random numbers are derived from
    (seed, purpose, step) instead of clocks; batch norm takes its statistics from the 16 real images per class alone,
    where theirs moves the running ones by a tenth.

    Raises:
        StageFailure: The loss, an image or the network's training is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from, or batch norm would be trained on one image.
    """
    outer, inner = settings.loops
    distance = DISTANCES[settings.distance]
    images, indices = context.initial_images(origin)
    labels = class_major_labels(context.num_classes, context.ipc, context.device)
    momentum = torch.zeros_like(images)
    network: Network | None = None
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / "dsa.safetensors")
        images, momentum = saved.pop("images").to(images.device), saved.pop("momentum").to(images.device)
        if done % outer:
            network = context.network(done // outer)
            network.load_state_dict(saved)

    def save(folder: Path) -> None:
        state = network.state_dict() if network is not None and outer > 1 else {}
        save_tensors(folder / "dsa.safetensors", {**state, "images": images, "momentum": momentum})

    for update in context.iterations(settings.length, start=done, save=save, unit="update"):
        iteration, turn = divmod(update, outer)
        if turn == 0 or network is None:
            network = context.network(iteration)
        _set_statistics(network, origin, context, iteration, turn)
        batches = context.real_batches(origin, settings.batch_real, iteration, turn)
        omegas = context.omegas(iteration, turn)
        weights = matched_weights(network, settings.distance)
        distances, gradient = match_gradients(network, weights, distance, origin.images, batches, images, omegas)
        blamed = context.to_lower(images, trained=turn > 0)
        context.check_loss(float(distances.sum()), iteration, blamed)
        momentum.mul_(settings.momentum_img).add_(gradient)
        images.sub_(momentum, alpha=settings.lr_img)
        context.check_images(images, iteration, blamed)
        if turn + 1 < outer:
            losses: list[Tensor] = []
            for epoch in range(inner):
                _train_epoch(network, images, labels, settings, context, losses, (iteration, turn, epoch))
            context.check_training(losses, iteration, context.to_lower(images, trained=True))

    return context.finish(images, indices, iterations=settings.iterations, loops=list(settings.loops))


def layer_distance(synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Per output unit of each layer, 1 - cosine (DC utils.py, ``ours``): the sum over weights and rows r of

        1 - <g_S,r, g_T,r> / (|g_S,r| |g_T,r| + 1e-6)

    A row is what feeds one unit: a convolution's whole filter, a linear layer's row, a channel of
    layer norm. Vectors (biases, scales of norms) count nothing.

    Args:
        synthetic: One tensor (G, *shape) per weight, for G classes.
        real: The same of real images.

    Returns:
        (G,), each between 0 and twice the number of rows.
    """
    total = torch.zeros(len(synthetic[0]), device=synthetic[0].device, dtype=synthetic[0].dtype)
    for own, target in zip(synthetic, real, strict=True):
        if own.ndim > 2:
            total = total + _one_minus_cosine(own.flatten(2), target.flatten(2)).sum(1)
    return total


def squared_distance(synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """The squared Euclidean distance of all gradients taken as one vector (``mse``): (G,)."""
    return (_flat(synthetic) - _flat(real)).square().sum(1)


def cosine_distance(synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """1 - cosine of all gradients taken as one vector (``cos``): (G,)."""
    return _one_minus_cosine(_flat(synthetic), _flat(real))


DISTANCES: dict[str, Distance] = {"ours": layer_distance, "mse": squared_distance, "cos": cosine_distance}


def matched_weights(network: Network, distance: str) -> list[str]:
    """Names of the parameters that the distance looks at: all, or for ``ours`` those with rows."""
    return [name for name, weight in network.named_parameters() if distance != "ours" or weight.ndim > 1]


def _one_minus_cosine(own: Tensor, target: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(own, dim=-1) * torch.linalg.vector_norm(target, dim=-1)
    products: Tensor = (own * target).sum(-1)
    return 1 - products / (norms + 1e-6)


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten(1) for part in gradients], dim=1)


@torch.no_grad()
def _set_statistics(network: Network, origin: Origin, context: DistillContext, iteration: int, turn: int) -> None:
    """Batch norm's running statistics from a few real images of every class, and evaluation mode for the matching."""
    if not uses_batch_statistics(network):
        return
    chosen = context.real_batches(origin, STATISTICS_IMAGES, iteration, turn, purpose="statistics")
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 1.0
    network.train()
    network(origin.images[torch.cat(chosen).to(origin.images.device)])
    for module, momentum in zip(norms, before, strict=True):
        module.momentum = momentum
        module.eval()


def _train_epoch(
    network: Network,
    images: Tensor,
    labels: Tensor,
    settings: DSASettings,
    context: DistillContext,
    losses: list[Tensor],
    turn: tuple[int, int, int],
) -> None:
    """Plain gradient descent through the distilled set once, each image under its own augmentation; ``losses`` gets one
    more for each step."""
    network.train()
    order = torch.randperm(len(images), generator=context.generator("order", *turn)).to(images.device)
    method = context.config.method
    batches = in_batches(
        order,
        settings.batch_train,
        batch_statistics=context.needs_two_images,
        who=method,
        setting=f"settings.{method}.batch_train",
    )
    for step, rows in enumerate(batches):
        context.poll()
        params = None
        if context.strategy is not None:
            generator = context.generator("train", *turn, step)
            params = augment.sample(context.strategy, len(rows), shared=False, generator=generator)
        losses.append(batch_gradient(network, images[rows], labels[rows], params=params))
        with torch.no_grad():
            for weight in network.parameters():
                assert weight.grad is not None
                weight.sub_(weight.grad, alpha=settings.lr_net)
                weight.grad = None
