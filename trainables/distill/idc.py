"""IDC: dataset condensation via efficient synthetic-data parameterisation (Kim et al., ICML 2022; condense.py).
methods.md section 6. With factor 1 it is the paper's IDC-I.

    for each new random network theta: S <- clamp(S, 0, 1), and ``inner_loop`` times
        for each class c in turn: one step of one optimiser over all of S, down the gradient with respect to S_c of
            D(grad loss(A_w(normalise(decode(S_c)))), grad loss(A_w(T_c)))
        train theta on real images

DREAM (Liu et al., ICCV 2023; methods2.md 3.4) is the same with T_c chosen: the images nearest to the centres of the
class's clusters under theta, anew every ``interval`` steps.

So, unlike DSA's, the networks learn from real images. D looks at the convolutions' weights alone.

K classes, n stored images of a class, factor f: n f^2 decoded ones. Stored images (K n, C, H, W) are in [0, 1] pixel
space; the origin's images, and what the network sees, are normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.data import augment
from trainables.data.origins import Origin
from trainables.data.pixels import decode, normalise
from trainables.distill.context import DistillContext
from trainables.distill.matching import Decode, Distance, GradientAt, match_gradients, step_in_turns
from trainables.distill.representatives import representatives
from trainables.methods import IDCSettings
from trainables.models.network import Network, uses_batch_statistics
from trainables.optimise import Learner, Mix, batch_gradient, in_batches
from trainables.payloads import DistilledSet, load_tensors, save_tensors

CHOSEN = "chosen."
"""Before a class's number: the tensor of its chosen images in a checkpoint."""


