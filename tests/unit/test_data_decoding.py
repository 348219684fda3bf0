"""Every layout gives the same images in the same order; every kind of broken input is refused by name.

The synthetic set has the digits' shape (10 classes, 8 x 8, gray) unless a layout asks for another one.
"""

import gzip
import hashlib
import io
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainables.data.cache import build
from trainables.data.decoding import download
from trainables.data.known import KNOWN
from trainables.data.layout import DataBroken, DataMissing, find_index, find_source

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def synthetic(channels: int = 1, size: int = 8, classes: int = 10) -> Arrays:
    """4 training and 2 test images of each class, in random order."""
    rng = np.random.default_rng(0)
    made = {}
    for split, per_class in (("train", 4), ("test", 2)):
        labels = rng.permutation(np.repeat(np.arange(classes), per_class))
        made[split] = (rng.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8), labels)
    return made


def encode(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(out, "PNG")
    return out.getvalue()


def write_parquet(root: Path, arrays: Arrays, image: str = "image", label: str = "label", shards: int = 1) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in arrays.items():
        for shard, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
            table = pa.table(
                {
                    image: [{"bytes": encode(images[row]), "path": None} for row in rows],
                    label: pa.array([int(labels[row]) for row in rows]),
                }
            )
            name = f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            pq.write_table(table, root / name, row_group_size=7)


def write_folder(root: Path, arrays: Arrays, names: list[str]) -> None:
    for split, (images, labels) in arrays.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / split / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(encode(image))


def write_idx(root: Path, arrays: Arrays, compress: bool) -> None:
    root.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = arrays[split]
        for name, array in ((f"{prefix}-images-idx3-ubyte", images[:, 0]), (f"{prefix}-labels-idx1-ubyte", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            content = header + array.astype(np.uint8).tobytes()
            (root / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)


def write_cifar(data: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's folder of pickles, with torchvision's MD5 sums replaced by those of our files."""
    from torchvision.datasets import CIFAR10

    root = data / "cifar-10-batches-py"
    root.mkdir(parents=True)
    sums: dict[str, str] = {}

    def write(name: str, content: dict[str, object]) -> None:
        text = pickle.dumps(content)
        (root / name).write_bytes(text)
        sums[name] = hashlib.md5(text).hexdigest()

    images, labels = arrays["train"]
    for number, rows in enumerate(np.array_split(np.arange(len(labels)), 5), start=1):
        write(f"data_batch_{number}", {"data": images[rows].reshape(len(rows), -1), "labels": labels[rows].tolist()})
    images, labels = arrays["test"]
    write("test_batch", {"data": images.reshape(len(images), -1), "labels": labels.tolist()})
    write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{n}", sums[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    return root


@pytest.fixture
def small_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known data sets as small as ``synthetic`` makes them, so that their own layouts can be tried."""
    for name, known in KNOWN.items():
        monkeypatch.setitem(KNOWN, name, replace(known, digest=None, train_per_class=4, test_per_class=2))


def test_parquet_and_image_folders_give_the_same_arrays(tmp_path: Path) -> None:
    arrays = synthetic()
    write_parquet(tmp_path / "one", arrays)
    write_parquet(tmp_path / "sharded", arrays, image="img", shards=3)
    write_folder(tmp_path / "numbers", arrays, [str(number) for number in range(10)])
    write_folder(tmp_path / "words", arrays, [f"class_{letter}" for letter in "abcdefghij"])
    built = [build("digits", name, None, tmp_path, tmp_path / "c") for name in ("one", "sharded", "numbers", "words")]
    assert len({index.digest for index in built}) == 1
    assert len({index.folder for index in built}) == 4
    for index in built:
        assert index.train_counts == (4,) * 10
        assert index.test_counts == (2,) * 10
        for split in ("train", "test"):
            for part in ("images", "labels"):
                name = f"{split}_{part}.npy"
                np.testing.assert_array_equal(np.load(index.folder / name), np.load(built[0].folder / name))


def test_canonical_order_is_by_label_then_by_hash_of_the_pixels(tmp_path: Path) -> None:
    arrays = synthetic(channels=3, size=32)
    write_parquet(tmp_path / "x", arrays)
    index = build("cifar10", "x", None, tmp_path, tmp_path / "c")
    for split, (images, labels) in arrays.items():
        expected = sorted(
            zip(labels.tolist(), images, strict=True),
            key=lambda row: (row[0], hashlib.sha256(row[1].tobytes()).digest()),
        )
        np.testing.assert_array_equal(
            np.load(index.folder / f"{split}_images.npy"), np.stack([image for _, image in expected])
        )
        assert np.load(index.folder / f"{split}_labels.npy").tolist() == [label for label, _ in expected]


def test_digest_sees_pixels_labels_and_the_split(tmp_path: Path) -> None:
    arrays = synthetic()
    (images, labels), test = arrays["train"], arrays["test"]
    pixel = images.copy()
    pixel[3, 0, 2, 2] ^= 1
    swapped = labels.copy()
    first, second = 0, int(np.flatnonzero(labels != labels[0])[0])
    swapped[[first, second]] = swapped[[second, first]]
    variants = [
        arrays,
        {"train": (pixel, labels), "test": test},
        {"train": (images, swapped), "test": test},
        {"train": test, "test": arrays["train"]},
    ]
    digests = set()
    for number, variant in enumerate(variants):
        write_parquet(tmp_path / str(number), variant)
        digests.add(build("digits", str(number), None, tmp_path, tmp_path / "c").digest)
    assert len(digests) == len(variants)


@pytest.mark.usefixtures("small_known")
def test_torchvision_pickles_equal_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = synthetic(channels=3, size=32)
    write_cifar(tmp_path / "a", arrays, monkeypatch)
    write_parquet(tmp_path / "b" / "cifar10", arrays, image="img")
    pickled = build("cifar10", None, None, tmp_path / "a", tmp_path / "c")
    assert "cifar-10-batches-py" in pickled.source
    assert pickled.digest == build("cifar10", None, None, tmp_path / "b", tmp_path / "c").digest


@pytest.mark.usefixtures("small_known")
def test_nothing_is_unpickled_whose_md5_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    root = write_cifar(tmp_path, synthetic(channels=3, size=32), monkeypatch)
    harm = pickle.dumps(Harm())
    pickle.loads(harm)  # control: loading it does something
    (tmp_path / "harm").rmdir()
    (root / "data_batch_2").write_bytes(harm)
    with pytest.raises(DataBroken, match=r"data_batch_2: wrong content; got another MD5 sum; expected [0-9a-f]{32}"):
        build("cifar10", None, None, tmp_path, tmp_path / "c")
    assert not (tmp_path / "harm").exists()


@pytest.mark.usefixtures("small_known")
@pytest.mark.parametrize(
    "place, compress", [("FashionMNIST/raw", False), ("fashion_mnist", True), ("fashion-mnist", True)]
)
def test_idx_files(tmp_path: Path, place: str, compress: bool) -> None:
    arrays = synthetic(size=28)
    write_idx(tmp_path / "a" / place, arrays, compress)
    write_parquet(tmp_path / "b" / "fashion_mnist", arrays)
    index = build("fashion_mnist", None, None, tmp_path / "a", tmp_path / "c")
    assert index.digest == build("fashion_mnist", None, None, tmp_path / "b", tmp_path / "c").digest


@pytest.mark.usefixtures("small_known")
def test_truncated_idx_file(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", synthetic(size=28), compress=False)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataBroken, match=r"train-images-idx3-ubyte, row 38: wrong length"):
        build("mnist", None, None, tmp_path, tmp_path / "c")


@pytest.mark.usefixtures("small_known")
def test_svhn_matlab_files(tmp_path: Path) -> None:
    from scipy.io import savemat

    arrays = synthetic(channels=3, size=32)
    for split, (images, labels) in arrays.items():
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y})
    write_parquet(tmp_path / "b" / "svhn", arrays)
    index = build("svhn", None, None, tmp_path, tmp_path / "c")
    assert index.digest == build("svhn", None, None, tmp_path / "b", tmp_path / "c").digest
    (tmp_path / "test_32x32.mat").write_bytes(b"no matlab")
    with pytest.raises(DataBroken, match=r"test_32x32.mat: cannot be read"):
        build("svhn", None, None, tmp_path, tmp_path / "c")


@pytest.mark.usefixtures("small_known")
def test_tiny_imagenet_folder_with_a_gray_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "tiny_imagenet", replace(KNOWN["tiny_imagenet"], num_classes=3))
    arrays = synthetic(channels=3, size=64, classes=3)
    arrays["train"][0][0] = arrays["train"][0][0][:1]  # three equal planes: what a gray file is read as
    root, names = tmp_path / "tiny-imagenet-200", ["n01", "n02", "n03"]
    annotations = []
    for number, (image, label) in enumerate(zip(*arrays["train"], strict=True)):
        folder = root / "train" / names[label] / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode(image[:1] if number == 0 else image))
    (root / "val" / "images").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(*arrays["test"], strict=True)):
        (root / "val" / "images" / f"val_{number}.png").write_bytes(encode(image))
        annotations.append(f"val_{number}.png\t{names[label]}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "wnids.txt").write_text("\n".join(reversed(names)))
    write_parquet(tmp_path / "b" / "tiny_imagenet", arrays)
    index = build("tiny_imagenet", None, None, tmp_path, tmp_path / "c")
    assert index.digest == build("tiny_imagenet", None, None, tmp_path / "b", tmp_path / "c").digest


def test_torchvision_folder_comes_before_parquet_before_image_folder(tmp_path: Path) -> None:
    arrays = synthetic(size=28)
    write_folder(tmp_path / "mnist", arrays, [str(number) for number in range(10)])
    source = find_source("mnist", None, tmp_path)
    assert source is not None
    assert source.kind == "folder"
    write_parquet(tmp_path / "mnist", arrays)
    source = find_source("mnist", None, tmp_path)
    assert source is not None
    assert source.kind == "parquet"
    write_idx(tmp_path / "MNIST" / "raw", arrays, compress=False)
    source = find_source("mnist", None, tmp_path)
    assert source is not None
    assert source.kind == "idx"


def test_label_column_of_the_known_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "cifar100", replace(KNOWN["cifar100"], num_classes=10))
    arrays = synthetic(channels=3, size=32)
    write_parquet(tmp_path / "fine", arrays, label="fine_label")
    write_parquet(tmp_path / "plain", arrays)
    fine, plain = (build("cifar100", name, None, tmp_path, tmp_path / "c").digest for name in ("fine", "plain"))
    assert fine == plain


