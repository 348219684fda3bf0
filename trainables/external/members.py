"""Which training images a set or a network was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from trainables.configs import DatasetConfig, OriginConfig
from trainables.data.decoding import canonical_order
from trainables.data.layout import find_source, missing
from trainables.data.origins import Integers, origin_indices
from trainables.external.content import first_line, read, shape_of

Order = Literal["files", "canonical"]
LIMIT = 10**9
"""Of the numbers of an origin, as of --seeds: they go into columns of 32 bits."""


def read_members(
    path: Path, dataset: DatasetConfig, classes: tuple[int, ...], order: Order | None, data: Path, labels: Integers
) -> OriginConfig:
    """Which training images a set or model was made of.

    Args:
        path: JSON of an origin (``{"kind": "draw", "per_class": 40, "draw": 0}``), or indices: a JSON list, one number
            a line, an array, or a mask of all training images.
        dataset: Whose training images.
        classes: That take part, ascending.
        order: What indices count: ``files``, images as the data set's files have them, or ``canonical``, as ddray does.
            None with an origin, which counts as ddray does.
        data: DDRAY_DATA, for ``files``.
        labels: (N,) of the whole train split in canonical order.

    Returns:
        An origin of kind ``full`` or ``draw`` without a block; what else was given, as the list of its images.

    Raises:
        ValueError: The file cannot be read, the order is not said or of no use, there is no such origin, or an index is
            not of such an image.
    """
    content = _members_file(path, len(labels))
    if isinstance(content, Mapping):
        if order is not None:
            raise ValueError(
                f"{path}: an origin needs no order; got --members-order {order}; expected it with a list of indices "
                "alone. Leave it out: an origin counts images as ddray does."
            )
        origin = _origin(path, content, classes)
        if origin.kind == "listed":
            return _listed(path, content["indices"], dataset, classes, labels)
        try:
            indices = origin_indices(origin, labels).tolist()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        whole = origin.kind == "full" or (origin.kind == "draw" and origin.block is None)
        return origin if whole else _listed(path, indices, dataset, classes, labels)
    if order is None:
        raise ValueError(
            f"{path}: indices of what order; got {len(content)} of them; expected to know what they count. Give "
            "--members-order files (as torchvision has the images) or canonical (as ddray counts them)."
        )
    return _listed(path, content, dataset, classes, labels, file_order(dataset, data) if order == "files" else None)


def _origin(path: Path, content: Mapping[Any, Any], classes: tuple[int, ...]) -> OriginConfig:
    """An origin as it is written; a list may be in any order and is not checked yet."""
    try:
        written = json.dumps(content)
    except (TypeError, ValueError, RecursionError):
        raise _no_origin(path, shape_of(content), "an origin is numbers, text and lists") from None
    given = dict(content)
    stated = given.pop("classes", None)
    if "kind" not in given:
        raise _no_origin(path, written, "kind is missing")
    if stated is not None and stated != list(classes):
        raise _no_origin(path, written, f"classes are {list(classes)} here (--classes)")
    if given["kind"] == "listed" and given.get("indices") is not None:
        if not _are_whole(given["indices"]):
            raise _no_origin(path, written, "indices are a list of whole numbers")
        given["indices"] = sorted(set(given["indices"]))
    try:
        origin = OriginConfig.model_validate({**given, "classes": classes})
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise _no_origin(path, written, f"{where}{first['msg']}") from error
    if max(number or 0 for number in (origin.per_class, origin.draw, origin.row, origin.block)) >= LIMIT:
        raise _no_origin(path, written, f"numbers are below {LIMIT}")
    if origin.canaries:
        what = "canaries are not audited by the labels they were trained with; list the other members"
        raise _no_origin(path, written, what)
    return origin


def _no_origin(path: Path, written: str, why: str) -> ValueError:
    return ValueError(
        f"{path}: not an origin that members can be of; got {written[:200]}; expected for example "
        f'{{"kind": "draw", "per_class": 40, "draw": 0}}: {why}. Correct it, or list indices.'
    )


def _listed(
    path: Path,
    indices: Sequence[int],
    dataset: DatasetConfig,
    classes: tuple[int, ...],
    labels: Integers,
    canonical: Integers | None = None,
) -> OriginConfig:
    """An origin of these images, each checked.

    Args:
        indices: Canonical, or of ``canonical``; of any size.
        dataset: Whose training images.
        canonical: (N,) canonical index of what an index counts.
    """
    wrong = [index for index in indices if not 0 <= index < len(labels)]
    twice = len(indices) - len(set(indices))
    if wrong or twice or not indices:
        what = str(wrong[0]) if wrong else f"{twice} of {len(indices)} twice" if twice else "none"
        raise ValueError(
            f"{path}: not indices of training images; got {what}; expected different numbers from 0 to "
            f"{len(labels) - 1}, one or more. Check that they belong to {dataset.name}."
        )
    chosen = np.array(indices, dtype=np.int64)
    chosen = np.sort(chosen if canonical is None else canonical[chosen])
    others = np.setdiff1d(np.unique(labels[chosen]), classes)
    if len(others):
        raise ValueError(
            f"{path}: images of classes that are not evaluated; got class {others[0]}; expected {list(classes)}. "
            "Give --classes, or leave the images out."
        )
    counts = {int((labels[chosen] == label).sum()) for label in classes}
    each = counts.pop() if len(counts) == 1 else None
    return OriginConfig(kind="listed", indices=tuple(chosen.tolist()), per_class=each, classes=classes)


def file_order(dataset: DatasetConfig, data: Path) -> Integers:
    """(N,) canonical train index of each image in the order of the data set's files."""
    from trainables.data import decoding

    source = find_source(dataset.base, dataset.folder, data)
    if source is None:
        raise missing(dataset.base, dataset.folder, data)
    classes = dataset.num_classes if dataset.folder is not None else None
    any_size = dataset.resize is not None
    images, labels = decoding.read(source, dataset.base, "train", any_size=any_size, classes=classes)
    order = canonical_order(images, labels)
    canonical = np.empty(len(order), dtype=np.int64)
    canonical[order] = np.arange(len(order))
    return canonical


def _members_file(path: Path, count: int) -> Mapping[Any, Any] | list[int]:
    """A mapping, or whole numbers; of a mask of ``count`` images, where it is true."""
    if path.is_file() and path.suffix in (".json", ".txt", ".csv"):
        try:
            text = path.read_text(encoding="utf-8")
            words = re.split(r"[\s,]+", text.strip().strip(","))
            content = json.loads(text) if path.suffix == ".json" else [int(word) for word in words]
        except (ValueError, RecursionError, OSError) as error:
            raise ValueError(f"{path}: cannot be read; got {first_line(error)}; expected whole numbers.") from error
    else:
        content = read(path)
        if isinstance(content, Mapping) and len(content) == 1:
            content = next(iter(content.values()))
        if isinstance(content, Tensor) and content.dtype == torch.bool and content.shape == (count,):
            content = content.nonzero().flatten()
        if isinstance(content, Tensor) and not content.is_floating_point() and content.dtype != torch.bool:
            content = content.flatten().tolist()
    if isinstance(content, Mapping) or _are_whole(content):
        return content
    raise ValueError(f"{path}: no indices; got {shape_of(content)}; expected whole numbers, or a mapping of an origin.")


def _are_whole(content: Any) -> bool:
    return isinstance(content, list) and all(type(each) is int for each in content)
