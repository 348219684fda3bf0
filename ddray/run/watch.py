"""Says what jobs wait for that Ray has and no worker begins, and when nothing will come of it any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from ddray.plan.jobs import Shape
from ddray.run.ledger import Ledger
from ddray.run.progress import duration

PATIENCE_SECONDS = 600.0
"""How long nothing at all may go on for want of nodes."""
TELL_SECONDS = 60.0
"""A worker starts within seconds; what waits for longer waits for something."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that Ray has and that no worker has begun."""

    label: str
    shape: Shape
    seconds: float


class Watch:
    """What was said of waiting jobs, and since when nothing goes on.

    Args:
        say: Tells a person.
        gpus_expected: GPUs that the cluster will have.
        patience: Seconds.
    """

    def __init__(
        self, say: Callable[[str], None], *, gpus_expected: int = 0, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.say = say
        self.gpus_expected = gpus_expected
        self.patience = patience
        self._told: set[Shape] = set()
        self._since: float | None = None

    def tell(self, waiting: Iterable[Waiting], ledger: Ledger, free: Callable[[], str]) -> None:
        """Say once of each shape what it waits for, again after it had begun meanwhile.

        Args:
            waiting: Jobs that should have begun: not those that wait for others of the sweep.
            ledger: The nodes.
            free: What is free by Ray's own books.
        """
        late: dict[Shape, list[Waiting]] = defaultdict(list)
        for job in waiting:
            if job.seconds > TELL_SECONDS:
                late[job.shape].append(job)
        for shape in late.keys() - self._told:
            jobs = late[shape]
            more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
            have = "have" if more else "has"
            waits = f"{jobs[0].label}{more} {have} waited {duration(max(job.seconds for job in jobs))} for"
            if ledger.ever_fits(shape):
                self.say(
                    f"{waits} {asked(shape)}, which this sweep leaves free; free by Ray's own books: {free()}. Workers "
                    "start slowly on a busy disk or machine; or another program uses the cluster (`ray status`)."
                )
            else:
                self.say(f"{waits} a node with {asked(shape)}; the cluster has {self._has(ledger)}.")
        self._told = set(late)

    def given_up(self, shapes: Collection[Shape], ledger: Ledger, refused: Mapping[str, str], now: float) -> str:
        """Why nothing will go on any more; "" while it may.

        Args:
            shapes: Of all jobs that could go on, when none does: nothing runs, and nobody computes what they need.
            ledger: The nodes.
            refused: Nodes that may not take jobs -> why.
            now: Seconds, of any clock that goes on.
        """
        if not shapes or any(map(ledger.ever_fits, shapes)):
            self._since = None
            return ""
        if self._since is None:
            self._since = now
        if refused and not ledger.nodes:
            return (
                f"no node may take jobs. {' '.join(dict.fromkeys(refused.values()))} Run the same command again then."
            )
        if now - self._since < self.patience:
            return ""
        waits = " or ".join(asked(shape) for shape in sorted(shapes))
        return (
            f"no node came in {duration(self.patience)} that has {waits}; the cluster has {self._has(ledger)}. Add "
            "nodes and run the same command again; --wait-for-nodes says how many minutes to wait for them."
        )

    def _has(self, ledger: Ledger) -> str:
        nodes = ", ".join(map(str, ledger.nodes.values())) or "no node that may take jobs"
        return nodes + (f" ({ledger.gpus} of {self.gpus_expected} expected GPUs)" if self.gpus_expected else "")


def asked(shape: Shape) -> str:
    """A shape in words."""
    cpus, share = shape
    return f"{cpus:g} CPU{'s' * (cpus != 1)}" + (f" and {share:g} GPU" if share > 0 else "")
