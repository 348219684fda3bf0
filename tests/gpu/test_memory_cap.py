"""On a real card: a process that takes more than its share is refused, and its neighbour is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainables import device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: there is no CUDA card that torch can use"),
]
SHARE = 1 / 8


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    device.reset()


def allocate(fraction: float) -> torch.Tensor:
    """A tensor of a fraction of the card's memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    return torch.empty(int(total * fraction), dtype=torch.uint8, device="cuda")


def test_within_the_share() -> None:
    device.prepare("cuda", 1, SHARE)
    tensor = allocate(SHARE * 0.8)
    assert device.peak_memory("cuda") >= tensor.numel()


def test_beyond_the_share() -> None:
    device.prepare("cuda", 1, SHARE)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        allocate(SHARE * 1.2)
    device.reset()
    device.prepare("cuda", 1, None)
    tensor = allocate(SHARE * 1.2)
    assert tensor.numel() > 0, "control: without the limit the same tensor fits"