def test_missing_data_says_what_may_be_put_where(tmp_path: Path) -> None:
    with pytest.raises(
        DataMissing, match=r"cifar10: no complete data set below .*cifar-10-batches-py/.*cifar10/train-\*"
    ):
        build("cifar10", None, None, tmp_path, tmp_path / "c")
    with pytest.raises(
        DataMissing, match=r"mine: .*mine/train-\*.parquet and mine/test-\*.parquet.*mine/train/<class>/"
    ):
        build("cifar10", "mine", None, tmp_path, tmp_path / "c")
    with pytest.raises(DataMissing, match=r"no folder .*nowhere"):
        build("mnist", None, None, tmp_path / "nowhere", tmp_path / "c")


def test_the_fix_named_for_missing_data_works(tmp_path: Path) -> None:
    arrays = synthetic()
    write_parquet(tmp_path / "mine", {"train": arrays["train"]})
    with pytest.raises(DataMissing, match=r"got mine/train-\*.parquet without test-\*.parquet"):
        build("digits", "mine", None, tmp_path, tmp_path / "c")
    write_parquet(tmp_path / "mine", {"test": arrays["test"]})
    assert build("digits", "mine", None, tmp_path, tmp_path / "c").num_classes == 10


def test_half_a_torchvision_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar(tmp_path, synthetic(channels=3, size=32), monkeypatch)
    (root / "data_batch_4").unlink()
    with pytest.raises(DataMissing, match="cifar-10-batches-py/ without data_batch_4"):
        build("cifar10", None, None, tmp_path, tmp_path / "c")


