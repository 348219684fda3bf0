"""What every method promises, to be checked by whoever adds one. Needs no test framework.

    def test_promises(tmp_path):
        check_method("mine", tmp_path, iterations=3)

A broken promise is an ``AssertionError`` that says which. ``run_method`` runs a method on tiny images as a stage would,
for tests of what is its own.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.configs import DatasetConfig, DistillConfig, Init, NetworkConfig, NetworkSettings, OriginConfig
from trainables.context import Interrupted, Save
from trainables.data.known import KNOWN
from trainables.data.origins import Origin
from trainables.distill.context import DistillContext
from trainables.methods import METHODS, Method
from trainables.payloads import DistilledSet
from trainables.presets import choose

CLASSES = (2, 3, 7)
"""Labels of the tiny origin's classes: not their positions, so that mistaking one for the other shows."""
SIZE = 8
FIRST_INDEX = 100
"""Canonical index of the tiny origin's first image."""


class FolderContext:
    """A stage's context (``trainables.context.Context``) in a folder, which can interrupt it.

    Args:
        folder: For checkpoints; kept between runs that are to continue each other.
        stops: How many times to interrupt.
        every: After how many iterations of a run.
        idle: Run no iteration at all: what comes out is the start.
        keep_last: Save after the last iteration too, for a longer budget to continue from.
    """

    def __init__(
        self, folder: Path, *, stops: int = 0, every: int = 1, idle: bool = False, keep_last: bool = False
    ) -> None:
        self.device = "cpu"
        self.data = self.cache = folder
        self.folder = folder / "checkpoints"
        self.stops = stops
        self.every = every
        self.idle = idle
        self.keep_last = keep_last
        self.totals: list[int] = []
        """What ``iterations`` was asked to count to."""
        self.counted: list[int] = []
        """Iterations whose body was left, in order."""
        self.measured: list[dict[str, float]] = []

    def restore(self) -> tuple[int, Path] | None:
        if not self.folder.exists():
            return None
        done = max(int(saved.name) for saved in self.folder.iterdir())
        return done, self.folder / str(done)

    def iterations(self, total: int, *, start: int = 0, save: Save | None = None, unit: str = "it") -> Iterator[int]:
        self.totals.append(total)
        for iteration in range(start, start if self.idle else total):
            yield iteration
            self.counted.append(iteration)
            done = iteration + 1
            stop = self.stops > 0 and done - start >= self.every and done < total
            if save is not None and (stop or (self.keep_last and done == total)):
                folder = self.folder / str(done)
                folder.mkdir(parents=True, exist_ok=True)
                save(folder)
            if stop:
                self.stops -= 1
                raise Interrupted

    def poll(self) -> None:
        pass

    def measure(self, **values: float) -> None:
        self.measured.append(values)


