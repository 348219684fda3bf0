"""YAML text -> nodes that know the file and line they were written at. What the keys mean stands in ``schema.py``.

ruamel.yaml supplies the event stream only. Composing it here keeps hostile text harmless: no tag constructs an object,
aliases cannot multiply without bound, nesting is bounded, and a repeated key or a number that JSON cannot hold is a
problem with a line instead of a silent last value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError

from ddray.errors import printable, show

MAX_BYTES = 1 << 20
"""A sweep file is a page of text; anything beyond is not one."""
MAX_DEPTH = 40
MAX_NODES = 200_000
"""Values in one file after its aliases are followed."""

Scalar: TypeAlias = str | int | float | bool | None
Steps: TypeAlias = tuple[str | int, ...]
"""A path from the root: keys and list positions."""

_NULL = re.compile(r"(?:~|null|Null|NULL)?\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a file, with the location it was written at."""

    value: dict[str, Node] | list[Node] | Scalar
    where: str
    """``file:line``, or ``--set``."""
    keys: dict[str, str] = field(default_factory=dict)
    """Of a mapping: where each key stands."""
    size: int = 1
    """Values in it, itself included, aliases followed."""
    depth: int = 1

    def get(self, *steps: str | int) -> Node | None:
        """The node at a path below this one, or None."""
        node: Node | None = self
        for step in steps:
            node = _child(node, step) if node is not None else None
        return node

    def items(self) -> list[tuple[str, Node]]:
        """Entries of a mapping; none for anything else."""
        return list(self.value.items()) if isinstance(self.value, dict) else []


class _Invalid(Exception):
    """The rest of the text cannot be read."""


def _child(node: Node, step: str | int) -> Node | None:
    if isinstance(node.value, dict):
        return node.value.get(step) if isinstance(step, str) else None
    if isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step]
    return None


def where(node: Node, steps: Sequence[str | int] | str) -> str:
    """Where a path is written: ``file:line`` of its key or list item, of the nearest parent when it is not there.

    Args:
        node: The root that the path starts from.
        steps: Keys and list positions, or the same as one dotted text (``axes.ipc.2``).
    """
    if isinstance(steps, str):
        steps = [int(part) if part.isdecimal() else part for part in steps.split(".") if part]
    location = node.where
    for step in steps:
        child = _child(node, str(step) if isinstance(node.value, dict) else step)
        if child is None:
            break
        location = node.keys.get(str(step), child.where)
        node = child
    return location


