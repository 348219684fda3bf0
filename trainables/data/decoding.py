"""From files to arrays: every layout in which a data set may lie, each checked against the constants.

Which layout is used is decided in ``layout.py``; ``cache.py`` keeps the arrays. Nothing is ever unpickled, with
one exception: torchvision's own CIFAR files, whose MD5 sums torchvision pins.

Images are uint8 (N, C, H, W), labels int64 (N,), in the order of the files; ``canonical_order`` gives the order in
which they are kept.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.known import KnownDataset, hashed_permutation
from trainables.data.layout import (
    IMAGE_SUFFIXES,
    SPLITS,
    DataBroken,
    Source,
    find_source,
    known_dataset,
    missing,
)

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
Row = tuple[str, int, "bytes | Path"]
"""(where it stands, label, encoded image)."""

_DIGITS_TEST_PER_CLASS = 50
_SOME_GRAY = frozenset({"tiny_imagenet"})
"""Colour data sets that hold some gray images as published; these are read as colour."""
_USUAL = ("PNG", "JPEG")
"""Formats that Pillow may open whatever a file is called, for these two are often mistaken for each other."""
_BY_SUFFIX = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"},
    **{".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF"},
}
_NO_IMAGES = frozenset(
    {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".log", ".db", ".ini"}
)
"""Suffixes of files that lie beside images and are none."""
_TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "svhn": "SVHN",
}


def read(
    source: Source,
    base: str,
    split: Literal["train", "test"],
    *,
    any_size: bool = False,
    classes: int | None = None,
) -> Arrays:
    """Decode one split.

    Args:
        source: What ``find_source`` found.
        base: The known data set whose channels, classes, size and label column apply.
        any_size: Accept square images of another size than the known data set's, as long as all agree.
        classes: How many own data have; None: as many as the known data set.

    Returns:
        Images uint8 (N, C, H, W) and labels int64 (N,), in the order of the files.

    Raises:
        DataBroken: If a file cannot be read or holds what does not fit; names the file and, counting from 0, the row.
    """
    known = known_dataset(base, classes)
    size = None if any_size else known.image_size
    if source.kind == "embedded":
        images, labels = _digits(split)
    elif source.kind == "cifar":
        images, labels = _cifar(source, base, split)
    elif source.kind == "idx":
        images, labels = _idx(source, split)
    elif source.kind == "mat":
        images, labels = _mat(source.root / f"{split}_32x32.mat")
    elif source.kind == "parquet":
        files = [file for file in source.files if file.name.startswith(f"{split}-")]
        total, rows = _parquet_rows(files, known)
        images, labels = _decoded(rows, total, known, size, base in _SOME_GRAY)
    else:
        listing = _folder_rows(source, split, known) if source.kind == "folder" else _tiny_rows(source, split)
        images, labels = _decoded(listing, len(listing), known, size, base in _SOME_GRAY)
    _check(images, labels, known, size, f"{source.describe()}, {split}")
    return images, labels


def canonical_order(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of images in canonical order: by label, then by the sha256 of the image's bytes.

    Images that agree in both are the same, so their order does not matter.

    Args:
        images: (N, C, H, W).
        labels: (N,).
    """
    keys = [
        (label, hashlib.sha256(image.tobytes()).digest()) for label, image in zip(labels.tolist(), images, strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def download(base: str, data: Path) -> Source:
    """Let torchvision fetch a known data set.

    Raises:
        DataMissing: If torchvision has no such data set, or could not get it.
    """
    if base not in _TORCHVISION:
        raise missing(base, None, data, "torchvision cannot download it.")
    from torchvision import datasets

    try:
        data.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            if base == "svhn":
                for split in ("train", "test"):
                    datasets.SVHN(data, split=split, download=True)
            else:
                getattr(datasets, _TORCHVISION[base])(data, download=True)
    except (OSError, RuntimeError) as error:
        raise missing(base, None, data, f"The download failed: {error}.") from error
    source = find_source(base, None, data)
    if source is None:
        raise missing(base, None, data, "The download left no complete data set.")
    return source


def _check(
    images: NDArray[np.uint8], labels: NDArray[np.int64], known: KnownDataset, size: int | None, where: str
) -> None:
    """What holds for every layout: some rows, the right shape, every class, no label out of range."""
    if len(images) == 0:
        raise DataBroken(f"{where}: no rows; got 0 images; expected some of each of {known.num_classes} classes.")
    if len(images) != len(labels):
        raise DataBroken(f"{where}: images and labels differ in number; got {len(images)} and {len(labels)}.")
    if not _fits(images.shape[1:], known, size):
        raise _wrong_shapes({images.shape[1:]: [where] * len(images)}, known, size)
    outside = np.flatnonzero((labels < 0) | (labels >= known.num_classes))
    if len(outside):
        raise _wrong_label(f"{where}, row {outside[0]}", labels[outside[0]], known)
    absent = sorted(set(range(known.num_classes)) - set(labels.tolist()))
    if absent:
        raise DataBroken(
            f"{where}: missing class; got no image with label {', '.join(map(str, absent[:10]))}; "
            f"expected all of 0 to {known.num_classes - 1}. Own data with fewer classes are declared with "
            "classes: their number."
        )


def _wrong_shapes(shapes: Mapping[tuple[int, ...], Sequence[str]], known: KnownDataset, size: int | None) -> DataBroken:
    """The error for images of which some have another shape than the data set, with what helps against that.

    Args:
        shapes: (C, H, W) -> where its images stand.
        size: Height and width they must have; None: any, if all agree.
    """
    usual = max(shapes, key=lambda shape: len(shapes[shape]))
    wrong = [shape for shape in shapes if not _fits(shape, known, size)]
    wrong = sorted(wrong or [shape for shape in shapes if shape != usual], key=lambda shape: len(shapes[shape]))
    total = sum(map(len, shapes.values()))
    told = [
        f"{height}x{width} pixels (height x width) in {len(shapes[channels, height, width])} of {total} images with "
        f"{channels} channel(s)"
        for channels, height, width in wrong[:4]
    ]
    others = shapes[wrong[0]][1:]
    more = f" The same: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}." if others else ""
    wanted = f"{size}x{size} pixels" if size else "square images, all of one size,"
    sizes = {shape[1:] for shape in shapes}
    channels = {shape[0] for shape in shapes}
    advice = []
    if any(height != width for height, width in sizes):
        advice.append("Crop or pad the images to squares; resize does not do that.")
    elif len(sizes) > 1:
        advice.append("Bring all images to one size; resize starts from images of one size.")
    elif size is not None and sizes != {(size, size)}:
        advice.append(f"Declare the folder with resize: {size}.")
    if len(channels) > 1:
        wrong_kind = "gray images to RGB" if known.channels == 3 else "colour images to gray"
        advice.append(f"Convert the {wrong_kind}, or leave them out.")
    elif channels != {known.channels}:
        advice.append("Declare the folder with a like whose images have as many channels, or convert the images.")
    got = f"{', '.join(told)}{', ...' if len(wrong) > 4 else ''}"
    return DataBroken(
        f"{shapes[wrong[0]][0]}: wrong size or channel count; got {got}; "
        f"expected {wanted} with {known.channels} channel(s).{more} {' '.join(advice)}"
    )


def _fits(shape: tuple[int, ...], known: KnownDataset, size: int | None) -> bool:
    channels, height, width = shape
    return channels == known.channels and height == width and size in (None, height)


def _wrong_label(where: str, label: Any, known: KnownDataset) -> DataBroken:
    return DataBroken(
        f"{where}: label out of range; got {label}; expected 0 to {known.num_classes - 1}. Own data with other classes "
        "are declared with classes: their number; labels count from 0."
    )


def _decoded(rows: Iterable[Row], total: int, known: KnownDataset, size: int | None, gray_as_colour: bool) -> Arrays:
    """Decode rows into arrays allocated once; without ``size`` the first image sets it."""
    images = np.empty((0, known.channels, size or 1, size or 1), dtype=np.uint8)
    labels = np.empty(total, dtype=np.int64)
    shapes: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for number, (place, label, encoded) in enumerate(rows):
        if not 0 <= label < known.num_classes:
            raise _wrong_label(place, label, known)
        pixels = _image(encoded, place, gray_as_colour=gray_as_colour and known.channels == 3)
        shapes[pixels.shape].append(place)
        if len(shapes) > 1 or not _fits(pixels.shape, known, size):
            continue  # to tell all of them
        if number == 0:
            images = np.empty((total, *pixels.shape), dtype=np.uint8)
        images[number], labels[number] = pixels, label
    if len(shapes) > 1 or not all(_fits(shape, known, size) for shape in shapes):
        raise _wrong_shapes(shapes, known, size)
    return images, labels


def _image(encoded: bytes | Path, where: str, gray_as_colour: bool) -> NDArray[np.uint8]:
    """One image as (C, H, W), turned as its owner sees it."""
    from PIL import Image, ImageOps

    formats = (
        tuple(_BY_SUFFIX.values()) if isinstance(encoded, bytes) else (_BY_SUFFIX[encoded.suffix.lower()], *_USUAL)
    )
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=formats) as file:
            frames = getattr(file, "n_frames", 1)
            mode = file.mode
            # Colours of a palette are RGB in other words, unless some of them are transparent.
            as_colour = (mode == "L" and gray_as_colour) or (mode == "P" and "transparency" not in file.info)
            image = file.convert("RGB") if as_colour else file
            pixels = np.asarray(ImageOps.exif_transpose(image)) if as_colour or mode in ("L", "RGB") else None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataBroken(
            f"{where}: corrupt image; got {error}; expected a whole image ({', '.join(dict.fromkeys(formats))}). "
            "Restore it, or leave it out."
        ) from error
    if frames > 1:
        raise DataBroken(f"{where}: several images in one file; got {frames}; expected 1. Take one of them.")
    if pixels is None:
        raise DataBroken(
            f"{where}: wrong channel count; got an image of mode {mode}; expected 8-bit gray (L) or RGB. Convert it."
        )
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def class_names(source: Source, known: KnownDataset) -> tuple[str, ...]:
    """Names of an image folder's classes by label number.

    Folders whose names are whole numbers are in the order of these numbers, others in that of the alphabet. Where the
    numbers are some of 0 … K-1, they are the labels.

    Raises:
        DataBroken: If a split lacks a class of the other, or there are more or fewer classes than the data set has.
    """
    by_split = {split: {file.parent.name for file in _of_split(source, split)} for split in SPLITS}
    names = sorted(by_split["train"] | by_split["test"])
    for split, held in by_split.items():
        if absent := [name for name in names if name not in held]:
            raise DataBroken(
                f"{source.root / split}: missing class; got no images in {absent[0]}, which the other split has."
            )
    if all(re.fullmatch("[0-9]+", name) for name in names):
        names.sort(key=int)
        numbers = [str(number) for number in range(known.num_classes)]
        if set(names) <= set(numbers):
            return tuple(numbers)
    if len(names) != known.num_classes:
        raise DataBroken(
            f"{source.root}: wrong number of classes; got {len(names)} folders with images "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); expected {known.num_classes}. "
            f"If these are all classes of own data, declare the folder with classes: {len(names)}."
        )
    return tuple(names)


