"""ResNet18 for small images (He et al., CVPR 2016; methods.md section 7.2).

Stem of one 3x3 convolution with stride 1 and no max-pooling; four stages of two basic blocks with width w, 2w, 4w, 8w,
the last three starting with stride 2; global average pooling; one linear layer. The blocks are torchvision's.
Tensors: images (N, C, H, W) float32 normalised; embeddings (N, 8w); logits (N, K).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3

from trainables.configs import NetworkConfig
from trainables.models.network import Network, he_initialise, norm_layer

MakeNorm = Callable[[int], nn.Module]


class ResNet18(Network):
    """ResNet18; IDC's narrower one has width 32.

    Convolutions start from He et al.'s normal distribution over the fan-out, as in torchvision and IDC; the linear
    layer from PyTorch's default.

    Differs from DC's code (networks.py): theirs keeps PyTorch's default for convolutions; its fixed 4x4 pooling, which
    fits 32-pixel images only, is a global one here, equal at that size; the default norm is batch instead of instance.
    """

    def __init__(self, network: NetworkConfig) -> None:
        """Build with random weights drawn from the global generator (see ``build``)."""
        super().__init__()
        make_norm: MakeNorm = partial(norm_layer, network.norm)
        width = network.width
        self.stem = nn.Sequential(conv3x3(network.channels, width), make_norm(width), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(
            _stage(width, width, 1, make_norm),
            _stage(width, 2 * width, 2, make_norm),
            _stage(2 * width, 4 * width, 2, make_norm),
            _stage(4 * width, 8 * width, 2, make_norm),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.embedding_size = 8 * width
        self.classifier = nn.Linear(self.embedding_size, network.num_classes)
        he_initialise(self)

    def maps(self, images: Tensor) -> Tensor:
        """The mean of each of the last stage's maps, (N, 8w)."""
        pooled: Tensor = self.pool(self.stages(self.stem(images)))
        return pooled.flatten(1)


def _stage(inputs: int, outputs: int, stride: int, make_norm: MakeNorm) -> nn.Sequential:
    """Two basic blocks; the shortcut of the first is a 1x1 convolution with norm where the shape changes."""
    shortcut = None
    if stride != 1 or inputs != outputs:
        pointwise = (
            PickingConv1x1(inputs, outputs, stride) if inputs < SAFE_INPUTS else conv1x1(inputs, outputs, stride)
        )
        shortcut = nn.Sequential(pointwise, make_norm(outputs))
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, shortcut, norm_layer=make_norm),
        BasicBlock(outputs, outputs, norm_layer=make_norm),
    )


SAFE_INPUTS = 8
"""Input channels from which the library's strided 1x1 convolution is used."""


class PickingConv1x1(nn.Conv2d):
    """A strided 1x1 convolution that picks its pixels first and then convolves with stride 1: the same numbers.

    oneDNN's kernel for AVX2 writes beyond its buffers in the backward pass of a strided 1x1 convolution of 2 to 7
    channels in channels-last layout (torch 2.14.1; not with AVX-512, 8 channels or more, groups, or a 3x3 kernel):
    the process dies at once or later. ``tests/unit/test_layer_shapes.py`` looks at every shape that can be asked for.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        down, right = self.stride
        return F.conv2d(input[:, :, ::down, ::right], self.weight)
