"""`ddray doctor`: is this machine fit? Every finding says what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddray.commands import machine
from ddray.settings import LONGEST_TEMPORARY, RAY_ENVIRONMENT, Folders

Level = Literal["good", "note", "bad"]
MARKS: dict[Level, str] = {"good": "ok  ", "note": "note", "bad": "BAD "}
LIBRARIES = ("torch", "torchvision", "ray", "mlflow", "pyarrow", "pydantic", "scikit-learn", "foolbox", "safetensors")
FREE_WARNING_BYTES = 5 * 2**30
TEMPORARY_WARNING_BYTES = 2**30
DASHBOARD_PORT = 8265
ON_NETWORK = {
    "DDRAY_HOME": "the locks of MLflow's database do not hold on every network file system",
    "DDRAY_CACHE": "decoded data are read again and again",
}
"""Why a folder should not lie on one."""
FLEETING = {
    "tmpfs": "this one is memory, and is empty after the next start",
    "ramfs": "this one is memory, and is empty after the next start",
    "overlay": "this one is a layer of a container, and goes with it",
}
"""File systems that end before the results should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    level: Level
    what: str
    value: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {"level": self.level, "what": self.what, "value": self.value, "remedy": self.remedy}


def examine(folders: Folders) -> list[Finding]:
    """All findings; nothing is changed."""
    return [
        *_versions(),
        *_shadows(),
        *_methods(),
        *_torch(),
        *_ray(),
        *_cpus(),
        *_folders(folders),
        *_data(folders),
        *_settings(folders),
    ]


def text(findings: list[Finding]) -> str:
    """One line each, the remedy below what needs one."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]} {finding.what:<{width}}  {finding.value}")
        if finding.remedy:
            lines.append(f"     {'':<{width}}  -> {finding.remedy}")
    bad = sum(finding.level == "bad" for finding in findings)
    lines.append("this machine is fit" if not bad else f"{bad} finding(s) to mend")
    return "\n".join(lines)


def _versions() -> Iterator[Finding]:
    python = platform.python_version()
    fit = sys.version_info >= (3, 11)
    yield Finding(
        "good" if fit else "bad", "python", f"{python} ({sys.executable})", "" if fit else "use 3.11 or newer"
    )
    for name in ("ddray", *LIBRARIES):
        try:
            yield Finding("good", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("bad", name, "not installed", "install ddray with its dependencies: make setup")


def _shadows() -> Iterator[Finding]:
    """Folders that Python would import instead of the packages of the same name."""
    for name in ("mlflow", "ddray", "trainables"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            yield Finding(
                "bad",
                f"import {name}",
                "finds a folder, not the package",
                f"a folder called {name} is on Python's path and the package is not; run from elsewhere or install it",
            )
    here = Path.cwd()
    if (here / "mlflow" / "__init__.py").exists():
        yield Finding(
            "bad", "folder mlflow/", f"{here / 'mlflow'} has an __init__.py", "it hides MLflow: remove the file"
        )
    if (here / "ddray").is_dir() and not (here / "ddray" / "__init__.py").exists():
        yield Finding(
            "bad",
            "folder ddray/",
            f"{here / 'ddray'} is not the package",
            "workers started here would import it: change to another directory",
        )


def _methods() -> Iterator[Finding]:
    """Methods of other packages, and what kept some from being declared."""
    from trainables.methods import METHODS, PLUGIN_PROBLEMS

    own = [name for name, method in METHODS.items() if method.settings.__module__ == "trainables.methods"]
    added = [name for name in METHODS if name not in own]
    yield Finding("good", "methods", f"{len(own)} of ddray, from other packages: {', '.join(added) or 'none'}")
    for problem in PLUGIN_PROBLEMS:
        yield Finding("bad", "method missing", problem, "repair that package or uninstall it")


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    # Results of two instruction sets differ by rounding (decision 0010), and timings by a factor.
    yield Finding("good", "instruction set", f"{torch.backends.cpu.get_cpu_capability()} (torch), {platform.machine()}")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if not torch.cuda.is_available():
        card = _card_without_torch()
        if card:
            yield Finding(
                "bad",
                "GPU",
                f"{card}, but torch (built for {built}) cannot use it",
                "install the wheel that fits the driver; see README, Installation",
            )
        else:
            yield Finding("note", "GPU", f"none; torch is built for {built}, everything runs on the CPU")
        return
    architectures = set(torch.cuda.get_arch_list())
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        major, minor = torch.cuda.get_device_capability(number)
        memory = torch.cuda.get_device_properties(number).total_memory / 2**30
        value = f"{name}, {memory:.0f} GiB, sm_{major}{minor}; torch built for {built}"
        if f"sm_{major}{minor}" in architectures or f"compute_{major}{minor}" in architectures:
            yield Finding("good", f"GPU {number}", value)
        else:
            yield Finding(
                "bad",
                f"GPU {number}",
                f"{value}, which holds {', '.join(sorted(architectures))} only",
                f"install a wheel with sm_{major}{minor}; for a V100 (sm_70) a CUDA 12.6 or older one, see README",
            )


def _card_without_torch() -> str:
    """The name of a card that the driver's tool sees, or ""."""
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        ran = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip().replace("\n", ", ") if ran.returncode == 0 else ""


