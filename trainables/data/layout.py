"""Where a data set's files lie, and where their decoded images; found without opening one of them.

Only lists folders, stats files and reads the index of a cache; imports the standard library and ``known``, so that
planning can ask. Reading the files is ``decoding.py``; making a cache of them ``cache.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from trainables.data.known import KNOWN, KnownDataset

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

_CIFAR = {
    "cifar10": (
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": ("cifar-100-python", ("train", "test", "meta")),
}
_IDX = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_MAT_FILES = ("train_32x32.mat", "test_32x32.mat")

FORMAT = 1
"""Raised by hand when the cached files or their order change: older caches are then built anew."""
RESIZE = "pil-bilinear"
"""How images are resized; part of the resized digest."""
FILES = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy")


class DataMissing(ValueError):
    """There are no files to read; the message says where to put which."""


class DataBroken(ValueError):
    """Files are there and cannot be used; the message names file and row."""


@dataclass(frozen=True)
class Source:
    """The files one data set would be read from."""

    kind: Literal["embedded", "cifar", "idx", "mat", "tiny", "parquet", "folder"]
    root: Path
    """Folder that holds ``files``; for ``embedded`` the data folder."""
    files: tuple[Path, ...]
    """Every file that is read, sorted: their names, sizes and times tell whether a cache is current."""

    def describe(self) -> str:
        """Where the images come from, for messages and the index."""
        return "scikit-learn's embedded digits" if self.kind == "embedded" else f"{self.root} ({self.kind})"


@dataclass(frozen=True)
class Index:
    """What is known of a cached data set without opening its arrays."""

    digest: str
    """Content digest of both splits (``content_digest``), or derived from the base's (``resized_digest``)."""
    train_counts: tuple[int, ...]
    """Training images per class, by label number."""
    test_counts: tuple[int, ...]
    """Test images per class, by label number."""
    image_size: int
    """Height = width, pixels."""
    channels: int
    num_classes: int
    source: str
    """Where the images were read from."""
    folder: Path
    """Where the arrays lie."""


