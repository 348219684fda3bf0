"""run_stage and run_job: the one path from a job's description to committed artifacts, shared by every executor."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import importlib.metadata
import logging
import platform
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ddray.errors import EnvironmentProblem, without_addresses
from ddray.plan.kinds import STAGE_KINDS
from ddray.plan.shares import CONTEXT_MIB
from ddray.run.causes import CAUSES, kind_of
from ddray.run.context import StageContext
from ddray.store.artifacts import DamagedArtifact, Store
from ddray.store.claims import HEARTBEAT_SECONDS, Claim
from ddray.store.manifest import Manifest
from trainables.context import Interrupted

log = logging.getLogger(__name__)

Tick = Callable[[str, dict[str, Any] | None], bool]
"""Post progress (None at the end); returns whether to stop. ``Board.tick`` or its remote twin."""

TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerEnv:
    """Where and with what a job runs. JSON-like, so that it travels to a worker; never part of a key."""

    store: str
    data: str
    cache: str
    code: Mapping[str, Any]
    """Commit and dirty flag of the driver's checkout."""
    device: str = "auto"
    """``auto``: the first visible CUDA device, else the CPU."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of the networks' arithmetic; in provenance, not in keys."""


@dataclass(slots=True)
class Outcome:
    """What became of a job."""

    done: list[str] = field(default_factory=list)
    """Keys that exist now."""
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> cause."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Key -> kind of the cause, of those that failed."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Input keys found damaged and moved away, with the message; the job did not run to its end."""
    busy: dict[str, str] = field(default_factory=dict)
    """Keys to try again later -> who is computing them, "" where nobody is."""
    interrupted: bool = False
    environment: str = ""
    """What keeps this and every other job from going on: a full disk, a store that cannot be read."""
    spent: bool = False
    """Whether the process should end: memory may be stuck in it, or its card may not answer any more."""
    seconds: float = 0.0


class Busy(Exception):
    """Somebody else holds the claim; the text says who."""


class MissingInput(Exception):
    """An input that was finished is not there any more: another job met it damaged, or somebody removed it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"artifact {key[:12]} is gone; to be computed again")
        self.key = key


def run_job(job: Mapping[str, Any], env: WorkerEnv, tick: Tick) -> Outcome:
    """Run a job's stages in order, committing each; never raises for a stage's failure.

    After a failure the job's other stages go on, except those that need the failed one.

    Args:
        job: ``name``, ``stages`` (specs, in order), ``cpus``, ``gpu`` (share of one card).
        env: Folders and device.
        tick: Heartbeat, called about every second while the job runs.
    """
    started = time.monotonic()
    outcome = Outcome()
    store = Store(env.store, Path(env.cache) / "artifacts")
    lost: set[str] = set()
    with Heartbeat(job["name"], tick) as heartbeat:
        for spec in job["stages"]:
            if heartbeat.stop.is_set():
                outcome.interrupted = True
                break
            if lost.intersection(spec["inputs"].values()):
                lost.add(spec["key"])
                continue
            try:
                run_stage(spec, store, env, heartbeat, cpus=float(job["cpus"]), share=float(job["gpu"]))
                outcome.done.append(spec["key"])
            except Interrupted:
                outcome.interrupted = True
                break
            except Busy as claimed:
                outcome.busy[spec["key"]] = str(claimed)
                break
            except (DamagedArtifact, MissingInput) as problem:
                outcome.damaged[problem.key] = str(problem)
                break
            except Exception as error:
                if environment := _environment(error):
                    outcome.environment = environment
                    break
                kind = kind_of(error)
                outcome.failed[spec["key"]], outcome.kinds[spec["key"]] = _cause(error), kind
                outcome.spent = CAUSES[kind].spends
                _record(store, spec, job, error, env)
                lost.add(spec["key"])
                if outcome.spent:
                    break
            heartbeat.stage = None
    outcome.seconds = time.monotonic() - started
    return outcome


def run_stage(
    spec: Mapping[str, Any], store: Store, env: WorkerEnv, heartbeat: Heartbeat, *, cpus: float, share: float
) -> None:
    """Compute one stage and commit its artifact; nothing happens when it exists.

    Raises:
        Interrupted: A stop was asked for.
        Busy: Somebody else is computing it.
        DamagedArtifact: An input is damaged.
        MissingInput: An input is not there.
        Exception: Whatever the stage itself raises.
    """
    key = spec["key"]
    if store.has(key):
        return
    claim = store.claim(key)
    if not claim.acquire():
        raise Busy(claim.description())
    heartbeat.begin(spec, claim)
    try:
        _compute(spec, store, env, heartbeat, cpus, share)
    finally:
        heartbeat.claim = None
        claim.release()


