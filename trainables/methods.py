"""Which distillation methods exist, what each uses, and where its code is. No torch: planning reads this.

A method's own file holds the computation; here stand the facts the planner needs before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trainables.configs import DMSettings, FullSettings, MethodSettings, RandomSettings


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method as the planner sees it."""

    name: str
    title: str
    """As printed in tables."""
    version: int = 1
    """Raised by hand when the method's results change."""
    settings: type[MethodSettings] | None
    """None: the method's name is reserved by the grammar, but this version cannot run it."""
    uses: frozenset[str] = field(default_factory=frozenset)
    """Axes the method uses, beyond those that every point has."""
    init: str | None = None
    """Start when the sweep names none."""
    function: str | None = None
    """``module:function`` of the computation; None for ``full``, which distils nothing."""

    @property
    def available(self) -> bool:
        return self.settings is not None


_LEARNED = frozenset({"ipc", "init", "distill_seed", "distill_aug"})

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="random", title="Random", settings=RandomSettings, uses=frozenset({"ipc", "distill_seed"}),
            function="trainables.distill.random:distill",
        ),
        Method(name="full", title="Full data", settings=FullSettings),
        Method(
            name="dm", title="DM", settings=DMSettings, uses=_LEARNED, init="real",
            function="trainables.distill.dm:distill",
        ),
        Method(name="dsa", title="DSA", settings=None, uses=_LEARNED, init="real"),
        Method(name="mtt", title="MTT", settings=None, uses=_LEARNED, init="real"),
        Method(name="idc", title="IDC", settings=None, uses=_LEARNED, init="real"),
    )
}  # fmt: skip
