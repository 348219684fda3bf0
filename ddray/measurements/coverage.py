"""How much of a sweep is there: ``coverage.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from ddray.atomic import replacing
from ddray.errors import EnvironmentProblem
from ddray.results import COVERAGE_FILE

STATES = ("done", "failed", "blocked", "pending")


class State(NamedTuple):
    """What became of one evaluation of a point."""

    status: str
    """One of ``STATES``."""
    cause: str = ""
    """Key of the failed stage, or why it is blocked."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the whole sweep is there. Counts: ``planned``, ``done``, ``failed``, ``blocked``, ``pending``.

    A point is done when all its evaluations are; failed when one failed; else pending when one is; else blocked. An
    evaluation is failed when it or a stage it builds on failed; blocked when this version cannot compute one of them.
    """

    sweep: str
    digest: str
    """The sweep's."""
    points: dict[str, int]
    evaluations: dict[str, dict[str, int]]
    """By evaluation kind, of the points that have it."""
    methods: dict[str, dict[str, int]]
    """By method, of points."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Failed stages: ``key``, ``kind``, ``label``, ``cause``, and ``points``: how many lack a result because of it."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why evaluations are blocked -> points."""
    data: list[str] = field(default_factory=list)
    """What is wrong with the data sets, one sentence each."""

    @property
    def planned(self) -> int:
        return self.points["planned"]

    @property
    def done(self) -> int:
        return self.points["done"]

    @property
    def failed(self) -> int:
        return self.points["failed"]

    @property
    def blocked(self) -> int:
        return self.points["blocked"]

    @property
    def pending(self) -> int:
        return self.points["pending"]

    @property
    def complete(self) -> bool:
        """Whether every planned point is done."""
        return self.done == self.planned

    def save(self, folder: Path) -> None:
        """Replace ``coverage.json``."""
        content = json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        with replacing(folder / COVERAGE_FILE) as temporary:
            temporary.write_text(content, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Coverage:
        """Read ``coverage.json``.

        Raises:
            EnvironmentProblem: It is not there or not readable.
        """
        path = folder / COVERAGE_FILE
        try:
            coverage = _Coverage.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EnvironmentProblem(
                f"{path}: the coverage of the sweep cannot be read; got {reason}. Run `ddray collect` to make it again."
            ) from error
        return cls(**coverage.model_dump())


class _Counts(BaseModel):
    planned: int
    done: int
    failed: int
    blocked: int
    pending: int


class _Failure(BaseModel):
    key: str
    kind: str
    label: str
    cause: str
    points: int


class _Coverage(BaseModel):
    """The shape of ``coverage.json``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    sweep: str
    digest: str
    points: _Counts
    evaluations: dict[str, _Counts]
    methods: dict[str, _Counts]
    failures: list[_Failure] = []
    reasons: dict[str, int] = {}
    data: list[str] = []


class Tally:
    """Counts of coverage, point by point."""

    def __init__(self) -> None:
        self.points = _zeros()
        self.evaluations: dict[str, dict[str, int]] = {}
        self.methods: dict[str, dict[str, int]] = {}
        self.failed: Counter[str] = Counter()
        """Key of a failed stage -> points."""
        self.blocked: Counter[str] = Counter()
        """Reason -> points."""

    def add(self, method: str, states: Mapping[str, State]) -> None:
        """A point: what became of each kind of its evaluations."""
        statuses = {state.status for state in states.values()}
        overall = next(status for status in ("failed", "pending", "blocked", "done") if status in statuses)
        _count(self.points, overall)
        _count(self.methods.setdefault(method, _zeros()), overall)
        for kind, state in states.items():
            _count(self.evaluations.setdefault(kind, _zeros()), state.status)
        self.failed.update({state.cause for state in states.values() if state.status == "failed"})
        self.blocked.update({state.cause for state in states.values() if state.status == "blocked"})


def _zeros() -> dict[str, int]:
    return dict.fromkeys(("planned", *STATES), 0)


def _count(counts: dict[str, int], status: str) -> None:
    counts["planned"] += 1
    counts[status] += 1
