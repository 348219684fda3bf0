"""Where running jobs say how far they are and hear that they should stop, and nodes whether they may take jobs.

In this process a plain object; under Ray the same class as an actor, so that no shared file system is needed.
"""

from __future__ import annotations

import threading
from typing import Any


class Board:
    """Latest progress by job, what nodes said of themselves, and one flag. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, str] = {}
        self._stop = False

    def tick(self, job: str, progress: dict[str, Any] | None) -> bool:
        """Post a job's progress (None: it ended); returns whether to stop."""
        with self._lock:
            if progress is None:
                self._progress.pop(job, None)
            else:
                self._progress[job] = progress
            return self._stop

    def look(self, stop: bool = False) -> dict[str, dict[str, Any]]:
        """All progress; with ``stop`` ask every job to stop (for good)."""
        with self._lock:
            self._stop = self._stop or stop
            return dict(self._progress)

    def judge(self, node: str, problem: str) -> None:
        """Say why a node may not take jobs, "" when it may."""
        with self._lock:
            self._nodes[node] = problem

    def judged(self) -> dict[str, str]:
        """Node -> what was said of it."""
        with self._lock:
            return dict(self._nodes)
