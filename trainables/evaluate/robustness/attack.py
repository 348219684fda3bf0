"""One attack on one model, image by image.

Pixels (n, C, H, W) float32 in [0, 1]; labels (n,) int64 positions; E budgets in units of such pixels.
"""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.attacks import SPECS, AttackSpec
from trainables.configs import AttackConfig
from trainables.context import Context
from trainables.device import single_precision
from trainables.evaluate.robustness.images import PixelImages, load_images
from trainables.evaluate.robustness.network import BATCH, frozen, pixel_network
from trainables.evaluate.robustness.strong import composition, require, strong
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
    spec = SPECS[config.attack]
    check(config, model)
    require(spec)
    images = load_images(config, context)
    network = pixel_network(model, context.device)
    # An attack may take minutes for a batch; every step of it is a forward pass.
    network.register_forward_pre_hook(lambda *_: context.poll())
    return attack_images(spec, config, network, images, model, context)


def check(config: AttackConfig, model: TrainedModel) -> None:
    """Whether an attack makes sense, as far as that can be seen before it.

    Raises:
        ValueError: See ``run_attack``.
    """
    name, epsilons = config.attack, config.epsilons
    if not epsilons or list(epsilons) != sorted(set(epsilons)) or epsilons[0] <= 0:
        raise ValueError(f"attack {name}: epsilons: got {epsilons}; expected ascending numbers above 0. Change them.")
    if SPECS[name].norm == "linf" and epsilons[-1] > 1:
        raise ValueError(
            f"attack {name}: epsilons: got {epsilons[-1]} in Linf; expected at most 1, as images are in [0, 1]. "
            "Divide by 255 what is meant in units of 0 to 255."
        )
    if SPECS[name].norm == "linf" and epsilons[-1] > LARGE_LINF:
        log.warning("attack %s: epsilon %g in Linf is large for images in [0, 1]", name, epsilons[-1])
    has = (model.network.num_classes, model.network.channels, model.network.image_size)
    wanted = (len(config.classes), config.dataset.channels, config.dataset.image_size)
    if has != wanted:
        raise ValueError(
            f"attack {name}: the model does not fit the data; got {has} as classes, channels, pixels; expected "
            f"{wanted}. Attack it on the data it was trained for."
        )


def attack_images(
    spec: AttackSpec,
    config: AttackConfig,
    network: nn.Module,
    images: PixelImages,
    model: TrainedModel | None,
    context: Context,
) -> AttackResult:
    """The part of ``run_attack`` behind the loading.

    Args:
        spec: Which attack.
        config: Its settings and budgets.
        network: Takes images in [0, 1]; on the context's device, in any mode.
        images: On the CPU.
        model: To compare the logits with those stored at the end of the training; None: nothing is compared.
        context: Device, progress and checkpoints.
    """
    device, epsilons = context.device, config.epsilons
    size = BATCH[torch.device(device).type]
    with single_precision(), torch.autocast(torch.device(device).type, enabled=False), frozen(network):
        logits = _logits(network, images.pixels, device, size)
        if not logits.isfinite().all():
            raise ValueError(
                f"attack {spec.name}: some logits are not finite; expected finite numbers. The training diverged: "
                "lower its lr."
            )
        correct = logits.argmax(1) == images.labels
        rows = correct.nonzero().squeeze(1)
        found = _Found(len(epsilons), len(images.ids), size)
        done = 0
        if checkpoint := context.restore():
            done, folder = checkpoint
            found = _Found.load(folder)
            size = found.size
        total = -(-len(rows) // size)
        for number in context.iterations(total, start=done, save=found.save, unit="batch"):
            batch = rows[number * size : (number + 1) * size]
            pixels, labels = images.pixels[batch].to(device), images.labels[batch].to(device)
            with torch.enable_grad():
                found.vanished[batch] = _zero_gradients(network, pixels, labels).cpu()
                success, distance = _dispatch(spec, config, network, pixels, labels, images.ids[batch])
            found.success[:, batch] = success.cpu()
            if distance is not None:
                found.distance[batch] = distance.float().cpu()
            context.measure(robust=float((~found.success[-1, rows[: (number + 1) * size]]).double().mean()))
    found.success[:, ~correct] = True
    found.distance[~correct] = 0
    facts: dict[str, Any] = {
        "attack": spec.name,
        "norm": spec.norm,
        "epsilons": list(epsilons),
        "settings": config.settings,
        "num_classes": len(config.classes),
        "library": spec.library,
        "library_version": importlib.metadata.version(spec.library),
        "zero_gradient_share": float(found.vanished[rows].double().mean()) if len(rows) else None,
        "logit_drift": None if model is None else _drift(model, images.ids, logits),
    }
    if spec.extra is not None:
        facts["composition"] = composition(spec, len(config.classes))
    return AttackResult(
        images.ids, images.labels, correct, found.success, found.distance if spec.minimal else None, facts
    )


class _Found:
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
    def load(cls, folder: Path) -> _Found:
        tensors = load_tensors(folder / "found.safetensors")
        found = cls(len(tensors["success"]), len(tensors["distance"]), int(tensors["size"]))
        found.success, found.distance, found.vanished = (tensors[name] for name in ("success", "distance", "vanished"))
        return found


def _dispatch(
    spec: AttackSpec, config: AttackConfig, network: nn.Module, pixels: Tensor, labels: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Success (E, b) and, of attacks that look for the smallest perturbation, distance (b,)."""
    # Imported on use: foolbox takes a second, and AutoAttack does not need it.
    if spec.minimal:
        from trainables.evaluate.robustness.minimal import smallest

        return smallest(spec, config.settings, network, pixels, labels, config.epsilons)
    if spec.extra is not None:
        return strong(spec, config.settings, network, pixels, labels, ids, config.epsilons, len(config.classes)), None
    from trainables.evaluate.robustness.bounded import fgsm, pgd

    if spec.name == "fgsm":
        return fgsm(network, pixels, labels, config.epsilons), None
    return pgd(spec, config.settings, network, pixels, labels, ids, config.epsilons), None


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
    stored = model.signals.get("test")
    if stored is None or not torch.isin(ids, stored.ids).all():
        return None
    order = torch.argsort(stored.ids)
    places = order[torch.searchsorted(stored.ids[order], ids)]
    return float((stored.logits[places] - logits).abs().max())
