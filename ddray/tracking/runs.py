"""Runs that MLflow has, by their tag ``ddray.point``, and where it keeps them."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ddray.settings import Folders

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where MLflow keeps runs: in a database of ours below home, or where an address says."""

    database: Path | None
    """Ours; None: the runs are with a server, or in a database of others."""
    artifacts: Path | None
    """Likewise; None: where the server puts them."""
    address: str = ""
    """Of others' MLflow; may hold a password."""

    @classmethod
    def of(cls, folders: Folders) -> Place:
        """The one that is in force."""
        if folders.tracking:
            return cls(None, None, folders.tracking)
        return cls(folders.mlflow_database, folders.mlflow_artifacts)

    @property
    def uri(self) -> str:
        """As MLflow's client takes it."""
        return tracking_uri(self.database) if self.database is not None else self.address

    def __str__(self) -> str:
        """For people and files: without name and password."""
        if self.database is not None:
            return str(self.database)
        return re.sub(r"//[^/@]*@", "//", self.address)


def tracking_uri(database: Path) -> str:
    """The address of a database of ours: an SQLite address in which the path is quoted, whatever characters it has.

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


def experiments(database: Path) -> dict[str, str]:
    """Names and numbers of our experiments, read directly: importing MLflow takes seconds. Empty where that fails."""
    query = "SELECT name, experiment_id FROM experiments WHERE name LIKE 'ddray/%' AND lifecycle_stage = 'active'"
    try:
        with contextlib.closing(read_only(database)) as connection:
            return {str(name): str(number) for name, number in connection.execute(query + " ORDER BY name")}
    except sqlite3.Error as error:
        log.debug("%s: %s", database, error)
        return {}


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
