"""The normalisation layers of the networks: one name, one meaning in all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.networks import GROUPS, Norm


def norm_layer(norm: Norm, channels: int, *, size: int | None = None) -> nn.Module:
    """A layer that normalises maps (N, C, h, w).

    Args:
        norm: ``instance``: each map of each image, affine, without running statistics, so that train and eval mode
            behave alike; ``batch``: each channel over the batch; ``group``: 4 groups of channels; ``layer``: all of an
            image's maps, with parameters for every pixel, as the authors have it; ``none``: nothing.
        channels: C.
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


class InstanceNorm(nn.GroupNorm):
    """Group norm with one channel per group, written out where PyTorch's own is slow.

    PyTorch 2.15's CPU kernel for channels-last maps below 32x32 takes 9 times as long without gradients and 2 times
    with them as the same formula in plain operations (16x16, 32 images, 128 channels, one core: 3.8 against 0.4 ms).
    Equal to rounding; differentiable to any order.
    """

    def forward(self, input: Tensor) -> Tensor:
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
