"""What the command line of ``ddray evaluate`` said -> a checked ``Evaluation``. Light."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ddray.errors import RequestError, show, suggest
from ddray.external.evaluation import ARGMAX, CLASS_MAJOR, Evaluation
from ddray.plan.feasible import attacked_problem, recipe_problem
from ddray.plan.points import DatasetDecl
from ddray.plan.schema import DEFAULT_PROTOCOL
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.data.known import KNOWN, KnownDataset
from trainables.data.layout import known_dataset
from trainables.external.pictures import folder_sha256
from trainables.methods import EXTERNAL
from trainables.networks import parse, size_problem
from trainables.protocols import PROTOCOLS

LARGEST_WHITENED = 64
"""Pixels of a side: a matrix of 3 x 64 x 64 squared float64 numbers is 1.2 GB."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said, as it was said; None: not at all."""

    set_file: Path | None
    model_file: Path | None
    dataset: str | None
    datasets: Mapping[str, DatasetDecl]
    """That a sweep file declares."""
    architectures: tuple[str, ...]
    name: str | None
    classes: str | None
    normalisation: str | None
    mean: str | None
    std: str | None
    space: str | None
    unwhiten: bool
    factor: int | None
    labels: str | None
    label_form: str | None
    temperature: float | None
    label_source: str | None
    image_classes: str | None
    learned_lr: str | None
    learned_for: str | None
    nth: int | None
    protocol: str | None
    train: tuple[str, ...]
    seeds: str | None
    robustness: str | None
    images: int | None
    embedding: bool
    members: Path | None
    members_order: str | None

    @property
    def kind(self) -> Literal["set", "model"]:
        return "model" if self.model_file is not None else "set"

    @property
    def file(self) -> Path | None:
        """What is evaluated."""
        return self.model_file or self.set_file

    @property
    def known(self) -> KnownDataset | None:
        """Constants of the data set."""
        declared = self.declared
        if declared is None:
            return KNOWN.get(self.dataset or "")
        like = known_dataset(declared.like, declared.classes)
        return dataclasses.replace(like, image_size=declared.resize or like.image_size)

    @property
    def declared(self) -> DatasetDecl | None:
        """The data set, where it is one that a sweep file declares."""
        return self.datasets.get(self.dataset or "")


def checked(options: Options) -> Evaluation:
    """A request from the command line, files found and hashed but not read.

    Raises:
        RequestError: Everything that is wrong or missing, at once.
    """
    problems: list[str] = []
    # Each part says what is wrong with its options; what it returns counts only where nothing is.
    fields = {
        **_subject(options, problems),
        **_labels(options, problems),
        **_learned_rate(options, problems),
        **_normalisation(options, problems),
        **_training(options, problems),
        "evaluations": _evaluations(options, problems),
        "classes": _classes(options, problems),
        "seeds": _seeds(options, problems),
        "sha256": _sha256(options, problems),
        "name": _name(options, problems),
    }
    if problems:
        raise RequestError(problems)
    return Evaluation.model_validate(fields)


def _subject(options: Options, problems: list[str]) -> dict[str, Any]:
    """What is evaluated, and on which data set."""
    if (options.set_file is None) == (options.model_file is None):
        problems.append("ddray evaluate: what to evaluate; got both or none; expected one of --set FILE, --model FILE.")
    if options.kind == "model":
        problems += _not_of_a_model(options)
    elif options.space is None:
        problems.append(
            "--space: missing; expected pixel01 (numbers of about 0 to 1), normalised, or whitened (ZCA). Say which."
        )
    if options.known is None:
        what = f"unknown data set {show(options.dataset)}" if options.dataset else "missing"
        names = [*KNOWN, *options.datasets]
        advice = suggest(options.dataset or "", names) or "Of your own data: --datasets SWEEP, which declares it."
        problems.append(f"--dataset: {what}; expected one of {', '.join(names)}. {advice}")
    if options.unwhiten and options.space != "whitened":
        problems.append(
            f"--unwhiten: nothing is whitened; got --space {options.space}; expected whitened. Leave it out."
        )
    size = options.known.image_size if options.known is not None else 0
    if options.space == "whitened" and size > LARGEST_WHITENED:
        problems.append(
            f"--space: whitened images of {size} pixels; expected at most {LARGEST_WHITENED}: the matrix grows with "
            "the fourth power of the side. Take the set back to pixels where it was made."
        )
    labels, members = options.labels, options.members
    return {
        "kind": options.kind,
        "file": str(options.file.resolve()) if options.file is not None else "",
        "nth": options.nth,
        "labels": labels if labels in (None, CLASS_MAJOR) else str(Path(labels).resolve()),
        "members": None if members is None else str(members.resolve()),
        "members_order": options.members_order,
        "dataset": options.dataset,
        "declared": options.declared,
        "space": options.space,
        "unwhiten": options.unwhiten,
        "factor": options.factor or 1,
    }