def distill(origin: Origin, settings: IDCSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` into images that each hold several.

    A checkpoint holds the images, their momentum and, between two steps with one network, that network and its
    momentum. The networks' batches follow from iteration and loop, so there is no position in the data to remember.

    Differs from the authors' code: the classes' turns are computed together, to the same result (``step_in_turns``);
    images are clamped when they are handed on as well; a real start takes random images of each class, not the first
    ones, and may be laid out ``whole``; everything random is derived from (seed, purpose, step); a class with fewer
    real images than a batch gives all it has; every step draws its class batches, and the permutation its network is
    trained on, anew, where theirs run on through an epoch; a network is not trained after its last step, where nothing
    would see it;
    DREAM starts as IDC does (theirs from cluster centres), because every method here starts from the same images;
    batch norm is in evaluation mode while gradients are matched, with the statistics of the training on real images
    (before the first training: of a fresh network).

    Raises:
        StageFailure: The loss, an image or the network's training is not finite.
        ValueError: A class has fewer images than the start takes, or batch norm would be trained on one image.
    """
    images, indices = context.initial_pixels(origin, settings.factor if settings.layout == "mix" else 1)
    momentum = torch.zeros_like(images)
    lr_img = settings.lr_img(context.ipc, context.config.dataset.image_size)
    learner: Learner | None = None
    chosen: list[Tensor] = []
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / "idc.safetensors")
        images, momentum = saved.pop("images").to(images.device), saved.pop("momentum").to(images.device)
        names = sorted((name for name in saved if name.startswith(CHOSEN)), key=lambda name: int(name[len(CHOSEN) :]))
        chosen = [saved.pop(name).to(images.device) for name in names]
        if done % settings.inner_loop:
            learner = fresh_learner(settings, context, done // settings.inner_loop)
            learner.load(saved, "net_momentum")

    def save(folder: Path) -> None:
        state = {} if learner is None else learner.state("net_momentum")
        state |= {f"{CHOSEN}{number}": rows for number, rows in enumerate(chosen)}
        save_tensors(folder / "idc.safetensors", {**state, "images": images, "momentum": momentum})

    for step in context.iterations(settings.iterations, start=done, save=save, unit="step"):
        iteration, turn = divmod(step, settings.inner_loop)
        if learner is None:
            learner = fresh_learner(settings, context, iteration)
            images.clamp_(0, 1)
        if not settings.clustered:
            batches = context.real_batches(origin, settings.batch_real, iteration, turn)
        else:
            count, interval = settings.clustered
            if turn % interval == 0:
                chosen = representatives(origin, learner.network, count, context.generator("clusters", iteration, turn))
            batches = chosen
        gradient_at = _matching(origin, batches, learner.network, settings, context, (iteration, turn))
        blamed = context.to_lower(images, "lr_base", trained=turn > 0)
        distances = step_in_turns(
            images, momentum, gradient_at, num_classes=context.num_classes, lr=lr_img, decay=settings.momentum_img
        )
        context.check_loss(float(distances.sum()), step, blamed)
        context.check_images(images, step, blamed)
        if turn + 1 < settings.inner_loop:
            _train(learner, origin, settings, context, (iteration, turn))
        else:
            learner = None

    return context.finish(
        images.clamp(0, 1), indices, in_pixels=True, iterations=settings.iterations, factor=settings.factor
    )


def squared_distance(synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """The sum of the squared differences of all gradients (``mse``), one number per class: (G,)."""
    return _summed([(own - target).square() for own, target in zip(synthetic, real, strict=True)])


def absolute_distance(synthetic: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """The sum of their absolute values (``l1``): (G,)."""
    return _summed([(own - target).abs() for own, target in zip(synthetic, real, strict=True)])


def _summed(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)


DISTANCES: dict[str, Distance] = {"mse": squared_distance, "l1": absolute_distance}


def matched_weights(network: Network) -> list[str]:
    """Names of the parameters that are matched: the convolutions' weights, without biases, norms and classifier."""
    return [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]


def _matching(
    origin: Origin,
    batches: Sequence[Tensor],
    network: Network,
    settings: IDCSettings,
    context: DistillContext,
    step: tuple[int, int],
) -> GradientAt:
    """The matching of one step: its augmentations and, of too many decoded images, the ones drawn.

    Args:
        batches: For each class, the positions of its real images.
    """
    strategy = augment.idc_strategy(settings.match_aug, context.config.dataset.flip)
    omegas = context.omegas(*step, strategy=strategy)
    weights, distance = matched_weights(network), DISTANCES[settings.metric]
    shown = _shown(settings, context, step)
    return lambda images: match_gradients(
        network, weights, distance, origin.images, batches, images, omegas, decode=shown
    )


def _shown(settings: IDCSettings, context: DistillContext, step: tuple[int, int]) -> Decode:
    """From stored images in pixel space to what the network sees, at most ``batch_syn_max`` images of each class."""
    dataset, each = context.config.dataset, context.ipc * settings.factor**2
    drawn: Tensor | None = None
    if each > settings.batch_syn_max:
        generator = context.generator("subset", *step)
        orders = [torch.randperm(each, generator=generator) for _ in range(context.num_classes)]
        drawn = torch.stack(orders)[:, : settings.batch_syn_max]

    def show(images: Tensor, first: int, last: int) -> Tensor:
        decoded = decode(images, settings.factor, last - first)
        if drawn is not None:
            rows = drawn[first:last] + each * torch.arange(last - first)[:, None]
            decoded = decoded.index_select(0, rows.flatten().to(images.device))
        return normalise(decoded, dataset.mean, dataset.std)

    return show


def fresh_learner(settings: IDCSettings, context: DistillContext, iteration: int) -> Learner:
    """A fresh network, in evaluation mode except while it is trained."""
    return Learner.of(
        context.network(iteration).eval(),
        lr=settings.lr_net,
        momentum=settings.momentum_net,
        weight_decay=settings.weight_decay_net,
    )


def _train(
    learner: Learner, origin: Origin, settings: IDCSettings, context: DistillContext, step: tuple[int, int]
) -> None:
    """Train on real images: consecutive batches of a new permutation until ``net_images`` are reached. With batch norm
    a last image alone is left out."""
    network, device = learner.network, origin.images.device
    strategy = augment.idc_strategy(settings.net_aug, context.config.dataset.flip)
    wanted = -(-settings.net_images // settings.batch_real) * settings.batch_real
    order = torch.randperm(len(origin.labels), generator=context.generator("order", *step))[:wanted].to(device)
    statistics = uses_batch_statistics(network)
    if statistics and len(order) > 1 and len(order) % settings.batch_real == 1:
        order = order[:-1]
    batches = in_batches(
        order,
        settings.batch_real,
        batch_statistics=statistics,
        who=context.config.method,
        setting=f"settings.{context.config.method}.batch_real",
    )
    losses = []
    network.train()
    for number, rows in enumerate(batches):
        context.poll()
        params = None
        if context.strategy is not None:
            generator = context.generator("train", *step, number)
            params = augment.sample(strategy, len(rows), shared=False, generator=generator)
        mix = Mix(settings.cutmix, 0.0, context.generator("cutmix", *step, number))
        losses.append(batch_gradient(network, origin.images[rows], origin.labels[rows], params=params, mix=mix))
        learner.step()
    context.check_training(losses, step[0] * settings.inner_loop + step[1])
    network.eval()
