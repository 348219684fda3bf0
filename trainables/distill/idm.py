"""IDM: improved distribution matching (Zhao et al., CVPR 2023; IDM_cifar10.py; methods2.md 3.1).

    each iteration: a network theta from a queue, and for each class c in turn one step of one optimiser over all of S,
    down the gradient with respect to S_c of
        || mean psi(A_w(T_c)) - mean psi(A_w(D(S_c))) ||^2 + v a CE(theta(A_w(D(S_c))), c)
    then some networks of the queue are trained on real images

D decodes a stored image to factor^2 (``decode``), w is one augmentation of both sides, psi everything before the last
linear layer, a the share, in percent, of the real images that theta named correctly while it was trained, v a setting.
Every so many iterations a new network enters the queue, and when it is full the oldest leaves.

K classes, n stored images of a class, factor f: n f^2 decoded ones. Stored images (K n, C, H, W) are normalised.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.data import augment
from trainables.data.origins import Origin
from trainables.data.pixels import decode, denormalise, normalise
from trainables.distill.context import DistillContext
from trainables.distill.distributions import class_means, embedding, real_means
from trainables.distill.matching import SIZES, GradientAt, augmented, groups, rows_of, step_in_turns
from trainables.labels import hard_loss
from trainables.methods import IDMSettings
from trainables.models.network import Network, uses_batch_statistics
from trainables.optimise import Learner, batch_gradient, in_batches
from trainables.payloads import DistilledSet, load_tensors, save_tensors


def distill(origin: Origin, settings: IDMSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by matching means in networks that are being trained.

    A checkpoint holds the images, their momentum, and every network of the queue with its momentum and its count of
    real images that it named correctly.

    Differs from the authors' code: the classes' turns are computed together, to the same result (``step_in_turns``); a
    real start's tiles are shrunk as IDC shrinks them (theirs are smoothed); how often a network was right is counted
    from its first step to its last, where theirs begin anew at each look at the test images; the networks that are
    trained are different ones, and no image is twice among those of a turn; everything random is derived from (seed,
    purpose, step), and the last set counts, not the best on test images.

    Raises:
        StageFailure: The loss, an image or the training of a network is not finite.
        ValueError: A class has fewer images than the start takes, or batch norm would be trained on one image.
    """
    images, indices = context.initial_tiles(origin, settings.factor)
    momentum, queue = torch.zeros_like(images), Queue(settings, context)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / "idm.safetensors")
        images, momentum = saved["images"].to(images.device), saved["momentum"].to(images.device)
        queue.load(saved)

    def save(folder: pathlib.Path) -> None:
        save_tensors(folder / "idm.safetensors", {**queue.state(), "images": images, "momentum": momentum})

    for iteration in context.iterations(settings.iterations, start=done, save=save):
        queue.grow(iteration)
        member = queue.drawn(1, context.generator("network", iteration))[0]
        weight, blamed = settings.ce_weight * member.percent, context.to_lower(images, trained=iteration > 0)
        batches, omegas = context.real_batches(origin, settings.batch_real, iteration), context.omegas(iteration)
        distances = step_in_turns(
            images,
            momentum,
            _matching(member.network, weight, origin, batches, omegas, settings, context),
            num_classes=context.num_classes,
            lr=settings.lr_img,
            decay=settings.momentum_img,
        )
        context.check_loss(float(distances.sum()), iteration, blamed)
        context.check_images(images, iteration, blamed)
        if iteration + 1 < settings.iterations:
            queue.train(origin, iteration)
    return context.finish(images, indices, iterations=settings.iterations, factor=settings.factor)


