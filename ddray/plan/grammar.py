"""Sweep files, their includes, profiles and ``--set`` -> one resolved, validated ``Sweep``.

What the keys mean stands in ``schema.py``, what points come out in ``grid.py``. Values are laid over one another as
nodes, so that everything that is said later about a value still names the line that gave it. The layers of one grid,
each over the one before:

    defaults of its file, the grid, per profile its defaults and its patch of the grid, then the same two of --set

A profile of a file applies to that file's grids; one of an including file applies to all grids below it, afterwards.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddray.errors import printable, show, suggest
from ddray.plan import yaml
from ddray.plan.axes import AXES
from ddray.plan.points import DatasetDecl, Grid, NotifyDecl, ResourceDecl, Sweep
from ddray.plan.problems import Problem, check
from ddray.plan.schema import DEFAULT_PROTOCOL, DatasetBlock, GridBlock, Notify, Resource
from ddray.plan.sources import Document, Reader
from ddray.plan.yaml import Node, Steps, mapping, merge, plain
from trainables.data.known import KNOWN


def read(path: Path, *, sets: Sequence[str] = (), profiles: Sequence[str] = ()) -> tuple[Sweep | None, list[str]]:
    """Read a sweep file with its includes, and lay profiles and ``--set`` over it.

    Args:
        path: The file.
        sets: ``PATH=VALUE`` each: a dotted path from the root, a YAML value.
        profiles: Names of profiles, each laid over the ones before it.

    Returns:
        The sweep without what is wrong in it, so that the rest can be checked too, or None when too little is left;
        and everything that is wrong, as ``file:line: path: what``.
    """
    reader = Reader()
    root = reader.file(path, None, ())
    patch = reader.sets(sets)
    reader.problems += _name_problems(path)
    sweep = None
    if root is not None and not reader.newer:
        sweep = _put_together(reader, root, patch, path, list(profiles))
    return sweep, reader.problems


def _name_problems(path: Path) -> list[str]:
    """The stem becomes a folder's name, to which ``@profile`` is appended."""
    bad = re.search("[@\x00-\x1f\x7f-\x9f\ud800-\udfff]|^[.-]", path.stem)
    if bad is None:
        return []
    what = f"the file's stem names the results folder; got {show(bad.group())} in it; expected a plain name"
    return [f"{printable(path)}: {what}. Rename the file."]


def in_file_order(problems: Iterable[str]) -> list[str]:
    """Messages by file, in the order the files come up, then by line; each once."""
    files: dict[str, int] = {}

    def rank(message: str) -> tuple[int, int]:
        location = re.match(r"(.*?):(\d+): ", message)
        name, line = (location.group(1), int(location.group(2))) if location else (message.split(":")[0], 0)
        return files.setdefault(name, len(files)), line

    unique = list(dict.fromkeys(problems))
    ranks = {message: rank(message) for message in unique}
    return sorted(unique, key=ranks.__getitem__)


def _put_together(reader: Reader, root: Document, patch: Node, path: Path, profiles: list[str]) -> Sweep | None:
    documents = list(root.family())
    problems = reader.problems
    owners = _owners(documents, problems)
    problems += _unknown_profiles(documents, profiles)
    problems += _unknown_profiles_of_grids(owners, _names(documents, "profiles"))
    for document in documents:
        below = [name for other in document.family() for name, _ in _entries(other.raw, "grids")]
        for profile, node in _entries(document.node, "profiles"):
            reader.note(_unknown_grids(document.node, ("profiles", profile), node, below))
    reader.note(_unknown_grids(patch, (), patch, _names(documents, "grids")))
    shared = _shared(documents, problems)
    layers = [*_chosen(documents, profiles), patch]
    datasets = _datasets(shared.get("datasets"), layers, problems)
    declared = {name for document in documents for name in _declared(document.raw)} | set(datasets)
    for document in documents:
        reader.note(_unknown_datasets(document.node, declared))
    reader.note(_unknown_datasets(patch, declared))
    known = frozenset((*KNOWN, *datasets))
    grids = []
    for name, owner in owners.items():
        wanted = _profiles_of(owner, name)
        if wanted and not set(wanted) & set(profiles):
            if (patched := patch.get("grids", name)) is not None and patched.value is not None:
                problems.append(
                    f"{patched.where}: grids.{name}: is there with a profile alone; got {_given(profiles)}; "
                    f"expected --profile {' or '.join(wanted)}. Add it, or drop the value."
                )
            continue
        resolved, inherited = _resolve(name, owner, profiles, patch, problems)
        if resolved is not None:
            grids.append(_grid(name, owner, resolved, inherited, known, reader))
    if not grids and not problems:
        problems.append(f"{root.name}:1: grids: no grid is left; expected at least one.")
    resources = _resources(_over(shared.get("resources"), layers, "resources"))
    notify_node = _over(shared.get("notify"), layers, "notify")
    notify = NotifyDecl(Notify.model_validate(plain(notify_node)).command) if notify_node is not None else None
    name = path.stem + "".join(f"@{profile}" for profile in profiles)
    if patch.value:
        name += f"-{_sha(plain(patch))[:6]}"
    return Sweep(
        name=name,
        stem=path.stem,
        path=path,
        files=tuple(document.path for document in documents),
        grids=tuple(grids),
        datasets=datasets,
        resources=resources,
        notify=notify,
        digest=_digest(grids, datasets, resources, notify),
    )


