"""Herding and k-means against plain NumPy, and what a choice of real images promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import FakeContext, distil, distill_config, tiny_origin

from trainables.configs import OriginConfig
from trainables.context import Interrupted
from trainables.distill.coresets import cluster_centres, herd, nearest_distinct
from trainables.payloads import DistilledSet

METHODS = ("herding", "kmeans")
FEATURES = ("pixels", "network")


def points(count: int = 30, size: int = 5, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=(count, size))


def coreset(method: str, folder: Path, **other: Any) -> DistilledSet:
    return distil(distill_config(method, **other), FakeContext(folder))


# --- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_greedy_rule_tried_on_every_row(seed: int) -> None:
    data = points(seed=seed)
    chosen: list[int] = []
    for _ in range(8):
        errors = {
            row: np.linalg.norm(data.mean(axis=0) - data[[*chosen, row]].mean(axis=0))
            for row in range(len(data))
            if row not in chosen
        }
        chosen.append(min(errors, key=lambda row: errors[row]))
    assert herd(data, 8) == chosen


def test_herding_takes_every_row_once_in_the_end_and_smaller_sets_are_beginnings() -> None:
    data = points()
    whole = herd(data, len(data))
    assert sorted(whole) == list(range(len(data)))
    assert all(herd(data, count) == whole[:count] for count in range(1, len(data)))


def test_herding_follows_the_mean_better_than_chance() -> None:
    data = points(count=200)
    random = np.random.default_rng(1)

    def error(rows: Any) -> float:
        return float(np.linalg.norm(data[rows].mean(axis=0) - data.mean(axis=0)))

    by_chance = [error(random.choice(200, 10, replace=False)) for _ in range(200)]
    assert error(herd(data, 10)) < min(by_chance)


def test_herding_of_equal_rows_takes_the_first() -> None:
    assert herd(np.ones((4, 2)), 3) == [0, 1, 2]


def test_centres_are_those_of_lloyd_iterations() -> None:
    """Blobs far apart: every start that finds them all ends at their means."""
    blobs = np.repeat(10.0 * np.eye(3), 20, axis=0) + points(60, 3) / 10
    means = np.stack([blobs[20 * blob : 20 * blob + 20].mean(axis=0) for blob in range(3)])
    found = cluster_centres(blobs, 3, [1, 2, 3])
    assert np.allclose(found[found.argmax(axis=1).argsort()], means, atol=1e-5)


def test_more_starts_are_never_worse_and_the_same_starts_give_the_same_bytes() -> None:
    data = points(120, 4)

    def inertia(centres: Any) -> float:
        return float(np.square(data[:, None] - centres).sum(axis=2).min(axis=1).sum())

    single = [inertia(cluster_centres(data, 6, [seed])) for seed in range(6)]
    best = cluster_centres(data, 6, range(6))
    assert len({round(value, 6) for value in single}) > 1, "the control: starts do differ"
    assert inertia(best) == pytest.approx(min(single))
    assert best.tobytes() == cluster_centres(data, 6, range(6)).tobytes()


def test_every_centre_gets_a_row_of_its_own() -> None:
    data = np.array([[0.0], [1.0], [5.0], [9.0]])
    assert nearest_distinct(data, np.array([[0.9], [5.1]])) == [1, 2]
    assert nearest_distinct(data, np.array([[0.8], [0.9]])) == [0, 1], "both want row 1; the nearer gets it"
    assert sorted(nearest_distinct(np.zeros((3, 2)), np.zeros((3, 2)))) == [0, 1, 2]


def test_rows_nearest_to_separate_centres_are_the_nearest_ones() -> None:
    data = points(50, 3)
    centres = data[[3, 40, 20, 10]] + points(4, 3, seed=9) / 100
    expected = [int(np.linalg.norm(data - centre, axis=1).argmin()) for centre in centres]
    assert expected == [3, 40, 20, 10]
    assert nearest_distinct(data, centres) == expected


# --- the methods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("method", METHODS)
def test_images_are_distinct_real_ones_of_their_class(method: str, features: str, tmp_path: Path) -> None:
    origin = tiny_origin()
    found = coreset(method, tmp_path, ipc=4, features=features)
    places = found.indices - 100
    assert len(places.unique()) == 12
    assert torch.equal(origin.labels[places], found.labels.classes)
    assert torch.allclose((found.images - 0.4) / 0.3, origin.images[places], atol=1e-6)
    assert found.info["init"] == "real"


@pytest.mark.parametrize("features", FEATURES)
def test_herding_is_nested_in_ipc(features: str, tmp_path: Path) -> None:
    small, large = (coreset("herding", tmp_path, ipc=ipc, features=features).indices.reshape(3, ipc) for ipc in (2, 5))
    assert torch.equal(small, large[:, :2])


def test_herding_in_pixels_is_herd_of_each_class(tmp_path: Path) -> None:
    origin = tiny_origin()
    found = coreset("herding", tmp_path, ipc=3).indices
    expected = []
    for members in origin.by_class:
        rows = herd(origin.images[members].flatten(1).double().numpy(), 3)
        expected += (members[rows] + 100).tolist()
    assert found.tolist() == expected


@pytest.mark.parametrize("method", METHODS)
def test_spaces_choose_differently_and_the_network_is_always_the_same(method: str, tmp_path: Path) -> None:
    pixels, network, again = (
        coreset(method, tmp_path, ipc=4, features=features).indices for features in ("pixels", "network", "network")
    )
    assert torch.equal(network, again)
    assert not torch.equal(pixels, network)


def test_only_kmeans_depends_on_the_seed(tmp_path: Path) -> None:
    def chosen(method: str, seed: int) -> list[int]:
        found = coreset(method, tmp_path, ipc=4, distill_seed=seed, **({"restarts": 1} if method == "kmeans" else {}))
        return found.indices.tolist()

    assert chosen("herding", 0) == chosen("herding", 1)
    assert len({tuple(chosen("kmeans", seed)) for seed in range(4)}) > 1


@pytest.mark.parametrize("method", METHODS)
def test_a_class_is_chosen_from_alone(method: str, tmp_path: Path) -> None:
    """Class 7 is the second of three here and the first of two there."""
    found = []
    for classes, position in (((2, 7, 9), 1), ((7, 9), 0)):
        whole = tiny_origin(3)
        origin = whole if len(classes) == 3 else _without_first_class(whole)
        config = distill_config(method, ipc=3, origin=OriginConfig(classes=classes))
        found.append(distil(config, FakeContext(tmp_path), origin).indices.reshape(-1, 3)[position])
    assert torch.equal(*found)


def _without_first_class(origin: Any) -> Any:
    from trainables.data.origins import Origin

    kept = origin.labels > 0
    labels = origin.labels[kept] - 1
    by_class = tuple((labels == index).nonzero().squeeze(1) for index in range(2))
    return Origin(origin.images[kept], labels, origin.indices[kept], by_class)


@pytest.mark.parametrize("method", METHODS)
def test_killed_between_classes_gives_the_same_set(method: str, tmp_path: Path) -> None:
    config = distill_config(method, ipc=3)
    whole = distil(config, FakeContext(tmp_path / "whole"))
    context, stops, found = FakeContext(tmp_path / "parts", stop_after=1), 0, None
    while found is None:
        try:
            found = distil(config, context)
        except Interrupted:
            stops += 1
    assert stops == 2
    assert torch.equal(found.indices, whole.indices)
    assert torch.equal(found.images, whole.images)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_is_too_small_is_named(method: str, tmp_path: Path) -> None:
    config = distill_config(method, ipc=13)
    with pytest.raises(ValueError, match=r"class 0 has 12 images in the origin; got ipc 13; .* Lower the ipc"):
        distil(config, FakeContext(tmp_path))
