"""The axes of a sweep, one record each: what may vary from point to point, and where its value is used and shown.

What lists axes reads the records: the grammar and its JSON schema, the expansion of grids, the identity of a point, the
filters, labels and run names, the columns of the measurements, the blocks of the report. A new axis is a field of
``AxisValues`` with its record, and the line that uses the value: a stage's configuration.
"""

# No `from __future__ import annotations`: the records stand in annotations, which are evaluated here.
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args, get_type_hints

from pydantic import AfterValidator, Field, WithJsonSchema

from ddray.plan.annotations import NAME, Count, OneOf, Seed, complaint
from trainables.configs import Augmentation, Init, RecipeConfig, TrainingAugmentation
from trainables.data.known import KNOWN, KnownDataset
from trainables.methods import METHODS
from trainables.networks import NETWORKS, name_pattern, parse
from trainables.registry import Method
from trainables.teachers import name_pattern as teacher_pattern
from trainables.teachers import parse as parse_teacher


def _architecture(name: str) -> str:
    try:
        parse(name)
    except ValueError as error:
        raise complaint(str(error)) from None
    return name


def _labels(name: str) -> str:
    try:
        parse_teacher(name)
    except ValueError as error:
        raise complaint(str(error)) from None
    return name


DatasetName = Annotated[
    str, WithJsonSchema({"anyOf": [{"enum": list(KNOWN), "type": "string"}, {"type": "string", "pattern": NAME}]})
]
ArchitectureName = Annotated[
    str,
    AfterValidator(_architecture),
    WithJsonSchema(
        {"anyOf": [{"enum": list(NETWORKS), "type": "string"}, {"type": "string", "pattern": name_pattern()}]}
    ),
]
"""A network of ``trainables.networks``: its name, or its name with options."""
LabelsName = Annotated[
    str,
    AfterValidator(_labels),
    WithJsonSchema(
        {"anyOf": [{"const": "teacher", "type": "string"}, {"type": "string", "pattern": teacher_pattern()}]}
    ),
]
"""A teacher of ``trainables.teachers``: its name, or its name with options."""

ReportRole: TypeAlias = Literal["column", "row", "block", "agrees", "repeat"]
"""Where the report puts the axis: its values are columns of a table, rows of it, or tables (blocks) of their own; all
points of a block agree on it; or means are taken over it."""


class Word(NamedTuple):
    """An axis in a text that names a point."""

    position: int
    """Words stand in ascending order."""
    text: Callable[[Any, Any], str | None]
    """From the axis' value, never None, and the point: the word, or None for none."""


class NullShown(NamedTuple):
    """What null of an axis is called beside other values of it."""

    column: str
    """Of the measurements, that says which of the words."""
    words: Mapping[str, str]
    """By its values; where it has none of these, null stays."""


