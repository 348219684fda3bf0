"""Train networks on one set: the same for distilled sets, random subsets and the whole origin.

``train`` trains one network; ``train_ensemble`` several that differ in the seed alone, the repeats of a point. One
packed network holds all members (``models/packed.py``), so that a step costs about the calls of one training. Batches,
augmentations and initial weights of a member are those of ``train`` with its seed, and so are its weights at the end,
up to the rounding of sums taken in another order.

M members. Images (N, C, H, W) float32 normalised; labels (N,) int64 positions, or what a recipe makes of a set's
(``labels.py``); logits (N, K). The last epoch is what
counts: the test split is looked at for the record along the way, and nothing is ever chosen by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables import optimise, seeds
from trainables.configs import DatasetConfig, EnsembleConfig, RecipeConfig, TeacherConfig, TrainConfig
from trainables.context import Context
from trainables.data import augment
from trainables.data.origins import QueriedImages, TestSet
from trainables.data.pixels import Whitening, normalise
from trainables.device import laid_out
from trainables.files import load_json, save_json
from trainables.guarantee import PRIVATE, Guarantee
from trainables.labels import Answers, Lesson, SoftLabels, SoftLoss, lesson_of
from trainables.models.network import Network, build, num_parameters, uses_batch_statistics
from trainables.models.packed import member_states, pack
from trainables.optimise import batch_gradient, batches_per_epoch, packed_gradient
from trainables.payloads import Outputs, TrainedEnsemble, TrainedModel

EVAL_BATCH = {"cpu": 32, "cuda": 1024}
"""Images per forward pass without gradients; see ``trainables/distill/dm.py`` on the CPU's."""


def train(
    config: TrainConfig,
    images: Tensor,
    labels: Tensor | Lesson,
    test: TestSet,
    context: Context,
    *,
    learned_lr: float | None = None,
    whitening: Whitening | None = None,
    queries: QueriedImages | None = None,
) -> TrainedModel:
    """Train a fresh network and record its outputs on the test split.

    The recipe's optimiser; a fresh permutation per epoch; the learning rate as ``learning_rate`` has it. All random
    numbers are derived from ``config.seed``, so two sets of equal size trained with one seed share initial weights,
    batches and augmentations.

    With ``recipe.private`` a step has the images that coins choose, an epoch being as many steps as without, and the
    gradient has noise (``optimise.private_gradient``).

    Differs from the authors' code (DC utils.py): exactly ``epochs`` epochs instead of one more, the drop at the
    milestone instead of one epoch later, and momentum survives it. With batch norm a last batch of one image joins
    the batch before it: one image has no statistics, and PyTorch refuses it where maps are 1x1.

    Args:
        labels: Of the images: positions in the origin's list of classes, or what is learned of a set's labels.
        test: The whole test split, in canonical order.
        learned_lr: Replaces the recipe's rate; see ``rate_learned_for``.
        whitening: What the images of the set and of the test split were whitened with, to be kept with the model.
        queries: Further images whose outputs are recorded, normalised only: they are whitened here.

    Raises:
        StageFailure: The loss is not finite.
        ValueError: The network cannot be built, or it has batch norm and the recipe's batches hold one image.
    """
    return _train([config], ["train"], images, labels, test, context, learned_lr, whitening, queries, together=False)[0]


def train_ensemble(
    config: EnsembleConfig,
    images: Tensor,
    labels: Tensor | Lesson,
    test: TestSet,
    context: Context,
    *,
    learned_lr: float | None = None,
    whitening: Whitening | None = None,
    queries: QueriedImages | None = None,
) -> TrainedEnsemble:
    """Train one fresh network per seed and record the outputs of each on the test split.

    Everything is as in ``train``; a member's share of a step depends on nothing of the others.

    Raises:
        StageFailure: The loss of a member is not finite; the message names its seed. The others are lost with it.
        ValueError: As in ``train``.
    """
    members = [config.member(seed) for seed in config.seeds]
    names = [f"ensemble: seed {seed}" for seed in config.seeds]
    models = _train(members, names, images, labels, test, context, learned_lr, whitening, queries, together=True)
    return TrainedEnsemble(dict(zip(config.seeds, models, strict=True)))


