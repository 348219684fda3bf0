"""What the stages of a sweep take on this device, from a few steps of each shape; and whether jobs together do more
work than one after the other.

A shape is a cost class (``Stage.cost_class``). Of each that the store has no measured cost of, one stage is begun in a
process of its own and stopped after some seconds; its time is what came before the first step, and all its steps as the
median of those that were seen, the first left out. What needs the work of other stages first (experts, trained
networks) is not tried; networks are trained on sets that are drawn, not distilled.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ddray.plan.graph import Stage
from ddray.plan.jobs import Plan
from ddray.plan.kinds import STAGE_KINDS
from ddray.price.measured import Measured, Taken
from ddray.run.mps import multi_process_service
from ddray.settings import Folders, set_environment
from trainables.configs import DistillConfig

COMPANY = (1, 2, 4, 8)
"""So many processes at once, as far as there are cores."""
LEAST_STEPS = 3
"""Of a shape, the first among them, which also pays for what is made once."""


class Trial(NamedTuple):
    """What a process is to begin. Travels to it."""

    spec: dict[str, Any]
    share: float
    cpus: float
    seconds: float
    data: str
    cache: str
    drawn: dict[str, Any] | None
    """The stage that draws the set to train on; None where none is needed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a stage."""

    before: float
    """Seconds before the first step."""
    step: float
    """Median seconds of a step."""
    steps: int
    """How many were seen."""
    total: int
    """How many it would take."""
    peak_mib: float
    device: str
    """As measured costs name it."""

    @property
    def seconds(self) -> float:
        """Of the whole stage."""
        return self.before + self.step * self.total


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found out."""

    seen: list[tuple[Stage, Seen]]
    company: dict[int, float]
    """Processes at once -> their work in all, in that of one alone."""
    served: dict[int, float]
    """The same as clients of the driver's multi-process service; empty where there is none."""
    beside: Stage | None
    """The stage that was run beside itself."""
    untried: list[str]
    """Cost classes whose stages need others' work first."""
    failed: list[tuple[Stage, str]]
    """Stages that failed in their trial, and why."""


class Enough(Exception):
    """The time of a trial is over."""


class FewSteps:
    """A context (``trainables.context.Context``) in which a stage ends after some seconds."""

    def __init__(self, device: str, trial: Trial) -> None:
        self.device = device
        self.data, self.cache = Path(trial.data), Path(trial.cache)
        self.total = 0
        self.marks: list[float] = []
        """Times at which steps began, and the end of the last."""
        self._seconds = trial.seconds

    def restore(self) -> None:
        """There is no checkpoint."""

    def iterations(self, total: int, *, start: int = 0, save: Any = None, unit: str = "it") -> Iterator[int]:
        """Count until the time is over."""
        if self.marks:  # a second loop: the first was the whole of what is counted
            raise Enough
        self.total = total
        self.marks.append(time.perf_counter())
        for iteration in range(start, total):
            yield iteration
            self.marks.append(time.perf_counter())
            if len(self.marks) > LEAST_STEPS and self.marks[-1] - self.marks[0] > self._seconds:
                raise Enough

    def poll(self) -> None:
        """A trial is not interrupted."""

    def measure(self, **values: float) -> None:
        """Nobody looks."""


def shapes(plan: Plan, measured: Measured, device: str) -> tuple[list[Stage], list[str]]:
    """Of each cost class without a measured cost a stage that can be begun at once, the longest; and the classes that
    have none such."""
    wanted: dict[str, list[Stage]] = {}
    for key in plan.needed():
        stage = plan.stages[key]
        if stage.cost_class and stage.unavailable is None and not measured.of(device, stage.cost_class):
            wanted.setdefault(stage.cost_class, []).append(stage)
    begun, untried = [], []
    for cost_class, stages in sorted(wanted.items()):
        ready = [stage for stage in stages if stage.work > 0 and _is_ready(stage, plan)]
        if ready:
            begun.append(max(ready, key=lambda stage: (stage.work, stage.key)))
        else:
            untried.append(cost_class)
    return begun, untried


