"""Data sets with a group beside the class, made of others: grey and coloured photographs, coloured digits and clothes.

A group is what a network should not go by, and what the training images let it go by: most images of a class are of
one group. FairDD's construction (methods2.md 6.1), from which ours differs in three things: who is of which group
follows from an image's content instead of a global random state; a test photograph is there once, grey or coloured,
half of each class, where theirs has each twice, so that test images are independent; and clothes on a coloured ground
are (1 - v / 255) times the colour, where theirs overflows its bytes.

Images uint8 (N, C, H, W); labels and groups int64 (N,).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.known import Rendering, hashed_permutation

Images = NDArray[np.uint8]
Integers = NDArray[np.int64]

PALETTE: tuple[tuple[int, int, int], ...] = (
    (255, 0, 0),
    (255, 128, 0),
    (255, 255, 0),
    (255, 255, 128),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
    (128, 0, 255),
    (255, 0, 255),
    (255, 255, 255),
)
"""Colour k belongs to class k."""
GREY, COLOURED = 0, 1
MARGIN = 4
"""Rows of zeros above, and columns to the left, of images of 28 pixels."""


def with_groups(
    images: Images, labels: Integers, rendering: Rendering, split: Literal["train", "test"]
) -> tuple[Images, Integers]:
    """The rendered images and the group of each.

    Args:
        images: Of the data set that it is made of, in canonical order: who is of which group follows from the place.
        labels: Theirs.
        rendering: How.
        split: Training images lean, test images do not.
    """
    share = rendering.train_share if split == "train" else rendering.test_share
    groups = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = members[hashed_permutation(len(members), "groups", split, int(label))]
        assign = _two_groups if rendering.look == "grey" else _ten_groups
        groups[order] = assign(int(label), len(members), share)
    if rendering.look == "grey":
        return _greyed(images, groups), groups
    return _coloured(images, groups, rendering.look), groups


def _two_groups(label: int, count: int, share: float) -> Integers:
    """Of the first five classes ``share`` is grey, of the others coloured."""
    first = GREY if label < 5 else COLOURED
    groups = np.full(count, 1 - first, dtype=np.int64)
    groups[: int(share * count + 1e-9)] = first
    return groups


def _ten_groups(label: int, count: int, share: float) -> Integers:
    """``share`` of a class has its own colour, the rest the nine others in parts of equal size, but for the last."""
    own = int(share * count + 1e-9)
    others = [colour for colour in hashed_permutation(len(PALETTE), "colours", label) if colour != label]
    part = -(-(count - own) // len(others))
    return np.concatenate([np.full(own, label), np.repeat(others, part)[: count - own]]).astype(np.int64)


def _greyed(images: Images, groups: Integers) -> Images:
    """Pillow's grey, which is integer arithmetic and so the same everywhere, in three equal channels."""
    from PIL import Image

    out = images.copy()
    for row in np.flatnonzero(groups == GREY):
        picture = Image.fromarray(np.ascontiguousarray(images[row].transpose(1, 2, 0)))
        out[row] = np.asarray(picture.convert("L"))[None]
    return out


def _coloured(images: Images, groups: Integers, look: str) -> Images:
    values = images[:, 0]
    if values.shape[1] == 28:
        values = np.pad(values, ((0, 0), (MARGIN, 0), (MARGIN, 0)))
    match look:
        case "ink":
            strength = np.where(values >= 128, 255, 0)
        case "paper":
            strength = np.where(values < 128, 255, 0)
        case "shape":
            strength = values.astype(np.int64)
        case _:
            strength = 255 - values.astype(np.int64)
    colours = np.array(PALETTE, dtype=np.int64)[groups][:, :, None, None]
    return ((strength[:, None] * colours + 127) // 255).astype(np.uint8)
