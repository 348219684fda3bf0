"""Distilled sets from elsewhere."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trainables.configs import DatasetConfig, LabelForm, LabelSource
from trainables.data.pixels import Whitening, denormalise, looks_like_pixels, looks_normalised, pixel_problem
from trainables.external.content import LABELS, SHOWN, check_finite, joined, read, shape_of
from trainables.external.pictures import read_pictures
from trainables.labels import HardLabels, Labels, SoftLabels
from trainables.payloads import DistilledSet

log = logging.getLogger(__name__)

Space = Literal["pixel01", "normalised", "whitened"]
IMAGES = ("images", "image", "data", "image_syn", "images_syn", "syn_images", "x", "x_train")
"""Names under which others keep images, in small letters."""
UNWHITENED = (-1.0, 2.0)
"""Whitened sets that were taken back to pixels hardly leave this range."""


@dataclass(frozen=True)
class Soft:
    """What a file of soft labels does not say of them."""

    form: LabelForm
    temperature: float | None
    """T of logits; of other forms None."""
    source: LabelSource
    classes: Path | Literal["class-major", "argmax"] | None
    """Where the class of each image is from: a file, the order of the images, or its row's largest number. None: the
    set's own file, which holds them beside the images."""


def read_set(
    path: Path,
    dataset: DatasetConfig,
    classes: tuple[int, ...],
    *,
    space: Space,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    factor: int,
    labels: Path | Literal["class-major"] | None = None,
    nth: int | None = None,
    soft: Soft | None = None,
    whitening: Whitening | None = None,
    unwhiten: bool = False,
) -> DistilledSet:
    """A distilled set.

    Args:
        path: Of the images: a tensor; or with their labels, by a usual name or as a pair; or a list of such sets; or a
            folder of pictures (``pictures.py``).
        dataset: What the set stands for.
        classes: Its own label numbers, ascending.
        space: What its numbers are.
        mean: Per channel, with which images were normalised; None in pixel space.
        std: Likewise.
        factor: Each image holds factor^2 training images (IDC); 1: it is one.
        labels: File of the labels, or ``class-major``: equally many images of each class, class after class.
        nth: Which set, counted from 0, where the file holds several (DC's files hold one for each experiment).
        soft: What its labels are, when they are soft.
        whitening: Of whitened images: that of all training images of the data set.
        unwhiten: Networks are to see the whitened set's pixels, normalised; else they are trained on the whitened
            images, as they were made for.

    Raises:
        ValueError: The file cannot be read or does not hold such a set.
    """
    where = str(path)
    content = read_pictures(path, dataset) if path.is_dir() else read(path)
    images, own_labels = _pick(content, nth, where)
    images = _checked_images(images, dataset, where)
    written_labels = own_labels
    if isinstance(labels, Path):
        written_labels = _labels_file(labels)
    elif labels == "class-major":
        written_labels = _class_major(images, classes, where)
    if written_labels is None:
        raise ValueError(
            f"{where}: no labels; got images alone; expected labels beside them. Give --labels FILE, or --labels "
            "class-major when the images of a class follow each other, class after class."
        )
    if space == "normalised":
        assert mean is not None
        assert std is not None
        if looks_like_pixels(images, mean, std):
            raise ValueError(
                f"{where}: images are not normalised with mean {', '.join(f'{each:g}' for each in mean)}; got values "
                f"from {float(images.min()):.3g} to {float(images.max()):.3g}; expected some below 0, darker than the "
                "mean. Give --space pixel01, and divide bytes by 255."
            )
        images = denormalise(images, mean, std)
    elif space == "whitened":
        assert whitening is not None
        images = whitening.pixels(images)
    if (problem := pixel_problem(images)) is not None:
        undone = {"normalised": " after undoing the normalisation", "whitened": " after undoing the whitening"}
        raise ValueError(
            f"{where}: images are not in pixel space{undone.get(space, '')}; got {problem}; expected different "
            "pictures of about 0 to 1 for space pixel01 (learned ones reach about -3 to 4). Divide bytes by 255, or "
            "give --space normalised with the normalisation, or --space whitened for ZCA."
        )
    if space == "whitened":
        _check_unwhitened(images, where)
    if space == "pixel01" and looks_normalised(images, dataset.mean, dataset.std):
        raise ValueError(
            f"{where}: images are on the normalised scale; got values from {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}, {float(images.mean()):.2g} on average, with --space pixel01; expected about "
            f"{sum(dataset.mean) / len(dataset.mean):.2g} on average, as {dataset.name} has. Give --space normalised "
            "with the constants (--normalisation NAME, or --mean and --std); where they are meant as they are, "
            "--normalisation none."
        )
    rows = None if soft is None else _soft_rows(written_labels, len(images), classes, dataset, where)
    if soft is not None and rows is not None:
        written_labels = _classes_of(soft, rows, own_labels, images, classes, where)
    positions = _positions(written_labels, len(images), classes, where)
    order = torch.sort(positions, stable=True).indices
    found: Labels = HardLabels(positions[order])
    if soft is not None and rows is not None:
        try:
            found = SoftLabels(found.classes, rows[order], soft.form, soft.temperature, soft.source)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    info: dict[str, Any] = {
        "space": "pixel01",
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "zca": space == "whitened" and not unwhiten,
        "factor": factor,
        "label_kind": found.kind,
        "iterations": None,
        "init": None,
    }
    kept = whitening if info["zca"] else None
    return DistilledSet(images[order].contiguous(), found, torch.full_like(positions, -1), info, kept)


