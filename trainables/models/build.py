"""From a ``NetworkConfig`` and a seed to a network."""

from __future__ import annotations

import importlib

import torch

from trainables import seeds
from trainables.configs import NetworkConfig
from trainables.models.network import Network
from trainables.networks import option_problem, size_problem


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
    reason = option_problem(network.variant)
    if reason is not None:
        raise ValueError(f"network: {reason}")
    reason = size_problem(network.variant, network.image_size, network.channels)
    if reason is not None:
        raise ValueError(f"network: cannot take images of {network.image_size} pixels; {reason}. Resize the images.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(*seed_parts))
        built = _class_of(network)(network)
    return built.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _class_of(network: NetworkConfig) -> type[Network]:
    """Imported on use: torchvision takes longer to import than a small network to train."""
    module, _, name = network.variant.spec.module.partition(":")
    found: type[Network] = getattr(importlib.import_module(module), name)
    return found
