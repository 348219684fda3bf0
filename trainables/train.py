"""Train one network on one set: the same loop for distilled sets, random subsets and the whole origin.

Images (N, C, H, W) float32 normalised; labels (N,) int64 positions; logits (N, K). The last epoch is what counts: the
test split is looked at for the record along the way, and nothing is ever chosen by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables import seeds
from trainables.configs import RecipeConfig, TrainConfig
from trainables.context import Context, StageFailure
from trainables.data import augment
from trainables.data.origins import AskedImages, TestSet
from trainables.data.whiten import Whitening
from trainables.files import load_json, save_json
from trainables.models.build import build
from trainables.models.network import Network, num_parameters, uses_batch_statistics
from trainables.optimise import batch_gradient, batches_per_epoch
from trainables.payloads import Signals, TrainedModel, load_tensors, save_tensors

EVAL_BATCH = {"cpu": 32, "cuda": 1024}
"""Images per forward pass without gradients; see ``trainables/distill/dm.py`` on the CPU's."""
CHECK_EVERY = 50
"""Steps between looks at the loss: on a GPU each look waits for the device."""


def train(
    config: TrainConfig,
    images: Tensor,
    labels: Tensor,
    test: TestSet,
    context: Context,
    *,
    learned_lr: float | None = None,
    whitening: Whitening | None = None,
    asked: AskedImages | None = None,
) -> TrainedModel:
    """Train a fresh network and record what it says about the test split.

    Stochastic gradient descent with momentum and weight decay; a fresh permutation per epoch; the learning rate is
    multiplied by ``gamma`` at each milestone. All random numbers are derived from ``config.seed``, so two sets of
    equal size trained with one seed share initial weights, batches and augmentations.

    Differs from the authors' code (DC utils.py): exactly ``epochs`` epochs instead of one more, the drop at the
    milestone instead of one epoch later, and momentum survives it. With batch norm a last batch of one image joins
    the batch before it: one image has no statistics, and PyTorch refuses it where maps are 1x1.

    Args:
        config: Network, recipe and seed.
        images: Training images.
        labels: Their positions in the origin's list of classes.
        test: The whole test split, in canonical order.
        context: Device, progress and checkpoints.
        learned_lr: Replaces the recipe's rate; see ``rate_learned_for``.
        whitening: What the images of the set and of the test split were whitened with, to be kept with the model.
        asked: Further images that the model is asked about, normalised only: they are whitened here.

    Raises:
        StageFailure: The loss is not finite.
        ValueError: The network cannot be built, or it has batch norm and the recipe's batches hold one image.
    """
    recipe, device = config.recipe, torch.device(context.device)
    if learned_lr is not None:
        recipe = recipe.model_copy(update={"lr": learned_lr})
    images, labels = images.to(device), labels.to(device)
    test_images, test_labels = test.images.to(device), test.labels.to(device)
    network = build(config.network, "train", "network", config.seed, device=context.device)
    per_epoch = batches_per_epoch(len(images), recipe.batch, batch_statistics=uses_batch_statistics(network))
    total = recipe.steps or per_epoch * (recipe.epochs or 0)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    curve: list[dict[str, float]] = []
    curve_rows = first_per_class(test_labels, config.curve_images)
    at_steps = curve_steps(recipe, config.curve_points, per_epoch)

    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        curve = restore_progress(folder, network, optimiser)
    order = torch.empty(0, dtype=torch.int64)
    looks = torch.zeros((), device=device)

    def save(folder: Path) -> None:
        save_progress(folder, network, optimiser, curve)

    for step in context.iterations(total, start=done, save=save, unit="step"):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0 or step == done:
            order = order_of(config, len(images), epoch).to(device)
        rows = order[batch * recipe.batch : None if batch + 1 == per_epoch else (batch + 1) * recipe.batch]
        optimiser.param_groups[0]["lr"] = learning_rate(recipe, step, per_epoch)
        optimiser.zero_grad(set_to_none=True)
        loss = batch_gradient(
            network,
            images[rows],
            labels[rows],
            params=augmentation(config, len(rows), step),
            cutmix=cutmix(config, step),
        )
        optimiser.step()
        looks += loss
        if (step + 1) % CHECK_EVERY == 0 or step + 1 in at_steps or step + 1 == total:
            if not math.isfinite(float(looks)):
                raise diverged("train", epoch, step)
            context.measure(loss=float(loss))
            looks.zero_()
        if step + 1 in at_steps:
            correct = accuracy(network, test_images[curve_rows], test_labels[curve_rows])
            curve.append({"epoch": (step + 1) / per_epoch, "steps": step + 1, "test_acc": correct})
            context.measure(test_acc=correct)
    facts = {"optimiser_steps": total, "trained_lr": recipe.lr, "epochs": total / per_epoch, "curve": curve}
    test = TestSet(test_images, test_labels, test.ids)
    return trained_model(config, network, images, labels, test, facts, whitening, asked)


