"""NCFM: dataset distillation with the neural characteristic function (Wang et al., CVPR 2025; methods2.md 3.2), in the
configuration that its authors' files have: frequencies are drawn, no network learns them.

With f(x) an image's embedding, scaled to norm 1, the characteristic function of images X at a frequency t is

    Phi_X(t) = mean over x of exp(i <t, f(x)>)

and, for real images T_c and decoded ones S_c of a class under one augmentation, over M frequencies t ~ N(0, I),

    L_c = 300 / M sum over t of sqrt( (|Phi_T| - |Phi_S|)^2 / 2 + max(5e-13, p) )
    p = |Phi_T| |Phi_S| - Re Phi_T Re Phi_S - Im Phi_T Im Phi_S

which but for the floor is 300 / sqrt(2) times the mean of |Phi_T - Phi_S|. An iteration:

    theta <- l theta_0 + (1 - l) theta_1, l uniform, of a network before and after its training (``experts.py``)
    S <- clamp(S, 0, 1)
    for each class c in turn: one step of the optimiser over all of S, down the gradient of L_c with respect to S_c
    for each class c in turn: the same of the cross-entropy of theta_1 on S_c (calibration)
    halve the rate where the mean of L_c has been no better for ``patience`` iterations

K classes, n stored images of a class, factor f: n f^2 decoded ones; F numbers in an embedding. Stored images
(K n, C, H, W) are in pixel space.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import vector_to_parameters

from trainables.data import augment
from trainables.data.origins import Origin
from trainables.data.pixels import decode, normalise
from trainables.distill.context import DistillContext
from trainables.distill.matching import SIZES, augmented, rows_of
from trainables.files import load_json, save_json
from trainables.methods import NCFMSettings
from trainables.models.network import Network
from trainables.payloads import DistilledSet, StoredExpert, load_tensors, save_tensors

SCALE = 300.0
"""Of the loss."""
FLOOR = 5e-13
"""Of the second part: the square root has a gradient there."""
BETTER = 1e-4
"""By which share a loss must be smaller to count as better."""


def distill(origin: Origin, settings: NCFMSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by matching characteristic functions.

    A checkpoint holds the images, what the optimiser keeps of them, and the rate with what decides about it.

    Differs from the authors' code: each turn draws its real images anew (their loader gives the first ones of each
    class for ever); a class's decoded images are those of its turn (theirs are an iteration old); a real start takes
    random images of each class, not the first ones; images are clamped when they are handed on as well; everything
    random is derived from (seed, purpose, step).

    Raises:
        StageFailure: The loss or an image is not finite.
        ValueError: A class has fewer images than the start takes.
    """
    strategy = augment.idc_strategy(settings.match_aug, context.config.dataset.flip)
    images, indices = context.initial_pixels(origin, settings.factor)
    learned, networks = Learned(images, settings), Pairs(settings, context)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        learned.load(folder)
    for iteration in context.iterations(settings.iterations, start=done, save=learned.save):
        learned.clamp()
        between, trained = networks.at(iteration)
        matched, calibrated = (context.omegas(iteration, turns, strategy=strategy) for turns in range(2))
        losses = []
        for index in range(context.num_classes):
            shown = _Shown(learned.images, index, settings, context, matched)
            losses.append(learned.step(_matching(between, origin, shown, settings, context, iteration)))
        for index in range(context.num_classes if settings.calibration else 0):
            shown = _Shown(learned.images, index, settings, context, calibrated)
            learned.step(settings.calibration * _calibration(trained, shown))
        mean = float(torch.stack(losses).mean())
        context.check_loss(mean, iteration)
        context.check_images(learned.images.detach(), iteration)
        learned.judge(mean)
    learned.clamp()
    return context.finish(
        learned.images.detach(),
        indices,
        in_pixels=True,
        iterations=settings.iterations,
        factor=settings.factor,
        rate_last=learned.rate,
    )


# --- the loss ---------------------------------------------------------------------------------------------------------


def characteristic_distance(real: Tensor, synthetic: Tensor, frequencies: Tensor) -> Tensor:
    """L_c of embeddings.

    Args:
        real: (B, F) of real images, as the network gives them.
        synthetic: (n, F) of distilled ones; differentiable.
        frequencies: t (M, F).
    """
    (real_re, real_im), (own_re, own_im) = (characteristic(each, frequencies) for each in (real, synthetic))
    real_size, own_size = _modulus(real_re, real_im), _modulus(own_re, own_im)
    sizes = (real_size - own_size).square()
    phases = real_size * own_size - real_re * own_re - real_im * own_im
    return SCALE * (sizes / 2 + phases.clamp_min(FLOOR)).sqrt().mean()


