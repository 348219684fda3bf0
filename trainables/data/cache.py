"""Decoded data sets in canonical order, as memory-mapped arrays on the node's own disk.

Canonical order is by label, then by the sha256 of an image's bytes (C, H, W). It depends on nothing but the content,
so an index means the same image whatever file it was read from. Whether there is a cache for the files as they are now
is found in ``layout.py``. Importing this module loads no decoder, no NumPy and no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainables.data.known import KnownDataset
from trainables.data.layout import (
    SPLITS,
    DataBroken,
    Duplicates,
    Index,
    Source,
    cache_path,
    file_sha256,
    find_source,
    known_dataset,
    made_of,
    missing,
    read_index,
    resized_digest,
    write_index,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainables.configs import DatasetConfig


@dataclass(frozen=True)
class Split:
    """One split in canonical order."""

    images: NDArray[np.uint8]
    """(N, C, H, W), read-only memory map."""
    labels: NDArray[np.int64]
    """(N,), the data set's own label numbers."""
    groups: NDArray[np.int64] | None = None
    """(N,), of data sets that have groups beside classes (``groups.py``)."""


def build(
    base: str,
    folder: str | None,
    resize: int | None,
    data: Path,
    cache: Path,
    *,
    download: bool = False,
    classes: int | None = None,
) -> Index:
    """The index of a data set's cache, which is built first if the files as they are now have none.

    Any number of processes may call this at once: one works, the others wait. A builder that is killed leaves only a
    temporary folder, which the next one removes. What was read is said on stderr. A cache whose bytes changed since
    they were written is built again.

    Args:
        folder: Folder below ``data`` when the files are not the known data set's own (``like`` names ``base`` then).
        resize: Height and width in pixels to which images are resized, or None.
        download: Let torchvision fetch a known data set that is not there.
        classes: How many a folder has; None: as many as ``base``.

    Raises:
        DataMissing: If there is nothing to read.
        DataBroken: If a file or an image is broken, does not fit the data set's constants, or the content is not the
            pinned one.
        ValueError: If the name is unknown or the folder leaves ``data``.
    """
    known = known_dataset(base, classes)
    source = find_source(base, folder, data)
    if source is None and download and folder is None:
        source = _download(made_of(base), data, cache)
    if source is None:
        raise missing(base, folder, data)
    name = folder or base
    any_size = folder is not None and resize is not None
    own = partial(_decode, base, folder, source, cache, any_size=any_size, classes=classes)
    place = partial(cache_path, base, folder, source=source, cache=cache, classes=classes)
    if resize is not None:
        at_own_size = partial(_ensure, name, place(resize=None), own)
        return _ensure(name, place(resize=resize), partial(_resize, at_own_size, resize))
    index = _ensure(name, place(resize=None), own)
    if index.image_size != known.image_size:  # built on the way to a resized one, where any size will do
        raise DataBroken(
            f"{index.source}: images do not fit {base}; got {index.image_size}x{index.image_size} pixels; expected "
            f"{known.image_size}x{known.image_size}. Declare the folder with resize: {known.image_size}."
        )
    return index


def open_split(dataset: DatasetConfig, split: Literal["train", "test"], data: Path, cache: Path) -> Split:
    """One split of a data set; builds the cache when this node has none.

    Args:
        dataset: Which data set, with the digest it was planned with.

    Raises:
        DataMissing: If this node has no data.
        DataBroken: If they are broken, or are not those the stage was planned with.
    """

    classes = dataset.num_classes if dataset.folder is not None else None
    index = build(dataset.base, dataset.folder, dataset.resize, data, cache, classes=classes)
    if index.digest != dataset.digest:
        raise DataBroken(
            f"{dataset.name}: the data on this node are not those of the plan; got {index.digest} from {index.source}; "
            f"expected {dataset.digest}. Give every node the same files below DDRAY_DATA, or plan again with these."
        )
    return Split(*_arrays(index.folder, split))


def _arrays(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64] | None]:
    """Images, labels and, where there are any, groups of a split."""
    import numpy as np

    images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
    groups = folder / f"{split}_groups.npy"
    return images, labels, np.load(groups, allow_pickle=False) if groups.exists() else None


