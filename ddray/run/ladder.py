"""What stages are given that ran out of memory with less: of a card the next larger share, of a machine more room.

It is remembered by cost class, so that stages alike start with it, in this sweep and in the next one on such a device.
Room is asked for as CPUs, because a machine's memory is shared out with them; the stage computes with as many threads
as before, hence the same bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job
from ddray.plan.shares import SHARES
from ddray.store.artifacts import Store

MOST_ROOM = 4.0
"""Times the CPUs: the request is doubled twice."""
FILE = "shares.json"
FORMAT = 1


class Ladder:
    """Shares and room by cost class.

    Args:
        device: What the sweep runs on; each has its own shares.
        store: Keeps shares between sweeps; None: nothing does. Room is not kept: a kill may have had other reasons.
        room: Whether jobs run beside others.
    """

    def __init__(self, device: str = "", store: Store | None = None, *, room: bool = True) -> None:
        self.widest = float("inf")
        """CPUs of the largest machine: more cannot be asked for."""
        self._store, self._most_room = store, MOST_ROOM if room else 1.0
        self._known = _read(store)
        self._shares = self._known.setdefault(device, {})
        self._rooms: dict[str, float] = {}

    def on(self, job: Job) -> Job:
        """The job with what its stages are known to need."""
        classes = [_class(stage) for stage in job.stages]
        share = max((self._shares.get(name, 0.0) for name in classes), default=0.0) if job.gpu > 0 else 0.0
        room = max((self._rooms.get(name, 1.0) for name in classes), default=1.0)
        if share <= job.gpu and room <= job.room:
            return job
        return replace(job, gpu=max(share, job.gpu), room=max(room, job.room))

    def more_of_a_card(self, stage: Stage, had: float) -> float | None:
        """The next larger share for a stage and all of its class; None where it had a whole card."""
        share = next((share for share in SHARES if share > had + 1e-6), None)
        if share is None:
            return None
        given = self._shares[_class(stage)] = max(share, self._shares.get(_class(stage), 0.0))
        if self._store is not None:
            devices = {name: shares for name, shares in self._known.items() if shares}
            content = {"format": FORMAT, "devices": devices}
            self._store.keep_hint(FILE, json.dumps(content, sort_keys=True).encode())
        return given

    def more_room(self, stage: Stage, had: float, cpus: float) -> float | None:
        """Twice the room; None where it had the most, or no machine has so many CPUs."""
        room = min(2 * had, self._most_room, self.widest / cpus)
        if room <= had:
            return None
        given = self._rooms[_class(stage)] = max(room, self._rooms.get(_class(stage), 1.0))
        return given


def climbed(ladder: Ladder, jobs: Iterable[Job]) -> list[Job]:
    """Those of the jobs that the ladder gives more than they have, with it."""
    raised = ((job, ladder.on(job)) for job in jobs)
    return [after for before, after in raised if after is not before]


def _class(stage: Stage) -> str:
    return stage.cost_class or stage.key


def _read(store: Store | None) -> dict[str, dict[str, float]]:
    """Device -> cost class -> share, as the store keeps it; whatever is of another shape is left out."""
    found: dict[str, dict[str, float]] = {}
    content = store.hint(FILE) if store is not None else None
    with contextlib.suppress(ValueError):
        said: Any = json.loads(content or b"{}")
        devices = said.get("devices") if isinstance(said, dict) and said.get("format") == FORMAT else {}
        for device, classes in devices.items() if isinstance(devices, dict) else ():
            for name, share in classes.items() if isinstance(classes, dict) else ():
                if isinstance(share, int | float) and 0 < share <= 1:
                    found.setdefault(device, {})[name] = float(share)
    return found
