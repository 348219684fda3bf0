"""VGG16 for small images (Simonyan & Zisserman, ICLR 2015; methods.md section 7.3).

Thirteen 3x3 convolutions with bias, each with norm and ReLU, in five groups of width w, 2w, 4w, 8w, 8w; max-pooling
after each group; global average pooling; one linear layer instead of three, as in DC's networks for these images.
Tensors: images (N, C, H, W) float32 normalised; embeddings (N, 8w); logits (N, K).
"""

from __future__ import annotations

from torch import Tensor, nn

from trainables.configs import NetworkConfig
from trainables.models.network import Network, he_initialise, norm_layer, relu_after

GROUPS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""(width in units of the first, convolutions) of each group."""


class VGG16(Network):
    """VGG16 with batch norm. torchvision's layer list is not used: it takes three channels and batch norm only.

    Convolutions start from He et al.'s normal distribution over the fan-out with biases 0, as in torchvision; the
    linear layer from PyTorch's default. Images of 28 to 31 pixels are padded by 2 more on each side, as DC pads for
    ConvNet: five halvings would leave nothing of them.

    Differs from DC's code (networks.py): theirs keeps PyTorch's default for convolutions, under which thirteen layers
    without norm pass on next to nothing; the pooling before the linear layer, for images above 32 pixels, is ours.
    """

    def __init__(self, network: NetworkConfig) -> None:
        """Build with random weights drawn from the global generator (see ``build``)."""
        super().__init__()
        layers: list[nn.Module] = []
        channels: int = network.channels
        pad = network.variant.padding(network.image_size, channels)
        for factor, convolutions in GROUPS:
            width = factor * network.width
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=pad))
                if network.norm != "none":
                    layers.append(norm_layer(network.norm, width))
                layers.append(relu_after(network.norm))
                channels, pad = width, 1
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.embedding_size = channels
        self.classifier = nn.Linear(self.embedding_size, network.num_classes)
        he_initialise(self)

    def maps(self, images: Tensor) -> Tensor:
        """The mean of each of the last maps (one pixel at 32), (N, 8w)."""
        pooled: Tensor = self.pool(self.features(images))
        return pooled.flatten(1)
