"""What a running stage sees of its surroundings: the implementation of ``trainables.context.Context``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ddray.store.checkpoints import Checkpoints
from trainables.context import Interrupted, Save

CHECKPOINT_SECONDS = 60.0
"""A killed stage loses at most about this much work."""


def is_snapshot(iteration: int) -> bool:
    """Whether the state at this iteration is kept for good: 100, 200, 500, 1000, 2000, 5000, …

    The list is fixed, so that a shorter budget chosen later finds a state to start from.
    """
    while iteration >= 1000 and iteration % 10 == 0:
        iteration //= 10
    return iteration in (100, 200, 500)


class StageContext:
    """One running stage's surroundings."""

    def __init__(
        self,
        *,
        device: str,
        data: Path,
        cache: Path,
        checkpoints: Checkpoints,
        budget: int | None,
        stop: threading.Event,
        on_progress: Callable[[dict[str, Any]], None],
    ) -> None:
        self.device = device
        self.data = data
        self.cache = cache
        self._checkpoints = checkpoints
        self._budget = budget
        self._stop = stop
        self._on_progress = on_progress
        self._values: dict[str, float] = {}

    def restore(self) -> tuple[int, Path] | None:
        """The furthest usable checkpoint not beyond the budget: (iterations done, folder), or None."""
        return self._checkpoints.furthest(self._budget if self._budget is not None else 10**9)

    def iterations(self, total: int, *, start: int = 0, save: Save | None = None, unit: str = "it") -> Iterator[int]:
        """See ``trainables.context.Context.iterations``."""
        saved_at = time.monotonic()
        self._report(start, start, total, unit)
        for iteration in range(start, total):
            if self._stop.is_set():  # before the first body as well: nothing to save that is not saved already
                raise Interrupted
            yield iteration
            done = iteration + 1
            self._report(start, done, total, unit)
            if save is None:
                continue
            snapshot = self._budget is not None and (is_snapshot(done) or done == total)
            due = time.monotonic() - saved_at > CHECKPOINT_SECONDS and done < total
            if snapshot or due or (self._stop.is_set() and done < total):
                with self._checkpoints.writing(done, snapshot=snapshot) as folder:
                    save(folder)
                saved_at = time.monotonic()

    def poll(self) -> None:
        """See ``trainables.context.Context.poll``."""
        if self._stop.is_set():
            raise Interrupted

    def measure(self, **values: float) -> None:
        """Latest values of named quantities."""
        self._values.update(values)

    def _report(self, start: int, done: int, total: int, unit: str) -> None:
        self._on_progress({"start": start, "done": done, "total": total, "unit": unit, "values": self._values})
