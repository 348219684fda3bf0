from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import FakeContext, distil, distill_config, folder_bytes, tiny_origin

from trainables.data.pixels import denormalise, fit_whitening, normalise
from trainables.payloads import DistilledSet

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)


def images(count: int = 400, size: int = 6) -> torch.Tensor:
    """Normalised images whose neighbouring pixels go together, as those of photographs do."""
    noise = torch.randn(count, 3, size + 4, size + 4, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1) * 5


def test_the_transform_is_the_formula_of_the_pixels_covariance() -> None:
    """Against NumPy, with a singular value decomposition of the centred pixels instead."""
    normalised = images()
    found = fit_whitening(normalised, MEAN, STD)
    pixels = denormalise(normalised, MEAN, STD).flatten(1).double().numpy()
    centred = pixels - pixels.mean(0)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    values = singular**2 / (len(pixels) - 1)
    expected = right.T @ np.diag(1 / np.sqrt(values + 0.1)) @ right
    np.testing.assert_allclose(found.matrix.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found.mean.numpy(), pixels.mean(0), atol=1e-6)
    whitened = found.whiten(normalised, MEAN, STD).flatten(1).numpy()
    np.testing.assert_allclose(whitened, centred @ expected, atol=1e-4)


def test_whitened_pixels_are_uncorrelated_and_all_but_the_faint_directions_have_unit_variance() -> None:
    normalised = images() * 60  # so much variance that the 0.1 hardly shows
    whitened = fit_whitening(normalised, MEAN, STD).whiten(normalised, MEAN, STD).flatten(1).double()
    before = torch.cov(denormalise(normalised, MEAN, STD).flatten(1).double().T)
    covariance = torch.cov(whitened.T)
    assert (before - torch.eye(len(before))).abs().max() > 10, "the control: it was not so before"
    assert (covariance - torch.eye(len(covariance))).abs().max() < 0.05
    assert whitened.mean(0).abs().max() < 1e-4


def test_faint_directions_are_not_blown_up() -> None:
    normalised = images() * 1e-3
    whitened = fit_whitening(normalised, MEAN, STD).whiten(normalised, MEAN, STD)
    assert whitened.abs().max() < 0.1 * torch.tensor(0.1).rsqrt()


def test_there_and_back() -> None:
    normalised = images()
    found = fit_whitening(normalised, MEAN, STD)
    pixels = found.pixels(found.whiten(normalised, MEAN, STD))
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, denormalise(normalised, MEAN, STD), atol=1e-5, rtol=0)


def test_chunks_and_repetition_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = images()
    found, again = fit_whitening(normalised, MEAN, STD), fit_whitening(normalised, MEAN, STD)
    assert torch.equal(found.matrix, again.matrix)
    monkeypatch.setattr("trainables.data.pixels._CHUNK", 7)
    pieces = fit_whitening(normalised, MEAN, STD)
    torch.testing.assert_close(pieces.matrix, found.matrix, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        pieces.whiten(normalised, MEAN, STD), found.whiten(normalised, MEAN, STD), atol=1e-5, rtol=0
    )


def test_more_dimensions_than_images_are_no_obstacle() -> None:
    normalised = images(count=5)
    found = fit_whitening(normalised, MEAN, STD)
    assert found.whiten(normalised, MEAN, STD).isfinite().all()
    torch.testing.assert_close(
        found.pixels(found.whiten(normalised, MEAN, STD)), denormalise(normalised, MEAN, STD), atol=1e-5, rtol=0
    )


# --- sets distilled in whitened space ---------------------------------------------------------------------------------


def test_a_set_of_whitened_images_is_at_rest_in_pixels_with_its_transform(tmp_path: Path) -> None:
    config = distill_config("mtt", zca=True, iterations=1, lr_img=1e-30)
    start = distil(config, FakeContext(tmp_path / "a"))
    control = distil(distill_config("random"), FakeContext(tmp_path / "b"))
    assert (start.info["zca"], start.info["space"], control.info["zca"]) == (True, "pixel01", False)
    torch.testing.assert_close(start.images, control.images, atol=1e-5, rtol=0)
    assert torch.equal(start.indices, control.indices)

    folder = tmp_path / "set"
    folder.mkdir()
    start.save(folder)
    assert set(folder_bytes(folder)) == {"set.safetensors", "facts.json", "zca.safetensors"}
    assert (folder / "zca.safetensors").stat().st_size < 1.1 * 4 * (64 * 64 + 64), "one matrix and one vector"
    loaded = DistilledSet.load(folder).whitening
    assert loaded is not None
    origin = tiny_origin()
    expected = fit_whitening(origin.images, config.dataset.mean, config.dataset.std)
    assert torch.equal(loaded.matrix, expected.matrix)


def test_whitened_noise_starts_in_whitened_space(tmp_path: Path) -> None:
    config = distill_config("mtt", zca=True, init="noise", ipc=50, iterations=1, lr_img=1e-30)
    made = distil(config, FakeContext(tmp_path))
    assert made.whitening is not None
    mean, std = config.dataset.mean, config.dataset.std
    whitened = made.whitening.whiten(normalise(made.images, mean, std), mean, std)
    assert abs(float(whitened.mean())) < 0.05
    assert abs(float(whitened.std()) - 1) < 0.05