def read_rate(path: Path) -> float:
    """A learning rate that was learned with a set (DATM's ``lr_best.pt``): the one number that a file holds.

    Raises:
        ValueError: It holds something else, or no rate.
    """
    content = read(path)
    if isinstance(content, Mapping) and len(content) == 1:
        (content,) = content.values()
    number = torch.as_tensor(content).detach() if isinstance(content, int | float | Tensor) else torch.empty(0)
    rate = float(number) if number.numel() == 1 else float("nan")
    if not 0 < rate < float("inf"):
        raise ValueError(
            f"{path}: no learning rate; got {shape_of(content) if rate != rate else rate}; expected one number above "
            "0. Give the number itself: --learned-lr 0.01."
        )
    return rate


def _check_unwhitened(images: Tensor, where: str) -> None:
    low, high = UNWHITENED
    outside = float(((images < low) | (images > high)).float().mean())
    if outside > 0.01:
        log.warning(
            "%s: pixels of %.3g to %.3g after undoing the whitening, %.0f %% of them outside %g to %g, where such sets "
            "hardly are. Check that the set is whitened, and with the data set's own training images (eps 0.1).",
            where,
            float(images.min()),
            float(images.max()),
            100 * outside,
            low,
            high,
        )


def _soft_rows(labels: Tensor, count: int, classes: tuple[int, ...], dataset: DatasetConfig, where: str) -> Tensor:
    """The rows (N, K) float32 of soft labels."""
    if len(classes) < dataset.num_classes:
        raise ValueError(
            f"{where}: soft labels have a number for every class of {dataset.name}; got {len(classes)} of "
            f"{dataset.num_classes} classes; expected all: what is left of a row without some of its numbers is "
            "another label. Leave --classes out."
        )
    if labels.ndim != 2 or labels.shape != (count, len(classes)):
        raise ValueError(
            f"{where}: labels are not soft; got {labels.dtype} {tuple(labels.shape)}; expected ({count}, "
            f"{len(classes)}), a row for each image. Leave --label-form out, or give their file with --labels."
        )
    return labels.detach().float().contiguous()


def _classes_of(
    soft: Soft, rows: Tensor, own_labels: Tensor | None, images: Tensor, classes: tuple[int, ...], where: str
) -> Tensor:
    """The class of each image that has a soft label, by the data set's own number."""
    if isinstance(soft.classes, Path):
        return _labels_file(soft.classes)
    if soft.classes == "class-major":
        return _class_major(images, classes, where)
    if soft.classes == "argmax":
        return torch.tensor(classes)[rows.argmax(1)]
    if own_labels is None or own_labels.ndim != 1:
        raise ValueError(
            f"{where}: which class each image is of; got soft labels alone; expected classes beside the images. Give "
            "--image-classes class-major (class after class), argmax (the largest number of each row) or a FILE."
        )
    return own_labels


