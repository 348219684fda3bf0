"""ConvNet: the network of the DC family (methods.md section 7.1; Zhao et al., ICLR 2021, networks.py).

Each block is convolution 3x3 with bias, normalisation, ReLU, average pooling 2x2; one linear layer reads the flattened
result. Tensors: images (N, C, H, W) float32 normalised; embeddings (N, F); logits (N, K).
"""

from __future__ import annotations

from torch import Tensor, nn

from trainables.configs import NetworkConfig
from trainables.models.network import Network, norm_layer, relu_after


class ConvNet(Network):
    """ConvNet3 when ``depth`` is 3. Parameter names are those of the authors' released networks."""

    def __init__(self, network: NetworkConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors do, drawn from the global generator."""
        super().__init__()
        layers: list[nn.Module] = []
        size: int = network.image_size
        channels: int = network.channels
        for block in range(network.depth):
            # The authors pad one-channel images by 3 to turn 28x28 into 32x32; any other size keeps its own.
            pad = network.variant.padding(size, channels) if block == 0 else 1
            size += 2 * (pad - 1)
            layers.append(nn.Conv2d(channels, network.width, kernel_size=3, padding=pad))
            if network.norm != "none":  # no placeholder: parameters keep the authors' names
                layers.append(norm_layer(network.norm, network.width, size=size))
            layers += [relu_after(network.norm, size), nn.AvgPool2d(kernel_size=2, stride=2)]
            size, channels = size // 2, network.width
        assert size >= 1, "build() refuses images that are halved to nothing"
        self.features = nn.Sequential(*layers)
        self.embedding_size = channels * size * size
        self.classifier = nn.Linear(self.embedding_size, network.num_classes)

    def maps(self, images: Tensor) -> Tensor:
        """The flattened output of the last pooling, (N, F); F is 2048 for 32-pixel images and width 128."""
        features: Tensor = self.features(images)
        return features.flatten(1)
