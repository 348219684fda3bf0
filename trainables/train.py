"""Train one network on one set: the same loop for distilled sets, random subsets and the whole origin.

Images (N, C, H, W) float32 normalised; labels (N,) int64 positions; logits (N, K). The last epoch is what counts: the
test split is looked at for the record along the way, and nothing is ever chosen by it.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables import seeds
from trainables.configs import RecipeConfig, TrainConfig
from trainables.context import Context, StageFailure
from trainables.data import augment
from trainables.data.origins import TestSet
from trainables.models.build import build
from trainables.models.network import Network, num_parameters, uses_batch_statistics
from trainables.optimise import batch_gradient
from trainables.payloads import Signals, TrainedModel, load_json, load_tensors, save_json, save_tensors

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

    Raises:
        StageFailure: The loss is not finite.
        ValueError: The network cannot be built, or it has batch norm and the recipe's batches hold one image.
    """
    recipe, device = config.recipe, torch.device(context.device)
    images, labels = images.to(device), labels.to(device)
    test_images, test_labels = test.images.to(device), test.labels.to(device)
    network = build(config.network, "train", "network", config.seed, device=context.device)
    per_epoch = batches_per_epoch(len(images), recipe.batch, batch_statistics=uses_batch_statistics(network))
    total = recipe.steps or per_epoch * (recipe.epochs or 0)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    curve: list[dict[str, float]] = []
    curve_rows = _first_per_class(test_labels, config.curve_images)
    curve_steps = _curve_steps(recipe, config.curve_points, per_epoch)

    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        curve = _restore(folder, network, optimiser)
    order = torch.empty(0, dtype=torch.int64)
    looks = torch.zeros((), device=device)

    def save(folder: Path) -> None:
        _save(folder, network, optimiser, curve)

    for step in context.iterations(total, start=done, save=save, unit="step"):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0 or step == done:
            order = torch.randperm(len(images), generator=seeds.generator("train", config.seed, "order", epoch))
            order = order.to(device)
        rows = order[batch * recipe.batch : None if batch + 1 == per_epoch else (batch + 1) * recipe.batch]
        optimiser.param_groups[0]["lr"] = learning_rate(recipe, step, per_epoch)
        optimiser.zero_grad(set_to_none=True)
        loss = _accumulate_gradients(network, images[rows], labels[rows], config, step)
        optimiser.step()
        looks += loss
        if (step + 1) % CHECK_EVERY == 0 or step + 1 in curve_steps or step + 1 == total:
            if not math.isfinite(float(looks)):
                raise StageFailure(
                    f"train: the loss is not finite in epoch {epoch + 1} (step {step + 1}); expected a finite number. "
                    "Lower the recipe's lr, or look at the set."
                )
            context.measure(loss=float(loss))
            looks.zero_()
        if step + 1 in curve_steps:
            logits = predict(network, test_images[curve_rows])
            correct = float((logits.argmax(1) == test_labels[curve_rows]).double().mean())
            curve.append({"epoch": (step + 1) / per_epoch, "steps": step + 1, "test_acc": correct})
            context.measure(test_acc=correct)

    train_logits = predict(network, images)
    facts = {
        "optimiser_steps": total,
        "epochs": total / per_epoch,
        "train_acc": float((train_logits.argmax(1) == labels).double().mean()),
        "train_loss": float(F.cross_entropy(train_logits.double(), labels)),
        "train_images": len(images),
        "num_parameters": num_parameters(network),
        "curve": curve,
    }
    signals = Signals(predict(network, test_images).cpu(), test_labels.cpu(), test.ids.cpu())
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return TrainedModel(state, config.network, config.dataset.mean, config.dataset.std, {"test": signals}, facts)


def batches_per_epoch(images: int, batch: int, *, batch_statistics: bool) -> int:
    """How many batches a permutation of the images is cut into; the last takes what is left.

    Args:
        images: Images of the set.
        batch: Images per batch.
        batch_statistics: A single image cannot be a batch: left over, it joins the batch before.

    Raises:
        ValueError: Batch statistics are asked of one image.
    """
    if batch_statistics and min(images, batch) == 1:
        raise ValueError(
            f"train: batch norm has no statistics of one image; got {images} images in batches of {batch}; expected 2 "
            "or more of both. Raise the recipe's batch, or train a network with instance norm."
        )
    whole, left = divmod(images, batch)
    return whole + (left > (1 if batch_statistics and whole else 0))


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


def _accumulate_gradients(network: Network, images: Tensor, labels: Tensor, config: TrainConfig, step: int) -> Tensor:
    """Augment one batch, add the gradient of its mean loss to the parameters, and return that loss."""
    recipe, flip = config.recipe, config.dataset.flip
    params, cutmix = None, None
    if recipe.augmentation != "none":
        chosen = augment.strategy_for(flip) if recipe.augmentation == "dsa" else augment.idc_training_strategy(flip)
        generator = seeds.generator("train", config.seed, "augment", step)
        params = augment.sample(chosen, len(images), shared=False, generator=generator)
    if recipe.cutmix > 0:
        cutmix = recipe.cutmix, seeds.generator("train", config.seed, "cutmix", step)
    return batch_gradient(network, images, labels, params=params, cutmix=cutmix)


def _curve_steps(recipe: RecipeConfig, points: int, per_epoch: int) -> frozenset[int]:
    """Numbers of steps done at which the curve has a point: evenly spaced epochs, or steps, up to the last."""
    length, unit = (recipe.steps, 1) if recipe.steps else (recipe.epochs or 0, per_epoch)
    return frozenset(unit * math.ceil(length * point / points) for point in range(1, points + 1))


def _first_per_class(labels: Tensor, images: int) -> Tensor:
    """Rows of the first images of each class, equally many per class and about ``images`` in all."""
    classes = torch.unique(labels)
    each = max(1, images // len(classes))
    return torch.cat([(labels == name).nonzero().squeeze(1)[:each] for name in classes]).sort().values


def _save(folder: Path, network: Network, optimiser: torch.optim.SGD, curve: list[dict[str, float]]) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        buffer = optimiser.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    save_tensors(folder / "train.safetensors", tensors)
    save_json(folder / "curve.json", curve)


def _restore(folder: Path, network: Network, optimiser: torch.optim.SGD) -> list[dict[str, float]]:
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