def _pick(content: Any, nth: int | None, where: str) -> tuple[Tensor, Tensor | None]:
    """Images and labels in whatever a file holds."""
    several = _entry(content, ("data",)) if isinstance(content, Mapping) else content
    if isinstance(several, list | tuple) and several and _pair(several) is None and joined(several, 4) is None:
        return _pick_of(several, nth, where)
    pair = _images_and_labels(content, where)
    if nth:
        raise ValueError(f"{where}: holds one set; got --nth {nth}; expected 0. Leave --nth out, or check the file.")
    return pair


def _pick_of(several: Sequence[Any], nth: int | None, where: str) -> tuple[Tensor, Tensor]:
    pairs = [_pair(each) for each in several]
    if None in pairs:
        raise _no_set(several, where)
    if nth is None and len(several) > 1:
        raise ValueError(
            f"{where}: holds several sets; got {len(several)}; expected to know which. Give --nth 0 to "
            f"{len(several) - 1}."
        )
    if (nth or 0) >= len(several):
        raise ValueError(f"{where}: has no set number {nth}; got {len(several)} sets. Give --nth below {len(several)}.")
    chosen = pairs[nth or 0]
    assert chosen is not None
    return chosen


def _images_and_labels(content: Any, where: str) -> tuple[Tensor, Tensor | None]:
    if isinstance(content, list | tuple) and (pair := _pair(content)) is not None:
        _say_left_out([f"number {nth}" for nth in range(2, len(content))], where)
        return pair
    if (images := joined(content, 4)) is not None:
        return images, None
    if not isinstance(content, Mapping):
        raise _no_set(content, where)
    if (by_class := _by_class(content)) is not None:
        return by_class
    images = joined(_entry(content, IMAGES), 4)
    labels = joined(_entry(content, LABELS), 1)
    pair = _pair(_entry(content, ("data",)))
    if images is None and pair is not None:
        return pair
    inner = [each for each in content.values() if isinstance(each, Mapping)]
    if images is None and len(inner) == 1:
        return _images_and_labels(inner[0], where)
    if images is None:
        names = ", ".join(map(str, list(content)[:SHOWN])) or "nothing"
        raise ValueError(
            f"{where}: no images; got {names}; expected a tensor called one of {', '.join(IMAGES)}. Rename it."
        )
    others = [str(name) for name in content if str(name).lower() not in (*IMAGES, *LABELS)]
    if masks := [name for name in others if "mask" in name.lower()]:
        raise ValueError(
            f"{where}: holds a mask beside the images; got {', '.join(masks[:SHOWN])}; expected images that all count. "
            "Apply it (images[mask], labels[mask]) and write the set without it."
        )
    _say_left_out(others, where)
    return images, labels


def _entry(content: Mapping[Any, Any], names: Sequence[str]) -> Any:
    """What stands under the first of some names, however they are capitalised."""
    by_name = {str(name).lower(): value for name, value in content.items()}
    return next((by_name[name] for name in names if by_name.get(name) is not None), None)


def _by_class(content: Mapping[Any, Any]) -> tuple[Tensor, Tensor] | None:
    """Images and labels of a mapping from classes to their images; None where it is none."""
    if not content or not all(re.fullmatch(r"[0-9]{1,9}", str(name)) for name in content):
        return None
    parts = [joined(value, 4) for value in content.values()]
    parts = [part[None] if part is not None and part.ndim == 3 else part for part in parts]
    images = joined(parts, 4)
    if images is None or images.ndim != 4:
        return None
    counts = torch.tensor([len(part) for part in parts if part is not None])
    return images, torch.tensor([int(str(name)) for name in content]).repeat_interleave(counts)


def _say_left_out(names: Sequence[str], where: str) -> None:
    if names:
        log.warning("%s: read without %s", where, ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else ""))


def _no_set(content: Any, where: str) -> ValueError:
    return ValueError(
        f"{where}: not a distilled set; got {shape_of(content)}; expected images (N, C, H, W) with labels (N,), as a "
        "dictionary, a pair, or a list of pairs. Write it as {'images': ..., 'labels': ...}."
    )


