"""A home, a store and a cache of a test's own, and ddray run in them: in this process and in another."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddray.plan.graph import Stage
from ddray.prepare import Prepared, prepare
from ddray.request import Request
from ddray.results import Results, results_of
from ddray.settings import Folders, folders
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest

TINY = """
ddray: 1
resources: {RESOURCES}
defaults:
  protocol: quick
  train: {epochs: 2}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [2], ipc: [1], init: [real], seed: [0, 1]}
grids:
  tiny:
    axes: {method: [random, dm], distill_seed: DISTILL_SEEDS}
    settings: {dm: {iterations: ITERATIONS, batch_real: 8, width: 8, OTHER}}
"""
"""Two classes of small images, a narrow matching network: seconds, and every part of a real sweep."""

HANGS_SECONDS = 400.0
"""After so long a command counts as hung. A worker of Ray that does not begin is started anew after a minute, and a
disk that others use may take minutes to read torch."""
LAST_LINES = 30
"""Of each log of a Ray that hangs."""

SHARING = """
ddray: 1
resources: {dm: {gpu: 0.5}, train: {gpu: 0.25}, random: {gpu: 0.25}}
defaults:
  protocol: quick
  train: {epochs: 2}
  axes: {dataset: [digits], architecture: [convnet3], num_classes: [2], ipc: [1], init: [real]}
grids:
  dm:
    axes: {method: [dm], distill_seed: [0, 1, 2]}
    settings: {dm: {iterations: 300, batch_real: 8, width: 8, norm: instance}}
  random:
    axes: {method: [random], seed: [0, 1]}
  diverges:
    axes: {method: [dm], ipc: [2]}
    settings: {dm: {iterations: 3, batch_real: 8, width: 8, norm: none, lr_img: 1.0e+30}}
