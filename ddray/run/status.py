"""``status.json`` of one run: what ``ddray status`` reads, while it runs and afterwards."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ddray.results import write_json
from ddray.run.progress import Progress

FILE = "status.json"
EVERY_SECONDS = 2.0
ENDS = {0: "done", 1: "failed", 130: "interrupted"}
"""How a run ended, by its exit code. One that wrote no end died."""


class RunStatus:
    """Written every few seconds from the first job to the end of the block, and once more with the end.

    Args:
        folder: Of the run. A run that has nothing to do leaves none.
        store: Where its checkpoints are.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.code: int | None = None
        """The exit code, once it is known."""
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": shlex.join(["ddray", *sys.argv[1:]]),
            "cwd": str(Path.cwd()),
            "store": store,
            "started_at": _now(),
            "ended_at": None,
            "end": None,
            "reason": "",
        }
        self._progress: Progress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="status", daemon=True)

    def follow(self, progress: Progress) -> None:
        """Tell of these jobs from now on."""
        first, self._progress = self._progress is None, progress
        if first:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._thread.start()

    def __enter__(self) -> RunStatus:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._progress is None:
            return
        self._over.set()
        self._thread.join(timeout=5)
        if isinstance(error, KeyboardInterrupt):
            end, reason = "interrupted", ""
        elif error is not None:
            end, reason = "failed", str(error) or type(error).__name__
        else:
            end, reason = ENDS.get(self.code if self.code is not None else 1, "failed"), ""
        self._facts |= {"pid": None, "ended_at": _now(), "end": end, "reason": reason}
        self._write()

    def _keep(self) -> None:
        while not self._over.is_set():
            self._write()
            self._over.wait(EVERY_SECONDS)

    def _write(self) -> None:
        assert self._progress is not None
        with contextlib.suppress(OSError):  # a full disk is told by what needs the disk
            write_json(self.folder / FILE, {**self._facts, **self._progress.snapshot()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
