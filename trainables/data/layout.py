"""Where a data set's files lie, and where their decoded images; found without opening one of them.

Only lists folders, stats files and reads the index of a cache; imports the standard library and ``known``, so that
planning can ask. Reading the files is ``decoding.py``; making a cache of them ``cache.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from trainables.data.known import KNOWN, KnownDataset

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
"""Of files that are images; ``decoding`` opens these formats and no others."""

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

FORMAT = 2
"""Raised by hand when the cached files or their order change: older caches are then built anew."""
RESIZE = "pil-bilinear"
"""How images are resized; part of the resized digest."""
FILES = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy")
GROUPS = ("train_groups.npy", "test_groups.npy")
"""Beside them, of data sets with groups."""


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
    left_out: tuple[str, ...] = ()
    """What else lies in an image folder, below ``root``, sorted; folders end with ``/``. Hidden files are not told."""

    def describe(self) -> str:
        """Where the images come from, for messages and the index."""
        return "scikit-learn's embedded digits" if self.kind == "embedded" else f"{self.root} ({self.kind})"


@dataclass(frozen=True)
class Duplicates:
    """Images that are there more than once, equal in every pixel."""

    train: int = 0
    """Training images beyond the first of their kind."""
    test: int = 0
    """Test images beyond the first of their kind."""
    test_in_train: int = 0
    """Test images that are training images too."""

    def __bool__(self) -> bool:
        return bool(self.train or self.test or self.test_in_train)


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
    class_names: tuple[str, ...] = ()
    """Names of the class folders by label number; empty where the source has none."""
    left_out: tuple[str, ...] = ()
    """What lies among the images and was not read."""
    duplicates: Duplicates = Duplicates()
    sha256: dict[str, str] = field(default_factory=dict)
    """Of each file of arrays: whoever uses them compares, for disks and people change files."""

    def told(self, name: str) -> list[str]:
        """What was read of a data set called ``name``, and what to know of it: one line each."""
        train, test = sum(self.train_counts), sum(self.test_counts)
        line = f"{name}: {train} training and {test} test images of {self.num_classes} classes from {self.source}"
        if self.class_names:
            shown = [f"{label} = {folder}" for label, folder in enumerate(self.class_names)]
            line += f"; labels: {', '.join(_some(shown, 20))}"
        if self.left_out:
            line += f"; left out: {len(self.left_out)} ({', '.join(_some(self.left_out, 5))})"
        return [line, *([f"{name}: {self.duplicates_told()}"] if self.duplicates else [])]

    def duplicates_told(self) -> str:
        """The sentence of ``duplicates``."""
        held = self.duplicates
        counts = [
            f"{held.test_in_train} of {sum(self.test_counts)} test images are also training images"
            * bool(held.test_in_train),
            f"{held.train} of {sum(self.train_counts)} training images repeat another one" * bool(held.train),
            f"{held.test} of {sum(self.test_counts)} test images repeat another one" * bool(held.test),
        ]
        return f"identical images: {', '.join(filter(None, counts))}"


def known_dataset(base: str, classes: int | None = None) -> KnownDataset:
    """The constants of a known data set.

    Args:
        base: Its name.
        classes: Of own data that are like it and have another number of classes.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if base not in KNOWN:
        raise ValueError(f"data set: unknown name; got {base!r}; expected one of {', '.join(sorted(KNOWN))}")
    return KNOWN[base] if classes is None else replace(KNOWN[base], num_classes=classes)


def made_of(base: str) -> str:
    """The known data set whose files a data set is read from: itself, or the one that it is made of."""
    made = KNOWN[base].made
    return base if made is None else made.of


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
    base = made_of(base)
    if base == "digits":
        return Source("embedded", data, ())
    return next((source for source in _candidates(base, data) if source is not None), None)


