"""What a user can do something about. Every message names the place, what is wrong, and what to do.

``exit_code`` is what the command line returns: 2 the request was wrong, 3 the environment cannot run it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path


class DdrayError(Exception):
    """Base of everything that ddray tells a person instead of showing a traceback."""

    exit_code = 2


class RequestError(DdrayError):
    """The request was wrong; all of its problems at once.

    Args:
        problems: One message per problem, each of the form ``where: what is wrong; got ...; expected ...``.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        assert self.problems, "a request error without a problem"
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        return "\n".join((*self.problems, f"{count} problem{'s'[: count > 1]}; nothing was started."))


class EnvironmentProblem(DdrayError):
    """The request is fine, this machine or store cannot carry it out."""

    exit_code = 3


def suggest(name: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` for the known name nearest to ``name``, or an empty text when none is near."""
    by_folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name[:80].casefold(), by_folded, n=1, cutoff=0.6)
    return f"Did you mean '{by_folded[near[0]]}'?" if near else ""


def show(value: object) -> str:
    """A value as a message quotes it: one line, never long."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case dict():
            return f"a mapping with {len(value)} key{'s'[: len(value) != 1]}"
        case list() | tuple():
            return f"a list of {len(value)}"
    return str(value)


def without_addresses(text: str) -> str:
    """A library's message without places in memory: they say nothing to a person, and equal causes differ by them."""
    return re.sub(r"\b0x[0-9a-fA-F]{8,}", "0x…", re.sub(r" at 0x[0-9a-fA-F]+(?=[>)\]])", "", text))


def printable(path: Path | str) -> str:
    """A path as messages show it, whatever bytes its name is made of."""
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", lambda bad: f"\\x{ord(bad.group()) & 0xFF:02x}", str(path))