def _of_split(source: Source, split: str) -> list[Path]:
    root = source.root / split
    return [file for file in source.files if file.is_relative_to(root)]


def _refuse_left_out(source: Source) -> None:
    """Refuse to leave out what may be images of a class.

    Raises:
        DataBroken: If there is any such file or folder; names it.
    """
    of_classes = [path for path in source.left_out if len(PurePosixPath(path).parts) > 2]
    doubtful = [path for path in of_classes if PurePosixPath(path).suffix.lower() not in _NO_IMAGES]
    if doubtful:
        kinds = sorted({"a folder" if path.endswith("/") else PurePosixPath(path).suffix for path in doubtful})
        raise DataBroken(
            f"{source.root}: files of classes would be left out; got {len(doubtful)}, first {doubtful[0]} "
            f"({', '.join(filter(None, kinds)) or 'no suffix'}); expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) "
            "straight in the folder of their class. Convert them or move them there, or move them away."
        )


def _folder_rows(source: Source, split: str, known: KnownDataset) -> list[Row]:
    """Files of an image folder, with the labels of ``class_names``."""
    _refuse_left_out(source)
    labels = {name: label for label, name in enumerate(class_names(source, known))}
    return [(str(file), labels[file.parent.name], file) for file in _of_split(source, split)]