def content_digest(
    splits: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64] | None]],
) -> str:
    """Digest of splits in canonical order: each one's name and shape, labels, groups, pixels.

    Args:
        splits: (name, images (N, C, H, W), labels (N,), groups (N,) where there are any) of train, then test.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, images, labels, groups in splits:
        digest.update(json.dumps([name, list(images.shape)]).encode())
        digest.update(labels.astype("<i8").tobytes())
        if groups is not None:
            digest.update(groups.astype("<i8").tobytes())
        for start in range(0, len(images), 4096):  # a memory map is hashed without being loaded whole
            digest.update(images[start : start + 4096].tobytes())
    return f"sha256:{digest.hexdigest()}"


def pixel_digests(images: NDArray[np.uint8]) -> list[bytes]:
    """sha256 of each image's bytes; equal where all pixels are."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def duplicates(train: NDArray[np.uint8], test: NDArray[np.uint8]) -> Duplicates:
    """How many images (N, C, H, W) of two splits are there more than once."""
    of_train, of_test = pixel_digests(train), pixel_digests(test)
    known = set(of_train)
    return Duplicates(
        train=len(of_train) - len(known),
        test=len(of_test) - len(set(of_test)),
        test_in_train=sum(digest in known for digest in of_test),
    )


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Images (N, C, H, W) at ``size`` x ``size`` pixels, channel by channel.

    Pillow's bilinear filter, whose support grows when shrinking so that every pixel counts. It computes on bytes in
    integers, so the result is the same on every machine.
    """
    import numpy as np
    from PIL import Image

    count, channels = images.shape[:2]
    out = np.empty((count, channels, size, size), dtype=np.uint8)
    for number in range(count):
        for channel in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(images[number, channel]))
            out[number, channel] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
    return out


def _ensure(name: str, target: Path, make: Callable[[Path], Index]) -> Index:
    """The index of ``target``, which ``make`` fills (as a temporary folder) if it is not there whole."""
    index = _intact(target)
    if index is not None:
        return index
    with _locked(target):
        index = _intact(target)  # another process may have built it while this one waited
        if index is not None:
            return index
        if target.exists():
            _say(f"{target}: the decoded images changed since they were written; read again from their source")
        for leftover in (*target.parent.glob(f"{target.name}.tmp-*"), target):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
        temporary.mkdir()
        try:
            write_index(make(temporary), temporary)
            for file in temporary.iterdir():
                _to_disk(file)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    index = read_index(target)
    assert index is not None
    for line in index.told(name):
        _say(line)
    return index


_compared: dict[Path, tuple[str, tuple[int, ...]]] = {}
"""Files whose bytes this process compared with their digests: the digest, and the state they were in."""


def _intact(target: Path) -> Index | None:
    """The index of a cache whose arrays hold what was written; None if there is none or they changed.

    Bytes are compared once in a process, and again when the file is another or was touched since: a byte may change
    and leave a file's length and its time of modification as they were.
    """
    index = read_index(target)
    if index is None:
        return None
    for name, digest in index.sha256.items():
        file = target / name
        try:
            stat = file.stat()
            state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if _compared.get(file) == (digest, state):
                continue
            if file_sha256(file) != digest:
                return None
        except FileNotFoundError:  # another process found the damage first
            return None
        _compared[file] = (digest, state)
    return index


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        yield


def _to_disk(file: Path) -> None:
    """Wait until a file's bytes are on the disk, so that no crash can leave a whole name on half a file."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decode(
    base: str,
    folder: str | None,
    source: Source,
    cache: Path,
    temporary: Path,
    *,
    any_size: bool,
    classes: int | None = None,
) -> Index:
    """Write the source's images in canonical order into ``temporary``; the index to be."""
    from trainables.data import decoding
    from trainables.data.groups import with_groups

    before = cache_path(base, folder, None, source, cache)
    arrays, made = {}, known_dataset(base).made if folder is None else None
    for split in SPLITS:
        own = made_of(base) if folder is None else base
        images, labels = decoding.read(source, own, split, any_size=any_size, classes=classes)
        order, groups = decoding.canonical_order(images, labels), None
        if made is not None:
            labels = labels[order]
            images, groups = with_groups(images[order], labels, made, split)
            order = decoding.canonical_order(images, labels)
        arrays[split] = _write_split(temporary, split, (len(order), *images.shape[1:]), images, labels, order, groups)
    if cache_path(base, folder, None, source, cache) != before:
        raise DataBroken(f"{source.describe()}: files changed while they were read. Run again when they are whole.")
    train, test = arrays["train"], arrays["test"]
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataBroken(
            f"{source.describe()}: train and test images differ in shape; got {train.images.shape[1:]} and "
            f"{test.images.shape[1:]} (C, H, W); expected the same."
        )
    digest = content_digest((name, split.images, split.labels, split.groups) for name, split in arrays.items())
    known = known_dataset(base, classes)
    if folder is None:
        _compare_with_pinned(base, known, digest, source, train.labels)
    return Index(
        digest=digest,
        train_counts=_counts(train.labels, known),
        test_counts=_counts(test.labels, known),
        image_size=train.images.shape[-1],
        channels=known.channels,
        num_classes=known.num_classes,
        source=source.describe(),
        folder=temporary,
        class_names=decoding.class_names(source, known) if source.kind == "folder" else (),
        left_out=source.left_out,
        duplicates=duplicates(train.images, test.images),
    )


