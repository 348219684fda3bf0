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
import json
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ddray.errors import show, suggest
from trainables.configs import (
    KINDS,
    TIERS,
    Augmentation,
    Config,
    EmbeddingSettings,
    Init,
    NetworkSettings,
    PrivacySettings,
    RecipeConfig,
    RobustnessSettings,
)
from trainables.data.known import KNOWN
from trainables.methods import METHODS
from trainables.networks import NETWORKS, name_pattern, parse
from trainables.protocols import PROTOCOLS

GRAMMAR = 1
"""Version of the grammar, the file's key ``ddray``."""

DEFAULT_PROTOCOL = "paper2023"
"""Recipe of a grid that names none: the study that the tables stand beside."""

EVALUATIONS: dict[str, type[Config]] = {
    "robustness": RobustnessSettings,
    "privacy": PrivacySettings,
    "embedding": EmbeddingSettings,
}
"""What a sweep can ask for beyond accuracy, which every point gets, each with its settings."""

RESOURCE_NAMES: tuple[str, ...] = (*KINDS, *METHODS)
RESOURCE_KEYS = (*RESOURCE_NAMES, *(f"{kind}.{method}" for kind in KINDS for method in METHODS))

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"
T = TypeVar("T")


# --- how a field is read ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneOf:
    """One name of a closed list."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


class _NotNull:
    """The field may be left out, but not be null: None is only how we hold "left out"."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "nullable", "a field that may be left out is declared `X | None`"
        inner: CoreSchema = schema["schema"]
        return inner


class _AxisValues:
    """A list of values, or one value standing for a list of one; not empty, nothing twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "nullable", "an axis may be left out"
        read = core_schema.no_info_before_validator_function(_as_values, schema["schema"])
        return core_schema.no_info_after_validator_function(_not_twice, read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        values = handler(schema)
        return {"anyOf": [values["items"], {**values, "minItems": 1, "uniqueItems": True}]}


def _as_values(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        return (value,)
    if not value:
        raise _complaint("an empty list; expected at least one value")
    return tuple(value)


def _not_twice(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        first = {value: place for place, value in reversed(list(enumerate(values)))}
        again = next(place for place, value in enumerate(values) if first[value] != place)
        raise _complaint(f"duplicate value {show(values[again])}; expected every value once", again)
    return values


class _KeyNames:
    """Of a mapping: the keys it may have."""

    def __init__(self, offered: Sequence[str]) -> None:
        self.offered = offered
        """The ones an editor lists."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        entries = handler(schema)
        value = entries["additionalProperties"]
        return {**entries, "properties": dict.fromkeys(self.offered, value)}


class _Given:
    """A mapping that a model checks, kept as the values that were given (no defaults), as JSON types."""

    def __init__(self, model: type[BaseModel], *rules: Callable[[dict[str, Any]], None]) -> None:
        self.model = model
        self.rules = rules
        """What holds between fields; each raises a complaint."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._keep, handler.generate_schema(self.model))

    def _keep(self, value: BaseModel) -> dict[str, Any]:
        given = value.model_dump(mode="json", exclude_unset=True, warnings=False)
        for rule in self.rules:
            rule(given)
        return given


def _lists_are_sets(given: dict[str, Any]) -> None:
    for name, items in given.items():
        if items == []:
            raise _complaint("an empty list; expected at least one value", name)
        if isinstance(items, list):
            for place, item in enumerate(items):
                if item in items[:place]:
                    raise _complaint(f"duplicate value {show(item)}; expected every value once", name, place)


def _one_length(given: dict[str, Any]) -> None:
    if given.get("epochs") is not None and given.get("steps") is not None:
        raise _complaint("epochs and steps are alternatives; got both; expected one of them", "steps")


def _accepted_by(config: type[Config]) -> Callable[[dict[str, Any]], None]:
    """The configuration's own rules between fields, with its defaults for what is not given."""

    def rule(given: dict[str, Any]) -> None:
        try:
            config.model_validate_json(json.dumps(given))
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error", "not possible together with the defaults of the rest")
            raise _complaint(str(cause), *first["loc"]) from None

    return rule


