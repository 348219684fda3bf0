"""Devices by name, with what is assumed of them, and which of them this machine has. No torch.

The speeds are assumptions for stages that nobody has measured yet. They rest on one card, an H100, on which steps of
the methods were measured (``make bench-gpu``; docs/benchmarks/card_h100-80g_2026-11-27.md), in the work that a plan
counts. Other cards: in proportion to the bandwidth of their memory (the makers' data sheets), because normalisation,
activation and pooling of small feature maps wait for memory, not for multipliers.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddray.errors import RequestError

PROC = Path("/proc")
CPU_STAGE_SECONDS, CARD_STAGE_SECONDS = 0.1, 1.0
H100_GFLOPS, H100_BANDWIDTH = 7000.0, 3350.0
"""A card that is full of jobs: IDC's step, which most hours of a sweep go to, did 6,912 with eight at once (DSA's
8,822, DM's 11,282, MTT's small one 2,416)."""
PROCESS_GFLOPS = 4400.0
"""One process, however fast its card: it hands over small operators, and the card waits for them. IDC's step alone did
4,377 on the H100, others 594 to 8,148."""
CORE_GFLOPS = {"AVX512": 35.0, "AVX2": 18.0, "DEFAULT": 5.0}
"""One core and thread, by instruction set: the median of the stages of ``sweeps/quickstart.yaml``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What stages run on: one graphics card, or one core of a CPU."""

    name: str
    """As given to ``--gpu``; ``cpu`` for a core."""
    gflops: float
    """Assumed speed of a card that is full of jobs, or of a core, in single precision."""
    stage_seconds: float
    """Assumed beside the arithmetic, per stage: reading, first kernels, writing."""
    memory_gib: float | None = None
    """Of a card; None: a core."""
    reports_as: str = ""
    """Pattern of the name that its driver tells."""

    @property
    def is_card(self) -> bool:
        return self.memory_gib is not None

    @property
    def measured_as(self) -> str:
        """Under which name costs on it are kept."""
        return self.name

    def speed(self, share: float) -> float:
        """Assumed GFLOP a second of a job that has so much of a card; a core's is its own."""
        return min(self.gflops * share, PROCESS_GFLOPS) if self.is_card else self.gflops


def _card(name: str, memory_gib: float, bandwidth: float, reports_as: str) -> Device:
    """
    Args:
        bandwidth: Of its memory, GB/s.
    """
    return Device(
        name=name,
        gflops=round(H100_GFLOPS * bandwidth / H100_BANDWIDTH, -2),
        stage_seconds=CARD_STAGE_SECONDS,
        memory_gib=memory_gib,
        reports_as=reports_as,
    )


CARDS: dict[str, Device] = {
    card.name: card
    for card in (
        _card("v100-16g", 16, 900, r"V100.*16GB"),
        _card("v100-32g", 32, 900, r"V100.*32GB"),
        _card("t4-16g", 16, 320, r"\bT4\b"),
        _card("a100-40g", 40, 1555, r"A100.*40GB"),
        _card("a100-80g", 80, 2039, r"A100.*80GB"),
        _card("rtx3090-24g", 24, 936, r"RTX 3090"),
        _card("rtx4090-24g", 24, 1008, r"RTX 4090"),
        _card("h100-80g", 80, 3350, r"H100"),
        _card("h200-141g", 141, 4800, r"H200"),
    )
}
"""By name."""


@dataclass(frozen=True, slots=True)
class Machine:
    """So many of one device."""

    device: Device
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.device.name}" if self.device.is_card else f"{self.count} CPU cores"


def core(capability: str | None = None) -> Device:
    """A core with an instruction set; None: this machine's."""
    capability = capability or instruction_set()
    speed = CORE_GFLOPS.get(capability, CORE_GFLOPS["DEFAULT"])
    return Device(name=f"cpu {capability}", gflops=speed, stage_seconds=CPU_STAGE_SECONDS)


def machine(gpu: str | None, count: int | None) -> Machine:
    """What a plan is priced for.

    Args:
        gpu: A name of ``CARDS``, or ``cpu-N`` for N cores; None: what this machine has.
        count: Cards; None: those there are, else one.

    Raises:
        RequestError: There is no such device.
    """
    if gpu is None:
        here = cards_here()
        if here and count != 0:
            return Machine(here[0], count or len(here))
        if count:
            raise RequestError(
                [f"--gpus {count}: this machine has no card that could be priced. Name one with --gpu: {_names()}."]
            )
        return Machine(core(), cores_here())
    if (cores := re.fullmatch(r"cpu-([1-9]\d*)", gpu)) is not None:
        return Machine(core(), int(cores[1]))
    if gpu not in CARDS:
        near = difflib.get_close_matches(gpu, CARDS, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise RequestError([f"--gpu {gpu}: no such device; expected {_names()}.{meant}"])
    return Machine(CARDS[gpu], count or 1)


def device_here() -> Device:
    """This machine's first card; without one, its core."""
    return next(iter(cards_here()), core())


def _names() -> str:
    return f"{', '.join(CARDS)}, or cpu-N for N cores"


def cores_here() -> int:
    """Of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instruction_set() -> str:
    """Of this machine's cores, in torch's words."""
    forced = os.environ.get("ATEN_CPU_CAPABILITY", "").upper()
    if forced in CORE_GFLOPS:
        return forced
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        text = (PROC / "cpuinfo").read_text(errors="replace")
        if (line := re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)) is not None:
            flags = set(line[1].split())
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "AVX512"
    return "AVX2" if {"avx2", "fma"} <= flags else "DEFAULT"


def cards_here() -> list[Device]:
    """The cards that the driver tells of; one that is not in ``CARDS`` is taken for a V100 of its own name."""
    found = []
    for path in sorted(PROC.glob("driver/nvidia/gpus/*/information")):
        with contextlib.suppress(OSError):
            if (model := re.search(r"^Model:\s*(.+?)\s*$", path.read_text(), re.MULTILINE)) is not None:
                found.append(card_named(model[1]))
    return found


def card_named(reported: str) -> Device:
    """The card that a driver's or torch's name stands for."""
    known = (card for card in CARDS.values() if re.search(card.reports_as, reported))
    return next(known, replace(CARDS["v100-32g"], name=reported, reports_as=re.escape(reported)))


def device_of(numerics: Mapping[str, Any]) -> str:
    """Under which name the costs of a stage are kept.

    Args:
        numerics: Its numerics class, as in the provenance of its manifest.
    """
    if numerics.get("device") == "cuda":
        precision = numerics.get("dtype", "float32")
        name = card_named(str(numerics.get("device_name", "unknown"))).name
        return name if precision == "float32" else f"{name} {precision}"
    return f"cpu {numerics.get('cpu_capability', 'DEFAULT')}"
