"""Draws are nested, shared and disjoint where they must be; tensors hold the images that the indices name."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import digits_config, query_sets

from trainables.configs import DatasetConfig, OriginConfig, SignalsConfig
from trainables.data.cache import open_split
from trainables.data.known import class_subset
from trainables.data.origins import (
    QueriedImages,
    canary_labels,
    load_origin,
    load_test,
    origin_indices,
    pool_indices,
    query_indices,
)
from trainables.data.pixels import denormalise, normalise

LABELS = np.repeat(np.arange(5), [30, 40, 31, 32, 33])
ALL = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def digits() -> DatasetConfig:
    return digits_config()


def draw(per_class: int, number: int, classes: tuple[int, ...] = ALL) -> np.ndarray:
    return origin_indices(OriginConfig(kind="draw", per_class=per_class, draw=number, classes=classes), LABELS)


def pool(per_class: int, number: int, row: int) -> OriginConfig:
    return OriginConfig(kind="pool", per_class=per_class, draw=number, row=row, classes=ALL)


def test_full_is_every_image_of_the_classes() -> None:
    np.testing.assert_array_equal(origin_indices(OriginConfig(classes=ALL), LABELS), np.arange(len(LABELS)))
    some = origin_indices(OriginConfig(classes=(1, 4)), LABELS)
    np.testing.assert_array_equal(some, np.flatnonzero((LABELS == 1) | (LABELS == 4)))


@given(small=st.integers(1, 30), large=st.integers(1, 30), number=st.integers(0, 9))
def test_draws_are_stratified_ascending_and_nested(small: int, large: int, number: int) -> None:
    small, large = sorted((small, large))
    inner, outer = draw(small, number), draw(large, number)
    assert np.bincount(LABELS[inner]).tolist() == [small] * 5
    assert np.all(np.diff(outer) > 0)
    assert set(inner.tolist()) <= set(outer.tolist())


def test_draws_differ_by_number_and_do_not_depend_on_other_classes() -> None:
    assert len({tuple(draw(5, number).tolist()) for number in range(8)}) == 8
    whole, part = draw(5, 3), draw(5, 3, (1, 4))
    np.testing.assert_array_equal(part, whole[np.isin(LABELS[whole], (1, 4))])


def test_draws_are_uniform() -> None:
    """Every image of a class is drawn about equally often: 400 draws of 10 out of 40, 5 standard deviations wide."""
    counts = np.zeros(len(LABELS))
    for number in range(400):
        counts[draw(10, number, (1, 2))] += 1
    assert np.abs(counts[LABELS == 1] - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


@given(per_class=st.integers(1, 15), number=st.integers(0, 3), pair=st.integers(0, 40))
def test_pool_rows_are_stratified_halves_and_complements(per_class: int, number: int, pair: int) -> None:
    everything = pool_indices(pool(per_class, number, 0), LABELS)
    assert np.bincount(LABELS[everything]).tolist() == [2 * per_class] * 5
    even = origin_indices(pool(per_class, number, 2 * pair), LABELS)
    odd = origin_indices(pool(per_class, number, 2 * pair + 1), LABELS)
    for row in (even, odd):
        assert np.bincount(LABELS[row]).tolist() == [per_class] * 5
        assert np.all(np.diff(row) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([even, odd])), everything)


def test_pool_rows_differ_and_each_image_is_in_half_of_them() -> None:
    rows = [origin_indices(pool(15, 0, row), LABELS) for row in range(16)]
    assert len({tuple(row.tolist()) for row in rows}) == 16
    members = np.bincount(np.concatenate(rows), minlength=len(LABELS))
    assert set(members[pool_indices(pool(15, 0, 0), LABELS)].tolist()) == {8}


def test_a_pool_is_not_the_draw_of_the_same_number() -> None:
    assert set(pool_indices(pool(5, 0, 0), LABELS).tolist()) != set(draw(10, 0).tolist())


def test_too_few_images_are_counted_in_the_message() -> None:
    with pytest.raises(ValueError, match="got class 0 holds 30, class 2 holds 31; expected at least 32 of each"):
        draw(32, 0)
    with pytest.raises(
        ValueError, match=r"origin pool: .* got class 0 holds 30, class 2 holds 31; expected at least 32"
    ):
        origin_indices(pool(16, 0, 0), LABELS)
    with pytest.raises(ValueError, match="got kind 'full'; expected 'pool' or 'coin'"):
        pool_indices(OriginConfig(classes=ALL), LABELS)


def test_draws_keep_their_meaning() -> None:
    """Frozen: a change here changes what finished work was computed from, and needs a new stage version."""
    assert draw(3, 0)[:6].tolist() == [18, 22, 28, 62, 66, 68]
    assert origin_indices(pool(2, 1, 3), LABELS)[:6].tolist() == [3, 22, 46, 52, 97, 98]
    assert class_subset(100, 5, 1) == (20, 52, 65, 68, 89)
    everything = hashlib.sha256()
    for number in range(4):
        for per_class in (1, 7, 30):
            everything.update(draw(per_class, number).tobytes())
        for row in range(6):
            everything.update(origin_indices(pool(15, number, row), LABELS).tobytes())
        everything.update(pool_indices(pool(11, number, 0), LABELS).tobytes())
        everything.update(draw(5, number, (1, 4)).tobytes())
    everything.update(origin_indices(OriginConfig(classes=ALL), LABELS).tobytes())
    # From before origins had blocks, coins and canaries, as is the key's text below.
    assert everything.hexdigest() == "74b460b5bd2cc3043f4732cce0e12476fb59499884b68879d883cccf78fd15fd"
    assert pool(15, 1, 2).key_json == '{"classes":[0,1,2,3,4],"draw":1,"kind":"pool","per_class":15,"row":2}'


def block(per_class: int, number: int | None, draw: int = 0) -> OriginConfig:
    return OriginConfig(kind="draw", per_class=per_class, draw=draw, block=number, classes=ALL)


@given(per_class=st.integers(1, 10), number=st.integers(0, 3))
def test_blocks_cut_the_draw_into_disjoint_pieces(per_class: int, number: int) -> None:
    blocks = [origin_indices(block(per_class, index, number), LABELS) for index in (None, 1, 2)]
    for indices in blocks:
        assert np.bincount(LABELS[indices]).tolist() == [per_class] * 5
        assert np.all(np.diff(indices) > 0)
    # Together they are the larger draw of the same number.
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), draw(3 * per_class, number))


def test_a_block_that_does_not_fit_names_class_and_sizes() -> None:
    assert len(origin_indices(block(10, 2), LABELS)) == 50
    with pytest.raises(ValueError, match=r"origin draw: .* got class 0 holds 30, class 2 holds 31, .* at least 40"):
        origin_indices(block(10, 3), LABELS)


def coin(per_class: int, row: int, draw: int = 0, canaries: int = 0) -> OriginConfig:
    return OriginConfig(kind="coin", per_class=per_class, draw=draw, row=row, canaries=canaries, classes=ALL)


def test_coins_are_fair_and_independent() -> None:
    everything = pool_indices(pool(15, 2, 0), LABELS)
    np.testing.assert_array_equal(pool_indices(coin(15, 0, 2), LABELS), everything)
    tosses = np.stack([np.isin(everything, origin_indices(coin(15, row, 2), LABELS)) for row in range(400)])
    assert all(set(origin_indices(coin(15, row, 2), LABELS)) <= set(everything) for row in range(3))
    reach = 5 * np.sqrt(400 * 0.25)
    assert np.abs(tosses.sum(0) - 200).max() < reach
    # Unlike halves of a pool, coins leave the number of members of a class to chance: binomial variance, 30 / 4.
    sizes = tosses[:, LABELS[everything] == 3].sum(1)
    assert 5.5 < sizes.var() < 9.5
    agree = (tosses[:, :-1] == tosses[:, 1:]).sum(0)
    assert np.abs(agree - 200).max() < reach


def canaried(count: int, row: int, number: int = 0, per_class: int = 15) -> OriginConfig:
    return pool(per_class, number, row).model_copy(update={"canaries": count})


def test_canaries_are_pool_images_with_another_class() -> None:
    found = canary_labels(canaried(20, 0), LABELS)
    assert len(found) == 20
    assert list(found) == sorted(found)
    assert set(found) <= set(pool_indices(pool(15, 0, 0), LABELS).tolist())
    assert all(0 <= wrong < 5 and wrong != LABELS[index] for index, wrong in found.items())
    assert all(canary_labels(canaried(20, row), LABELS) == found for row in range(4))
    assert canary_labels(coin(15, 3, canaries=20), LABELS) == found
    assert canary_labels(canaried(20, 0, number=1), LABELS) != found
    assert canary_labels(canaried(0, 0), LABELS) == canary_labels(block(3, 1), LABELS) == {}
    # Positions in the list of classes, not labels.
    some = canary_labels(canaried(9, 0).model_copy(update={"classes": (1, 3)}), LABELS)
    assert all(wrong != (1, 3).index(LABELS[index]) for index, wrong in some.items())


def test_canaries_are_spread_over_pool_and_wrong_classes() -> None:
    hits, shifts = np.zeros(len(LABELS)), np.zeros(5)
    for number in range(300):
        for index, wrong in canary_labels(canaried(10, 0, number), LABELS).items():
            hits[index] += 1
            shifts[(wrong - LABELS[index]) % 5] += 1
    assert shifts[0] == 0
    assert np.abs(shifts[1:] - 750).max() < 5 * np.sqrt(3000 * 0.25 * 0.75)
    per_class = np.bincount(LABELS, weights=hits)
    assert np.abs(per_class - 600).max() < 5 * np.sqrt(3000 * 0.2 * 0.8)


def test_too_many_canaries() -> None:
    with pytest.raises(ValueError, match=r"got 151 canaries, 150 images and 5 classes; .* Ask for fewer canaries"):
        canary_labels(canaried(151, 0), LABELS)


def test_members_that_are_canaries_are_loaded_with_the_wrong_label(
    digits: DatasetConfig, tmp_path: Path, cache: Path
) -> None:
    plain = OriginConfig(kind="pool", per_class=12, draw=0, row=0, classes=(1, 3, 8))
    config = plain.model_copy(update={"canaries": 30})
    split = open_split(digits, "train", tmp_path, cache)
    wrong = canary_labels(config, split.labels)
    loaded, clean = (load_origin(digits, each, tmp_path, cache, "cpu") for each in (config, plain))
    assert torch.equal(loaded.images, clean.images)
    changed = loaded.labels != clean.labels
    members = [index for index in loaded.indices.tolist() if index in wrong]
    assert 5 < len(members) < 30
    assert loaded.indices[changed].tolist() == members
    assert loaded.labels[changed].tolist() == [wrong[index] for index in members]
    for position, places in enumerate(loaded.by_class):
        assert (loaded.labels[places] == position).all()
    assert sorted(torch.cat(loaded.by_class).tolist()) == list(range(36))

    asked = query_sets(digits, config, SignalsConfig(population=2), tmp_path, cache, "cpu")
    in_pool = dict(zip(asked["pool"].ids.tolist(), asked["pool"].labels.tolist(), strict=True))
    assert all(in_pool[index] == position for index, position in wrong.items())
    truth = np.searchsorted((1, 3, 8), split.labels)
    assert all(position == truth[index] for index, position in in_pool.items() if index not in wrong)
    population = asked["population"]
    np.testing.assert_array_equal(population.labels.numpy(), truth[population.ids.numpy()])


def test_what_a_model_is_asked_about() -> None:
    asked = query_indices(block(4, None), SignalsConfig(), LABELS)
    assert set(asked) == {"origin"}
    asked = query_indices(block(4, 2), SignalsConfig(), LABELS)
    assert set(asked) == {"origin", "other"}
    np.testing.assert_array_equal(asked["other"], origin_indices(block(4, 3), LABELS))
    assert set(query_indices(OriginConfig(classes=ALL), SignalsConfig(), LABELS)) == {"origin"}
    for origin in (pool(6, 1, 3), coin(6, 3, 1)):
        asked = query_indices(origin, SignalsConfig(population=5, reserve=7), LABELS)
        np.testing.assert_array_equal(asked["pool"], pool_indices(origin, LABELS))
        assert [len(asked[split]) for split in ("pool", "population", "reserve")] == [60, 25, 35]
        together = np.concatenate(list(asked.values()))
        assert len(set(together.tolist())) == len(together)
        assert np.bincount(LABELS[asked["reserve"]]).tolist() == [7] * 5
    assert set(query_indices(pool(6, 1, 3), SignalsConfig(population=5), LABELS)) == {"pool", "population"}
    with pytest.raises(ValueError, match=r"got class 0 holds 30, .*; expected at least 32 of each"):
        query_indices(pool(6, 1, 3), SignalsConfig(population=10, reserve=10), LABELS)


def test_pieces_of_asked_images_do_not_show(
    digits: DatasetConfig, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = OriginConfig(kind="pool", per_class=9, draw=0, row=0, canaries=4, classes=(2, 5))
    place = (digits, origin, SignalsConfig(population=3, reserve=20), tmp_path, cache, "cpu")
    whole = query_sets(*place)
    monkeypatch.setattr("trainables.data.origins._CHUNK", 7)
    pieces = list(QueriedImages(*place))
    assert max(len(piece.images) for _, piece in pieces) == 7
    again = query_sets(*place)
    for split, images in whole.items():
        assert all(torch.equal(one, other) for one, other in zip(images, again[split], strict=True))
    split = open_split(digits, "train", tmp_path, cache)
    for images in whole.values():
        pixels = denormalise(images.images, digits.mean, digits.std) * 255
        np.testing.assert_array_equal(pixels.round().byte().numpy(), split.images[images.ids.numpy()])


@given(total=st.integers(2, 200), draws=st.integers(0, 5), data=st.data())
def test_class_subsets_ascend_and_are_nested(total: int, draws: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(2, total))
    chosen = class_subset(total, number, draws)
    assert len(chosen) == number
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(range(total))
    assert set(class_subset(total, 2, draws)) <= set(chosen)
    if draws == 0:
        assert chosen == tuple(range(number))


def test_class_draws_differ_and_bounds_are_checked() -> None:
    assert len({class_subset(100, 5, number) for number in range(10)}) == 10
    for number in (1, 11):
        with pytest.raises(ValueError, match=f"num_classes: out of range; got {number}; expected 2 to 10"):
            class_subset(10, number, 0)


def test_load_origin_holds_the_named_images(digits: DatasetConfig, tmp_path: Path, cache: Path) -> None:
    config = OriginConfig(kind="draw", per_class=7, draw=2, classes=(1, 3, 8))
    origin = load_origin(digits, config, tmp_path, cache, "cpu")
    split = open_split(digits, "train", tmp_path, cache)
    assert origin.images.shape == (21, 1, 8, 8)
    assert origin.images.dtype == torch.float32
    expected = (split.images[origin.indices.numpy()] / 255.0 - digits.mean[0]) / digits.std[0]
    np.testing.assert_allclose(origin.images.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(np.array((1, 3, 8))[origin.labels.numpy()], split.labels[origin.indices.numpy()])
    assert [members.tolist() for members in origin.by_class] == [list(range(k * 7, k * 7 + 7)) for k in range(3)]
    assert origin.labels.dtype == origin.indices.dtype == origin.by_class[0].dtype == torch.int64


def test_load_test_holds_all_test_images_of_the_classes(digits: DatasetConfig, tmp_path: Path, cache: Path) -> None:
    images, labels, ids = load_test(digits, (2, 9), tmp_path, cache, "cpu")
    assert images.shape == (100, 1, 8, 8)
    assert labels.tolist() == [0] * 50 + [1] * 50
    split = open_split(digits, "test", tmp_path, cache)
    np.testing.assert_array_equal(split.labels[ids.numpy()], np.repeat((2, 9), 50))
    again = denormalise(images, digits.mean, digits.std) * 255
    np.testing.assert_array_equal(again.round().byte().numpy(), split.images[ids.numpy()])


def test_chunks_do_not_show(
    digits: DatasetConfig, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OriginConfig(classes=tuple(range(10)))
    whole = load_origin(digits, config, tmp_path, cache, "cpu").images
    monkeypatch.setattr("trainables.data.origins._CHUNK", 100)
    assert torch.equal(load_origin(digits, config, tmp_path, cache, "cpu").images, whole)


def test_normalise_is_inverted_and_lets_gradients_through() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    images = torch.rand(4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 - 1
    images.requires_grad_()
    out = normalise(images, mean, std)
    assert torch.allclose(denormalise(out, mean, std), images)
    np.testing.assert_allclose(out[:, 2].detach(), (images[:, 2].detach().numpy() - 0.6) / 0.3)
    (gradient,) = torch.autograd.grad(out.sum(), images)
    assert torch.allclose(gradient[:, 1], torch.tensor(5.0, dtype=torch.float64))