class _ByIpc:
    """A value for every number of images per class, or a mapping from such numbers to values."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._read, handler(source))

    def _read(self, value: Any, one: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, dict):
            return one(_as_tuple(value))
        wrong = [name for name in value if not re.fullmatch("[1-9][0-9]*", str(name))]
        if wrong:
            raise _complaint(
                f"not a number of images per class; got {show(wrong[0])}; expected an integer >= 1", wrong[0]
            )
        return {str(name): one(_as_tuple(each), name) for name, each in value.items()}

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        one = handler(schema)
        by_ipc = {"type": "object", "patternProperties": {"^[1-9][0-9]*$": one}}
        return {"anyOf": [one, {**by_ipc, "additionalProperties": False}]}


def _as_tuple(value: Any) -> Any:
    """YAML's sequence as the immutable one that strict models want."""
    return tuple(value) if isinstance(value, list) else value


_SAME_FOR_ALL = frozenset(NetworkSettings.model_fields)
"""Settings that decide what is possible at all; they do not vary with the images per class."""


def at_ipc(settings: Mapping[str, Any], ipc: int | None) -> dict[str, Any]:
    """A method's settings as given, for one number of images per class.

    A setting given by images per class, ``{1: …, 10: …}``, holds where the number is named; elsewhere it is as if it
    had been left out.
    """
    found = {}
    for name, value in settings.items():
        if not isinstance(value, dict):
            found[name] = value
        elif str(ipc) in value:
            found[name] = value[str(ipc)]
    return found


def _accepted_at_each_ipc(config: type[Config]) -> Callable[[dict[str, Any]], None]:
    """The configuration's own rules, for each number of images per class that is named, and for the others."""
    accepted = _accepted_by(config)

    def rule(given: dict[str, Any]) -> None:
        named = {ipc for value in given.values() if isinstance(value, dict) for ipc in value}
        for ipc in (None, *sorted(named, key=int)):
            accepted(at_ipc(given, None if ipc is None else int(ipc)))

    return rule


