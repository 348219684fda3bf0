"""Files and folders that appear whole: written beside their target, then renamed onto it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write a file or a folder to; it takes the target's place when the block ends.

    A reader sees the old content or the new, never a part: both lie on one file system, where a rename is atomic (a
    folder's old content is removed just before, so for a moment a reader may find no folder). When the block raises,
    the target stays as it is and nothing is left beside it.

    Args:
        target: File or folder; the folder that holds it is created.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The process alone is no name: two threads of one driver may write the same file.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if temporary.is_dir():
            shutil.rmtree(target, ignore_errors=True)  # a folder is renamed onto nothing or not at all
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
