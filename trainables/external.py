"""Files that ddray did not make: distilled sets, networks' parameters, lists of members. Nothing in them is ever run.

What a file cannot say (space, normalisation, architecture, order of indices) comes from the caller; nothing is guessed.
N images, C channels, H = W pixels, K classes; labels in files are the data set's own numbers.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.configs import DatasetConfig, NetworkConfig, OriginConfig, SignalsConfig
from trainables.context import Context
from trainables.data.index import canonical_order
from trainables.data.layout import find_source, missing
from trainables.data.origins import AskedImages, denormalise, load_test
from trainables.models.build import build
from trainables.models.network import num_parameters
from trainables.networks import parsed
from trainables.payloads import DistilledSet, Signals, TrainedModel
from trainables.train import predict

Space = Literal["pixel01", "normalised"]
Order = Literal["files", "canonical"]

IMAGES = ("images", "data", "image_syn", "x")
LABELS = ("labels", "targets", "label_syn", "y")
STATES = ("state_dict", "model_state_dict", "model", "net", "network")
"""Names under which others keep images, labels, and the parameters of a network."""
LARGEST_PIXEL = 20.0
"""Learned images leave [0, 1], and by how much no method bounds; bytes up to 255 are another matter."""
_SHOWN = 6

_RENAMED = {
    "resnet18": (
        (r"^conv1\.", "stem.0."),
        (r"^bn1\.", "stem.1."),
        (r"^layer([1-4])\.", lambda found: f"stages.{int(found[1]) - 1}."),
        (r"\.shortcut\.", ".downsample."),
        (r"^(fc|linear)\.", "classifier."),
    ),
}
"""Published names that are not ours: torchvision's and the DC family's. Their ConvNet and VGG have ours."""


# --- files ------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    """What a file holds: a tensor, or tensors in dictionaries and lists.

    safetensors, npy and npz (without objects), and what ``torch.save`` writes of tensors, numbers and text. Which of
    them it is, its first bytes say, not its name.

    Raises:
        ValueError: No such file, another kind of file, or one that needs code to be loaded.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected safetensors, npz, or what torch.save writes. Check the path.")
    with path.open("rb") as file:
        head = file.read(9)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                arrays = all(name.endswith(".npy") for name in archive.namelist())
            return _numpy(path) if arrays else _torch(path)
        if head.startswith(b"\x93NUMPY"):
            return _numpy(path)
        if head.startswith(b"\x80"):
            return _torch(path)
        if head[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read; got {_first_line(error)}. Write the file again.") from error
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):
            raise ValueError(f"{path}: cannot be read; got {_first_line(error)}. Write the file again.") from error
        raise
    raise ValueError(
        f"{path}: not a kind of file that can be read; got {head[:8]!r} as its first bytes; expected safetensors, npz, "
        "or what torch.save writes. Convert it."
    )


def _torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(_needs_code(path, f"it names {named[1]}" if named else "a pickle of its own kind")) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise ValueError(_needs_code(path, "a TorchScript program")) from None
        raise