def _tiny_rows(source: Source, split: str) -> list[Row]:
    """Files of the unpacked Tiny ImageNet. ``val`` is the test split, for the labels of ``test`` are unpublished."""
    root = source.root
    with _readable(root / "wnids.txt", "list of class names"):
        labels = {name: number for number, name in enumerate(sorted((root / "wnids.txt").read_text().split()))}
    classes: dict[str, str] = {}
    if split == "test":
        annotations = root / "val" / "val_annotations.txt"
        with _readable(annotations, "list of file and class"):
            classes = {line.split("\t")[0]: line.split("\t")[1] for line in annotations.read_text().splitlines()}
    rows: list[Row] = []
    for file in source.files[2:]:
        if file.is_relative_to(root / ("train" if split == "train" else "val")):
            name = file.parent.parent.name if split == "train" else classes.get(file.name)
            if name not in labels:
                raise DataBroken(f"{file}: unknown class; got {name}; expected one of {root / 'wnids.txt'}.")
            rows.append((str(file), labels[name], file))
    return rows


def _parquet_rows(files: list[Path], known: KnownDataset) -> tuple[int, Iterator[Row]]:
    """(number of rows, the rows) of one split. The footers are read at once, so a truncated file shows early.

    Args:
        files: The split's shards, sorted.
        known: Names the label column; ``label`` is taken where that is absent.

    Raises:
        DataBroken: If a shard is missing or a file cannot be read; the rows, when taken, raise it with file and row.
    """
    import pyarrow.parquet as pq

    absent = _absent_shards(files)
    if absent:
        raise DataBroken(f"{files[0].parent}: missing shard; got {len(files)} file(s); expected {absent[0]} too.")
    total = 0
    for file in files:
        with _readable(file, "Parquet file"):
            total += pq.read_metadata(file).num_rows
    if total == 0:
        raise DataBroken(f"{files[0]}: no rows; got 0 images; expected some of each of {known.num_classes} classes.")
    return total, (row for file in files for row in _shard_rows(file, known))