def _entries(node: Node, name: str) -> list[tuple[str, Node]]:
    child = node.get(name)
    return child.items() if child is not None else []


def _names(documents: Sequence[Document], kind: str) -> list[str]:
    """Names of all grids or profiles, right or wrong."""
    return list(dict.fromkeys(name for document in documents for name, _ in _entries(document.raw, kind)))


def _owners(documents: Sequence[Document], problems: list[str]) -> dict[str, Document]:
    """Grid -> the file it stands in."""
    owners: dict[str, Document] = {}
    for document in documents:
        for name, _ in _entries(document.node, "grids"):
            location = yaml.where(document.node, ("grids", name))
            if name in owners:
                first = yaml.where(owners[name].node, ("grids", name))
                problems.append(f"{location}: grids: two grids are called {show(name)}; first at {first}. Rename one.")
            else:
                owners[name] = document
    return owners


def _unknown_profiles(documents: Sequence[Document], profiles: Sequence[str]) -> list[str]:
    known = _names(documents, "profiles")
    problems = []
    for position, profile in enumerate(profiles):
        if profile in profiles[:position]:
            problems.append(f"--profile: {show(profile)} is given twice; expected every profile once.")
        elif profile not in known:
            names = ", ".join(known) or "none in this sweep"
            problems.append(
                f"--profile: unknown profile {show(profile)}; known: {names}. {suggest(profile, known)}".rstrip()
            )
    return problems


def _given(profiles: Sequence[str]) -> str:
    return " ".join(f"--profile {name}" for name in profiles) or "none"


def _profiles_of(owner: Document, grid: str) -> list[str]:
    """The profiles that a grid is part of the sweep with; none: always."""
    node = owner.node.get("grids", grid, "profiles")
    listed = plain(node) if node is not None else []
    return [str(name) for name in listed] if isinstance(listed, list) else [str(listed)]


def _unknown_profiles_of_grids(owners: Mapping[str, Document], known: Sequence[str]) -> list[str]:
    return [
        f"{yaml.where(owner.node, ('grids', grid, 'profiles'))}: grids.{grid}.profiles: unknown profile {show(name)}; "
        f"known: {', '.join(known) or 'none in this sweep'}. {suggest(name, known)}".rstrip()
        for grid, owner in owners.items()
        for name in _profiles_of(owner, grid)
        if name not in known
    ]


def _unknown_grids(root: Node, steps: Steps, node: Node, known: Sequence[str]) -> list[Problem]:
    problems = []
    for name, _ in _entries(node, "grids"):
        if name not in known:
            where = yaml.where(root, (*steps, "grids", name))
            path = yaml.dotted((*steps, "grids"))
            text = f"{where}: {path}: unknown grid {show(name)}; known: {', '.join(known)}. {suggest(name, known)}"
            problems.append(Problem(text.rstrip(), (*steps, "grids", name)))
    return problems


def _blocks(node: Node) -> Iterator[tuple[Steps, Node]]:
    """Every block of a file or patch, chosen or not, with its path."""
    parts: list[tuple[Steps, Node]] = [((), node)]
    parts += [(("profiles", name), child) for name, child in _entries(node, "profiles")]
    for steps, part in parts:
        defaults = part.get("defaults")
        if defaults is not None:
            yield (*steps, "defaults"), defaults
        for name, grid in _entries(part, "grids"):
            yield (*steps, "grids", name), grid


