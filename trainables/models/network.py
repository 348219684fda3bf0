"""What every network offers, what networks are made of, and how one is built. No architecture lives here.

``build`` goes from a ``NetworkConfig`` and a seed to a ``Network``: an embedding and a linear classifier on top. Its
normalisation layers mean the same in every architecture.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainables import seeds
from trainables.configs import NetworkConfig
from trainables.device import LAYOUTS, network_arithmetic
from trainables.networks import GROUPS, Norm, option_problem, size_problem


class Network(nn.Module):
    """A classifier of images (N, C, H, W) float32 normalised: ``logits = classifier(embed(images))``."""

    classifier: nn.Linear
    embedding_size: int
    """F, the numbers in an embedding."""

    def maps(self, images: Tensor) -> Tensor:
        """Everything before the last linear layer, (N, F): what an architecture defines."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """What the last linear layer sees, (N, F), in the images' precision."""
        with network_arithmetic(images.device.type):
            return self.maps(images).to(images.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), in the images' precision."""
        with network_arithmetic(images.device.type):
            logits: Tensor = self.classifier(self.maps(images))
            return logits.to(images.dtype)


def build(network: NetworkConfig, *seed_parts: int | str, device: str = "cpu") -> Network:
    """A freshly initialised network, laid out as its device likes it, equal for equal ``seed_parts`` on each.

    Weights are drawn on the CPU, from the distribution that the network's class names; the global random state is
    left as it was.

    Args:
        seed_parts: What the weights are for, as for ``seeds.derive``.

    Raises:
        ValueError: The fields do not fit together, or the images do not fit the network.
    """
    reason = option_problem(network.variant)
    if reason is not None:
        raise ValueError(f"network: {reason}")
    reason = size_problem(network.variant, network.image_size, network.channels)
    if reason is not None:
        raise ValueError(f"network: cannot take images of {network.image_size} pixels; {reason}. Resize the images.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*seed_parts))
        built = _class_of(network)(network)
    return built.to(device=device, memory_format=LAYOUTS[torch.device(device).type])  # type: ignore[call-overload, no-any-return]


def _class_of(network: NetworkConfig) -> type[Network]:
    """Imported on use: torchvision takes longer to import than a small network to train."""
    module, _, name = network.variant.spec.module.partition(":")
    network_class: type[Network] = getattr(importlib.import_module(module), name)
    return network_class


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether the output for one image depends on the others in its batch (batch norm in train mode)."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def num_parameters(network: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in network.parameters())


def he_initialise(network: nn.Module) -> None:
    """Draw the convolutions' weights anew from N(0, 2 / fan-out) and set their biases to 0 (He et al., ICCV 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def norm_layer(norm: Norm, channels: int, *, size: int | None = None) -> nn.Module:
    """A layer that normalises maps (N, C, h, w).

    Args:
        norm: ``instance``: each map of each image, affine, without running statistics, so that train and eval mode
            behave alike; ``batch``: each channel over the batch; ``group``: 4 groups of channels; ``layer``: all of an
            image's maps, with parameters for every pixel, as the authors have it; ``none``: nothing.
        size: h = w, pixels; only ``layer`` needs it.
    """
    match norm:
        case "instance":
            return InstanceNorm(channels, channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            return nn.GroupNorm(GROUPS, channels)
        case "layer":
            assert size is not None, "layer norm belongs to networks that know the size of their maps"
            return nn.LayerNorm([channels, size, size])
        case "none":
            return nn.Identity()


def relu_after(norm: Norm, size: int = 0) -> nn.ReLU:
    """ReLU of a norm's output: in place, unless that is a view.

    What is changed through a view autograd copies, laid out anew: a quarter of a step on small images.

    Args:
        norm: Before it.
        size: h = w of the maps, pixels; 0: not known.
    """
    return nn.ReLU(inplace=norm != "instance" or size * size >= _LARGE_MAP)


class InstanceNorm(nn.GroupNorm):
    """Group norm with one channel per group, written out where PyTorch's own is slow.

    PyTorch 2.15's CPU kernel for channels-last maps below 32x32 takes 9 times as long without gradients and 2 times
    with them as the same formula in plain operations (16x16, 32 images, 128 channels, one core: 3.8 against 0.4 ms).
    Equal to rounding; differentiable to any order.
    """

    compute: Callable[[Tensor, Tensor, Tensor, float], Tensor] | None = None
    """Another way to the same numbers, of maps, weight, bias and eps; see ``second_order.py``."""

    def forward(self, input: Tensor) -> Tensor:
        if self.compute is not None:
            return self.compute(input, self.weight, self.bias, self.eps)
        count, channels, height, width = input.shape
        if input.is_cuda or height * width >= _LARGE_MAP:
            return super().forward(input)
        values = input.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        if values.dtype == torch.bfloat16:  # statistics need more than eight bits
            values = values.float()
        values = values - values.mean(1, keepdim=True)
        factor = self.weight * (values.square().mean(1, keepdim=True) + self.eps).rsqrt()
        normalised = torch.addcmul(self.bias, values, factor)
        return normalised.view(count, height, width, channels).permute(0, 3, 1, 2)


_LARGE_MAP = 32 * 32
"""Pixels from which PyTorch's kernel is the faster one."""
