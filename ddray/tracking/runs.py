"""Runs that MLflow has, by their tag ``ddray.point``, and the address of its database."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)

POINT, DIGEST, PLANNED = "ddray.point", "ddray.digest", "ddray.planned"
"""Tags of a run: its point, what it holds, and whether the sweep still plans it."""
REPORT = "report"
"""In place of a point: the run that holds the sweep's report."""
DRIVER = "sqlite+pysqlite"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that exists."""

    id: str
    digest: str | None
    planned: bool


def tracking_uri(database: Path) -> str:
    """Where MLflow keeps its runs: an SQLite address in which the path is quoted, whatever characters it has.

    With the driver's name, because MLflow takes what follows a plain ``sqlite:///`` for a path and makes its folders.
    """
    from sqlalchemy.engine import make_url

    path = str(database.absolute())
    quoted = quote(path)
    if make_url(f"{DRIVER}:///{quoted}").database == path:
        return f"{DRIVER}:///{quoted}"
    return f"{DRIVER}:///file:{quoted}?uri=true"  # SQLAlchemy before 2.1 takes paths as they stand; SQLite unquotes


def read_only(database: Path) -> sqlite3.Connection:
    """A connection that neither makes nor changes the database."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=20)


def existing_runs(database: Path, experiment: str) -> dict[str, list[Run]] | None:
    """Runs by point, read straight from the tags: a thousand in milliseconds, where the client takes seconds.

    Returns:
        None when there is no such database, or its tables are not the ones we know; ask the client then.
    """
    if not database.exists():
        return None
    query = """
        SELECT tags.run_uuid, tags.key, tags.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid
        JOIN experiments ON experiments.experiment_id = runs.experiment_id
        WHERE experiments.name = ? AND runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
        AND tags.key IN (?, ?, ?)
    """
    tags: dict[str, dict[str, str]] = {}
    try:
        with contextlib.closing(read_only(database)) as connection:
            for run, key, value in connection.execute(query, (experiment, POINT, DIGEST, PLANNED)):
                tags.setdefault(run, {})[key] = value
    except sqlite3.Error as error:
        log.debug("%s: %s", database, error)
        return None
    runs: dict[str, list[Run]] = {}
    for run, by_name in sorted(tags.items()):
        if POINT in by_name:
            entry = Run(run, by_name.get(DIGEST), by_name.get(PLANNED) != "false")
            runs.setdefault(by_name[POINT], []).append(entry)
    return runs
