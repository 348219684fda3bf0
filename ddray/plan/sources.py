"""The files of one sweep, and ``--set``: read, validated one by one, what is wrong noted and taken out.

How they are laid over one another stands in ``grammar.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddray.errors import printable, show
from ddray.plan import yaml
from ddray.plan.axes import AXES
from ddray.plan.problems import Problem, check
from ddray.plan.schema import GRAMMAR, Patch, Resource, SweepFile
from ddray.plan.yaml import Node, Steps, mapping, merge

MAX_FILES = 100
"""Files that one sweep may be put together from."""


@dataclass(slots=True, eq=False)
class Document:
    """One file of the sweep."""

    path: Path
    name: str
    node: Node
    """Without what is wrong in it."""
    raw: Node
    """As written: names that stand here are known even if what they name is wrong."""
    parent: Document | None
    children: list[Document] = field(default_factory=list)

    def lineage(self) -> Iterator[Document]:
        """This file, the one that includes it, and so on."""
        document: Document | None = self
        while document is not None:
            yield document
            document = document.parent

    def family(self) -> Iterator[Document]:
        """This file and everything it includes."""
        yield self
        for child in self.children:
            yield from child.family()


class Reader:
    """Reads and validates files one by one; what is wrong is noted and taken out."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.doubtful: set[str] = set()
        """Axes that lost values."""
        self.newer = False
        self.seen: dict[Path, str] = {}

    def note(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.problems.append(problem.message)
            self.doubtful |= _doubt(problem.steps)

    def file(self, path: Path, parent: Document | None, ancestors: tuple[Path, ...]) -> Document | None:
        before = len(self.problems)
        node = yaml.read(path, self.problems)
        if len(self.problems) > before:  # a key may be missing that is there in the text
            self.doubtful |= set(AXES)
        if parent is not None and (node is None or node.get("ddray") is None) and not _begins_as_sweep(path):
            # Whatever the file is, what stands in it is not for a message that others may read.
            self.problems[before:] = [
                f"{printable(path)}: not a sweep file, but included; expected a mapping that begins with ddray: 1. "
                "Correct the include, or the file."
            ]
            return None
        if node is None:
            return None
        version = node.get("ddray")
        if version is not None and type(version.value) is int and version.value > GRAMMAR:
            location = yaml.where(node, "ddray")
            self.problems[before:] = [
                f"{location}: ddray: written for a newer ddray; got grammar {version.value}; "
                f"expected {GRAMMAR}. Update ddray."
            ]
            self.newer = True
            return None
        document = Document(path, printable(path), self.valid(SweepFile, node), node, parent)
        self.includes(document, (*ancestors, _identity(path)))
        return document

    def valid(self, model: type[SweepFile] | type[Patch], node: Node) -> Node:
        """The node without what its model does not accept."""
        for attempt in range(10):
            checked, problems = check(model, node)
            if checked is not None:
                return node
            # What is missing only after something wrong was taken out is not a second mistake.
            self.note(problem for problem in problems if attempt == 0 or not problem.missing)
            wrong = {problem.steps for problem in problems}
            if () in wrong:  # the one key that the root needs
                node = merge(node, mapping([("ddray", node.where, Node(GRAMMAR, node.where))], node.where))
            node = yaml.without(node, wrong)
        return Node({}, node.where)

    def includes(self, document: Document, ancestors: tuple[Path, ...]) -> None:
        node = document.node
        listed = node.get("include")
        if listed is None or not isinstance(listed.value, list):
            if document.raw.get("grids") is None and document.raw.get("include") is None:
                self.problems.append(f"{document.name}:1: no grids; expected grids, or include with a list of files.")
            return
        for other in ("grids", "defaults"):
            if node.get(other) is not None:
                reason = "grids and include exclude each other" if other == "grids" else "nothing here uses them"
                self.problems.append(
                    f"{yaml.where(node, other)}: {other}: {reason}; each included file keeps its own. "
                    f"Move {'them' if other == 'grids' else 'the values'} into a file of its own and include that."
                )
        if not listed.value:
            self.problems.append(f"{yaml.where(node, 'include')}: include: an empty list; expected sweep files.")
        for position, entry in enumerate(listed.value):
            location = yaml.where(node, ("include", position))
            self.include(document, str(entry.value), location, ancestors)

    def include(self, document: Document, name: str, location: str, ancestors: tuple[Path, ...]) -> None:
        path = Path(os.path.normpath(document.path.parent / name))
        identity = _identity(path)
        if identity in ancestors:
            self.problems.append(
                f"{location}: include: a cycle; {show(name)} includes this file again. Remove one of the two."
            )
        elif identity in self.seen:
            self.problems.append(
                f"{location}: include: {show(name)} is included twice; first at {self.seen[identity]}. "
                "Remove one of them."
            )
        elif len(self.seen) >= MAX_FILES:
            self.problems.append(f"{location}: include: too many files; expected at most {MAX_FILES}.")
        elif not os.path.isfile(path):
            self.problems.append(
                f"{location}: include: no such file '{printable(path)}'; expected a path relative to this file."
            )
        else:
            self.seen[identity] = location
            child = self.file(path, document, ancestors)
            if child is not None:
                document.children.append(child)

    def sets(self, arguments: Sequence[str]) -> Node:
        """All ``--set`` as one patch."""
        patch = Node({}, "--set")
        for argument in arguments:
            path, equals, text = argument.partition("=")
            parts = _split(path.strip())
            if not equals or not all(parts) or printable(path) != path:
                self.problems.append(
                    f"--set: not PATH=VALUE; got {show(argument)}; expected for example defaults.protocol=quick."
                )
                continue
            if parts[0] in ("ddray", "description", "include", "profiles"):
                self.problems.append(
                    f"--set: {path}: cannot be set; expected a path below {', '.join(Patch.model_fields)}. "
                    "Edit the file."
                )
                continue
            value = yaml.parse(text, "--set", self.problems, location="--set")
            if value is None or len(parts) > yaml.MAX_DEPTH:
                self.problems.append(f"--set: {path}: no usable value; got {show(text)}; expected YAML.")
                self.doubtful |= set(AXES)
                continue
            for part in reversed(parts):
                value = mapping([(part, "--set", value)], "--set")
            patch = merge(patch, value)
        return self.valid(Patch, patch)


def _begins_as_sweep(path: Path) -> bool:
    """Whether a file that cannot be read as YAML was meant to be a sweep."""
    try:
        with path.open("rb") as stream:
            return (
                re.search(rb"""^\s*\{?\s*["']?ddray["']?\s*:\s*[0-9]""", stream.read(yaml.MAX_BYTES), re.MULTILINE)
                is not None
            )
    except OSError:
        return True  # that it cannot be read has been said, and nothing else


def _identity(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _split(path: str) -> list[str]:
    """A dotted path; below ``resources`` two steps may be one name (``resources.distill.dm.gpu``)."""
    parts = path.split(".")
    if parts[0] == "resources" and len(parts) > 2 and parts[2] not in Resource.model_fields:
        parts[1:3] = [".".join(parts[1:3])]
    return parts


def _doubt(steps: Steps) -> set[str]:
    """Axes of which a problem at ``steps`` may have hidden values."""
    if "axes" in steps:
        below = steps[steps.index("axes") + 1 :]
        return {str(below[0])} if below and below[0] in AXES else set(AXES)
    harmless = {
        "protocol",
        "train",
        "settings",
        "evaluations",
        "resources",
        "notify",
        "description",
        "ddray",
    }
    return set() if harmless & set(steps) else set(AXES)