def missing(base: str, folder: str | None, data: Path, reason: str = "") -> DataMissing:
    """The error for a data set without files: what may be put where, and what is there by half.

    Args:
        folder: As for ``find_source``.
        reason: Why a download did not help.
    """
    base = made_of(base) if folder is None else base
    name = folder or base
    accepted = [
        f"{name}/train-*.parquet and {name}/test-*.parquet (Hugging Face's layout)",
        f"{name}/train/<class>/*.png and {name}/test/<class>/*.png (or .jpg, .bmp, .webp, .tif, .gif)",
    ]
    if folder is None and base in _CIFAR:
        accepted.insert(0, f"{_CIFAR[base][0]}/ (torchvision's folder)")
    if folder is None and base in _IDX:
        accepted.insert(0, f"{_IDX[base]}/ or {base}/ with {', '.join(_IDX_FILES)} (each plain or .gz)")
    if folder is None and base == "svhn":
        accepted.insert(0, f"{' and '.join(_MAT_FILES)}, here or in svhn/")
    if folder is None and base == "tiny_imagenet":
        accepted.insert(0, "tiny-imagenet-200/ (the unpacked archive)")
    half = incomplete(base, folder, data)
    got = f"; got {'; '.join(half)}" if half else ""
    return DataMissing(
        f"{name}: no complete data set below {data}{got}; expected one of: {' | '.join(accepted)}. "
        f"{reason + ' ' if reason else ''}Put one there, or set DDRAY_DATA to the folder that holds one."
    )


def find_index(
    base: str, folder: str | None, resize: int | None, data: Path, cache: Path, *, classes: int | None = None
) -> Index | None:
    """The index of the cache that belongs to the source files as they are now; None if there is none.

    Args:
        folder: Folder below ``data`` when the files are not the known data set's own.
        resize: Height and width in pixels to which images are resized, or None.
        classes: How many a folder has; None: as many as ``base``.

    Raises:
        DataBroken: If a file is listed and not there (a dangling link).
        ValueError: If the name is unknown or the folder leaves ``data``.
    """
    source = find_source(base, folder, data)
    return None if source is None else read_index(cache_path(base, folder, resize, source, cache, classes))


