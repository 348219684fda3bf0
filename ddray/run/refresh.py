"""Tables, report and mirror while a sweep runs: now and then, and never for more than a small part of its time."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

FIRST_SECONDS = 120.0
"""Until the first time, and at least between two."""
SHARE = 50.0
"""As many times as long as a refresh took does it wait for the next: 2 % of the time."""


class Refresh:
    """Calls something from time to time.

    Args:
        build: What is built anew. It may raise: what is on disk then stays as it is.
    """

    def __init__(self, build: Callable[[], None]) -> None:
        self._build = build
        self._next = time.monotonic() + FIRST_SECONDS
        self._one = threading.Lock()

    def tick(self) -> None:
        """Build if it is time."""
        if time.monotonic() < self._next or not self._one.acquire(blocking=False):
            return
        try:
            began = time.monotonic()
            self._build()
        except Exception as error:  # the run is worth more than a look at it
            log.warning("tables were not refreshed: %s", error)
        finally:
            now = time.monotonic()
            self._next = now + max(FIRST_SECONDS, SHARE * (now - began))
            self._one.release()

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Tick beside what is done inside: for a process that only waits for others."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(1.0):
                self.tick()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
