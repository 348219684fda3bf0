"""Several networks of one kind as one: their channels side by side, so that one call computes all of them.

M networks with C channels become one with M * C. Convolutions have M times the groups, batch, instance and group norm
know channels only, and what acts on each channel alone (ReLU, pooling, the shortcut's sum) stays as it is. Images come
as (N, M * C, H, W), member after member; embeddings are (N, M * F); logits (M, N, K), stacked by member. Parameters
and buffers have the networks' own names and are concatenated along their first dimension.

Not ``torch.func.vmap``: it moves the members between the batch and the channels around every layer that is not a
convolution (docs/decisions/0013-ensembles.md has the figures).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from trainables.device import LAYOUTS
from trainables.models.network import InstanceNorm, Network

_BY_CHANNEL = (nn.Sequential, BasicBlock, nn.ReLU, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Identity)
"""Modules that do the same to every channel, or nothing but call others."""


def pack(networks: Sequence[Network]) -> Network:
    """One network that computes all of the given ones, which are left as they are.

    Member m of its logits (M, N, K) depends on images ``[:, m * C : (m + 1) * C]`` and on chunk m of every parameter
    alone, and equals what network m gives, to rounding; so does its gradient.

    Args:
        networks: Of one configuration, on one device; each with weights of its own.
    """
    packed = copy.deepcopy(networks[0])
    _replace(packed, len(networks))
    packed.embedding_size *= len(networks)
    states = [network.state_dict() for network in networks]
    packed.load_state_dict(
        {
            name: torch.cat([state[name] for state in states]) if tensor.ndim else tensor
            for name, tensor in states[0].items()
        }
    )
    device = next(networks[0].parameters()).device
    return packed.to(device=device, memory_format=LAYOUTS[device.type])  # type: ignore[call-overload, no-any-return]


def member_states(packed: Network, members: int) -> list[dict[str, Tensor]]:
    """The ``state_dict`` of each network that was packed, as views."""
    states: list[dict[str, Tensor]] = [{} for _ in range(members)]
    for name, tensor in packed.state_dict().items():
        # Batch norm counts batches in a number without dimensions: the members have seen equally many.
        parts = tensor.chunk(members) if tensor.ndim else [tensor] * members
        for state, part in zip(states, parts, strict=True):
            state[name] = part
    return states


def _replace(module: nn.Module, members: int) -> None:
    for name, child in module.named_children():
        made = _packed(child, members)
        if made is None:
            assert isinstance(child, _BY_CHANNEL), f"pack() does not know {type(child).__name__}"
            _replace(child, members)
        else:
            setattr(module, name, made)


def _packed(layer: nn.Module, members: int) -> nn.Module | None:
    """The layer for all members, with weights to be filled in; None where the layer itself will do."""
    match layer:
        case nn.Conv2d():
            assert isinstance(layer.padding, tuple), layer
            return nn.Conv2d(
                members * layer.in_channels,
                members * layer.out_channels,
                _pair(layer.kernel_size),
                _pair(layer.stride),
                _pair(layer.padding),
                groups=members * layer.groups,
                bias=layer.bias is not None,
            )
        case nn.BatchNorm2d():
            return nn.BatchNorm2d(members * layer.num_features, layer.eps, layer.momentum)
        case nn.GroupNorm():
            make = InstanceNorm if isinstance(layer, InstanceNorm) else nn.GroupNorm
            return make(members * layer.num_groups, members * layer.num_channels, layer.eps)
        case nn.LayerNorm():
            return _PackedLayerNorm(layer, members)
        case nn.Linear():
            return _PackedLinear(layer, members)
    return None


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    height, width = values
    return height, width


class _PackedLayerNorm(nn.Module):
    """``LayerNorm`` over (C, H, W) of each member."""

    def __init__(self, layer: nn.LayerNorm, members: int) -> None:
        super().__init__()
        self.shape, self.eps = layer.normalized_shape, layer.eps
        channels, *sides = layer.normalized_shape
        self.weight = nn.Parameter(torch.empty(members * channels, *sides))
        self.bias = nn.Parameter(torch.empty(members * channels, *sides))

    def forward(self, maps: Tensor) -> Tensor:
        normalised = F.layer_norm(maps.reshape(len(maps), -1, *self.shape), self.shape, eps=self.eps)
        return torch.addcmul(self.bias, normalised.flatten(1, 2), self.weight)


class _PackedLinear(nn.Module):
    """``Linear`` of each member: (N, M * F) to (M, N, K)."""

    def __init__(self, layer: nn.Linear, members: int) -> None:
        super().__init__()
        self.members = members
        self.weight = nn.Parameter(torch.empty(members * layer.out_features, layer.in_features))
        self.bias = nn.Parameter(torch.empty(members * layer.out_features))

    def forward(self, embeddings: Tensor) -> Tensor:
        inputs = embeddings.view(len(embeddings), self.members, -1).transpose(0, 1)
        weight = self.weight.view(self.members, -1, inputs.shape[2]).transpose(1, 2)
        return torch.baddbmm(self.bias.view(self.members, 1, -1), inputs, weight)
