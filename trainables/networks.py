"""Networks by name: ``resnet18``, or with options ``resnet18-w32-instance``. No torch: planning reads this.

A name is a base and, in this order, what differs from the published network: depth (``d4``), width (``w32``), norm.
An option that says what holds anyway is left out, so every network has one name. The modules are in ``models/``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from trainables.configs import Architecture, NetworkConfig, Norm

BASES: tuple[Architecture, ...] = get_args(Architecture)
NORMS: tuple[Norm, ...] = get_args(Norm)
GROUPS = 4
"""Of the norm ``group`` (DC networks.py)."""
MAX_WIDTH = 4096
"""Filters of the first block, at most: a slip of the keyboard should not reach a worker."""


@dataclass(frozen=True, slots=True)
class Published:
    """A network as its authors describe it, and what may be changed."""

    width: int
    depth: int
    norm: Norm
    depths: tuple[int, ...]
    norms: tuple[Norm, ...]


# ConvNet3: DC networks.py and its default options. The other two: methods.md sections 7.2, 7.3. Layer norm ties its
# parameters to the size of each map, for which these two have no published form; without any normalisation the
# residual sums of ResNet18 grow from block to block.
PUBLISHED: dict[Architecture, Published] = {
    "convnet3": Published(128, 3, "instance", (1, 2, 3, 4, 5, 6), NORMS),
    "resnet18": Published(64, 18, "batch", (18,), ("instance", "batch", "group")),
    "vgg16": Published(64, 16, "batch", (16,), ("instance", "batch", "group", "none")),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a name says, defaults filled in."""

    base: Architecture
    depth: int
    width: int
    norm: Norm

    @property
    def name(self) -> str:
        """The one spelling: options in order, those that equal the default left out."""
        usual = PUBLISHED[self.base]
        options = (
            f"-d{self.depth}" if self.depth != usual.depth else "",
            f"-w{self.width}" if self.width != usual.width else "",
            f"-{self.norm}" if self.norm != usual.norm else "",
        )
        return self.base + "".join(options)

    @property
    def relative_width(self) -> float:
        """Width in units of the published one."""
        return self.width / PUBLISHED[self.base].width


@functools.cache
def parse(name: str) -> Parsed:
    """What an architecture's name says.

    Args:
        name: A base, then depth, width and norm where they differ from the base's own, separated by hyphens.

    Raises:
        ValueError: The base or an option is unknown, a value is not possible, or the name is not the network's one
            spelling. The message names the nearest name that is.
    """
    first, *rest = name.split("-")
    if first not in BASES:
        raise ValueError(
            f"unknown architecture {name[:80]!r}; known: {', '.join(BASES)}, each also with options such as "
            f"resnet18-w32-instance.{_suggest(name)}"
        )
    base = next(known for known in BASES if known == first)
    usual = PUBLISHED[base]
    found: dict[str, int | Norm] = {}
    for option in rest:
        read = _option(option)
        if read is None:
            raise ValueError(
                f"unknown option {option[:80]!r} of architecture {name[:80]!r}; expected a depth (d4), a width (w32) "
                f"or a norm ({', '.join(usual.norms)}), in this order.{_suggest(name)}"
            )
        kind, value = read
        if kind in found:
            raise ValueError(f"architecture {name[:80]!r} has two options for the {kind}; expected one. Remove one.")
        found[kind] = value
    network = _with(base, found)
    reason = option_problem(network)
    if reason is not None:
        raise ValueError(f"architecture {name[:80]!r} cannot be: {reason}")
    if network.name != name:
        raise ValueError(
            f"{name[:80]!r} is not how this architecture is written; expected {network.name!r} (depth, width, norm, "
            f"without what {base} has anyway). Write {network.name!r}."
        )
    return network


def parsed(network: NetworkConfig) -> Parsed:
    """What the name of a described network would say; its ``name`` is that name where the options are possible."""
    return Parsed(network.architecture, network.depth, network.width, network.norm)


def option_problem(network: Parsed) -> str | None:
    """Why depth, width and norm cannot go together, whatever the images, or None."""
    usual = PUBLISHED[network.base]
    if network.depth not in usual.depths:
        wanted = f"{usual.depths[0]} to {usual.depths[-1]}" if len(usual.depths) > 1 else str(usual.depth)
        return f"{network.base} has no depth {network.depth}; expected {wanted}. Change the depth or leave it out."
    if not 1 <= network.width <= MAX_WIDTH:
        return f"width {network.width} is out of range; expected 1 to {MAX_WIDTH}. Change the width."
    if network.norm not in usual.norms:
        return (
            f"{network.base} has no norm {network.norm!r}; expected one of {', '.join(usual.norms)}. Change the norm."
        )
    if network.norm == "group" and network.width % GROUPS:
        return (
            f"group norm has {GROUPS} groups; got width {network.width}; expected a multiple of {GROUPS}. "
            "Change the width."
        )
    return None


