"""Image folders are read as their owner sees them, or refused with advice that fits the cause."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.data.cache import build
from trainables.data.known import KNOWN
from trainables.data.layout import DataBroken, DataMissing, Duplicates, Index, find_source, incomplete

NAMES = [f"kind_{letter}" for letter in "abcdefghij"]
SIZE = 32


def picture(label: int, number: int, split: str, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """A colour image unlike all others: red says its class, green its number, blue its split."""
    return Image.new("RGB", size, (label * 20, number * 20, 0 if split == "train" else 200))


def write_folder(
    root: Path, names: list[str] = NAMES, per_class: int = 3, suffix: str = ".png", **options: Any
) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                picture(label, number, split, **options).save(folder / f"{number}{suffix}")


def read(data: Path, resize: int | None = None) -> Index:
    return build("cifar10", "mine", resize, data, data / "cache")


def reds(index: Index) -> list[int]:
    """Which folder's images carry each label, by number of the folder."""
    images, labels = (np.load(index.folder / f"train_{part}.npy") for part in ("images", "labels"))
    return [int(images[labels == label][0, 0, 0, 0]) // 20 for label in range(10)]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".webp", ".tif", ".tiff", ".gif"])
def test_every_image_is_read_whatever_its_format(tmp_path: Path, suffix: str) -> None:
    write_folder(tmp_path / "mine", per_class=1)
    for file in sorted((tmp_path / "mine").rglob("*.png")):
        name, options = file.with_name(f"more{suffix}"), {"lossless": True} if suffix == ".webp" else {}
        changed = Image.open(file).point(lambda value: value ^ 3)
        changed.save(name, **options)
    index = read(tmp_path)
    assert index.train_counts == (2,) * 10
    images = np.load(index.folder / "train_images.npy")
    assert {int(red) for red in images[:, 0, 0, 0]} == {
        red for label in range(10) for red in (label * 20, label * 20 ^ 3)
    }


def test_folders_that_are_whole_numbers_are_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", [str(number) for number in range(1, 11)])
    index = read(tmp_path)
    assert reds(index) == list(range(10))  # the alphabet has 10 before 2
    assert index.class_names == tuple(str(number) for number in range(1, 11))


def test_other_names_are_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", NAMES[::-1])
    assert reds(read(tmp_path)) == list(range(10))[::-1]


def test_what_was_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "mine")
    (tmp_path / "mine" / "train" / "kind_c" / "notes.txt").write_text("from the garden")
    (tmp_path / "mine" / "train" / "list.csv").write_text("1,2")
    index = read(tmp_path)
    assert index.left_out == ("train/kind_c/notes.txt", "train/list.csv")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mine: 30 training and 30 test images of 10 classes from ")
    assert "labels: 0 = kind_a, 1 = kind_b" in line
    assert line.endswith("left out: 2 (train/kind_c/notes.txt, train/list.csv)")
    read(tmp_path)
    assert capsys.readouterr().err == ""  # once


@pytest.mark.parametrize("name", ["0.heic", "more.npy", "image", "summer/0.png"])
def test_what_may_be_an_image_of_a_class_is_not_left_out(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "mine")
    file = tmp_path / "mine" / "train" / "kind_d" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"whatever")
    with pytest.raises(DataBroken, match=r"files of classes would be left out; got 1, first train/kind_d/.* Convert"):
        read(tmp_path)
    file.unlink()
    if file.parent.name != "kind_d":
        file.parent.rmdir()
    assert sum(read(tmp_path).train_counts) == 30  # what the message says helps


