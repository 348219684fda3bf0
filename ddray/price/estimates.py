"""The seconds that a stage takes on a device, what that rests on, and within which factor it is to be believed.

1. *measured*: stages of its cost class were measured on this device. Of equal work: their median. Of other work: along
   the line through the nearest two (log-log), beyond them in proportion.
2. *measured nearby*: the class was not measured here, others of its kind were, of the same method if there are such:
   the seconds per GFLOP of the one that is nearest in work.
3. *scaled*: the class was measured on another device: in proportion to the assumed speeds of the two.
4. *assumed*: work over the device's assumed speed.

The factors are our judgement. On a recorded quickstart 99 % of the seconds were predicted within 1.5 from stages like
them, 90 % without any of their class (``python -m benchmarks.prediction``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal, NamedTuple

from ddray.plan.graph import Stage
from ddray.price.devices import CARDS, Device, core
from ddray.price.measured import Measured, Taken

Basis = Literal["measured", "measured nearby", "scaled", "assumed"]
FACTORS: Mapping[Basis, float] = {"measured": 1.5, "measured nearby": 2.5, "scaled": 3.0, "assumed": 4.0}
"""Within which an estimate is to be believed."""


class Estimate(NamedTuple):
    """Of a stage's seconds."""

    seconds: float
    basis: Basis

    @property
    def factor(self) -> float:
        return FACTORS[self.basis]


@dataclass(frozen=True)
class Prices:
    """What stages cost on one device.

    On a card a job runs as fast as its share of the card says, up to what one process gets out of a card at all
    (``Device.speed``). Where company was measured, measured seconds take the place of this.
    """

    device: Device
    measured: Measured

    def of(self, stage: Stage, share: float) -> Estimate:
        """The seconds of a stage.

        Args:
            stage: Of a plan.
            share: Of a card, that its job has; 0: it runs on a core, whatever the device. Unused where the device is
                one.
        """
        if not stage.cost_class:
            return Estimate(0.0, "measured")
        known = stage.cost_class, stage.work, share
        if known not in self._memory:
            self._memory[known] = self._estimate(stage, share)
        return self._memory[known]

    @cached_property
    def _memory(self) -> dict[tuple[str, float, float], Estimate]:
        return {}

    def _estimate(self, stage: Stage, share: float) -> Estimate:
        here = self.measured.of(self.device.measured_as, stage.cost_class)
        if here:
            return Estimate(seconds_from(here, stage.work), "measured")
        nearby = self._nearby(stage)
        if nearby is not None:
            return Estimate(nearby, "measured nearby")
        for name, by_class in self.measured.stages.items():
            other = _device(name)
            if other is not None and (taken := by_class.get(stage.cost_class)):
                seconds = seconds_from(list(taken.values()), stage.work)
                ratio = _assumed(stage, share, self.device) / _assumed(stage, share, other)
                return Estimate(seconds * ratio, "scaled")
        return Estimate(_assumed(stage, share, self.device), "assumed")

    def _nearby(self, stage: Stage) -> float | None:
        """From stages of the kind that share the method or attack, else the network, else the kind alone."""
        words = stage.cost_class.split(" ")
        for level in (words[:2], [words[0], *words[-2:]], words[:1]):
            taken = self._by_words.get(frozenset(level))
            if taken:
                return seconds_from([_nearest(taken, stage.work)], stage.work)
        return None

    @cached_property
    def _by_words(self) -> dict[frozenset[str], list[Taken]]:
        found: dict[frozenset[str], list[Taken]] = defaultdict(list)
        for cost_class, by_key in self.measured.stages.get(self.device.measured_as, {}).items():
            words = cost_class.split(" ")
            for level in {frozenset(words[:2]), frozenset([words[0], *words[-2:]]), frozenset(words[:1])}:
                found[level] += by_key.values()
        return dict(found)


def _assumed(stage: Stage, share: float, device: Device) -> float:
    """By the device's assumed speed."""
    if device.is_card and share == 0:
        device = core()
    return device.stage_seconds + stage.work / device.speed(share)


def head_starts(stages: Iterable[Stage], checkpoints: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Key -> share of a stage's iterations that a checkpoint holds, or will hold once a shorter budget of the same path
    is done.

    Args:
        stages: That are to be computed.
        checkpoints: Lineage -> iterations of the checkpoints that the store has.
    """
    stages = [stage for stage in stages if stage.budget]
    known = {lineage: set(done) for lineage, done in checkpoints.items()}
    for stage in stages:
        known.setdefault(stage.lineage, set()).add(stage.budget or 0)
    starts = {}
    for stage in stages:
        budget = stage.budget or 0
        saved = checkpoints.get(stage.lineage, ())
        before = [done for done in known[stage.lineage] if done < budget or (done == budget and done in saved)]
        if before:
            starts[stage.key] = max(before) / budget
    return starts


def seconds_from(taken: Sequence[Taken], work: float) -> float:
    """The seconds of a stage of so much work, from those of stages like it.

    Args:
        taken: At least one.
        work: GFLOP.
    """
    by_work: dict[float, list[float]] = defaultdict(list)
    for each in taken:
        by_work[each.work].append(max(each.seconds, 1e-3))
    points = sorted((known, median(seconds)) for known, seconds in by_work.items())
    for known, seconds in points:
        if math.isclose(known, work, rel_tol=0.01):
            return seconds
    below = [point for point in points if point[0] < work]
    above = [point for point in points if point[0] > work]
    if below and above:
        return _between(below[-1], above[0], work)
    nearest, seconds = above[0] if above else below[-1]
    return seconds * work / nearest if nearest > 0 and work > 0 else seconds


def _between(low: tuple[float, float], high: tuple[float, float], work: float) -> float:
    """On the line through two points; where one has no work to speak of there is nothing to take the logarithm of."""
    if low[0] <= 0:
        at = work / high[0]
        return low[1] + at * (high[1] - low[1])
    at = math.log(work / low[0]) / math.log(high[0] / low[0])
    return math.exp(math.log(low[1]) + at * (math.log(high[1]) - math.log(low[1])))


def _nearest(taken: Sequence[Taken], work: float) -> Taken:
    """Typical of those whose work is nearest: the one with their median seconds per GFLOP."""
    ordered = sorted(taken, key=lambda each: abs(math.log((each.work + 1) / (work + 1))))[:5]
    return sorted(ordered, key=lambda each: each.seconds / (each.work + 1))[len(ordered) // 2]


def _device(name: str) -> Device | None:
    if name.startswith("cpu "):
        return core(name.removeprefix("cpu "))
    return CARDS.get(name)
