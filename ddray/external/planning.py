"""An evaluation as a sweep of one grid: its points, and the stage that was imported. Light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddray.external.evaluation import Evaluation, FileContent
from ddray.plan.datasets import Build, DatasetInfo, resolve
from ddray.plan.imported import EXTERNAL, Imported
from ddray.plan.keys import digest, short
from ddray.plan.points import DatasetDecl, Grid, GridPoint, Sweep
from ddray.settings import Folders
from trainables.configs import DistillConfig, ExternalConfig, NetworkConfig, OriginConfig
from trainables.networks import parse


def sweep_of(evaluation: Evaluation, path: Path) -> Sweep:
    """The evaluation as a sweep of one grid.

    Args:
        evaluation: Checked.
        path: Of its ``evaluate.json``.
    """
    grid = Grid(
        name=EXTERNAL,
        file=str(path),
        exclude=(),
        exclude_inherited=False,
        settings={},
        axes={"seed": evaluation.seeds, "architecture": evaluation.architectures},
        protocol=evaluation.protocol,
        train=evaluation.train,
        evaluations=evaluation.evaluations,
    )
    return Sweep(
        name=evaluation.name,
        stem=evaluation.name,
        path=path,
        files=(path,),
        grids=(grid,),
        datasets=_declared(evaluation),
        resources={},
        notify=None,
        digest=digest(evaluation.requested),
    )


def subject_of(evaluation: Evaluation, info: DatasetInfo) -> Imported:
    """What the evaluation is about, once its files have been read."""
    content = evaluation.content
    assert content is not None
    label = f"{EXTERNAL} {evaluation.dataset} file={short(evaluation.sha256[evaluation.kind])}"
    everything = OriginConfig(classes=evaluation.classes)
    if evaluation.kind == "set":
        assert content.ipc is not None
        settings = {
            "file": evaluation.sha256["set"],
            "labels": evaluation.sha256.get("labels") or evaluation.labels,
            "nth": evaluation.nth,
            "space": evaluation.space,
            "factor": evaluation.factor,
            "mean": evaluation.mean and list(evaluation.mean),
            "std": evaluation.std and list(evaluation.std),
            **_further(evaluation, content),
        }
        # Whose images it is of changes nothing about the set: its members are those of the trainings.
        made = DistillConfig(
            method=EXTERNAL,
            method_version=1,
            dataset=info.config,
            origin=everything,
            ipc=content.ipc,
            init=None,
            augmentation=None,
            network=None,
            settings=settings,
            distill_seed=0,
        )
        return Imported(made, content.members, evaluation.classes, f"distill {label} ipc={content.ipc}")
    assert evaluation.mean is not None
    assert evaluation.std is not None
    (architecture,) = evaluation.architectures
    network = NetworkConfig.of(
        parse(architecture),
        image_size=info.config.image_size,
        channels=info.config.channels,
        num_classes=len(evaluation.classes),
    )
    trained = ExternalConfig(
        dataset=info.config,
        origin=content.members or everything,
        network=network,
        mean=evaluation.mean,
        std=evaluation.std,
        asked=content.members is not None,
        file=evaluation.sha256["model"],
    )
    return Imported(trained, content.members, evaluation.classes, f"train {label} {architecture}")


def points_of(evaluation: Evaluation, info: DatasetInfo, grid: Grid) -> Iterator[GridPoint]:
    """One point per architecture and seed."""
    content = evaluation.content
    assert content is not None
    subset = len(evaluation.classes) < info.config.num_classes
    members = {"members": digest(content.members.key_material())[:12]} if content.members is not None else {}
    settings: dict[str, Any] = {"file": evaluation.sha256[evaluation.kind], **members}
    if evaluation.kind == "set":
        settings |= {"factor": evaluation.factor, "space": evaluation.space}
    for architecture in evaluation.architectures:
        for seed in evaluation.seeds:
            yield GridPoint(
                method=EXTERNAL,
                dataset=evaluation.dataset,
                ipc=content.ipc,
                architecture=architecture,
                seed=seed,
                num_classes=len(evaluation.classes) if subset else None,
                settings=settings,
                protocol=evaluation.protocol,
                train=evaluation.train,
                evaluations=evaluation.evaluations,
                grids=(EXTERNAL,),
                grid=grid,
            )


def _further(evaluation: Evaluation, content: FileContent) -> dict[str, Any]:
    """Facts that only some sets have: a set without them keeps the key that it had before they were asked for."""
    sha256 = evaluation.sha256
    said: dict[str, Any] = {
        "zca": (evaluation.space == "whitened" and not evaluation.unwhiten) or None,
        "label_kind": evaluation.label_form and "soft",
        "label_form": evaluation.label_form,
        "temperature": evaluation.temperature,
        "label_source": evaluation.label_source,
        "image_classes": sha256.get("image-classes") or evaluation.image_classes,
        "learned_lr": sha256.get("learned-lr") or evaluation.learned_lr,
        "learned_for": evaluation.learned_for,
        "images_per_class": None if content.fewest is None else [content.fewest, content.most],
    }
    return {name: value for name, value in said.items() if value is not None}


def info_of(evaluation: Evaluation, folders: Folders, build: Build, *, read: bool) -> DatasetInfo:
    nothing = Sweep("", "", Path(), (), (), _declared(evaluation), {}, None, "")
    name = evaluation.dataset
    return resolve(nothing, [name], folders.data, folders.cache, build, read=[name] if read else ())[name]


def _declared(evaluation: Evaluation) -> dict[str, DatasetDecl]:
    return {} if evaluation.declared is None else {evaluation.dataset: evaluation.declared}