def tiny_origin(each: int = 24, seed: int = 0) -> Origin:
    """Random images (3 * ``each``, 1, 8, 8) around a mean for each of three classes, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(CLASSES)).repeat_interleave(each)
    centres = torch.randn(len(CLASSES), 1, SIZE, SIZE, generator=generator)
    images = centres[labels] + 0.5 * torch.randn(len(labels), 1, SIZE, SIZE, generator=generator)
    by_class = tuple(torch.nonzero(labels == position).flatten() for position in range(len(CLASSES)))
    return Origin(images, labels, torch.arange(len(labels)) + FIRST_INDEX, by_class)


def tiny_request(
    name: str, *, ipc: int = 2, init: Init | None = None, distill_seed: int = 0, **settings: Any
) -> DistillConfig:
    """A request to distil the tiny origin; settings by name.

    What is left out is the model's default, except for the budget (3) and a network's width and depth (8 and 2).
    """
    method = METHODS[name]
    small: dict[str, Any] = {method.settings.budget: 3} if method.settings.budget else {}
    if issubclass(method.settings, NetworkSettings):
        small |= {"width": 8, "depth": 2}
    complete = method.settings(**{**small, **settings})
    network = None
    if isinstance(complete, NetworkSettings):
        network = NetworkConfig.of(complete.variant, image_size=SIZE, channels=1, num_classes=len(CLASSES))
    dataset = DatasetConfig(
        name="tiny",
        base="digits",
        digest="sha256:0",
        num_classes=10,
        image_size=SIZE,
        channels=1,
        mean=(0.4,),
        std=(0.3,),
        flip=False,
    )
    return DistillConfig(
        method=name,
        method_version=method.version,
        dataset=dataset,
        origin=OriginConfig(classes=CLASSES),
        ipc=ipc,
        init=(init or method.init) if "init" in method.uses else None,
        augmentation="dsa" if "distill_aug" in method.uses else None,
        network=network,
        settings=complete.key_material(),
        distill_seed=distill_seed,
    )


def run_method(
    name: str,
    folder: Path,
    *,
    origin: Origin | None = None,
    context: FolderContext | None = None,
    inputs: Mapping[str, Path] | None = None,
    **request: Any,
) -> DistilledSet:
    """What a method makes of the tiny origin.

    Args:
        origin: Other images.
        context: Another one than ``FolderContext(folder)``.
        inputs: Payloads it needs, by role.
        request: As for ``tiny_request``.

    Raises:
        Interrupted: The context wants it.
    """
    config = tiny_request(name, **request)
    method = METHODS[name]
    settings = method.settings.model_validate(config.settings)
    given = DistillContext(config, context or FolderContext(folder), inputs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a job's default; more only makes tiny tensors wait for busy cores
    try:
        distilled: DistilledSet = method.load()(origin or tiny_origin(), settings, given)
    finally:
        torch.set_num_threads(threads)
    return distilled


def check_method(name: str, folder: Path, *, inputs: Mapping[str, Path] | None = None, **settings: Any) -> None:
    """All promises of a method, one after another.

    Args:
        folder: Scratch, empty.
        inputs: Payloads it needs, by role (``expert.0``, …).
        settings: Values that make it quick.

    Raises:
        AssertionError: A promise is broken; the message names it.
    """
    declared(name)
    for number, check in enumerate(
        (check_set, check_seed, check_global_state, check_interruption, check_budget, check_start, check_too_few)
    ):
        scratch = folder / f"{number}"
        scratch.mkdir(parents=True)
        check(name, scratch, inputs=inputs, **settings)
    check_presets(name)
    check_light(name)


def check_set(name: str, folder: Path, **request: Any) -> None:
    """``ipc`` finite images of each class, class after class, with the info that training needs; the origin stays."""
    origin = tiny_origin()
    before = origin.images.clone()
    distilled = run_method(name, folder, origin=origin, ipc=4, **request)
    _promise(torch.equal(origin.images, before), name, "the origin's images are left as they are")
    _promise(
        tuple(distilled.images.shape) == (4 * len(CLASSES), 1, SIZE, SIZE) and distilled.images.dtype == torch.float32,
        name,
        f"ipc images of each class, float32; got {tuple(distilled.images.shape)} {distilled.images.dtype} for ipc 4, "
        f"{len(CLASSES)} classes of (1, {SIZE}, {SIZE})",
    )
    _promise(bool(distilled.images.isfinite().all()), name, "all pixels are finite")
    wanted = [position for position in range(len(CLASSES)) for _ in range(4)]
    _promise(
        distilled.labels.classes.tolist() == wanted,
        name,
        f"labels are class after class; got {distilled.labels.classes.tolist()}",
    )
    _promise(
        len(distilled.indices) == len(wanted), name, f"a row of indices per image; got {tuple(distilled.indices.shape)}"
    )
    for row, indices in enumerate(distilled.indices.reshape(len(wanted), -1).tolist()):
        for index in indices:
            real = 0 <= index - FIRST_INDEX < len(origin.labels)
            fits = real and int(origin.labels[index - FIRST_INDEX]) == wanted[row]
            _promise(
                index == -1 or fits,
                name,
                f"an index is -1 or that of a training image of the row's class; got {index} in row {row}",
            )
    info = {key: distilled.info.get(key) for key in ("space", "method", "ipc", "classes")}
    expected = {"space": "pixel01", "method": name, "ipc": 4, "classes": list(CLASSES)}
    _promise(info == expected, name, f"facts as context.finish makes them; got {info}, expected {expected}")


def check_seed(name: str, folder: Path, **request: Any) -> None:
    """The same seed gives the same bytes; another one other images, where the method is declared to use a seed."""
    first, again = (run_method(name, folder / run, **request) for run in "ab")
    same = _bytes(first, folder / "first") == _bytes(again, folder / "again")
    _promise(same, name, "the same seed gives the same bytes")
    if "distill_seed" in METHODS[name].uses:
        other = run_method(name, folder / "c", distill_seed=1, **request)
        _promise(not torch.equal(first.images, other.images), name, "another seed gives other images")


def check_global_state(name: str, folder: Path, **request: Any) -> None:
    """Neither reads nor moves the global random states of torch, NumPy and Python."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    made = []
    try:
        for run in (1, 2):
            torch.manual_seed(run)
            np.random.seed(run)  # noqa: NPY002
            random.seed(run)
            before = _global_states()
            made.append(_bytes(run_method(name, folder / f"{run}", **request), folder / f"s{run}"))
            moved = [library for library, state in _global_states().items() if state != before[library]]
            _promise(not moved, name, f"global random states are left alone; got {', '.join(moved)} moved")
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
    _promise(made[0] == made[1], name, "global random states do not change the result; draw from context.generator")


