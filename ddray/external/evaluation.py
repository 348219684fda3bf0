"""The request to evaluate a file, as ``results/<name>/evaluate.json`` holds it. Light."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddray.errors import RequestError
from ddray.plan.points import DatasetDecl
from trainables.configs import LabelForm, LabelSource, OriginConfig
from trainables.data.known import KNOWN
from trainables.methods import EXTERNAL
from trainables.networks import parse
from trainables.protocols import PROTOCOLS

FILE = "evaluate.json"
CLASS_MAJOR = "class-major"
ARGMAX = "argmax"
LATER = ("declared", "unwhiten", "label_form", "temperature", "label_source", "learned_lr", "learned_for")
"""Fields that are no part of the request where they are at their defaults: requests from before them stay the same."""


class FileContent(BaseModel):
    """What the files say that the request does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ipc: int | None
    """Of a set; where classes hold different numbers of images, their mean, rounded down."""
    members: OriginConfig | None
    fewest: int | None = None
    most: int | None = None
    """Images of a class, where these differ."""


class Evaluation(BaseModel):
    """A checked request: the content of ``evaluate.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

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
    declared: DatasetDecl | None = None
    """Of a data set that is not known by its name."""
    classes: tuple[int, ...]
    space: Literal["pixel01", "normalised", "whitened"] | None = None
    unwhiten: bool = False
    """Networks see the pixels of a whitened set."""
    factor: int = 1
    label_form: LabelForm | None = None
    """Of soft labels; None: they are hard."""
    temperature: float | None = None
    label_source: LabelSource | None = None
    image_classes: str | None = None
    """Where the classes of images with soft labels are: absolute path, ``class-major`` or ``argmax``."""
    learned_lr: float | None = None
    learned_rate_file: str | None = None
    """Absolute path, instead of the number."""
    learned_for: str | None = None
    """The network that the learning rate was learned for."""
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    architectures: tuple[str, ...]
    seeds: tuple[int, ...]
    protocol: str
    train: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    content: FileContent | None = Field(None, alias="found")
    """None: the files have not been read yet."""

    @model_validator(mode="after")
    def _whole(self) -> Evaluation:
        """What the command line never leaves out."""
        for name in self.architectures:
            parse(name)
        named = self.dataset in KNOWN if self.declared is None else self.declared.name == self.dataset
        if not named or (self.declared is not None and self.declared.like not in KNOWN):
            raise ValueError("the data set is unknown")
        if self.kind not in self.sha256 or not self.architectures:
            raise ValueError("the file's digest or the architecture is missing")
        if self.kind == "model" and (self.mean is None or self.std is None or len(self.architectures) != 1):
            raise ValueError("a model's normalisation or architecture is missing")
        if self.content is not None and self.kind == "set" and self.content.ipc is None:
            raise ValueError("the set's images per class are missing")
        if self.protocol not in (*PROTOCOLS, EXTERNAL):
            raise ValueError(f"unknown recipe {self.protocol}")
        return self

    @property
    def requested(self) -> dict[str, Any]:
        """The request alone, as JSON types; where its files lie does not matter."""
        later = {name for name in LATER if getattr(self, name) == type(self).model_fields[name].default}
        left_out = {"content", "file", "labels", "members", "image_classes", "learned_rate_file", *later}
        said = {"labels": self.labels if self.labels == CLASS_MAJOR else None}
        if self.image_classes in (CLASS_MAJOR, ARGMAX):
            said["image_classes"] = self.image_classes
        return self.model_dump(mode="json", exclude=left_out) | said

    def with_content(self, content: FileContent | None) -> Evaluation:
        """The same request, with what its files say."""
        return self.model_copy(update={"content": content})


def load_evaluation(path: Path) -> Evaluation:
    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(
            f"{path}: not an evaluation; got {reason}; expected what ddray evaluate writes. Run it again under another "
            "--name."
        ) from error
