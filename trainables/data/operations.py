"""The names of the augmentations' operations, and how sweep files write a list of them. No torch: settings read this.

What the operations do is in ``augment.py``.
"""

from __future__ import annotations

from typing import Literal, get_args

Operation = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

PATTERN = f"^({'|'.join(OPERATIONS)})(_({'|'.join(OPERATIONS)}))*$"
"""What ``parse_operations`` reads, as an editor checks it (which does not see that a name stands twice)."""


def parse_operations(text: str) -> tuple[Operation, ...]:
    """The operations of a text such as ``color_crop_cutout``, in its order.

    Raises:
        ValueError: A name is unknown or stands there twice.
    """
    names = text.split("_")
    known: dict[str, Operation] = {name: name for name in OPERATIONS}
    expected = f"expected some of {', '.join(OPERATIONS)}, joined by underscores. Correct the name"
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown operation {unknown[0]!r}; got {text!r}; {expected}")
    if len(set(names)) < len(names):
        raise ValueError(f"an operation stands twice; got {text!r}; expected each once. Leave one out")
    return tuple(known[name] for name in names)