def size_limits(network: Parsed) -> tuple[int, int]:
    """Smallest and largest images that a network takes, pixels.

    ConvNet of depth d halves d times; above 64 pixels and above 2^(d + 3) the authors use a deeper one. ResNet18
    halves three times, rounding up; instance norm needs more than one pixel in its last maps, or every image looks the
    same. VGG16 halves five times after ``padding`` has made images of 28 pixels 32.
    """
    match network.base:
        case "convnet3":
            return 2**network.depth, min(256, max(64, 2 ** (network.depth + 3)))
        case "resnet18":
            return (9 if network.norm == "instance" else 8), 256
        case "vgg16":
            return 28, 256


def size_problem(network: Parsed, image_size: int, channels: int) -> str | None:
    """Why a network cannot take images, or None.

    Args:
        network: What is to be built.
        image_size: Height = width, pixels.
        channels: 1 or 3.
    """
    smallest, largest = size_limits(network)
    if smallest <= image_size + 2 * (padding(network.base, image_size, channels) - 1) and image_size <= largest:
        return None
    return f"{network.name} takes images of {smallest} to {largest} pixels"


def padding(base: Architecture, image_size: int, channels: int) -> int:
    """Padding of the first convolution: 3 where 28 pixels have to become 32, else 1.

    ConvNet: as the authors, for one-channel images of 28 pixels. VGG16: for 28 to 31 pixels, which five halvings would
    leave without a pixel. ResNet18 takes them as they are.
    """
    if base == "convnet3":
        return 3 if (image_size, channels) == (28, 1) else 1
    return 3 if base == "vgg16" and 28 <= image_size < 32 else 1


def network_of(name: str, *, image_size: int, channels: Literal[1, 3], num_classes: int) -> NetworkConfig:
    """The complete description of the network that a name stands for.

    Args:
        name: As for ``parse``.
        image_size: Height = width of the images, pixels.
        channels: Colour channels of the images.
        num_classes: Classes to tell apart.

    Raises:
        ValueError: ``name`` is not a network's name.
    """
    parsed = parse(name)
    return NetworkConfig(
        architecture=parsed.base,
        norm=parsed.norm,
        width=parsed.width,
        depth=parsed.depth,
        image_size=image_size,
        channels=channels,
        num_classes=num_classes,
    )


def default_network(
    architecture: Architecture,
    *,
    image_size: int,
    channels: Literal[1, 3],
    num_classes: int,
    width: int | None = None,
    norm: Norm | None = None,
    depth: int | None = None,
) -> NetworkConfig:
    """The complete description of ``architecture`` for images of a data set, as methods' settings give it.

    Args:
        architecture: The network's name without options.
        image_size: Height = width of the images, pixels.
        channels: Colour channels of the images.
        num_classes: Classes to tell apart.
        width: Filters of the first block; None for the published 128 (ConvNet3) or 64.
        norm: Normalisation; None for instance (ConvNet3) or batch.
        depth: Blocks of ConvNet3; None for 3.

    Differs from the authors' code: 64-pixel images keep depth 3 unless a depth is given (DC and MTT use 4 there),
    because the architecture is called ConvNet3.
    """
    usual = PUBLISHED[architecture]
    return NetworkConfig(
        architecture=architecture,
        norm=norm or usual.norm,
        width=width or usual.width,
        depth=depth or usual.depth,
        image_size=image_size,
        channels=channels,
        num_classes=num_classes,
    )


def name_pattern() -> str:
    """A regular expression of all names, for editors; ``parse`` alone knows which widths group norm takes."""
    return f"^({'|'.join(_patterns())})$"


def _patterns() -> Iterator[str]:
    for base, usual in PUBLISHED.items():
        depths = [str(depth) for depth in usual.depths if depth != usual.depth]
        norms = [norm for norm in usual.norms if norm != usual.norm]
        depth = f"(-d({'|'.join(depths)}))?" if depths else ""
        yield f"{base}{depth}(-w(?!{usual.width}(-|$))[1-9][0-9]{{0,3}})?(-({'|'.join(norms)}))?"


def _with(base: Architecture, options: dict[str, int | Norm]) -> Parsed:
    usual = PUBLISHED[base]
    return dataclasses.replace(Parsed(base, usual.depth, usual.width, usual.norm), **options)  # type: ignore[arg-type]


def _option(text: str) -> tuple[str, int | Norm] | None:
    """Which option a part of a name is, and its value; None when it is none."""
    if numbered := re.fullmatch(r"([dw])([0-9]{1,9})", text):
        return {"d": "depth", "w": "width"}[numbered[1]], int(numbered[2])
    return next((("norm", norm) for norm in NORMS if norm == text), None)


def _suggest(name: str) -> str:
    """`` Did you mean 'x'?`` for the name nearest to ``name``, part by part; empty when none is near."""
    first, *rest = name[:80].casefold().replace("_", "-").split("-")
    near = difflib.get_close_matches(first, BASES, n=1)
    if not near:
        return ""
    base = next(known for known in BASES if known == near[0])
    usual = PUBLISHED[base]
    found: dict[str, int | Norm] = {}
    for part in rest:
        part = re.sub(r"^(d|w)[a-z]*([0-9]+)$", r"\1\2", part)
        closest = difflib.get_close_matches(part, usual.norms, n=1)
        read = _option(closest[0] if closest else part)
        if read is not None:
            found[read[0]] = read[1]
    guess = _with(base, found)
    return f" Did you mean {guess.name!r}?" if option_problem(guess) is None else f" Did you mean {base!r}?"
