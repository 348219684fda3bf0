"""What a command was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Request:
    """A sweep, and what narrows it."""

    path: Path
    """Of a sweep file, or of the ``evaluate.json`` of an imported file."""
    sets: tuple[str, ...] = ()
    """``PATH=VALUE`` each, laid over the file."""
    profiles: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    """``axis=value,value`` each: what is run."""
    skip: tuple[str, ...] = ()
    limit: int | None = None
    """How many points are run, the first ones; None: all."""
