"""The constants in ``known.py`` equal the data, wherever the data are at hand."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainables.data.cache import build
from trainables.data.known import KNOWN
from trainables.data.layout import DataMissing, Index

Build = Callable[[str], Index]


@pytest.fixture(scope="module")
def known_index(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a known data set's cache, in DDRAY_CACHE if it is set (so that once decoded is enough)."""
    cache = Path(os.environ.get("DDRAY_CACHE") or tmp_path_factory.mktemp("cache"))
    data = Path(os.environ.get("DDRAY_DATA") or tmp_path_factory.mktemp("data"))

    def make(name: str) -> Index:
        try:
            return build(name, None, None, data, cache)
        except DataMissing:
            pytest.skip(f"NOT RUN: {name} is not below DDRAY_DATA")

    return make


def pixels(index: Index) -> np.ndarray:
    """Training images as (N, C, H * W) bytes."""
    images: np.ndarray = np.load(index.folder / "train_images.npy", mmap_mode="r")
    return images.reshape(*images.shape[:2], -1)


def moments(index: Index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per channel, of training images in [0, 1]: mean, deviation of pixels, mean of the images' own deviations."""
    count = np.zeros((index.channels, 256))
    deviations = np.zeros(index.channels)
    everything = pixels(index)
    for start in range(0, len(everything), 5000):
        part = np.asarray(everything[start : start + 5000])
        for channel in range(index.channels):
            count[channel] += np.bincount(part[:, channel].ravel(), minlength=256)
            deviations[channel] += (part[:, channel] / np.float32(255)).std(axis=1).sum()
    share, value = count / count.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ value
    return mean, np.sqrt(share @ value**2 - mean**2), deviations / len(everything)


def test_digits(known_index: Build) -> None:
    index, known = known_index("digits"), KNOWN["digits"]
    mean, std, _ = moments(index)
    assert known.mean == (round(mean[0], 4),)
    assert known.std == (round(std[0], 4),)
    assert index.digest == known.digest
    assert min(index.train_counts) == known.train_per_class
    assert set(index.test_counts) == {known.test_per_class}
    assert sum(index.train_counts + index.test_counts) == 1797


def test_digits_are_scaled_without_loss(known_index: Build) -> None:
    from sklearn.datasets import load_digits

    folder = known_index("digits").folder
    ours = np.concatenate([np.load(folder / f"{split}_images.npy") for split in ("train", "test")])
    back = np.round(ours.astype(float) * 16 / 255).astype(int).reshape(len(ours), -1)
    assert sorted(map(tuple, back)) == sorted(map(tuple, load_digits().data.astype(int)))
    assert ours.max() == 255


@pytest.mark.cifar10
def test_cifar10(known_index: Build) -> None:
    index, known = known_index("cifar10"), KNOWN["cifar10"]
    mean, std, image_std = moments(index)
    np.testing.assert_allclose(known.mean, mean, atol=6e-5)
    np.testing.assert_allclose(known.std, image_std, atol=2e-4)  # the published triple is the mean of images' own
    np.testing.assert_allclose((0.247, 0.243, 0.262), std, atol=1e-3)
    assert index.digest == known.digest
    assert index.train_counts == (known.train_per_class,) * 10
    assert index.test_counts == (known.test_per_class,) * 10


def test_fashion_mnist(known_index: Build) -> None:
    index, known = known_index("fashion_mnist"), KNOWN["fashion_mnist"]
    mean, std, _ = moments(index)
    np.testing.assert_allclose(known.mean, mean, atol=1e-4)
    np.testing.assert_allclose(known.std, std, atol=6e-5)
    assert index.digest == known.digest
    assert index.train_counts == (known.train_per_class,) * 10


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_entry_is_complete(name: str) -> None:
    known = KNOWN[name]
    assert len(known.mean) == len(known.std) == known.channels
    assert all(0 < value < 1 for value in (*known.mean, *known.std))
    assert known.source
    assert known.digest is None or len(known.digest) == len("sha256:") + 64
