"""The request to evaluate a file, as ``results/<name>/evaluate.json`` holds it. Light."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddray.errors import RequestError
from trainables.configs import OriginConfig

FILE = "evaluate.json"
CLASS_MAJOR = "class-major"


class FileContent(BaseModel):
    """What the files say that the request does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ipc: int | None
    """Of a set."""
    members: OriginConfig | None


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
    content: FileContent | None = Field(None, alias="found")
    """None: the files have not been read yet."""

    @property
    def requested(self) -> dict[str, Any]:
        """The request alone, as JSON types; where its files lie does not matter."""
        return self.model_dump(mode="json", exclude={"content", "file", "labels", "members"}) | {
            "labels": self.labels if self.labels == CLASS_MAJOR else None
        }

    def with_content(self, content: FileContent | None) -> Evaluation:
        """The same request, with what its files say."""
        return self.model_copy(update={"content": content})


def load_evaluation(path: Path) -> Evaluation:
    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RequestError(
            f"{path}: not an evaluation; got {str(error).splitlines()[0]}; expected what ddray evaluate writes. Run it "
            "again under another --name."
        ) from error
