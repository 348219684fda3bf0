"""What every network offers: an embedding and a linear classifier on top. No architecture lives here."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.device import network_arithmetic


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
