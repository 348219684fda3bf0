"""From a ``NetworkConfig`` and a seed to a network."""

from __future__ import annotations

import torch

from trainables import seeds
from trainables.configs import NetworkConfig
from trainables.models.convnet import ConvNet


def build(network: NetworkConfig, *seed_parts: int | str, device: str = "cpu") -> ConvNet:
    """A freshly initialised network in channels-last layout, equal for equal ``seed_parts`` on every device.

    Weights are drawn on the CPU with PyTorch's default initialisation, as in the authors' code; the global random
    state is left as it was.

    Args:
        network: What to build.
        seed_parts: What the weights are for, as for ``seeds.derive``.
        device: Where the network ends up.

    Raises:
        ValueError: If this version cannot build the architecture, or its fields do not fit together.
    """
    if network.architecture != "convnet3":
        raise ValueError(
            f"network: architecture {network.architecture!r} is not available in this version; expected 'convnet3'. "
            "Leave it out of the sweep."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*seed_parts))
        built = ConvNet(network)
    return built.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