def _train(
    members: Sequence[TrainConfig],
    names: Sequence[str],
    images: Tensor,
    labels: Tensor | Lesson,
    test: TestSet,
    context: Context,
    learned_lr: float | None,
    whitening: Whitening | None,
    queries: QueriedImages | None,
    *,
    together: bool,
) -> list[TrainedModel]:
    """One training of networks that differ in the seed alone.

    Args:
        together: Whether the networks are packed. An ensemble is packed even when it has one member, a network that is
            trained on its own never is: the same sums are taken in another order, and bytes must not depend on it.
    """
    base, device = members[0], torch.device(context.device)
    recipe = base.recipe if learned_lr is None else base.recipe.model_copy(update={"lr": learned_lr})
    lesson = labels if isinstance(labels, Lesson) else Lesson.hard(labels)
    images, classes, learned = images.to(device), lesson.classes.to(device), lesson.learned.to(device)
    test = TestSet(test.images.to(device), test.labels.to(device), test.ids)
    alone = [build(member.network, "train", "network", member.seed, device=context.device) for member in members]
    network = pack(alone) if together else alone[0]
    per_epoch = batches_per_epoch(len(images), recipe.batch, batch_statistics=uses_batch_statistics(network))
    steps = recipe.steps or per_epoch * (recipe.epochs or 0)
    compared: Any = {"loss_of": lesson.loss, "answers": lesson.answers}
    noise = None if recipe.private is None else _noise(base, network, len(images), steps)

    def order(epoch: int) -> Tensor:
        orders = torch.stack([order_of(member, len(images), epoch) for member in members])
        return orders if together else orders[0]

    def noisy_gradient(_: Tensor, step: int) -> Tensor:
        assert noise is not None
        rows = noise.rows(len(images), seeds.generator("train", base.seed, "coins", step)).to(device)
        params = augmentation(base, len(rows), step) if len(rows) else None
        generator = seeds.generator("train", base.seed, "noise", step)
        return optimise.private_gradient(
            network, images[rows], learned[rows], noise, generator, params=params, loss_of=lesson.loss
        )

    def gradient(rows: Tensor, step: int) -> Tensor:
        params = [augmentation(member, rows.shape[-1], step) for member in members]
        mixes = [mix(member, step) for member in members]
        if together:
            return packed_gradient(network, images[rows], learned[rows], params=params, mixes=mixes, **compared)
        return batch_gradient(network, images[rows], learned[rows], params=params[0], mix=mixes[0], **compared)

    def unpacked() -> Sequence[Network]:
        """The networks of the members as they are now: their numbers are looked at just as after ``train``."""
        if together:
            for each, state in zip(alone, member_states(network, len(alone)), strict=True):
                each.load_state_dict(state)
        return alone

    curve = _Curve(base, unpacked, test, per_epoch, context)
    optimise.descend(
        optimise.Learner.of(
            network,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            optimiser=recipe.optimiser,
            decay_on=recipe.decay_on,
        ),
        batch=recipe.batch,
        steps=steps,
        per_epoch=per_epoch,
        order=order,
        gradient=gradient if noise is None else noisy_gradient,
        rate=lambda step: learning_rate(recipe, step, per_epoch),
        record=curve,
        names=optimise.Names(names, "Lower the recipe's lr, or look at the set."),
        context=context,
    )
    info = {"optimiser_steps": steps, "trained_lr": recipe.lr, "epochs": steps / per_epoch, **lesson.info}
    if noise is not None:
        info[PRIVATE] = noise.guarantee.facts
    return [
        _trained_model(member, each, images, classes, test, {**info, "curve": points}, whitening, queries)
        for member, each, points in zip(members, unpacked(), curve.by_member(len(members)), strict=True)
    ]