def characteristic(embedded: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part (M,) of the characteristic function of embeddings (n, F), scaled to norm 1."""
    angles = F.normalize(embedded, dim=1) @ frequencies.T
    return angles.cos().mean(0), angles.sin().mean(0)


def _modulus(real: Tensor, imaginary: Tensor) -> Tensor:
    return (real.square() + imaginary.square()).clamp_min(1e-24).sqrt()  # at 0 it has no gradient


class _Shown:
    """What networks see in a class's turn.

    Attributes:
        index: Of the class.
        omega: Its augmentation, for real images as for its own.
        images: Its decoded images (n * f^2, C, H, W), which lead back to the stored ones.
    """

    def __init__(
        self,
        stored: Tensor,
        index: int,
        settings: NCFMSettings,
        context: DistillContext,
        omegas: augment.Params | None,
    ) -> None:
        dataset, own = context.config.dataset, stored[index * context.ipc : (index + 1) * context.ipc]
        decoded = normalise(decode(own, settings.factor), dataset.mean, dataset.std)
        self.index, self.omega = index, rows_of(omegas, index, index + 1)
        self.images = augmented(decoded, self.omega, [len(decoded)])


def _matching(
    network: Network,
    origin: Origin,
    shown: _Shown,
    settings: NCFMSettings,
    context: DistillContext,
    iteration: int,
) -> Tensor:
    """L_c."""
    members = origin.by_class[shown.index]
    order = torch.randperm(len(members), generator=context.generator("real", iteration, shown.index))
    rows = members[order[: settings.batch_real].to(members.device)].to(origin.images.device)
    with torch.no_grad():
        seen = augmented(origin.images[rows], shown.omega, [len(rows)])
        real = torch.cat([network.embed(part) for part in torch.split(seen, SIZES[seen.device.type].chunk)])
    drawn = context.generator("frequencies", iteration, shown.index)
    frequencies = torch.randn(settings.frequencies, real.shape[1], generator=drawn).to(real.device)
    return characteristic_distance(real, network.embed(shown.images), frequencies)


def _calibration(network: Network, shown: _Shown) -> Tensor:
    """The cross-entropy of a trained network."""
    logits = network(shown.images)
    return F.cross_entropy(logits, torch.full((len(logits),), shown.index, device=logits.device))


# --- what is learned --------------------------------------------------------------------------------------------------


class Learned:
    """The images, their optimiser, and the rate with what decides about it.

    Attributes:
        images: (K * n, C, H, W), in pixel space.
        rate: The learning rate from now on.
    """

    def __init__(self, images: Tensor, settings: NCFMSettings) -> None:
        self.images = images.clone().requires_grad_()
        self.rate = settings.lr_img
        self._patience = settings.patience
        self._best, self._waited = math.inf, 0
        self._optimiser: torch.optim.Optimizer
        if settings.optimiser == "adamw":
            self._optimiser = torch.optim.AdamW([self.images], lr=self.rate, weight_decay=settings.weight_decay_img)
        else:
            self._optimiser = torch.optim.SGD([self.images], lr=self.rate, momentum=settings.momentum_img)

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the images back into [0, 1]."""
        self.images.clamp_(0, 1)

    def step(self, loss: Tensor) -> Tensor:
        """One step of all images down the gradient of a loss; returns the loss, detached."""
        (self.images.grad,) = torch.autograd.grad(loss, self.images)
        self._optimiser.step()
        self.images.grad = None
        return loss.detach()

    def judge(self, loss: float) -> None:
        """Halve the rate after more than ``patience`` iterations in a row that were no better than the best."""
        if loss < self._best * (1 - BETTER):
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        if self._waited > self._patience:
            self.rate, self._waited = self.rate / 2, 0
            for group in self._optimiser.param_groups:
                group["lr"] = self.rate

    def save(self, folder: Path) -> None:
        """Write ``ncfm.safetensors`` and ``ncfm.json`` into an existing folder."""
        kept = {f"kept.{name}": value for name, value in self._optimiser.state[self.images].items()}
        save_tensors(folder / "ncfm.safetensors", {"images": self.images.detach(), **kept})
        save_json(folder / "ncfm.json", {"rate": self.rate, "best": self._best, "waited": self._waited})

    def load(self, folder: Path) -> None:
        """Take up what ``save`` wrote."""
        saved, numbers = load_tensors(folder / "ncfm.safetensors"), load_json(folder / "ncfm.json")
        with torch.no_grad():
            self.images.copy_(saved.pop("images"))
        for name, value in saved.items():
            like = self.images if value.ndim else value
            self._optimiser.state[self.images][name.removeprefix("kept.")] = value.to(like.device)
        self.rate, self._best, self._waited = numbers["rate"], numbers["best"], numbers["waited"]
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate


class Pairs:
    """The networks before and after their training, and what lies between them."""

    def __init__(self, settings: NCFMSettings, context: DistillContext) -> None:
        self._context = context
        numbers = range(settings.num_networks if settings.length else 0)
        self._stored = [StoredExpert(context.inputs[f"expert.{number}"]) for number in numbers]
        self._between, self._trained = (context.network(0).requires_grad_(False) for _ in range(2))

    def at(self, iteration: int) -> tuple[Network, Network]:
        """A network on the straight line between the two ends of a pair, and the pair's trained end."""
        generator = self._context.generator("network", iteration)
        pair = self._stored[int(torch.randint(len(self._stored), (), generator=generator))]
        share = float(torch.rand((), generator=generator))
        first, last = pair.snapshot(0), pair.snapshot(len(pair) - 1)
        for network, weights in ((self._between, share * first + (1 - share) * last), (self._trained, last)):
            parameters = list(network.parameters())
            vector_to_parameters(weights.to(parameters[0].device), parameters)
        return self._between, self._trained