def _numpy(path: Path) -> Any:
    try:
        found = np.load(path, allow_pickle=False)
        return torch.from_numpy(found) if isinstance(found, np.ndarray) else _tensors(found)
    except (ValueError, TypeError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError(_needs_code(path, "an array of Python objects")) from None
        raise ValueError(f"{path}: cannot be read; got {_first_line(error)}. Write the file again.") from error


def _tensors(archive: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(archive[name]) for name in archive}


def _needs_code(path: Path, why: str) -> str:
    return (
        f"{path}: would need code to be run to load it; got {why}; expected tensors, numbers and text alone. Nothing "
        "of it was run. Convert it where it was made: torch.save(model.state_dict(), 'model.pt'), or "
        "torch.save({'images': images.cpu(), 'labels': labels.cpu()}, 'set.pt')."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- distilled sets ---------------------------------------------------------------------------------------------------


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
) -> DistilledSet:
    """A distilled set.

    Args:
        path: Of the images: a tensor; or with their labels, by a usual name or as a pair; or a list of such sets.
        dataset: What the set stands for.
        classes: Its own label numbers, ascending.
        space: What its numbers are.
        mean: Per channel, with which images were normalised; None in pixel space.
        std: Likewise.
        factor: Each image holds factor^2 training images (IDC); 1: it is one.
        labels: File of the labels, or ``class-major``: equally many images of each class, class after class.
        nth: Which set, counted from 0, where the file holds several (DC's files hold one for each experiment).

    Raises:
        ValueError: The file cannot be read or does not hold such a set.
    """
    where = str(path)
    images, found = _pick(read(path), nth, where)
    if isinstance(labels, Path):
        found = _labels_file(labels)
    elif labels == "class-major":
        found = _class_major(images, classes, where)
    if found is None:
        raise ValueError(
            f"{where}: no labels; got images alone; expected labels beside them. Give --labels FILE, or --labels "
            "class-major when the images of a class follow each other, class after class."
        )
    images = _checked_images(images, dataset, where)
    if space == "normalised":
        assert mean is not None
        assert std is not None
        images = denormalise(images, mean, std)
    elif float(images.abs().max()) > LARGEST_PIXEL:
        raise ValueError(
            f"{where}: images are not in pixel space; got values from {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}; expected about 0 to 1 for space pixel01. Divide bytes by 255, or give --space "
            "normalised with the normalisation."
        )
    positions = _positions(found, len(images), classes, where)
    counts = torch.bincount(positions, minlength=len(classes))
    if int(counts.min()) != int(counts.max()):
        raise ValueError(
            f"{where}: classes hold different numbers of images; got {int(counts.min())} to {int(counts.max())}; "
            "expected equally many of each class. Evaluate a balanced set."
        )
    order = torch.sort(positions, stable=True).indices
    facts: dict[str, Any] = {
        "space": "pixel01", "mean": list(dataset.mean), "std": list(dataset.std), "zca": False, "factor": factor,
        "label_kind": "hard", "iterations": None, "init": None,
    }  # fmt: skip
    return DistilledSet(images[order].contiguous(), positions[order], torch.full_like(positions, -1), facts)


def _pick(content: Any, nth: int | None, where: str) -> tuple[Tensor, Tensor | None]:
    """Images and labels in whatever a file holds."""
    if isinstance(content, Mapping):
        several = content.get("data")
        if isinstance(several, list | tuple) and several and not _is_pair(several):
            content = several
        else:
            images = next((content[name] for name in IMAGES if isinstance(content.get(name), Tensor)), None)
            found = next((content[name] for name in LABELS if isinstance(content.get(name), Tensor)), None)
            if images is None and isinstance(several, list | tuple) and _is_pair(several):
                images, found = several
            if images is None:
                names = ", ".join(map(str, list(content)[:_SHOWN])) or "nothing"
                raise ValueError(
                    f"{where}: no images; got {names}; expected a tensor called one of {', '.join(IMAGES)}. Rename it."
                )
            return images, found
    if isinstance(content, Tensor):
        return content, None
    if isinstance(content, list | tuple):
        if _is_pair(content):
            return content[0], content[1]
        if content and all(isinstance(each, list | tuple) and _is_pair(each) for each in content):
            if nth is None and len(content) > 1:
                raise ValueError(
                    f"{where}: holds several sets; got {len(content)}; expected to know which. Give --nth 0 to "
                    f"{len(content) - 1}."
                )
            if (nth or 0) >= len(content):
                raise ValueError(
                    f"{where}: has no set number {nth}; got {len(content)} sets. Give --nth below {len(content)}."
                )
            return content[nth or 0][0], content[nth or 0][1]
    raise ValueError(
        f"{where}: not a distilled set; got {_shape(content)}; expected images (N, C, H, W) with labels (N,), as a "
        "dictionary, a pair, or a list of pairs. Write it as {'images': ..., 'labels': ...}."
    )


def _is_pair(content: Sequence[Any]) -> bool:
    return len(content) == 2 and all(isinstance(each, Tensor) for each in content)


def _shape(content: Any) -> str:
    if isinstance(content, Tensor):
        return f"a tensor {tuple(content.shape)}"
    return f"a {type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else type(content).__name__


def _labels_file(path: Path) -> Tensor:
    content = read(path)
    if isinstance(content, Mapping):
        tensors = [value for name, value in content.items() if name in LABELS or len(content) == 1]
        content = tensors[0] if len(tensors) == 1 else content
    if not isinstance(content, Tensor):
        raise ValueError(
            f"{path}: no labels; got {_shape(content)}; expected a tensor, alone or called one of {', '.join(LABELS)}."
        )
    return content


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
    _finite({"images": images}, where)
    return images.detach().float()


def _positions(labels: Tensor, count: int, classes: tuple[int, ...], where: str) -> Tensor:
    """Hard labels as positions in ``classes``; rows that are one-hot count as hard."""
    if labels.ndim == 2 and labels.shape == (count, len(classes)):
        hot = ((labels == 1).sum(1) == 1) & ((labels != 0).sum(1) == 1)
        if not bool(hot.all()):
            raise ValueError(
                f"{where}: labels are soft; got {int((~hot).sum())} of {count} rows that are not one-hot; expected one "
                "class for each image. Only hard labels can be trained on."
            )
        return labels.argmax(1)
    whole = not labels.is_floating_point() or bool((labels == labels.round()).all())
    if labels.shape != (count,) or not whole:
        raise ValueError(
            f"{where}: labels do not fit the images; got {labels.dtype} {tuple(labels.shape)}; expected ({count},) "
            "whole numbers. Give the file that belongs to them with --labels."
        )
    numbers = labels.to(torch.int64)
    strange = sorted(set(numbers.tolist()) - set(classes))
    absent = sorted(set(classes) - set(numbers.tolist()))
    if strange or absent:
        raise ValueError(
            f"{where}: classes of the set are not those that are evaluated; got "
            f"{_listed('unknown', strange)}{' and ' if strange and absent else ''}{_listed('none of', absent)}; "
            f"expected every class of {list(classes)[:_SHOWN]}{' ...' if len(classes) > _SHOWN else ''}, by the data "
            "set's own numbers. Give --classes."
        )
    return torch.searchsorted(torch.tensor(classes), numbers)


def _listed(what: str, numbers: list[int]) -> str:
    if not numbers:
        return ""
    return f"{what} {', '.join(map(str, numbers[:_SHOWN]))}{' ...' if len(numbers) > _SHOWN else ''}"


# --- networks ---------------------------------------------------------------------------------------------------------


def read_state(path: Path, network: NetworkConfig) -> dict[str, Tensor]:
    """A network's parameters under our names, of our shapes.

    The published ConvNet's names (``features.N.*``, ``classifier.*``; DC networks.py) are ours. Of ResNet18,
    torchvision's and the DC family's are translated. A prefix ``module.`` and an outer dictionary are taken off.

    Args:
        path: The file.
        network: What it is said to be.

    Raises:
        ValueError: The file cannot be read, or holds another network.
    """
    where = str(path)
    content = read(path)
    if isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = [content[name] for name in STATES if isinstance(content.get(name), Mapping)]
        content = inner[0] if len(inner) == 1 else content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"{where}: not a state dict; got {_shape(content)}; expected parameters by name. Write it with "
            "torch.save(model.state_dict(), ...)."
        )
    given = {_our_name(str(name), network.architecture): value.detach() for name, value in content.items()}
    wanted = build(network, "external").state_dict()
    for name in wanted:  # of batch norm; counts batches, which nothing reads, and old files lack it
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, wanted[name])
    _check_names(given, wanted, network, where)
    _finite(given, where)
    return {name: given[name].to(wanted[name].dtype).contiguous() for name in wanted}


