"""What was asked: from the command line, checked, to ``evaluate.json``. Light."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ddray.errors import RequestError, show, suggest
from ddray.plan.feasible import attacked_problem, recipe_problem
from ddray.plan.imported import EXTERNAL
from ddray.plan.schema import DEFAULT_PROTOCOL
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.configs import OriginConfig
from trainables.data.known import KNOWN
from trainables.networks import parse, size_problem
from trainables.protocols import PROTOCOLS

FILE = "evaluate.json"
CLASS_MAJOR = "class-major"


class Found(BaseModel):
    """What was learned from the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ipc: int | None
    """Of a set."""
    members: OriginConfig | None


class Evaluation(BaseModel):
    """A checked request: the content of ``evaluate.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    kind: Literal["set", "model"]
    file: str
    """Absolute path, for messages; identity is in ``sha256``."""
    labels: str | None = None
    """Absolute path, or ``class-major``."""
    members: str | None = None
    """Absolute path."""
    sha256: dict[str, str]
    """Of the files, by option."""
    nth: int | None = None
    members_order: Literal["files", "canonical"] | None = None
    dataset: str
    classes: tuple[int, ...]
    space: Literal["pixel01", "normalised"] | None = None
    factor: int = 1
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    architectures: tuple[str, ...]
    seeds: tuple[int, ...]
    protocol: str
    train: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    found: Found | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The request alone, as JSON types; where its files lie does not matter."""
        return self.model_dump(mode="json", exclude={"found", "file", "labels", "members"}) | {
            "labels": self.labels if self.labels == CLASS_MAJOR else None
        }


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said, as it was said; None: not at all."""

    set_file: Path | None
    model_file: Path | None
    dataset: str | None
    architectures: tuple[str, ...]
    name: str | None
    classes: str | None
    normalisation: str | None
    mean: str | None
    std: str | None
    space: str | None
    factor: int | None
    labels: str | None
    nth: int | None
    protocol: str | None
    train: tuple[str, ...]
    seeds: str | None
    robustness: str | None
    images: int | None
    embedding: bool
    members: Path | None
    members_order: str | None


def load_evaluation(path: Path) -> Evaluation:
    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RequestError(
            f"{path}: not an evaluation; got {str(error).splitlines()[0]}; expected what ddray evaluate writes. Run it "
            "again under another --name."
        ) from error


def checked(options: Options) -> Evaluation:
    """A request from the command line, files found and hashed but not read.

    Raises:
        RequestError: Everything that is wrong or missing, at once.
    """
    problems: list[str] = []
    kind: Literal["set", "model"] = "model" if options.model_file is not None else "set"
    file = options.model_file or options.set_file
    if (options.set_file is None) == (options.model_file is None):
        problems.append("ddray evaluate: what to evaluate; got both or none; expected one of --set FILE, --model FILE.")
    if kind == "model":
        problems += _not_of_a_model(options)
    elif options.space is None:
        problems.append("--space: missing; expected pixel01 (numbers of about 0 to 1) or normalised. Say which.")
    known = KNOWN.get(options.dataset or "")
    if known is None:
        what = f"unknown data set {show(options.dataset)}" if options.dataset else "missing"
        hint = suggest(options.dataset or "", KNOWN)
        problems.append(f"--dataset: {what}; expected one of {', '.join(KNOWN)}. {hint}".rstrip())
    channels = known.channels if known is not None else None
    constants = _constants(options, kind, channels, problems)
    architectures = _architectures(options, kind, known, problems)
    protocol = options.protocol or DEFAULT_PROTOCOL
    if protocol not in PROTOCOLS:
        hint = suggest(protocol, PROTOCOLS)
        problems.append(f"--protocol: unknown recipe {show(protocol)}; known: {', '.join(PROTOCOLS)}. {hint}".rstrip())
    train = _train(options, protocol, problems)
    evaluations = _evaluations(options, kind, problems)
    classes = _numbers("--classes", options.classes, problems, range(known.num_classes if known is not None else 10**6))
    if classes is not None and len(classes) < 2:
        problems.append(f"--classes: too few; got {show(options.classes)}; expected two or more.")
    count = len(classes) if classes is not None else known.num_classes if known is not None else 0
    if options.images is not None and (why := attacked_problem(options.images, count)) is not None:
        problems.append(f"--images: {why}")
    seeds = _numbers("--seeds", options.seeds, problems, range(10**9))
    labels = options.labels
    files: dict[str, Path | None] = {kind: file, "members": options.members}
    if labels is not None and labels != CLASS_MAJOR:
        files["labels"] = Path(labels)
    sha256 = {
        role: found for role, path in files.items() if path is not None and (found := _hash(role, path, problems))
    }
    name = options.name or re.sub(r"[^A-Za-z0-9_.-]", "-", file.stem if file is not None else "x").lstrip(".-") or "x"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        problems.append(f"--name: not a name; got {show(name)}; expected letters, digits, _, - and dots.")
    if problems:
        raise RequestError(problems)
    assert known is not None
    assert file is not None
    model = kind == "model"
    return Evaluation.model_validate(
        {
            "name": name,
            "kind": kind,
            "file": str(file.resolve()),
            "sha256": sha256,
            "nth": options.nth,
            "labels": labels if labels in (None, CLASS_MAJOR) else str(Path(labels).resolve()),
            "members": None if options.members is None else str(options.members.resolve()),
            "members_order": options.members_order,
            "dataset": options.dataset,
            "classes": classes or tuple(range(known.num_classes)),
            "space": options.space,
            "factor": options.factor or 1,
            "mean": constants[0],
            "std": constants[1],
            "architectures": architectures,
            "seeds": (0,) if model else seeds or (0,),
            "protocol": EXTERNAL if model else protocol,
            "train": {} if model else train,
            "evaluations": evaluations,
        }
    )


def _not_of_a_model(options: Options) -> Iterator[str]:
    given = {
        "--space": options.space,
        "--factor": options.factor,
        "--labels": options.labels,
        "--nth": options.nth,
        "--protocol": options.protocol,
        "--train": options.train or None,
        "--seeds": options.seeds,
        "--embedding": options.embedding or None,
    }
    for option, value in given.items():
        if value is not None:
            yield f"{option}: belongs to a distilled set; got --model, of which nothing is trained. Leave it out."


def _constants(
    options: Options, kind: str, channels: int | None, problems: list[str]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation that images are, or are to be, normalised with; None: they are not."""
    wanted = kind == "model" or options.space == "normalised"
    given = [option for option in ("normalisation", "mean", "std") if getattr(options, option) is not None]
    if not wanted:
        if given and options.space is not None:
            problems.append(f"--{given[0]}: not for images in pixel space; got --space pixel01. Leave it out.")
        return None, None
    if "normalisation" in given and len(given) > 1:
        problems.append("--normalisation: set twice; got --mean or --std too; expected one way of saying it.")
        return None, None
    if options.normalisation is not None:
        if options.normalisation == "none":
            return (0.0,) * (channels or 1), (1.0,) * (channels or 1)
        known = KNOWN.get(options.normalisation)
        if known is None:
            hint = suggest(options.normalisation, [*KNOWN, "none"])
            problems.append(
                f"--normalisation: unknown {show(options.normalisation)}; expected none, or the constants of one of "
                f"{', '.join(KNOWN)}. {hint}".rstrip()
            )
            return None, None
        constants = known.mean, known.std
    elif options.mean is not None and options.std is not None:
        constants = _floats("--mean", options.mean, problems), _floats("--std", options.std, problems)
    else:
        what = "the network expects its input" if kind == "model" else "the images are"
        problems.append(
            f"--normalisation: missing; got {', '.join(f'--{name} alone' for name in given) or 'nothing'}; expected "
            f"how {what} normalised. Give --normalisation NAME (the constants of that data set, or none), or both "
            "--mean and --std."
        )
        return None, None
    for option, values in zip(("mean", "std"), constants, strict=True):
        if channels is not None and values and len(values) != channels:
            problems.append(f"--{option}: one number per channel; got {len(values)}; expected {channels}.")
    if any(value <= 0 for value in constants[1]):
        problems.append(f"--std: out of range; got {show(options.std)}; expected numbers above 0.")
    return constants


