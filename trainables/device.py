"""The process a stage runs in: threads, memory, and what makes two runs comparable to the byte."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

_INITIAL_THREADS = torch.get_num_threads()
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc malloc.h


Precision = Literal["float32", "tf32", "bf16"]
"""How networks compute: in single precision; on a GPU with products of inputs rounded to 10 bits (``tf32``); or with
convolutions and linear layers in bfloat16 (``bf16``). Published results are float32's. Part of the numerics class."""
_precision: Precision = "float32"


LAYOUTS = {"cpu": torch.channels_last, "cuda": torch.contiguous_format, "meta": torch.contiguous_format}
"""Device type -> how images and weights lie in memory. A CPU's convolutions are fastest with the channels of a pixel
side by side; on a card, group norm copies what lies so (``ways`` of benchmarks/gpu.py)."""


def laid_out(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) as networks on their device like them."""
    return images.contiguous(memory_format=LAYOUTS[images.device.type])


def prepare(
    device: str,
    cpus: int,
    memory_fraction: float | None = None,
    precision: Precision = "float32",
    beside_mib: float = 0.0,
) -> None:
    """Set up this process for one job.

    The number of threads decides how sums are split, hence the bytes of a result: it comes from the job's resources
    and never from the machine.

    Args:
        device: ``cpu`` or ``cuda``.
        cpus: Torch threads.
        memory_fraction: Share of the card's memory this process may take, in (0, 1]; None for no limit.
        precision: Of the networks' arithmetic.
        beside_mib: Of that share, what the driver takes for the process, which the allocator does not see.

    Raises:
        ValueError: If the device is unknown or there is no such device, or it does not have the precision.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: got {device!r}; expected 'cpu' or 'cuda'. Name one of them.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda'; expected a CUDA card that torch can use. Use 'cpu', or install a driver.")
    torch.set_num_threads(cpus)
    _keep_freed_memory()
    if precision == "tf32" and device == "cpu":
        raise ValueError("precision: got 'tf32' on a CPU; expected a CUDA card. Use 'float32' or 'bf16'.")
    global _precision
    _precision = precision
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    # Benchmarking chooses an algorithm by the clock, so the next run may add up in another order.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(_of_the_allocator(memory_fraction, beside_mib))
        torch.cuda.reset_peak_memory_stats()


def _of_the_allocator(memory_fraction: float | None, beside_mib: float) -> float:
    """Share of the card that the allocator may reserve, of a process that may take ``memory_fraction`` in all."""
    if memory_fraction is None:
        return 1.0
    if beside_mib == 0:
        return memory_fraction
    beside = beside_mib * 2**20 / torch.cuda.get_device_properties().total_memory
    return max(memory_fraction / 2, memory_fraction - beside)


def reset() -> None:
    """Give back what a job took, so that the next one in this process starts as in a new one."""
    gc.collect()
    if trim := _libc("malloc_trim"):
        trim(0)
    global _precision
    _precision = "float32"
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(_INITIAL_THREADS)
    torch.set_grad_enabled(True)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)


def spare_memory(device: str) -> int:
    """Bytes that a job may use to save itself work: half of what is free, divided among jobs. Results do not depend on
    it.

    Of a card: what its share leaves. Else as if every CPU ran a job.
    """
    if device == "cuda":
        total = torch.cuda.get_device_properties().total_memory
        share = torch.cuda.get_per_process_memory_fraction()
        return max(0, int(share * total - torch.cuda.memory_allocated()) // 2)
    return _free_bytes() // 2 // (os.cpu_count() or 1)


def _free_bytes() -> int:
    """Of the machine, or of the container that this process is in; 0 where the system does not tell."""
    free = []
    with suppress(OSError, AttributeError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        free.append(int(found[1]) * 1024)  # type: ignore[index]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text()
        free.append(max(0, int(limit) - int((group / "memory.current").read_text())))
    return min(free, default=0)


def network_arithmetic(device: str) -> AbstractContextManager[Any]:
    """The context in which a network's layers compute; everything around them stays in single precision."""
    if _precision != "bf16":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


@contextmanager
def single_precision() -> Iterator[None]:
    """Networks compute in float32 inside, whatever the job's precision: attacks search for the smallest differences."""
    global _precision
    before = _precision, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _precision = "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        _precision, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def numerics_class(device: str) -> dict[str, str | int]:
    """What must be equal for the same work to give the same bytes."""
    cuda = device.startswith("cuda")
    layout = "contiguous" if LAYOUTS["cuda" if cuda else "cpu"] is torch.contiguous_format else "channels_last"
    return {
        "device": "cuda" if cuda else "cpu",
        "device_name": torch.cuda.get_device_name() if cuda else processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": _precision,
        "code_path": f"{layout}, {'whole batches, classes together' if cuda else 'chunks of 32, own instance norm'}",
    }


@cache
def processor() -> str:
    """Name, family and model of this machine's CPU, as far as the system tells them.

    Libraries of linear algebra choose their kernels by these, not by the instruction set alone: the same stages gave
    other last bits on two processors with AVX-512.
    """
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    said = {name.strip(): value.strip() for name, _, value in reversed([line.partition(":") for line in lines])}
    if "model name" not in said:
        return platform.processor() or platform.machine()
    return f"{said['model name']}, family {said.get('cpu family', '?')}, model {said.get('model', '?')}"


def peak_memory(device: str) -> int:
    """Bytes: the most the card's allocator held since ``prepare``; on a CPU the most this process ever held."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _libc(name: str) -> Any:
    """A function of the C library, or None where it has no such function (musl, macOS)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _keep_freed_memory() -> None:
    """Let the C library's allocator reuse big blocks instead of returning each to the system at once.

    By default every layer's output is fresh memory that the system first fills with zeros, page by page: for ConvNet3
    about half of the time of a step. ``reset`` hands the memory back between jobs.
    """
    if mallopt := _libc("mallopt"):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
