"""The data sets ddray knows by name: constants only, no torch, so that planning can use them.

Means and deviations are of images scaled to [0, 1]. ``tests/unit/test_constants.py`` recomputes what it can from the
data. CIFAR-10's deviations are the widely copied means of per-image deviations (the pixel deviations are about
0.247/0.243/0.262); they are kept because every published result uses them.
"""

from __future__ import annotations

from dataclasses import dataclass


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


KNOWN: dict[str, KnownDataset] = {
    "digits": KnownDataset(
        num_classes=10, image_size=8, channels=1, mean=(0.3053,), std=(0.3760,), train_per_class=124,
        test_per_class=50, flip=False, source="scikit-learn's digits (UCI optical recognition test set), pixels / 16",
    ),
    "cifar10": KnownDataset(
        num_classes=10, image_size=32, channels=3, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010),
        train_per_class=5000, test_per_class=1000, source="Krizhevsky 2009; constants as in the DC, MTT, IDC code",
    ),
    "cifar100": KnownDataset(
        num_classes=100, image_size=32, channels=3, mean=(0.5071, 0.4866, 0.4409), std=(0.2673, 0.2564, 0.2762),
        train_per_class=500, test_per_class=100, label_column="fine_label",
        source="Krizhevsky 2009; constants as in the DC code (MTT and IDC use CIFAR-10's)",
    ),
    "mnist": KnownDataset(
        num_classes=10, image_size=28, channels=1, mean=(0.1307,), std=(0.3081,), train_per_class=5421,
        test_per_class=892, flip=False, source="LeCun et al.; constants as in the DC code",
    ),
    "fashion_mnist": KnownDataset(
        num_classes=10, image_size=28, channels=1, mean=(0.2861,), std=(0.3530,), train_per_class=6000,
        test_per_class=1000, source="Xiao et al. 2017; constants as in the DC code",
    ),
    "svhn": KnownDataset(
        num_classes=10, image_size=32, channels=3, mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970),
        train_per_class=4659, test_per_class=1595, flip=False,
        source="Netzer et al. 2011, train and test splits (no extra); constants as in the DC code",
    ),
    "tiny_imagenet": KnownDataset(
        num_classes=200, image_size=64, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        train_per_class=500, test_per_class=50, source="CS231n; constants as in the DC and MTT code",
    ),
}  # fmt: skip
