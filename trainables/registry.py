"""How a method becomes known: a decorator on its settings, and the entry point ``ddray.methods``. No torch.

A method is one class of settings and one function

    distill(origin: Origin, settings: MySettings, context: DistillContext) -> DistilledSet

The decorator stands on the settings, not on the function, because planning reads the settings of every method and must
not load torch for it; the function is looked up by name when a stage runs.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from trainables.configs import KINDS, PRESET, Init, MethodSettings

log = logging.getLogger(__name__)

GROUP = "ddray.methods"
"""Entry points of this group name modules whose import declares methods."""

LEARNED = frozenset({"ipc", "init", "distill_seed", "distill_aug"})
"""Axes of a method that learns images from a start, with an augmentation that can be switched off."""
CHOSEN = frozenset({"ipc", "distill_seed"})
"""Axes of a method that chooses real images."""

S = TypeVar("S", bound=type[MethodSettings])


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method as the planner sees it."""

    name: str
    title: str
    """As printed in tables."""
    version: int = 1
    """Raised by hand when the method's results change."""
    settings: type[MethodSettings]
    uses: frozenset[str] = field(default_factory=frozenset)
    """Axes the method uses, beyond those that every point has."""
    init: Init | None = None
    """Start when the sweep names none."""
    function: str | None = None
    """``module:function`` of the computation; None for ``full``, which distils nothing."""
    card: bool = True
    """Whether it computes on a card, if there is one. What it takes follows from the settings: ``MethodSettings.held``
    of the card's memory, ``passes`` of time, ``stored_bytes`` of the disk."""

    @property
    def distils(self) -> bool:
        """Whether there is a set to make."""
        return self.function is not None

    @property
    def of_sets(self) -> bool:
        """Whether networks are trained on a set, made here or elsewhere; else on the origin."""
        return "ipc" in self.uses

    def load(self) -> Callable[..., Any]:
        """The computation; imports its module.

        Raises:
            ValueError: There is no such function.
        """
        assert self.function is not None, f"{self.name} distils nothing"
        module, _, name = self.function.partition(":")
        try:
            function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"method {self.name}: no function to call; got {self.function!r} ({error}); expected the module and "
                "the name of a function distill(origin, settings, context). Correct the method's declaration."
            ) from error
        return function


METHODS: dict[str, Method] = {}
"""All methods by name, in the order of declaration."""


def method(
    name: str,
    *,
    title: str,
    function: str | None = "distill",
    uses: frozenset[str] = LEARNED,
    init: Init | None = None,
    version: int = 1,
    card: bool = True,
) -> Callable[[S], S]:
    """Declare a method; stands as a decorator on its settings.

    Args:
        name: As written in sweep files: lower-case letters, digits and underscores.
        title: As printed in tables.
        function: Where the computation is: ``module:name``, or a name in the settings' own module; None when there is
            none.
        uses: Axes the method uses. An axis it does not use is null on its points.
        init: Start when the sweep names none; needed when ``uses`` holds ``init``.
        version: Raised by hand when the method's results change.
        card: Whether it computes on a card, if there is one; else on the CPU.

    Raises:
        ValueError: The name is taken or malformed, ``init`` does not go with ``uses``, or a setting
            has no default or is called ``preset``.
    """

    def declare(settings: S) -> S:
        if not (name.isidentifier() and name.islower()):
            raise ValueError(f"method: got the name {name!r}; expected lower-case letters, digits, underscores.")
        if name in KINDS:
            raise ValueError(f"method {name}: that is a kind of stage; expected another name. Rename it.")
        if name in METHODS:
            owner = METHODS[name].settings.__module__
            raise ValueError(f"method {name}: declared twice; got {settings.__module__}, after {owner}. Rename one.")
        fields = _fields(settings)
        if PRESET in fields:
            raise ValueError(f"method {name}: a setting is called {PRESET!r}, which names presets; rename it.")
        bare = [field for field, info in fields.items() if info.is_required()]
        if bare:
            raise ValueError(
                f"method {name}: settings without a default; got {', '.join(bare)}; expected one for each."
            )
        if settings.budget is not None and settings.budget not in fields:
            raise ValueError(f"method {name}: no such budget; got {settings.budget!r}; expected a setting's name.")
        if ("init" in uses) != (init is not None):
            raise ValueError(f"method {name}: got init {init!r} with axes {sorted(uses)}; expected both or neither.")
        where = function if function is None or ":" in function else f"{settings.__module__}:{function}"
        METHODS[name] = Method(
            name=name,
            title=title,
            version=version,
            settings=settings,
            uses=uses,
            init=init,
            function=where,
            card=card,
        )
        return settings

    return declare


def _fields(settings: type[MethodSettings]) -> dict[str, FieldInfo]:
    return settings.model_fields


def load_plugins() -> list[str]:
    """Import the modules that other packages name under ``ddray.methods``; what cannot be used is left out.

    Returns:
        One message per entry point that failed; also logged as a warning.
    """
    problems = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        before = set(METHODS)
        loaded = entry.module in sys.modules  # by whoever imported the package first; it may not be done yet
        try:
            entry.load()
            if before == set(METHODS) and not loaded:
                raise ValueError("nothing is declared in it")
        except (Exception, SystemExit) as error:
            for added in set(METHODS) - before:
                del METHODS[added]
            package = entry.dist.name if entry.dist is not None else "unknown package"
            problems.append(
                f"{package}: entry point {GROUP}:{entry.name} ({entry.value}) gives no method; got "
                f"{type(error).__name__}: {error}; expected a module that declares a method. Its methods are left out."
            )
            log.warning(problems[-1])
    return problems
