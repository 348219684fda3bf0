"""Instance norm whose second derivatives are written out, for methods that differentiate through a network's training.

autograd derives the backward pass of PyTorch's kernel operation by operation, which is a pass over memory each. With x
one map of one image (L pixels), h its normalised pixels, r = 1 / sqrt(var + eps), P z = z - mean(z) - h <z, h> / L:

    y = w h + b,    dL/dx = w r P g    for g = dL/dy

and for cotangents u of dL/dx, u_w of dL/dw and u_b of dL/db

    to g:  w r P u + u_w h + u_b
    to w:  r <P u, g>
    to x:  u_w r P g - (w r^2 / L) (<g, h> P u + <u, h> P g + <P u, g> h)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from trainables.models.network import InstanceNorm


def for_second_order(network: nn.Module) -> None:
    """Make a network fit for derivatives of its gradients: its instance norms as above, its weights in the layout that
    maps have there. Equal to rounding."""
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            module.compute = instance_norm
    network.to(memory_format=torch.contiguous_format)


def instance_norm(maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Each map of each image with mean 0 and variance 1, then scaled and shifted. Differentiable twice.

    Args:
        maps: (N, C, H, W), statistics in float32 at least.
        weight: (C,).
        bias: (C,).
        eps: Added to variances.
    """
    precise = maps.float() if maps.dtype == torch.bfloat16 else maps  # statistics need more than eight bits
    return _Norm.apply(precise, weight, bias, eps)  # type: ignore[no-any-return]


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        rows = maps.flatten(2)
        centred = rows - rows.mean(2, keepdim=True)
        variance = _dot(centred, centred) / rows.shape[2]
        # 1 / sqrt(inf) is 0: a set of images beyond all bounds would look flat, and pass.
        r = torch.where(variance.isfinite(), (variance + eps).rsqrt(), torch.nan)
        h = centred.mul_(r)
        ctx.save_for_backward(maps, weight, h, r)
        return torch.addcmul(bias.view(-1, 1, 1), h.view(maps.shape), weight.view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return *_NormBackward.apply(g, *ctx.saved_tensors), None


class _NormBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, maps: Tensor, weight: Tensor, h: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``maps`` is there for its derivative: ``h`` and ``r`` are made of it."""
        rows = g.flatten(2)
        total, along = rows.sum(2, keepdim=True), _dot(rows, h)
        ctx.save_for_backward(rows, weight, h, r, total, along)
        ctx.shape = maps.shape
        scale = weight.view(-1, 1) * r
        to_maps = _combined((rows, scale), (h, -scale * along / rows.shape[2]), -scale * total / rows.shape[2])
        return to_maps.view(maps.shape), along.sum((0, 2)), total.sum((0, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, u_w: Tensor, u_b: Tensor) -> Any:
        g, weight, h, r, g_total, g_along = ctx.saved_tensors
        u, pixels = u.flatten(2), g.shape[2]
        u_total, u_along = u.sum(2, keepdim=True), _dot(u, h)
        projected = _dot(u, g) - (u_total * g_total + u_along * g_along) / pixels  # <P u, g>
        scale, by_weight = weight.view(-1, 1) * r, u_w.view(-1, 1)
        to_g = _combined(
            (u, scale), (h, by_weight - scale * u_along / pixels), u_b.view(-1, 1) - scale * u_total / pixels
        )
        of_u = -r * scale / pixels * g_along
        of_g = by_weight * r - r * scale / pixels * u_along
        of_h = -(r * scale * projected + of_u * u_along + of_g * g_along) / pixels
        to_maps = _combined((u, of_u), (g, of_g), -(of_u * u_total + of_g * g_total) / pixels).addcmul_(h, of_h)
        return to_g.view(ctx.shape), to_maps.view(ctx.shape), (r * projected).sum((0, 2)), None, None


def _combined(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], constant: Tensor) -> Tensor:
    """Maps times their factors, and a constant, in as few passes as there are maps."""
    return torch.addcmul(constant, *first).addcmul_(*second)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Over pixels, (N, C, 1)."""
    products: Tensor = torch.linalg.vecdot(one, other)
    return products.unsqueeze(-1)