def check_interruption(name: str, folder: Path, **request: Any) -> None:
    """Interrupted after each of the first iterations and continued, it makes the same bytes."""
    whole = _bytes(run_method(name, folder / "whole", **request), folder / "whole-set")
    context = FolderContext(folder / "parts", stops=3)
    distilled: DistilledSet | None = None
    while distilled is None:
        try:
            distilled = run_method(name, folder, context=context, **request)
        except Interrupted:
            continue
    same = _bytes(distilled, folder / "parts-set") == whole
    _promise(same, name, "an interruption leaves no trace; save all state, and draw by iteration, not in sequence")


def check_budget(name: str, folder: Path, **request: Any) -> None:
    """Of a method with a budget: it loops so often, and a longer budget continues where a shorter one ended."""
    budget = METHODS[name].settings.budget
    if budget is None:
        return
    short = tiny_request(name, **_without_inputs(request)).settings[budget]
    longer = {**request, budget: short + 2}
    context = FolderContext(folder / "whole")
    whole = _bytes(run_method(name, folder, context=context, **longer), folder / "whole-set")
    length = METHODS[name].settings.model_validate(tiny_request(name, **_without_inputs(longer)).settings).length
    _promise(
        context.totals == [length],
        name,
        f"one loop over context.iterations, as long as settings.length ({length}); got {context.totals}",
    )
    run_method(name, folder, context=FolderContext(folder / "parts", keep_last=True), **request)
    continued = run_method(name, folder, context=FolderContext(folder / "parts"), **longer)
    same = _bytes(continued, folder / "parts-set") == whole
    _promise(same, name, f"a longer {budget} continues a shorter one; nothing but the end may depend on it")


def check_start(name: str, folder: Path, **request: Any) -> None:
    """Of a method with a start: ``real`` begins at the images of ``random`` with the same seed, ``noise`` at none."""
    method = METHODS[name]
    if "init" not in method.uses:
        return
    starts = {
        start: run_method(
            name, folder, context=FolderContext(folder / start, idle=True), init=start, distill_seed=5, **request
        )
        for start in ("real", "noise")
    }
    _promise(bool((starts["noise"].indices == -1).all()), name, "a start from noise has no indices (-1)")
    settings = method.settings.model_validate(tiny_request(name, **_without_inputs(request)).settings)
    if settings.real_images(2) != 2:  # several images in one: there is nothing of random's to compare with
        return
    control = run_method("random", folder, distill_seed=5)
    _promise(torch.equal(starts["real"].indices, control.indices), name, "real starts have the indices of random")
    _promise(
        torch.allclose(starts["real"].images, control.images, atol=1e-5),
        name,
        "real starts are the images of random with the same seed; begin with context.initial_images",
    )


def check_too_few(name: str, folder: Path, **request: Any) -> None:
    """Asked for more images than a class has to start or choose from, it raises a ValueError that names the class."""
    method = METHODS[name]
    if "init" in method.uses:
        request["init"] = "real"
    elif not method.settings().real_images(6):  # it takes none of them
        return
    try:
        run_method(name, folder, origin=tiny_origin(each=5), ipc=6, **request)
    except ValueError as error:
        _promise(f"class {CLASSES[0]} " in str(error), name, f"the message names the class; got {error}")
        return
    _promise(False, name, "more images than a class has are refused with a ValueError; got a set")


def check_presets(name: str) -> None:
    """What is published for the method are settings of its, with values that they take."""
    model = METHODS[name].settings
    for dataset in KNOWN:
        for ipc in (1, 7, 10, 50, 100):
            values = {entry.setting: entry.value for entry in choose(name, dataset, ipc)}
            try:
                model.model_validate(values)
            except ValueError as error:
                _promise(False, name, f"presets are values that the settings take; got {error} for {dataset} ipc {ipc}")


def check_light(name: str) -> None:
    """Importing the settings loads no torch, because planning imports the settings of every method."""
    module = METHODS[name].settings.__module__
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; sys.exit(3 if 'torch' in sys.modules else 0)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    _promise(ran.returncode in (0, 3), name, f"a new process can import {module}, as workers do; got {ran.stderr}")
    _promise(ran.returncode == 0, name, f"importing {module} loads no torch; import it inside the function")


def declared(name: str) -> Method:
    """The declaration of a method.

    Raises:
        AssertionError: There is none; the message says what stands in the way.
    """
    from trainables.methods import PLUGIN_PROBLEMS

    if name not in METHODS:
        reasons = "; ".join(PLUGIN_PROBLEMS) or "its package is not installed, or has no entry point ddray.methods"
        raise AssertionError(f"{name}: no such method; known: {', '.join(METHODS)}. {reasons}")
    return METHODS[name]


def _without_inputs(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != "inputs"}


def _promise(kept: bool, name: str, what: str) -> None:
    if not kept:
        raise AssertionError(f"method {name} breaks a promise: {what}")


def _bytes(payload: DistilledSet, folder: Path) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    payload.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _global_states() -> dict[str, bytes]:
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": legacy["state"]["key"].tobytes() + str(legacy["state"]["pos"]).encode(),
        "random": repr(random.getstate()).encode(),
    }