def calibrate(plan: Plan, measured: Measured, folders: Folders, device: str, cores: int, seconds: float) -> Calibration:
    """Try the shapes of a plan, then the quickest of them beside itself.

    Args:
        plan: Of the sweep; its data are decoded.
        measured: What is known; what is seen is added.
        folders: Where data are.
        device: As measured costs name it.
        cores: Processes that there is room for.
        seconds: Of each trial.
    """
    stages, untried = shapes(plan, measured, device)
    trials = [_trial(stage, plan, folders, seconds) for stage in stages]
    found_of = {stage.key: _at_once(trial, 1)[0] for stage, trial in zip(stages, trials, strict=True)}
    seen = [(stage, found) for stage in stages if isinstance(found := found_of[stage.key], Seen)]
    failed = [(stage, found) for stage in stages if isinstance(found := found_of[stage.key], str)]
    for stage, found in seen:
        measured.add(found.device, stage.cost_class, "calibrated", Taken(stage.work, found.seconds, found.peak_mib))
    company: dict[int, float] = {}
    served: dict[int, float] = {}
    beside = min((each for each in seen if each[1].total > 1), key=lambda each: each[1].step, default=None)
    if beside is not None and cores > 1:
        trial = trials[stages.index(beside[0])]
        rates = {count: _rate(trial, count) for count in COMPANY if count <= cores}
        company = measured.company[device] = {count: rate / rates[1] for count, rate in rates.items()}
        with multi_process_service() as serves:
            if serves:
                served = {count: _rate(trial, count) / rates[1] for count in rates}
    return Calibration(seen, company, served, beside[0] if company and beside is not None else None, untried, failed)


def _is_ready(stage: Stage, plan: Plan) -> bool:
    """Whether it needs nothing, or a set that is drawn in a moment."""
    return not stage.inputs or _drawn_for(stage, plan) is not None


def _drawn_for(stage: Stage, plan: Plan) -> Stage | None:
    """What draws the set that a stage trains on; None where it needs anything else."""
    if [role for role, _ in stage.inputs] != ["set"]:
        return None
    maker = plan.stages[stage.inputs[0][1]]
    drawn = isinstance(maker.config, DistillConfig) and maker.config.method == "random" and not maker.inputs
    return maker if drawn else None


def _trial(stage: Stage, plan: Plan, folders: Folders, seconds: float) -> Trial:
    drawn = _drawn_for(stage, plan) if stage.inputs else None
    return Trial(
        spec=stage.spec(),
        share=1.0 if stage.share else 0.0,  # it has the card to itself, and shows what it takes
        cpus=stage.cpus,
        seconds=seconds,
        data=str(folders.data),
        cache=str(folders.cache),
        drawn=drawn.spec() if drawn is not None else None,
    )


def _rate(trial: Trial, count: int) -> float:
    """Steps a second of so many processes together."""
    return sum(1 / found.step for found in _at_once(trial, count) if isinstance(found, Seen))


def _at_once(trial: Trial, count: int) -> Sequence[Seen | str]:
    """The same trial in so many processes, all of which begin their steps together."""
    spawned = multiprocessing.get_context("spawn")
    with spawned.Manager() as manager, spawned.Pool(count) as pool:
        barrier = manager.Barrier(count)
        return pool.starmap(begin, [(trial, barrier)] * count)


def begin(trial: Trial, barrier: Any) -> Seen | str:
    """Begin a stage, in this process; where it fails, why.

    Args:
        trial: What.
        barrier: Of those that are to begin at the same time.
    """
    try:
        return _begin(trial, barrier)
    except Exception as error:  # whatever a stage may raise: the others are tried all the same
        barrier.abort()
        return f"{type(error).__name__}: {error}"


def _begin(trial: Trial, barrier: Any) -> Seen:
    set_environment()
    from ddray.price.devices import device_of
    from ddray.run.stage import device_for
    from trainables import device as devices
    from trainables import stages

    device = device_for("auto", trial.share)
    devices.prepare(device, max(1, int(trial.cpus)), trial.share if device != "cpu" and trial.share > 0 else None)
    context = FewSteps(device, trial)
    kind = trial.spec["kind"]
    config = STAGE_KINDS[kind].config.model_validate(trial.spec["config"])
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {"set": _draw(trial.drawn, Path(scratch), trial, device)} if trial.drawn is not None else {}
        barrier.wait()
        began = time.perf_counter()
        with contextlib.suppress(Enough):
            stages.run(kind, config, inputs, context)  # type: ignore[arg-type]
        ended = time.perf_counter()
    stepped = len(context.marks) > 1  # else it has run to its end
    marks = context.marks if stepped else [began, ended]
    spans = [after - before for before, after in itertools.pairwise(marks)]
    return Seen(
        before=marks[0] - began,
        step=statistics.median(spans[1:] or spans),
        steps=len(spans),
        total=context.total if stepped else 1,
        peak_mib=devices.peak_memory(device) / 2**20,
        device=device_of(devices.numerics_class(device)),
    )


def _draw(spec: dict[str, Any], scratch: Path, trial: Trial, device: str) -> Path:
    from trainables import stages

    config = STAGE_KINDS[spec["kind"]].config.model_validate(spec["config"])
    payload = stages.run(spec["kind"], config, {}, FewSteps(device, trial))  # type: ignore[arg-type]
    folder = scratch / "set"
    folder.mkdir()
    payload.save(folder)
    return folder