def _shard_rows(file: Path, known: KnownDataset) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(file, "Parquet file"):
        shard = pq.ParquetFile(file)
    with shard:
        schema = shard.schema_arrow
        image_column = _column(file, schema.names, "image", ("img", "image"))
        label_column = _column(file, schema.names, "label", (known.label_column, "label"))
        if not pa.types.is_integer(schema.field(label_column).type):
            got = schema.field(label_column).type
            raise DataBroken(f"{file}: column {label_column}: wrong type; got {got}; expected label numbers.")
        kind = schema.field(image_column).type
        if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            raise DataBroken(f"{file}: column {image_column}: wrong type; got {kind}; expected a struct with bytes.")
        start = 0
        for group in range(shard.num_row_groups):
            rows = shard.metadata.row_group(group).num_rows
            with _readable(file, "Parquet file", f", rows {start} to {start + rows - 1}"):
                table = shard.read_row_group(group, columns=[image_column, label_column])
                labels = table[label_column].to_pylist()
                encoded = [entry and entry["bytes"] for entry in table[image_column].to_pylist()]
            for offset, (label, image) in enumerate(zip(labels, encoded, strict=True)):
                where = f"{file}, row {start + offset}"
                if label is None:
                    raise DataBroken(f"{where}: no label; got null in {label_column}; expected a number.")
                if not isinstance(image, bytes):
                    raise DataBroken(f"{where}: no image; got null in {image_column}.bytes; expected a PNG or JPEG.")
                yield where, label, image
            start += rows


