"""The meta-gradient of MTT: how the end of a student's training depends on the images it was trained on.

A student starts at theta_0 and takes N steps of gradient descent on distilled images; the loss is how far it ends from
where the expert went, in units of how far the expert went:

    theta_{k+1} = theta_k - a g_k,   g_k = grad over theta of loss_k(theta_k, S)
    L = |theta_N - target|^2 / |theta_0 - target|^2

``recompute``, ``unrolled`` and ``tesla`` take the same arguments and return L with its gradients with respect to S, a
and, where they are soft, the labels. The first two are the same numbers. P numbers in a parameter vector; images
(n, C, H, W) float32 normalised (or whitened); labels (n,) int64, or logits (n, K) that are read as their softmax.
Everything also works in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn import functional as F

from trainables.data import augment
from trainables.device import spare_memory
from trainables.models.network import Network, uses_batch_statistics
from trainables.optimise import CHUNK
from trainables.train import EVAL_BATCH


@dataclass(frozen=True)
class Batch:
    """What the student sees in one step."""

    rows: Tensor
    """(b,) int64: positions in the distilled images, without repeats."""
    params: augment.Params | None
    """One augmentation per image, or None."""


class MetaGradient(NamedTuple):
    """What an iteration of MTT needs to know."""

    loss: Tensor
    """L, a scalar; 1 for a student that does not move."""
    images: Tensor
    """dL/dS, like the images."""
    rate: Tensor
    """dL/da, a scalar."""
    final: Tensor
    """theta_N (P,)."""
    labels: Tensor | None = None
    """dL/dy, like the labels; None of hard ones."""


def _never() -> None:
    pass


def recompute(
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    rate: Tensor,
    batches: Sequence[Batch],
    network: Network,
    target: Tensor,
    poll: Callable[[], None] = _never,
    room: int | None = None,
) -> MetaGradient:
    """The exact gradient within a given memory: the student's parameters after every step are kept, and the graphs of
    as many steps as there is room for. On the way back the other steps are computed once more.

    With l_k = dL/dtheta_k, from l_N = 2 (theta_N - target) / |theta_0 - target|^2 down to k = 0, each step adds
    -<l_{k+1}, g_k> to dL/da and the vector-Jacobian product -a l_{k+1}^T dg_k/dS to dL/dS, and

        l_k = l_{k+1} - a l_{k+1}^T dg_k/dtheta_k.

    A batch is taken in parts of ``CHUNK`` images, whose sums these are; batch norm needs it whole.

    Memory: N + 1 vectors of P, the kept graphs, and the activations of one part of one step. Time: ``unrolled`` and a
    forward and a backward pass more for each step that is not kept. How many are kept changes no bit of the result.

    Differs from the authors' code (MTT distill.py): they keep the graph of all steps, as ``unrolled`` does.

    Args:
        start: theta_0 (P,), parameters in the order of ``network.named_parameters()``.
        images: S (n, C, H, W).
        labels: Of S: classes (n,) int64, or logits (n, K).
        rate: a, a scalar tensor.
        batches: N steps.
        network: Gives the function; its own parameters are not read.
        target: (P,).
        poll: Called before each step; may raise to give way.
        room: Bytes for graphs; None: what the device has to spare.
    """
    return _backwards(start, images, labels, rate, batches, network, target, poll, room, through_parameters=True)


def tesla(
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    rate: Tensor,
    batches: Sequence[Batch],
    network: Network,
    target: Tensor,
    poll: Callable[[], None] = _never,
    room: int | None = None,
) -> MetaGradient:
    """TESLA's approximation (Cui et al., ICML 2023): earlier parameters count as constants, l_k = l_N for every k.

    How a step changes what later steps see is left out; of ``recompute``'s work the products with dg/dtheta are saved.
    The loss and the student's end are exact. Arguments as for ``recompute``.
    """
    return _backwards(start, images, labels, rate, batches, network, target, poll, room, through_parameters=False)


def unrolled(
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    rate: Tensor,
    batches: Sequence[Batch],
    network: Network,
    target: Tensor,
    poll: Callable[[], None] = _never,
) -> MetaGradient:
    """The exact gradient by plain back-propagation through all steps, whose graphs are kept: memory grows with N.

    What the authors' program does, and what ``recompute`` is tested against. Arguments as there; ``poll`` is not called
    on the way back, which is one call.
    """
    student = _Student(network)
    leaf, known, learned = images.detach().requires_grad_(), _leaf(labels), rate.detach().requires_grad_()
    theta = start.detach().requires_grad_()
    for batch in batches:
        poll()
        theta = theta - learned * _gradient(student, theta, leaf[batch.rows], known[batch.rows], batch, len(batch.rows))
    loss = (theta - target).square().sum() / (start - target).square().sum()
    wanted = (leaf, learned, known) if known.requires_grad else (leaf, learned)
    at_images, at_rate, *at_labels = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return MetaGradient(loss.detach(), at_images, at_rate, theta.detach(), *at_labels)


@torch.no_grad()
def outputs(network: Network, parameters: Tensor, images: Tensor) -> Tensor:
    """Logits (n, K) of images without augmentation, by the network with other parameters (P,)."""
    student = _Student(network)
    parts = torch.split(images, EVAL_BATCH[images.device.type])
    return torch.cat([student.logits(parameters, part) for part in parts])


GRADIENTS: dict[str, Callable[..., MetaGradient]] = {"recompute": recompute, "unrolled": unrolled, "tesla": tesla}
"""By the name of the setting ``mtt_gradient``."""


class _Student:
    """A network as a function of one flat vector of parameters."""

    def __init__(self, network: Network) -> None:
        self.network = network
        named = [(name, weight.shape) for name, weight in network.named_parameters()]
        self.names = [name for name, _ in named]
        self.shapes = [shape for _, shape in named]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.whole = uses_batch_statistics(network)

    def loss(self, theta: Tensor, images: Tensor, labels: Tensor, batch: int) -> Tensor:
        """The part of a batch's mean cross-entropy that these images make up.

        Args:
            theta: (P,).
            images: (b, C, H, W), augmented.
            labels: (b,), or logits (b, K).
            batch: Images of the whole batch.
        """
        expected = labels.softmax(-1) if labels.is_floating_point() else labels
        return F.cross_entropy(self.logits(theta, images), expected, reduction="sum") / batch

    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """What the network with parameters ``theta`` says of the images (b, K)."""
        pieces = torch.split(theta, self.sizes)
        weights = {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}
        logits: Tensor = functional_call(self.network, weights, (images.contiguous(),))
        return logits

    def parts(self, batch: Batch) -> list[Batch]:
        """The batch as parts that pass the network one after the other."""
        length = len(batch.rows)
        size = length if self.whole else math.ceil(length / math.ceil(length / CHUNK[batch.rows.device.type]))
        return [
            Batch(
                batch.rows[first : first + size],
                batch.params.rows(first, first + size) if batch.params is not None else None,
            )
            for first in range(0, length, size)
        ]


class _Taken(NamedTuple):
    """A part of a step that was taken, with the graph from its images and parameters to its gradient."""

    part: Batch
    gradient: Tensor
    """What it adds to g (P,)."""
    images: Tensor
    labels: Tensor
    theta: Tensor


def _backwards(
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    rate: Tensor,
    batches: Sequence[Batch],
    network: Network,
    target: Tensor,
    poll: Callable[[], None],
    room: int | None,
    *,
    through_parameters: bool,
) -> MetaGradient:
    student = _Student(network)
    passed = [start.detach()]
    kept: list[list[_Taken]] = []
    left = spare_memory(images.device.type) if room is None else room
    for number, batch in enumerate(batches):
        poll()
        before, step = passed[-1], torch.zeros_like(start)
        if number == len(kept) and left > 0:  # the graphs of the first steps; each is as large as the first
            with _Saved() as saved:
                kept.append([_taken(student, before, images, labels, part, batch) for part in student.parts(batch)])
            left -= saved.bytes
            if left < saved.bytes:
                left = 0
            for taken in kept[-1]:
                step += taken.gradient.detach()
        else:
            for part in student.parts(batch):  # the same operations as for a step that is kept, hence the same bits
                step += _taken(student, before, images, labels, part, batch).gradient.detach()
        passed.append(before - rate * step)
    final = passed.pop()
    scale = (start - target).square().sum()
    adjoint = 2 * (final - target) / scale
    at_images, at_rate = torch.zeros_like(images), torch.zeros_like(rate)
    at_labels = torch.zeros_like(labels) if labels.is_floating_point() else None
    for number in reversed(range(len(batches))):
        poll()
        batch, before, earlier = batches[number], passed.pop(), adjoint.clone()
        if number < len(kept):
            parts: Iterable[_Taken] = kept.pop()
        else:
            parts = (_taken(student, before, images, labels, part, batch) for part in student.parts(batch))
        for taken in parts:
            at_rate -= adjoint @ taken.gradient.detach()
            wanted = {"images": taken.images}
            if at_labels is not None:
                wanted["labels"] = taken.labels
            if through_parameters:
                wanted["theta"] = taken.theta
            found = torch.autograd.grad(taken.gradient, list(wanted.values()), grad_outputs=-rate * adjoint)
            products = dict(zip(wanted, found, strict=True))
            at_images[taken.part.rows] += products["images"]
            if at_labels is not None:
                at_labels[taken.part.rows] += products["labels"]
            if through_parameters:
                earlier += products["theta"]
        adjoint = earlier
    return MetaGradient((final - target).square().sum() / scale, at_images, at_rate, final, at_labels)


def _taken(student: _Student, before: Tensor, images: Tensor, labels: Tensor, part: Batch, batch: Batch) -> _Taken:
    theta, seen = before.detach().requires_grad_(), images[part.rows].requires_grad_()
    known = _leaf(labels[part.rows])
    return _Taken(part, _gradient(student, theta, seen, known, part, len(batch.rows)), seen, known, theta)


def _leaf(labels: Tensor) -> Tensor:
    """The labels, to be differentiated where they are soft."""
    return labels.detach().requires_grad_(labels.is_floating_point())


class _Saved:
    """Counts the bytes that graphs keep which are made inside it."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}
        self._hooks = saved_tensors_hooks(self._count, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(self._storages.values())

    def __enter__(self) -> _Saved:
        self._hooks.__enter__()
        return self

    def __exit__(self, *how: object) -> None:
        self._hooks.__exit__(*how)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # autograd knows its graph; a packed output that knew it too would never be freed


def _gradient(student: _Student, theta: Tensor, images: Tensor, labels: Tensor, part: Batch, batch: int) -> Tensor:
    """What a part of a batch of ``batch`` images adds to g (P,), with its graph."""
    loss = student.loss(theta, _augmented(images, part.params), labels, batch)
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    return gradient


def _augmented(images: Tensor, params: augment.Params | None) -> Tensor:
    return images if params is None else augment.apply(images, params)
