"""Networks by name: ``resnet18``, or with options ``resnet18-w32-instance``. No torch: planning reads this.

A name is a base and, in this order, what differs from the published network: depth (``d4``), width (``w32``), norm.
An option that says what holds anyway is left out, so every network has one name. The modules are in ``models/``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

Norm = Literal["instance", "batch", "layer", "group", "none"]

NORMS: tuple[Norm, ...] = get_args(Norm)
GROUPS = 4
"""Of the norm ``group`` (DC networks.py)."""
MAX_WIDTH = 4096
"""Filters of the first block, at most: a slip of the keyboard should not reach a worker."""
LARGEST = 256
"""Height = width of images that any network takes, pixels."""


@dataclass(frozen=True, slots=True)
class Activations:
    """MiB of a card's memory that a network takes beside its weights, for each image of 32 pixels in single precision.
    ``python -m benchmarks.footprints`` measures them without a card."""

    forward: float
    """Without a gradient: the two largest maps that follow each other."""
    graph: float
    """Kept for a gradient, and what it needs itself."""
    double: float
    """Kept where the gradient is differentiated again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network as its authors describe it, what may be changed, and what it costs."""

    module: str
    """``module:class`` of the computation; imported when a network is built."""
    width: int
    """Filters of the first block."""
    depth: int
    """Blocks, or the layers in the name."""
    norm: Norm
    depths: tuple[int, ...]
    """That can be built."""
    norms: tuple[Norm, ...]
    forward: float
    """Forward cost of an image of 32 pixels, in units of ConvNet3's."""
    held: Activations
    """Of its published width."""
    file_bytes: int
    """Of a trained network's file, at most (100 classes)."""
    sizes: Callable[[int, Norm], tuple[int, int]]
    """(depth, norm) -> smallest and largest images, pixels, before ``padding``."""
    padding: Callable[[int, int], int] = lambda image_size, channels: 1
    """(image size, channels) -> padding of the first convolution."""


def _convnet_sizes(depth: int, norm: Norm) -> tuple[int, int]:
    """ConvNet of depth d halves d times; above 64 pixels and above 2^(d + 3) the authors use a deeper one."""
    return 2**depth, min(LARGEST, max(64, 2 ** (depth + 3)))


def _convnet_padding(image_size: int, channels: int) -> int:
    """3 for one-channel images of 28 pixels, as the authors: it makes them 32."""
    return 3 if (image_size, channels) == (28, 1) else 1


def _resnet_sizes(depth: int, norm: Norm) -> tuple[int, int]:
    """ResNet18 halves three times, rounding up; instance norm needs more than one pixel in its last maps, or every
    image looks the same."""
    return (9 if norm == "instance" else 8), LARGEST


def _vgg_sizes(depth: int, norm: Norm) -> tuple[int, int]:
    """VGG16 halves five times, after its padding has made images of 28 pixels 32."""
    return 28, LARGEST


def _vgg_padding(image_size: int, channels: int) -> int:
    """3 for 28 to 31 pixels, which five halvings would leave without a pixel."""
    return 3 if 28 <= image_size < 32 else 1


NETWORKS: dict[Architecture, NetworkSpec] = {
    # DC networks.py and its default options.
    "convnet3": NetworkSpec(
        module="trainables.models.convnet:ConvNet",
        width=128,
        depth=3,
        norm="instance",
        depths=(1, 2, 3, 4, 5, 6),
        norms=NORMS,
        forward=1.0,
        held=Activations(forward=1.05, graph=2.1, double=5.3),
        file_bytes=2 * 2**20,
        sizes=_convnet_sizes,
        padding=_convnet_padding,
    ),
    # methods.md sections 7.2, 7.3. Layer norm ties its parameters to the size of each map, for which these two have no
    # published form; without any normalisation the residual sums of ResNet18 grow from block to block.
    "resnet18": NetworkSpec(
        module="trainables.models.resnet:ResNet18",
        width=64,
        depth=18,
        norm="batch",
        depths=(18,),
        norms=("instance", "batch", "group"),
        forward=11.0,
        held=Activations(forward=1.05, graph=4.7, double=23.0),
        file_bytes=45 * 2**20,
        sizes=_resnet_sizes,
    ),
    "vgg16": NetworkSpec(
        module="trainables.models.vgg:VGG16",
        width=64,
        depth=16,
        norm="batch",
        depths=(16,),
        norms=("instance", "batch", "group", "none"),
        forward=6.2,
        held=Activations(forward=0.55, graph=2.7, double=13.5),
        file_bytes=59 * 2**20,
        sizes=_vgg_sizes,
        padding=_vgg_padding,
    ),
}
"""By name. A further network is its record here, and its module."""