def _labels(options: Options, problems: list[str]) -> dict[str, Any]:
    """What soft labels are; nothing of hard ones."""
    form, temperature = options.label_form, options.temperature
    given = {
        "--temperature": temperature,
        "--label-source": options.label_source,
        "--image-classes": options.image_classes,
    }
    if form is None:
        problems += [
            f"{option}: belongs to soft labels; got no --label-form. Give the form, or leave it out."
            for option, value in given.items()
            if value is not None and options.kind == "set"
        ]
        return {}
    if (temperature is None) == (form == "logits"):
        problems.append(
            "--temperature: missing; got --label-form logits; expected T, at which softmax(logits / T) is read. Give "
            "--temperature 1 where none is known of."
            if form == "logits"
            else f"--temperature: only of logits; got --label-form {form}. Leave it out."
        )
    if options.label_source is None:
        problems.append("--label-source: missing; expected learned (with the images) or teacher. Say which.")
    named = options.image_classes in (None, CLASS_MAJOR, ARGMAX)
    return {
        "label_form": form,
        "temperature": temperature,
        "label_source": options.label_source,
        "image_classes": options.image_classes if named else str(Path(options.image_classes or "").resolve()),
    }


def _learned_rate(options: Options, problems: list[str]) -> dict[str, Any]:
    """A learning rate that was learned with the set, and the network that it is for."""
    given = options.learned_lr
    if given is None:
        if options.learned_for is not None and options.kind == "set":
            problems.append("--learned-for: of which learning rate; got no --learned-lr. Give it, or leave this out.")
        return {}
    name = options.learned_for or (options.architectures[0] if len(options.architectures) == 1 else None)
    if name is None:
        problems.append(
            f"--learned-for: missing; got {len(options.architectures) or 'no'} --architecture; expected the network "
            "that the learning rate was learned for, as convnet3."
        )
    else:
        try:
            parse(name)
        except ValueError as error:
            problems.append(f"--learned-for: {error}")
    rate = _number(given)
    if rate is not None and not 0 < rate < 1e3:
        problems.append(f"--learned-lr: out of range; got {show(given)}; expected above 0.")
    file = str(Path(given).resolve()) if rate is None else None
    return {"learned_lr": rate, "learned_rate_file": file, "learned_for": name}


