"""One step of every method on CIFAR-10 shapes, ConvNet3: seconds, arithmetic, operator calls, memory.

    python -m benchmarks.steps [--only dm_ipc10,dsa_ipc1] [--threads 2] [--repeats 3] [--json]

A step is the body of the method's own loop, run through the method itself on made-up images (256 per class, so that
every class gives a whole batch). Each configuration runs in a process of its own. Columns:

    seconds               median of the repeats, after one step to warm up
    gflops                10^9 floating-point operations a second, of convolutions and matrix products alone (as PyTorch
                          counts them: too many for the grouped convolutions of an ensemble)
    peak_share            gflops over the rate of a matrix product of 2048 x 2048, measured in the same process
    dispatches            operators handed to the device by one update of the images as it is done on a GPU: all classes
                          together (training of a network within a step, which has no classes, is not counted);
                          of trainings, by one step of all three
    dispatches_per_class  the same update, one class after the other; null where a step has no classes
    peak_bytes            what the process grew by, beyond images and libraries

Operators are counted with a narrow network and small batches on a CPU: their number depends on neither.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trainables import device as devices
from trainables import optimise
from trainables.configs import DatasetConfig, DistillConfig, NetworkConfig, OriginConfig, RecipeConfig, TrainConfig
from trainables.context import Save
from trainables.data.origins import Origin, TestSet
from trainables.distill import matching
from trainables.distill.context import DistillContext
from trainables.dry_run import Counted
from trainables.experts import train_expert
from trainables.methods import METHODS
from trainables.presets import completed
from trainables.train import train

CLASSES, PER_CLASS = 10, 256


@dataclass(frozen=True)
class Step:
    """What is measured under a name."""

    method: str
    ipc: int
    settings: dict[str, Any] = field(default_factory=dict)
    """Beyond the presets; their budget is what is measured."""
    per_class: bool = True
    """Whether a step goes through the classes."""
    update_alone: dict[str, Any] = field(default_factory=dict)
    """Settings with which a step is the update of the images and nothing else."""


STEPS: dict[str, Step] = {
    "dm_ipc1": Step("dm", 1),
    "dm_ipc10": Step("dm", 10),
    "dsa_ipc1": Step("dsa", 1),
    # One outer step: the match, and 50 epochs of training on the distilled set.
    "dsa_ipc10": Step("dsa", 10, update_alone={"loops": (1, 1)}),
    "mtt_ipc1": Step("mtt", 1, {"num_experts": 1, "expert_snapshots": 6}, per_class=False),
    "mtt_ipc10": Step("mtt", 10, {"num_experts": 1, "expert_snapshots": 22}, per_class=False),
    # One inner step: every class once, and 2,000 images of network training.
    "idc_ipc10": Step("idc", 10, update_alone={"net_images": 0}),
}
TRAININGS = {"train_100img_3seeds": False, "train_100img_3seeds_ensemble": True}
"""Three trainings on 100 images, one step each: separate, or as one ensemble."""


class Clock:
    """A context that takes the time of every step and keeps nothing.

    Args:
        limit: Steps to run; None: all.
        watch: Entered around each step's body, and nothing else.
        device: ``cpu`` or ``cuda``; a step on a card ends when the card has done it.
    """

    data = cache = Path()

    def __init__(
        self,
        limit: int | None = None,
        watch: Callable[[], AbstractContextManager[Any]] = nullcontext,
        device: str = "cpu",
    ) -> None:
        self.seconds: list[float] = []
        self.device = device
        self._limit, self._watch = limit, watch

    def restore(self) -> None:
        return None

    def iterations(self, total: int, *, start: int = 0, save: Save | None = None, unit: str = "it") -> Iterator[int]:
        for iteration in range(start, total if self._limit is None else min(total, self._limit)):
            started = time.perf_counter()
            with self._watch():
                yield iteration
            finish(self.device)
            self.seconds.append(time.perf_counter() - started)

    def poll(self) -> None:
        pass

    def measure(self, **values: float) -> None:
        pass


def finish(device: str) -> None:
    """Wait for what a card still has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


