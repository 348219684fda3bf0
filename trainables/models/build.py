"""From a ``NetworkConfig`` and a seed to a network."""

from __future__ import annotations

import torch

from trainables import seeds
from trainables.configs import NetworkConfig
from trainables.models.network import Network
from trainables.networks import option_problem, parsed, size_problem


def build(network: NetworkConfig, *seed_parts: int | str, device: str = "cpu") -> Network:
    """A freshly initialised network in channels-last layout, equal for equal ``seed_parts`` on every device.

    Weights are drawn on the CPU, from the distribution that the network's class names; the global random state is
    left as it was.

    Args:
        network: What to build.
        seed_parts: What the weights are for, as for ``seeds.derive``.
        device: Where the network ends up.

    Raises:
        ValueError: The fields do not fit together, or the images do not fit the network.
    """
    reason = option_problem(parsed(network))
    if reason is not None:
        raise ValueError(f"network: {reason}")
    reason = size_problem(parsed(network), network.image_size, network.channels)
    if reason is not None:
        raise ValueError(f"network: cannot take images of {network.image_size} pixels; {reason}. Resize the images.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*seed_parts))
        built = _class_of(network)(network)
    return built.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _class_of(network: NetworkConfig) -> type[Network]:
    match network.architecture:  # imported on use: torchvision takes longer to import than a small network to train
        case "convnet3":
            from trainables.models.convnet import ConvNet

            return ConvNet
        case "resnet18":
            from trainables.models.resnet import ResNet18

            return ResNet18
        case "vgg16":
            from trainables.models.vgg import VGG16

            return VGG16
