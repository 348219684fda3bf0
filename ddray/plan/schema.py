"""What a sweep file may say: its models, and the JSON schema made from them.

How files, profiles and ``--set`` are put together stands in ``grammar.py``. Names come from where they are defined:
methods from ``trainables.methods``, recipes from ``trainables.protocols``, data sets from ``trainables.data.known``,
settings from the stage configurations. So a new method or setting is part of the grammar without an edit here.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from ddray.plan.annotations import (
    ByIpc,
    Count,
    Given,
    KeyNames,
    Left,
    Name,
    NotNull,
    OneOf,
    RowCount,
    ValueList,
    accepted_at_each_ipc,
    accepted_by,
    lists_are_sets,
    one_length,
)
from ddray.plan.axes import AXES
from ddray.plan.kinds import STAGE_KINDS
from trainables.configs import (
    KINDS,
    PRESET,
    Config,
    NetworkSettings,
    RecipeConfig,
)
from trainables.data.known import KNOWN
from trainables.methods import METHODS
from trainables.presets import alternatives
from trainables.protocols import PROTOCOLS

GRAMMAR = 1
"""Version of the grammar, the file's key ``ddray``."""

DEFAULT_PROTOCOL = "paper2023"
"""Recipe of a grid that names none: the study that the tables stand beside."""

EVALUATIONS: dict[str, type[Config]] = {
    kind: record.settings for kind, record in STAGE_KINDS.items() if record.settings is not None
}
"""What a sweep can ask for beyond accuracy, which every point gets, each with its settings."""

RESOURCE_NAMES: tuple[str, ...] = (*KINDS, *METHODS)
RESOURCE_KEYS = (*RESOURCE_NAMES, *(f"{kind}.{method}" for kind in KINDS for method in METHODS))

_SAME_FOR_ALL = frozenset(NetworkSettings.model_fields)
"""Settings that decide what is possible at all; they do not vary with the images per class."""


