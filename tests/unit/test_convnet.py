from __future__ import annotations

from typing import Any

import pytest
import torch
from support import conformance_folder, network_of, tiny_network, vectors, with_prefix
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.configs import NetworkConfig
from trainables.models.network import InstanceNorm, build, uses_batch_statistics
from trainables.networks import Norm, parse


@pytest.mark.parametrize("size, channels, embedding", [(8, 1, 1), (28, 1, 16), (32, 1, 16), (32, 3, 16), (64, 3, 64)])
def test_every_image_size_passes(size: int, channels: int, embedding: int) -> None:
    network = build(tiny_network(5, size, channels, depth=3), 0)
    images = torch.randn(2, channels, size, size)
    assert network.embed(images).shape == (2, embedding * 8)
    assert network(images).shape == (2, 5)


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
def test_norms_normalise_what_they_should(norm: Norm) -> None:
    network = build(tiny_network(norm=norm, size=16, depth=3), 0)
    images = torch.randn(6, 1, 16, 16)
    alone, together = network(images[:1]), network(images)[:1]
    assert torch.allclose(alone, together, atol=1e-5) == (norm != "batch")
    assert uses_batch_statistics(network) == (norm == "batch")
    # Statistics per channel remove the scale and, with it, the convolution's bias; the others keep the bias.
    unchanged = torch.allclose(network(images * 3), network(images), atol=1e-3)
    assert unchanged == (norm in ("instance", "batch"))


@pytest.mark.parametrize("size", [2, 8, 16, 32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_is_group_norm_and_has_its_second_derivatives(size: int, layout: torch.memory_format) -> None:
    ours, theirs = InstanceNorm(6, 6).double(), torch.nn.GroupNorm(6, 6).double()
    with torch.no_grad():
        for parameter, values in ((ours.weight, torch.rand(6)), (ours.bias, torch.randn(6))):
            parameter.copy_(values)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, 6, size, size, dtype=torch.float64).contiguous(memory_format=layout)
    found = []
    for norm in (ours, theirs):
        leaf = images.clone().requires_grad_()
        out = norm(leaf)
        (first,) = torch.autograd.grad(out.sin().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        found.append((out, first, second))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.conformance
def test_conformance_of_logits_and_embeddings() -> None:
    files = sorted(conformance_folder().glob("convnet3_*.npz"))
    assert files
    for file in files:
        recorded = vectors(file)
        state = with_prefix(recorded, "param.")
        images = recorded["x"]
        network = build(network_of(state, images.shape[2], images.shape[1]), 0)
        network.load_state_dict(state)
        for ours, theirs in ((network(images), recorded["logits"]), (network.embed(images), recorded["embed"])):
            assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["convnet3", "vgg16-instance"])
def test_gradients_of_maps_are_laid_out_like_the_maps(name: str) -> None:
    """In another layout a ReLU's gradient takes ten times as long as it should, a fifth of a step on small images."""
    seen: list[bool] = []

    class Layouts(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.threshold_backward.default:
                seen.append(args[0].stride() == args[1].stride() or 1 in args[0].shape[2:])
            return function(*args, **(kwargs or {}))

    config = NetworkConfig.of(parse(name), image_size=32, channels=3, num_classes=10)
    network = build(config, "layout").train()
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with Layouts():
        network(images).square().sum().backward()  # type: ignore[no-untyped-call]
    assert len(seen) >= 3
    assert all(seen)
