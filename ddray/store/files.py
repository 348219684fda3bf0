"""Two kinds of place for a store behind one small interface: a local folder, and an object store (fsspec)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ddray.atomic import replacing

CREATING = frozenset({"memory", "s3"})
"""Protocols whose servers are asked to write a file only if there is none; elsewhere it is looked up just before."""


class Files(Protocol):
    """File operations relative to the store's root; paths use ``/``."""

    def read(self, path: str) -> bytes:
        """Content of a file; FileNotFoundError when there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Replace a file at once: readers see the old content or the new, never a part."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a file only if there is none; False if there was one."""

    def tree(self, folder: str) -> dict[str, str]:
        """Every file below a folder, by its path from there -> what changes when it is written again."""

    def silence(self, path: str) -> float | None:
        """Seconds since a file was written, by the clock of whoever keeps it; None when there is no such file.

        Raises:
            NotImplementedError: The place does not say when a file was written.
        """

    def names(self, folder: str) -> list[str]:
        """Names directly below a folder; empty when there is no such folder."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder; nothing happens when it does not exist."""

    def move(self, source: str, target: str) -> None:
        """Rename a folder out of the way (quarantine)."""

    def scratch(self) -> Path:
        """A new empty local folder to prepare a commit in."""

    def commit(self, scratch: Path, path: str, last: str) -> bool:
        """Turn a prepared folder into ``path``, the file ``last`` appearing last. False if ``path`` was there."""

    def fetch(self, path: str, names: list[str]) -> Path:
        """A local folder holding the named files of ``path``; FileNotFoundError when one is not there."""

    def forget(self, path: str) -> None:
        """Drop the local copy of ``path``, where ``fetch`` makes one."""


class LocalFiles:
    """A folder on a file system with atomic rename (any local disk, NFS)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes:
        with open(f"{self.root}/{path}", "rb") as file:  # pathlib would take as long again as the reading
            return file.read()

    def write(self, path: str, content: bytes) -> None:
        with replacing(self.root / path) as temporary:
            temporary.write_bytes(content)

    def create(self, path: str, content: bytes) -> bool:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.write_bytes(content)
            os.link(temporary, target)  # fails if the target exists, and never shows a half-written file
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tree(self, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        waiting = [folder]
        while waiting:
            parent = waiting.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / parent) as entries:
                for entry in entries:
                    path = f"{parent}/{entry.name}"
                    if entry.is_dir():
                        waiting.append(path)
                    else:
                        status = entry.stat()
                        found[path.removeprefix(f"{folder}/")] = f"{status.st_size}:{status.st_mtime_ns}"
        return found

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def silence(self, path: str) -> float | None:
        target = self.root / path
        try:
            with target.open("rb") as file:  # opening makes a network file system look again
                written = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        with tempfile.TemporaryFile(dir=target.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - written

    def remove(self, path: str) -> None:
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def move(self, source: str, target: str) -> None:
        destination = self.root / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process moved it first
            os.rename(self.root / source, destination)

    def scratch(self) -> Path:
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))

    def commit(self, scratch: Path, path: str, last: str) -> bool:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in scratch.iterdir():
            _flush(file)
        scratch.chmod(0o755)  # mkdtemp makes it private; a store may be shared
        if target.is_dir() and not (target / last).exists():
            shutil.rmtree(target, ignore_errors=True)  # what is left of a damaged one; it would block the name for good
        try:
            os.rename(scratch, target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(scratch, ignore_errors=True)
            return False
        _flush(target.parent)
        return True

    def fetch(self, path: str, names: list[str]) -> Path:
        return self.root / path

    def forget(self, path: str) -> None:
        """There is no copy."""


class RemoteFiles:
    """An object store through fsspec. No rename there: data goes first, the manifest last."""

    def __init__(self, url: str, downloads: Path) -> None:
        import fsspec

        filesystem, root = fsspec.core.url_to_fs(url)
        self.filesystem: Any = filesystem
        self.root: str = root.rstrip("/")
        self.downloads = downloads
        protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else set(filesystem.protocol)
        self._creates = bool(protocols & CREATING)

    def read(self, path: str) -> bytes:
        content: bytes = self._ask("cat_file", self._at(path))
        return content

    def write(self, path: str, content: bytes) -> None:
        self._ask("pipe_file", self._at(path), content)

    def create(self, path: str, content: bytes) -> bool:
        if not self._creates and self.exists(path):
            return False
        try:
            self._ask("pipe_file", self._at(path), content, **({"mode": "create"} if self._creates else {}))
        except FileExistsError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        self._ask("invalidate_cache")
        try:
            found = self._ask("ls", self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in found)

    def silence(self, path: str) -> float | None:
        probe = self._at(f"tmp/{uuid.uuid4().hex}")
        try:
            self._ask("invalidate_cache")
            written = self._ask("modified", self._at(path))
        except FileNotFoundError:
            return None
        self._ask("pipe_file", probe, b"")
        now = self._ask("modified", probe)
        self._ask("rm", probe)
        return float((now - written).total_seconds())

    def tree(self, folder: str) -> dict[str, str]:
        self._ask("invalidate_cache")
        root = self._at(folder).lstrip("/")
        found: dict[str, dict[str, Any]] = self._ask("find", self._at(folder), detail=True)
        return {
            path.lstrip("/").removeprefix(f"{root}/"): f"{entry.get('size')}:{_tag(entry)}"
            for path, entry in found.items()
        }

    def exists(self, path: str) -> bool:
        self._ask("invalidate_cache")
        return bool(self._ask("exists", self._at(path)))

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask("rm", self._at(path), recursive=True)

    def move(self, source: str, target: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            # the manifest first: from then on the artifact does not exist
            for name in sorted(self.names(source), key=lambda name: name != "manifest.json"):
                self._ask("mv", self._at(f"{source}/{name}"), self._at(f"{target}/{name}"))

    def scratch(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="ddray-"))

    def commit(self, scratch: Path, path: str, last: str) -> bool:
        try:
            if self.exists(f"{path}/{last}"):
                return False
            for file in sorted(scratch.iterdir(), key=lambda file: file.name == last):
                self._ask("put_file", str(file), self._at(f"{path}/{file.name}"))
            return True
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def fetch(self, path: str, names: list[str]) -> Path:
        folder = self.downloads / path
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            target = folder / name
            if not target.exists():
                with replacing(target) as temporary:
                    self._ask("get_file", self._at(f"{path}/{name}"), str(temporary))
        return folder

    def forget(self, path: str) -> None:
        shutil.rmtree(self.downloads / path, ignore_errors=True)

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        """What the driver answers; whatever it raises is an OSError, as of a disk (many have errors of their own)."""
        try:
            return getattr(self.filesystem, what)(*arguments, **options)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, str(error), *arguments[:1]) from error  # servers do not say which
        except (OSError, NotImplementedError):
            raise
        except Exception as error:
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def _tag(entry: Mapping[str, Any]) -> str:
    """What an object store changes when a file is written again, by the names that its drivers use."""
    names = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created")
    return next((str(entry[name]) for name in names if entry.get(name) is not None), "")


def _flush(path: Path) -> None:
    """Ask the disk to keep it: a manifest must not survive a power cut that its data did not."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
