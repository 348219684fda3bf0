"""Everything that only a graphics card can tell, in under ten minutes, as one record.

    make bench-gpu
    python -m benchmarks.gpu [--minutes 9] [--out FOLDER] [--device cpu]

Needs torch, numpy, pydantic, safetensors and Pillow; pytest for the first part. No Ray, no network, no data. Parts:

    tests       those marked ``gpu``
    context     what driver and libraries take for a process, beside what its allocator holds
    steps       one step of each method: seconds, beside those that plans assume; in how many of them the card computed
                (``card_seconds``); what was held (allocated, reserved), beside the estimates
    trainings   one step of three trainings, one after the other and as one ensemble
    kernels     what the card spends the time of a step on
    ways        the same step with classes one after the other or together, and with images in either layout
    precisions  the same step in single precision, with TF32 and with bfloat16
    packing     steps in one, two, four and eight processes at once: their work in that of one; with and without the
                driver's multi-process service (MPS), where it can be started

A part that would not be done in time is left out, one that fails ends there; the record says so and has the others.
The exit code is 1 if a part failed. With ``--device cpu`` the same parts run small, so that the command is known to
work on the day a card is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.footprints import EACH, estimated_mib, load_of
from benchmarks.machine import machine
from benchmarks.steps import CLASSES, PER_CLASS, STEPS, TRAININGS, Clock, Distillation, finish, trainings
from ddray.plan.kinds import STAGE_KINDS
from ddray.plan.shares import CONTEXT_MIB, SLACK, room_for
from ddray.price.devices import card_named, core
from ddray.run.mps import multi_process_service
from trainables import device as devices
from trainables.distill import matching
from trainables.distill.context import DistillContext

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = (1, 2, 4, 8)
BARRIER_SECONDS = 120.0
"""That processes wait for each other before they give up: one of them has failed."""
TESTS_SECONDS = 150.0
"""For the tests, at most."""
TOLD = 60
"""Lines of what failed, at most."""
KERNELS = 6
"""Of a step, those that take most."""


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    device: str
    names: tuple[str, ...]
    width: int
    per_class: int
    """Images of each class that steps have on the card."""
    repeats: int
    training_steps: int
    packed: tuple[str, ...]
    """Steps that processes run beside each other."""
    together: tuple[int, ...]
    seconds: float
    """Of each such round."""


CARD = Scale("cuda", tuple(STEPS), 128, EACH, 3, 30, ("dm_ipc10", "dsa_ipc1", "idc_ipc10", "mtt_ipc1"), TOGETHER, 3.0)
TRIAL = Scale("cpu", ("dm_ipc1", "dsa_ipc1"), 8, 8, 1, 2, ("dm_ipc1", "dsa_ipc1"), (1, 2), 0.5)
WAYS: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    "one_class_at_a_time": {"path": "loop"},
    "half_of_the_classes": {"matched": 1280, "group": 1280},
    "all_classes": {"matched": 4096, "group": 65536},
    "channels_last": {"layout": torch.channels_last},
}
"""Name -> what is other than it is."""


class OutOfTime(Exception):
    """There is no time for a part."""


class Watch:
    """How much time is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def need(self, seconds: float) -> None:
        """Raises OutOfTime if there are not so many seconds left."""
        if self.left < seconds:
            raise OutOfTime(f"left out: {self.left:.0f} s were left, about {seconds:.0f} s are needed")


# --- parts ------------------------------------------------------------------------------------------------------------


