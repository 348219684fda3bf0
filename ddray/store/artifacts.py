"""The store: finished stages by key. A stage is done when its manifest exists."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ddray.errors import EnvironmentProblem
from ddray.store.checkpoints import Checkpoints
from ddray.store.claims import Claim
from ddray.store.files import Files, LocalFiles, RemoteFiles
from ddray.store.manifest import NAME, BrokenManifest, Manifest, digest_files, sha256
from ddray.store.witness import FOLDER as WITNESSES

Content = TypeVar("Content")

SCRATCH_SECONDS = 86400.0
WITNESS_SECONDS = 100 * 86400.0
"""A witness is asked as long as its sweep runs."""
READ_AGAIN_SECONDS = (0.1, 1.0)
"""Pauses before a read that failed is tried again: a network file system hiccups, and an artifact is not to blame."""
FORMAT = 1
"""Raised when the layout changes; an older ddray refuses a newer store instead of misreading it."""


class DamagedArtifact(Exception):
    """An artifact's files do not match its manifest. It was moved to quarantine; its key is to be computed again."""

    def __init__(self, key: str, reason: str, quarantine: str) -> None:
        super().__init__(f"artifact {key[:12]} is damaged ({reason}); moved to {quarantine}, to be computed again")
        self.key = key
        self.reason = reason
        self.quarantine = quarantine

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.key, self.reason, self.quarantine)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified, committed payload folder."""

    folder: Path
    manifest: Manifest


class Store:
    """A store at a path or URL. Cheap to make; holds no open files, so every process makes its own."""

    def __init__(self, location: str, downloads: Path) -> None:
        """Open or create the store.

        Args:
            location: Folder or URL.
            downloads: Local folder where files of a URL store are kept.

        Raises:
            EnvironmentProblem: Not writable, or written by a newer version.
        """
        self.location = location.removeprefix("file://")
        self.files: Files = files_at(location, downloads)
        self._check_format()

    # --- artifacts ---------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Whether the stage is done."""
        return self.files.exists(f"{_at(key)}/{NAME}")

    def keys(self) -> set[str]:
        """Keys of all finished stages."""
        if not isinstance(self.files, LocalFiles):
            return set(self.stamps())
        # Committed by one rename: the folder exists only with its manifest.
        return {name for shard in self.files.names("artifacts") for name in self.files.names(f"artifacts/{shard}")}

    def stamps(self) -> dict[str, str]:
        """A cheap fingerprint of each finished artifact, from one listing: names, sizes and times or tags of its files.

        It notices what was changed, cut short or replaced without reading the data; ``open`` notices everything.
        """
        files: dict[str, dict[str, str]] = {}
        for path, fingerprint in self.files.tree("artifacts").items():
            _, key, name = path.split("/", 2) if path.count("/") >= 2 else ("", "", "")
            files.setdefault(key, {})[name] = fingerprint
        return {
            key: ";".join(f"{name}:{of_key[name]}" for name in sorted(of_key))
            for key, of_key in files.items()
            if NAME in of_key
        }

    def manifest(self, key: str) -> Manifest:
        """The manifest alone, unverified files.

        Raises:
            KeyError: The stage is not done.
            DamagedArtifact: The manifest cannot be read.
        """
        try:
            manifest = Manifest.loads(self._patiently(key, lambda: self.files.read(f"{_at(key)}/{NAME}")))
        except FileNotFoundError:
            # On a disk one rename commits a folder, so one without its manifest was damaged; an object store's may be
            # a commit that is under way.
            if isinstance(self.files, LocalFiles) and self.files.exists(_at(key)):
                raise self._quarantine(key, f"{NAME} is missing") from None
            raise KeyError(key) from None
        except BrokenManifest as error:
            raise self._quarantine(key, f"unreadable manifest: {error}") from error
        if manifest.key != key:
            raise self._quarantine(key, f"the manifest speaks of {manifest.key[:12]}")
        return manifest

    def open(self, key: str) -> Artifact:
        """The artifact, every file checked against its digest.

        Raises:
            KeyError: The stage is not done.
            DamagedArtifact: A file is missing or differs; the artifact was moved to quarantine.
        """
        manifest = self.manifest(key)
        return Artifact(self._checked(key, manifest.files), manifest)

    def file(self, key: str, name: str, entry: Mapping[str, Any]) -> Path:
        """One file of an artifact, checked against its entry in the manifest; no other is fetched or read.

        Raises:
            KeyError: The stage is not done.
            DamagedArtifact: The file is missing or differs; the artifact was moved to quarantine.
        """
        if not self.has(key):
            raise KeyError(key)
        return self._checked(key, {name: entry}) / name

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A scratch folder for a payload; removed if the body fails. Pass it to ``commit``."""
        folder = self.files.scratch()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, manifest: Manifest) -> bool:
        """Make a prepared payload exist, data first, manifest last.

        Args:
            folder: From ``writing``; holds the payload files.
            manifest: Its ``files`` are filled in here.

        Returns:
            False if another process had committed the same key meanwhile; ours is discarded.
        """
        digests = digest_files(folder, (path.name for path in folder.iterdir()))
        complete = Manifest(**{**_fields(manifest), "files": digests})
        (folder / NAME).write_bytes(complete.dumps())
        made = self.files.commit(folder, _at(manifest.key), NAME)
        self.files.remove(_failure(manifest.key))
        return made

    def discard(self, key: str, reason: str) -> DamagedArtifact:
        """Move an artifact out of the way because a reader found its content unusable."""
        return self._quarantine(key, reason)

    # --- failures, checkpoints, claims ---------------------------------------------------------------------------

    def record_failure(self, key: str, failure: Mapping[str, Any]) -> None:
        """Keep why a stage failed (``cause``, ``traceback``, ``label``, ``config``, …) until it succeeds."""
        content = json.dumps({**failure, "key": key, "at": time.time()}, sort_keys=True, indent=1)
        self.files.write(_failure(key), content.encode())

    def failure(self, key: str) -> dict[str, Any] | None:
        """What was recorded, or None; of a record that was cut short or is of another shape, that it is."""
        try:
            failure = json.loads(self.files.read(_failure(key)))
        except FileNotFoundError:
            return None
        except ValueError:
            failure = None
        kinds = {"label": str, "cause": str, "kind": str, "traceback": str, "config": dict, "inputs": dict, "at": float}
        if not isinstance(failure, dict) or not isinstance(failure.get("cause"), str):
            failure = {"cause": "its record cannot be read; run its sweep again"}
        readable = {name: value for name, value in failure.items() if isinstance(value, kinds.get(name, object))}
        return {"label": key[:12], "traceback": "", **readable}

    def forget_failure(self, key: str) -> None:
        """Remove the record of a failure: the stage is tried again."""
        self.files.remove(_failure(key))

    def failures(self) -> set[str]:
        """Keys with a recorded failure."""
        return {name.removesuffix(".json") for name in self.files.names("failures") if name.endswith(".json")}

    def checkpoints(self, lineage: str) -> Checkpoints:
        """Unfinished states of the stages that share a lineage."""
        return Checkpoints(self.files, lineage)

    def checkpointed(self) -> dict[str, list[int]]:
        """Lineage -> iterations of its checkpoints, from one listing."""
        found: dict[str, set[int]] = {}
        for path in self.files.tree("checkpoints"):
            _, lineage, iteration, *_ = (*path.split("/"), "", "")
            if iteration.isdigit():
                found.setdefault(lineage, set()).add(int(iteration))
        return {lineage: sorted(iterations) for lineage, iterations in found.items()}

    def claim(self, key: str) -> Claim:
        """A claim on computing a stage; see ``claims.py``."""
        return Claim(self.files, key)

    def hint(self, name: str) -> bytes | None:
        """What was kept under a name by ``keep_hint``; None where there is nothing, or nothing that can be read."""
        with contextlib.suppress(OSError):
            return self.files.read(f"hints/{name}")
        return None

    def keep_hint(self, name: str, content: bytes) -> None:
        """Keep what spares work later and is never needed: nothing happens where it cannot be written."""
        with contextlib.suppress(OSError):
            self.files.write(f"hints/{name}", content)

    def tidy(self) -> None:
        """Remove what killed processes left behind, once none can be at work on it."""
        if not isinstance(self.files, LocalFiles):
            return
        for folder, seconds in (("tmp", SCRATCH_SECONDS), (WITNESSES, WITNESS_SECONDS)):
            for name in self.files.names(folder):
                with contextlib.suppress(OSError):
                    if time.time() - (self.files.root / folder / name).stat().st_mtime > seconds:
                        self.files.remove(f"{folder}/{name}")

    # --- inside --------------------------------------------------------------------------------------------------

    def _checked(self, key: str, files: Mapping[str, Mapping[str, Any]]) -> Path:
        """A local folder that holds the files of an artifact, checked against their digests."""
        damaged = self._patiently(key, lambda: self._damage(key, files))
        if damaged and not isinstance(self.files, LocalFiles):
            # The download may be damaged, or older than the artifact: take a new one before judging the original.
            self.files.forget(_at(key))
            damaged = self._patiently(key, lambda: self._damage(key, files))
        if damaged:
            raise self._quarantine(key, damaged)
        return self.files.fetch(_at(key), sorted(files))

    def _damage(self, key: str, files: Mapping[str, Mapping[str, Any]]) -> str:
        """What is wrong with files of an artifact, "" when nothing is."""
        try:
            folder = self.files.fetch(_at(key), sorted(files))
            for name, expected in files.items():
                path = folder / name
                if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
                    return f"{name} differs from its digest"
        except FileNotFoundError as error:
            return f"{Path(str(error.filename or error)).name} is missing"
        except (KeyError, TypeError):
            return "its manifest holds no digests"
        return ""

    def _quarantine(self, key: str, reason: str) -> DamagedArtifact:
        place = f"quarantine/{key}-{time.time_ns()}"
        try:
            self.files.move(_at(key), place)
        except OSError as error:
            raise EnvironmentProblem(
                f"store {self.location}: artifact {key[:12]} is damaged ({reason}) and cannot be moved away; got "
                f"{error}. Make the store writable, or set DDRAY_STORE to another place."
            ) from error
        self.files.forget(_at(key))
        return DamagedArtifact(key, reason, f"{self.location}/{place}")

    def _patiently(self, key: str, read: Callable[[], Content]) -> Content:
        """What a read gives; an error of reading is tried again, then told, and never taken for damage."""
        for pause in (*READ_AGAIN_SECONDS, None):
            try:
                return read()
            except FileNotFoundError:
                raise
            except OSError as error:
                if pause is None:
                    raise EnvironmentProblem(
                        f"store {self.location}: artifact {key[:12]} cannot be read; got {error} in "
                        f"{len(READ_AGAIN_SECONDS) + 1} tries. Look at the disk or the network; nothing was moved away."
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _check_format(self) -> None:
        try:
            try:
                version = int(json.loads(self.files.read("store.json"))["format"])
            except FileNotFoundError:
                self.files.write("store.json", json.dumps({"format": FORMAT}).encode())
                version = FORMAT
        except OSError as error:
            raise EnvironmentProblem(
                f"store {self.location}: cannot be read or written; got {error}. Set DDRAY_STORE to a writable place."
            ) from error
        except (ValueError, KeyError, TypeError):
            raise EnvironmentProblem(
                f'store {self.location}: store.json is not readable; expected {{"format": {FORMAT}}}. '
                "Restore the file, or set DDRAY_STORE to another place."
            ) from None
        if version > FORMAT:
            raise EnvironmentProblem(
                f"store {self.location}: written by a newer ddray (format {version}); this one reads format {FORMAT}. "
                "Upgrade ddray, or set DDRAY_STORE to another place."
            )


def files_at(location: str, downloads: Path) -> Files:
    """The files of a store, whatever they are; nothing is read or written yet.

    Args:
        location: Folder or URL.
        downloads: Local folder where files of a URL store are kept.

    Raises:
        EnvironmentProblem: There is no driver for the URL.
    """
    location = location.removeprefix("file://")
    if "://" not in location:
        return LocalFiles(Path(location))
    try:
        return RemoteFiles(location, downloads)
    except (ImportError, ValueError) as error:  # no driver for the protocol, or no such protocol
        raise EnvironmentProblem(
            f"store {location}: cannot be opened; got {error}. Install the protocol's fsspec driver "
            "(for s3://: pip install 'ddray[s3]'), or set DDRAY_STORE to a folder."
        ) from error


def _at(key: str) -> str:
    return f"artifacts/{key[:2]}/{key}"


def _failure(key: str) -> str:
    return f"failures/{key}.json"


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