@pytest.mark.usefixtures("small_known")
def test_download_fetches_into_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision import datasets

    def fetch(root: Path, download: bool) -> None:
        print("fetching")
        assert download
        write_idx(Path(root) / "MNIST" / "raw", synthetic(size=28), compress=False)

    monkeypatch.setattr(datasets, "MNIST", fetch)
    with pytest.raises(DataMissing):
        build("mnist", None, None, tmp_path / "d", tmp_path / "c")
    index = build("mnist", None, None, tmp_path / "d", tmp_path / "c", download=True)
    assert index.train_counts == (4,) * 10
    assert capsys.readouterr().out == ""  # results alone go to stdout


def test_a_download_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def fetch(root: Path, download: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "MNIST", fetch)
    with pytest.raises(DataMissing, match=r"The download failed: no route to host\. Put one there"):
        download("mnist", tmp_path)
    with pytest.raises(DataMissing, match="torchvision cannot download it"):
        download("tiny_imagenet", tmp_path)


def test_folder_must_stay_below_the_data(tmp_path: Path) -> None:
    for folder in ("../other", "/etc", ""):
        with pytest.raises(ValueError, match="folder must lie below DDRAY_DATA"):
            find_index("digits", folder, None, tmp_path, tmp_path)


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown name; got 'cifar11'; expected one of .*cifar10, cifar100"):
        build("cifar11", None, None, tmp_path, tmp_path / "c")


