"""The network a name stands for, with its published defaults filled in. No torch: planning reads this."""

from __future__ import annotations

from typing import Literal

from trainables.configs import Architecture, NetworkConfig, Norm

# (width, depth, norm). ConvNet3: DC networks.py and its default options; the other two: methods.md sections 7.2, 7.3.
_DEFAULTS: dict[Architecture, tuple[int, int, Norm]] = {
    "convnet3": (128, 3, "instance"),
    "resnet18": (64, 18, "batch"),
    "vgg16": (64, 16, "batch"),
}


def default_network(
    architecture: Architecture,
    *,
    image_size: int,
    channels: Literal[1, 3],
    num_classes: int,
    width: int | None = None,
    norm: Norm | None = None,
    depth: int | None = None,
) -> NetworkConfig:
    """The complete description of ``architecture`` for images of a data set.

    Args:
        architecture: The network's name.
        image_size: Height = width of the images, pixels.
        channels: Colour channels of the images.
        num_classes: Classes to tell apart.
        width: Filters of the first block; None for the published 128 (ConvNet3) or 64.
        norm: Normalisation; None for instance (ConvNet3) or batch.
        depth: Blocks of ConvNet3; None for 3.

    Differs from the authors' code: 64-pixel images keep depth 3 unless a depth is given (DC and MTT use 4 there),
    because the architecture is called ConvNet3.
    """
    default_width, default_depth, default_norm = _DEFAULTS[architecture]
    return NetworkConfig(
        architecture=architecture,
        norm=norm or default_norm,
        width=width or default_width,
        depth=depth or default_depth,
        image_size=image_size,
        channels=channels,
        num_classes=num_classes,
    )
