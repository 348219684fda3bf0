"""A simulation as a chart: a band for each card, a bar for each job, a colour for each method."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ddray.errors import RequestError
from ddray.plan.jobs import Job
from ddray.report.drawing import FORMATS, INK, Canvas, label, style_of
from ddray.run.simulate import HOUR, Run, Simulation
from trainables.configs import DistillConfig, ExpertConfig
from trainables.methods import METHODS

LANES = 8
"""Of a card: shares are eighths."""
TRAINED = "trained and evaluated"


def write_gantt(simulation: Simulation, path: Path) -> None:
    """Draw it.

    Args:
        simulation: Of a sweep.
        path: Its suffix says the format: png, svg or pdf.

    Raises:
        RequestError: Another suffix, or the file cannot be written.
    """
    form = path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise RequestError([f"--gantt: cannot write {path}; expected a name that ends in .png, .svg or .pdf."])
    drawn = _drawn(simulation).written(form)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn)
    except OSError as error:
        raise RequestError(
            [f"--gantt: cannot write {path}; {error.strerror}. Name a file that can be written."]
        ) from None


def _drawn(simulation: Simulation) -> Canvas:
    canvas = Canvas()
    axes = canvas.panels([""], row_height=1.2 + 0.35 * simulation.machine.count)[""]
    bars: dict[str, list[tuple[Run, float, float]]] = defaultdict(list)
    for run, lane, height in _placed(simulation):
        bars[_what(run.job)].append((run, lane, height))
    names = [*(name for name in METHODS if name in bars), *(name for name in bars if name not in METHODS)]
    for name in names:
        colour = "#b8bec6" if name == TRAINED else style_of(name, [name]).colour
        title = METHODS[name].title if name in METHODS else name
        by_lane: dict[tuple[float, float], list[tuple[float, float]]] = defaultdict(list)
        for run, lane, height in bars[name]:
            by_lane[lane, height].append((run.start / HOUR, (run.end - run.start) / HOUR))
        for at, ((lane, height), spans) in enumerate(sorted(by_lane.items())):
            axes.broken_barh(spans, (lane, height), facecolor=colour, linewidth=0, label=None if at else title)
    count = simulation.machine.count
    what = "card" if simulation.machine.device.is_card else "core"
    axes.set_yticks([card + 0.45 for card in range(count)], [f"{what} {card}" for card in range(count)])
    axes.set_ylim(count, -0.1)
    axes.set_xlim(0, simulation.makespan / HOUR or 1)
    axes.axvline(simulation.lower_bound() / HOUR, color=INK, linestyle=":", linewidth=0.8, label="no order is faster")
    label(axes, "hours", "")
    canvas.legend([axes])
    return canvas


def _what(job: Job) -> str:
    """The method that a job distils for, or that it only trains and evaluates."""
    for stage in job.stages:
        match stage.config:
            case DistillConfig(method=method) if stage.work:
                return method
            case ExpertConfig(method=method):
                return method
    return TRAINED


def _placed(simulation: Simulation) -> list[tuple[Run, float, float]]:
    """Each job that has a place, with the top and the height of its bar: lanes that were free when it began."""
    cards = simulation.machine.device.is_card
    free: dict[int, list[float]] = defaultdict(lambda: [0.0] * LANES)
    cores = [0.0] * simulation.machine.count
    placed = []
    for run in simulation.runs:
        if cards and run.card is not None:
            lanes = free[run.card]
            wide = max(1, round(run.share * LANES))
            own = [lane for lane, until in enumerate(lanes) if until <= run.start][:wide]
            for lane in own:
                lanes[lane] = run.end
            placed += [(run, run.card + 0.9 * lane / LANES, 0.9 / LANES) for lane in own]
        elif not cards:
            core = min(range(len(cores)), key=cores.__getitem__)
            cores[core] = run.end
            placed.append((run, core, 0.9))
    return placed