def _noise(config: TrainConfig, network: Network, images: int, steps: int) -> optimise.GradientNoise:
    """What makes a training private. How many images there are is taken as public: of an origin of so many per class
    that number, even where coins chose them.

    Raises:
        ValueError: The network lets an image change what it makes of others, or no noise gives the guarantee.
    """
    private, recipe, origin = config.recipe.private, config.recipe, config.origin
    assert private is not None
    if uses_batch_statistics(network):
        raise ValueError(
            "train: an image changes what batch norm makes of all others, and no clipping bounds that; got "
            f"{config.network.variant.name} with private; expected a network without batch norm. Take another."
        )
    public = images if origin.per_class is None else origin.per_class * len(origin.classes)
    rate = min(1.0, recipe.batch / public)
    guarantee = Guarantee.of(private.epsilon, delta=private.delta, clip=private.clip, rate=rate, rounds=steps)
    return optimise.GradientNoise(guarantee, rate * public)


class _Curve:
    """Accuracy on some test images along the way."""

    def __init__(
        self,
        config: TrainConfig,
        networks: Callable[[], Sequence[Network]],
        test: TestSet,
        per_epoch: int,
        context: Context,
    ) -> None:
        rows = first_per_class(test.labels, config.curve_images)
        self.at = curve_steps(config.recipe, config.curve_points, per_epoch)
        self._images, self._labels = test.images[rows], test.labels[rows]
        self._networks, self._per_epoch, self._context = networks, per_epoch, context
        self._points: list[dict[str, float]] = []
        """At each look one per member, in their order."""

    def look(self, done: int) -> None:
        shares = [accuracy(network, self._images, self._labels) for network in self._networks()]
        for share in shares:
            self._points.append({"epoch": done / self._per_epoch, "steps": done, "test_acc": share})
        self._context.measure(test_acc=sum(shares) / len(shares))

    def by_member(self, members: int) -> list[list[dict[str, float]]]:
        return [self._points[index::members] for index in range(members)]

    def save(self, folder: Path) -> None:
        save_json(folder / "curve.json", self._points)

    def restore(self, folder: Path) -> None:
        self._points = load_json(folder / "curve.json")


def _trained_model(
    config: TrainConfig,
    network: Network,
    images: Tensor,
    labels: Tensor,
    test: TestSet,
    info: Mapping[str, Any],
    whitening: Whitening | None,
    queries: QueriedImages | None,
) -> TrainedModel:
    """The payload of a network at the end of its training: its state, and its outputs on the images it is queried with.

    Args:
        images: What it was trained on, on its device; so are ``labels`` and ``test``.
        info: Of the training itself; loss and accuracy on the training images are added.
    """
    logits = predict(network, images)
    info = {
        **info,
        "train_acc": float((logits.argmax(1) == labels).double().mean()),
        "train_loss": float(F.cross_entropy(logits.double(), labels)),
        "train_images": len(images),
        "num_parameters": num_parameters(network),
    }
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    mean, std = config.dataset.mean, config.dataset.std
    outputs = {"test": Outputs(predict(network, test.images).cpu(), test.labels.cpu(), test.ids.cpu())}
    if queries is not None:
        whiten = None if whitening is None else partial(whitening.whiten, mean=mean, std=std)
        outputs |= outputs_on(network, queries, whiten=whiten)
    return TrainedModel(state, config.network, mean, std, outputs, info, whitening)


def outputs_on(
    network: Network,
    queries: QueriedImages,
    *,
    whiten: Callable[[Tensor], Tensor] | None = None,
    poll: Callable[[], None] | None = None,
) -> dict[str, Outputs]:
    """A network's outputs on the images it is queried with, by split, on the CPU.

    Args:
        network: Trained, on the device of the images.
        queries: Normalised.
        whiten: What the network wants done to its images after normalising.
        poll: Called between some thousand images, to give way to a request to stop.
    """
    by_split: dict[str, list[Outputs]] = {}
    for split, part in queries:
        if poll is not None:
            poll()
        images = part.images if whiten is None else whiten(part.images)
        outputs = Outputs(predict(network, images).cpu(), part.labels.cpu(), part.ids.cpu())
        by_split.setdefault(split, []).append(outputs)
    return {
        split: Outputs(*(torch.cat([getattr(part, name) for part in parts]) for name in ("logits", "labels", "ids")))
        for split, parts in by_split.items()
    }