def _declared(node: Node) -> set[str]:
    """Data sets that a file declares, in a profile too."""
    parts = [node, *(profile for _, profile in _entries(node, "profiles"))]
    return {name for part in parts for name, _ in _entries(part, "datasets")}


def _unknown_datasets(root: Node, declared: set[str]) -> list[Problem]:
    known = list(dict.fromkeys((*KNOWN, *sorted(declared))))
    problems = []
    for steps, block in _blocks(root):
        holders: list[Steps] = [("axes", "dataset")]
        exclude = block.get("exclude")
        count = len(exclude.value) if exclude is not None and isinstance(exclude.value, list) else 0
        holders += [("exclude", position, "dataset") for position in range(count)]
        for holder in holders:
            values = block.get(*holder)
            if values is None:
                continue
            listed = isinstance(values.value, list)
            for position, value in enumerate(values.value if isinstance(values.value, list) else [values]):
                if value.value not in known:
                    path: Steps = (*steps, *holder, position) if listed else (*steps, *holder)
                    name = str(value.value)
                    text = f"{yaml.where(root, path)}: {yaml.dotted(path)}: unknown data set {show(name)}; known: "
                    text += f"{', '.join(known)}. {suggest(name, known)}".rstrip()
                    problems.append(Problem(text + " Another folder is declared under datasets.", path))
    return problems


def _shared(documents: Sequence[Document], problems: list[str]) -> dict[str, Node]:
    """``datasets``, ``resources`` and ``notify`` of all files; an including file's values win over the included."""
    shared: dict[str, Node] = {}
    givers: dict[tuple[str, str], Document] = {}
    for document in reversed(documents):  # included files come after the one that includes them
        for name in ("datasets", "resources", "notify"):
            node = document.node.get(name)
            if node is None:
                continue
            for entry, value in node.items():
                giver = givers.get((name, entry))
                if giver is not None and giver not in document.family():
                    other = giver.node.get(name, entry)
                    if other is not None and plain(other) != plain(value):
                        here, there = (yaml.where(where.node, (name, entry)) for where in (giver, document))
                        problems.append(
                            f"{here}: {name}.{entry}: differs from {there}; expected the same in all files."
                        )
                givers[name, entry] = document
            shared[name] = merge(shared.get(name), node)
    return shared


def _chosen(documents: Sequence[Document], profiles: Sequence[str]) -> list[Node]:
    """The chosen profiles of all files, weakest first."""
    nodes = [document.node.get("profiles", profile) for profile in profiles for document in reversed(list(documents))]
    return [node for node in nodes if node is not None]


def _over(node: Node | None, layers: Sequence[Node], name: str) -> Node | None:
    patches = [patch for layer in layers if (patch := layer.get(name)) is not None]
    return functools.reduce(merge, patches, node)


def _datasets(node: Node | None, layers: Sequence[Node], problems: list[str]) -> dict[str, DatasetDecl]:
    node = _over(node, layers, "datasets")
    declarations: dict[str, DatasetDecl] = {}
    for name, entry in node.items() if node is not None else []:
        assert node is not None
        location, path = yaml.where(node, (name,)), f"datasets.{name}"
        if name in KNOWN:
            problems.append(f"{location}: {path}: a known data set has this name already. Choose another name.")
        elif entry.get("like") is None:
            problems.append(
                f"{location}: {path}: missing key 'like'; expected one of {', '.join(KNOWN)}. It "
                "gives constants and presets; own data with another number of classes say so with classes."
            )
        else:
            declared = DatasetBlock.model_validate(plain(entry))
            folder = declared.folder
            if folder is not None and (Path(folder).is_absolute() or ".." in Path(folder).parts):
                location = yaml.where(node, (name, "folder"))
                problems.append(
                    f"{location}: {path}.folder: outside DDRAY_DATA; got {show(folder)}; expected a path below it."
                )
            like, constants = KNOWN[declared.like], KNOWN[declared.constants or declared.like]
            if constants.channels != like.channels:
                location = yaml.where(node, (name, "constants"))
                problems.append(
                    f"{location}: {path}.constants: other channels; got {show(declared.constants)} with "
                    f"{constants.channels}; expected {like.channels} as {declared.like} has."
                )
            if declared.classes is not None and folder is None:
                location = yaml.where(node, (name, "classes"))
                problems.append(
                    f"{location}: {path}.classes: only a folder has classes of its own; got {declared.classes}; "
                    f"expected a folder beside it. For some classes of {declared.like} take the axis num_classes."
                )
            declarations[name] = DatasetDecl(
                name, folder, declared.like, declared.resize, declared.constants, declared.classes
            )
    return declarations


