"""What an artifact says of itself: configuration, inputs, file digests, and how it came to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = "manifest.json"


class BrokenManifest(ValueError):
    """The file is not a manifest that this version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``. Everything above ``provenance`` determines or checks the payload."""

    key: str
    kind: str
    version: int
    label: str
    """For people: ``distill dm cifar10 ipc=10``."""
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    """File name -> ``{"sha256": …, "bytes": …}`` of every payload file."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Commit, versions, device, numerics class, seconds, peak memory: not part of the key."""

    def dumps(self) -> bytes:
        return (json.dumps(asdict(self), sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def loads(cls, content: bytes) -> Manifest:
        try:
            manifest = cls(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise BrokenManifest(str(error)) from error
        for name, kind in _KINDS.items():
            if not isinstance(getattr(manifest, name), kind):
                raise BrokenManifest(f"{name} is of another kind")
        if not all(isinstance(key, str) for key in manifest.inputs.values()):
            raise BrokenManifest("inputs are no keys")
        if not all(
            isinstance(entry, dict) and entry.keys() >= {"sha256", "bytes"} for entry in manifest.files.values()
        ):
            raise BrokenManifest("files are without digests")
        return manifest


_KINDS = {
    **dict.fromkeys(("key", "kind", "label"), str),
    "version": int,
    **dict.fromkeys(("config", "inputs", "files", "provenance"), dict),
}
"""Of the fields, as JSON has them."""


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of the named files of a folder."""
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(names)}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
