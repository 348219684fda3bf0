"""What a user can do something about. Every message names the place, what is wrong, and what to do.

``exit_code`` is what the command line returns: 2 the request was wrong, 3 the environment cannot run it.
"""

from __future__ import annotations

from collections.abc import Sequence


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
