"""The driver's multi-process service (MPS), under which kernels of several processes run on a card at the same time."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

CONTROL = "nvidia-cuda-mps-control"
SECONDS = 30.0
"""For the service to start or to end."""


@contextlib.contextmanager
def multi_process_service() -> Iterator[bool]:
    """A service of our own, for the processes that are started inside.

    Yields:
        Whether it runs: there is none without a card, and not everybody may start one.
    """
    control = shutil.which(CONTROL)
    if control is None:
        yield False
        return
    with tempfile.TemporaryDirectory(prefix="ddray-mps-") as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        started = False
        try:
            with contextlib.suppress(subprocess.SubprocessError, OSError):
                started = subprocess.run([control, "-d"], capture_output=True, timeout=SECONDS).returncode == 0
            yield started
        finally:
            if started:
                with contextlib.suppress(subprocess.SubprocessError, OSError):
                    subprocess.run([control], input="quit\n", text=True, capture_output=True, timeout=SECONDS)
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
