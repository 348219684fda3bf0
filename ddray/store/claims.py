"""Claims: small files that say who is computing a stage right now.

They only keep two drivers from starting the same long stage. Correctness never depends on them: a claim whose
heartbeat is old counts as none, and if two processes do compute one stage, one of two equal commits is discarded.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
import uuid
from typing import Any

from ddray.store.files import Files

EXPIRES_SECONDS = 60.0
HEARTBEAT_SECONDS = 10.0


class Claim:
    """One process's claim on one key."""

    def __init__(self, files: Files, key: str) -> None:
        self.files = files
        self.path = f"claims/{key}.json"
        self.token = uuid.uuid4().hex
        self.held = False

    def acquire(self) -> bool:
        """Take the claim unless somebody with a live heartbeat holds it."""
        if self.files.create(self.path, self._content()):
            self.held = True
            return True
        holder = self.holder()
        if holder is not None and self._alive(holder):
            return False
        # Expired. Two processes may both get here; at worst both compute, and equal artifacts are committed once.
        self.files.write(self.path, self._content())
        self.held = True
        return True

    def refresh(self) -> None:
        """Renew the heartbeat."""
        if self.held:
            self.files.write(self.path, self._content())

    def release(self) -> None:
        """Give the claim up, if it is still ours."""
        if self.held:
            self.held = False
            holder = self.holder()
            if holder is not None and holder.get("token") == self.token:
                self.files.remove(self.path)

    def holder(self) -> dict[str, Any] | None:
        """Who holds the claim: ``host``, ``pid``, ``heartbeat`` (seconds since the epoch), ``token``."""
        try:
            holder = json.loads(self.files.read(self.path))
        except (FileNotFoundError, ValueError):
            return None
        readable = isinstance(holder, dict) and isinstance(holder.get("heartbeat"), int | float)
        return holder if readable else None

    def description(self) -> str:
        """Who computes the stage, for people."""
        holder = self.holder() or {}
        heard = f"heard of {max(0.0, self._silence(holder)):.0f} s ago"
        return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, {heard}"

    def _alive(self, holder: dict[str, Any]) -> bool:
        if holder.get("host") == socket.gethostname():
            try:
                os.kill(int(holder.get("pid", 0)), 0)  # asks only whether the process exists
            except ProcessLookupError:
                return False
            except (PermissionError, ValueError, TypeError, OverflowError):
                pass
        return self._silence(holder) <= EXPIRES_SECONDS

    def _silence(self, holder: dict[str, Any]) -> float:
        """Seconds since the holder was heard of. Clocks of nodes differ and jump: asked is whoever keeps the file."""
        try:
            silence = self.files.silence(self.path)
        except NotImplementedError:
            return abs(time.time() - float(holder.get("heartbeat", 0.0)))
        return math.inf if silence is None else silence

    def _content(self) -> bytes:
        claim = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time(), "token": self.token}
        return json.dumps(claim).encode()
