"""What a stage asks for: a share of a GPU, CPUs, and an estimate of its work.

Shares are of a 32 GB card (V100 class) and come from a short list of powers of two, which pack without fragments.
They are set by hand, on the safe side of what the stages hold in memory, until measured footprints replace them: a
measurement would enter through ``share``, an estimate through ``work``. A sweep overrides both kinds of number under
``resources:``. The table is shown in docs/resources.md; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trainables.configs import MethodSettings

SHARES = (1.0, 1 / 2, 1 / 4, 1 / 8)

DISTILL: dict[str, tuple[tuple[int | None, float], ...]] = {
    "random": ((None, 0.0),),
    "dm": ((10, 1 / 8), (50, 1 / 4), (None, 1 / 2)),
    "dc": ((1, 1 / 8), (10, 1 / 4), (50, 1 / 2), (None, 1.0)),
    "dsa": ((1, 1 / 8), (10, 1 / 4), (50, 1 / 2), (None, 1.0)),
    "mtt": ((1, 1 / 4), (10, 1 / 2), (None, 1.0)),
    "idc": ((10, 1 / 4), (50, 1 / 2), (None, 1.0)),
    "herding": ((None, 0.0),),
    "kmeans": ((None, 0.0),),
}
"""Method -> (largest ipc, share) for ConvNet3, 32 px, 10 classes. None: any. A method without a line takes a card."""

NETWORK: dict[str, float] = {"convnet3": 1 / 8, "resnet18": 1 / 4, "vgg16": 1 / 4}
"""Architecture -> share of the kinds that hold one network: experts, train, attack, embedding.