def trained_model(
    config: TrainConfig,
    network: Network,
    images: Tensor,
    labels: Tensor,
    test: TestSet,
    facts: Mapping[str, Any],
    whitening: Whitening | None,
    asked: AskedImages | None = None,
) -> TrainedModel:
    """What is handed on of a network at the end of its training: its state, and what it says about images.

    Args:
        config: What was asked for.
        network: Trained.
        images: What it was trained on, on its device.
        labels: Their labels.
        test: The test split, on the device.
        facts: Of the training itself; what the network says of the training images is added.
        whitening: See ``train``.
        asked: See ``train``.
    """
    logits = predict(network, images)
    facts = {
        **facts,
        "train_acc": float((logits.argmax(1) == labels).double().mean()),
        "train_loss": float(F.cross_entropy(logits.double(), labels)),
        "train_images": len(images),
        "num_parameters": num_parameters(network),
    }
    signals = {"test": Signals(predict(network, test.images).cpu(), test.labels.cpu(), test.ids.cpu())}
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    mean, std = config.dataset.mean, config.dataset.std
    if asked is not None:
        signals |= signals_of(network, asked, config, whitening)
    return TrainedModel(state, config.network, mean, std, signals, facts, whitening)


def signals_of(
    network: Network, asked: AskedImages, config: TrainConfig, whitening: Whitening | None
) -> dict[str, Signals]:
    """What a network says about the images of ``asked``, by split, on the CPU.

    Args:
        network: Trained, on its device.
        asked: The images, normalised.
        config: The training: its data set's constants.
        whitening: What the network wants its images whitened with.
    """
    mean, std = config.dataset.mean, config.dataset.std
    device = next(network.parameters()).device
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for split, piece in asked:
        images = piece.images.to(device)
        if whitening is not None:
            images = whitening.whiten(images, mean, std)
        parts.setdefault(split, []).append((predict(network, images).cpu(), piece.labels.cpu(), piece.ids.cpu()))
    return {split: Signals(*map(torch.cat, zip(*found, strict=True))) for split, found in parts.items()}


def diverged(who: str, epoch: int, step: int) -> StageFailure:
    """The failure of a training whose loss is not finite; epoch and step count from 0."""
    return StageFailure(
        f"{who}: the loss is not finite in epoch {epoch + 1} (step {step + 1}); expected a finite number. Lower the "
        "recipe's lr, or look at the set."
    )


def rate_learned_for(config: TrainConfig, facts: Mapping[str, Any]) -> float | None:
    """The learning rate that was learned with a set, when the recipe wants it for the network to be trained.

    Differs from the authors' code (MTT; methods.md 5.4): they train every network at that rate. It was learned by and
    for one network, so by default the others keep the recipe's; ``recipe.learned_lr`` decides.

    Args:
        config: What is to be trained, and how.
        facts: Of the set.
    """
    wanted, rate = config.recipe.learned_lr, facts.get("learned_lr")
    own = facts.get("network") == config.network.model_dump(mode="json")
    if rate is None or wanted == "never" or (wanted == "own_network" and not own):
        return None
    return float(rate)


