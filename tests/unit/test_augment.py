from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support import conformance_folder, vectors
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from trainables.data import augment

OPERATIONS = ("brightness", "saturation", "contrast", "flip", "scale", "rotate", "crop", "cutout")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 5, size: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, size, size, generator=generator(9))


def bilinear(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Independent reference: out(p) = x(M p), coordinates of pixel centres in [-1, 1], zeros outside."""
    size = image.shape[1]
    out = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            x, y = matrix @ [(2 * column + 1) / size - 1, (2 * row + 1) / size - 1]
            source_column, source_row = ((x + 1) * size - 1) / 2, ((y + 1) * size - 1) / 2
            for r in (math.floor(source_row), math.floor(source_row) + 1):
                for c in (math.floor(source_column), math.floor(source_column) + 1):
                    if 0 <= r < size and 0 <= c < size:
                        weight = (1 - abs(source_row - r)) * (1 - abs(source_column - c))
                        out[:, row, column] += weight * image[:, r, c]
    return out


def test_colour_operations_against_numpy() -> None:
    x, u = images(), torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7])
    array, column = x.double().numpy(), u.double().numpy().reshape(-1, 1, 1, 1)
    grey, mean = array.mean(1, keepdims=True), array.mean((1, 2, 3), keepdims=True)
    for ours, theirs in (
        (augment.brightness(x, u), array + column - 0.5),
        (augment.saturation(x, u), (array - grey) * 2 * column + grey),
        (augment.contrast(x, u), (array - mean) * (column + 0.5) + mean),
    ):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_geometric_operations_against_numpy() -> None:
    x, u = images(2), torch.tensor([[0.1, 0.8], [0.9, 0.4]])
    stretched, turned = augment.scale(x, u), augment.rotate(x, u[:, 0])
    for index in range(2):
        sx, sy = (float(value) * (1.2 - 1 / 1.2) + 1 / 1.2 for value in u[index])
        angle = (2 * float(u[index, 0]) - 1) * math.pi / 12
        cos, sin = math.cos(angle), math.sin(angle)
        image = x[index].double().numpy()
        np.testing.assert_allclose(stretched[index], bilinear(image, np.diag([sx, sy])), atol=1e-4)
        np.testing.assert_allclose(turned[index], bilinear(image, np.array([[cos, -sin], [sin, cos]])), atol=1e-4)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_crop_and_cutout_against_loops(size: int) -> None:
    x = images(4, size)
    shifts = torch.tensor([[1, -1], [0, 0], [-1, 1], [1, 1]])
    centres = torch.tensor([[0, size], [size // 2, 1], [size, size], [3, 0]])
    cropped, cut = augment.crop(x, shifts), augment.cutout(x, centres)
    half = augment.cutout_side(size) // 2
    for index in range(4):
        (down, right), (row, column) = shifts[index].tolist(), centres[index].tolist()
        for h in range(size):
            for w in range(size):
                inside = 0 <= h + down < size and 0 <= w + right < size
                expected = x[index, :, h + down, w + right] if inside else torch.zeros(3)
                assert torch.equal(cropped[index, :, h, w], expected)
                hidden = row - half <= h < row + half and column - half <= w < column + half
                assert torch.equal(cut[index, :, h, w], torch.zeros(3) if hidden else x[index, :, h, w])
        assert torch.equal(augment.crop(x[index : index + 1], shifts[index : index + 1])[0], cropped[index])


def test_sizes_of_the_published_tables() -> None:
    assert [augment.crop_reach(size) for size in (28, 32, 64)] == [4, 4, 8]
    assert [augment.cutout_side(size) for size in (28, 32, 64)] == [14, 16, 32]


def test_integer_draws_reach_both_ends_and_nothing_beyond() -> None:
    draws = torch.linspace(0, 1 - 1e-7, 10_001)
    found = augment._integers(draws, -4, 9)
    assert found.unique().tolist() == list(range(-4, 5))
    assert all(1000 < int((found == value).sum()) < 1200 for value in range(-4, 5))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mode", ["S", "M"])
def test_siamese_two_batches_get_the_same_augmentation(mode, seed: int) -> None:
    x = images(6)
    params = augment.sample(augment.strategy_for(True, mode), 6, shared=True, generator=generator(seed))
    assert len(params) == 1
    torch.testing.assert_close(augment.apply(x, params)[2:3], augment.apply(x[2:3], params), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_is_augmented_as_its_images_one_by_one(seed: int) -> None:
    x = images(7)
    params = augment.sample_each(augment.strategy_for(True), 7, generator=generator(seed))
    together = augment.apply(x, params)
    for index in range(7):
        alone = augment.apply(x[index : index + 1], params.rows(index, index + 1))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-5)
    doubled = augment.apply(x.repeat_interleave(2, 0), params.repeat([2] * 7))
    torch.testing.assert_close(doubled[::2], together)
    torch.testing.assert_close(doubled[1::2], together)


def test_one_operation_per_batch_and_each_equally_often() -> None:
    counts = torch.zeros(6)
    for seed in range(1200):
        params = augment.sample(augment.strategy_for(True), 3, shared=False, generator=generator(seed))
        assert (params.active.sum(1) == 1).all()
        assert (params.active == params.active[0]).all(), "one operation for the whole batch"
        assert len(params.draws.unique(dim=0)) == 3, "parameters per image"
        counts += params.active[0]
    assert (counts - 200).abs().max() < 60  # about 4.6 standard deviations


def test_digits_are_never_mirrored() -> None:
    for strategy in (augment.strategy_for(False), augment.idc_training_strategy(False)):
        assert "flip" not in strategy.order
    assert "flip" in augment.strategy_for(True).order


def test_idc_strategy_is_flip_then_color_then_one_geometric_operation() -> None:
    params = augment.sample_each(augment.idc_training_strategy(True), 300, generator=generator())
    assert params.order == ("flip", "color", "crop", "scale", "rotate")
    assert params.active[:, :2].all()
    assert (params.active[:, 2:].sum(1) == 1).all()
    assert (params.active[:, 2:].sum(0) > 60).all()


def test_the_input_is_not_edited_and_equal_draws_give_equal_images() -> None:
    x = images(4)
    before = x.clone()
    for seed in range(12):
        params = augment.sample(augment.strategy_for(True), 4, shared=False, generator=generator(seed))
        assert torch.equal(augment.apply(x, params), augment.apply(x, params))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", augment.DSA_OPERATIONS)
def test_gradients_reach_the_pixels_and_agree_with_differences(name: augment.Operation) -> None:
    x = images(2, 8).double().requires_grad_()
    params = augment.sample(augment.Strategy(always=(name,)), 2, shared=False, generator=generator(3))
    assert torch.autograd.gradcheck(lambda value: augment.apply(value, params), (x,), eps=1e-4, atol=1e-3)


def test_hidden_pixels_have_no_gradient() -> None:
    x = images(1, 8).requires_grad_()
    augment.cutout(x, torch.tensor([[0, 0]])).sum().backward()
    assert x.grad is not None
    assert (x.grad[0, :, :2, :2] == 0).all()
    assert x.grad.sum() == 3 * (64 - 4)


@pytest.mark.parametrize("seed", range(10))
def test_cutmix_keeps_the_stated_share_of_each_image(seed: int) -> None:
    x = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 10, 10)
    labels = torch.arange(6)
    mixed, partners, kept = augment.cutmix(x, labels, generator(seed))
    assert 0 <= kept <= 1
    for index in range(6):
        own = (mixed[index] == index).double().mean()
        other = (mixed[index] == float(partners[index])).double().mean()
        expected = 1.0 if partners[index] == index else kept
        assert own == pytest.approx(expected)
        assert partners[index] == index or other == pytest.approx(1 - kept)


@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_aligning_corners_would_change_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """MTT's program aligns them, DC's did under the PyTorch it pins: a map that leaves the centre of a square image
    where it is samples at the same places either way, so there is nothing to choose."""
    x = torch.rand(3, 2, 9, 9, generator=generator(), dtype=torch.float64)
    u = torch.rand(3, 2, generator=generator(1)) if name == "scale" else torch.rand(3, generator=generator(1))
    ours = getattr(augment, name)(x, u)
    for function in ("affine_grid", "grid_sample"):
        plain = getattr(F, function)

        def aligned(*given: Any, plain: Any = plain, **named: Any) -> Tensor:
            return plain(*given, **{**named, "align_corners": True})  # type: ignore[no-any-return]

        monkeypatch.setattr(F, function, aligned)
    torch.testing.assert_close(getattr(augment, name)(x, u), ours, rtol=0, atol=1e-12)
    monkeypatch.undo()
    monkeypatch.setattr(F, "affine_grid", aligned_grid(F.affine_grid))
    assert not torch.allclose(getattr(augment, name)(x, u), ours, atol=1e-3), "aligning one of the two alone would"


def aligned_grid(plain: Any) -> Any:
    return lambda *given, **named: plain(*given, **{**named, "align_corners": True})


@pytest.mark.conformance
@pytest.mark.parametrize("name", OPERATIONS)
def test_conformance_of_the_operations(name: str) -> None:
    recorded = vectors(conformance_folder() / "dsa_ops.npz")
    repeats = [key.split(".")[1] for key in recorded if key.startswith(f"{name}.") and key.endswith(".y")]
    assert repeats
    for repeat in repeats:
        draws = recorded[f"{name}.{repeat}.draws"]
        draws = draws.reshape(1, -1) if name in ("scale", "crop", "cutout") else draws
        ours = getattr(augment, name)(recorded["x"], draws)
        torch.testing.assert_close(ours, recorded[f"{name}.{repeat}.y"], atol=1e-4, rtol=0)


# --- crops and flips --------------------------------------------------------------------------------------------------


def coordinates(count: int, size: int = 32) -> torch.Tensor:
    """Images (count, 2, size, size) whose pixels say where they are."""
    rows, columns = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return torch.stack([rows, columns])[None].repeat(count, 1, 1, 1)


def test_a_resized_crop_is_torchvisions() -> None:
    images = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    draws = torch.rand(200, 4, generator=torch.Generator().manual_seed(1))
    boxes = augment.crop_boxes(0.08 + 0.92 * draws[:, 0], draws[:, 1], draws[:, 2:], 32, 32)
    cropped = augment.resized_crop(images, boxes)
    for image, box, found in zip(images, boxes.tolist(), cropped, strict=True):
        expected = v2.functional.resized_crop(image, *box, size=[32, 32], antialias=False)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert len({tuple(box) for box in boxes.tolist()}) > 190


def test_boxes_have_the_share_that_was_drawn_and_sides_within_bounds() -> None:
    draws = torch.rand(5000, 4, generator=torch.Generator().manual_seed(2))
    area = 0.08 + 0.92 * draws[:, 0]
    boxes = augment.crop_boxes(area, draws[:, 1], draws[:, 2:], 64, 64).double()
    top, left, tall, wide = boxes.T
    assert bool((boxes[:, :2] >= 0).all())
    assert bool(((top + tall <= 64) & (left + wide <= 64)).all())
    assert float((tall * wide / 64**2 - area).abs().max()) < 0.03, "but for whole pixels"
    ratio = wide / tall
    assert 0.7 < float(ratio.min()) < 0.78
    assert 1.28 < float(ratio.max()) < 1.43
    free = tall < 64
    assert bool((top[free] == 0).any() & (top + tall == 64)[free].any())
    squares = augment.crop_boxes(area, draws[:, 1], draws[:, 2:], 64, 64, sides=1.0)
    assert torch.equal(squares[:, 2], squares[:, 3])
    whole = augment.crop_boxes(torch.ones(9), draws[:9, 1], draws[:9, 2:], 64, 64)
    assert whole.tolist() == [[0, 0, 64, 64]] * 9


def test_a_strategy_of_crops_shows_no_less_than_it_says() -> None:
    generator = torch.Generator().manual_seed(3)
    for least in (0.25, 0.64, 1.0):
        params = augment.sample(augment.resized_crop_and_flip(True, least), 300, shared=False, generator=generator)
        shown = augment.apply(coordinates(300), params)
        sides = (shown.flatten(2).max(2).values - shown.flatten(2).min(2).values).prod(1) / 31**2
        assert least - 0.06 < float(sides.min()) < least + 0.05
        mirrored = shown[:, 1, 0, 0] > shown[:, 1, 0, -1]
        assert 0.4 < float(mirrored.double().mean()) < 0.6
    never = augment.apply(
        coordinates(50),
        augment.sample(augment.resized_crop_and_flip(False, 1.0), 50, shared=False, generator=generator),
    )
    assert torch.equal(never, coordinates(50)), "nothing is left to do"


def test_crop_and_flip_shifts_by_up_to_an_eighth() -> None:
    params = augment.sample(augment.crop_and_flip(True), 400, shared=False, generator=torch.Generator().manual_seed(4))
    shown = augment.apply(coordinates(400) + 1, params)
    shift = shown[:, 0, 16, 16] - 17
    assert set(shift.tolist()) == set(map(float, range(-4, 5)))
    mirrored = shown[:, 1, 16, 10] > shown[:, 1, 16, 20]
    assert 0.4 < float(mirrored.double().mean()) < 0.6