An ensemble takes that share times its members, rounded up to a power of two."""

FACTORS = {"resnet18 or vgg16 in distill": 2.0, "images above 32 px": 2.0, "more than 10 classes in distill": 2.0}
"""Each applies on top of the tables; the product is cut at a whole card."""


class Request(Protocol):
    """A ``resources:`` entry of a sweep; fields that are None leave the default."""

    @property
    def cpus(self) -> float | None: ...
    @property
    def gpu(self) -> float | None: ...


def share(
    kind: str, method: str, architecture: str, image_size: int, num_classes: int, ipc: int | None, members: int = 1
) -> float | None:
    """Default share of one card; ``members``: networks of an ensemble.

    Returns:
        0 for stages that need no GPU; None for ``accuracy`` and ``robustness``, which look at what others stored and
        take the share of the job they are part of.
    """
    if kind in ("accuracy", "robustness"):
        return None
    if kind in ("privacy", "tsne"):
        return 0.0
    if kind == "distill":
        steps = DISTILL.get(method, ((None, 1.0),))
        base = next(value for largest, value in steps if largest is None or (ipc or 0) <= largest)
        base *= 2.0 if architecture in ("resnet18", "vgg16") else 1.0
        base *= 2.0 if num_classes > 10 else 1.0
    else:
        base = NETWORK[architecture] * 2 ** (members - 1).bit_length()
    return min(1.0, base * (2.0 if image_size > 32 else 1.0))


def requested(
    requests: Mapping[str, Request], kind: str, method: str, default_gpu: float | None
) -> tuple[float, float | None]:
    """(CPUs, share) of a stage after the sweep's ``resources:``; an entry for the method beats one for the kind.

    Entries for a method apply to the stages that are the method's own: experts and distill.
    """
    cpus, gpu = 1.0, default_gpu
    names = [kind, method, f"{kind}.{method}"] if kind in ("experts", "distill") else [kind]
    for name in names:
        request = requests.get(name)
        if request is not None:
            cpus = request.cpus if request.cpus is not None else cpus
            gpu = request.gpu if request.gpu is not None else gpu
    return cpus, gpu


def convnet3_gflop(image_size: int, channels: int, width: int = 128) -> float:
    """Multiply-adds times two of one image's forward pass through ConvNet3, in GFLOP."""
    total, side, inputs = 0.0, image_size, channels
    for _ in range(3):
        total += 2 * 9 * inputs * width * side * side
        side, inputs = max(1, side // 2), width
    return total / 1e9


FORWARD_RATIO = {"convnet3": 1.0, "resnet18": 11.0, "vgg16": 6.2}
"""Forward cost of a network at width 64 (128 for ConvNet3) in units of ConvNet3's, at 32 px."""


NETWORK_BYTES = {"convnet3": 2 * 2**20, "resnet18": 45 * 2**20, "vgg16": 59 * 2**20}
"""A trained network's file, at most (width as published, 100 classes)."""
SNAPSHOTS = 8
"""Kept states of a distillation with the authors' budget: images and momentum each."""
FEATURES = 2048
"""Numbers in the last feature map of ConvNet3, of an image of 32 pixels."""


def size(
    kind: str,
    *,
    architecture: str,
    num_classes: int,
    ipc: int | None,
    pixels: int,
    test_images: int,
    width: float = 1.0,
    members: int = 1,
    numbers: int = 0,
) -> int:
    """Rough bytes a stage leaves in the store, snapshots included: to refuse a disk that cannot hold the plan.

    ``width``: of the network, in units of the published one; ``members``: networks of an ensemble; ``numbers``: of four
    bytes that it keeps beside what every stage of the kind does.
    """
    if kind == "distill":
        return num_classes * (ipc or 0) * pixels * 4 * (1 + 2 * SNAPSHOTS)
    if kind in ("train", "ensemble"):
        networks = members * (round(NETWORK_BYTES[architecture] * width**2) + test_images * num_classes * 4)
        return networks + 4 * numbers
    return 32 * 2**10 + 4 * numbers


def distill_work(
    method: str, settings: MethodSettings, gflop: float, num_classes: int, ipc: int, per_class: int
) -> float:
    """Rough work of a distillation in GFLOP.

    In units of an image's forward pass: a gradient with respect to weights costs three, the second pass of gradient
    matching six more. A method of another package counts like DM if it has iterations and a batch.

    Args:
        method: Its name.
        settings: Complete.
        gflop: Of one image's forward pass.
        num_classes: K.
        ipc: Images per class.
        per_class: Real images of a class.
    """
    values = settings.model_dump()
    length = settings.length or 0
    real = min(per_class, int(values.get("batch_real", 0)))
    match method:
        case "dsa" | "dc":
            outer, inner = values["loops"]
            trained = 3 * num_classes * ipc * inner * (outer - 1) / outer
            images = num_classes * (3 * real + 9 * ipc) + trained
        case "mtt":
            images = 9 * values["syn_steps"] * min(num_classes * ipc, values["batch_syn"] or num_classes * ipc)
        case "idc":
            shown = min(ipc * values["factor"] ** 2, values["batch_syn_max"])
            images = num_classes * (3 * real + 9 * shown) + 3 * min(values["net_images"], num_classes * per_class)
        case _:
            images = num_classes * (real + 3 * ipc)
    return float(length * images * gflop) + 0.01


COPYING = 0.01
"""Work of a stage that computes next to nothing."""


ON_CPU = {"privacy": 200.0, "tsne": 500.0}
"""GFLOP that last as long as these stages do on one core: attack classifiers and resampling; gradient descent."""


def work(
    kind: str,
    *,
    gflop: float,
    images: int,
    steps: int,
    batch: int,
    test_images: int,
    members: int = 1,
    passes: float = 0.0,
) -> float:
    """Rough work of any other stage in GFLOP: for the order of jobs and the remaining time, never for a result.

    A training step costs three forward passes (forward, and backward for inputs and weights), an ensemble's that many
    times its members; ``attack`` and ``embedding`` cost ``passes`` of each of the images.
    """
    if kind in ("train", "ensemble", "experts"):
        return members * (3 * steps * min(batch, images) * gflop + test_images * gflop)
    return ON_CPU.get(kind, COPYING) + passes * images * gflop