class _Rows:
    """Rows of the membership matrix: the name of a tier or a number. The choice between the two has words of its own,
    because the library names both sides and the first one wins."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._read, handler(source))

    def _read(self, value: Any, read: core_schema.ValidatorFunctionWrapHandler) -> Any:
        number, names = "an integer >= 4, a multiple of 2", ", ".join(TIERS)
        try:
            return read(value)
        except ValidationError:
            if isinstance(value, str):
                hint = suggest(value, list(TIERS))
                raise _complaint(f"unknown tier {show(value)}; known: {names}, or {number}. {hint}".rstrip()) from None
            what = "out of range" if type(value) is int else "wrong type"
            raise _complaint(f"{what}; got {show(value)}; expected {number}, or one of {names}") from None


def _complaint(what: str, *below: str | int) -> PydanticCustomError:
    """An error in our own words, at a path below the value that is being checked."""
    return PydanticCustomError("ddray", "{what}", {"what": what, "below": below})


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
        notes = (*info.metadata, *(notes_of or {}).get(field, ()), *([_ByIpc()] if field in by_ipc else []))
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
    special: dict[str, dict[str, Any]] = {"privacy": {"rows": (_Rows(),)}}
    entries = {}
    for kind, config in EVALUATIONS.items():
        model = _partial(config.__name__, config, special.get(kind))
        entries[kind] = annotated[dict[str, Any], _Given(model, _lists_are_sets, _accepted_by(config))]
    return _by_name("Evaluations", "What is measured beyond accuracy, each with its settings ({}: defaults).", entries)


def _settings() -> type[BaseModel]:
    annotated: Any = Annotated
    entries = {}
    for name, method in METHODS.items():
        varying = set(method.settings.model_fields) - _SAME_FOR_ALL
        model = _partial(method.settings.__name__, method.settings, by_ipc=varying)
        entries[name] = annotated[dict[str, Any], _Given(model, _accepted_at_each_ipc(method.settings))]
    return _by_name("Settings", "Settings by method; what is not given comes from the presets.", entries)


# --- the file -----------------------------------------------------------------------------------------------------

Left = Annotated[T | None, _NotNull()]
"""A field that may be left out."""
Axis = Annotated[tuple[T, ...] | None, _AxisValues()]
Name = Annotated[str, Field(pattern=_NAME)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
DatasetName = Annotated[
    str, WithJsonSchema({"anyOf": [{"enum": list(KNOWN), "type": "string"}, {"type": "string", "pattern": _NAME}]})
]


def _architecture(name: str) -> str:
    try:
        parse(name)
    except ValueError as error:
        raise _complaint(str(error)) from None
    return name


ArchitectureName = Annotated[
    str,
    AfterValidator(_architecture),
    WithJsonSchema(
        {"anyOf": [{"enum": list(NETWORKS), "type": "string"}, {"type": "string", "pattern": name_pattern()}]}
    ),
]
"""A network of ``trainables.networks``: its name, or its name with options."""


class Axes(Model):
    """Values that vary: a list, or one value. The sweep is their product."""

    method: Axis[Annotated[str, OneOf(tuple(METHODS))]] = Field(None, description="Distillation methods.")
    dataset: Axis[DatasetName] = Field(None, description="Data sets: known ones, or declared under datasets.")
    ipc: Axis[Count] = Field(None, description="Distilled images per class.")
    init: Axis[Init] = Field(None, description="What distillation starts from. Left out: as the method's authors.")
    architecture: Axis[ArchitectureName] = Field(
        None,
        description="Network that is trained: convnet3, resnet18, vgg16, or one of them with depth, width and norm, "
        "such as convnet3-d4 or resnet18-w32-instance. Left out: convnet3.",
    )
    seed: Axis[Seed] = Field(None, description="Seed of the training repeat. Left out: 0.")
    distill_seed: Axis[Seed] = Field(None, description="Seed of the distilled set. Left out: 0.")
    origin_per_class: Axis[Count | None] = Field(
        None, description="Training images per class that are distilled. null or left out: all of them."
    )
    origin_draw: Axis[Seed] = Field(None, description="Which random draw of those images. Left out: 0.")
    num_classes: Axis[Annotated[int, Field(ge=2)] | None] = Field(
        None, description="Classes that take part. null or left out: all of them."
    )
    class_draw: Axis[Seed] = Field(None, description="Which draw of classes; 0: the first ones. Left out: 0.")
    distill_aug: Axis[Augmentation] = Field(None, description="Augmentation while distilling. Left out: dsa.")
    train_aug: Axis[Literal["dsa", "idc", "none"]] = Field(
        None, description="Augmentation while training. Left out: the protocol's own."
    )


AXES: tuple[str, ...] = tuple(Axes.model_fields)
"""All axes, in the order of the documentation and of the columns."""


class Block(Model):
    """What defaults and a grid may hold."""

    protocol: Left[Annotated[str, OneOf(tuple(PROTOCOLS))]] = Field(
        None, description=f"Named training recipe. Left out: {DEFAULT_PROTOCOL}."
    )
    train: Left[Annotated[dict[str, Any], _Given(_partial("Train", RecipeConfig), _one_length)]] = Field(
        None, description="Values that replace the recipe's; the protocol is then shown as NAME*."
    )
    axes: Left[Axes] = Field(None, description="Values that vary.")
    exclude: Left[tuple[Axes, ...]] = Field(
        None, description="Combinations to leave out: a point goes when all named axes match."
    )
    settings: Left[Annotated[dict[str, dict[str, Any]], _Given(_settings())]] = Field(
        None, description="Settings by method."
    )
    evaluations: Left[Annotated[dict[str, dict[str, Any]], _Given(_evaluations())]] = Field(
        None, description="What is measured beyond accuracy and fairness, which always are."
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


class Resource(Model):
    """What a job of this kind or method asks for."""

    cpus: Left[Count] = Field(None, description="CPUs, and threads of the computation. Left out: 1.")
    gpu: Left[Annotated[float, Field(ge=0, le=1)]] = Field(None, description="Share of one GPU.")


class Notify(Model):
    """What to run when the sweep ends."""

    command: Annotated[str, Field(min_length=1)] = Field(
        description="Shell command; {sweep} and {status} are filled in."
    )


Resources = Annotated[
    dict[Annotated[str, OneOf(RESOURCE_KEYS)], Resource] | None, _NotNull(), _KeyNames(RESOURCE_NAMES)
]


class Patch(Model):
    """What a profile or ``--set`` lays over the file."""

    datasets: Left[dict[Name, DatasetPatch]] = Field(None, description="Declared data sets.")
    defaults: Left[Block] = Field(None, description="Replaces values of every grid.")
    grids: Left[dict[Name, Block | None]] = Field(None, description="Replaces values of one grid; null removes it.")
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
    defaults: Left[Block] = Field(None, description="Values of every grid of this file that does not set its own.")
    grids: Left[dict[Name, Block]] = Field(None, description="Named grids; the sweep is their union.")
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
