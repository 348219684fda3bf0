"""What finished stages took, by device and cost class: kept in the store, so that the next plan knows.

The file is a hint. It can be removed at any time: building the tables makes it anew from the manifests. Whoever writes
last wins; what another sweep added meanwhile comes back with its next tables.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ddray.plan.graph import Stage
from ddray.plan.keys import short
from ddray.price.devices import device_of
from ddray.store.artifacts import DamagedArtifact, Store
from ddray.store.manifest import Manifest

FILE = "costs.json"
FORMAT = 1
ENOUGH = 24
"""Stages of a class and device that are kept: more would say the same."""


class Taken(NamedTuple):
    """What one stage took."""

    work: float
    """GFLOP, by the plan's estimate."""
    seconds: float
    peak_mib: float


@dataclass(slots=True)
class Measured:
    """Measured costs."""

    stages: dict[str, dict[str, dict[str, Taken]]] = field(default_factory=dict)
    """Device -> cost class -> short key -> what it took."""
    company: dict[str, dict[int, float]] = field(default_factory=dict)
    """Device -> processes at once -> their work in that of one (``ddray calibrate``)."""

    def of(self, device: str, cost_class: str) -> list[Taken]:
        """Of a device's stages of one class."""
        return list(self.stages.get(device, {}).get(cost_class, {}).values())

    def peak_of(self, stage: Stage) -> float | None:
        """MiB: the most that a stage of this class and work held of any card; None where none was seen."""
        peaks = [
            taken.peak_mib
            for device, by_class in self.stages.items()
            if not device.startswith("cpu ")
            for taken in by_class.get(stage.cost_class, {}).values()
            if math.isclose(taken.work, stage.work, rel_tol=0.01)
        ]
        return max(peaks, default=0.0) or None

    def add(self, device: str, cost_class: str, key: str, taken: Taken) -> None:
        """Keep what a stage took; of a class that has enough, that of a stage with other work replaces one of many
        alike."""
        known = self.stages.setdefault(device, {}).setdefault(cost_class, {})
        known[short(key)] = taken
        if len(known) > ENOUGH:
            often = Counter(each.work for each in known.values()).most_common(1)[0][0]
            del known[next(name for name, each in known.items() if each.work == often)]

    def wanted(self, stages: Iterable[Stage]) -> list[Stage]:
        """Those of the stages that would add to what is known: few of each class and work, and none that is in."""
        known: dict[str, Counter[float]] = defaultdict(Counter)
        names: set[str] = set()
        for by_class in self.stages.values():
            for cost_class, by_key in by_class.items():
                names |= by_key.keys()
                known[cost_class].update(each.work for each in by_key.values())
        found = []
        for stage in stages:
            counts = known[stage.cost_class]
            few = counts[stage.work] < max(2, ENOUGH // max(1, len(counts) + (stage.work not in counts)))
            if stage.cost_class and short(stage.key) not in names and few:
                counts[stage.work] += 1
                found.append(stage)
        return found

    def dumps(self) -> bytes:
        """As bytes, sorted."""
        content = {"format": FORMAT, "stages": self.stages, "company": self.company}
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def loads(cls, content: bytes) -> Measured:
        """From ``dumps``; whatever is of another shape is left out."""
        measured = cls()
        with contextlib.suppress(ValueError):
            data = json.loads(content)
            if isinstance(data, dict) and data.get("format") == FORMAT:
                measured._take_in(data.get("stages"))
                measured._take_in_company(data.get("company"))
        return measured

    def _take_in(self, stages: Any) -> None:
        for device, by_class in _items(stages):
            for cost_class, by_key in _items(by_class):
                for key, numbers in _items(by_key):
                    if _is_taken(numbers):
                        self.stages.setdefault(device, {}).setdefault(cost_class, {})[key] = Taken(*numbers)

    def _take_in_company(self, company: Any) -> None:
        for device, by_count in _items(company):
            for count, work in _items(by_count):
                if count.isdecimal() and int(count) >= 1 and isinstance(work, int | float) and 0 < work < 1e6:
                    self.company.setdefault(device, {})[int(count)] = float(work)


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _is_taken(numbers: Any) -> bool:
    return (
        isinstance(numbers, list)
        and len(numbers) == len(Taken._fields)
        and all(isinstance(number, int | float) and 0 <= number < 1e15 for number in numbers)
    )


def measured_in(store: Store) -> Measured:
    """What the store has; empty where it has nothing that can be read."""
    content = store.hint(FILE)
    return Measured.loads(content) if content is not None else Measured()


def taken_of(stage: Stage, manifest: Manifest) -> tuple[str, Taken] | None:
    """Device and cost of a finished stage; None where its manifest does not say."""
    provenance: Mapping[str, Any] = manifest.provenance
    seconds, numerics = provenance.get("seconds"), provenance.get("numerics")
    if not isinstance(seconds, int | float) or not isinstance(numerics, Mapping):
        return None
    peak = provenance.get("peak_mib")
    return device_of(numerics), Taken(stage.work, float(seconds), float(peak) if isinstance(peak, int | float) else 0.0)


def learn(stages: Iterable[Stage], store: Store) -> Measured:
    """Add what finished stages took to what the store has. Reads a few manifests of each class, however many stages.

    Args:
        stages: That are finished.
        store: Theirs.
    """
    measured = measured_in(store)
    before = measured.dumps()
    for stage in measured.wanted(stages):
        try:
            told = taken_of(stage, store.manifest(stage.key))
        except (KeyError, DamagedArtifact):
            continue  # the tables have said so
        if told is not None:
            measured.add(told[0], stage.cost_class, stage.key, told[1])
    if measured.dumps() != before:
        store.keep_hint(FILE, measured.dumps())
    return measured
