"""What figures were measured on; stands beside every one of them."""

from __future__ import annotations

import importlib.metadata
import os
import time
from typing import Any

import torch

from trainables.device import processor

_NAMES = ("ddray", "torch", "ray", "mlflow", "pyarrow", "pydantic")


def machine() -> dict[str, Any]:
    """Processor, its instruction set as torch uses it, number of cores, versions, date."""
    return {
        "name": "machine",
        "cpus": os.cpu_count(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: importlib.metadata.version(name) for name in _NAMES},
    }