def _our_name(name: str, architecture: str) -> str:
    name = name.removeprefix("module.")
    for pattern, ours in _RENAMED.get(architecture, ()):
        name = re.sub(pattern, ours, name)
    return name


def _check_names(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: NetworkConfig, where: str) -> None:
    lacking = [name for name in wanted if name not in given]
    strange = [name for name in given if name not in wanted]
    other = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    found = [
        f"{what} {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
        for what, names in (("no", lacking), ("unknown", strange), ("shapes", other))
        if names
    ]
    if found:
        name = parsed(network).name
        raise ValueError(
            f"{where}: parameters are not those of {name} for images of {network.image_size} pixels, "
            f"{network.channels} channels and {network.num_classes} classes; got {'; '.join(found)}; expected "
            f"{len(wanted)} tensors from {next(iter(wanted))} to {list(wanted)[-1]}.{_guess(given, network)}"
        )


def _guess(given: Mapping[str, Tensor], network: NetworkConfig) -> str:
    """Which ConvNet a file seems to hold, in words; what is evaluated is what the user says."""
    kernels = [value for name, value in given.items() if name.startswith("features.") and value.ndim == 4]
    if network.architecture != "convnet3" or not kernels:
        return " Check --architecture and --dataset."
    return (
        f" The file has {len(kernels)} convolutions with {len(kernels[0])} filters: try --architecture "
        f"convnet3-d{len(kernels)}-w{len(kernels[0])}, without what is the default."
    )