HARD_LABELS = "hard"
"""What null of the axis ``labels`` is called, where a set has no soft labels of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is known of one axis. Its name is that of its field in ``AxisValues``."""

    given: Any
    """Type of one value in a sweep file, with pydantic's annotations."""
    description: str
    """In the JSON schema, for editors."""
    default: Any = None
    """Value where it is left out, or a function of the ``Method`` where that decides."""
    by_method: bool = False
    """Only methods that name it in ``uses`` use it; it is null for others."""
    of_set: bool = False
    """Only points whose network is trained on a set use it; it is null for others (``full``)."""
    draws_from: str | None = None
    """The axis that says how many are drawn; where that is null there is nothing to draw, and this is null too."""
    null_means: Callable[[KnownDataset, RecipeConfig], Any] | None = None
    """The value that says the same as null, by data set and recipe. It becomes null, because two points that say the
    same would be one network, counted twice in every mean."""
    of_training: bool = False
    """Whether it belongs to the network that is trained; a distilled set does not depend on it."""
    label: Word | None = None
    """In a stage's label: ``train dm cifar10 ipc=10 init=real convnet3 seed=0``."""
    run_name: Word | None = None
    """In the name of an MLflow run: ``dm-cifar10-ipc10-real-convnet3-s0``."""
    report: ReportRole
    null_shown: NullShown | None = None
    """Of a row of the report: what points have there for null, where others have a value. Null in a report is what has
    no value, as ``full`` has no ipc."""
    meaning: str
    """Of its column in ``measurements.parquet``."""

    def used_by(self, name: str, method: Method) -> bool:
        """Whether points of a method use it; it is null for others.

        Args:
            name: Of the axis.
            method: Theirs.
        """
        return (not self.by_method or name in method.uses) and (not self.of_set or method.of_sets)

    def left_out(self, method: Method) -> Any:
        """The value where a grid does not name the axis."""
        return self.default(method) if callable(self.default) else self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisValues:
    """One value per axis; None where the method does not use the axis, and as its record says."""

    method: Annotated[
        str,
        Axis(
            given=Annotated[str, OneOf(tuple(METHODS))],
            description="Distillation methods.",
            label=Word(1, lambda method, _: method),
            run_name=Word(1, lambda method, _: method),
            report="column",
            meaning="random, full, or a method of distillation",
        ),
    ]
    dataset: Annotated[
        str,
        Axis(
            given=DatasetName,
            description="Data sets: known ones, or declared under datasets.",
            label=Word(2, lambda dataset, _: dataset),
            run_name=Word(2, lambda dataset, _: dataset),
            report="block",
            meaning="as named in the sweep",
        ),
    ]
    ipc: Annotated[
        int | None,
        Axis(
            given=Count,
            description="Distilled images per class.",
            by_method=True,
            label=Word(3, lambda ipc, _: f"ipc={ipc}"),
            run_name=Word(3, lambda ipc, _: f"ipc{ipc}"),
            report="row",
            meaning="distilled images per class; null for full",
        ),
    ] = None
    init: Annotated[
        str | None,
        Axis(
            given=Init,
            description="What distillation starts from. Left out: as the method's authors.",
            default=lambda method: method.init,
            by_method=True,
            label=Word(4, lambda init, _: f"init={init}"),
            run_name=Word(4, lambda init, _: init),
            report="row",
            meaning="noise or real; null for methods without a start",
        ),
    ] = None
    architecture: Annotated[
        str,
        Axis(
            given=ArchitectureName,
            description=(
                "Network that is trained: convnet3, resnet18, vgg16, or one of them with depth, width and norm, "
                "such as convnet3-d4 or resnet18-w32-instance. Left out: convnet3."
            ),
            default="convnet3",
            of_training=True,
            label=Word(8, lambda architecture, _: architecture),
            run_name=Word(7, lambda architecture, _: architecture),
            report="block",
            meaning="network that is trained",
        ),
    ]
    seed: Annotated[
        int,
        Axis(
            given=Seed,
            description="Seed of the training repeat. Left out: 0.",
            default=0,
            of_training=True,
            label=Word(9, lambda seed, _: f"seed={seed}"),
            run_name=Word(8, lambda seed, _: f"s{seed}"),
            report="repeat",
            meaning="seed of the training repeat",
        ),
    ]
    distill_seed: Annotated[
        int | None,
        Axis(
            given=Seed,
            description="Seed of the distilled set. Left out: 0.",
            default=0,
            by_method=True,
            label=Word(7, lambda seed, _: f"distill_seed={seed}" if seed else None),
            run_name=Word(9, lambda seed, _: f"d{seed}" if seed else None),
            report="repeat",
            meaning="seed of the distilled set",
        ),
    ] = None
    origin_per_class: Annotated[
        int | None,
        Axis(
            given=Count | None,
            description="Training images per class that are distilled. null or left out: all of them.",
            label=Word(5, lambda count, point: f"origin={count}/{point.origin_draw}"),
            run_name=Word(5, lambda count, point: f"origin{count}.{point.origin_draw}"),
            report="block",
            meaning="images of each class that were distilled; null: all of them, or not equally many",
        ),
    ] = None
    origin_draw: Annotated[
        int | None,
        Axis(
            given=Seed,
            description="Which random draw of those images. Left out: 0.",
            default=0,
            draws_from="origin_per_class",
            report="block",
            meaning="which draw of those images; null: all of them",
        ),
    ] = None
    num_classes: Annotated[
        int | None,
        Axis(
            given=Annotated[int, Field(ge=2)] | None,
            description="Classes that take part. null or left out: all of them.",
            null_means=lambda dataset, _: dataset.num_classes,
            label=Word(6, lambda count, point: f"classes={count}/{point.class_draw or 0}"),
            run_name=Word(6, lambda count, point: f"classes{count}.{point.class_draw}"),
            report="block",
            meaning="classes that take part",
        ),
    ] = None
    class_draw: Annotated[
        int | None,
        Axis(
            given=Seed,
            description="Which draw of classes; 0: the first ones. Left out: 0.",
            default=0,
            draws_from="num_classes",
            report="block",
            meaning="which draw of classes; null: all of them",
        ),
    ] = None
    distill_aug: Annotated[
        str | None,
        Axis(
            given=Augmentation,
            description="Augmentation while distilling. Left out: dsa.",
            default="dsa",
            by_method=True,
            report="row",
            meaning="augmentation while distilling",
        ),
    ] = None
    train_aug: Annotated[
        str | None,
        Axis(
            given=TrainingAugmentation,
            description="Augmentation while training. Left out: the protocol's own.",
            null_means=lambda _, recipe: recipe.augmentation,
            of_training=True,
            report="agrees",
            meaning="augmentation while training",
        ),
    ] = None
    labels: Annotated[
        str | None,
        Axis(
            given=LabelsName | None,
            description=(
                "What labels the images of a set: teacher, or teacher with a protocol, epochs, a temperature, and "
                "online for every batch anew, such as teacher-dsa1000-e50-t4. null or left out: the set's own labels, "
                "soft ones of datm, else hard ones."
            ),
            of_set=True,
            of_training=True,
            label=Word(8, lambda labels, _: f"labels={labels}"),
            run_name=Word(7, lambda labels, _: labels),
            report="row",
            null_shown=NullShown("label_kind", {"hard": HARD_LABELS, "soft": "own"}),
            meaning="teacher that labelled the images (docs/sweep-files.md); null: they have the set's own labels",
        ),
    ] = None