"""
"""Jobs of three shapes, more of them than one card takes at once, and one that fails."""


@dataclass(frozen=True)
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Swept:
    """What a finished sweep left, by key: payload digests, manifests, causes of failures; and its table."""

    payloads: dict[str, dict[str, str]]
    manifests: dict[str, Manifest]
    failures: dict[str, str]
    table: Any


class Running:
    """A command in another process, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str], logs: tuple[Path, Path]) -> None:
        self.process = process
        self._logs = logs

    @property
    def err(self) -> str:
        return self._logs[1].read_text()

    def wait(self, timeout: float = HANGS_SECONDS) -> Ran:
        """Wait for its end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end in {timeout} s: {self.err}\n{self._where_it_stands()}") from None
        return Ran(code, self._logs[0].read_text(), self.err)

    def until(self, holds: Callable[[], object], timeout: float = HANGS_SECONDS) -> None:
        """Wait until something holds while the command runs."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert self.process.poll() is None, f"ended too early with {self.process.returncode}: {self.err}"
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing happened in {timeout} s: {self.err}\n{self._where_it_stands()}")
            time.sleep(0.05)

    def _where_it_stands(self) -> str:
        """The last lines of the logs of its Ray, with the Python stacks of its workers, which this ends."""
        logs = next(Path(tempfile.gettempdir(), "ray").glob(f"session_*_{self.process.pid}/logs"), None)
        if logs is None:
            return "it has no Ray"
        for worker in sorted({int(path.stem.rpartition("-")[2]) for path in logs.glob("worker-*.err")}):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{worker}/cmdline").read_bytes().startswith(b"ray::"):
                    os.kill(worker, signal.SIGABRT)  # Ray has Python write the stack into the log
        time.sleep(2)
        texts = []
        for path in sorted([*logs.glob("worker-*.err"), *logs.glob("raylet.*"), *logs.glob("gcs_server.*")]):
            if lines := path.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                texts += [f"--- {path.name}", *lines]
        return "\n".join(texts)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the command, or as a terminal does to everything it started too."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self) -> None:
        """Make sure that nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextlib.contextmanager
def places_in(folder: Path, cache: Path) -> Iterator[Workspace]:
    """A workspace outside any one test, for what several share."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "STORE", "CACHE"):
            patch.setenv(f"DDRAY_{name}", str(folder / name.lower()))
        for name in ("DDRAY_DATA", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        if not (folder / "cache").exists():
            shutil.copytree(cache, folder / "cache")
        yield Workspace(folder)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own; the test is NOT RUN where nobody may mount one."""
    folder.mkdir()
    ran = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if ran.returncode:
        pytest.skip(f"NOT RUN: no disk can be mounted here: {ran.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Workspace:
    """The places in force, and what is done there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0

    @property
    def folders(self) -> Folders:
        return folders()

    @property
    def store(self) -> Store:
        return Store(self.folders.store, self.folders.cache / "artifacts")

    def write(self, name: str, text: str) -> Path:
        """A sweep file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    def tiny(
        self,
        name: str = "tiny",
        *,
        iterations: int = 3,
        distill_seeds: tuple[int, ...] = (0,),
        diverges: bool = False,
        resources: str = "{}",
    ) -> Path:
        """A sweep of random and DM on two classes of the digits, two training seeds.

        ``diverges``: huge steps, and no normalisation that would hide them, so that DM fails in its second step.
        """
        other = "norm: none, lr_img: 1.0e+30" if diverges else "norm: instance"
        values = {
            "ITERATIONS": iterations,
            "DISTILL_SEEDS": list(distill_seeds),
            "OTHER": other,
            "{RESOURCES}": resources,
        }
        text = TINY
        for word, value in values.items():
            text = text.replace(word, str(value))
        return self.write(name, text)

    def prepare(self, path: Path, **request: Any) -> Prepared:
        """The plan of a sweep file."""
        from trainables.data.cache import build

        return prepare(Request(path, **request), self.folders, build)

    def results(self, name: str) -> Results:
        return results_of(self.folders, name)

    def run(self, *arguments: object) -> Ran:
        """ddray in this process."""
        from ddray.cli import main

        out, err = io.StringIO(), io.StringIO()
        with (
            _arguments(arguments),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main()
        assert isinstance(end.value.code, int), end.value.code
        return Ran(end.value.code, out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def start(self, *arguments: object, script: str | None = None, **variables: str) -> Iterator[Running]:
        """ddray (or a Python text that calls it) in another process; killed at the end if it still runs."""
        self._started += 1
        logs = (self.folder / f"out-{self._started}.txt", self.folder / f"err-{self._started}.txt")
        how = ["-m", "ddray"] if script is None else ["-c", script]
        with logs[0].open("w") as out, logs[1].open("w") as err:
            process = subprocess.Popen(
                [sys.executable, *how, *map(str, arguments)],
                stdout=out,
                stderr=err,
                text=True,
                cwd=self.folder,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        running = Running(process, logs)
        try:
            yield running
        finally:
            running.end()

    def spawn(self, *arguments: object, script: str | None = None, **variables: str) -> Ran:
        """The same, to its end."""
        with self.start(*arguments, script=script, **variables) as running:
            return running.wait()

    # --- what came of it ---------------------------------------------------------------------------------------

    def payloads(self) -> dict[str, dict[str, str]]:
        """Key -> file -> sha256 of everything finished, as its manifests say (and `open` has checked)."""
        store = self.store
        return {
            key: {name: entry["sha256"] for name, entry in store.open(key).manifest.files.items()}
            for key in sorted(store.keys())
        }

    def manifests(self) -> dict[str, tuple[int, bytes]]:
        """Key -> (modification time, content) of every manifest."""
        folder = Path(self.folders.store) / "artifacts"
        return {
            path.parent.name: (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(folder.glob("*/*/manifest.json"))
        }

    def checkpoints(self, lineage: str) -> list[int]:
        """Iterations of the checkpoints of one path."""
        return self.store.checkpoints(lineage).done()

    def swept(self, name: str) -> Swept:
        """Everything at once, to compare with later."""
        store = self.store
        manifests = {key: store.manifest(key) for key in sorted(store.keys())}
        failures = {key: (store.failure(key) or {})["cause"] for key in sorted(store.failures())}
        return Swept(self.payloads(), manifests, failures, self.table(name))

    def table(self, name: str) -> Any:
        """What must be equal of a sweep's measurements when it is computed twice."""
        from pyarrow import parquet

        from ddray.measurements.columns import comparable

        return comparable(parquet.read_table(self.results(name).measurements))


def stages(prepared: Prepared, kind: str, **axes: Any) -> list[Stage]:
    """The stages of a kind that points with these values have, each once."""
    found = {}
    for chain in prepared.plan.chains:
        if all(getattr(chain.point, axis) == value for axis, value in axes.items()):
            stage = chain.stage(kind)  # type: ignore[arg-type]
            if stage is not None:
                found[stage.key] = stage
    return list(found.values())


def debug_keys(text: str) -> list[str]:
    """The keys that messages propose to debug."""
    return re.findall(r"ddray debug ([0-9a-f]{12})", text)


@contextlib.contextmanager
def _arguments(arguments: tuple[object, ...]) -> Iterator[None]:
    """Set what a process of its own would get and keep."""
    before, environment = sys.argv, dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    sys.argv = ["ddray", *map(str, arguments)]
    try:
        yield
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
