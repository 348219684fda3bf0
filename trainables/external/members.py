"""Which training images a set or a network was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import DatasetConfig, OriginConfig
from trainables.data.index import canonical_order
from trainables.data.layout import find_source, missing
from trainables.external.files import first_line, read, shape_of

Order = Literal["files", "canonical"]


def read_members(
    path: Path, dataset: DatasetConfig, classes: tuple[int, ...], order: Order | None, data: Path, labels: Any
) -> OriginConfig:
    """Which training images a set or model was made of.

    Args:
        path: JSON of an origin (``{"kind": "draw", "per_class": 40, "draw": 0}``), or indices: a JSON list, one number
            a line, or an array.
        dataset: Whose training images.
        classes: That take part, ascending.
        order: What indices count: ``files``, images as the data set's files have them, or ``canonical``, as ddray does.
        data: DDRAY_DATA, for ``files``.
        labels: (N,) of the whole train split in canonical order.

    Raises:
        ValueError: The file cannot be read, the order is not said, or an index is not of such an image.
    """
    content = _members_file(path)
    if isinstance(content, Mapping):
        try:
            return OriginConfig.model_validate({**content, "classes": classes})
        except ValueError as error:
            raise ValueError(
                f"{path}: not an origin; got {json.dumps(dict(content))[:200]}; expected for example "
                f'{{"kind": "draw", "per_class": 40, "draw": 0}}: {first_line(error)}.'
            ) from error
    indices = np.asarray(content, dtype=np.int64)
    if order is None:
        raise ValueError(
            f"{path}: indices of what order; got {len(indices)} of them; expected to know what they count. Give "
            "--members-order files (as torchvision has the images) or canonical (as ddray counts them)."
        )
    wrong = indices[(indices < 0) | (indices >= len(labels))]
    if len(wrong) or len(np.unique(indices)) != len(indices) or not len(indices):
        what = f"{wrong[0]}" if len(wrong) else f"{len(indices) - len(np.unique(indices))} of {len(indices)} twice"
        raise ValueError(
            f"{path}: not indices of training images; got {what}; expected different numbers from 0 to "
            f"{len(labels) - 1}. Check that they belong to {dataset.name}."
        )
    if order == "files":
        indices = file_order(dataset, data)[indices]
    strangers = np.setdiff1d(np.unique(labels[indices]), classes)
    if len(strangers):
        raise ValueError(
            f"{path}: images of classes that are not evaluated; got class {strangers[0]}; expected {list(classes)}. "
            "Give --classes, or leave the images out."
        )
    return OriginConfig(kind="listed", indices=tuple(sorted(indices.tolist())), classes=classes)


def file_order(dataset: DatasetConfig, data: Path) -> NDArray[np.int64]:
    """(N,) canonical train index of each image in the order of the data set's files."""
    from trainables.data import sources

    source = find_source(dataset.base, dataset.folder, data)
    if source is None:
        raise missing(dataset.base, dataset.folder, data)
    images, labels = sources.read(source, dataset.base, "train", any_size=dataset.resize is not None)
    order = canonical_order(images, labels)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places


def _members_file(path: Path) -> Any:
    """A mapping, or a list or array of whole numbers."""
    if path.is_file() and path.suffix in (".json", ".txt", ".csv"):
        text = path.read_text(encoding="utf-8")
        try:
            found = (
                json.loads(text)
                if path.suffix == ".json"
                else [int(word) for word in re.split(r"[\s,]+", text.strip())]
            )
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read; got {first_line(error)}; expected whole numbers.") from error
    else:
        found = read(path)
        if isinstance(found, Mapping) and len(found) == 1:
            found = next(iter(found.values()))
        if isinstance(found, Tensor):
            found = found.flatten().tolist() if not found.is_floating_point() and found.dtype != torch.bool else None
    if isinstance(found, Mapping) or (isinstance(found, list) and all(type(each) is int for each in found)):
        return found
    raise ValueError(f"{path}: no indices; got {shape_of(found)}; expected whole numbers, or a mapping of an origin.")
