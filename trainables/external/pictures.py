"""A distilled set as a folder of pictures, a folder for each class (RDED, ``ddray export --form png``)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.configs import DatasetConfig

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
"""In small letters. Of what JPEG leaves of an image, this reads what every other program reads."""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder's folders, by name."""
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)


def folder_sha256(folder: Path) -> str:
    """Of the pictures' names and bytes; other files do not count."""
    digest = hashlib.sha256()
    for path in pictures_in(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def read_pictures(folder: Path, dataset: DatasetConfig) -> dict[str, Tensor]:
    """``images`` (N, C, H, W) float32 in [0, 1] and ``labels`` (N,) int64, by the numbers that folders are called.

    Args:
        folder: Holds ``CLASS/*.png`` or ``.jpg``; CLASS is the data set's own number of a class, as 3 or 00003.
        dataset: Whose size and channels the pictures have.

    Raises:
        ValueError: No such folder, or a picture that cannot be read or has another size.
    """
    import numpy as np
    import torch
    from PIL import Image

    if any(folder.rglob("batch_*.tar")):
        raise ValueError(
            f"{folder}: labels of every epoch and image (FKD); got a folder with batch_*.tar; expected a set. They are "
            "a teacher's answers written down, which are not read. Evaluate the images, with labels that the teacher "
            "gives once (--label-form)."
        )
    found = pictures_in(folder)
    names = sorted({path.parent.name for path in found})
    if odd := [name for name in names if not re.fullmatch(r"[0-9]{1,9}", name)]:
        raise ValueError(
            f"{folder}: a folder that is no class; got {odd[0]}; expected the data set's own numbers, as 3 or 00003. "
            "Rename it."
        )
    if not found:
        raise ValueError(
            f"{folder}: no pictures; got a folder without CLASS/*.png or *.jpg; expected a folder for each class, "
            "called by its number. To read a tensor, give its file."
        )
    size, mode = dataset.image_size, "RGB" if dataset.channels == 3 else "L"
    images = np.empty((len(found), size, size, dataset.channels), dtype=np.uint8)
    for index, path in enumerate(found):
        try:
            with Image.open(path) as picture:
                if picture.size != (size, size):
                    raise ValueError(
                        f"{path}: another size; got {picture.width} x {picture.height} pixels; expected {size} x "
                        f"{size}, as {dataset.name} has. Check that the set was made for it."
                    )
                images[index] = np.asarray(picture.convert(mode)).reshape(images.shape[1:])
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path}: cannot be read as a picture; got {error}. Write the file again.") from error
    labels = torch.tensor([int(path.parent.name) for path in found])
    return {"images": torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, "labels": labels}
