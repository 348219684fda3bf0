"""Unfinished state of a stage, kept under its lineage: the key without the budget.

Stages that follow the same path to different lengths share a lineage, so a longer budget continues where a shorter
one ended. ``snapshot`` checkpoints (fixed iterations and ends of budgets) stay; of the others only the newest does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddray.store.files import Files
from ddray.store.manifest import digest_files, sha256

NAME = "checkpoint.json"


class Checkpoints:
    """The checkpoints of one lineage."""

    def __init__(self, files: Files, lineage: str) -> None:
        self.files = files
        self.folder = f"checkpoints/{lineage[:2]}/{lineage}"

    def done(self) -> list[int]:
        """Iterations for which a checkpoint exists, ascending."""
        return sorted(int(name) for name in self.files.names(self.folder) if name.isdigit())

    def furthest(self, at_most: int) -> tuple[int, Path] | None:
        """The usable checkpoint with the most iterations not beyond ``at_most``; damaged ones are removed."""
        for iteration in reversed(self.done()):
            if iteration <= at_most:
                folder = self._verified(iteration)
                if folder is not None:
                    return iteration, folder
        return None

    @contextmanager
    def writing(self, iteration: int, *, snapshot: bool) -> Iterator[Path]:
        """An empty folder that becomes the checkpoint when the body ends without error."""
        scratch = self.files.scratch()
        try:
            yield scratch
            meta = {"snapshot": snapshot, "files": digest_files(scratch, (path.name for path in scratch.iterdir()))}
            (scratch / NAME).write_text(json.dumps(meta, sort_keys=True))
            at = self._at(iteration)
            if not self.files.commit(scratch, at, NAME) and snapshot:
                self._promote(iteration)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._prune(iteration)

    def remove(self) -> None:
        """Forget the lineage: its last stage is done and nothing can continue it."""
        self.files.remove(self.folder)

    def _prune(self, newest: int) -> None:
        for iteration in self.done():
            if iteration < newest:
                meta = self._meta(iteration)
                if meta is None or not meta.get("snapshot"):
                    self.files.remove(self._at(iteration))

    def _verified(self, iteration: int) -> Path | None:
        meta = self._meta(iteration)
        if meta is not None:
            for _ in range(2):  # a local copy may be older than the checkpoint: then take a new one
                try:
                    folder = self.files.fetch(self._at(iteration), sorted(meta["files"]))
                    if all(sha256(folder / name) == expected["sha256"] for name, expected in meta["files"].items()):
                        return folder
                except (FileNotFoundError, KeyError, TypeError):
                    pass
                self.files.forget(self._at(iteration))
        self.files.remove(self._at(iteration))
        return None

    def _promote(self, iteration: int) -> None:
        """An ordinary checkpoint already stands where a snapshot is wanted: its content is the same, keep it."""
        meta = self._meta(iteration)
        if meta is not None:
            self.files.write(f"{self._at(iteration)}/{NAME}", json.dumps({**meta, "snapshot": True}).encode())

    def _meta(self, iteration: int) -> dict[str, Any] | None:
        """What a checkpoint says of itself; None where it is missing, cut short or of another shape."""
        try:
            meta = json.loads(self.files.read(f"{self._at(iteration)}/{NAME}"))
        except (FileNotFoundError, ValueError):
            return None
        readable = isinstance(meta, dict) and isinstance(meta.get("files"), dict)
        return meta if readable else None

    def _at(self, iteration: int) -> str:
        return f"{self.folder}/{iteration:09d}"
