"""DP-DM: distribution matching of noisy class means, with a guarantee of differential privacy (methods2.md 5.2; after
Zheng & Li 2023, and DOSSER).

In each of R rounds, with a public random network psi_r and one augmentation A_rc per class,

    s_rc = sum over images x of class c whose coin (probability q) says so of psi_r(A_rc x) / max(C, ||psi_r(A_rc x)||)
    t_rc = (s_rc + N(0, sigma^2)) / (q N)

N is the public size of a class. The t_rc are all that is ever released of the images, once each. Without them, from
noise and for as many iterations as one likes, iteration i descends in

    L = sum over c of || t_rc - mean over S_c of psi_r(A_rc s) / max(C, ||psi_r(A_rc s)||) ||^2,    r = i mod R

(``distributions.py``). An image is of one class only, so the guarantee of R rounds is that of all classes together
(``guarantee.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data.origins import Origin
from trainables.distill.context import DistillContext, initial_images
from trainables.distill.distributions import Features, descend, embedding, match_targets
from trainables.distill.matching import SIZES, augmented, rows_of
from trainables.guarantee import Guarantee
from trainables.methods import DPDMSettings
from trainables.models.network import Network
from trainables.payloads import DistilledSet


def distill(origin: Origin, settings: DPDMSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` with a guarantee, which the set's facts state (``private``).

    Taken as public: which classes there are, how many images each has (of an origin of so many per class that number,
    even where coins chose them), and the data set's constants for normalising. Settings are chosen without privacy.

    Differs from DOSSER's program: every sum has one noise, where its has a fresh one at each use, which adds up to a
    release each time; images join by independent coins, as the accounting presumes, where its batches have a fixed
    size. Our loss is its divided by (q N)^2, in units of C.

    Raises:
        StageFailure: The loss or an image is not finite.
        ValueError: No noise gives the guarantee.
    """
    images, indices = initial_images(
        origin, context.ipc, "noise", context.config.distill_seed, context.config.origin.classes
    )
    if settings.iterations == 0:
        return context.finish(images, indices, iterations=0)
    size = context.config.origin.per_class or min(len(members) for members in origin.by_class)
    rate = min(1.0, settings.batch_real / size)
    guarantee = Guarantee.of(
        settings.epsilon, delta=settings.delta, clip=settings.clip, rate=rate, rounds=settings.rounds
    )
    sizes = SIZES[origin.images.device.type]
    kept: dict[int, Tensor] = {}

    def step(iteration: int, images: Tensor) -> tuple[float, Tensor]:
        number = iteration % settings.rounds
        network = context.network(number).requires_grad_(False)
        if number not in kept:  # after an interruption it is made again: the same sum with the same noise
            kept[number] = noisy_means(network, origin, guarantee, rate * size, number, context).cpu()
        phi, targets = clipped(network, settings.clip), kept[number].to(images.device)
        omegas = context.omegas(number)
        return match_targets(phi, False, targets, images, context.ipc, omegas, min(sizes.group, sizes.chunk))

    images = descend(images, settings, context, step)
    return context.finish(images, indices, iterations=settings.iterations, private=guarantee.facts)


def clipped(network: Network, clip: float) -> Features:
    """Embeddings, of a norm above ``clip`` shortened to it, in units of it: of norm 1 at most."""

    def features(images: Tensor) -> Tensor:
        embedded = embedding(network)(images)
        norms: Tensor = embedded.norm(dim=1, keepdim=True)
        return embedded / norms.clamp_min(clip)

    return features


@torch.no_grad()
def noisy_means(
    network: Network, origin: Origin, guarantee: Guarantee, expected: float, number: int, context: DistillContext
) -> Tensor:
    """The t_rc of a round: (K, F), in units of the clipping norm.

    Args:
        network: Of the round.
        expected: Images of a class that coins choose on average, q N.
        number: Of the round, from 0.
    """
    coins, noise = context.generator("coins", number), context.generator("noise", number)
    phi, omegas = clipped(network, guarantee.clip), context.omegas(number)
    sums = []
    for index, members in enumerate(origin.by_class):
        chosen = members[(torch.rand(len(members), generator=coins) < guarantee.rate).to(members.device)]
        images = augmented(origin.images[chosen], rows_of(omegas, index, index + 1), [len(chosen)])
        parts = torch.split(images, SIZES[images.device.type].chunk) if len(chosen) else ()
        empty = torch.zeros(network.embedding_size, device=images.device)
        sums.append(sum((phi(part).sum(0) for part in parts), empty))
    drawn = torch.randn(len(sums), network.embedding_size, generator=noise).to(origin.images.device)
    return (torch.stack(sums) + guarantee.noise * drawn) / expected
