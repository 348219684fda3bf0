"""What a file holds, whatever kind it is, and what the checks of its content have in common."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LABELS = ("labels", "label", "targets", "target", "label_syn", "labels_syn", "syn_labels", "y", "y_train")
"""Names under which others keep labels, beside images and alone, in small letters."""
_PLAIN = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
}
_LONGEST_HEADER = 100_000_000
"""Bytes; of safetensors."""
SHOWN = 6
"""Of names or numbers in a message; the rest is left out."""


def read(path: Path) -> Any:
    """What a file holds: a tensor, or tensors in dictionaries and lists, all of them in memory and dense.

    safetensors, npy and npz (without objects), and what ``torch.save`` writes of tensors, numbers and text. Which of
    them it is, its first bytes say, not its name.

    Raises:
        ValueError: No such file, another kind of file, a broken one, one that needs code to be loaded, or one with
            sparse, quantised or complex tensors.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {what}; expected safetensors, npz, or what torch.save writes. Check the path.")
    with path.open("rb") as file:
        head = file.read(9)
    content = _loader(path, head)(path)
    _check_plain(content, path)
    return content


def _loader(path: Path, head: bytes) -> Callable[[Path], Any]:
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                arrays = all(name.endswith(".npy") for name in archive.namelist())
        except Exception as error:
            raise _broken(path, error) from error
        return _numpy if arrays else _torch
    if head.startswith(b"PK"):
        raise ValueError(f"{path}: cannot be read; got an archive without its end. Write or copy the file again.")
    if head.startswith(b"\x93NUMPY"):
        return _numpy
    # A header's length comes first, and may begin as a pickle does; that long no pickle's beginning would be.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return _safetensors
    if head.startswith(b"\x80"):
        return _torch
    if b"\xa4step" in head:
        raise ValueError(
            f"{path}: a checkpoint of Flax (RCIG); got msgpack; expected safetensors, npz, or what torch.save writes. "
            "Its images are whitened in a way of its own: write what its program makes pixels of as {'images': ..., "
            "'labels': ...}, labels as targets."
        )
    raise ValueError(
        f"{path}: not a kind of file that can be read; got {head[:8]!r} as its first bytes; expected safetensors, npz, "
        "or what torch.save writes. Convert it."
    )


# What a broken file makes a parser raise, nobody lists: each of the three turns everything into the one error.


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise _broken(path, error) from error


def _torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(_needs_code(path, f"it names {named[1]}" if named else "a pickle of its own kind")) from None
    except Exception as error:
        if "TorchScript" in str(error):
            raise ValueError(_needs_code(path, "a TorchScript program")) from None
        raise _broken(path, error) from error


def _numpy(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _tensor(loaded)
        with loaded:
            return {name: _tensor(loaded[name]) for name in loaded}
    except Exception as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError(_needs_code(path, "an array of Python objects")) from None
        raise _broken(path, error) from error


def _tensor(array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiubc":
        raise ValueError(f"an array of {array.dtype} where numbers belong")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: cannot be read; got {first_line(error)}. Write the file again.")


def _check_plain(content: Any, path: Path) -> None:
    """Refuse tensors that operations on numbers do not know. A pickle's containers may hold themselves."""
    left: list[tuple[str, Any]] = [("", content)]
    seen = set()
    while left:
        name, value = left.pop()
        if isinstance(value, Tensor):
            if odd := _odd(value):
                raise ValueError(
                    f"{path}: {f'{name} is' if name else 'holds'} a tensor that cannot be taken as it is; got "
                    f"{odd[0]}; expected a dense one of floating-point or whole numbers. {odd[1]}"
                )
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            left.extend((f"{name}.{key}" if name else str(key), each) for key, each in items)


def _odd(tensor: Tensor) -> tuple[str, str] | None:
    """What is unusual about a tensor, and what to do."""
    if tensor.is_quantized:
        return f"a quantised one ({tensor.dtype})", "Write tensor.dequantize()."
    if tensor.layout != torch.strided:
        return f"a sparse one ({tensor.layout})", "Write tensor.to_dense()."
    if tensor.is_complex():
        return f"a complex one ({tensor.dtype})", "Write its real numbers."
    if tensor.device.type != "cpu":
        return f"one without numbers (device {tensor.device})", "Write it from where its numbers are."
    if tensor.dtype not in _PLAIN:
        return f"{tensor.dtype}", "Write tensor.float(), with its scale applied if it has one."
    return None


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
        return f"a tensor {tuple(content.shape)} of {content.dtype}"
    return f"a {type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else type(content).__name__


def joined(value: Any, several: int) -> Tensor | None:
    """A tensor, or what a list of tensors or numbers holds as one.

    Args:
        value: Tensors of one shape are stacked; parts, which have ``several`` dimensions, are put one after another.
        several: Dimensions of a tensor that holds several images or several labels.

    Returns:
        None where it is neither.
    """
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(type(each) in (int, float) for each in value):
        return torch.tensor([float(each) for each in value], dtype=torch.float64)
    if not all(isinstance(each, Tensor) for each in value) or len({each.ndim for each in value}) > 1:
        return None
    if len({each.shape[1:] for each in value}) > 1 or len({each.dtype for each in value}) > 1:
        return None
    if value[0].ndim >= several:
        return torch.cat(tuple(value))
    return torch.stack(tuple(value)) if len({each.shape for each in value}) == 1 else None


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse numbers that are not finite. What is checked is in 32 bits already: larger ones are infinite there."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise ValueError(
                f"{where}: {name} holds numbers that are not finite; got {count} of {value.numel()}; expected what 32 "
                "bits can hold. The training that made it diverged."
            )
