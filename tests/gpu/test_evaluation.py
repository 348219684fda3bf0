"""On a real card: networks say of clean images what they say on a CPU, however fast the job may compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import FakeContext, recipe, tiny_network, tiny_origin, tiny_test, train_config
from torch import Tensor

from trainables import device
from trainables.configs import TrainConfig
from trainables.models.network import build
from trainables.payloads import TrainedModel
from trainables.train import predict, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: there is no CUDA card that torch can use"),
]
IMAGES = 64
TOLERANCE = 1e-3


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    device.reset()


def config(norm: str) -> TrainConfig:
    # Wide enough that a card uses its fast kernels.
    network = tiny_network(norm=norm, width=64, channels=3, size=32, depth=3)
    return train_config(recipe(epochs=6, augmentation="dsa"), network=network, curve_points=1)


def trained_on_card(norm: str, folder: Path) -> tuple[TrainedModel, Tensor]:
    """A model trained there, and 64 images it was tested on."""
    origin = tiny_origin(each=22, size=32, channels=3)
    test = tiny_test(origin)
    test = test._replace(images=test.images[:IMAGES], labels=test.labels[:IMAGES], ids=test.ids[:IMAGES])
    context = FakeContext(folder)
    context.device = "cuda"
    device.prepare("cuda", 1)
    return train(config(norm), origin.images, origin.labels, test, context), test.images


def said(model: TrainedModel, images: Tensor, where: str) -> Tensor:
    network = build(model.network, "any", device=where)
    network.load_state_dict(model.state)
    return predict(network, images.to(where)).cpu()


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_stored_logits_are_those_of_single_precision_on_a_cpu(norm: str, tmp_path: Path) -> None:
    model, images = trained_on_card(norm, tmp_path)
    device.prepare("cpu", 1)
    network = build(model.network, "any").eval()
    network.load_state_dict(model.state)
    with torch.no_grad():  # in the plain layout, of all images at once
        expected = network(images)
    assert len(expected) == IMAGES
    assert float((model.outputs["test"].logits - expected).abs().max()) < TOLERANCE
    assert float((said(model, images, "cpu") - expected).abs().max()) < TOLERANCE


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_evaluation_in_single_precision_agrees_whatever_the_job_has_set(
    precision: device.Precision, tmp_path: Path
) -> None:
    model, images = trained_on_card("instance", tmp_path)
    device.prepare("cuda", 1, precision=precision)
    if precision == "bf16":
        loose = (said(model, images, "cuda") - model.outputs["test"].logits).abs().max()
        assert float(loose) > TOLERANCE, "the control: the job's own arithmetic would show"
    with device.single_precision():
        exact = said(model, images, "cuda")
    device.prepare("cpu", 1)
    assert float((exact - said(model, images, "cpu")).abs().max()) < TOLERANCE
