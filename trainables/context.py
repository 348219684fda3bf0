"""What a stage is given besides its configuration and inputs: folders, a device, a way to report and to be interrupted.

No torch here. ``ddray/run/stage.py`` implements the protocol for every executor; tests use a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol


class Interrupted(Exception):
    """The stage was to stop and has saved a checkpoint; running it again continues there."""


class StageFailure(Exception):
    """The computation itself cannot go on (divergence, NaN). The message names the iteration and the cause."""


Save = Callable[[Path], None]
"""Writes the state after the current iteration into the given empty folder."""


class Context(Protocol):
    """What a running stage is given."""

    device: str
    """``cpu`` or ``cuda``: where tensors go."""
    data: Path
    """DDRAY_DATA."""
    cache: Path
    """DDRAY_CACHE: decoded data, local to the node."""

    def restore(self) -> tuple[int, Path] | None:
        """The furthest usable checkpoint: (iterations done, folder), or None to start at zero."""

    def iterations(self, total: int, *, start: int = 0, save: Save | None = None, unit: str = "it") -> Iterator[int]:
        """Count from ``start`` to ``total``, taking care of everything around the loop body.

        After the body of each iteration it reports progress, writes snapshots at fixed iterations and checkpoints
        now and then through ``save``, and when the stage is to stop saves and raises ``Interrupted``. *When* it saves
        depends on the clock; what the loop computes never does.

        Args:
            total: Iterations when done.
            start: Iterations already done (from ``restore``).
            save: Writes the state. Without it the loop is polled for a stop but starts again from the beginning.
            unit: What is counted, for the progress display.

        Raises:
            Interrupted: The stage is to stop.
        """

    def poll(self) -> None:
        """Give way to a request to stop in the middle of a loop body that takes more than some seconds.

        The body starts again from the last checkpoint when the stage is resumed.

        Raises:
            Interrupted: The stage is to stop.
        """

    def measure(self, **values: float) -> None:
        """Latest values of named quantities (a loss), for the progress display and the stage's own log."""
