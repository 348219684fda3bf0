"""The light half of the cache: is there one for the files as they are now, and what does its index say?

Only stats files, so planning can use it; imports neither torch nor a decoder. Building and opening: ``cache.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.data.layout import DataBroken, Source, find_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
"""Raised by hand when the cached files or their order change: older caches are then built anew."""
RESIZE = "pil-bilinear"
"""How images are resized; part of the resized digest."""
FILES = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy")


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


def find_index(base: str, folder: str | None, resize: int | None, data: Path, cache: Path) -> Index | None:
    """The index of the cache that belongs to the source files as they are now; None if there is none.

    Args:
        base: A known data set's name.
        folder: Folder below ``data`` when the files are not the known data set's own.
        resize: Height and width in pixels to which images are resized, or None.
        data: DDRAY_DATA.
        cache: DDRAY_CACHE.

    Raises:
        DataBroken: If a file is listed and not there (a dangling link).
        ValueError: If the name is unknown or the folder leaves ``data``.
    """
    source = find_source(base, folder, data)
    return None if source is None else read_index(place(base, folder, resize, source, cache))


def place(base: str, folder: str | None, resize: int | None, source: Source, cache: Path) -> Path:
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


def canonical_order(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of images in canonical order: by label, then by the sha256 of the image's bytes.

    Images that agree in both are the same, so their order does not matter.

    Args:
        images: (N, C, H, W).
        labels: (N,).
    """
    import numpy as np

    keys = [
        (label, hashlib.sha256(image.tobytes()).digest()) for label, image in zip(labels.tolist(), images, strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def content_digest(splits: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.int64]]]) -> str:
    """Digest of splits in canonical order: each one's name and shape, labels, pixels.

    Args:
        splits: (name, images (N, C, H, W), labels (N,)) of train, then test.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, images, labels in splits:
        digest.update(json.dumps([name, list(images.shape)]).encode())
        digest.update(labels.astype("<i8").tobytes())
        for start in range(0, len(images), 4096):  # a memory map is hashed without being loaded whole
            digest.update(images[start : start + 4096].tobytes())
    return f"sha256:{digest.hexdigest()}"


def resized_digest(base_digest: str, size: int) -> str:
    """Digest of a resized data set, from that of the images it is made of: planning need not resize anything.

    Resizing is a function of pixels (``cache.resized``), so base digest, size and the name of the function say it all.

    Args:
        base_digest: Digest of the images before resizing.
        size: Height = width after resizing, pixels.
    """
    text = json.dumps([RESIZE, base_digest, size])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