def _number(text: str | None) -> float | None:
    """None: it is the name of a file, or nothing."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _not_of_a_model(options: Options) -> Iterator[str]:
    given = {
        "--space": options.space,
        "--unwhiten": options.unwhiten or None,
        "--factor": options.factor,
        "--label-form": options.label_form,
        "--temperature": options.temperature,
        "--label-source": options.label_source,
        "--image-classes": options.image_classes,
        "--learned-lr": options.learned_lr,
        "--learned-for": options.learned_for,
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


def _normalisation(options: Options, problems: list[str]) -> dict[str, Any]:
    """Mean and deviation that images are, or are to be, normalised with; null: they are not."""
    mean, std = _constants(options, problems)
    return {"mean": mean, "std": std}


def _constants(options: Options, problems: list[str]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    channels = options.known.channels if options.known is not None else None
    wanted = options.kind == "model" or options.space == "normalised"
    given = [option for option in ("normalisation", "mean", "std") if getattr(options, option) is not None]
    if not wanted:
        if given and options.space is not None:
            problems.append(f"--{given[0]}: only of normalised images; got --space {options.space}. Leave it out.")
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
        what = "the network expects its input" if options.kind == "model" else "the images are"
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


def _training(options: Options, problems: list[str]) -> dict[str, Any]:
    """What is trained on a set, and how; of a model, the network that it is."""
    architectures = _architectures(options, problems)
    protocol = options.protocol or DEFAULT_PROTOCOL
    if protocol not in PROTOCOLS:
        hint = suggest(protocol, PROTOCOLS)
        problems.append(f"--protocol: unknown recipe {show(protocol)}; known: {', '.join(PROTOCOLS)}. {hint}".rstrip())
    train = _train(options, protocol, problems)
    if options.kind == "model":
        return {"architectures": architectures, "protocol": EXTERNAL, "train": {}}
    return {"architectures": architectures, "protocol": protocol, "train": train}


def _seeds(options: Options, problems: list[str]) -> tuple[int, ...]:
    """Of the trainings; a model is one."""
    seeds = _numbers("--seeds", options.seeds, problems, range(10**9)) or (0,)
    return seeds if options.kind == "set" else (0,)


def _architectures(options: Options, problems: list[str]) -> tuple[str, ...]:
    kind, known = options.kind, options.known
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
        if known is not None and (reason := size_problem(parsed, known.image_size, known.channels)) is not None:
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


def _evaluations(options: Options, problems: list[str]) -> dict[str, dict[str, Any]]:
    evaluations: dict[str, dict[str, Any]] = {}
    if options.robustness != "none":
        attacks = [name.strip() for name in options.robustness.split(",")] if options.robustness else None
        for name in attacks or ():
            if name not in ROBUSTNESS_ATTACKS:
                hint = suggest(name, ROBUSTNESS_ATTACKS)
                known = ", ".join(ROBUSTNESS_ATTACKS)
                problems.append(f"--robustness: unknown attack {show(name)}; known: {known}, or none. {hint}".rstrip())
        given = {"attacks": attacks and list(dict.fromkeys(attacks)), "images": options.images}
        evaluations["robustness"] = {name: value for name, value in given.items() if value is not None}
    elif options.images is not None:
        problems.append("--images: nothing is attacked; got --robustness none. Leave one of them out.")
    evaluations["privacy"] = {"audit": ["seed"], "shadows": 0, "start": False}  # nothing can be distilled again
    if options.members_order is not None and options.members is None:
        problems.append("--members-order: of which members; got no --members. Give the file, or leave it out.")
    if options.kind == "set" and options.embedding:
        evaluations["embedding"] = {}
    return evaluations


def _classes(options: Options, problems: list[str]) -> tuple[int, ...]:
    """The classes that take part."""
    total = options.known.num_classes if options.known is not None else None
    classes = _numbers("--classes", options.classes, problems, range(10**6 if total is None else total))
    if classes is not None and len(classes) < 2:
        problems.append(f"--classes: too few; got {show(options.classes)}; expected two or more.")
    classes = tuple(range(total or 0)) if classes is None else classes
    if options.space == "whitened" and len(classes) < (total or 0):
        problems.append(
            f"--space: whitened images of some classes; got --classes {options.classes}; expected all, because the "
            "whitening is that of all training images. Leave --classes out, or take the set back to pixels where it "
            "was made."
        )
    if options.images is not None and (why := attacked_problem(options.images, len(classes))) is not None:
        problems.append(f"--images: {why}")
    return classes


def _sha256(options: Options, problems: list[str]) -> dict[str, str]:
    """Digests of the files, by option."""
    labels = None if options.labels in (None, CLASS_MAJOR) else Path(options.labels)
    classes = None if options.image_classes in (None, CLASS_MAJOR, ARGMAX) else Path(options.image_classes)
    rate = None if options.learned_lr is None or _number(options.learned_lr) is not None else Path(options.learned_lr)
    files = {
        options.kind: options.file,
        "members": options.members,
        "labels": labels,
        "image-classes": classes,
        "learned-lr": rate,
    }
    digests = {role: _hash(role, path, problems) for role, path in files.items() if path is not None}
    return {role: sha256 for role, sha256 in digests.items() if sha256 is not None}


def _name(options: Options, problems: list[str]) -> str:
    """Of the results folder: given, or made of the file's."""
    stem = options.file.stem if options.file is not None else "x"
    name = options.name or re.sub(r"[^A-Za-z0-9_.-]", "-", stem).lstrip(".-") or "x"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        problems.append(f"--name: not a name; got {show(name)}; expected letters, digits, _, - and dots.")
    return name


def _numbers(option: str, text: str | None, problems: list[str], within: range) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(word) for word in text.split(","))
    except ValueError:
        problems.append(f"{option}: not whole numbers; got {show(text)}; expected for example 0,1,2.")
        return None
    if len(set(numbers)) != len(numbers) or any(number not in within for number in numbers):
        limit = "" if within.stop >= 10**6 else f" to {within.stop - 1}"
        problems.append(f"{option}: out of range or twice; got {show(text)}; expected different numbers from 0{limit}.")
        return None
    return tuple(sorted(numbers))


def _floats(option: str, text: str, problems: list[str]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(abs(value) < 1e6 for value in numbers):
        problems.append(f"{option}: not numbers; got {show(text)}; expected one per channel, as 0.49,0.48,0.45.")
        return ()
    return numbers


def _hash(role: str, path: Path, problems: list[str]) -> str | None:
    try:
        if role == "set" and path.is_dir():
            return folder_sha256(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        problems.append(f"--{role}: cannot be read; got {path}: {error.strerror}; expected {_expected(role)}.")
        return None


def _expected(role: str) -> str:
    return {
        "set": "a file, or a folder of pictures",
        "labels": "a file, or class-major",
        "image-classes": "a file, class-major or argmax",
        "learned-lr": "a number, or a file",
    }.get(role, "a file")
