"""Stage kind -> computation. Everything heavy is imported when the stage runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainables.configs import (
    AccuracyConfig,
    AttackConfig,
    DistillConfig,
    EmbeddingConfig,
    EnsembleConfig,
    ExpertConfig,
    Kind,
    PrivacyConfig,
    RobustnessConfig,
    StageConfig,
    TrainConfig,
    TsneConfig,
)
from trainables.context import Context, StageFailure
from trainables.methods import METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.origins import QueriedImages, TestSet
    from trainables.data.pixels import Whitening
    from trainables.labels import Lesson
    from trainables.payloads import (
        AttackResult,
        DistilledSet,
        Embedding,
        Expert,
        Metrics,
        Payload,
        TrainedEnsemble,
        TrainedModel,
        TsneMap,
    )

Inputs = Mapping[str, Path]
"""Folders of the payloads that a stage needs, by role."""


def run(kind: Kind, config: StageConfig, inputs: Inputs, context: Context) -> Payload:
    """Compute one stage.

    Args:
        kind: What kind of stage.
        config: Its configuration, of the kind's own type.
        inputs: Folders of the payloads it needs, by role: ``expert.I`` for methods that learn from experts, ``set`` for
            ``train`` and ``ensemble`` (unless they train on the origin) and ``teacher`` where one labels its images,
            ``ensemble`` for a ``train`` that takes one of
            its members, ``model`` for ``accuracy`` and ``attack``, ``attack.NAME`` for ``robustness``, ``encoder`` and
            ``set`` for ``embedding``, ``encoder`` and ``embedding.I`` for ``tsne``; of ``privacy``, see there.
        context: Where it runs.

    Raises:
        ValueError: This version has no such stage or method.
        StageFailure: The computation cannot go on.
        Interrupted: A stop was asked for.
    """
    return _COMPUTATIONS[kind](config, inputs, context)


def _experts(config: ExpertConfig, inputs: Inputs, context: Context) -> Expert:
    from trainables.data.origins import load_origin
    from trainables.experts import train_expert

    origin = load_origin(config.dataset, config.origin, context.data, context.cache, context.device)
    return train_expert(config, origin, context)


def _distill(config: DistillConfig, inputs: Inputs, context: Context) -> DistilledSet:
    from trainables.data.origins import load_origin
    from trainables.data.pixels import ran_away
    from trainables.distill.context import DistillContext

    method = METHODS.get(config.method)
    if method is None or not method.distils:
        known = ", ".join(name for name, entry in METHODS.items() if entry.distils)
        raise ValueError(
            f"distill: unknown method {config.method!r}; expected one of {known}. Install the package that declares it "
            "on this node."
        )
    distill: Callable[..., DistilledSet] = method.load()
    settings = method.settings.model_validate(config.settings)
    origin = load_origin(config.dataset, config.origin, context.data, context.cache, context.device)
    made = distill(origin, settings, DistillContext(config, context, inputs))
    if (values := ran_away(made.images)) is not None:
        rate = "lr_img" if hasattr(settings, "lr_img") else "the rate that images are learned at"
        raise StageFailure(
            f"{config.method}: the distilled images left the range of images; got {values}; expected about 0 to 1 "
            f"(learned ones reach about -3 to 4). Lower settings.{config.method}: {rate}."
        )
    return made


class _TrainingImages(NamedTuple):
    """What a network is trained on and tested with, ready for it."""

    images: Tensor
    labels: Tensor | Lesson
    test: TestSet
    learned_lr: float | None
    whitening: Whitening | None
    queries: QueriedImages | None
    """Further images whose outputs are recorded after the training, normalised; they are whitened then."""


def _training_images(config: TrainConfig, inputs: Inputs, context: Context) -> _TrainingImages:
    """The input ``set`` decoded, or the origin; normalised or whitened as the set wants it, test images alike."""
    from trainables.data.origins import QueriedImages, load_origin, load_test
    from trainables.data.pixels import decode, decode_labels, normalise
    from trainables.guarantee import PRIVATE
    from trainables.labels import lesson_of
    from trainables.payloads import DistilledSet, TrainedModel
    from trainables.train import rate_learned_for, taught

    mean, std = config.dataset.mean, config.dataset.std
    place = (context.data, context.cache, context.device)
    learned_lr = whitening = None
    queries = None if config.signals is None else QueriedImages(config.dataset, config.origin, config.signals, *place)
    labels: Tensor | Lesson
    if config.on_origin:
        origin = load_origin(config.dataset, config.origin, *place)
        images, labels = origin.images, origin.labels
    else:
        distilled = DistilledSet.load(inputs["set"])
        assert distilled.info["space"] == "pixel01", distilled.info
        factor = distilled.info["factor"]
        pixels = decode(distilled.images, factor)
        images = normalise(pixels, mean, std).to(context.device)
        if config.teacher is None:
            lesson = lesson_of(distilled.labels, config.recipe, factor)
            # What follows from a set alone has its guarantee; a teacher's labels tell of the images it saw.
            stated = {name: distilled.info[name] for name in (PRIVATE,) if name in distilled.info}
            labels = replace(lesson, info={**lesson.info, **stated})
        else:
            teacher, classes = TrainedModel.load(inputs["teacher"]), decode_labels(distilled.labels.classes, factor)
            labels = taught(teacher, config, pixels, classes, context, whitened=distilled.whitening is not None)
        learned_lr, whitening = rate_learned_for(config, distilled.info), distilled.whitening
    test = load_test(config.dataset, config.origin.classes, *place)
    if whitening is not None:
        images = whitening.whiten(images, mean, std)
        test = test._replace(images=whitening.whiten(test.images, mean, std))
    return _TrainingImages(images, labels, test, learned_lr, whitening, queries)


def _train(config: TrainConfig, inputs: Inputs, context: Context) -> TrainedModel:
    from trainables.payloads import TrainedEnsemble
    from trainables.train import train

    if config.ensemble is not None:
        return TrainedEnsemble.load_member(inputs["ensemble"], config.seed)
    images, labels, test, rate, whitening, queries = _training_images(config, inputs, context)
    return train(config, images, labels, test, context, learned_lr=rate, whitening=whitening, queries=queries)


def _ensemble(config: EnsembleConfig, inputs: Inputs, context: Context) -> TrainedEnsemble:
    from trainables.train import train_ensemble

    images, labels, test, rate, whitening, queries = _training_images(config.base, inputs, context)
    return train_ensemble(config, images, labels, test, context, learned_lr=rate, whitening=whitening, queries=queries)


def _accuracy(config: AccuracyConfig, inputs: Inputs, context: Context) -> Metrics:
    from trainables.data.cache import open_split
    from trainables.data.known import KNOWN
    from trainables.evaluate.accuracy import accuracy_rows, training_rows
    from trainables.evaluate.fairness import fairness_rows
    from trainables.evaluate.groups import group_rows
    from trainables.payloads import Metrics, TrainedModel

    model = TrainedModel.load(inputs["model"])
    logits, labels = model.outputs["test"].logits.numpy(), model.outputs["test"].labels.numpy()
    rows = accuracy_rows(logits, labels, config.num_classes)
    rows += training_rows(model) + fairness_rows(logits, labels, config.num_classes)
    if config.dataset is not None:
        groups = open_split(config.dataset, "test", context.data, context.cache).groups
        known = KNOWN[config.dataset.base].made
        assert groups is not None, config.dataset
        assert known is not None, config.dataset
        rows += group_rows(logits, labels, groups[model.outputs["test"].ids], config.num_classes, known.groups)
    return Metrics(rows)


def _attack(config: AttackConfig, inputs: Inputs, context: Context) -> AttackResult:
    from trainables.evaluate.robustness.attack import run_attack
    from trainables.payloads import TrainedModel

    return run_attack(config, TrainedModel.load(inputs["model"]), context)


def _robustness(config: RobustnessConfig, inputs: Inputs, context: Context) -> Metrics:
    from trainables.evaluate.robustness.rows import robustness_rows
    from trainables.payloads import AttackResult, Metrics

    results: dict[str, AttackResult] = {name: AttackResult.load(inputs[f"attack.{name}"]) for name in config.attacks}
    return Metrics(robustness_rows(results, config.num_classes))


def _privacy(config: PrivacyConfig, inputs: Inputs, context: Context) -> Metrics:
    from trainables.evaluate.privacy.audit import evaluate_privacy

    return evaluate_privacy(config, inputs, context)


def _embedding(config: EmbeddingConfig, inputs: Inputs, context: Context) -> Embedding:
    from trainables.evaluate.embedding import embed
    from trainables.payloads import DistilledSet, TrainedModel

    return embed(config, TrainedModel.load(inputs["encoder"]), DistilledSet.load(inputs["set"]), context)


def _tsne(config: TsneConfig, inputs: Inputs, context: Context) -> TsneMap:
    from trainables.evaluate.embedding import joint_tsne
    from trainables.payloads import Embedding, TrainedModel

    embeddings = [Embedding.load(inputs[f"embedding.{index}"]) for index in range(len(config.sources))]
    return joint_tsne(config, TrainedModel.load(inputs["encoder"]), embeddings, context)


_COMPUTATIONS: dict[Kind, Callable[[Any, Inputs, Context], Payload]] = {
    "experts": _experts,
    "distill": _distill,
    "ensemble": _ensemble,
    "train": _train,
    "accuracy": _accuracy,
    "attack": _attack,
    "robustness": _robustness,
    "privacy": _privacy,
    "embedding": _embedding,
    "tsne": _tsne,
}
"""The configuration is of the kind's own type."""
