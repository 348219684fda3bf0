from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support import FakeContext, conformance_folder, digits_config, recipe, tiny_network, train_config, vectors
from torch import Tensor

from trainables import stages
from trainables.configs import OriginConfig
from trainables.data.pixels import decode, decode_labels, normalise
from trainables.labels import HardLabels
from trainables.models.network import build
from trainables.payloads import DistilledSet, TrainedModel


def stored(count: int = 3, size: int = 8, channels: int = 2) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(4))


def enlarged(patch: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, corners not aligned: each new pixel's centre, in old pixels, lies between four old centres."""
    side = patch.shape[1]
    out = np.zeros((len(patch), size, size))
    for row in range(size):
        for column in range(size):
            y, x = (min(max((place + 0.5) * side / size - 0.5, 0), side - 1) for place in (row, column))
            for r in {math.floor(y), min(math.floor(y) + 1, side - 1)}:
                for c in {math.floor(x), min(math.floor(x) + 1, side - 1)}:
                    out[:, row, column] += (1 - abs(y - r)) * (1 - abs(x - c)) * patch[:, r, c]
    return out


@pytest.mark.parametrize("size, factor", [(8, 2), (8, 4), (9, 3), (10, 3), (7, 2)])
def test_against_numpy(size: int, factor: int) -> None:
    images = stored(size=size)
    side = math.ceil(size / factor)
    padded = np.full((3, 2, side * factor, side * factor), 0.5)
    padded[:, :, :size, :size] = images.numpy()
    expected = [
        enlarged(image[:, row * side : (row + 1) * side, column * side : (column + 1) * side], size)
        for row in range(factor)
        for column in range(factor)
        for image in padded
    ]
    np.testing.assert_allclose(decode(images, factor).numpy(), np.stack(expected), atol=1e-6)


def test_factor_one_gives_the_images_back() -> None:
    images = stored()
    assert torch.equal(decode(images, 1, num_classes=3), images)


def test_of_several_classes_each_is_decoded_by_itself() -> None:
    images = stored(6)
    whole = decode(images, 2, num_classes=3)
    assert torch.equal(whole, torch.cat([decode(part, 2) for part in images.split(2)]))


def test_labels_follow_their_images() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    images = labels.float().reshape(6, 1, 1, 1).expand(-1, 1, 8, 8)
    assert torch.equal(decode(images, 2)[:, 0, 0, 0], decode_labels(labels, 2).float())


def test_values_stay_between_those_of_the_stored_image() -> None:
    images = stored()
    found = decode(images, 2)
    assert found.min() >= images.min()
    assert found.max() <= images.max()


def test_every_stored_pixel_gets_the_gradient() -> None:
    images = stored(size=5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: decode(value, 2), (images,))
    (gradient,) = torch.autograd.grad(decode(images, 2).sum(), images)
    assert (gradient > 0).all()


@pytest.mark.parametrize("factor", [1, 2])
def test_training_decodes_a_set_before_it_is_normalised(tmp_path: Path, digits_cache: Path, factor: int) -> None:
    dataset = digits_config()
    images, labels = stored(6, channels=1), torch.tensor([0, 0, 1, 1, 2, 2])
    facts = {"space": "pixel01", "factor": factor}
    (tmp_path / "set").mkdir()
    DistilledSet(images, HardLabels(labels), torch.full((6,), -1), facts).save(tmp_path / "set")
    context = FakeContext(tmp_path)
    context.cache = digits_cache
    config = train_config(
        recipe(epochs=2), dataset=dataset, origin=OriginConfig(classes=(0, 1, 2)), network=tiny_network()
    )
    model = stages.run("train", config, {"set": tmp_path / "set"}, context)
    assert model.info["train_images"] == 6 * factor**2
    assert model.info["optimiser_steps"] == 2 * math.ceil(6 * factor**2 / 8), "steps are those of the decoded set"
    decoded = normalise(decode(images, factor), dataset.mean, dataset.std)
    network = network_in(model)
    with torch.no_grad():
        right = network(decoded).argmax(1) == decode_labels(labels, factor)
    assert model.info["train_acc"] == pytest.approx(float(right.double().mean()))


def network_in(model: TrainedModel) -> torch.nn.Module:
    network = build(model.network, 0)
    network.load_state_dict(model.state)
    return network.eval()


@pytest.mark.conformance
def test_conformance() -> None:
    recorded = vectors(conformance_folder() / "idc_decode.npz")
    names = sorted(name.removesuffix(".stored") for name in recorded if name.endswith(".stored"))
    assert names, "nothing recorded"
    for name in names:  # image size, factor
        factor = int(name.split(".")[1])
        images = recorded[f"{name}.stored"]
        torch.testing.assert_close(
            decode(images, factor),
            recorded[f"{name}.decoded"],
            atol=1e-4,
            rtol=0,
            msg=lambda text, name=name: f"{name}: {text}",
        )
        assert torch.equal(decode_labels(torch.arange(len(images)), factor), recorded[f"{name}.labels"]), name
