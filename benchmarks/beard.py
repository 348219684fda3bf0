"""Published networks under BEARD's protocol and under ours, side by side (docs/results/beard.md).

    python -m benchmarks.beard FOLDER [--only BACON,DC] [--columns accuracy,clamped,emulated,ours] [--images 1000]
                               [--csv FILE]

FOLDER holds ConvNet3 networks for CIFAR-10, METHOD_*.pth, as in ``Code/model_pool`` of zhouzhengqd/BEARD. CIFAR-10 is
looked for as a sweep looks for it (DDRAY_DATA, DDRAY_CACHE). Columns, percent of images classified correctly:

    accuracy  test images as they are, all 10,000
    clamped   normalised images, cut to [0, 1] and not attacked, all 10,000
    emulated  PGD as ``Code/eva_utils.py`` there (commit 1e70313) asks torchattacks 3.5.1 for it: on normalised images,
              10 steps of 2/225 within 8/255, each cut to [0, 1]; no random start
    ours      ``pgd_linf`` as a sweep runs it, on pixels in [0, 1], within 8/255 (trainables/attacks.py)

The attacked images are the first of each class, the same for both attacks. At 1,000 images a network takes about three
minutes on one core, two of them ours.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddray.settings import folders, set_environment
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.configs import AttackConfig, DatasetConfig, NetworkConfig
from trainables.data.known import KNOWN
from trainables.data.origins import TestSet, load_test
from trainables.data.pixels import normalise
from trainables.evaluate.intervals import wilson
from trainables.evaluate.robustness.attack import PixelImages, attack_images, load_images
from trainables.evaluate.robustness.network import PixelNetwork, frozen
from trainables.external.models import read_state
from trainables.models.network import Network, build
from trainables.networks import parse
from trainables.testing import FolderContext
from trainables.train import predict

EPSILON = 8 / 255
STEP, STEPS = 2 / 225, 10
"""BEARD's."""
BATCH = 100
TITLES = {"accuracy": "accuracy", "clamped": "clamped alone", "emulated": "BEARD's PGD", "ours": "ours"}


def cifar10() -> DatasetConfig:
    """CIFAR-10 with the constants that the networks were trained with."""
    known = KNOWN["cifar10"]
    assert known.digest is not None
    return DatasetConfig(
        name="cifar10",
        base="cifar10",
        digest=known.digest,
        num_classes=known.num_classes,
        image_size=known.image_size,
        channels=3,
        mean=known.mean,
        std=known.std,
    )


def context() -> FolderContext:
    """Where the data are; no checkpoints are kept."""
    found = FolderContext(Path(tempfile.mkdtemp(prefix="ddray-bench-")))
    found.data, found.cache = folders().data, folders().cache
    return found


def attack_config(images: int) -> AttackConfig:
    """What ``ddray evaluate --robustness pgd_linf`` asks for, at the one budget."""
    settings = attack_settings("pgd_linf")
    classes = tuple(range(10))
    return AttackConfig(
        attack="pgd_linf", dataset=cifar10(), classes=classes, images=images, epsilons=(EPSILON,), settings=settings
    )


class Images(NamedTuple):
    """What networks are asked about."""

    test: TestSet
    """All test images, normalised."""
    attacked: PixelImages
    """Pixels in [0, 1]."""
    config: AttackConfig


def accuracy(network: Network, images: Images) -> Tensor:
    """Whether each test image (10000,) is classified correctly."""
    return predict(network, images.test.images).argmax(1) == images.test.labels


def clamped(network: Network, images: Images) -> Tensor:
    """The same of normalised images cut to [0, 1]."""
    return predict(network, images.test.images.clamp(0, 1)).argmax(1) == images.test.labels


def emulated(network: Network, images: Images) -> Tensor:
    """Whether each attacked image (n,) is still classified correctly after PGD on its normalised form."""
    dataset, found = images.config.dataset, []
    with frozen(network):
        for pixels, labels in zip(
            images.attacked.pixels.split(BATCH), images.attacked.labels.split(BATCH), strict=True
        ):
            given = normalise(pixels, dataset.mean, dataset.std)
            moved = given
            for _ in range(STEPS):
                leaf = moved.detach().requires_grad_()
                with torch.enable_grad():
                    (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf), labels, reduction="sum"), leaf)
                shift = (moved + STEP * gradient.sign() - given).clamp(-EPSILON, EPSILON)
                moved = (given + shift).clamp(0, 1)
            found.append(network(moved).argmax(1) == labels)
    return torch.cat(found)


def ours(network: Network, images: Images) -> Tensor:
    """The same after ``pgd_linf``."""
    dataset = images.config.dataset
    whole = PixelNetwork(network, dataset.mean, dataset.std).eval()
    attack = ROBUSTNESS_ATTACKS["pgd_linf"]
    with torch.enable_grad():
        result = attack_images(attack, images.config, whole, images.attacked, None, context())
    return ~result.success[0]


COLUMNS: dict[str, Callable[[Network, Images], Tensor]] = {
    "accuracy": accuracy,
    "clamped": clamped,
    "emulated": emulated,
    "ours": ours,
}


@torch.no_grad()
def measure(path: Path, columns: list[str], images: Images) -> list[dict[str, Any]]:
    """One row for each column: images ``n``, of them ``right``, percent with Wilson's 95 % interval."""
    network = NetworkConfig.of(parse("convnet3"), image_size=32, channels=3, num_classes=10)
    built = build(network, "external").eval()
    built.load_state_dict(read_state(path, network))
    rows = []
    for column in columns:
        right = COLUMNS[column](built, images).numpy()
        limits = wilson(right)
        low, high = (round(100 * limits[name], 2) for name in ("ci_low", "ci_high"))
        share = {"percent": round(100 * float(np.mean(right)), 2), "low": low, "high": high}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(
            {"network": path.name, "sha256": digest, "column": column, "n": len(right), "right": right.sum(), **share}
        )
    return rows


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """A row of the Markdown table."""
    cells = [f"{row['percent']:.2f} ({row['low']:.1f} to {row['high']:.1f})" for row in rows]
    return f"| {' | '.join([name, *cells])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="methods, as the files' names begin")
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--images", type=int, default=1000, help="that are attacked")
    parser.add_argument("--csv", type=Path, help="rows are added to it")
    arguments = parser.parse_args()
    columns = arguments.columns.split(",")
    set_environment()
    torch.set_num_threads(1)
    config = attack_config(arguments.images)
    where = context()
    images = Images(
        load_test(config.dataset, config.classes, where.data, where.cache, "cpu"), load_images(config, where), config
    )
    print(f"| network | {' | '.join(TITLES[column] for column in columns)} |\n|{'---|' * (len(columns) + 1)}")
    for path in sorted(arguments.folder.glob("*.pth")):
        name = path.name.partition("_")[0]
        if arguments.only and name not in arguments.only.split(","):
            continue
        rows = measure(path, columns, images)
        print(line(name, rows), flush=True)
        if arguments.csv:
            new = not arguments.csv.exists()
            with arguments.csv.open("a", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                if new:
                    writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