def test_hidden_files_are_skipped(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine")
    whole = read(tmp_path).digest
    for file in list((tmp_path / "mine").rglob("*.png")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7 of another system")
        file.with_name(".DS_Store").write_bytes(b"Bud1")
    (tmp_path / "mine" / "train" / "._kind_a").write_bytes(b"\0\5\x16\7")
    index = read(tmp_path)
    assert index.digest == whole
    assert index.left_out == ()


def test_images_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine")
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    file = tmp_path / "mine" / "train" / "kind_a" / "0.png"
    upright.save(file)
    expected = read(tmp_path).digest
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    assert read(tmp_path).digest == expected


def test_advice_fits_the_cause(tmp_path: Path) -> None:
    write_folder(tmp_path / "wide" / "mine", size=(SIZE + 16, SIZE))
    with pytest.raises(
        DataBroken, match=r"got 32x48 pixels .* in 30 of 30 images.*Crop or pad the images to squares"
    ) as wide:
        read(tmp_path / "wide", resize=SIZE)
    assert "Declare" not in str(wide.value)
    write_folder(tmp_path / "mixed" / "mine")
    odd = tmp_path / "mixed" / "mine" / "train" / "kind_b" / "1.png"
    picture(1, 1, "train", (40, 40)).save(odd)
    with pytest.raises(
        DataBroken, match=rf"{odd}: .* got 40x40 pixels .* 1 of 30 images.*Bring all images to one"
    ) as mixed:
        read(tmp_path / "mixed", resize=SIZE)
    assert "Declare" not in str(mixed.value)
    write_folder(tmp_path / "gray" / "mine")
    odd = tmp_path / "gray" / "mine" / "train" / "kind_b" / "1.png"
    picture(1, 1, "train").convert("L").save(odd)
    with pytest.raises(
        DataBroken, match=rf"{odd}: .* 1 of 30 images with 1 channel.*Convert the gray images to RGB"
    ) as gray:
        read(tmp_path / "gray")
    assert "Declare" not in str(gray.value)
    write_folder(tmp_path / "large" / "mine", size=(40, 40))
    with pytest.raises(DataBroken, match=r"got 40x40 pixels .* in 30 of 30 .* Declare the folder with resize: 32"):
        read(tmp_path / "large")
    assert read(tmp_path / "large", resize=SIZE).image_size == SIZE


def test_an_animation_is_no_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine")
    frames = [picture(0, number, "train") for number in range(3)]
    frames[0].save(tmp_path / "mine" / "train" / "kind_a" / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataBroken, match=r"a\.gif: several images in one file; got 3; expected 1"):
        read(tmp_path)


def test_identical_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "mine")
    assert not read(tmp_path).duplicates
    train, test = tmp_path / "mine" / "train", tmp_path / "mine" / "test"
    (train / "kind_a" / "copy.png").write_bytes((train / "kind_a" / "0.png").read_bytes())
    (train / "kind_b" / "other class.png").write_bytes((train / "kind_a" / "0.png").read_bytes())
    (test / "kind_c" / "seen.png").write_bytes((train / "kind_c" / "1.png").read_bytes())
    (test / "kind_d" / "again.png").write_bytes((test / "kind_d" / "1.png").read_bytes())
    capsys.readouterr()
    assert read(tmp_path).duplicates == Duplicates(train=2, test=1, test_in_train=1)
    said = capsys.readouterr().err
    assert "mine: identical images: 1 of 32 test images are also training images, 2 of 32 training images" in said


def test_the_known_data_sets_hold_no_image_twice(tmp_path: Path) -> None:
    index = build("digits", None, None, tmp_path, tmp_path / "c")
    assert index.digest == KNOWN["digits"].digest
    assert not index.duplicates


def test_one_folder_down_is_found_or_named(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "plain_text"
    place.mkdir(parents=True)
    (place / "train-00000-of-00001.parquet").touch()
    assert find_source("cifar10", "mine", tmp_path) is None
    assert incomplete("cifar10", "mine", tmp_path) == ["mine/plain_text/train-*.parquet without test-*.parquet"]
    (place / "test-00000-of-00001.parquet").touch()
    source = find_source("cifar10", "mine", tmp_path)
    assert source is not None
    assert source.root == place
    place.rename(tmp_path / "mine" / "a")
    (tmp_path / "mine" / "b").mkdir()
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        (tmp_path / "mine" / "b" / name).touch()
    assert find_source("cifar10", "mine", tmp_path) is None  # which of the two is for the owner to say
    with pytest.raises(DataMissing, match=r"both splits in mine/a/, mine/b/, of which one has to be chosen"):
        read(tmp_path)


def test_a_folder_that_holds_something_else_is_described(tmp_path: Path) -> None:
    (tmp_path / "mine" / "Train" / "cat").mkdir(parents=True)
    (tmp_path / "mine" / "README.md").touch()
    assert incomplete("cifar10", "mine", tmp_path) == ["mine/ with README.md, Train/"]
    write_folder(tmp_path / "mine" / "images")
    assert incomplete("cifar10", "mine", tmp_path) == ["an image folder one folder down, in mine/images/"]
