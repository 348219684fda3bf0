"""What a model does not accept, in our words: ``file:line: path: what is wrong; got ...; expected ...``.

The raw text of the validation library is never shown. What was expected, which names are known and which is nearest
all come from the JSON schema, so they say what an editor says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ddray.errors import show, suggest
from ddray.plan.schema import RESOURCE_KEYS, RESOURCE_NAMES, json_schema
from ddray.plan.yaml import Node, Steps, dotted, plain, where


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, with the path it is at."""

    message: str
    steps: Steps
    missing: bool = False
    """A required key is not there."""


def check(model: type[BaseModel], root: Node, steps: Steps = ()) -> tuple[BaseModel | None, list[Problem]]:
    """Validate the node at ``steps`` below ``root``.

    Returns:
        The model, or None with every problem. A problem's path starts at the root.
    """
    node = root.get(*steps)
    assert node is not None, f"nothing at {steps}"
    try:
        return model.model_validate_json(json.dumps(plain(node)), strict=True), []
    except ValidationError as error:
        problems: dict[Steps, Problem] = {}
        for detail in error.errors(include_url=False):
            problem = _problem(detail, root, steps)
            problems.setdefault(problem.steps, problem)
        return None, list(problems.values())


def _problem(error: ErrorDetails, root: Node, prefix: Steps) -> Problem:
    below = [step for step in error["loc"] if step != "[key]"]
    steps: Steps = (*prefix, *below)
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "missing":
        path, name = steps[:-1], str(steps[-1])
        return _say(root, path, f"missing key {show(name)}; expected {_expected(steps)}.")
    while steps and root.get(*steps) is None:  # a step into a scalar that stands for a list, or a branch of a choice
        steps = steps[:-1]
    node = root.get(*steps)
    got = show(plain(node)) if node is not None else "nothing"
    if kind == "extra_forbidden":
        name, known = str(steps[-1]), _keys(steps[:-1])
        hint = suggest(name, known)
        if steps[-2:] == ("evaluations", "accuracy"):
            hint = "Accuracy is always evaluated; leave it out."
        return _say(root, steps, f"unknown key {show(name)}; known: {', '.join(known)}. {hint}", steps[:-1])
    if error["loc"] and error["loc"][-1] == "[key]":
        name = str(steps[-1])
        if kind == "literal_error":
            what = f"unknown key {show(name)}; known: {', '.join(RESOURCE_NAMES)}, or KIND.METHOD."
            return _say(root, steps, f"{what} {suggest(name, RESOURCE_KEYS)}", steps[:-1])
        return _say(root, steps, f"not a name; got {show(name)}; expected letters, digits, _ and -.", steps[:-1])
    if kind == "ddray":
        target = (*steps, *context["below"])
        while len(target) > len(steps) and root.get(*target) is None:
            target = target[:-1]
        what = str(context["what"])
        return _say(root, target, what if what.endswith((".", "?")) else f"{what}.")
    if kind == "value_error":
        return _say(root, steps, f"{context['error']}.")
    if kind == "literal_error" and node is not None and isinstance(node.value, str):
        names = _choices(steps)
        noun = next((str(step) for step in reversed(steps) if isinstance(step, str)), "name")
        noun = {"attacks": "attack", "like": "data set"}.get(noun, noun)
        return _say(root, steps, f"unknown {noun} {got}; known: {', '.join(names)}. {suggest(node.value, names)}")
    ranges = ("greater_than", "less_than", "multiple_of", "finite_number", "too_short", "too_long", "string_too")
    what = "out of range" if kind.startswith(ranges) else "wrong type"
    return _say(root, steps, f"{what}; got {got}; expected {_expected(steps)}.")


def _say(root: Node, steps: Steps, what: str, shown: Steps | None = None) -> Problem:
    path = dotted(steps if shown is None else shown)
    location = where(root, steps)
    text = f"{location}: {path}: {what}" if path else f"{location}: {what}"
    return Problem(text.rstrip(), steps, what.startswith("missing key"))


def _schema_at(steps: Steps) -> dict[str, Any]:
    """The part of the JSON schema that a path leads to; empty where anything goes."""
    schema = json_schema()
    for step in steps:
        options = _options(schema)
        schema = {}
        for option in options:
            if isinstance(step, int):
                child = option.get("items")
            else:
                child = option.get("properties", {}).get(step, option.get("additionalProperties"))
                child = child or next(iter(option.get("patternProperties", {}).values()), None)
            if isinstance(child, dict):
                schema = child
                break
    return schema


def _options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema's alternatives, references followed."""
    if "$ref" in schema:
        schema = {**json_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]]}
    if "anyOf" in schema:
        return [each for option in schema["anyOf"] for each in _options(option)]
    return [schema]


def _keys(steps: Steps) -> list[str]:
    return [name for option in _options(_schema_at(steps)) for name in option.get("properties", {})]


def _choices(steps: Steps) -> list[str]:
    choices: list[str] = []
    for option in _options(_schema_at(steps)):
        inner = _options(option["items"]) if "items" in option else [option]
        choices += [
            str(name)
            for part in inner
            for name in (part.get("enum") or ([part["const"]] if "const" in part else []))
            if name is not None
        ]
    return list(dict.fromkeys(choices))


def _expected(steps: Steps) -> str:
    return " or ".join(dict.fromkeys(_describe(option) for option in _options(_schema_at(steps))))


def _describe(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    match schema.get("type"):
        case "integer" | "number" as kind:
            names = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
            limits = [f"{sign} {schema[name]:g}" for name, sign in names if name in schema]
            limits += [f"a multiple of {schema['multipleOf']:g}"] if "multipleOf" in schema else []
            return " ".join(["an integer" if kind == "integer" else "a number", ", ".join(limits)]).strip()
        case "array":
            inner = " or ".join(dict.fromkeys(_describe(option) for option in _options(schema.get("items", {}))))
            return f"a list ({inner})" if inner != "a value" else "a list"
        case "object":
            if "^[1-9][0-9]*$" in schema.get("patternProperties", {}):  # a setting given by images per class
                return "{ipc: value}"
            known = schema.get("properties", {})
            return f"a mapping with any of {', '.join(known)}" if known else "a mapping of names"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    return "a value"
