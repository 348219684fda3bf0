"""FairDD on distribution matching (NeurIPS 2025; methods2.md 6.3): every group of a class pulls alike.

    L = sum over classes c and groups g of || m_cg - s_c ||^2

with m_cg the mean embedding of the real images of class c and group g in a batch, s_c that of the class's distilled
images. With G groups in the batch and m_c the mean of the m_cg that is

    G || m_c - s_c ||^2 + sum over g of || m_cg - m_c ||^2

of which the second part does not depend on the distilled images. So it is DM (``dm.py``) towards the mean of the
groups, a class's gradient times its G; and DM itself where there is one group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data.origins import Origin
from trainables.distill.context import DistillContext
from trainables.distill.distributions import descend, embedding, match_targets, real_means
from trainables.distill.matching import SIZES
from trainables.methods import FairDDSettings
from trainables.models.network import uses_batch_statistics
from trainables.payloads import DistilledSet


def distill(origin: Origin, settings: FairDDSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` towards the means of its classes' groups.

    The loss that is reported is || m_c - s_c ||^2, summed over classes.

    Differs from the authors' code as ``dm.py`` does. Who is of which group follows from the data set
    (``data/groups.py``), not from a global random state. A start from real images leans as they do.

    Raises:
        StageFailure: The loss or an image is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from.
    """
    chunk = SIZES[origin.images.device.type].chunk

    def step(iteration: int, images: Tensor) -> tuple[float, Tensor]:
        network = context.network(iteration).requires_grad_(False)
        whole, omegas = uses_batch_statistics(network), context.omegas(iteration)
        parts, counts = by_group(context.real_batches(origin, settings.batch_real, iteration), origin.groups)
        owners = None if omegas is None else omegas.repeat(counts)
        means = real_means(embedding(network), whole, origin.images, parts, owners)
        targets = torch.stack([of_class.mean(0) for of_class in torch.split(means, counts)])
        loss, gradient = match_targets(embedding(network), whole, targets, images, context.ipc, omegas, chunk)
        if settings.summed:
            times = torch.tensor(counts, device=gradient.device, dtype=gradient.dtype)
            gradient = gradient * times.repeat_interleave(context.ipc).view(-1, 1, 1, 1)
        return loss, gradient

    images, indices = context.initial_images(origin)
    return context.finish(descend(images, settings, context, step), indices, iterations=settings.iterations)


def by_group(batches: list[Tensor], members: Tensor | None) -> tuple[list[Tensor], list[int]]:
    """The batch of each class cut into its groups, those that it has, and how many these are for each class.

    Args:
        batches: For each class, rows of the origin.
        members: (N,) the group of each image of the origin; None: all are of one.
    """
    parts, counts = [], []
    for batch in batches:
        own = torch.zeros_like(batch) if members is None else members[batch]
        found = [batch[own == group] for group in sorted(set(own.tolist()))]
        parts += found
        counts.append(len(found))
    return parts, counts
