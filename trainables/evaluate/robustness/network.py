"""The network as an attack sees it: images in [0, 1] in, logits out, and nothing of it changes; and norms of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainables.attacks import LpNorm
from trainables.data.pixels import Whitening
from trainables.device import laid_out
from trainables.models.network import build
from trainables.payloads import TrainedModel

BATCH = {"cpu": 32, "cuda": 250}
"""Images per batch. DeepFool works on all of a batch until the last one is done; on a CPU small batches also stay in
the cache. What an attack finds for an image does not depend on it, save AutoAttack, whose draws are a batch's."""
TOLERANCE = {"linf": 1e-6, "l2": 1e-5}
"""By how much rounding may carry a perturbation beyond its budget."""


class Batch(NamedTuple):
    """Images that are attacked at once."""

    pixels: Tensor
    """(b, C, H, W) float32 in [0, 1], on the network's device."""
    labels: Tensor
    """(b,) int64 positions, on the network's device."""
    ids: Tensor
    """(b,) int64 canonical test indices, on the CPU."""
    num_classes: int
    """K."""


class PixelNetwork(nn.Module):
    """A network with what it expects of its input in front: epsilons and bounds are those of images in [0, 1].

    Args:
        network: Takes normalised, or normalised and then whitened images (N, C, H, W).
        mean: (C,) of images in [0, 1].
        std: (C,) likewise.
        whitening: What the network was trained on, instead of normalised images.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    matrix: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], whitening: Whitening | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        if whitening is not None:
            self.register_buffer("centre", whitening.mean)
            self.register_buffer("matrix", whitening.matrix)
        self._whitens = whitening is not None

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]."""
        if self._whitens:  # of pixels: Whitening.whiten undoes the normalisation first
            images = ((pixels.flatten(1) - self.centre) @ self.matrix).view(pixels.shape)
        else:
            images = (pixels - self.mean) / self.std
        logits: Tensor = self.network(laid_out(images))
        return logits


def pixel_network(model: TrainedModel, device: str) -> PixelNetwork:
    """A trained model as an attack sees it, on the device, in evaluation mode."""
    network = build(model.network, "attack", device=device)
    network.load_state_dict(model.state)
    return PixelNetwork(network, model.mean, model.std, model.whitening).to(device).eval()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and parameters without gradients inside; both are as they were afterwards.

    foolbox only warns of a network in train mode, whose statistics then move, and its backward passes would fill
    ``.grad`` of every parameter.

    Raises:
        AssertionError: Something changed a parameter or a buffer.
    """
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.eval()
    network.requires_grad_(False)
    before = _digest(network)
    try:
        yield
        assert _digest(network) == before, "an attack changed the network"
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def norms(perturbation: Tensor, norm: LpNorm) -> Tensor:
    """L2 or Linf norm (b,) of each perturbation."""
    flat = perturbation.flatten(1)
    lengths: Tensor = flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1)
    return lengths


def check_within(pixels: Tensor, adversarial: Tensor, epsilon: float, norm: LpNorm) -> None:
    """Make sure of the budget, and of the bounds [0, 1].

    Raises:
        AssertionError: An attack broke its own rules.
    """
    furthest = float(norms((adversarial - pixels).double(), norm).max())
    assert furthest <= epsilon + TOLERANCE[norm], f"{norm} {furthest} > {epsilon}"
    assert -1e-6 <= float(adversarial.min()) <= float(adversarial.max()) <= 1 + 1e-6, "outside [0, 1]"
