"""Stage kind -> computation. Everything heavy is imported when the stage runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from trainables.configs import AccuracyConfig, DistillConfig, Kind, StageConfig, TrainConfig
from trainables.context import Context
from trainables.methods import METHODS

if TYPE_CHECKING:
    from trainables.payloads import DistilledSet, Metrics, TrainedModel


def run(
    kind: Kind, config: StageConfig, inputs: Mapping[str, Path], context: Context
) -> DistilledSet | TrainedModel | Metrics:
    """Compute one stage.

    Args:
        kind: What kind of stage.
        config: Its configuration, of the kind's own type.
        inputs: Folders of the payloads it needs, by role: ``expert.I`` for methods that learn from experts, ``set`` for
            ``train`` (unless it trains on the origin), ``model`` for ``accuracy``.
        context: Where it runs.

    Raises:
        ValueError: This version has no such stage or method.
        StageFailure: The computation cannot go on.
        Interrupted: A stop was asked for.
    """
    match kind:
        case "distill":
            assert isinstance(config, DistillConfig)
            return _distill(config, inputs, context)
        case "train":
            assert isinstance(config, TrainConfig)
            return _train(config, inputs, context)
        case "accuracy":
            assert isinstance(config, AccuracyConfig)
            return _accuracy(config, inputs["model"])
        case "experts" | "robustness" | "privacy" | "embedding":
            raise ValueError(
                f"stage: kind {kind!r} is not available in this version; expected distill, train or accuracy. "
                "Leave it out of the sweep."
            )
        case _:
            assert_never(kind)


def _distill(config: DistillConfig, inputs: Mapping[str, Path], context: Context) -> DistilledSet:
    from trainables.data.origins import load_origin
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
    return distill(origin, settings, DistillContext(config, context, inputs))


def _train(config: TrainConfig, inputs: Mapping[str, Path], context: Context) -> TrainedModel:
    from trainables.data.decode import decode, decode_labels
    from trainables.data.origins import load_origin, load_test, normalise
    from trainables.payloads import DistilledSet
    from trainables.train import train

    if config.on_origin:
        origin = load_origin(config.dataset, config.origin, context.data, context.cache, context.device)
        images, labels = origin.images, origin.labels
    else:
        distilled = DistilledSet.load(inputs["set"])
        assert distilled.facts["space"] == "pixel01", distilled.facts
        factor = distilled.facts["factor"]
        pixels = decode(distilled.images, factor)
        images = normalise(pixels, config.dataset.mean, config.dataset.std).to(context.device)
        labels = decode_labels(distilled.labels, factor).to(context.device)
    test = load_test(config.dataset, config.origin.classes, context.data, context.cache, context.device)
    return train(config, images, labels, test, context)


def _accuracy(config: AccuracyConfig, folder: Path) -> Metrics:
    from trainables.evaluate.accuracy import accuracy_rows, training_rows
    from trainables.evaluate.fairness import fairness_rows
    from trainables.payloads import Metrics, TrainedModel

    model = TrainedModel.load(folder)
    logits, labels = model.signals["test"].logits.numpy(), model.signals["test"].labels.numpy()
    rows = accuracy_rows(logits, labels, config.num_classes)
    return Metrics(rows + training_rows(model) + fairness_rows(logits, labels, config.num_classes))
