"""On a real card: attacks give what they give on a CPU, to the tolerance of other numerics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, dataset_config, tiny_network, tiny_origin

from trainables import device
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.configs import AttackConfig
from trainables.data.pixels import denormalise
from trainables.evaluate.robustness.attack import PixelImages, attack_images
from trainables.evaluate.robustness.network import PixelNetwork
from trainables.models.network import build
from trainables.optimise import batch_gradient

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: there is no CUDA card that torch can use"),
]
pytest.importorskip("foolbox", reason="NOT RUN: foolbox cannot be imported", exc_type=ImportError)
QUICK = [name for name, spec in ROBUSTNESS_ATTACKS.items() if spec.extra is None]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    device.reset()


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Any], PixelImages]:
    """State of a small network after some steps on a CPU, and its images in [0, 1]."""
    origin = tiny_origin()
    network = build(tiny_network(norm="batch"), "test")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        optimiser.zero_grad()
        batch_gradient(network, origin.images, origin.labels, params=None)
        optimiser.step()
    data = dataset_config()
    pixels = denormalise(origin.images, data.mean, data.std).clamp(0, 1)
    return network.state_dict(), PixelImages(pixels, origin.labels, origin.indices)


def attacked(name: str, where: str, trained: tuple[dict[str, Any], PixelImages], folder: Path) -> Any:
    state, images = trained
    data = dataset_config()
    network = build(tiny_network(norm="batch"), "test", device=where)
    network.load_state_dict(state)
    epsilons = (0.1, 0.5, 2.0) if ROBUSTNESS_ATTACKS[name].norm == "l2" else (0.01, 0.05, 0.2)
    config = AttackConfig(
        attack=name, dataset=data, classes=(0, 1, 2), images=36, epsilons=epsilons, settings=attack_settings(name)
    )  # type: ignore[arg-type]
    context = FakeContext(folder / where)
    context.device = where
    pixel = PixelNetwork(network, data.mean, data.std).to(where)
    return attack_images(ROBUSTNESS_ATTACKS[name], config, pixel, images, None, context)


@pytest.mark.parametrize("name", QUICK)
def test_a_card_gives_what_a_cpu_gives(name: str, trained: tuple[dict[str, Any], PixelImages], tmp_path: Path) -> None:
    device.prepare("cpu", 1)
    expected = attacked(name, "cpu", trained, tmp_path)
    device.prepare("cuda", 1)
    found = attacked(name, "cuda", trained, tmp_path)
    assert found.correct.equal(expected.correct)
    assert float((found.success != expected.success).double().mean()) <= 0.02
    if expected.distance is not None:
        torch.testing.assert_close(found.distance, expected.distance, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_jobs_precision_does_not_reach_the_attack(
    precision: device.Precision, trained: tuple[dict[str, Any], PixelImages], tmp_path: Path
) -> None:
    device.prepare("cuda", 1)
    expected = attacked("deepfool_l2", "cuda", trained, tmp_path)
    device.prepare("cuda", 1, precision=precision)
    found = attacked("deepfool_l2", "cuda", trained, tmp_path)
    assert found.distance.equal(expected.distance)
    assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")
