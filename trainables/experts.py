"""Experts: networks trained on an origin whose parameters are kept along the way, for MTT (buffer.py; methods.md 5.1).

N images, P parameters, S snapshots after the initial one. Images (N, C, H, W) float32 normalised, or whitened.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from trainables import seeds
from trainables.configs import ExpertConfig
from trainables.context import Context, StageFailure
from trainables.data import augment, whiten
from trainables.data.origins import Origin
from trainables.models.build import build
from trainables.models.network import Network, num_parameters, uses_batch_statistics
from trainables.optimise import batch_gradient, batches_per_epoch
from trainables.payloads import Expert, load_tensors, save_tensors
from trainables.train import CHECK_EVERY, predict, restore_progress, save_progress

ACCURACY_IMAGES = 2000
"""Images on which train accuracy is taken at each snapshot, the first ones of each class in canonical order, without
augmentation: about a hundredth of an epoch's work on CIFAR-10, and all of a small origin."""


def train_expert(config: ExpertConfig, origin: Origin, context: Context) -> Expert:
    """Train one network by plain stochastic gradient descent and keep its parameters every so many steps.

    Constant learning rate; a fresh permutation per epoch; each image under its own augmentation. Random numbers are
    derived from (the expert's number, purpose, place). A checkpoint holds the network and the snapshots so far.

    Differs from the authors' code (MTT buffer.py): snapshots are copies (theirs alias the last weights when training
    on a CPU); they are taken by steps where epochs are short; train accuracy is of images without augmentation.

    Args:
        config: Network, rate, batch, number of the expert.
        origin: What is learned.
        context: Device, progress and checkpoints.

    Raises:
        StageFailure: The loss or a parameter is not finite.
        ValueError: The network cannot be built, or it has batch norm and batches hold one image.
    """
    device = torch.device(context.device)
    images, labels = origin.images.to(device), origin.labels.to(device)
    if config.zca:
        constants = config.dataset.mean, config.dataset.std
        images = whiten.fit(images, *constants).whiten(images, *constants)
    network = build(config.network, "expert", config.index, "network", device=context.device)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    per_epoch = batches_per_epoch(
        len(images),
        config.batch,
        batch_statistics=uses_batch_statistics(network),
        who=f"expert {config.index}",
        setting="settings.mtt.batch_expert",
    )
    every = config.steps_between(per_epoch)
    looked_at = torch.cat([members[: max(1, ACCURACY_IMAGES // len(origin.by_class))] for members in origin.by_class])
    looked_at = looked_at.to(device)
    snapshots = torch.empty(config.snapshots + 1, num_parameters(network))
    record: list[dict[str, float]] = []

    def keep(steps: int) -> None:
        snapshots[len(record)] = flat_parameters(network).cpu()
        if not snapshots[len(record)].isfinite().all():
            _diverged(config, "a parameter", steps - 1, per_epoch)
        correct = (predict(network, images[looked_at]).argmax(1) == labels[looked_at]).double().mean()
        record.append({"steps": steps, "train_acc": float(correct)})
        context.measure(train_acc=float(correct))

    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        record = restore_progress(folder, network, optimiser)
        snapshots[: len(record)] = load_tensors(folder / "snapshots.safetensors")["snapshots"]
    else:
        keep(0)
    order = torch.empty(0, dtype=torch.int64)
    looks = torch.zeros((), device=device)

    def save(folder: Path) -> None:
        save_progress(folder, network, optimiser, record)
        save_tensors(folder / "snapshots.safetensors", {"snapshots": snapshots[: len(record)]})

    for step in context.iterations(config.snapshots * every, start=done, save=save, unit="step"):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0 or step == done:
            order = torch.randperm(len(images), generator=seeds.generator("expert", config.index, "order", epoch))
            order = order.to(device)
        rows = order[batch * config.batch : None if batch + 1 == per_epoch else (batch + 1) * config.batch]
        optimiser.zero_grad(set_to_none=True)
        loss = batch_gradient(network, images[rows], labels[rows], params=_augmentation(config, len(rows), step))
        optimiser.step()
        looks += loss
        due = (step + 1) % every == 0
        if due or (step + 1) % CHECK_EVERY == 0:
            if not math.isfinite(float(looks)):
                _diverged(config, "the loss", step, per_epoch)
            context.measure(loss=float(loss))
            looks.zero_()
        if due:
            keep(step + 1)

    facts = {
        "index": config.index,
        "zca": config.zca,
        "lr": config.lr,
        "accuracy_images": len(looked_at),
        "steps": [int(point["steps"]) for point in record],
        "train_acc": [point["train_acc"] for point in record],
    }
    parameters = [(name, list(weight.shape)) for name, weight in network.named_parameters()]
    return Expert(snapshots, squared_distances(snapshots), parameters, facts)


def flat_parameters(network: Network) -> Tensor:
    """All parameters as one new vector (P,), in the order of ``named_parameters``."""
    return torch.cat([weight.detach().reshape(-1) for weight in network.parameters()])


def squared_distances(snapshots: Tensor) -> Tensor:
    """Squared Euclidean distances (S + 1, S + 1) in float64 between rows (S + 1, P)."""
    found = torch.zeros(len(snapshots), len(snapshots), dtype=torch.float64)
    for index, row in enumerate(snapshots[:-1]):
        found[index, index + 1 :] = (snapshots[index + 1 :] - row).double().square().sum(1)
    return found + found.T


def _augmentation(config: ExpertConfig, batch: int, step: int) -> augment.Params | None:
    if config.augmentation != "dsa":
        return None
    generator = seeds.generator("expert", config.index, "augment", step)
    return augment.sample(augment.strategy_for(config.dataset.flip), batch, shared=False, generator=generator)


def _diverged(config: ExpertConfig, what: str, step: int, per_epoch: int) -> NoReturn:
    raise StageFailure(
        f"expert {config.index}: {what} is not finite in epoch {step // per_epoch + 1} (step {step + 1}); expected a "
        "finite number. Lower settings.mtt.lr_expert."
    )