def _ray() -> Iterator[Finding]:
    if importlib.util.find_spec("ray") is None:
        return
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        small = free < 300 * 2**20
        yield Finding(
            "bad" if small else "good",
            "/dev/shm",
            f"{free / 2**30:.1f} GiB free",
            "Ray's object store needs 256 MiB here; in Docker: --shm-size=1g" if small else "",
        )
    if os.environ.get("RAY_ADDRESS"):
        yield Finding(
            "note",
            "RAY_ADDRESS",
            os.environ["RAY_ADDRESS"],
            "ddray starts its own Ray unless --address is given; Ray itself may prefer this variable",
        )
    if machine.is_taken(DASHBOARD_PORT):
        yield Finding(
            "note",
            f"port {DASHBOARD_PORT}",
            "taken, perhaps by the dashboard of another Ray",
            "ours takes the next free port; the sweep prints its address when it starts",
        )
    else:
        yield Finding("good", f"port {DASHBOARD_PORT}", "free for Ray's dashboard")
    yield _sockets()


def _sockets() -> Finding:
    """The folder of Ray's sockets, logs and spilled objects."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    length = len(os.fsencode(folder))
    long = length > LONGEST_TEMPORARY
    used = Path("/tmp") if long else Path(folder)
    free = shutil.disk_usage(machine.existing(used)).free
    value = f"{used} ({free / 2**30:.1f} GiB free)"
    if long:
        value = f"{folder} has {length} bytes and Ray's sockets leave {LONGEST_TEMPORARY}; used instead: {value}"
    if not os.access(machine.existing(used), os.W_OK):
        return Finding("bad", "temporary", f"{used} is not writable", "set RAY_TMPDIR to a folder with a short path")
    if free < TEMPORARY_WARNING_BYTES:
        remedy = "Ray keeps logs and spilled objects there: free some space, or set RAY_TMPDIR to another disk"
        return Finding("note", "temporary", value, remedy)
    remedy = "set RAY_TMPDIR to a shorter path where /tmp does not suit you" if long else ""
    return Finding("note" if long else "good", "temporary", value, remedy)


def _cpus() -> Iterator[Finding]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = machine.cpu_limit()
    if limit is None or limit >= cpus:
        yield Finding("good", "CPUs", str(cpus))
        return
    yield Finding(
        "note",
        "CPUs",
        f"{cpus}, of which a limit of the container (cgroup) lets this process use {limit:g}",
        f"more jobs than that slow each other down: give --cpus {max(1, int(limit))}",
    )


def _folders(folders: Folders) -> Iterator[Finding]:
    for name, folder in (("DDRAY_HOME", folders.home), ("DDRAY_CACHE", folders.cache)):
        existing = machine.existing(folder)
        if not os.access(existing, os.W_OK):
            yield Finding("bad", name, f"{folder} is not writable", f"set {name} to a folder you can write to")
            continue
        free = shutil.disk_usage(existing).free
        value = f"{folder} ({free / 2**30:.0f} GiB free)"
        mount = machine.mount_of(folder)
        if free < FREE_WARNING_BYTES:
            yield Finding("note", name, value, "little space is left")
        elif mount is not None and mount.is_network:
            yield Finding("note", name, f"{value}, {mount}", f"{ON_NETWORK[name]}: a disk of this machine is better")
        else:
            yield Finding("good", name, value)


def _store(folders: Folders) -> Finding:
    """Jobs on several nodes need one store that all of them see."""
    if "://" in folders.store:
        return Finding("note", "DDRAY_STORE", f"{folders.store}, the same from every node")
    folder = Path(folders.store)
    free = f"{shutil.disk_usage(machine.existing(folder)).free / 2**30:.0f} GiB free"
    mount = machine.mount_of(folder)
    if mount is None:
        return Finding("note", "DDRAY_STORE", f"{folder} ({free})")
    if mount.is_network:
        return Finding("note", "DDRAY_STORE", f"{folder} ({free}), {mount}: nodes that mount it share it")
    if mount.kind in FLEETING:
        remedy = f"set DDRAY_STORE to a disk that stays: {FLEETING[mount.kind]}"
        return Finding("note", "DDRAY_STORE", f"{folder} ({free}), {mount}", remedy)
    alone = "a disk of this machine: on a cluster all nodes need one folder or a URL"
    return Finding("note", "DDRAY_STORE", f"{folder} ({free}), {mount}, {alone}")


def _data(folders: Folders) -> Iterator[Finding]:
    from trainables.data.known import KNOWN
    from trainables.data.layout import DataBroken, find_index, find_source, incomplete

    for name in KNOWN:
        if name == "digits":
            yield Finding("good", "data digits", "embedded in scikit-learn")
            continue
        try:
            source = find_source(name, None, folders.data)
            index = find_index(name, None, None, folders.data, folders.cache)
        except DataBroken as error:
            yield Finding("bad", f"data {name}", str(error), "restore the files, or remove them to download them again")
            continue
        if index is not None:
            yield Finding("good", f"data {name}", f"decoded in {folders.cache}")
        elif source is not None:
            yield Finding("good", f"data {name}", f"found in {source.describe()}, decoded at first use")
        else:
            half = incomplete(name, None, folders.data)
            got = f"; got {'; '.join(half)}" if half else ""
            place = f"not complete in {folders.data}{got}; downloaded at first use where that is possible"
            yield Finding("note", f"data {name}", place)


def _settings(folders: Folders) -> Iterator[Finding]:
    yield _store(folders)
    yield Finding("note", "DDRAY_DATA", str(folders.data))
    for name, (value, reason) in RAY_ENVIRONMENT.items():
        actual = os.environ.get(name, value)
        mark = "" if actual == value else f" (ddray's own choice is {value})"
        yield Finding("note", name, f"{actual}{mark}: {reason}")
