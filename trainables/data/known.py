"""The data sets ddray knows by name, and draws of their classes. No torch, so that planning can use them.

Means and deviations are of images scaled to [0, 1]; tests recompute what they can from the data. CIFAR-10's
deviations are the widely copied means of per-image deviations (the pixel deviations are about 0.247/0.243/0.262);
they are kept because every published result uses them. Fashion-MNIST's mean is the published 0.2861; the data's is
0.28604.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How a data set with groups is made of another (``groups.py``)."""

    of: str
    """The other's name."""
    look: Literal["grey", "ink", "paper", "shape", "ground"]
    """Photographs grey or coloured; or in one of ten colours the strokes of digits or what is around them, cut at half
    of the range, the shapes of images or what is around them, as strong as they are."""
    groups: int
    train_share: float = 0.9
    """Of a class's training images, those of its own group."""
    test_share: float
    """The same of test images: as many of every group."""


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """Constants of one data set."""

    num_classes: int
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_per_class: int
    """Training images in the smallest class."""
    test_per_class: int
    """Test images in the smallest class."""
    flip: bool = True
    """Whether mirrored images keep their meaning."""
    label_column: str = "label"
    digest: str | None = None
    """Content digest of the decoded, canonically ordered splits where we have seen the data; else None."""
    source: str = ""
    made: Rendering | None = None
    """Of a data set with groups: how it is made of another."""


def _coloured(of: str, look: Literal["ink", "paper", "shape", "ground"]) -> KnownDataset:
    """One that is made of grey images in ten colours, at the constants of FairDD's code."""
    size, train, test, flip = {
        "digits": (8, 124, 50, False),
        "mnist": (32, 5421, 892, False),
        "fashion_mnist": (32, 6000, 1000, True),
    }[of]
    return KnownDataset(
        num_classes=10,
        image_size=size,
        channels=3,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        train_per_class=train,
        test_per_class=test,
        flip=flip,
        source=f"made of {of} in ten colours; constants as in FairDD's code",
        made=Rendering(of=of, look=look, groups=10, test_share=0.1),
    )


KNOWN: dict[str, KnownDataset] = {
    "digits": KnownDataset(
        num_classes=10,
        image_size=8,
        channels=1,
        mean=(0.3054,),
        std=(0.3759,),
        train_per_class=124,
        test_per_class=50,
        flip=False,
        digest="sha256:ea0856ad49b235cb46b00909c7ae77c6cf79104adc8b2ca95ba6f0ace61db12d",
        source="scikit-learn's digits (the UCI set's test part), 0..16 scaled to bytes; split and constants are ours",
    ),
    "cifar10": KnownDataset(
        num_classes=10,
        image_size=32,
        channels=3,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        train_per_class=5000,
        test_per_class=1000,
        digest="sha256:28b1472a63c5bfcb12afac186d32126b8b0498d30e5edc5375d9ce08cc2c5ce2",
        source="Krizhevsky 2009; constants as in the DC, MTT, IDC code",
    ),
    "cifar100": KnownDataset(
        num_classes=100,
        image_size=32,
        channels=3,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        train_per_class=500,
        test_per_class=100,
        label_column="fine_label",
        source="Krizhevsky 2009; constants as in the DC code (MTT and IDC use CIFAR-10's: published.py)",
    ),
    "mnist": KnownDataset(
        num_classes=10,
        image_size=28,
        channels=1,
        mean=(0.1307,),
        std=(0.3081,),
        train_per_class=5421,
        test_per_class=892,
        flip=False,
        source="LeCun et al.; constants as in the DC code",
    ),
    "fashion_mnist": KnownDataset(
        num_classes=10,
        image_size=28,
        channels=1,
        mean=(0.2861,),
        std=(0.3530,),
        train_per_class=6000,
        test_per_class=1000,
        digest="sha256:ed6b3d65b85b97524f7dccf5b292d624c5b04c13b55f2be5ec2fbfc24e529f7d",
        source="Xiao et al. 2017; constants as in the DC code",
    ),
    "svhn": KnownDataset(
        num_classes=10,
        image_size=32,
        channels=3,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        train_per_class=4659,
        test_per_class=1595,
        flip=False,
        source="Netzer et al. 2011, train and test splits (no extra); constants as in the DC code",
    ),
    "tiny_imagenet": KnownDataset(
        num_classes=200,
        image_size=64,
        channels=3,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        train_per_class=500,
        test_per_class=50,
        source="CS231n; constants as in the DC and MTT code",
    ),
    "cifar10_s": KnownDataset(
        num_classes=10,
        image_size=32,
        channels=3,
        mean=(0.48905, 0.48451, 0.46715),
        std=(0.24278, 0.24082, 0.25098),
        train_per_class=5000,
        test_per_class=1000,
        digest="sha256:d4748bac269c0353406c980c0b6d54dc3f9184df8d3181fd02618b74438cfad2",
        source="made of cifar10: grey and coloured; constants as in FairDD's code",
        made=Rendering(of="cifar10", look="grey", groups=2, test_share=0.5),
    ),
    "cmnist_fg": _coloured("mnist", "ink"),
    "cmnist_bg": _coloured("mnist", "paper"),
    "cfmnist_fg": _coloured("fashion_mnist", "shape"),
    "cfmnist_bg": _coloured("fashion_mnist", "ground"),
    "cdigits_fg": _coloured("digits", "shape"),
}


def hashed_permutation(count: int, *purpose: int | str) -> list[int]:
    """The numbers 0 … count-1 in an order fixed by ``purpose``: sorted by the hash of purpose and number.

    Args:
        purpose: What the order is for; distinct purposes give independent orders.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(json.dumps([*purpose, number], separators=(",", ":")).encode()).digest()

    return sorted(range(count), key=rank)


def class_subset(num_total: int, num_classes: int, class_draw: int) -> tuple[int, ...]:
    """Which classes of a data set take part, ascending.

    Of one draw, more classes contain fewer ones. Draw 0 is the first classes, which is how we read the paper's
    Table 2 (it does not say which classes it uses).

    Args:
        num_classes: How many of them to take, 2 … ``num_total``.
        class_draw: 0 for the first ones; any other number names a random choice.

    Raises:
        ValueError: If ``num_classes`` is out of range.
    """
    if not 2 <= num_classes <= num_total:
        raise ValueError(f"num_classes: out of range; got {num_classes}; expected 2 to {num_total}")
    if class_draw == 0:
        return tuple(range(num_classes))
    return tuple(sorted(hashed_permutation(num_total, "classes", class_draw)[:num_classes]))