def known_dataset(base: str) -> KnownDataset:
    """The constants of a known data set.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if base not in KNOWN:
        raise ValueError(f"data set: unknown name; got {base!r}; expected one of {', '.join(sorted(KNOWN))}")
    return KNOWN[base]


def find_source(base: str, folder: str | None, data: Path) -> Source | None:
    """The first complete source of a data set, or None.

    In order: scikit-learn's embedded digits; torchvision's own folder; Parquet; image folder; idx files. A declared
    folder may hold Parquet or an image folder.

    Args:
        folder: Folder below ``data`` when the files are not the known data set's own.

    Raises:
        ValueError: If the name is unknown or the folder leaves ``data``.
    """
    known_dataset(base)
    if folder is not None:
        pure = PurePosixPath(folder)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise ValueError(f"datasets: folder must lie below DDRAY_DATA; got {folder!r}; expected a relative path")
        return _hugging_face(data / folder) or _image_folder(data / folder)
    if base == "digits":
        return Source("embedded", data, ())
    return next((source for source in _candidates(base, data) if source is not None), None)


def missing(base: str, folder: str | None, data: Path, reason: str = "") -> DataMissing:
    """The error for a data set without files: what may be put where, and what is there by half.

    Args:
        folder: As for ``find_source``.
        reason: Why a download did not help.
    """
    name = folder or base
    accepted = [
        f"{name}/train-*.parquet and {name}/test-*.parquet (Hugging Face's layout)",
        f"{name}/train/<class>/*.png and {name}/test/<class>/*.png (or .jpg)",
    ]
    if folder is None and base in _CIFAR:
        accepted.insert(0, f"{_CIFAR[base][0]}/ (torchvision's folder)")
    if folder is None and base in _IDX:
        accepted.insert(0, f"{_IDX[base]}/ or {base}/ with {', '.join(_IDX_FILES)} (each plain or .gz)")
    if folder is None and base == "svhn":
        accepted.insert(0, f"{' and '.join(_MAT_FILES)}, here or in svhn/")
    if folder is None and base == "tiny_imagenet":
        accepted.insert(0, "tiny-imagenet-200/ (the unpacked archive)")
    half = list(_incomplete(base, folder, data))
    got = f"; got {'; '.join(half)}" if half else ""
    return DataMissing(
        f"{name}: no complete data set below {data}{got}; expected one of: {' | '.join(accepted)}. "
        f"{reason + ' ' if reason else ''}Put one there, or set DDRAY_DATA to the folder that holds one."
    )


def find_index(base: str, folder: str | None, resize: int | None, data: Path, cache: Path) -> Index | None:
    """The index of the cache that belongs to the source files as they are now; None if there is none.

    Args:
        folder: Folder below ``data`` when the files are not the known data set's own.
        resize: Height and width in pixels to which images are resized, or None.

    Raises:
        DataBroken: If a file is listed and not there (a dangling link).
        ValueError: If the name is unknown or the folder leaves ``data``.
    """
    source = find_source(base, folder, data)
    return None if source is None else read_index(cache_path(base, folder, resize, source, cache))


def cache_path(base: str, folder: str | None, resize: int | None, source: Source, cache: Path) -> Path:
    """The cache folder: ``<cache>/data/<name>-<fingerprint>``.

    The fingerprint covers each source file's name, size and modification time and whatever else decides the arrays,
    not where the files lie, so that a faithful copy of the data shares the cache.
    """
    root, files = os.path.join(source.root, ""), []
    for file in map(str, source.files):
        try:
            stat = os.stat(file)
        except OSError as error:
            raise DataBroken(f"{file}: cannot be read; got {error.strerror}; expected a file.") from error
        files.append([file.removeprefix(root), stat.st_size, stat.st_mtime_ns])
    text = json.dumps([FORMAT, base, folder, resize, resize and RESIZE, source.kind, files])
    name = (folder or base).replace("/", "-") + (f"-{resize}px" if resize else "")
    return cache / "data" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_index(folder: Path) -> Index | None:
    """The index in a cache folder; None if the folder is absent or its arrays are not as long as the index says."""
    try:
        content = json.loads((folder / "index.json").read_text())
        sizes = content.pop("bytes")
        if any((folder / name).stat().st_size != sizes[name] for name in FILES):
            return None
        content["train_counts"], content["test_counts"] = tuple(content["train_counts"]), tuple(content["test_counts"])
        return Index(folder=folder, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: whoever needs it builds it anew


def write_index(index: Index, folder: Path) -> None:
    """Write ``index.json`` beside the arrays already in ``folder``, with their lengths in bytes."""
    content: dict[str, Any] = asdict(index)
    del content["folder"]
    content["bytes"] = {name: (folder / name).stat().st_size for name in FILES}
    (folder / "index.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def resized_digest(base_digest: str, size: int) -> str:
    """Digest of a resized data set, from that of the images it is made of: planning need not resize anything.

    Resizing is a function of pixels (``resized``), so base digest, size and the name of the function say it all.

    Args:
        base_digest: Digest of the images before resizing.
        size: Height = width after resizing, pixels.
    """
    text = json.dumps([RESIZE, base_digest, size])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _candidates(base: str, data: Path) -> Iterator[Source | None]:
    if base in _CIFAR:
        name, names = _CIFAR[base]
        yield _all_of("cifar", data / name, names)
    if base in _IDX:
        yield _idx(data / _IDX[base])
    if base == "svhn":
        yield _all_of("mat", data, _MAT_FILES)
        yield _all_of("mat", data / "svhn", _MAT_FILES)
    if base == "tiny_imagenet":
        yield _tiny_imagenet(data / "tiny-imagenet-200")
    yield _hugging_face(data / base)
    yield _image_folder(data / base)
    if base in _IDX:
        yield _idx(data / base)
        yield _idx(data / base.replace("_", "-"))  # the name of Debian's package folder


def _all_of(kind: Literal["cifar", "mat"], root: Path, names: tuple[str, ...]) -> Source | None:
    files = tuple(root / name for name in names)
    return Source(kind, root, files) if all(file.is_file() for file in files) else None


def _idx(root: Path) -> Source | None:
    files = []
    for name in _IDX_FILES:
        file = next((file for file in (root / name, root / f"{name}.gz") if file.is_file()), None)
        if file is None:
            return None
        files.append(file)
    return Source("idx", root, tuple(files))


def _hugging_face(root: Path) -> Source | None:
    shards = [sorted(root.glob(f"{split}-*.parquet")) for split in SPLITS]
    return Source("parquet", root, tuple(shards[0] + shards[1])) if all(shards) else None


def _image_folder(root: Path) -> Source | None:
    files = [_images(root / split) for split in SPLITS]
    return Source("folder", root, tuple(files[0] + files[1])) if all(files) else None


def _tiny_imagenet(root: Path) -> Source | None:
    lists = (root / "wnids.txt", root / "val" / "val_annotations.txt")
    train, val = _images(root / "train", "images"), _images(root / "val")
    if not (train and val and all(file.is_file() for file in lists)):
        return None
    return Source("tiny", root, (*lists, *train, *val))


def _images(root: Path, between: str = "") -> list[Path]:
    """Image files in the folders below ``root``, sorted: ``<class>/*``, or ``<class>/<between>/*``."""
    paths: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(root):
            if entry.is_dir() and not entry.name.startswith("."):
                paths.extend(_image_names(os.path.join(entry.path, between)))
    return [Path(name) for name in sorted(paths)]


def _image_names(folder: str) -> list[str]:
    """Paths of image files in one folder; plain strings, for there may be a hundred thousand."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(folder, name) for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]


def _incomplete(base: str, folder: str | None, data: Path) -> Iterator[str]:
    """What is there of sources that lack something, in words."""
    if not data.is_dir():
        yield f"no folder {data}"
        return
    if folder is None and base in _CIFAR:
        name, names = _CIFAR[base]
        absent = [file for file in names if not (data / name / file).is_file()]
        if (data / name).is_dir() and absent:
            yield f"{name}/ without {', '.join(absent)}"
    root = data / (folder or base)
    for split, other in (SPLITS, SPLITS[::-1]):
        if any(root.glob(f"{split}-*.parquet")) and not any(root.glob(f"{other}-*.parquet")):
            yield f"{root.name}/{split}-*.parquet without {other}-*.parquet"
        if _images(root / split) and not _images(root / other):
            yield f"{root.name}/{split}/ without images in {other}/<class>/"