class Model(BaseModel):
    """Base of what a sweep file holds: immutable, strict types, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_MADE_OF: dict[str, type[Config]] = {}
"""Definition in the JSON schema -> the configuration whose fields, and docstrings under them, it shows."""


def _partial(
    name: str, config: type[Config], notes_of: Mapping[str, Sequence[Any]] | None = None, by_ipc: Collection[str] = ()
) -> type[BaseModel]:
    """A model of a configuration's fields, none of them required.

    Args:
        name: Of the model.
        config: The configuration.
        notes_of: Field -> further annotations.
        by_ipc: Fields that may vary with the images per class.
    """
    annotated: Any = Annotated
    fields: dict[str, Any] = {}
    for field, info in config.model_fields.items():
        notes = (*info.metadata, *(notes_of or {}).get(field, ()), *([ByIpc()] if field in by_ipc else []))
        kind = annotated[(info.annotation, *notes)] if notes else info.annotation
        fields[field] = (kind, Field(default=None, description=info.description))
    model: type[BaseModel] = create_model(name, __base__=Model, __doc__=config.__doc__, **fields)
    _MADE_OF[name] = config
    return model


def _by_name(name: str, doc: str, entries: Mapping[str, Any]) -> type[BaseModel]:
    """A model with one optional field per name."""
    fields: dict[str, Any] = {entry: (annotation, Field(default=None)) for entry, annotation in entries.items()}
    model: type[BaseModel] = create_model(name, __base__=Model, __doc__=doc, **fields)
    return model


def _evaluations() -> type[BaseModel]:
    annotated: Any = Annotated
    special: dict[str, dict[str, Any]] = {"privacy": {"rows": (RowCount(),)}}
    entries = {}
    for kind, config in EVALUATIONS.items():
        model = _partial(config.__name__, config, special.get(kind))
        entries[kind] = annotated[dict[str, Any], Given(model, lists_are_sets, accepted_by(config))]
    return _by_name("Evaluations", "What is measured beyond accuracy, each with its settings ({}: defaults).", entries)


def _settings() -> type[BaseModel]:
    annotated: Any = Annotated
    entries = {}
    for name, method in METHODS.items():
        varying = set(method.settings.model_fields) - _SAME_FOR_ALL
        model = _partial(method.settings.__name__, method.settings, by_ipc=varying)
        if names := alternatives(name):
            said = (
                f"Named preset that left-out settings come from: {', '.join(names)}. Left out: the method's authors'."
            )
            kind = annotated[annotated[str, OneOf(names)] | None, NotNull()]
            preset: Any = {PRESET: (kind, Field(None, description=said))}
            model = create_model(model.__name__, __base__=model, __doc__=model.__doc__, **preset)
        entries[name] = annotated[dict[str, Any], Given(model, accepted_at_each_ipc(method.settings))]
    return _by_name("Settings", "Settings by method; what is not given comes from the presets.", entries)


def _axes() -> type[BaseModel]:
    annotated: Any = Annotated
    several: Any = tuple
    fields: dict[str, Any] = {
        name: (annotated[several[axis.given, ...] | None, ValueList()], Field(None, description=axis.description))
        for name, axis in AXES.items()
    }
    doc = "Values that vary: a list, or one value. The sweep is their product."
    model: type[BaseModel] = create_model("Axes", __base__=Model, __doc__=doc, **fields)
    return model


# --- the file -----------------------------------------------------------------------------------------------------

Axes = Annotated[dict[str, Any], Given(_axes())]
"""Axis -> its values."""


class GridBlock(Model):
    """What defaults and a grid may hold."""

    protocol: Left[Annotated[str, OneOf(tuple(PROTOCOLS))]] = Field(
        None, description=f"Named training recipe. Left out: {DEFAULT_PROTOCOL}."
    )
    train: Left[Annotated[dict[str, Any], Given(_partial("Train", RecipeConfig), one_length)]] = Field(
        None, description="Values that replace the recipe's; the protocol is then shown as NAME*."
    )
    axes: Left[Axes] = Field(None, description="Values that vary.")
    exclude: Left[tuple[Axes, ...]] = Field(
        None, description="Combinations to leave out: a point goes when all named axes match."
    )
    settings: Left[Annotated[dict[str, dict[str, Any]], Given(_settings())]] = Field(
        None, description="Settings by method."
    )
    evaluations: Left[Annotated[dict[str, dict[str, Any]], Given(_evaluations())]] = Field(
        None, description="What is measured beyond accuracy and fairness, which always are."
    )


class FileGrid(GridBlock):
    """A grid where a file first names it."""

    profiles: Left[Annotated[tuple[Name, ...], Field(min_length=1)]] = Field(
        None, description="The grid is part of the sweep with one of these profiles alone. Left out: always."
    )


class DatasetPatch(Model):
    """Some values of a declared data set."""

    like: Left[Annotated[str, OneOf(tuple(KNOWN))]] = Field(
        None, description="Known data set whose constants, presets and label column apply."
    )
    folder: Left[Annotated[str, Field(min_length=1)]] = Field(None, description="Folder below DDRAY_DATA.")
    resize: Left[Annotated[int, Field(ge=4, le=256)]] = Field(None, description="Height and width in pixels.")
    constants: Left[Annotated[str, OneOf(tuple(KNOWN))]] = Field(
        None, description="Known data set whose mean and deviation normalise the images. Left out: like."
    )
    classes: Left[Annotated[int, Field(ge=2)]] = Field(
        None, description="How many classes the folder has. Left out: as many as like."
    )


class DatasetBlock(Model):
    """A folder that is not a known data set, or a known one at another size or with other constants."""

    like: Annotated[str, OneOf(tuple(KNOWN))] = Field(
        description="Known data set whose constants, presets and label column apply."
    )
    folder: Left[Annotated[str, Field(min_length=1)]] = Field(None, description="Folder below DDRAY_DATA.")
    resize: Left[Annotated[int, Field(ge=4, le=256)]] = Field(None, description="Height and width in pixels.")
    constants: Left[Annotated[str, OneOf(tuple(KNOWN))]] = Field(
        None, description="Known data set whose mean and deviation normalise the images. Left out: like."
    )
    classes: Left[Annotated[int, Field(ge=2)]] = Field(
        None, description="How many classes the folder has. Left out: as many as like."
    )


class Resource(Model):
    """What a job of this kind or method asks for."""

    cpus: Left[Count] = Field(None, description="CPUs, and threads of the computation. Left out: 1.")
    gpu: Left[Annotated[float, Field(ge=0, le=1)]] = Field(None, description="Share of one GPU.")


class Notify(Model):
    """What to run when the sweep ends."""

    command: Annotated[str, Field(min_length=1)] = Field(
        description="Shell command; {sweep} and {status} are filled in."
    )


Resources = Annotated[dict[Annotated[str, OneOf(RESOURCE_KEYS)], Resource] | None, NotNull(), KeyNames(RESOURCE_NAMES)]


class Patch(Model):
    """What a profile or ``--set`` lays over the file."""

    datasets: Left[dict[Name, DatasetPatch]] = Field(None, description="Declared data sets.")
    defaults: Left[GridBlock] = Field(None, description="Replaces values of every grid.")
    grids: Left[dict[Name, GridBlock | None]] = Field(None, description="Replaces values of one grid; null removes it.")
    resources: Resources = Field(None, description="Resources by stage kind or method.")
    notify: Left[Notify] = Field(None, description="What to run when the sweep ends.")


class SweepFile(Model):
    """A sweep of dataset distillation: which points are computed, and what is measured on each."""

    ddray: Annotated[int, Field(ge=GRAMMAR, le=GRAMMAR), WithJsonSchema({"const": GRAMMAR})] = Field(
        description="Version of this grammar."
    )
    description: Left[str] = Field(None, description="Free text.")
    datasets: Left[dict[Name, DatasetBlock]] = Field(
        None, description="Folders under DDRAY_DATA that are not a known data set, or known ones at another size."
    )
    defaults: Left[GridBlock] = Field(None, description="Values of every grid of this file that does not set its own.")
    grids: Left[dict[Name, FileGrid]] = Field(None, description="Named grids; the sweep is their union.")
    include: Left[tuple[Annotated[str, Field(min_length=1)], ...]] = Field(
        None, description="Sweep files whose grids make up this sweep, instead of grids; relative to this file."
    )
    resources: Resources = Field(None, description="Resources by stage kind or method.")
    notify: Left[Notify] = Field(None, description="What to run when the sweep ends.")
    profiles: Left[dict[Name, Patch]] = Field(None, description="Named patches, chosen with --profile.")


# --- the JSON schema ----------------------------------------------------------------------------------------------


@functools.cache
def json_schema() -> dict[str, Any]:
    """The grammar as JSON schema (2020-12), from which editors complete keys and values."""
    schema = SweepFile.model_json_schema()
    for name, config in _MADE_OF.items():
        shown = schema["$defs"].get(name, {}).get("properties", {})  # longer names where two models share one
        for field, text in _field_docs(config).items():
            if field in shown:
                shown[field].setdefault("description", text)
    header = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ddray sweep"}
    return {**header, **_tidy(schema)}


def _tidy(schema: Any, named: bool = False) -> Any:
    """Without the generated titles and the nulls that stand for "left out". ``named``: the keys are names."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if not named and (key == "title" or (key == "default" and value is None)):
            continue
        if not named and key == "description" and isinstance(value, str):
            kept[key] = " ".join(value.split())
        else:
            kept[key] = _tidy(value, named=not named and key in ("properties", "$defs"))
    return kept


def _field_docs(config: type[Config]) -> dict[str, str]:
    """The docstrings under a configuration's fields; none where its source is not at hand."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not base.__module__.startswith("trainables."):
            continue
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except OSError:
            continue
        assert isinstance(definition, ast.ClassDef), base
        for line, after in itertools.pairwise(definition.body):
            match line, after:
                case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[field] = " ".join(text.split())
    return docs