def _matching(
    network: Network,
    weight: float,
    origin: Origin,
    batches: Sequence[Tensor],
    omegas: augment.Params | None,
    settings: IDMSettings,
    context: DistillContext,
) -> GradientAt:
    """The loss of each class and its gradient.

    Args:
        network: Frozen, in evaluation mode.
        weight: v a.
        batches: For each class, the positions of its real images.
    """
    sizes, ipc, dataset = SIZES[origin.images.device.type], context.ipc, context.config.dataset
    targets = real_means(embedding(network), False, origin.images, batches, omegas)
    decoded = ipc * settings.factor**2

    def gradient_at(images: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = [], torch.empty_like(images)
        for first, last in groups([decoded] * len(batches), sizes.matched):
            rows, each = slice(first * ipc, last * ipc), [decoded] * (last - first)
            leaf = images[rows].detach().requires_grad_()
            shown = decode(denormalise(leaf, dataset.mean, dataset.std), settings.factor, last - first)
            shown = normalise(shown, dataset.mean, dataset.std)
            embedded = network.embed(augmented(shown, rows_of(omegas, first, last), each))
            own = (targets[first:last] - class_means(embedded, each)).square().sum(1)
            if weight:
                classes = torch.arange(first, last, device=images.device).repeat_interleave(decoded)
                missed = F.cross_entropy(network.classifier(embedded), classes, reduction="none")
                own = own + weight * missed.view(last - first, -1).mean(1)
            (gradient[rows],) = torch.autograd.grad(own.sum(), leaf)
            losses.append(own.detach())
        return torch.cat(losses), gradient

    return gradient_at


# --- the networks -----------------------------------------------------------------------------------------------------


class Member:
    """A network of the queue.

    Attributes:
        number: How many entered before it: the seed of its weights.
        learner: The network with its optimiser.
        right: Of the real images of its training, how many it named correctly.
        seen: How many there were.
    """

    def __init__(self, number: int, settings: IDMSettings, context: DistillContext) -> None:
        self.number, self.right, self.seen = number, 0, 0
        self.learner = Learner.of(
            context.network(number).eval(),
            lr=settings.lr_net,
            momentum=settings.momentum_net,
            weight_decay=settings.weight_decay_net,
        )

    @property
    def network(self) -> Network:
        return self.learner.network

    @property
    def percent(self) -> float:
        """Train accuracy so far, 0 to 100; 0 of a network that was not trained."""
        return 100 * self.right / self.seen if self.seen else 0.0

    def train(self, origin: Origin, batches: Sequence[Tensor], context: DistillContext) -> list[Tensor]:
        """A step along the gradient of each batch, without augmentation; returns the losses."""
        right = torch.zeros((), dtype=torch.int64, device=origin.images.device)

        def counted(logits: Tensor, classes: Tensor, reduction: Literal["sum", "none"]) -> Tensor:
            right.add_((logits.detach().argmax(1) == classes).sum())
            return hard_loss(logits, classes, reduction)

        losses = []
        self.network.train()
        for rows in batches:
            context.poll()
            losses.append(batch_gradient(self.network, origin.images[rows], origin.labels[rows], loss_of=counted))
            self.learner.step()
        self.network.eval()
        self.right, self.seen = self.right + int(right), self.seen + sum(len(rows) for rows in batches)
        return losses


class Queue:
    """The networks, from the oldest on.

    Attributes:
        members: At most ``settings.queue``.
    """

    def __init__(self, settings: IDMSettings, context: DistillContext) -> None:
        self._settings, self._context = settings, context
        self.members = [Member(number, settings, context) for number in range(settings.first_networks)]
        self._drop()

    def grow(self, iteration: int) -> None:
        """A new network every ``net_interval`` iterations, from the first on."""
        if iteration % self._settings.net_interval == 0:
            number = self._settings.first_networks + iteration // self._settings.net_interval
            self.members.append(Member(number, self._settings, self._context))
            self._drop()

    def _drop(self) -> None:
        self.members = self.members[-self._settings.queue :]

    def drawn(self, count: int, generator: torch.Generator) -> list[Member]:
        """Different members, at random; all where there are no more."""
        return [self.members[index] for index in torch.randperm(len(self.members), generator=generator)[:count]]

    def train(self, origin: Origin, iteration: int) -> None:
        """Train some networks on real images, each image at most once, without augmentation.

        Raises:
            StageFailure: A loss is not finite.
            ValueError: Batch norm would be trained on one image.
        """
        settings, context = self._settings, self._context
        for member in self.drawn(settings.networks_trained, context.generator("trained", iteration)):
            generator = context.generator("batches", iteration, member.number)
            order = torch.randperm(len(origin.labels), generator=generator)[: settings.net_steps * settings.batch_net]
            batches = in_batches(
                order.to(origin.images.device),
                settings.batch_net,
                batch_statistics=uses_batch_statistics(member.network),
                who="idm",
                setting="settings.idm.batch_net",
            )
            context.check_training(member.train(origin, batches, context), iteration)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by the number of each member."""
        state: dict[str, Tensor] = {}
        for member in self.members:
            own = {**member.learner.state(), "counts": torch.tensor([member.right, member.seen])}
            state |= {f"{member.number}.{name}": tensor for name, tensor in own.items()}
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what ``state`` gave."""
        numbers = sorted({int(name.split(".")[0]) for name in state if name[0].isdigit()})
        self.members = [Member(number, self._settings, self._context) for number in numbers]
        for member in self.members:
            prefix = f"{member.number}."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            member.right, member.seen = own.pop("counts").tolist()
            member.learner.load(own)