def _architectures(options: Options, kind: str, known: Any, problems: list[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(options.architectures))
    if not names and kind == "set":
        names = ("convnet3",)
    if kind == "model" and len(names) != 1:
        got = f"{len(names)} of them" if names else "nothing"
        problems.append(
            f"--architecture: missing; got {got}; expected the network whose parameters these are, as convnet3 or "
            "resnet18-w32."
        )
    for name in names:
        try:
            parsed = parse(name)
        except ValueError as error:
            problems.append(f"--architecture: {error}")
            continue
        reason = size_problem(parsed, known.image_size, known.channels) if known is not None else None
        if reason is not None:
            problems.append(
                f"--architecture: cannot take the images of {options.dataset}; got {known.image_size} pixels; "
                f"expected: {reason}."
            )
    return names


def _train(options: Options, protocol: str, problems: list[str]) -> dict[str, Any]:
    """Changes of the recipe, those that equal it left out."""
    train: dict[str, Any] = {}
    for text in options.train:
        name, equals, value = text.partition("=")
        if not equals or not name:
            problems.append(f"--train: not NAME=VALUE; got {show(text)}; expected for example epochs=300.")
            continue
        try:
            train[name.strip()] = json.loads(value)
        except ValueError:
            train[name.strip()] = value
    if train and protocol in PROTOCOLS:
        problem = recipe_problem(protocol, train)
        if problem is not None:
            problems.append(f"--train: {problem}.")
            return {}
        recipe = PROTOCOLS[protocol].recipe.model_dump(mode="json")
        train = {name: value for name, value in train.items() if value != recipe.get(name)}
    return train


def _evaluations(options: Options, kind: str, problems: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    if options.robustness != "none":
        attacks = [name.strip() for name in options.robustness.split(",")] if options.robustness else None
        for name in attacks or ():
            if name not in ROBUSTNESS_ATTACKS:
                hint = suggest(name, ROBUSTNESS_ATTACKS)
                known = ", ".join(ROBUSTNESS_ATTACKS)
                problems.append(f"--robustness: unknown attack {show(name)}; known: {known}, or none. {hint}".rstrip())
        given = {"attacks": attacks and list(dict.fromkeys(attacks)), "images": options.images}
        found["robustness"] = {name: value for name, value in given.items() if value is not None}
    elif options.images is not None:
        problems.append("--images: nothing is attacked; got --robustness none. Leave one of them out.")
    found["privacy"] = {"audit": ["seed"], "shadows": 0, "start": False}  # nothing can be distilled again
    if options.members_order is not None and options.members is None:
        problems.append("--members-order: of which members; got no --members. Give the file, or leave it out.")
    if kind == "set" and options.embedding:
        found["embedding"] = {}
    return found


def _numbers(option: str, text: str | None, problems: list[str], within: range) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        problems.append(f"{option}: not whole numbers; got {show(text)}; expected for example 0,1,2.")
        return None
    if len(set(found)) != len(found) or any(number not in within for number in found):
        limit = "" if within.stop >= 10**6 else f" to {within.stop - 1}"
        problems.append(f"{option}: out of range or twice; got {show(text)}; expected different numbers from 0{limit}.")
        return None
    return tuple(sorted(found))


def _floats(option: str, text: str, problems: list[str]) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(abs(value) < 1e6 for value in found):
        problems.append(f"{option}: not numbers; got {show(text)}; expected one per channel, as 0.49,0.48,0.45.")
        return ()
    return found


def _hash(role: str, path: Path, problems: list[str]) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        problems.append(f"--{role}: cannot be read; got {path}: {error.strerror}; expected a file.")
        return None
