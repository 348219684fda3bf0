"""Why stages fail, sorted by what is to be done about it: what a sweep tries again by itself, and what `ddray failures`
tells a person. The kind of a cause stands in the record of a failure."""

from __future__ import annotations

from dataclasses import dataclass

GPU_MEMORY, HOST_MEMORY, CARD, WORKER, COMPUTATION, ERROR = (
    "gpu-memory",
    "host-memory",
    "card",
    "worker",
    "computation",
    "error",
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One kind of cause."""

    title: str
    advice: str
    retries: int = 0
    """How often a stage is tried again with what it had."""
    pause: float = 0.0
    """Seconds before the first of them; each further one waits twice as long."""
    spends: bool = False
    """Whether the process should end afterwards: memory may be stuck in it, or its card may not answer any more."""


CAUSES: dict[str, Cause] = {
    GPU_MEMORY: Cause(
        "out of GPU memory",
        "the sweep gives such a stage more of a card by itself, up to a whole one. Where that is too little: lower "
        "batch sizes or images per class in settings:, or use a card with more memory.",
        spends=True,
    ),
    HOST_MEMORY: Cause(
        "out of the machine's memory",
        "the sweep runs fewer jobs beside such a stage by itself. Where that is too little: lower --cpus, or use a "
        "machine with more memory.",
        retries=1,
        pause=2.0,
    ),
    CARD: Cause(
        "the card or its driver failed",
        "look at `nvidia-smi` and `dmesg` of the host; then: ddray retry SWEEP --cause card",
        retries=1,
        pause=10.0,
        spends=True,
    ),
    WORKER: Cause(
        "the worker process died",
        "look at `ddray doctor` on the host; then: ddray retry SWEEP --cause worker",
        retries=1,
        pause=2.0,
    ),
    COMPUTATION: Cause("the computation cannot go on", "the cause names the setting to change."),
    ERROR: Cause("error", "look closer with: ddray debug KEY"),
}


def kind_of(error: BaseException) -> str:
    """The kind of cause that an exception of a stage stands for."""
    name, text = type(error).__name__, str(error)
    if "OutOfMemory" in name:
        return GPU_MEMORY
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # the second is torch's on a CPU
        return HOST_MEMORY
    if name == "AcceleratorError" or "CUDA error" in text or "CUDNN_STATUS" in text:
        return CARD
    return COMPUTATION if name == "StageFailure" else ERROR