def _resize(at_own_size: Callable[[], Index], size: int, temporary: Path) -> Index:
    """Write another cache's images at ``size`` pixels into ``temporary``, in that cache's order."""
    import numpy as np

    index, written = at_own_size(), {}
    for split in SPLITS:
        images, labels, groups = _arrays(index.folder, split)
        shape = (len(images), images.shape[1], size, size)
        order = np.arange(len(images))
        written[split] = _write_split(
            temporary, split, shape, images, labels, order, groups, lambda part: resized(part, size)
        )
    return replace(
        index,
        digest=resized_digest(index.digest, size),
        image_size=size,
        folder=temporary,
        duplicates=duplicates(written["train"].images, written["test"].images),  # small images may agree sooner
    )


def _write_split(
    folder: Path,
    split: str,
    shape: tuple[int, ...],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda part: part,
) -> Split:
    """Write ``change(images[order])``, ``labels[order]`` and, where there are any, ``groups[order]``; images in parts,
    so that no second copy is held in memory."""
    import numpy as np

    out = np.lib.format.open_memmap(folder / f"{split}_images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, len(order), 2048):
        out[start : start + 2048] = change(images[order[start : start + 2048]])
    out.flush()
    np.save(folder / f"{split}_labels.npy", labels[order])
    if groups is None:
        return Split(out, labels[order])
    np.save(folder / f"{split}_groups.npy", groups[order])
    return Split(out, labels[order], groups[order])


def _counts(labels: NDArray[np.int64], known: KnownDataset) -> tuple[int, ...]:
    import numpy as np

    return tuple(int(count) for count in np.bincount(labels, minlength=known.num_classes))


def _compare_with_pinned(
    base: str, known: KnownDataset, digest: str, source: Source, train_labels: NDArray[np.int64]
) -> None:
    """Refuse a known data set's name on other content: by the pinned digest, else by the size of the classes."""
    advice = f"Restore the original files, or declare these under datasets: {{folder: ..., like: {base}}}."
    if known.digest is not None:
        if digest != known.digest:
            raise DataBroken(
                f"{source.describe()}: this is not {base}; got {digest}; expected {known.digest}. {advice}"
            )
        return
    smallest = min(_counts(train_labels, known))
    if smallest != known.train_per_class:
        raise DataBroken(
            f"{source.describe()}: this is not the whole {base}; got {smallest} training images in the smallest "
            f"class; expected {known.train_per_class}. {advice}"
        )


def _download(base: str, data: Path, cache: Path) -> Source:
    """Let torchvision fetch a data set into ``data``, one process of this node at a time."""
    from trainables.data import decoding

    with _locked(cache / "data" / f"{base}.download"):
        source = find_source(base, None, data)
        return source if source is not None else decoding.download(base, data)