_HINTS = get_type_hints(AxisValues, include_extras=True)
AXES: Mapping[str, Axis] = {name: hint.__metadata__[0] for name, hint in _HINTS.items()}
"""The record of each axis, in the order of the documentation."""


def in_report(*roles: ReportRole) -> tuple[str, ...]:
    """The axes that the report puts into one of these roles."""
    return tuple(name for name, axis in AXES.items() if axis.report in roles)


def is_count(axis: str) -> bool:
    """Whether values are whole numbers; else they are names."""
    kind = get_type_hints(AxisValues)[axis]
    return int in (kind, *get_args(kind))


def _in_order(words: Mapping[str, Word | None]) -> tuple[tuple[str, Word], ...]:
    placed = [(axis, word) for axis, word in words.items() if word is not None]
    return tuple(sorted(placed, key=lambda entry: entry[1].position))


_LABEL = _in_order({name: axis.label for name, axis in AXES.items()})
_LABEL_OF_SET = tuple((name, word) for name, word in _LABEL if not AXES[name].of_training)
_RUN_NAME = _in_order({name: axis.run_name for name, axis in AXES.items()})


def _words(point: AxisValues, words: Iterable[tuple[str, Word]], instead: Mapping[str, Any]) -> Iterator[str]:
    for axis, word in words:
        value = instead[axis] if axis in instead else getattr(point, axis)
        if value is not None and (text := word.text(value, point)) is not None:
            yield text


def label_words(point: AxisValues, *, training: bool, instead: Mapping[str, Any]) -> Iterator[str]:
    """What a stage's label says of a point.

    Args:
        point: One that needs the stage.
        training: Whether the stage depends on a trained network; without one, axes of the training are not named.
        instead: Values that replace the point's; None: not named.
    """
    return _words(point, _LABEL if training else _LABEL_OF_SET, instead)


def run_name(point: AxisValues) -> str:
    """Name of a point's MLflow run; draws, subsets and further seeds follow where they are not the first."""
    return "-".join(_words(point, _RUN_NAME, {}))
