"""What figures were measured on; stands beside every one of them."""

from __future__ import annotations

import importlib.metadata
import os
import time
from typing import Any

import torch

from trainables.device import processor

_NAMES = ("ddray", "torch", "ray", "mlflow", "pyarrow", "pydantic")


def _version(name: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Processor, its instruction set as torch uses it, number of cores, versions, date."""
    return {
        "name": "machine",
        "cpus": os.cpu_count(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: _version(name) for name in _NAMES},
    }