def _column(file: Path, names: list[str], what: str, wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    either = " or ".join(dict.fromkeys(wanted))
    raise DataBroken(f"{file}: no {what} column; got columns {', '.join(names)}; expected {either}.")


def _absent_shards(files: list[Path]) -> list[str]:
    """Names of Parquet shards that the names of the others promise (``-00000-of-00003``)."""
    absent: list[str] = []
    names = {file.name for file in files}
    for file in files:
        numbered = re.fullmatch(r"(.+)-(\d+)-of-(\d+)\.parquet", file.name)
        if numbered:
            stem, digits, total = numbered[1], len(numbered[2]), numbered[3]
            wanted = {f"{stem}-{number:0{digits}d}-of-{total}.parquet" for number in range(int(total))}
            absent.extend(sorted(wanted - names))
    return list(dict.fromkeys(absent))


def _digits(split: str) -> Arrays:
    """scikit-learn's digits, 0 … 16 scaled to 0 … 255, with a split of our own, for there is none.

    Of each class, in canonical order, 50 positions chosen by hash are the test split and the rest the training split.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * 255 / 16).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    order = canonical_order(images, labels)
    chosen: list[int] = []
    for label in range(10):
        members = order[labels[order] == label]
        positions = hashed_permutation(len(members), "digits", label)
        here = positions[:_DIGITS_TEST_PER_CLASS] if split == "test" else positions[_DIGITS_TEST_PER_CLASS:]
        chosen.extend(members[here].tolist())
    return images[chosen], labels[chosen]


def _cifar(source: Source, base: str, split: str) -> Arrays:
    """torchvision's pickled batches, each compared with the MD5 sum torchvision pins before anything is unpickled."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    loader = getattr(datasets, _TORCHVISION[base])
    sums = {**dict(loader.train_list), **dict(loader.test_list), loader.meta["filename"]: loader.meta["md5"]}
    for name, md5 in sums.items():
        if not check_integrity(source.root / name, md5):
            raise DataBroken(
                f"{source.root / name}: wrong content; got another MD5 sum; expected {md5}. It is a pickle file and is "
                "not opened. Fetch it again."
            )
    with _readable(source.root, "folder as torchvision writes it"):
        loaded = loader(source.root.parent, train=split == "train", download=False)
        return np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2)), np.asarray(loaded.targets, dtype=np.int64)


def _idx(source: Source, split: str) -> Arrays:
    """MNIST's format: big-endian magic number and sizes, then bytes."""
    images_file, labels_file = source.files[:2] if split == "train" else source.files[2:]
    images, labels = _idx_array(images_file, 3), _idx_array(labels_file, 1)
    return images[:, None], labels.astype(np.int64)


def _idx_array(file: Path, dimensions: int) -> NDArray[np.uint8]:
    with _readable(file, "idx file"):
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
    if magic != 0x0800 + dimensions:
        raise DataBroken(
            f"{file}: not the idx file its name says; got magic number {magic}; expected {0x0800 + dimensions}."
        )
    start, wanted = 4 * (1 + dimensions), int(np.prod(shape))
    if len(content) - start != wanted:
        row = (len(content) - start) // max(1, wanted // max(1, shape[0]))
        raise DataBroken(
            f"{file}, row {row}: wrong length; got {len(content) - start} bytes of data; expected {wanted}. "
            "Fetch the file again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _mat(file: Path) -> Arrays:
    """SVHN's MATLAB files: X (H, W, C, N), y with 10 standing for the digit 0. Reading them runs no code."""
    from scipy.io import loadmat

    with _readable(file, "MATLAB 5 file with X and y"):
        content = loadmat(file)
        images = np.ascontiguousarray(np.asarray(content["X"], dtype=np.uint8).transpose(3, 2, 0, 1))
        labels = content["y"].astype(np.int64).reshape(-1)
    labels[labels == 10] = 0
    return images, labels


@contextlib.contextmanager
def _readable(file: Path, what: str, rows: str = "") -> Iterator[None]:
    """Turn whatever a reading library raises into one kind of error that names the file.

    Args:
        rows: Which rows are read, as the message shall say it.

    Raises:
        DataBroken: In place of any other exception.
    """
    try:
        yield
    except DataBroken:
        raise
    except Exception as error:  # the libraries' own classes: ArrowInvalid, OSError, zlib.error, struct.error, ...
        reason = " ".join(str(error).split())
        raise DataBroken(
            f"{file}{rows}: cannot be read; got {type(error).__name__}: {reason}; expected a whole {what}. "
            "Fetch the file again."
        ) from error
