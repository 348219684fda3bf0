"""What was imported, in a plan: an evaluation as a sweep of one grid, or points of a sweep that name it. Light."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddray.errors import RequestError, show
from ddray.external.evaluation import FILE, Evaluation, FileContent, load_evaluation
from ddray.plan.datasets import Build, DatasetInfo, resolve
from ddray.plan.feasible import path_of
from ddray.plan.imported import NAME, Imported
from ddray.plan.keys import digest, short
from ddray.plan.points import DatasetDecl, FrozenValues, Grid, GridPoint, Sweep
from ddray.results import results_of
from ddray.settings import Folders
from trainables.configs import DistillConfig, ExternalConfig, NetworkConfig, OriginConfig
from trainables.data.known import class_subset
from trainables.methods import EXTERNAL
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
    settings = _settings_of(evaluation)
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


def _settings_of(evaluation: Evaluation) -> dict[str, Any]:
    """What tells points of one file from those of others."""
    content = evaluation.content
    assert content is not None
    members = {"members": digest(content.members.key_material())[:12]} if content.members is not None else {}
    settings: dict[str, Any] = {"file": evaluation.sha256[evaluation.kind], **members}
    if evaluation.kind == "set":
        settings |= {"factor": evaluation.factor, "space": evaluation.space}
    return settings


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


def imports_of(
    points: Sequence[GridPoint], datasets: Mapping[str, DatasetInfo], folders: Folders, build: Build
) -> tuple[list[GridPoint], dict[str | None, Imported]]:
    """The points of a sweep with what its points of the method ``external`` are about.

    Args:
        points: Of the whole sweep.
        datasets: Its data sets, by name.
        folders: Where results are.
        build: Decodes a data set (see ``ddray.plan.datasets``).

    Returns:
        The points, in whose settings the file's digest stands too; and what they are about, by name.

    Raises:
        RequestError: A point names nothing that was imported, or something that does not go with it.
    """
    evaluations: dict[str | None, Evaluation] = {}
    imported: dict[str | None, Imported] = {}
    complete: dict[str, GridPoint] = {}
    problems: list[str] = []
    for point in points:
        if point.method != EXTERNAL:
            complete[point.hash] = point
            continue
        name = point.settings.get(NAME)
        try:
            if name not in evaluations:
                evaluations[name] = _imported_before(name, folders)
            evaluation = evaluations[name]
            _agree(point, evaluation, info_of(evaluation, folders, build, read=False), datasets[point.dataset])
        except _Unfit as error:
            problems.append(point.grid.say(error.path, str(error)))
            continue
        imported[name] = subject_of(evaluation, datasets[point.dataset])
        ready = _point_in_sweep(point, name, evaluation)
        complete.setdefault(ready.hash, ready)
    if problems:
        raise RequestError(list(dict.fromkeys(problems)))
    return list(complete.values()), imported


class _Unfit(Exception):
    """What was imported does not go with a point."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(what)
        self.path = path


_SETTING = f"settings.{EXTERNAL}.{NAME}"


def _imported_before(name: str | None, folders: Folders) -> Evaluation:
    """The finished request of this name."""
    if name is None:
        raise _Unfit(
            "axes.method",
            f"method {EXTERNAL} needs a name; got no {_SETTING}; expected what ddray evaluate read from a file: "
            "ddray evaluate --set FILE --name NAME --import-only.",
        )
    path = results_of(folders, name).folder / FILE
    if not path.is_file():
        known = sorted(found.parent.name for found in path.parent.parent.glob(f"*/{FILE}"))
        raise _Unfit(
            _SETTING,
            f"nothing of this name was imported; got {show(name)}; expected {', '.join(known) or 'a name'}. Import it: "
            f"ddray evaluate --set FILE --name {name} --import-only.",
        )
    evaluation = load_evaluation(path)
    if evaluation.content is None:
        raise _Unfit(_SETTING, f"its files were never read; got {path}. Run ddray evaluate again.")
    return evaluation


def _agree(point: GridPoint, evaluation: Evaluation, theirs: DatasetInfo, ours: DatasetInfo) -> None:
    """Raise where a point is not about the images, classes or network of what was imported."""
    content = evaluation.content
    assert content is not None
    members = content.members
    classes = tuple(range(ours.config.num_classes))
    if point.num_classes is not None:
        classes = class_subset(ours.config.num_classes, point.num_classes, point.class_draw or 0)
    said = [
        ("dataset", point.dataset, evaluation.dataset, ours.config == theirs.config),
        ("num_classes", _named(classes), _named(evaluation.classes), classes == evaluation.classes),
        ("origin_per_class", point.origin_per_class, members and members.per_class, _same_images(point, members)),
    ]
    if evaluation.kind == "set":
        said.append(("ipc", point.ipc, content.ipc, point.ipc == content.ipc))
    else:
        (own,) = evaluation.architectures
        said.append(("architecture", point.architecture, own, parse(point.architecture) == parse(own)))
    for axis, got, expected, agrees in said:
        if not agrees:
            raise _Unfit(
                path_of(point.grid, axis, getattr(point, axis)),
                f"{evaluation.name} was imported for another value; got {show(got)}; expected {show(expected)}. Leave "
                f"the pair out (exclude), or put method {EXTERNAL} into a grid of its own.",
            )


def _same_images(point: GridPoint, members: OriginConfig | None) -> bool:
    """Whether a point that is about some images of each class can stand for a set that was made of these."""
    if point.origin_per_class is None:
        return True
    if members is None or members.per_class != point.origin_per_class:
        return False
    return members.kind != "draw" or (members.draw, members.block) == (point.origin_draw or 0, None)


def _named(classes: tuple[int, ...]) -> str:
    return ",".join(map(str, classes))


def _point_in_sweep(point: GridPoint, name: str | None, evaluation: Evaluation) -> GridPoint:
    """A point with what tells the file from others. A network was trained by nobody's recipe, once."""
    settings = FrozenValues({NAME: name, **_settings_of(evaluation)})
    if evaluation.kind == "set":
        return replace(point, settings=settings)
    nothing: dict[str, Any] = {"ipc": None, "train_aug": None, "labels": None, "seed": 0}
    return replace(point, settings=settings, protocol=EXTERNAL, train=FrozenValues({}), **nothing)


def info_of(evaluation: Evaluation, folders: Folders, build: Build, *, read: bool) -> DatasetInfo:
    nothing = Sweep("", "", Path(), (), (), _declared(evaluation), {}, None, "")
    name = evaluation.dataset
    return resolve(nothing, [name], folders.data, folders.cache, build, read=[name] if read else ())[name]


def _declared(evaluation: Evaluation) -> dict[str, DatasetDecl]:
    return {} if evaluation.declared is None else {evaluation.dataset: evaluation.declared}