# A type checker cannot read a Literal that is made of a table's keys; pydantic can, and refuses other names.
if TYPE_CHECKING:
    Architecture = str
else:
    Architecture = Literal[tuple(NETWORKS)]


@dataclass(frozen=True, slots=True)
class Variant:
    """A network with its options: what a name says, defaults filled in."""

    base: Architecture
    depth: int
    width: int
    norm: Norm

    @property
    def spec(self) -> NetworkSpec:
        """The network as published."""
        return NETWORKS[self.base]

    @property
    def name(self) -> str:
        """The one spelling: options in order, those that equal the default left out."""
        options = (
            f"-d{self.depth}" if self.depth != self.spec.depth else "",
            f"-w{self.width}" if self.width != self.spec.width else "",
            f"-{self.norm}" if self.norm != self.spec.norm else "",
        )
        return self.base + "".join(options)

    @property
    def relative_width(self) -> float:
        """Width in units of the published one."""
        return self.width / self.spec.width

    @property
    def file_bytes(self) -> int:
        """Of a trained network's file, at most."""
        return round(self.spec.file_bytes * self.relative_width**2)

    def activations(self, image_size: int) -> Activations:
        """MiB for each image: maps grow with the image's area and with the width."""
        scale, held = self.relative_width * (image_size / 32) ** 2, self.spec.held
        return Activations(scale * held.forward, scale * held.graph, scale * held.double)

    def forward_gflop(self, image_size: int, channels: int) -> float:
        """Multiply-adds times two of one image's forward pass, in GFLOP; an estimate for all but ConvNet3."""
        return _forward_gflop(self, image_size, channels)

    def padding(self, image_size: int, channels: int) -> int:
        """Padding of the first convolution: 3 where 28 pixels have to become 32, else 1."""
        return self.spec.padding(image_size, channels)


def variant_of(
    base: Architecture, *, depth: int | None = None, width: int | None = None, norm: Norm | None = None
) -> Variant:
    """A network with some options given; None takes the published value.

    Differs from the authors' code: 64-pixel images keep depth 3 of ConvNet3 unless a depth is given (DC and MTT use 4
    there), because the architecture is called ConvNet3.
    """
    spec = NETWORKS[base]
    return Variant(base, depth or spec.depth, width or spec.width, norm or spec.norm)


@functools.cache
def _forward_gflop(network: Variant, image_size: int, channels: int) -> float:
    return convnet3_gflop(image_size, channels) * network.spec.forward * network.relative_width**2


