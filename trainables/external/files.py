"""What a file holds, whatever kind it is, and what the checks of its content have in common."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LABELS = ("labels", "targets", "label_syn", "y")
"""Names under which others keep labels, beside images and alone."""
SHOWN = 6
"""Of names or numbers in a message; the rest is left out."""


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
        raise ValueError(f"{path}: cannot be read; got {first_line(error)}. Write the file again.") from error
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):
            raise ValueError(f"{path}: cannot be read; got {first_line(error)}. Write the file again.") from error
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
        raise ValueError(f"{path}: cannot be read; got {first_line(error)}. Write the file again.") from error


def _tensors(archive: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(archive[name]) for name in archive}


def _needs_code(path: Path, why: str) -> str:
    return (
        f"{path}: would need code to be run to load it; got {why}; expected tensors, numbers and text alone. Nothing "
        "of it was run. Convert it where it was made: torch.save(model.state_dict(), 'model.pt'), or "
        "torch.save({'images': images.cpu(), 'labels': labels.cpu()}, 'set.pt')."
    )


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def shape_of(content: Any) -> str:
    if isinstance(content, Tensor):
        return f"a tensor {tuple(content.shape)}"
    return f"a {type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else type(content).__name__


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise ValueError(
                f"{where}: {name} holds numbers that are not finite; got {count} of {value.numel()}; expected none. "
                "The training that made it diverged."
            )
