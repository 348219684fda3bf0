"""The signals that ask a command to end: INT (Ctrl-C), TERM (batch systems, ``docker stop``, ``timeout``) and HUP (a
terminal that closes).

    interrupting   from the first moment: each of them ends the command at once; nothing is lost that is finished
    StopRequest    while jobs run: the first asks stages to checkpoint; only a second Ctrl-C ends at once
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_REQUEST_SECONDS = 1.0
"""A second Ctrl-C within this time belongs to the first: ``timeout`` signals a process and its group, thus twice."""


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Each signal raises KeyboardInterrupt in the main thread, as Ctrl-C does by itself; after the block none does
    anything any more, because the exit code is decided by then."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heeded = _heeded()
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)


class StopRequest(threading.Event):
    """Set once a signal has asked for a stop; stages poll it, write their checkpoints and end."""

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals inside, in the main thread; elsewhere nobody can."""
        before = {number: signal.signal(number, self._hear) for number in _heeded()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def listen(self) -> None:
        """Hear them again: a library has installed handlers of its own meanwhile."""
        for number in _heeded():
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.is_set():
            self._since = time.monotonic()
            self.set()
            os.write(2, b"\nstopping: stages write their checkpoints (Ctrl-C ends at once, without)\n")
        elif number == signal.SIGINT and time.monotonic() - self._since > SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt


def _heeded() -> list[signal.Signals]:
    """The signals that this process was not told to ignore (``nohup``, a shell's background); none outside the main
    thread, which alone may handle them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