def learning_rate(recipe: RecipeConfig, step: int, per_epoch: int) -> float:
    """The rate of the step with this number, counted from 0.

    A milestone m of E epochs takes effect after floor(m * E) epochs; of a recipe in steps, after floor(m * steps).
    """
    position, length = (step, recipe.steps) if recipe.steps else (step // per_epoch, recipe.epochs or 0)
    # The small number keeps products such as 2/3 * 300 from falling below the integer they stand for.
    passed = sum(position >= math.floor(milestone * length + 1e-9) for milestone in recipe.milestones)
    return recipe.lr * recipe.gamma**passed


@torch.no_grad()
def predict(network: Network, images: Tensor) -> Tensor:
    """Logits (N, K) in evaluation mode, on the images' device; the network's mode is restored."""
    mode = network.training
    network.eval()
    chunks = torch.split(images, EVAL_BATCH[images.device.type])
    logits = torch.cat([network(chunk.contiguous(memory_format=torch.channels_last)) for chunk in chunks])
    network.train(mode)
    return logits


def accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    """Share of the images that the network names correctly in evaluation mode."""
    return float((predict(network, images).argmax(1) == labels).double().mean())


def order_of(config: TrainConfig, images: int, epoch: int) -> Tensor:
    """The permutation (N,) int64 that an epoch's batches are cut from, on the CPU."""
    return torch.randperm(images, generator=seeds.generator("train", config.seed, "order", epoch))


def augmentation(config: TrainConfig, images: int, step: int) -> augment.Params | None:
    """What happens to the images of a step's batch, each under parameters of its own; None: nothing."""
    recipe, flip = config.recipe, config.dataset.flip
    if recipe.augmentation == "none":
        return None
    chosen = augment.strategy_for(flip) if recipe.augmentation == "dsa" else augment.idc_training_strategy(flip)
    generator = seeds.generator("train", config.seed, "augment", step)
    return augment.sample(chosen, images, shared=False, generator=generator)


def cutmix(config: TrainConfig, step: int) -> tuple[float, torch.Generator] | None:
    """Probability of CutMix, and the generator of a step; None: never."""
    recipe = config.recipe
    return (recipe.cutmix, seeds.generator("train", config.seed, "cutmix", step)) if recipe.cutmix > 0 else None


def curve_steps(recipe: RecipeConfig, points: int, per_epoch: int) -> frozenset[int]:
    """Numbers of steps done at which the curve has a point: evenly spaced epochs, or steps, up to the last."""
    length, unit = (recipe.steps, 1) if recipe.steps else (recipe.epochs or 0, per_epoch)
    return frozenset(unit * math.ceil(length * point / points) for point in range(1, points + 1))


def first_per_class(labels: Tensor, images: int) -> Tensor:
    """Rows of the first images of each class, equally many per class and about ``images`` in all."""
    classes = torch.unique(labels)
    each = max(1, images // len(classes))
    return torch.cat([(labels == name).nonzero().squeeze(1)[:each] for name in classes]).sort().values


def save_progress(folder: Path, network: Network, optimiser: torch.optim.SGD, curve: list[dict[str, float]]) -> None:
    """Write a training's state into an existing folder: the network, its momentum, and what was recorded so far."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        buffer = optimiser.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    save_tensors(folder / "train.safetensors", tensors)
    save_json(folder / "curve.json", curve)


def restore_progress(folder: Path, network: Network, optimiser: torch.optim.SGD) -> list[dict[str, float]]:
    """Take up what ``save_progress`` wrote; returns the record."""
    tensors = load_tensors(folder / "train.safetensors")
    network.load_state_dict(
        {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    )
    for name, parameter in network.named_parameters():
        if f"momentum.{name}" in tensors:
            buffer = torch.empty_like(parameter, requires_grad=False)
            optimiser.state[parameter]["momentum_buffer"] = buffer.copy_(tensors[f"momentum.{name}"])
    curve: list[dict[str, float]] = load_json(folder / "curve.json")
    return curve
