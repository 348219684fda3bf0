"""DataDAM: dataset distillation with attention matching (Sajedi et al., ICCV 2023; main_DataDAM.py, utils.py;
methods2.md 3.3).

With h_l the output (n, channels, h, w) of a random network's ReLU number l of L,

    A_l(x) = vec(sum over channels |h_l|^p), scaled to norm 1
    loss = 100 sum over l < L, c of || mean A_l(T_c) - mean A_l(S_c) ||^2
         + 100 lambda sum over c of || mean psi(T_c) - mean psi(S_c) ||^2

psi is the embedding, and the last ReLU is left out. That is distribution matching (``distributions.py``) of

    phi = 10 (A_1, ..., A_(L-1), sqrt(lambda) psi)
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.data.origins import Origin
from trainables.distill.context import DistillContext
from trainables.distill.distributions import Features, match_means
from trainables.methods import DataDAMSettings
from trainables.models.network import Network
from trainables.payloads import DistilledSet

SCALE = 100.0
"""Of both parts of the loss."""


def distill(origin: Origin, settings: DataDAMSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by matching attention maps and embeddings.

    Differs from the authors' code: starts are drawn as every method's (theirs are files of chosen images, and how they
    were chosen is not said); a class gives what it has where theirs needs ``batch_real`` images of every class; there
    is no choice among sets by test accuracy; no clock seeds anything.

    Raises:
        StageFailure: The loss or an image is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from.
    """
    features = partial(attention_and_embedding, power=settings.attention_power, balance=settings.task_balance)
    return match_means(origin, settings, context, features)


def attention_and_embedding(network: Network, *, power: int, balance: float) -> Features:
    """The features phi of a network.

    Args:
        power: p.
        balance: lambda.
    """

    def features(images: Tensor) -> Tensor:
        maps: list[Tensor] = []

        def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            maps.append(attention(output.to(images.dtype), power))

        hooks = [module.register_forward_hook(keep) for module in network.modules() if isinstance(module, nn.ReLU)]
        try:
            embedded = network.embed(images)
        finally:
            for hook in hooks:
                hook.remove()
        return math.sqrt(SCALE) * torch.cat([*maps[:-1], math.sqrt(balance) * embedded], 1)

    return features


def attention(maps: Tensor, power: int) -> Tensor:
    """Where a layer's channels are active: (n, h * w) of norm 1, of an image without any activity 0.

    Args:
        maps: (n, channels, h, w), what a ReLU puts out: 0 or more.
        power: p of |.|^p.
    """
    powers = maps if power == 1 else maps.pow(power)
    return F.normalize(powers.sum(1).flatten(1), dim=1)