@cache
def made_up(per_class: int, device: str = "cpu") -> Origin:
    """Noise in the shape of CIFAR-10; made once."""
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    images = torch.randn(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    by_class = tuple((labels == index).nonzero().squeeze(1) for index in range(CLASSES))
    return Origin(images.to(device), labels.to(device), torch.arange(len(labels)), by_class)


def dataset() -> DatasetConfig:
    return DatasetConfig(
        name="made_up",
        base="cifar10",
        digest="sha256:0",
        num_classes=CLASSES,
        image_size=32,
        channels=3,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


def network(width: int) -> NetworkConfig:
    return NetworkConfig(
        architecture="convnet3", norm="instance", width=width, depth=3, image_size=32, channels=3, num_classes=CLASSES
    )


class Distillation:
    """One configuration, ready to run a number of steps."""

    def __init__(
        self, step: Step, folder: Path, *, width: int = 128, per_class: int = PER_CLASS, device: str = "cpu"
    ) -> None:
        self.device = device
        method = METHODS[step.method]
        self.settings = completed(step.method, "cifar10", step.ipc, step.settings)
        self.config = DistillConfig(
            method=step.method,
            method_version=method.version,
            dataset=dataset(),
            origin=OriginConfig(classes=tuple(range(CLASSES))),
            ipc=step.ipc,
            init="real",
            augmentation="dsa",
            network=network(width),
            settings=self.settings.key_material(),
            distill_seed=0,
        )
        self.function = method.load()
        self.origin = made_up(per_class, device)
        self.inputs = self._experts(folder)

    def _experts(self, folder: Path) -> dict[str, Path]:
        """An expert of as few snapshots as the method needs, a step apart."""
        wanted = self.settings.experts(dataset(), self.config.origin, network(self.config.network.width), "dsa")  # type: ignore[union-attr]
        inputs = {}
        for expert in wanted:
            short = expert.model_copy(update={"snapshot_steps": 2, "batch": 32})
            inputs[f"expert.{expert.index}"] = folder / str(expert.index)
            inputs[f"expert.{expert.index}"].mkdir()
            train_expert(short, self.origin, Clock(device=self.device)).save(inputs[f"expert.{expert.index}"])
        return inputs

    def run(self, steps: int) -> Clock:
        clock = Clock(steps, device=self.device)
        self.function(self.origin, self.settings, DistillContext(self.config, clock, self.inputs))
        return clock


TRAINING_STEPS = 3


def trainings(
    ensemble: bool,
    images: Tensor,
    labels: Tensor,
    width: int = 128,
    watch: Any = nullcontext,
    device: str = "cpu",
    steps: int = TRAINING_STEPS,
) -> float:
    """Seconds of one step of three trainings, one after the other or as one ensemble; ``watch`` and ``device`` as of
    ``Clock``."""
    recipe = RecipeConfig(
        steps=steps,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        milestones=(0.5,),
        gamma=0.1,
        batch=256,
        augmentation="dsa",
    )
    base = TrainConfig(
        dataset=dataset(),
        origin=OriginConfig(classes=tuple(range(CLASSES))),
        on_origin=False,
        network=network(width),
        recipe=recipe,
        seed=0,
        curve_points=0,
    )
    test = TestSet(images[:CLASSES], torch.arange(CLASSES), torch.arange(CLASSES))
    if ensemble:
        from trainables.configs import EnsembleConfig
        from trainables.train import train_ensemble

        clock = Clock(watch=watch, device=device)
        train_ensemble(EnsembleConfig(base=base, seeds=(0, 1, 2)), images, labels, test, clock)
        return statistics.median(clock.seconds[1:])
    clocks = [Clock(watch=watch, device=device) for _ in range(3)]
    for seed, clock in enumerate(clocks):
        train(base.model_copy(update={"seed": seed}), images, labels, test, clock)
    return sum(statistics.median(clock.seconds[1:]) for clock in clocks)


def measure(name: str, threads: int, repeats: int) -> dict[str, Any]:
    """All figures of one configuration, in this process."""
    devices.prepare("cpu", threads)
    rate = product_rate()
    if name in TRAININGS:
        images, labels = torch.randn(100, 3, 32, 32), torch.arange(CLASSES).repeat_interleave(10)
        before = resident()
        seconds = statistics.median(trainings(TRAININGS[name], images, labels) for _ in range(repeats))
        flops, calls = FlopCounterMode(display=False), Counted("cpu")
        found: list[int] = []

        @contextmanager
        def arithmetic() -> Iterator[None]:
            with flops:  # entering it again forgets
                yield
            found.append(flops.get_total_flops())

        trainings(TRAININGS[name], images, labels, watch=arithmetic)
        optimise.CHUNK["cpu"] = optimise.CHUNK["cuda"]  # a batch is not cut on a GPU
        trainings(TRAININGS[name], images, labels, width=8, watch=lambda: calls)
        each = calls.operators // TRAINING_STEPS
        return figures(name, seconds, sum(found) / TRAINING_STEPS, rate, each, None, before)
    with tempfile.TemporaryDirectory() as folder:
        step = STEPS[name]
        distillation = Distillation(step, Path(folder))
        before = resident()
        seconds = statistics.median(distillation.run(1 + repeats).seconds[1:])
        peak = grown(before)
        with FlopCounterMode(display=False) as flops:
            distillation.run(1)
    calls, alone = count(step)
    return {**figures(name, seconds, flops.get_total_flops(), rate, calls, alone, before), "peak_bytes": peak}


def count(step: Step) -> tuple[int, int | None]:
    """Operators of one step as on a GPU, and the same with one class after the other."""
    counts = []
    ways: list[tuple[matching.Path, matching.Sizes]] = [("vectorised", matching.SIZES["cuda"])]
    if step.per_class:  # DM's loop would put the distilled images of several classes together
        ways.append(("vectorised" if step.method == "dm" else "loop", matching.Sizes(group=1, matched=1, chunk=4096)))
    for path, sizes in ways:
        matching.PATHS["cpu"], matching.SIZES["cpu"] = path, sizes
        with tempfile.TemporaryDirectory() as folder:
            alone = replace(step, settings={**step.settings, **step.update_alone})
            distillation = Distillation(alone, Path(folder), width=8, per_class=40)
            with Counted("cpu") as none:
                distillation.run(0)
            with Counted("cpu") as one:
                distillation.run(1)
            counts.append(one.operators - none.operators)
    return counts[0], counts[1] if step.per_class else None


def figures(
    name: str, seconds: float, flops: float, rate: float, calls: int, alone: int | None, before: int
) -> dict[str, Any]:
    return {
        "name": name,
        "seconds": round(seconds, 3),
        "gflops": round(flops / seconds / 1e9, 1),
        "peak_share": round(flops / seconds / rate, 3),
        "dispatches": calls,
        "dispatches_per_class": alone,
        "peak_bytes": grown(before),
    }


def product_rate() -> float:
    """Floating-point operations a second of a matrix product: the best of twenty, into memory that is there already."""
    left, right, product = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(2048, 2048)
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        torch.mm(left, right, out=product)
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def resident() -> int:
    """Bytes the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def grown(before: int) -> int:
    return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def main() -> None:
    names = (*STEPS, *TRAININGS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.threads, given.repeats)))
        return
    wanted = given.only.split(",") if given.only else list(names)
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"--only: unknown {', '.join(unknown)}; known: {', '.join(names)}")
    results = []
    for name in wanted:
        command = [sys.executable, "-m", "benchmarks.steps", "--one", name]
        ran = subprocess.run(
            [*command, "--threads", str(given.threads), "--repeats", str(given.repeats)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        results.append(json.loads(ran.stdout.splitlines()[-1]))
        if not given.json:
            print("  ".join(f"{key} {value}" for key, value in results[-1].items()), flush=True)
    if given.json:
        print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
