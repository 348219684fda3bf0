"""How one value of a sweep file is read: annotations for pydantic, rules between values, and their errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ddray.errors import show, suggest
from trainables.configs import PRESET, TIERS, Config

T = TypeVar("T")


@dataclass(frozen=True)
class OneOf:
    """One name of a closed list."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


class NotNull:
    """The field may be left out, but not be null: None is only how we hold "left out"."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "nullable", "a field that may be left out is declared `X | None`"
        inner: CoreSchema = schema["schema"]
        return inner


class ValueList:
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
        raise complaint("an empty list; expected at least one value")
    return tuple(value)


def _not_twice(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        first = {value: position for position, value in reversed(list(enumerate(values)))}
        again = next(position for position, value in enumerate(values) if first[value] != position)
        raise complaint(f"duplicate value {show(values[again])}; expected every value once", again)
    return values


class KeyNames:
    """Of a mapping: the keys it may have."""

    def __init__(self, offered: Sequence[str]) -> None:
        self.offered = offered
        """The ones an editor lists."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        entries = handler(schema)
        value = entries["additionalProperties"]
        return {**entries, "properties": dict.fromkeys(self.offered, value)}


class Given:
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


def lists_are_sets(given: dict[str, Any]) -> None:
    for name, items in given.items():
        if items == []:
            raise complaint("an empty list; expected at least one value", name)
        if isinstance(items, list):
            for position, item in enumerate(items):
                if item in items[:position]:
                    raise complaint(f"duplicate value {show(item)}; expected every value once", name, position)


def one_length(given: dict[str, Any]) -> None:
    if given.get("epochs") is not None and given.get("steps") is not None:
        raise complaint("epochs and steps are alternatives; got both; expected one of them", "steps")


def accepted_by(config: type[Config]) -> Callable[[dict[str, Any]], None]:
    """The configuration's own rules between fields, with its defaults for what is not given."""

    def rule(given: dict[str, Any]) -> None:
        try:
            config.model_validate_json(json.dumps(given))
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error", "not possible together with the defaults of the rest")
            raise complaint(str(cause), *first["loc"]) from None

    return rule


class ByIpc:
    """A value for every number of images per class, or a mapping from such numbers to values."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._read, handler(source))

    def _read(self, value: Any, one: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, dict):
            return one(_as_tuple(value))
        wrong = [name for name in value if not re.fullmatch("[1-9][0-9]*", str(name))]
        if wrong:
            raise complaint(
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


def at_ipc(settings: Mapping[str, Any], ipc: int | None) -> dict[str, Any]:
    """A method's settings as given, for one number of images per class.

    A setting given by images per class, ``{1: …, 10: …}``, holds where the number is named; elsewhere it is as if it
    had been left out.
    """
    chosen = {}
    for name, value in settings.items():
        if not isinstance(value, dict):
            chosen[name] = value
        elif str(ipc) in value:
            chosen[name] = value[str(ipc)]
    return chosen


def accepted_at_each_ipc(config: type[Config]) -> Callable[[dict[str, Any]], None]:
    """The configuration's own rules, for each number of images per class that is named, and for the others; which
    preset is named is not one of its settings."""
    accepted = accepted_by(config)

    def rule(given: dict[str, Any]) -> None:
        given = {name: value for name, value in given.items() if name != PRESET}
        named = {ipc for value in given.values() if isinstance(value, dict) for ipc in value}
        for ipc in (None, *sorted(named, key=int)):
            accepted(at_ipc(given, None if ipc is None else int(ipc)))

    return rule


class RowCount:
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
                raise complaint(f"unknown tier {show(value)}; known: {names}, or {number}. {hint}".rstrip()) from None
            what = "out of range" if type(value) is int else "wrong type"
            raise complaint(f"{what}; got {show(value)}; expected {number}, or one of {names}") from None


def complaint(what: str, *below: str | int) -> PydanticCustomError:
    """An error in our own words, at a path below the value that is being checked."""
    return PydanticCustomError("ddray", "{what}", {"what": what, "below": below})


Left = Annotated[T | None, NotNull()]
"""A field that may be left out."""
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
