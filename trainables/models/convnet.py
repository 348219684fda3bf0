"""ConvNet: the network of the DC family (methods.md section 7.1; Zhao et al., ICLR 2021, networks.py).

Each block is convolution 3x3 with bias, normalisation, ReLU, average pooling 2x2; one linear layer reads the flattened
result. Tensors: images (N, C, H, W) float32 normalised; embeddings (N, F); logits (N, K).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.configs import NetworkConfig, Norm


class ConvNet(nn.Module):
    """ConvNet3 when ``depth`` is 3. Parameter names are those of the authors' released networks."""

    def __init__(self, network: NetworkConfig) -> None:
        """Build with PyTorch's default initialisation, drawn from the global generator (see ``build``).

        Raises:
            ValueError: If the images are too small for the depth, or the width does not suit the norm.
        """
        super().__init__()
        if network.norm == "group" and network.width % 4:
            raise ValueError(
                f"network: group norm has 4 groups; got width {network.width}; expected a multiple of 4. "
                "Change the width."
            )
        layers: list[nn.Module] = []
        size: int = network.image_size
        channels: int = network.channels
        for block in range(network.depth):
            # The authors pad one-channel images by 3 to turn 28x28 into 32x32; any other size keeps its own.
            padding = 3 if block == 0 and network.channels == 1 and size == 28 else 1
            size += 2 * (padding - 1)
            layers.append(nn.Conv2d(channels, network.width, kernel_size=3, padding=padding))
            if network.norm != "none":
                layers.append(_norm(network.norm, network.width, size))
            layers += [nn.ReLU(inplace=True), nn.AvgPool2d(kernel_size=2, stride=2)]
            size, channels = size // 2, network.width
        if size < 1:
            raise ValueError(
                f"network: depth {network.depth} halves images of {network.image_size} pixels to nothing; "
                f"expected at least {2**network.depth} pixels. Lower the depth."
            )
        self.features = nn.Sequential(*layers)
        self.embedding_size = channels * size * size
        self.classifier = nn.Linear(self.embedding_size, network.num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """The flattened output of the last pooling, (N, F); F is 2048 for 32-pixel images and width 128."""
        features: Tensor = self.features(images)
        return features.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.classifier(self.embed(images))
        return logits


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
        values = values - values.mean(1, keepdim=True)
        factor = self.weight * (values.square().mean(1, keepdim=True) + self.eps).rsqrt()
        normalised = torch.addcmul(self.bias, values, factor)
        return normalised.view(count, height, width, channels).permute(0, 3, 1, 2)


_LARGE_MAP = 32 * 32
"""Pixels from which PyTorch's kernel is the faster one."""


def _norm(norm: Norm, channels: int, size: int) -> nn.Module:
    match norm:
        case "instance":  # affine, without running statistics: train and eval mode behave alike
            return InstanceNorm(channels, channels)
        case "group":
            return nn.GroupNorm(4, channels)
        case "layer":
            return nn.LayerNorm([channels, size, size])
        case "batch":
            return nn.BatchNorm2d(channels)
        case "none":
            raise AssertionError("a network without normalisation has no such layer")


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether the output for one image depends on the others in its batch (batch norm in train mode)."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def num_parameters(network: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in network.parameters())