def _finite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise ValueError(
                f"{where}: {name} holds numbers that are not finite; got {count} of {value.numel()}; expected none. "
                "The training that made it diverged."
            )


def trained_model(
    state: dict[str, Tensor],
    network: NetworkConfig,
    dataset: DatasetConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    members: OriginConfig | None,
    classes: tuple[int, ...],
    context: Context,
) -> TrainedModel:
    """The payload of a network trained elsewhere: what it says of all test images, and of its members if they are
    known (split ``origin``).

    Args:
        state: From ``read_state``.
        network: Its description.
        dataset: What it tells apart.
        mean: Per channel, of images in [0, 1]: what it expects its input to be normalised with.
        std: Likewise.
        members: Training images that it was trained on.
        classes: The data set's own label numbers, ascending: its outputs.
        context: Device, places.
    """
    built = build(network, "external", device=context.device)
    built.load_state_dict(state)
    built.eval()
    asked = dataset.model_copy(update={"mean": mean, "std": std})
    test = load_test(asked, classes, context.data, context.cache, context.device)
    signals = {"test": Signals(predict(built, test.images).cpu(), test.labels.cpu(), test.ids.cpu())}
    if members is not None:
        images = AskedImages(asked, members, SignalsConfig(), context.data, context.cache, context.device)
        signals["origin"] = _asked(built, images, context)
    facts = {"num_parameters": num_parameters(built)}
    return TrainedModel(state, network, mean, std, signals, facts)


def _asked(network: Any, images: AskedImages, context: Context) -> Signals:
    parts = []
    for split, part in images:
        assert split == "origin", split
        context.poll()
        parts.append((predict(network, part.images).cpu(), part.labels.cpu(), part.ids.cpu()))
    return Signals(*(torch.cat(each) for each in zip(*parts, strict=True)))


# --- members ----------------------------------------------------------------------------------------------------------


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
                f'{{"kind": "draw", "per_class": 40, "draw": 0}}: {_first_line(error)}.'
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
            raise ValueError(f"{path}: cannot be read; got {_first_line(error)}; expected whole numbers.") from error
    else:
        found = read(path)
        if isinstance(found, Mapping) and len(found) == 1:
            found = next(iter(found.values()))
        if isinstance(found, Tensor):
            found = found.flatten().tolist() if not found.is_floating_point() and found.dtype != torch.bool else None
    if isinstance(found, Mapping) or (isinstance(found, list) and all(type(each) is int for each in found)):
        return found
    raise ValueError(f"{path}: no indices; got {_shape(found)}; expected whole numbers, or a mapping of an origin.")
