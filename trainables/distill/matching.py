"""Matching, class by class, what a network makes of real and of distilled images.

DC, DSA and IDC match the gradients of the weights (``match_gradients``): for each class c, one augmentation w_c for
both sides,

    g_T = grad over theta of loss(A_w(T_c)),   g_S = grad over theta of loss(A_w(S_c)),   L = sum over c of D(g_S, g_T)

and the gradient of L with respect to the distilled images, which passes through g_S a second time. DM matches mean
embeddings (``dm.py``) and shares how the images of a step are split: classes that are handled together, and images
that pass the network together. IDC and IDM take a step for each class after the other (``step_in_turns``).

K classes, B images of a class. There are two ways to the same numbers. ``loop``: one class after the other, real
images in chunks; best where arithmetic is the bound (CPU). ``vectorised``: the classes of a group as one batch under
``torch.func.vmap``; best where the number of operator calls is the bound (GPU, few images).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from trainables.data import augment
from trainables.device import laid_out
from trainables.methods import EMBEDDED_TOGETHER, MATCHED_TOGETHER
from trainables.models.network import Network

Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(gradients of distilled images, of real images), each one tensor (G, *shape) per weight, -> distances (G,)."""
Decode = Callable[[Tensor, int, int], Tensor]
"""(stored images of classes [first, last), first, last) -> the images (K' * n, C, H, W) that the network sees."""
GradientAt = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images -> distances (K,) and the gradient of their sum, like the images."""


@dataclass(frozen=True)
class Sizes:
    """How many images are handled at once: what a device likes. Part of the numerics, fixed per device type."""

    group: int
    """Images that are gathered, augmented and embedded together, in whole classes."""
    matched: int
    """Images of which gradients are taken together, in whole classes: all that their layers put out is held."""
    chunk: int
    """Images that pass the network together when nothing is learned."""


# CPU: the first layer's output of 32 images of 32 pixels (16 MiB) still fits a last-level cache. CUDA: memory is the
# bound. Gradients of 512 images at once hold 2.5 GiB with ConvNet3; of 4,096, 20 GiB for a fifth of the operators,
# which take a card less time to start than to compute (benchmarks/footprints.py).
SIZES = {
    "cpu": Sizes(group=256, matched=256, chunk=32),
    "cuda": Sizes(group=EMBEDDED_TOGETHER, matched=MATCHED_TOGETHER, chunk=4096),
}

Path = Literal["loop", "vectorised"]
PATHS: dict[str, Path] = {"cpu": "loop", "cuda": "vectorised"}
"""Device type -> way of computing: in parts that suit a cache, or in as few operators as possible. Part of the
numerics: both give the same numbers to rounding."""


def groups(counts: Sequence[int], limit: int, whole: bool = False) -> Iterator[tuple[int, int]]:
    """Consecutive classes [first, last) with at most ``limit`` images together, but at least one class.

    Args:
        whole: All classes in one group, whatever their number.
    """
    first, images = 0, 0
    for index, count in enumerate(counts):
        if index > first and images + count > limit and not whole:
            yield first, index
            first, images = index, 0
        images += count
    yield first, len(counts)


def rows_of(omegas: augment.Params | None, first: int, last: int) -> augment.Params | None:
    """The augmentations of classes [first, last)."""
    return None if omegas is None else omegas.rows(first, last)


def augmented(images: Tensor, omegas: augment.Params | None, counts: Sequence[int]) -> Tensor:
    """Class-major images under one augmentation per class.

    Args:
        images: (sum of counts, C, H, W).
        omegas: One row per class; None leaves the images as they are.
    """
    if omegas is not None:
        images = augment.apply(images, omegas if len(counts) == 1 else omegas.repeat(counts))
    return laid_out(images)


def match_gradients(
    network: Network,
    weights: Sequence[str],
    distance: Distance,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    omegas: augment.Params | None,
    decode: Decode | None = None,
    path: Path | None = None,
) -> tuple[Tensor, Tensor]:
    """The distance of each class and the gradient of their sum with respect to the distilled images.

    Args:
        network: Without batch statistics in use (batch norm in evaluation mode): images must not depend on each other.
        weights: Names of the parameters whose gradients are matched.
        distance: D above.
        real: Origin images (N, C, H, W) normalised.
        batches: For each of the K classes, the positions in ``real`` of its batch.
        synthetic: Distilled images (K * n, C, H, W), class-major.
        omegas: K augmentations, one per class, or None for no augmentation.
        decode: From stored images to what the network sees; None where they are the same.
        path: How to compute; None: as the device likes.

    Returns:
        Distances (K,), and a tensor like ``synthetic``.
    """
    step = _looped if (path or PATHS[real.device.type]) == "loop" else _vectorised
    return step(network, weights, distance, real, batches, synthetic, omegas, decode or (lambda images, *_: images))


def _looped(
    network: Network,
    weights: Sequence[str],
    distance: Distance,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    omegas: augment.Params | None,
    decode: Decode,
) -> tuple[Tensor, Tensor]:
    by_name = dict(network.named_parameters())
    matched = [by_name[name] for name in weights]
    ipc = len(synthetic) // len(batches)
    distances = torch.zeros(len(batches), device=real.device, dtype=synthetic.dtype)
    gradient = torch.empty_like(synthetic)
    for index, batch in enumerate(batches):
        omega = rows_of(omegas, index, index + 1)
        target = _mean_gradient(network, matched, augmented(real[batch.to(real.device)], omega, [len(batch)]), index)
        rows = slice(index * ipc, (index + 1) * ipc)
        leaf = synthetic[rows].detach().requires_grad_()
        shown = decode(leaf, index, index + 1)
        logits = network(augmented(shown, omega, [len(shown)]))
        own = torch.autograd.grad(_loss(logits, index), matched, create_graph=True)
        distance_of_class = distance([part[None] for part in own], [part[None] for part in target])
        (gradient[rows],) = torch.autograd.grad(distance_of_class.sum(), leaf)
        distances[index] = distance_of_class.detach()[0]
    return distances, gradient


def _mean_gradient(network: Network, matched: Sequence[Tensor], images: Tensor, label: int) -> list[Tensor]:
    total = [torch.zeros_like(weight) for weight in matched]
    for part in torch.split(images, SIZES[images.device.type].chunk):
        loss = _loss(network(part), label) * (len(part) / len(images))
        for whole, part in zip(total, torch.autograd.grad(loss, matched), strict=True):
            whole += part
    return total


def _loss(logits: Tensor, label: int) -> Tensor:
    return F.cross_entropy(logits, torch.full((len(logits),), label, device=logits.device))


def _vectorised(
    network: Network,
    weights: Sequence[str],
    distance: Distance,
    real: Tensor,
    batches: Sequence[Tensor],
    synthetic: Tensor,
    omegas: augment.Params | None,
    decode: Decode,
) -> tuple[Tensor, Tensor]:
    ipc = len(synthetic) // len(batches)
    counts = [len(batch) for batch in batches]
    distances: list[Tensor] = []
    gradients: list[Tensor] = []
    own = len(decode(synthetic[:ipc].detach(), 0, 1))  # their graph is kept, so they count like real images
    for first, last in groups([max(count, own) for count in counts], SIZES[real.device.type].matched):
        omega = rows_of(omegas, first, last)
        chosen = torch.cat([batch.to(real.device) for batch in batches[first:last]])
        images, shares = _stacked(augmented(real[chosen], omega, counts[first:last]), counts[first:last])
        target = _class_gradients(network, weights, images, shares, first)
        leaf = synthetic[first * ipc : last * ipc].detach().requires_grad_()
        shown = decode(leaf, first, last)
        each = [len(shown) // (last - first)] * (last - first)
        images, shares = _stacked(augmented(shown, omega, each), each)
        distances_of_group = distance(
            _class_gradients(network, weights, images, shares, first), [part.detach() for part in target]
        )
        gradients += torch.autograd.grad(distances_of_group.sum(), leaf)
        distances.append(distances_of_group.detach())
    return torch.cat(distances), torch.cat(gradients)


def _stacked(images: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images (G, B, C, H, W) and the share of each in its class's mean (G, B); smaller classes are filled up by images
    that count nothing."""
    largest = max(counts)
    if min(counts) == largest:
        shares = torch.full((len(counts), largest), 1.0 / largest, device=images.device)
        return images.reshape(len(counts), largest, *images.shape[1:]), shares
    sizes = torch.tensor(counts)
    position = torch.arange(largest).expand(len(counts), -1)
    rows = torch.minimum(position, sizes[:, None] - 1) + (sizes.cumsum(0) - sizes)[:, None]
    shares = (position < sizes[:, None]) / sizes[:, None]
    return images[rows.to(images.device)], shares.to(images.device)


