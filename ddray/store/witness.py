"""A file by which processes on different machines find out that they see the same store, both ways."""

from __future__ import annotations

import contextlib
import uuid

from ddray.store.files import Files, LocalFiles

FOLDER = "witnesses"


class Witness:
    """A secret that one process writes into the store; whoever can read it writes it back under his own name."""

    def __init__(self, files: Files, name: str = "", secret: str = "") -> None:
        """Of a name and secret that another process has said, or new ones."""
        self.files = files
        self.name = name or uuid.uuid4().hex
        self.secret = secret or uuid.uuid4().hex

    def write(self) -> None:
        """Say the secret in the store."""
        self.files.write(self._path("asked"), self.secret.encode())

    def answer(self, who: str) -> str:
        """Read the secret and write it back; why this is not possible, or ""."""
        try:
            if self.files.read(self._path("asked")).decode(errors="replace") != self.secret:
                return f"{self._path('asked')} is there with another content"
        except FileNotFoundError:
            return f"no file {self._path('asked')} there"
        except OSError as error:
            return f"an error of reading: {error}"
        try:
            self.files.write(self._path(who), self.secret.encode())
        except OSError as error:
            return f"an error of writing: {error}"
        return ""

    def answered(self, who: str) -> bool:
        """Whether an answer of that name is there."""
        with contextlib.suppress(OSError):
            # By the listing: a network file system remembers for a while that a file was not there.
            if isinstance(self.files, LocalFiles) and who not in self.files.names(self._folder):
                return False
            return self.files.read(self._path(who)) == self.secret.encode()
        return False

    def remove(self) -> None:
        """Take secret and answers away."""
        with contextlib.suppress(OSError):
            self.files.remove(self._folder)

    @property
    def _folder(self) -> str:
        return f"{FOLDER}/{self.name}"

    def _path(self, who: str) -> str:
        return f"{self._folder}/{who}"