def convnet3_gflop(image_size: int, channels: int, width: int = 128) -> float:
    """Multiply-adds times two of one image's forward pass through ConvNet3, in GFLOP."""
    total, side, inputs = 0.0, image_size, channels
    for _ in range(3):
        total += 2 * 9 * inputs * width * side * side
        side, inputs = max(1, side // 2), width
    return total / 1e9


@functools.cache
def parse(name: str) -> Variant:
    """What an architecture's name says.

    Args:
        name: A base, then depth, width and norm where they differ from the base's own, separated by hyphens.

    Raises:
        ValueError: The base or an option is unknown, a value is not possible, or the name is not the network's one
            spelling. The message names the nearest name that is.
    """
    first, *rest = name.split("-")
    if first not in NETWORKS:
        raise ValueError(
            f"unknown architecture {name[:80]!r}; known: {', '.join(NETWORKS)}, each also with options such as "
            f"resnet18-w32-instance.{_suggest(name)}"
        )
    base = next(known for known in NETWORKS if known == first)
    usual = NETWORKS[base]
    options: dict[str, int | Norm] = {}
    for option in rest:
        read = _option(option)
        if read is None:
            raise ValueError(
                f"unknown option {option[:80]!r} of architecture {name[:80]!r}; expected a depth (d4), a width (w32) "
                f"or a norm ({', '.join(usual.norms)}), in this order.{_suggest(name)}"
            )
        kind, value = read
        if kind in options:
            raise ValueError(f"architecture {name[:80]!r} has two options for the {kind}; expected one. Remove one.")
        options[kind] = value
    network = _with(base, options)
    reason = option_problem(network)
    if reason is not None:
        raise ValueError(f"architecture {name[:80]!r} cannot be: {reason}")
    if network.name != name:
        raise ValueError(
            f"{name[:80]!r} is not how this architecture is written; expected {network.name!r} (depth, width, norm, "
            f"without what {base} has anyway). Write {network.name!r}."
        )
    return network


def option_problem(network: Variant) -> str | None:
    """Why depth, width and norm cannot go together, whatever the images, or None."""
    usual = network.spec
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


def size_limits(network: Variant) -> tuple[int, int]:
    """Smallest and largest images that a network takes, pixels; the smallest before ``padding``."""
    return network.spec.sizes(network.depth, network.norm)


def size_problem(network: Variant, image_size: int, channels: int) -> str | None:
    """Why a network cannot take images, or None.

    Args:
        network: What is to be built.
        image_size: Height = width, pixels.
        channels: 1 or 3.
    """
    smallest, largest = size_limits(network)
    if smallest <= image_size + 2 * (network.padding(image_size, channels) - 1) and image_size <= largest:
        return None
    return f"{network.name} takes images of {smallest} to {largest} pixels"


def name_pattern() -> str:
    """A regular expression of all names, for editors; ``parse`` alone knows which widths group norm takes."""
    return f"^({'|'.join(_patterns())})$"


def _patterns() -> Iterator[str]:
    for base, usual in NETWORKS.items():
        depths = [str(depth) for depth in usual.depths if depth != usual.depth]
        norms = [norm for norm in usual.norms if norm != usual.norm]
        depth = f"(-d({'|'.join(depths)}))?" if depths else ""
        yield f"{base}{depth}(-w(?!{usual.width}(-|$))[1-9][0-9]{{0,3}})?(-({'|'.join(norms)}))?"


def _with(base: Architecture, options: dict[str, int | Norm]) -> Variant:
    return dataclasses.replace(variant_of(base), **options)  # type: ignore[arg-type]


def _option(text: str) -> tuple[str, int | Norm] | None:
    """Which option a part of a name is, and its value; None when it is none."""
    if numbered := re.fullmatch(r"([dw])([0-9]{1,9})", text):
        return {"d": "depth", "w": "width"}[numbered[1]], int(numbered[2])
    return next((("norm", norm) for norm in NORMS if norm == text), None)


def _suggest(name: str) -> str:
    """`` Did you mean 'x'?`` for the name nearest to ``name``, part by part; empty when none is near."""
    first, *rest = name[:80].casefold().replace("_", "-").split("-")
    near = difflib.get_close_matches(first, list(NETWORKS), n=1)
    if not near:
        return ""
    base = next(known for known in NETWORKS if known == near[0])
    usual = NETWORKS[base]
    options: dict[str, int | Norm] = {}
    for part in rest:
        part = re.sub(r"^(d|w)[a-z]*([0-9]+)$", r"\1\2", part)
        closest = difflib.get_close_matches(part, usual.norms, n=1)
        read = _option(closest[0] if closest else part)
        if read is not None:
            options[read[0]] = read[1]
    guess = _with(base, options)
    return f" Did you mean {guess.name!r}?" if option_problem(guess) is None else f" Did you mean {base!r}?"