def _class_gradients(
    network: Network, weights: Sequence[str], images: Tensor, shares: Tensor, first: int
) -> Sequence[Tensor]:
    """One tensor (G, *shape) per weight: the gradients of the mean losses of classes first, first + 1, …"""
    constants = {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    matched = tuple(constants.pop(name) for name in weights)
    labels = torch.arange(first, first + len(images), device=images.device)

    def loss(matched: tuple[Tensor, ...], images: Tensor, shares: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(network, {**constants, **dict(zip(weights, matched, strict=True))}, (images,))
        losses: Tensor = F.cross_entropy(logits, label.expand(len(images)), reduction="none")
        return (losses * shares).sum()

    gradients: tuple[Tensor, ...] = vmap(grad(loss), in_dims=(None, 0, 0, 0))(matched, images, shares, labels)
    return gradients


@torch.no_grad()
def step_in_turns(
    images: Tensor, momentum: Tensor, gradient_at: GradientAt, *, num_classes: int, lr: float, decay: float
) -> Tensor:
    """One step of stochastic gradient descent for each class after the other, over all images each time, in place.

    In every class's turn the momentum m moves the images of the others too (their gradient is 0 then):

        m <- decay m + gradient,    x <- x - lr m

    A class's gradient depends on its own images alone, and where these are at its turn is known beforehand: class c has
    drifted c times, and drifts K - 1 - c times more. So all gradients are computed at once. Equal to the loop over
    classes up to rounding.

    Args:
        images: (K * n, C, H, W), class-major.
        momentum: m, like the images.
        gradient_at: Called once, with every class's images as they are in its turn.
        decay: In [0, 1).

    Returns:
        Distances (K,), each as it was in its class's turn.
    """
    turns = torch.arange(num_classes).repeat_interleave(len(images) // num_classes)
    _drift(images, momentum, turns, lr, decay)
    with torch.enable_grad():
        distances, gradient = gradient_at(images)
    momentum.mul_(decay).add_(gradient)
    images.sub_(momentum, alpha=lr)
    _drift(images, momentum, num_classes - 1 - turns, lr, decay)
    return distances


def _drift(images: Tensor, momentum: Tensor, times: Tensor, lr: float, decay: float) -> None:
    """Steps without a gradient, ``times`` (N,) of them: m <- decay^t m, after x <- x - lr (decay + ... + decay^t) m."""
    left = torch.pow(decay, times.double())
    way = lr * decay * (1 - left) / (1 - decay)
    left, way = (factor.to(images).reshape(-1, 1, 1, 1) for factor in (left, way))
    images.sub_(way * momentum)
    momentum.mul_(left)