def rate_learned_for(config: TrainConfig, info: Mapping[str, Any]) -> float | None:
    """The learning rate that was learned with a set, when the recipe wants it for the network to be trained.

    Differs from the authors' code (MTT; methods.md 5.4): they train every network at that rate. It was learned by and
    for one network, so by default the others keep the recipe's; ``recipe.learned_lr`` decides.
    """
    wanted, rate = config.recipe.learned_lr, info.get("learned_lr")
    own = info.get("network") == config.network.model_dump(mode="json")
    if rate is None or wanted == "never" or (wanted == "own_network" and not own):
        return None
    if config.recipe.optimiser != "sgd":  # it was learned for gradient descent, and means nothing to AdamW
        return None
    return float(rate)


def learning_rate(recipe: RecipeConfig, step: int, per_epoch: int) -> float:
    """The rate of the step with this number, counted from 0.

    A milestone m of E epochs takes effect after floor(m * E) epochs; of a recipe in steps, after floor(m * steps). A
    cosine is taken at the share of epochs (or steps) that are done, and so stays for an epoch.
    """
    position, length = (step, recipe.steps) if recipe.steps else (step // per_epoch, recipe.epochs or 0)
    rate = recipe.lr * optimise.drops(position, length, recipe.milestones, recipe.gamma)
    if recipe.schedule != "steps":
        turned = math.pi * position / length / (2 if recipe.schedule == "half_cosine" else 1)
        rate = recipe.lr * (1 + math.cos(turned)) / 2
    return rate * min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else rate


def taught(
    teacher: TrainedModel,
    config: TrainConfig,
    pixels: Tensor,
    classes: Tensor,
    context: Context,
    *,
    whitened: bool = False,
) -> Lesson:
    """What a network learns of images that a teacher labels: each once and without augmentation (Qin et al., NeurIPS
    2024; DD-Ranking's soft labels), or online, those of every step as they are then (RDED, CVPR 2024; methods2.md 1.1).

    Labels are the teacher's logits, y: what is learned are their softmax(y / T), as of soft labels that came with a
    set. Differs from Qin et al.'s code: its temperature multiplies logits, so it is our 1 / T, and leaves the
    student's as they are, where ours divides both; at 1, which is what they ran, both are the same. And from RDED's:
    its step also passes the images through the student once more, which moves the statistics of batch norm twice.

    Args:
        teacher: It sees the images normalised (or whitened) as those it was trained on.
        config: Of the student, with a teacher.
        pixels: (N, C, H, W) decoded, of which real ones lie in [0, 1].
        classes: (N,) int64 positions: of what the images were made for, which the teacher is not told.
        context: Where it runs.
        whitened: Whether the student sees the images whitened.

    Returns:
        The lesson, whose ``info`` also has ``teacher_acc`` (on the test split), ``teacher_agreement`` (share of the
        images whose largest label is their class), ``teacher_entropy`` (nats; both of the images as they are), and
        ``label_bytes``: of the labels, or of an online teacher's parameters, without which there are none.

    Raises:
        ValueError: The recipe's loss is not for logits, or the teacher's are not finite; or it is to label whitened
            images online.
    """
    assert config.teacher is not None
    labels = labels_of(teacher, config.teacher, pixels, classes, context.device)
    lesson, seen = lesson_of(labels, config.recipe), teacher.outputs["test"]
    about = {
        "teacher_acc": float((seen.logits.argmax(1) == seen.labels).double().mean()),
        "teacher_agreement": labels.agreement,
        "teacher_entropy": replace(labels, temperature=lesson.info["temperature"]).entropy,
        "label_bytes": 4 * labels.rows.numel(),
    }
    if config.teacher.online:
        if whitened or teacher.whitening is not None:
            raise ValueError(
                "train: an online teacher labels what the network sees, and whitened images it does not know; got a "
                "whitened set; expected one of pixels. Drop online from the labels, or take a set without zca."
            )
        about["label_bytes"] = sum(4 * tensor.numel() for tensor in teacher.state.values())
        answers = _answers(teacher, config.dataset, lesson, context.device)
        lesson = replace(lesson, learned=lesson.classes, answers=answers)
    return replace(lesson, info={**lesson.info, **about})


def _answers(teacher: TrainedModel, dataset: DatasetConfig, lesson: Lesson, device: str) -> Answers:
    """An online teacher: what it says of images that are normalised with the student's constants, and augmented."""
    assert isinstance(lesson.loss, SoftLoss)
    read, network = lesson.loss.read, _ready(teacher, device)
    own, its = (
        [torch.tensor(numbers, device=device).view(-1, 1, 1) for numbers in constants]
        for constants in ((dataset.mean, dataset.std), (teacher.mean, teacher.std))
    )
    alike = (teacher.mean, teacher.std) == (dataset.mean, dataset.std)

    @torch.no_grad()
    def answers(images: Tensor) -> Tensor:
        shown = images if alike else (images * own[1] + own[0] - its[0]) / its[1]
        return read(network(laid_out(shown)))

    return answers


def labels_of(teacher: TrainedModel, config: TeacherConfig, pixels: Tensor, classes: Tensor, device: str) -> SoftLabels:
    """The labels that ``taught`` makes.

    Args:
        teacher: As of ``taught``; so are the others.
        config: Likewise.
        pixels: Likewise.
        classes: Likewise.
        device: Where it runs.

    Raises:
        ValueError: The teacher's logits are not finite.
    """
    network = _ready(teacher, device)
    images = normalise(pixels, teacher.mean, teacher.std).to(device)
    if teacher.whitening is not None:
        images = teacher.whitening.whiten(images, teacher.mean, teacher.std)
    return SoftLabels(classes.cpu(), predict(network, images).cpu(), "logits", config.temperature, "teacher")


def _ready(teacher: TrainedModel, device: str) -> Network:
    """A trained network, in evaluation mode."""
    network = build(teacher.network, "teacher", device=device)
    network.load_state_dict(teacher.state)
    return network.eval()


@torch.no_grad()
def predict(network: Network, images: Tensor) -> Tensor:
    """Logits (N, K) in evaluation mode, on the images' device; the network's mode is restored."""
    mode = network.training
    network.eval()
    chunks = torch.split(images, EVAL_BATCH[images.device.type])
    logits = torch.cat([network(laid_out(chunk)) for chunk in chunks])
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
    match recipe.augmentation:
        case "dsa":
            chosen = augment.strategy_for(flip)
        case "idc":
            chosen = augment.idc_training_strategy(flip)
        case "crop_flip":
            chosen = augment.crop_and_flip(flip)
        case "rrc_flip":
            chosen = augment.resized_crop_and_flip(flip, recipe.crop_area)
    generator = seeds.generator("train", config.seed, "augment", step)
    return augment.sample(chosen, images, shared=False, generator=generator)


def mix(config: TrainConfig, step: int) -> optimise.Mix | None:
    """How the batch of a step is mixed; None: never."""
    recipe = config.recipe
    if not (recipe.cutmix or recipe.mixup):
        return None
    generator = seeds.generator("train", config.seed, "cutmix" if recipe.cutmix else "mixup", step)
    return optimise.Mix(recipe.cutmix, recipe.mixup, generator)


def curve_steps(recipe: RecipeConfig, points: int, per_epoch: int) -> frozenset[int]:
    """Numbers of steps done at which the curve has a point: evenly spaced epochs, or steps, up to the last."""
    length, unit = (recipe.steps, 1) if recipe.steps else (recipe.epochs or 0, per_epoch)
    return frozenset(unit * math.ceil(length * point / points) for point in range(1, points + 1))


def first_per_class(labels: Tensor, images: int) -> Tensor:
    """Rows of the first images of each class, equally many per class and about ``images`` in all."""
    labels = labels.cpu()
    classes = torch.unique(labels)
    each = max(1, images // len(classes))
    return torch.cat([(labels == name).nonzero().squeeze(1)[:each] for name in classes]).sort().values