def _resources(node: Node | None) -> dict[str, ResourceDecl]:
    resources = {
        name: Resource.model_validate(plain(entry)) for name, entry in (node.items() if node is not None else [])
    }
    return {name: ResourceDecl(entry.cpus, entry.gpu) for name, entry in resources.items()}


def _resolve(
    name: str, owner: Document, profiles: Sequence[str], patch: Node, problems: list[str]
) -> tuple[Node | None, bool]:
    """The grid with its layers laid over one another (None: removed), and whether its exclusions are inherited."""
    parts: list[tuple[Node, tuple[str, ...]]] = [(owner.node, ())]
    parts += [(document.node, ("profiles", profile)) for profile in profiles for document in owner.lineage()]
    parts.append((patch, ()))
    result = Node({}, yaml.where(owner.node, ("grids", name)))
    inherited = False
    removed: str | None = None
    for holder, steps in parts:
        for part in (("defaults",), ("grids", name)):
            layer = holder.get(*steps, *part)
            if layer is None:
                continue
            if layer.value is None:
                removed = yaml.where(holder, (*steps, *part))
            elif removed is not None and part[0] == "grids":
                here = yaml.where(holder, (*steps, *part))
                problems.append(
                    f"{here}: grids.{name}: patches a grid that is removed at {removed}. Drop one of the two."
                )
            else:
                if layer.get("exclude") is not None:
                    inherited = part == ("defaults",)
                for given, other in (("epochs", "steps"), ("steps", "epochs")):
                    length = layer.get("train", given)  # two ways to say one thing: the stronger layer's word holds
                    if length is not None and length.value is not None:
                        result = yaml.without(result, {("train", other)})
                result = merge(result, yaml.without(layer, {("profiles",)}) if not steps else layer)
    return (None if removed else result), inherited


def _grid(name: str, owner: Document, node: Node, inherited: bool, known: frozenset[str], reader: Reader) -> Grid:
    whole = mapping([("grids", node.where, mapping([(name, node.where, node)], node.where))], node.where)
    block, problems = check(GridBlock, whole, ("grids", name))
    reader.note(problems)
    block = block if isinstance(block, GridBlock) else GridBlock()
    given = block.axes or {}
    axes = {
        axis: values
        for axis, _ in _entries(node, "axes")
        if (values := _values(given.get(axis, ()), known if axis == "dataset" else None))
    }
    exclude = tuple({axis: tuple(entry[axis]) for axis in AXES if axis in entry} for entry in block.exclude or ())
    train = {key: value for key, value in (block.train or {}).items() if value is not None}
    return Grid(
        name=name,
        file=owner.name,
        axes=axes,
        exclude=exclude,
        exclude_inherited=inherited,
        settings=block.settings or {},
        protocol=block.protocol or DEFAULT_PROTOCOL,
        train=train,
        evaluations=block.evaluations or {},
        doubtful=frozenset(reader.doubtful),
        node=node,
    )


def _values(values: Iterable[Any], known: frozenset[str] | None) -> tuple[Any, ...]:
    return tuple(value for value in values if known is None or value in known)


def _digest(
    grids: Sequence[Grid],
    datasets: Mapping[str, DatasetDecl],
    resources: Mapping[str, ResourceDecl],
    notify: NotifyDecl | None,
) -> str:
    content = {
        "grids": [
            {
                "name": grid.name,
                "axes": list(grid.axes.items()),
                "exclude": grid.exclude,
                "settings": grid.settings,
                "protocol": grid.protocol,
                "train": grid.train,
                "evaluations": grid.evaluations,
            }
            for grid in grids
        ],
        "datasets": {
            name: [
                *(entry.folder, entry.like, entry.resize),
                *([entry.constants] if entry.constants else []),
                *([entry.classes] if entry.classes else []),
            ]
            for name, entry in datasets.items()
        },
        "resources": {name: [entry.cpus, entry.gpu] for name, entry in resources.items()},
        "notify": notify.command if notify is not None else None,
    }
    return _sha(content)


def _sha(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
