"""One attack on one model, image by image: which test images, with what network, and what the attack did to each.

Pixels (n, C, H, W) float32 in [0, 1]; labels (n,) int64 positions; E budgets in units of such pixels.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.attacks import ROBUSTNESS_ATTACKS, RobustnessAttack, load
from trainables.configs import AttackConfig
from trainables.context import Context
from trainables.data.cache import open_split
from trainables.device import single_precision
from trainables.evaluate.robustness.network import BATCH, Batch, frozen, pixel_network
from trainables.payloads import AttackResult, TrainedModel, load_tensors, save_tensors

log = logging.getLogger(__name__)

LARGE_LINF = 0.2
"""A budget above this is more likely one in units of 0 to 255."""


def run_attack(config: AttackConfig, model: TrainedModel, context: Context) -> AttackResult:
    """Attack a model on the first test images of each class.

    Images that are misclassified as they are count as misled by nothing (distance 0) and are not attacked. Networks
    run in evaluation mode and in single precision whatever the job's, with normalisation or whitening inside, so that
    budgets and bounds are those of the image. An interrupted attack goes on with the next batch.

    Args:
        config: Attack, images, budgets.
        model: Its network, with what it expects of its input.
        context: Device, progress and checkpoints.

    Raises:
        ValueError: A budget is out of range, the attack's library is not installed, model and data do not fit, or a
            logit is not finite.
        Interrupted: A stop was asked for.
    """
    attack = ROBUSTNESS_ATTACKS[config.attack]
    check(config, model)
    require(attack)
    images = load_images(config, context)
    network = pixel_network(model, context.device)
    # An attack may take minutes for a batch; every step of it is a forward pass.
    network.register_forward_pre_hook(lambda *_: context.poll())
    return attack_images(attack, config, network, images, model, context)


def check(config: AttackConfig, model: TrainedModel) -> None:
    """Whether an attack makes sense, as far as that can be seen before it.

    Raises:
        ValueError: See ``run_attack``.
    """
    name, epsilons, norm = config.attack, config.epsilons, ROBUSTNESS_ATTACKS[config.attack].norm
    if not epsilons or list(epsilons) != sorted(set(epsilons)) or epsilons[0] <= 0:
        raise ValueError(f"attack {name}: epsilons: got {epsilons}; expected ascending numbers above 0. Change them.")
    if norm == "linf" and epsilons[-1] > 1:
        raise ValueError(
            f"attack {name}: epsilons: got {epsilons[-1]} in Linf; expected at most 1, as images are in [0, 1]. "
            "Divide by 255 what is meant in units of 0 to 255."
        )
    if norm == "linf" and epsilons[-1] > LARGE_LINF:
        log.warning("attack %s: epsilon %g in Linf is large for images in [0, 1]", name, epsilons[-1])
    has = (model.network.num_classes, model.network.channels, model.network.image_size)
    wanted = (len(config.classes), config.dataset.channels, config.dataset.image_size)
    if has != wanted:
        raise ValueError(
            f"attack {name}: the model does not fit the data; got {has} as classes, channels, pixels; expected "
            f"{wanted}. Attack it on the data it was trained for."
        )


def require(attack: RobustnessAttack) -> None:
    """Make sure that the library of an attack is there.

    Raises:
        ValueError: It comes with an extra that is not installed.
    """
    if attack.extra is not None and importlib.util.find_spec(attack.library) is None:
        raise ValueError(
            f"attack {attack.name}: {attack.library} is not installed; expected it on every node that runs this "
            f"attack. Install ddray[{attack.extra}], or leave the attack out."
        )


class PixelImages(NamedTuple):
    """The test images that are attacked: the first of each class, the same for every model."""

    pixels: Tensor
    """(n, C, H, W) float32 in [0, 1], on the CPU."""
    labels: Tensor
    """(n,) int64: positions in the list of classes."""
    ids: Tensor
    """(n,) int64: canonical test indices, ascending."""


def load_images(config: AttackConfig, context: Context) -> PixelImages:
    """The images of an attack. Bytes over 255, never normalised and back: they are exactly within the bounds.

    Raises:
        ValueError: The data are missing, broken or others than planned.
    """
    split = open_split(config.dataset, "test", context.data, context.cache)
    ids = first_of_each_class(split.labels, config.classes, config.images)
    labels = np.searchsorted(np.array(config.classes, dtype=np.int64), split.labels[ids]).astype(np.int64)
    pixels = torch.from_numpy(split.images[ids]).float() / 255
    return PixelImages(pixels.clamp(0, 1), torch.from_numpy(labels), torch.from_numpy(ids))


def first_of_each_class(labels: NDArray[np.int64], classes: tuple[int, ...], images: int) -> NDArray[np.int64]:
    """Canonical indices (n,), ascending, of the first images of each class.

    As many of each class as of the others, the lower labels one more where the number does not divide. A class that
    has fewer gives what it has: n is then less than ``images``.

    Args:
        labels: (N,) labels of the whole split in canonical order.
        classes: Labels that take part.
        images: How many in all.
    """
    each, more = divmod(images, len(classes))
    chosen = [np.flatnonzero(labels == label)[: each + (rank < more)] for rank, label in enumerate(classes)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def attack_images(
    attack: RobustnessAttack,
    config: AttackConfig,
    network: nn.Module,
    images: PixelImages,
    model: TrainedModel | None,
    context: Context,
) -> AttackResult:
    """The part of ``run_attack`` behind the loading.

    Args:
        attack: Which.
        config: Its settings and budgets.
        network: Takes images in [0, 1]; on the context's device, in any mode.
        images: On the CPU.
        model: To compare the logits with those stored at the end of the training; None: nothing is compared.
        context: Device, progress and checkpoints.
    """
    device = context.device
    size = BATCH[torch.device(device).type]
    with single_precision(), torch.autocast(torch.device(device).type, enabled=False), frozen(network):
        logits = _logits(network, images.pixels, device, size)
        if not logits.isfinite().all():
            raise ValueError(
                f"attack {attack.name}: some logits are not finite; expected finite numbers. The training diverged: "
                "lower its lr."
            )
        correct = logits.argmax(1) == images.labels
        progress = _attack_batches(attack, config, network, images, correct, size, context)
    progress.success[:, ~correct] = True
    progress.distance[~correct] = 0
    vanished = progress.vanished[correct]
    facts: dict[str, Any] = {
        "attack": attack.name,
        "norm": attack.norm,
        "epsilons": list(config.epsilons),
        "settings": config.settings,
        "num_classes": len(config.classes),
        "library": attack.library,
        "library_version": importlib.metadata.version(attack.library),
        "zero_gradient_share": float(vanished.double().mean()) if len(vanished) else None,
        "logit_drift": None if model is None else _drift(model, images.ids, logits),
    }
    if attack.parts is not None:
        facts["composition"] = load(attack.parts)(config.settings, len(config.classes))
    distance = progress.distance if attack.minimal else None
    return AttackResult(images.ids, images.labels, correct, progress.success, distance, facts)


def _attack_batches(
    attack: RobustnessAttack,
    config: AttackConfig,
    network: nn.Module,
    images: PixelImages,
    correct: Tensor,
    size: int,
    context: Context,
) -> _Progress:
    """Attack the images that are classified correctly (n,), batch after batch; goes on from a checkpoint."""
    rows = correct.nonzero().squeeze(1)
    progress, done = _Progress(len(config.epsilons), len(images.ids), size), 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        progress = _Progress.load(folder)
        size = progress.size
    for number in context.iterations(-(-len(rows) // size), start=done, save=progress.save, unit="batch"):
        chosen = rows[number * size : (number + 1) * size]
        pixels, labels = images.pixels[chosen].to(context.device), images.labels[chosen].to(context.device)
        batch = Batch(pixels, labels, images.ids[chosen], len(config.classes))
        with torch.enable_grad():
            progress.vanished[chosen] = _zero_gradients(network, pixels, labels).cpu()
            success, distance = _attack_batch(attack, config, network, batch)
        progress.success[:, chosen] = success.cpu()
        if distance is not None:
            progress.distance[chosen] = distance.float().cpu()
        context.measure(robust=float((~progress.success[-1, rows[: (number + 1) * size]]).double().mean()))
    return progress


def _attack_batch(
    attack: RobustnessAttack, config: AttackConfig, network: nn.Module, batch: Batch
) -> tuple[Tensor, Tensor | None]:
    """Success (E, b) and, of attacks that look for the smallest perturbation, distance (b,)."""
    if attack.minimal:
        # Imported on use: foolbox takes a second, and other libraries' attacks do not need it.
        from trainables.evaluate.robustness.foolbox_attacks import smallest

        return smallest(attack, config.settings, network, batch, config.epsilons)
    return load(attack.run)(attack, config.settings, network, batch, config.epsilons), None


class _Progress:
    """What is known of each image so far."""

    def __init__(self, epsilons: int, images: int, size: int) -> None:
        self.size = size  # images per batch: a checkpoint may be taken up on another device
        self.success = torch.zeros(epsilons, images, dtype=torch.bool)
        self.distance = torch.full((images,), torch.inf)
        self.vanished = torch.zeros(images, dtype=torch.bool)

    def save(self, folder: Path) -> None:
        tensors = {"success": self.success, "distance": self.distance, "vanished": self.vanished}
        tensors["size"] = torch.tensor(self.size)
        save_tensors(folder / "found.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path) -> _Progress:
        tensors = load_tensors(folder / "found.safetensors")
        known = cls(len(tensors["success"]), len(tensors["distance"]), int(tensors["size"]))
        known.success, known.distance, known.vanished = (tensors[name] for name in ("success", "distance", "vanished"))
        return known


@torch.no_grad()
def _logits(network: nn.Module, pixels: Tensor, device: str, size: int) -> Tensor:
    """(n, K) on the CPU."""
    return torch.cat([network(part.to(device)).float().cpu() for part in torch.split(pixels, size)])


def _zero_gradients(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Whether the cross-entropy's gradient (b,) is exactly 0 in every pixel: attacks that follow it are then blind."""
    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf), labels, reduction="sum"), leaf)
    return (gradient == 0).flatten(1).all(1)


def _drift(model: TrainedModel, ids: Tensor, logits: Tensor) -> float | None:
    """Largest difference to the logits that were stored with the model; None where these images are not among them.

    Augmentation, train mode, another normalisation or another precision would show here.
    """
    stored = model.outputs.get("test")
    if stored is None or not torch.isin(ids, stored.ids).all():
        return None
    order = torch.argsort(stored.ids)
    positions = order[torch.searchsorted(stored.ids[order], ids)]
    return float((stored.logits[positions] - logits).abs().max())