def _compute(
    spec: Mapping[str, Any], store: Store, env: WorkerEnv, heartbeat: Heartbeat, cpus: float, share: float
) -> None:
    from trainables import device as devices
    from trainables import stages

    if store.has(spec["key"]):  # finished by somebody else between the look and the claim
        return
    started_at, clock = datetime.now(UTC), time.monotonic()
    device = device_for(env.device, share)
    precision = env.precision
    if precision == "tf32" and device == "cpu":
        precision = "float32"  # jobs that need no card run beside those that do
    devices.prepare(device, max(1, int(cpus)), share if device != "cpu" and share > 0 else None, precision, CONTEXT_MIB)
    config = STAGE_KINDS[spec["kind"]].config.model_validate(spec["config"])
    inputs = {role: _open(store, key) for role, key in spec["inputs"].items()}
    checkpoints = store.checkpoints(spec["lineage"])
    context = StageContext(
        device=device,
        data=Path(env.data),
        cache=Path(env.cache),
        checkpoints=checkpoints,
        budget=spec["budget"],
        stop=heartbeat.stop,
        on_progress=heartbeat.on_progress,
    )
    payload = stages.run(spec["kind"], config, inputs, context)  # type: ignore[arg-type]
    with store.writing() as folder:
        payload.save(folder)
        provenance = {
            **env.code,
            "versions": versions(),
            "device": device,
            "numerics": devices.numerics_class(device),
            "seconds": round(time.monotonic() - clock, 3),
            "peak_mib": round(devices.peak_memory(device) / 2**20, 1),
            "started_at": started_at.isoformat(timespec="milliseconds"),
            "host": socket.gethostname(),
            "cpus": cpus,
            "gpu_share": share,
        }
        manifest = Manifest(
            key=spec["key"],
            kind=spec["kind"],
            version=spec["version"],
            label=spec["label"],
            config=spec["config"],
            inputs=spec["inputs"],
            files={},
            provenance=provenance,
        )
        store.commit(folder, manifest)
    if spec["budget"] is None:
        checkpoints.remove()


def _open(store: Store, key: str) -> Path:
    try:
        return store.open(key).folder
    except KeyError:
        raise MissingInput(key) from None


class Heartbeat:
    """A thread that posts progress, hears the request to stop and renews the claim while a job runs."""

    def __init__(self, job: str, tick: Tick) -> None:
        self.job = job
        self.stop = threading.Event()
        self.claim: Claim | None = None
        self.stage: Mapping[str, Any] | None = None
        self._tick = tick
        self._progress: dict[str, Any] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat of {job}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._tell({})  # before anything else: a job that starts while the sweep stops should not start
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def begin(self, spec: Mapping[str, Any], claim: Claim) -> None:
        self.claim = claim
        self.stage = spec
        self._progress = {}

    def on_progress(self, progress: dict[str, Any]) -> None:
        self._progress = progress

    def _tell(self, shown: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # a lost message must not cost the computation
            if self._tick(self.job, shown):
                self.stop.set()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._over.is_set():
            stage = self.stage
            shown = {}
            if stage is not None:
                shown = {name: stage[name] for name in ("key", "label", "kind")} | self._progress
            self._tell(shown)
            if time.monotonic() - renewed > HEARTBEAT_SECONDS:
                renewed = time.monotonic()
                with contextlib.suppress(OSError):
                    claim = self.claim
                    if claim is not None:
                        claim.refresh()
            self._over.wait(TICK_SECONDS)
        with contextlib.suppress(Exception):
            self._tick(self.job, None)


def code_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout ddray runs from; nulls when it is an installed wheel."""
    import subprocess

    here = Path(__file__).resolve().parent
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            ran = subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return {"commit": None, "dirty": None}
        if ran.returncode != 0:
            return {"commit": None, "dirty": None}
        answers.append(ran.stdout.strip())
    return {"commit": answers[0], "dirty": bool(answers[1])}


@functools.cache
def versions() -> dict[str, str]:
    """Of what computes, for provenance."""
    names = {"ddray": "ddray", "torch": "torch", "numpy": "numpy", "sklearn": "scikit-learn", "ray": "ray"}
    versions = {"python": platform.python_version()}
    for name, distribution in names.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(distribution)
    return versions


def device_for(wanted: str, share: float) -> str:
    """Where to compute: a job without a share of a GPU stays off the GPU, whatever the process can see."""
    if share <= 0:
        return "cpu"
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _environment(error: BaseException) -> str:
    """The message of an error that the next job would meet as well, or ""."""
    if isinstance(error, EnvironmentProblem):
        return str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors hands the system's error on as text.
    if full or "No space left on device" in str(error) or "StorageFull" in str(error):
        return f"no space is left on {socket.gethostname()}; got {error}. Free some, and run the same command again."
    return ""


def _cause(error: BaseException) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return without_addresses(f"{type(error).__name__}: {first}")[:300]


def _record(
    store: Store, spec: Mapping[str, Any], job: Mapping[str, Any], error: BaseException, env: WorkerEnv
) -> None:
    failure = {
        **spec,
        "cpus": job["cpus"],
        "gpu": job["gpu"],
        "cause": _cause(error),
        "cause_kind": kind_of(error),
        "traceback": "".join(traceback.format_exception(error)),
        "job": job["name"],
        "versions": versions(),
        "host": socket.gethostname(),
        **env.code,
    }
    try:
        store.record_failure(spec["key"], failure)
    except OSError as problem:
        log.warning("the failure of %s could not be recorded: %s", spec["key"][:12], problem)


@contextlib.contextmanager
def between_jobs() -> Iterator[None]:
    """Leave the process as the next job should find it: garbage collected, CUDA cache empty, defaults restored."""
    try:
        yield
    finally:
        import sys

        if "torch" in sys.modules:
            from trainables import device as devices

            devices.reset()
            if not gc.get_freeze_count():
                # What the libraries made at import lives for ever; without it a collection takes 1 ms, not 50.
                gc.freeze()
                atexit.register(gc.unfreeze)  # else libraries complain about leaks when the process ends
