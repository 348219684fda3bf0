"""The results folder of a sweep: where it came from, and whether it is finished.

results/<sweep>/sweep.json            path, profiles and settings it was run with
                state.json            what the tables were built from; current means: nothing to do
                measurements.parquet, coverage.json, report.md, report.html, figures/
                runs.html             from the keys of points, which the report gives, to their runs in MLflow
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ddray.atomic import replacing
from ddray.errors import RequestError
from ddray.request import Request
from ddray.settings import Folders

MEASUREMENTS_FILE, COVERAGE_FILE = "measurements.parquet", "coverage.json"
REPORT_MD, REPORT_HTML, FIGURES_FOLDER = "report.md", "report.html", "figures"
RUNS_HTML = "runs.html"
RENDERER_VERSION = 19
"""Raised when what is built from the store changes: finished sweeps are then rebuilt once."""


class _Origin(BaseModel):
    """``sweep.json``."""

    model_config = ConfigDict(strict=True)

    path: str
    sets: list[str]
    profiles: list[str]


class _Counts(BaseModel):
    """Of points."""

    points: int
    done: int
    failed: int
    blocked: int


class _State(BaseModel):
    """``state.json``."""

    model_config = ConfigDict(strict=True)

    plan: str
    renderer: int
    stamps: dict[str, str]
    tables: dict[str, str]
    failures: list[str]
    counts: _Counts
    mirrored: str
    """Where to, as ``tracking.runs.Place`` is shown; "": not since the tables were built."""


@dataclass(frozen=True, slots=True)
class Results:
    """One sweep's folder."""

    folder: Path

    @property
    def measurements(self) -> Path:
        return self.folder / MEASUREMENTS_FILE

    def register(self, request: Request) -> None:
        """Remember where the sweep came from.

        Raises:
            RequestError: The name belongs to a sweep file at another path.
        """
        path = str(request.path.resolve())
        known = _read(self.folder / "sweep.json", _Origin)
        if known and known.get("path") != path and Path(str(known.get("path"))).exists():
            raise RequestError(
                [
                    f"{request.path}: a sweep of this name was run from another file; got {path}; expected "
                    f"{known.get('path')}. Rename one of the files, or move {self.folder} away."
                ]
            )
        origin = {"path": path, "sets": list(request.sets), "profiles": list(request.profiles)}
        if known != origin:
            write_json(self.folder / "sweep.json", origin)

    def state(self) -> dict[str, Any]:
        """What the tables were built from; nothing where that was never said or cannot be read."""
        return _read(self.folder / "state.json", _State)

    def record(self, plan_digest: str, stamps: Mapping[str, str], **facts: Any) -> None:
        """Say what the tables were built from."""
        built = {"plan": plan_digest, "renderer": RENDERER_VERSION, "stamps": dict(stamps), "tables": self._tables()}
        state = {**built, **facts}
        write_json(self.folder / "state.json", state)

    def current(self, plan_digest: str, stamps: Mapping[str, str]) -> bool:
        """Whether the tables on disk were built from exactly this."""
        state = self.state()
        return (
            state.get("plan") == plan_digest
            and state.get("renderer") == RENDERER_VERSION
            and state.get("stamps") == dict(stamps)
            and state.get("tables") == self._tables() != {}
        )

    def _tables(self) -> dict[str, str]:
        """Sizes and times of what was built: a table that was cut short or removed is built again."""
        names = (MEASUREMENTS_FILE, COVERAGE_FILE, REPORT_MD, REPORT_HTML)
        try:
            status = {name: (self.folder / name).stat() for name in names}
        except FileNotFoundError:
            return {}
        return {name: f"{entry.st_size}:{entry.st_mtime_ns}" for name, entry in status.items()}


def results_of(folders: Folders, name: str) -> Results:
    """The results folder of a sweep's name."""
    return Results(folders.results / name)


def find_sweep(folders: Folders, given: str) -> Request:
    """A sweep argument: a path, or the name of a sweep that was run before.

    Raises:
        RequestError: Neither.
    """
    path = Path(given)
    if path.is_file():
        return Request(path)
    folder = folders.results / given
    known = _read(folder / "sweep.json", _Origin) if "/" not in given else {}
    if not known and "/" not in given and (folder / "sweep.json").is_file():
        raise RequestError(
            f"{folder / 'sweep.json'}: does not say which file the sweep was run from; expected path, sets and "
            "profiles. Run `ddray sweep FILE` once more: it is written anew, and nothing is computed again."
        )
    if known:
        if not Path(known["path"]).is_file():
            raise RequestError(
                [
                    f"{given}: the sweep was run from {known['path']}, which is gone. Restore the file; "
                    f"its tables are still in {folders.results / given}."
                ]
            )
        return Request(Path(known["path"]), sets=tuple(known["sets"]), profiles=tuple(known["profiles"]))
    names = sorted(entry.name for entry in folders.results.iterdir()) if folders.results.is_dir() else []
    from ddray.errors import suggest

    hint = suggest(given, names)
    raise RequestError(
        [
            f"{given}: no such sweep; expected the path of a YAML file or the name of a sweep that was run; "
            f"known names: {', '.join(names) or 'none'}.{' ' + hint if hint else ''}"
        ]
    )


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file at once."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")


def _read(path: Path, shape: type[BaseModel]) -> dict[str, Any]:
    """The content of a file of ours; nothing where it is missing, cut short or of another shape."""
    try:
        return shape.model_validate_json(path.read_bytes()).model_dump()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
