"""On a real card: every method gives what it gives on a CPU, to the tolerance of other numerics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import FakeContext, distil, distill_config, losses, tiny_experts, tiny_network, tiny_origin

from trainables import device
from trainables.data.origins import Origin
from trainables.methods import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: there is no CUDA card that torch can use"),
]
LEARNERS = [name for name, method in METHODS.items() if "init" in method.uses]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    device.reset()


def on(where: str, origin: Origin) -> Origin:
    return Origin(origin.images.to(where), origin.labels.to(where), origin.indices, origin.by_class)


class OnCard(FakeContext):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.device = "cuda"


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("method", LEARNERS)
def test_a_card_gives_what_a_cpu_gives(method: str, norm: str, tmp_path: Path) -> None:
    config = distill_config(method, iterations=2, network=tiny_network(norm=norm))
    inputs = tiny_experts(config, tmp_path / "experts")
    plain, card = FakeContext(tmp_path / "cpu"), OnCard(tmp_path / "cuda")
    device.prepare("cpu", 1)
    expected = distil(config, plain, inputs=inputs)
    device.prepare("cuda", 1)
    found = distil(config, card, on("cuda", tiny_origin()), inputs=inputs)
    assert losses(card) == pytest.approx(losses(plain), rel=1e-2)
    torch.testing.assert_close(found.images, expected.images, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("method", LEARNERS)
def test_every_precision_runs(method: str, precision: device.Precision, tmp_path: Path) -> None:
    config = distill_config(method, iterations=2)
    inputs = tiny_experts(config, tmp_path / "experts")
    device.prepare("cuda", 1, precision=precision)
    result = distil(config, OnCard(tmp_path), on("cuda", tiny_origin()), inputs=inputs)
    assert result.images.isfinite().all()
    assert device.numerics_class("cuda")["dtype"] == precision