def _pair(content: Any) -> tuple[Tensor, Tensor] | None:
    """Images and labels, whatever else follows them; None where these are not they."""
    if not isinstance(content, list | tuple) or len(content) < 2:
        return None
    images, labels = joined(content[0], 4), joined(content[1], 1)
    if images is None or labels is None or images.ndim < 3 or labels.ndim > 2:
        return None
    return images, labels


def _labels_file(path: Path) -> Tensor:
    content = read(path)
    if isinstance(content, Mapping):
        tensors = [value for name, value in content.items() if str(name).lower() in LABELS or len(content) == 1]
        content = tensors[0] if len(tensors) == 1 else content
    labels = joined(content, 1)
    if labels is None:
        raise ValueError(
            f"{path}: no labels; got {shape_of(content)}; expected a tensor, alone or called one of "
            f"{', '.join(LABELS)}."
        )
    return labels


def _class_major(images: Tensor, classes: tuple[int, ...], where: str) -> Tensor:
    if len(images) % len(classes):
        raise ValueError(
            f"{where}: cannot be class after class; got {len(images)} images of {len(classes)} classes; expected a "
            "multiple. Give --labels FILE."
        )
    return torch.tensor(classes).repeat_interleave(len(images) // len(classes))


def _checked_images(images: Tensor, dataset: DatasetConfig, where: str) -> Tensor:
    wanted = (dataset.channels, dataset.image_size, dataset.image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != wanted or not len(images):
        last = images.ndim == 4 and tuple(images.shape[1:]) == (*wanted[1:], wanted[0])
        advice = "Permute them to channels first." if last else f"Check that the set was made for {dataset.name}."
        raise ValueError(
            f"{where}: images have another shape; got {tuple(images.shape)}; expected (N, {wanted[0]}, {wanted[1]}, "
            f"{wanted[2]}) for {dataset.name}. {advice}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{where}: images are not floating point; got {images.dtype}; expected numbers of about 0 to 1, or "
            "normalised ones. Divide bytes by 255."
        )
    images = images.detach().float()
    check_finite({"images": images}, where)
    return images


def _positions(labels: Tensor, count: int, classes: tuple[int, ...], where: str) -> Tensor:
    """Hard labels as positions in ``classes``; rows that are one-hot count as hard."""
    if labels.ndim == 2 and labels.shape == (count, len(classes)):
        hot = ((labels == 1).sum(1) == 1) & ((labels != 0).sum(1) == 1)
        if not bool(hot.all()):
            raise ValueError(
                f"{where}: labels are soft; got {int((~hot).sum())} of {count} rows that are not one-hot; expected to "
                "know what they are. Give --label-form logits, probabilities or targets."
            )
        return labels.to(torch.int64).argmax(1)
    odd = []
    if labels.is_floating_point():
        odd = [number for number in labels.flatten().tolist() if not abs(number) < 2**31 or number != round(number)]
    if labels.shape != (count,) or len(odd):
        raise ValueError(
            f"{where}: labels do not fit the images; got {labels.dtype} {tuple(labels.shape)}"
            f"{f' with {odd[0]:g}' if len(odd) else ''}; expected ({count},) whole numbers. Give the file that "
            "belongs to them with --labels."
        )
    numbers = labels.to(torch.int64)
    strange = sorted(set(numbers.tolist()) - set(classes))
    absent = sorted(set(classes) - set(numbers.tolist()))
    if strange or absent:
        raise ValueError(
            f"{where}: classes of the set are not those that are evaluated; got "
            f"{_listed('unknown', strange)}{' and ' if strange and absent else ''}{_listed('none of', absent)}; "
            f"expected every class of {list(classes)[:SHOWN]}{' ...' if len(classes) > SHOWN else ''}, by the data "
            "set's own numbers. Give --classes."
        )
    return torch.searchsorted(torch.tensor(classes), numbers)


def _listed(what: str, numbers: list[int]) -> str:
    if not numbers:
        return ""
    return f"{what} {', '.join(map(str, numbers[:SHOWN]))}{' ...' if len(numbers) > SHOWN else ''}"