def cache_path(
    base: str, folder: str | None, resize: int | None, source: Source, cache: Path, classes: int | None = None
) -> Path:
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
    count = known_dataset(base, classes).num_classes
    text = json.dumps([FORMAT, base, count, folder, resize, resize and RESIZE, source.kind, files, source.left_out])
    name = (folder or base).replace("/", "-") + (f"-{resize}px" if resize else "")
    return cache / "data" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_index(folder: Path) -> Index | None:
    """The index in a cache folder; None if it is absent or changed, or its arrays are not as long as it says.

    Whether the arrays hold what they held is for whoever uses them (``cache.py``): that takes reading them.
    """
    try:
        content = json.loads((folder / "index.json").read_text())
        if content.pop("index") != _checksum(content):
            return None
        sizes = content.pop("bytes")
        if any((folder / name).stat().st_size != sizes[name] for name in (*FILES, *sizes)):
            return None
        for name in ("train_counts", "test_counts", "class_names", "left_out"):
            content[name] = tuple(content[name])
        content["duplicates"] = Duplicates(**content["duplicates"])
        return Index(folder=folder, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent or damaged: whoever needs it builds it anew


def write_index(index: Index, folder: Path) -> None:
    """Write ``index.json`` beside the arrays already in ``folder``: their lengths and digests, and its own."""
    content: dict[str, Any] = asdict(index)
    del content["folder"]
    names = [name for name in (*FILES, *GROUPS) if name in FILES or (folder / name).exists()]
    content["bytes"] = {name: (folder / name).stat().st_size for name in names}
    content["sha256"] = {name: file_sha256(folder / name) for name in names}
    content["index"] = _checksum(content)
    (folder / "index.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def file_sha256(file: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _some(words: Sequence[str], count: int) -> list[str]:
    """The first ``count`` of them, and how many more there are."""
    return [*words[:count], *([f"and {len(words) - count} more"] if len(words) > count else [])]


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
    """Parquet files of both splits in ``root``, or in the only folder below it that has them, as on the hub."""
    found = _shards(root)
    if not found:
        below = [shards for folder in _folders(root) if (shards := _shards(folder))]
        found = below[0] if len(below) == 1 else []
    return Source("parquet", found[0].parent, tuple(found)) if found else None


def _shards(root: Path) -> list[Path]:
    """The Parquet files in ``root``, training files first; none if a split has none."""
    shards = [sorted(root.glob(f"{split}-*.parquet")) for split in SPLITS]
    return shards[0] + shards[1] if all(shards) else []


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_folder(root: Path) -> Source | None:
    listed = [_images(root / split) for split in SPLITS]
    if not all(images for images, _ in listed):
        return None
    (train, beside_train), (test, beside_test) = listed
    return Source("folder", root, (*train, *test), _below(root, (*beside_train, *beside_test)))


def _below(root: Path, paths: Sequence[str]) -> tuple[str, ...]:
    start = os.path.join(root, "")
    return tuple(sorted(path.removeprefix(start) for path in paths))


def _tiny_imagenet(root: Path) -> Source | None:
    lists = (root / "wnids.txt", root / "val" / "val_annotations.txt")
    (train, _), (val, _) = _images(root / "train", "images"), _images(root / "val")
    if not (train and val and all(file.is_file() for file in lists)):
        return None
    return Source("tiny", root, (*lists, *train, *val))


def _images(root: Path, between: str = "") -> tuple[list[Path], list[str]]:
    """Image files in the folders below ``root``, sorted, and what lies beside them: ``<class>/*``, or
    ``<class>/<between>/*``. Hidden files and folders are neither."""
    images: list[str] = []
    others: list[str] = []
    for entry in _entries(root):
        if not entry.is_dir():
            others.append(entry.path)
            continue
        before = len(images)
        for file in _entries(os.path.join(entry.path, between)):
            is_image = os.path.splitext(file.name)[1].lower() in IMAGE_SUFFIXES
            if is_image:
                images.append(file.path)
            else:
                others.append(file.path + "/" * file.is_dir())
        if len(images) == before:
            others.append(f"{entry.path}/")
    return [Path(name) for name in sorted(images)], others


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds but hidden files, as ``._0.png`` of another system's disk is; nothing if it is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def incomplete(base: str, folder: str | None, data: Path) -> list[str]:
    """What is there of sources that lack something, in words.

    Args:
        folder: As for ``find_source``.
    """
    if not data.is_dir():
        return [f"no folder {data}"]
    base = made_of(base) if folder is None else base
    found = []
    if folder is None and base in _CIFAR:
        name, names = _CIFAR[base]
        absent = [file for file in names if not (data / name / file).is_file()]
        if (data / name).is_dir() and absent:
            found.append(f"{name}/ without {', '.join(absent)}")
    root = data / (folder or base)
    several = [place for place in _folders(root) if _shards(place)]
    if len(several) > 1:
        places = ", ".join(f"{place.relative_to(data)}/" for place in several)
        found.append(f"Parquet files of both splits in {places}, of which one has to be chosen")
    for place in (root, *_folders(root)):
        shown = place.relative_to(data)
        for split, other in (SPLITS, SPLITS[::-1]):
            if any(place.glob(f"{split}-*.parquet")) and not any(place.glob(f"{other}-*.parquet")):
                found.append(f"{shown}/{split}-*.parquet without {other}-*.parquet")
            if _images(place / split)[0] and not _images(place / other)[0]:
                found.append(f"{shown}/{split}/ without images in {other}/<class>/")
        if place != root and _image_folder(place):
            found.append(f"an image folder one folder down, in {shown}/")
    if not found and root.is_dir():
        held = sorted(entry.name + "/" * entry.is_dir() for entry in _entries(root))
        found.append(f"{root.name}/ with {', '.join(_some(held, 6)) or 'nothing'}")
    return found
