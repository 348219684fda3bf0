"""What the system tells of itself: what a folder lies on, CPUs that a container may use, ports that are taken."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
PORT_SECONDS = 0.5
NETWORK = re.compile(
    r"(9p|afs|beegfs|ceph|cifs|fhgfs|glusterfs|gfs2|gpfs|lustre|nfs4?|ocfs2|orangefs|panfs|pvfs2|smb3|smbfs|virtiofs|wekafs)"
    r"|fuse\.(ceph|gcsfuse|glusterfs|goofys|juicefs|lustre|mfs|moosefs|mount-s3|rclone|s3fs|sshfs)"
)
"""Kinds of file systems that other machines may have too."""


@dataclass(frozen=True, slots=True)
class Mount:
    """What a folder lies on."""

    kind: str
    source: str

    @property
    def is_network(self) -> bool:
        """Whether other machines may see the same files."""
        return NETWORK.fullmatch(self.kind) is not None

    def __str__(self) -> str:
        return f"{self.kind} of {self.source}" if self.is_network else self.kind


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def mount_of(folder: Path) -> Mount | None:
    """The file system of a folder, there or still to be made; None where the system does not tell."""
    path = existing(folder).resolve()
    found, length = None, -1
    with contextlib.suppress(OSError):
        for line in (PROC / "mounts").read_text(errors="replace").splitlines():
            source, point, kind, *_ = (*map(_unescaped, line.split(" ")), "", "", "")
            inside = path == Path(point) or Path(point) in path.parents
            if point and inside and len(point) >= length:  # of two on one point the later one hides the earlier
                found, length = Mount(kind, source), len(point)
    return found


def cpu_limit() -> float | None:
    """CPUs that the control group of this process may use, the tightest limit on its way up; None: no limit."""
    limits = []
    with contextlib.suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = (*line.split(":", 2), "", "", "")[:3]
            if not controllers:
                for root in (CGROUP, CGROUP / "unified"):
                    limits += [_quota(folder / "cpu.max") for folder in _upwards(root, path)]
            elif "cpu" in controllers.split(","):
                for root in (CGROUP / controllers, CGROUP / "cpu"):
                    limits += [_old_quota(folder) for folder in _upwards(root, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def is_taken(port: int) -> bool:
    """Whether a program of this machine listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PORT_SECONDS):
        return True
    return False


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a control group and those above it; in a container its path may not be there, but the root is."""
    folder = root / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]


def _quota(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return float(quota) / float(period)  # "max 100000" where there is no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _old_quota(folder: Path) -> float | None:
    try:
        quota = float((folder / "cpu.cfs_quota_us").read_text())
        period = float((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _unescaped(text: str) -> str:
    """Spaces and the like stand in ``/proc/mounts`` as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