def plain(node: Node) -> Any:
    """The value without locations, as JSON types."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def mapping(entries: Iterable[tuple[str, str, Node]], location: str) -> Node:
    """A mapping node from (key, where the key stands, value)."""
    entries = list(entries)
    nodes = [node for _, _, node in entries]
    return Node(
        {name: node for name, _, node in entries},
        location,
        {name: key for name, key, _ in entries},
        1 + sum(node.size for node in nodes),
        1 + max((node.depth for node in nodes), default=0),
    )


def merge(base: Node | None, over: Node) -> Node:
    """``over`` laid on ``base``: maps merge, everything else replaces. Locations of keys follow the value that won."""
    if base is None or not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    entries = []
    for name in dict.fromkeys((*base.value, *over.value)):
        if name in over.value:
            entries.append((name, over.keys[name], merge(base.value.get(name), over.value[name])))
        else:
            entries.append((name, base.keys[name], base.value[name]))
    return mapping(entries, base.where)


def without(node: Node, paths: set[Steps]) -> Node:
    """The same tree with the nodes at ``paths`` taken out, and lists that become empty by it."""
    below: dict[str | int, set[Steps]] = {}
    for first, *rest in filter(None, paths):
        below.setdefault(first, set()).add(tuple(rest))
    if not below:
        return node
    kept: list[tuple[str | int, Node]] = []
    for step, child in node.value.items() if isinstance(node.value, dict) else enumerate(_items(node)):
        left = without(child, below.get(step, set()))
        if () not in below.get(step, ()) and (left.value != [] or child.value == []):
            kept.append((step, left))
    if isinstance(node.value, dict):
        return mapping(((str(step), node.keys[str(step)], child) for step, child in kept), node.where)
    return _sequence([child for _, child in kept], node.where) if isinstance(node.value, list) else node


def _items(node: Node) -> list[Node]:
    return node.value if isinstance(node.value, list) else []


def _sequence(nodes: list[Node], location: str) -> Node:
    depth = 1 + max((node.depth for node in nodes), default=0)
    return Node(nodes, location, {}, 1 + sum(node.size for node in nodes), depth)


def dotted(steps: Sequence[str | int]) -> str:
    """A path as messages show it: ``grids.table1.exclude[1].ipc``; a position at the end is left to the line."""
    steps = steps[:-1] if steps and isinstance(steps[-1], int) else steps
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)[1:]


def read(path: Path, problems: list[str]) -> Node | None:
    """Read a YAML file whose root is a mapping.

    Args:
        path: The file; messages show it as given.
        problems: Gets one message per thing that is wrong. What could be read in spite of them is returned.

    Returns:
        The root, or None when nothing could be read.
    """
    name = printable(path)
    try:
        if not path.exists():
            problems.append(f"{name}: no such sweep file. Give the path of a file, or the name of a sweep run before.")
            return None
        if not path.is_file():
            problems.append(f"{name}: not a regular file; expected a YAML file.")
            return None
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problems.append(f"{name}: cannot be read: {reason}.")
        return None
    if len(data) > MAX_BYTES:
        problems.append(f"{name}: too large for a sweep file; expected at most {MAX_BYTES >> 20} MiB.")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        problems.append(f"{name}:{number}: not UTF-8 text; got byte 0x{data[error.start]:02x}. Save the file as UTF-8.")
        return None
    root = parse(text, name, problems)
    if root is not None and not isinstance(root.value, dict):
        problems.append(
            f"{root.where}: not a sweep; got {show(plain(root))}; expected a mapping that begins with ddray: 1."
        )
        return None
    return root


def parse(text: str, name: str, problems: list[str], *, location: str | None = None) -> Node | None:
    """Compose one YAML 1.2 document.

    Args:
        text: The document.
        name: File name for ``file:line``.
        problems: Gets one message per thing that is wrong. A value that cannot be kept is left out.
        location: Said instead of ``file:line``, for text that is not a file.

    Returns:
        The root, or None when the text is not YAML (a message says so).
    """
    bad = _NOT_YAML.search(text)
    if bad:
        line = text[: bad.start()].count("\n") + 1
        problems.append(
            f"{location or f'{name}:{line}'}: not YAML; got the control character U+{ord(bad.group()):04X}. Remove it."
        )
        return None
    composer = _Composer(name, problems, location)
    try:
        return composer.document(YAML(typ="safe", pure=True).parse(text))
    except _Invalid as error:
        problems.append(str(error))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{name}:{mark.line + 1}" if mark is not None else name
        reason = " ".join(part for part in (error.context, error.problem) if part)
        problems.append(f"{location or at}: not YAML: {' '.join(reason.split())}.")
    except Exception as error:
        # The scanner answers some malformed text (directives, escapes, anchors) with whatever its own code ran into.
        # It has seen nothing but the text, so the text is what is wrong.
        problems.append(f"{location or composer.last}: not YAML: {type(error).__name__} after this place.")
    return None


class _Composer:
    """Events of one document -> nodes."""

    def __init__(self, name: str, problems: list[str], location: str | None) -> None:
        self.name = name
        self.problems = problems
        self.location = location
        self.last = f"{name}:1"
        self.anchors: dict[str, Node] = {}

    def document(self, stream: Iterator[Any]) -> Node:
        root: Node | None = None
        documents = 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Invalid(f"{self.at(event)}: a second document; expected one per file. Remove the '---'.")
            elif isinstance(event, events.NodeEvent):
                root = self.node(event, stream, ())
        return root or Node(None, self.location or f"{self.name}:1")

    def at(self, event: Any) -> str:
        self.last = self.location or f"{self.name}:{event.start_mark.line + 1}"
        return self.last

    def problem(self, location: str, steps: Steps, what: str) -> None:
        path = dotted(steps)
        self.problems.append(f"{location}: {path}: {what}" if path else f"{location}: {what}")

    def node(self, event: Any, stream: Iterator[Any], steps: Steps) -> Node | None:
        """The node that begins with ``event``; None when it cannot be kept (the problem is noted)."""
        location = self.at(event)
        if len(steps) >= MAX_DEPTH:
            raise _Invalid(f"{location}: nested too deeply; expected at most {MAX_DEPTH} levels.")
        if isinstance(event, events.AliasEvent):
            node = self.anchors.get(event.anchor)
            if node is None:
                raise _Invalid(f"{location}: unknown alias *{event.anchor}; expected an anchor that ends before it.")
            return node
        if event.tag is not None:
            raise _Invalid(f"{location}: tags are not allowed; got {show(str(event.tag))}; expected a plain value.")
        made: Node | None
        if isinstance(event, events.ScalarEvent):
            made = self.scalar(event, location, steps)
        elif isinstance(event, events.SequenceStartEvent):
            made = _sequence(list(self.sequence(stream, steps)), location)
        else:
            made = mapping(self.mapping(stream, steps), location)
        if made is not None and made.size > MAX_NODES:
            raise _Invalid(f"{location}: too many values once aliases are followed; expected at most {MAX_NODES}.")
        if made is not None and made.depth + len(steps) > MAX_DEPTH:
            raise _Invalid(f"{location}: nested too deeply; expected at most {MAX_DEPTH} levels.")
        if made is not None and event.anchor is not None:
            self.anchors[event.anchor] = made
        return made

    def sequence(self, stream: Iterator[Any], steps: Steps) -> Iterator[Node]:
        position = 0
        while not isinstance(event := next(stream), events.SequenceEndEvent):
            node = self.node(event, stream, (*steps, position))
            position += 1
            if node is not None:
                yield node

    def mapping(self, stream: Iterator[Any], steps: Steps) -> Iterator[tuple[str, str, Node]]:
        seen: dict[str, str] = {}
        while not isinstance(event := next(stream), events.MappingEndEvent):
            location = self.at(event)
            key = self.node(event, stream, (*steps, "?"))
            name = "?" if key is None or isinstance(key.value, dict | list) else str(key.value)
            value = self.node(next(stream), stream, (*steps, name))
            if key is None or value is None:
                continue
            if isinstance(key.value, bool) or not isinstance(key.value, str | int):
                self.problem(location, steps, f"not a key; got {show(plain(key))}; expected a name.")
            elif name == "<<":
                self.problem(location, steps, "merge keys (<<) are not YAML 1.2. Write common values under defaults.")
            elif name in seen:
                first = seen[name]
                self.problem(location, steps, f"duplicate key {show(name)}; first at {first}. Remove one of them.")
            else:
                seen[name] = location
                yield name, location, value

    def scalar(self, event: Any, location: str, steps: Steps) -> Node | None:
        text: str = event.value
        if event.style:  # quoted or block: text, whatever it looks like
            return self.text(text, location, steps)
        if _NULL.match(text):
            return Node(None, location)
        if _TRUE.match(text) or _FALSE.match(text):
            return Node(_TRUE.match(text) is not None, location)
        if _INT.match(text):
            number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) <= 24 else 1 << 64
            if abs(number) < 1 << 63:
                return Node(number, location)
            self.problem(location, steps, f"number too large; got {text[:24]}; expected less than 2**63.")
            return None
        if _NOT_FINITE.match(text) or (_FLOAT.match(text) and not math.isfinite(float(text))):
            self.problem(location, steps, f"not a finite number; got {show(text)}; expected a finite one.")
            return None
        if _FLOAT.match(text):
            return Node(float(text), location)
        return self.text(text, location, steps)

    def text(self, text: str, location: str, steps: Steps) -> Node | None:
        bad = _NOT_TEXT.search(text)
        if bad is None:
            return Node(text, location)
        self.problem(location, steps, f"not text; got the character U+{ord(bad.group()):04X}. Remove it.")
        return None
