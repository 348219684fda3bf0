"""Data with groups: who is of which, what images look like; fairness between groups against a loop and its floor."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.configs import DatasetConfig
from trainables.data import groups as made
from trainables.data.cache import build, open_split
from trainables.data.groups import COLOURED, GREY, PALETTE, with_groups
from trainables.data.known import KNOWN, Rendering
from trainables.evaluate.groups import group_rows


def rendering(name: str) -> Rendering:
    found = KNOWN[name].made
    assert found is not None
    return found


def pictures(count: int, channels: int, size: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@pytest.mark.parametrize(("split", "share"), [("train", 0.9), ("test", 0.5)])
def test_five_classes_lean_to_grey_and_five_to_colour(split: Any, share: float) -> None:
    labels = np.repeat(np.arange(10), 40)
    _, found = with_groups(pictures(400, 3, 4), labels, rendering("cifar10_s"), split)
    for label in range(10):
        first = GREY if label < 5 else COLOURED
        assert (found[labels == label] == first).sum() == share * 40
    places = [np.flatnonzero(found[labels == label] == GREY).tolist() for label in range(5)]
    assert len({tuple(place) for place in places}) == 5, "each class is drawn on its own"


@pytest.mark.parametrize(("split", "own", "part"), [("train", 90, 2), ("test", 10, 10)])
def test_ten_colours_share_a_class(split: Any, own: int, part: int) -> None:
    labels = np.repeat(np.arange(10), 100)
    _, found = with_groups(pictures(1000, 1, 8), labels, rendering("cdigits_fg"), split)
    for label in range(10):
        counts = np.bincount(found[labels == label], minlength=10)
        assert counts[label] == own
        others = np.delete(counts, label)
        assert others.sum() == 100 - own
        assert others.max() == part
        assert sorted(others)[-(100 - own) // part :] == [part] * ((100 - own) // part), (
            "the last part has what is left"
        )


def test_grey_is_pillows_and_colour_is_left_alone() -> None:
    images = pictures(40, 3, 5)
    shown, found = with_groups(images, np.zeros(40, dtype=np.int64), rendering("cifar10_s"), "train")
    for image, out, group in zip(images, shown, found, strict=True):
        if group == GREY:
            grey = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))
            assert (out == grey[None]).all()
        else:
            assert (out == image).all()


@pytest.mark.parametrize(
    ("name", "value", "share"),
    [
        ("cmnist_fg", 127, 0.0),
        ("cmnist_fg", 128, 1.0),
        ("cmnist_bg", 127, 1.0),
        ("cmnist_bg", 128, 0.0),
        ("cfmnist_fg", 51, 0.2),
        ("cfmnist_bg", 51, 0.8),
        ("cfmnist_bg", 255, 0.0),
        ("cdigits_fg", 255, 1.0),
    ],
)
def test_what_is_coloured_and_how_much(name: str, value: int, share: float) -> None:
    images = np.full((30, 1, 8, 8), value, dtype=np.uint8)
    shown, found = with_groups(images, np.full(30, 3), rendering(name), "train")
    for image, group in zip(shown, found, strict=True):
        assert np.abs(image - share * np.array(PALETTE[group])[:, None, None]).max() <= 0.5


def test_images_of_28_pixels_get_a_margin_above_and_on_the_left() -> None:
    shown, _ = with_groups(np.full((10, 1, 28, 28), 255, np.uint8), np.full(10, 9), rendering("cfmnist_fg"), "test")
    assert shown.shape == (10, 3, 32, 32)
    assert shown[:, :, : made.MARGIN].max() == shown[:, :, :, : made.MARGIN].max() == 0
    assert shown[:, :, made.MARGIN :, made.MARGIN :].max(1).min() == 255


def config(index: Any, resize: int | None = None) -> DatasetConfig:
    known = KNOWN["cdigits_fg"]
    return DatasetConfig(
        name="cdigits_fg",
        base="cdigits_fg",
        resize=resize,
        digest=index.digest,
        num_classes=10,
        image_size=resize or 8,
        channels=3,
        mean=known.mean,
        std=known.std,
        flip=False,
    )


@pytest.mark.parametrize("resize", [None, 12])
def test_a_cache_keeps_the_group_of_each_image(resize: int | None, tmp_path: Path) -> None:
    index = build("cdigits_fg", None, resize, tmp_path / "data", tmp_path / "cache")
    assert (index.channels, sum(index.train_counts), min(index.test_counts)) == (3, 1297, 50)
    assert build("cdigits_fg", None, resize, tmp_path / "data", tmp_path / "other").digest == index.digest
    for name in ("train", "test"):
        split = open_split(config(index, resize), name, tmp_path / "data", tmp_path / "cache")  # type: ignore[arg-type]
        assert split.groups is not None
        for image, group in zip(split.images[::7], split.groups[::7], strict=True):
            largest = image.reshape(3, -1).max(1).astype(int)
            assert ((largest > 0) == (np.array(PALETTE[group]) > 0)).all(), "it is of its colour"


def test_a_group_that_was_changed_on_the_disk_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = build("cdigits_fg", None, None, tmp_path / "data", tmp_path / "cache")
    kept = np.load(index.folder / "test_groups.npy")
    np.save(index.folder / "test_groups.npy", kept[::-1])
    split = open_split(config(index), "test", tmp_path / "data", tmp_path / "cache")
    assert (split.groups == kept).all()
    assert "the decoded images changed since they were written" in capsys.readouterr().err


# --- fairness between groups ------------------------------------------------------------------------------------------


def rows(predicted: Any, labels: Any, groups: Any, num_groups: int) -> dict[str, float]:
    """Metric -> value, of a model that says this."""
    logits = np.eye(int(labels.max()) + 1)[predicted]
    return {
        row["metric"]: row["value"] for row in group_rows(logits, labels, groups, int(labels.max()) + 1, num_groups)
    }


def test_rates_and_gaps_agree_with_a_loop() -> None:
    random = np.random.default_rng(1)
    labels, groups = random.integers(0, 4, 900), random.integers(0, 3, 900)
    predicted = np.where(random.random(900) < 0.4 + 0.1 * groups, labels, random.integers(0, 4, 900))
    right = predicted == labels
    tpr = np.array([[right[(labels == k) & (groups == g)].mean() for k in range(4)] for g in range(3)])
    fpr = np.array([[(predicted[(labels != k) & (groups == g)] == k).mean() for k in range(4)] for g in range(3)])
    accuracies = [right[groups == g].mean() for g in range(3)]
    gaps, false = tpr.max(0) - tpr.min(0), fpr.max(0) - fpr.min(0)
    found = rows(predicted, labels, groups, 3)
    assert found["group_worst_acc"] == pytest.approx(min(accuracies))
    assert found["group_gap_acc"] == pytest.approx(max(accuracies) - min(accuracies))
    assert found["group_worst_tpr"] == pytest.approx(tpr.min())
    assert found["group_eod_mean"] == pytest.approx(gaps.mean())
    assert found["group_eod_max"] == pytest.approx(gaps.max())
    assert found["group_equalised_odds"] == pytest.approx(max(gaps.max(), false.max()))


def test_false_positives_count_in_equalised_odds_alone() -> None:
    """Of group 1 every image of class 1 is taken for class 0; of group 0 none."""
    labels, groups = np.repeat([0, 1, 2], 40), np.tile([0, 1], 60)
    predicted = np.where((labels == 1) & (groups == 1), 0, labels)
    found = rows(predicted, labels, groups, 2)
    assert found["group_eod_max"] == 1.0
    assert found["group_eod_mean"] == pytest.approx(1 / 3)
    swapped = np.where((labels == 2) & (groups == 1), 0, np.where((labels == 2) & (groups == 0), 1, labels))
    odds = rows(swapped, labels, groups, 2)
    assert odds["group_eod_max"] == 0.0, "nobody of class 2 is right, of either group"
    assert odds["group_equalised_odds"] == pytest.approx(0.5), "but they are mistaken for different classes"


@pytest.mark.parametrize(("num_groups", "cell", "mean", "largest"), [(10, 100, 0.151, 0.215), (2, 1000, 0.017, 0.041)])
def test_the_floor_of_a_fair_classifier(num_groups: int, cell: int, mean: float, largest: float) -> None:
    """methods2.md 6.2: ten classes at a TPR of 0.6."""
    labels, groups = map(np.array, zip(*itertools.product(range(10), range(num_groups)), strict=True))
    labels, groups = np.repeat(labels, cell), np.repeat(groups, cell)
    random = np.random.default_rng(0)
    right = random.random(len(labels)) < 0.6
    found = rows(np.where(right, labels, (labels + 1) % 10), labels, groups, num_groups)
    assert found["group_eod_mean_null"] == pytest.approx(mean, abs=0.002)
    assert found["group_eod_max_null"] == pytest.approx(largest, abs=0.006)


def test_chance_exceeds_its_band_in_a_twentieth_of_cases() -> None:
    """And a real difference of groups nearly always."""
    random = np.random.default_rng(2)
    labels, groups = np.repeat(np.arange(5), 80), np.tile(np.repeat([0, 1], 40), 5)
    above = {0.0: 0, 0.25: 0}
    for bias in above:
        for _ in range(400):
            right = random.random(400) < 0.6 + bias * (groups - 0.5)
            found = rows(np.where(right, labels, (labels + 1) % 5), labels, groups, 2)
            above[bias] += found["group_eod_mean"] > found["group_eod_mean_null_high"]
    assert 5 <= above[0.0] <= 35, "20 expected; ties make it a little less"
    assert above[0.25] > 380


def test_a_group_without_a_test_image_of_a_class_takes_no_part_there() -> None:
    labels, groups = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 0, 0, 0, 0])
    found = rows(np.array([0, 1, 1, 1, 1, 0]), labels, groups, 3)
    assert found["group_eod_max"] == 1.0
    assert found["group_eod_mean"] == pytest.approx(0.5), "class 1 has one group, and so no gap"
    assert found["group_worst_acc"] == 0.0
