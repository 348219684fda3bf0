"""The process a stage runs in: threads, memory, and what makes two runs comparable to the byte."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
import sys
from typing import Any

import torch

_INITIAL_THREADS = torch.get_num_threads()
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc malloc.h


def prepare(device: str, cpus: int, memory_fraction: float | None = None) -> None:
    """Set up this process for one job.

    The number of threads decides how sums are split, hence the bytes of a result: it comes from the job's resources
    and never from the machine.

    Args:
        device: ``cpu`` or ``cuda``.
        cpus: Torch threads.
        memory_fraction: Share of the card's memory this process may take, in (0, 1]; None for no limit.

    Raises:
        ValueError: If the device is unknown or there is no such device.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: got {device!r}; expected 'cpu' or 'cuda'. Name one of them.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda'; expected a CUDA card that torch can use. Use 'cpu', or install a driver.")
    torch.set_num_threads(cpus)
    _keep_freed_memory()
    # TF32 rounds the inputs of products to 10 bits; published results were computed without.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Benchmarking chooses an algorithm by the clock, so the next run may add up in another order.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0 if memory_fraction is None else memory_fraction)
        torch.cuda.reset_peak_memory_stats()


def reset() -> None:
    """Give back what a job took, so that the next one in this process starts as in a new one."""
    gc.collect()
    if trim := _libc("malloc_trim"):
        trim(0)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(_INITIAL_THREADS)
    torch.set_grad_enabled(True)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)


def numerics_class(device: str) -> dict[str, str | int]:
    """What must be equal for the same work to give the same bytes."""
    cuda = device.startswith("cuda")
    return {
        "device": "cuda" if cuda else "cpu",
        "device_name": torch.cuda.get_device_name() if cuda else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "code_path": "channels_last, chunks of 32, own instance norm",
    }


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