def _break_parquet(root: Path, what: str) -> None:
    """Write the synthetic set as Parquet with one fault."""
    arrays = synthetic()
    images, labels = arrays["train"]
    if what == "missing class":
        kept = labels != 7
        arrays["train"] = (images[kept], labels[kept])
    if what == "label out of range":
        labels[5] = 10
    if what == "no rows":
        arrays["test"] = (images[:0], labels[:0])
    write_parquet(root, arrays)
    file = root / "train-00000-of-00001.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif what == "garbage inside":
        content = bytearray(file.read_bytes())
        start = pq.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
        content[start : start + 200] = b"\xff" * 200
        file.write_bytes(bytes(content))
    elif what in ("corrupt image", "wrong size", "wrong channels", "odd mode", "null image", "null label"):
        colour = np.zeros((3, 8, 8), np.uint8)
        replaced = {
            "corrupt image": rows[5]["image"]["bytes"][:60],
            "wrong size": encode(np.zeros((1, 9, 8), np.uint8)),
            "wrong channels": encode(colour),
            "odd mode": encode(np.zeros((1, 8, 8), np.uint16)),
        }.get(what)
        rows[5]["image"]["bytes"] = replaced if what != "null label" else rows[5]["image"]["bytes"]
        rows[5]["label"] = None if what == "null label" else rows[5]["label"]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    elif what == "no label column":
        pq.write_table(table.rename_columns(["image", "digit"]), file)
    elif what == "text labels":
        pq.write_table(table.set_column(1, "label", pa.array([str(row["label"]) for row in rows])), file)
    elif what == "missing shard":
        file.rename(root / "train-00001-of-00002.parquet")


@pytest.mark.parametrize(
    "what, message",
    [
        ("truncated", r"train-00000-of-00001\.parquet: cannot be read; got ArrowInvalid"),
        ("garbage inside", r"train-00000-of-00001\.parquet, rows 14 to 20: cannot be read"),
        ("corrupt image", r"train-00000-of-00001\.parquet, row 5: corrupt image"),
        ("wrong size", r"parquet, row 5: wrong size or channel count; got 9x8 pixels .* expected 8x8"),
        (
            "wrong channels",
            r"parquet, row 5: wrong size or channel count; got .* 3 channel\(s\); expected .* 1 channel",
        ),
        ("odd mode", r"parquet, row 5: wrong channel count; got an image of mode I;16"),
        ("null image", r"parquet, row 5: no image"),
        ("null label", r"parquet, row 5: no label"),
        ("label out of range", r"parquet, row 5: label out of range; got 10; expected 0 to 9"),
        ("missing class", r"train: missing class; got no image with label 7; expected all of 0 to 9"),
        ("no rows", r"test-00000-of-00001\.parquet: no rows"),
        ("no label column", r"parquet: no label column; got columns image, digit; expected label"),
        ("text labels", r"parquet: column label: wrong type; got string"),
        ("missing shard", r"missing shard; got 1 file\(s\); expected train-00000-of-00002.parquet"),
    ],
)
def test_broken_parquet(tmp_path: Path, what: str, message: str) -> None:
    _break_parquet(tmp_path / "mine", "nothing")
    assert build("digits", "mine", None, tmp_path, tmp_path / "c").train_counts == (4,) * 10  # control
    _break_parquet(tmp_path / "bad", what)
    with pytest.raises(DataBroken, match=message):
        build("digits", "bad", None, tmp_path, tmp_path / "c")
    assert find_index("digits", "bad", None, tmp_path, tmp_path / "c") is None


def test_broken_image_folders(tmp_path: Path) -> None:
    names = [f"class_{letter}" for letter in "abcdefghij"]
    write_folder(tmp_path / "corrupt", synthetic(), names)
    victim = next((tmp_path / "corrupt" / "test" / "class_d").iterdir())
    victim.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    with pytest.raises(DataBroken, match=rf"class_d/{victim.name}: corrupt image"):
        build("digits", "corrupt", None, tmp_path, tmp_path / "c")
    write_folder(tmp_path / "nine", synthetic(classes=9), names)
    with pytest.raises(DataBroken, match=r"wrong number of classes; got 9 folders .*; expected 10"):
        build("digits", "nine", None, tmp_path, tmp_path / "c")
    write_folder(tmp_path / "other", synthetic(), names)
    (tmp_path / "other" / "test" / "class_j").rename(tmp_path / "other" / "test" / "class_x")
    with pytest.raises(DataBroken, match="missing class; got no images in class_x"):
        build("digits", "other", None, tmp_path, tmp_path / "c")


def test_text_that_pretends_to_be_an_image_is_not_opened_as_another_format(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", synthetic(), [str(number) for number in range(10)])
    victim = next((tmp_path / "x" / "train" / "3").iterdir())
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(victim, "BMP")
    with pytest.raises(DataBroken, match="corrupt image; got cannot identify image file"):
        build("digits", "x", None, tmp_path, tmp_path / "c")