def tests(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """The suite's tests for cards."""
    watch.need(60)
    # Without the suite's own configuration, which needs what the rest of the suite needs.
    bare = ["-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *bare, str(ROOT / "tests" / "gpu")]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=min(watch.left, TESTS_SECONDS),
    )
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
    yield {"code": ran.returncode, "said": lines[-1] if lines else ""}
    told = [line[:200] for line in lines if re.match(r"(FAILED|ERROR|E  ) ", line)]
    for line in told[:TOLD]:
        yield {"test": line}


def context(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """What a process takes that has computed next to nothing."""
    if scale.device == "cpu":
        yield {"process_mib": None, "assumed_mib": CONTEXT_MIB}
        return
    watch.need(30)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, _ = _free()
        held = pool.apply(_warm)
        after, total = _free()
        yield {
            "process_mib": round((before - after) / 2**20 - held / 2**20),
            "assumed_mib": CONTEXT_MIB,
            "card_mib": round(total / 2**20),
        }


def _free() -> tuple[int, int]:
    free, total = torch.cuda.mem_get_info()
    return int(free), int(total)


def _warm() -> int:
    """In a process of its own: a convolution and a product, with their gradients; bytes that its allocator reserves."""
    images = torch.randn(8, 3, 32, 32, device="cuda", requires_grad=True)
    kernel = torch.randn(8, 3, 3, 3, device="cuda")
    torch.nn.functional.conv2d(images, kernel).flatten(1).mm(torch.randn(7200, 8, device="cuda")).sum().backward()
    torch.cuda.synchronize()
    return int(torch.cuda.memory_reserved())


def steps(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """Each in turn, in this process."""
    device = card_named(torch.cuda.get_device_name()) if scale.device == "cuda" else core()
    for name in scale.names:
        watch.need(20)
        with _ready(name, scale) as distillation:
            seconds = _seconds(distillation, scale)
            gflop = _gflop(distillation)
            found = {"name": name, "seconds": round(seconds, 4), "assumed_seconds": round(gflop / device.speed(1.0), 4)}
            found |= {"gflop_per_second": round(gflop / seconds)}
            found["estimated_mib"] = round(estimated_mib(distillation))
            if scale.device == "cuda":
                found["allocated_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
                found["reserved_mib"] = round(torch.cuda.max_memory_reserved() / 2**20)
                found["booked_mib"] = round(room_for(found["estimated_mib"]))
                found["card_seconds"] = round(_card_seconds(distillation), 4)
        yield found


def training_steps(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """100 images, in either layout."""
    images, labels = torch.randn(100, 3, 32, 32), torch.arange(CLASSES).repeat_interleave(10)
    devices.prepare(scale.device, 1)
    for layout in ("channels_last", "contiguous_format"):
        for name, ensemble in TRAININGS.items():
            watch.need(20)
            with patch.dict(devices.LAYOUTS, {scale.device: getattr(torch, layout)}):
                seconds = trainings(
                    ensemble, images, labels, scale.width, device=scale.device, steps=scale.training_steps
                )
            yield {"name": name, "layout": layout, "seconds": round(seconds, 5)}


def kernels(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """Of a step of each method, those that take most."""
    if scale.device == "cpu":
        yield {"said": "a CPU has none"}
        return
    for name in scale.names:
        watch.need(20)
        with _ready(name, scale) as distillation:
            found = _kernels(distillation)
        for kernel in sorted(found, key=lambda each: -found[each][0])[:KERNELS]:
            taken, calls = found[kernel]
            yield {"name": name, "kernel": kernel[:90], "calls": calls, "seconds": round(taken, 5)}


def _card_seconds(distillation: Distillation) -> float:
    """In which the card computes, of one step."""
    return sum(seconds for seconds, _ in _kernels(distillation).values())


def _kernels(distillation: Distillation) -> dict[str, tuple[float, int]]:
    """Of one step: name -> seconds of the card, calls."""
    found: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        distillation.run(1)
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            seconds, calls = found[event.name]
            found[event.name] = seconds + event.self_device_time_total / 1e6, calls + 1
    return dict(found)


def ways(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """In turn, one process."""
    for name in scale.names:
        for way, other in WAYS.items():
            if STEPS[name].per_class or set(other) <= {"layout"}:
                watch.need(20)
                sizes = replace(matching.SIZES[scale.device], **{k: v for k, v in other.items() if k in _SIZES})
                path = other.get("path", matching.PATHS[scale.device])
                with (
                    patch.dict(matching.SIZES, {scale.device: sizes}),
                    patch.dict(matching.PATHS, {scale.device: path}),
                    patch.dict(devices.LAYOUTS, {scale.device: other.get("layout", devices.LAYOUTS[scale.device])}),
                    _ready(name, scale) as distillation,
                ):
                    found: dict[str, Any] = {"name": name, "way": way}
                    try:
                        found["seconds"] = round(_seconds(distillation, scale), 4)
                    except torch.OutOfMemoryError:
                        found["seconds"] = "out of memory"
                    if scale.device == "cuda":
                        found["allocated_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
                        found["card_seconds"] = round(_card_seconds(distillation), 4)
                yield found


_SIZES = ("group", "matched")


def precisions(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """In turn, one process."""
    for name in scale.names:
        if name.endswith("ipc10") or scale is TRIAL:
            for precision in ("float32", "tf32", "bf16") if scale.device == "cuda" else ("float32", "bf16"):
                watch.need(20)
                with _ready(name, scale, precision) as distillation:
                    found = {"name": name, "precision": precision, "seconds": round(_seconds(distillation, scale), 4)}
                    if scale.device == "cuda":
                        found["card_seconds"] = round(_card_seconds(distillation), 4)
                yield found


@contextlib.contextmanager
def _ready(name: str, scale: Scale, precision: Any = "float32") -> Iterator[Distillation]:
    """A distillation, on a device of which nothing is held that is not needed."""
    devices.reset()
    devices.prepare(scale.device, 1, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        yield Distillation(STEPS[name], Path(folder), width=scale.width, per_class=scale.per_class, device=scale.device)


def _seconds(distillation: Distillation, scale: Scale) -> float:
    """Of a step; the first is left out."""
    return statistics.median(distillation.run(1 + scale.repeats).seconds[1:])


def _gflop(distillation: Distillation) -> float:
    """Of a step, as plans count."""
    runs = distillation.settings.length
    assert runs
    return STAGE_KINDS["distill"].work(distillation.config, load_of(distillation)) / runs


def packing(scale: Scale, watch: Watch) -> Iterator[dict[str, Any]]:
    """Processes beside each other, first as they are, then as clients of the multi-process service."""
    needed = 40 + len(scale.packed) * len(scale.together) * (scale.seconds + 2)
    watch.need(needed)
    yield from _together(scale, mps=False)
    with multi_process_service() as started:
        if not started:
            yield {"mps": True, "said": "could not be started here"}
            return
        watch.need(needed)
        yield from _together(scale, mps=True)


def _together(scale: Scale, mps: bool) -> Iterator[dict[str, Any]]:
    """Of each step and number of processes: their steps a second, all together."""
    most = max(scale.together)
    spawned = multiprocessing.get_context("spawn")
    with spawned.Manager() as manager, spawned.Pool(most) as pool:
        barrier = manager.Barrier(most, timeout=BARRIER_SECONDS)
        by_process = pool.starmap(_rounds, [(scale, number, barrier) for number in range(most)], chunksize=1)
    for index, name in enumerate(scale.packed):
        gflop = by_process[0][index][0]
        alone = None
        for turn, count in enumerate(scale.together, 1):
            rate = sum(rates[index][turn] for rates in by_process)
            alone = alone or rate
            yield {
                "mps": mps,
                "name": name,
                "processes": count,
                "steps_per_second": round(rate, 2),
                "work": round(rate / alone, 2),
                "gflop_per_second": round(rate * gflop),
            }


def _rounds(scale: Scale, number: int, barrier: Any) -> list[list[float]]:
    """In a process of its own, which waits while fewer are wanted. For each step: GFLOP, steps a second by round."""
    devices.prepare(scale.device, 1, memory_fraction=1 / max(scale.together))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in scale.packed:
            each = min(scale.per_class, PER_CLASS)
            distillation = Distillation(
                STEPS[name], Path(folder), width=scale.width, per_class=each, device=scale.device
            )
            distillation.run(2)
            rates = [_gflop(distillation)]
            for count in scale.together:
                finish(scale.device)
                barrier.wait()
                rates.append(_rate(distillation, scale.seconds) if number < count else 0.0)
            found.append(rates)
    return found


def _rate(distillation: Distillation, seconds: float) -> float:
    """Steps a second."""
    began = time.perf_counter()
    clock = _Until(began + seconds, distillation.device)
    distillation.function(distillation.origin, distillation.settings, _context(distillation, clock))
    return len(clock.seconds) / (time.perf_counter() - began)


class _Until(Clock):
    """Steps until a time."""

    def __init__(self, end: float, device: str) -> None:
        super().__init__(device=device)
        self._end = end

    def iterations(self, total: int, **how: Any) -> Iterator[int]:
        for iteration in super().iterations(total, **how):
            if time.perf_counter() > self._end:
                return
            yield iteration


def _context(distillation: Distillation, clock: Clock) -> Any:
    return DistillContext(distillation.config, clock, distillation.inputs)


PARTS = {
    "tests": tests,
    "context": context,
    "steps": steps,
    "trainings": training_steps,
    "kernels": kernels,
    "ways": ways,
    "precisions": precisions,
    "packing": packing,
}


# --- the record -------------------------------------------------------------------------------------------------------


def facts(scale: Scale) -> dict[str, Any]:
    """Of machine and card."""
    found = machine()
    if scale.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name,
            "card_mib": round(properties.total_memory / 2**20),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def record(scale: Scale, wanted: Sequence[str], minutes: float, out: Path | None) -> bool:
    """All parts that there is time for, each written as soon as it is done.

    Returns:
        Whether none failed.
    """
    watch = Watch(minutes)
    found: dict[str, Any] = {"machine": facts(scale), "slack": SLACK}
    whole = True
    for name in wanted:
        rows: list[dict[str, Any]] = []
        try:
            for row in PARTS[name](scale, watch):
                rows.append(row)
                print(json.dumps({"part": name, **row}), flush=True)
        except (OutOfTime, subprocess.TimeoutExpired, torch.OutOfMemoryError) as error:
            rows.append({"said": str(error)[:300]})
            print(json.dumps({"part": name, **rows[-1]}), flush=True)
        except Exception as error:  # a card is rented by the minute: the other parts are worth having
            traceback.print_exc()
            rows.append({"failed": f"{type(error).__name__}: {error}"[:300]})
            whole = False
        whole = whole and all(row.get("code", 0) == 0 for row in rows)
        found[name] = rows
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
            (out / "gpu.md").write_text(as_page(found))
    return whole


def as_page(found: dict[str, Any]) -> str:
    """The record for people."""
    about = {name: value for name, value in found["machine"].items() if value is not None and name != "name"}
    lines = [
        f"# On a card: {about.get('card', about['processor'])}, {about['date']}",
        "",
        "`make bench-gpu`: " + ", ".join(f"{name} {value}" for name, value in about.items()),
    ]
    for part in PARTS:
        rows = found.get(part, [])
        for columns in dict.fromkeys(tuple(row) for row in rows):
            lines += ["", f"| {part}: " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
            lines += [
                "| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows if tuple(row) == columns
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(PARTS)
    if unknown := sorted(set(wanted) - set(PARTS)):
        parser.error(f"--only: unknown {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA card that torch can use. To see that the command works: --device cpu")
    sys.exit(0 if record(CARD if given.device == "cuda" else TRIAL, wanted, given.minutes, given.out) else 1)


if __name__ == "__main__":
    main()
