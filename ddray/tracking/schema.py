"""Whether the installed MLflow can use a database, found out without importing it."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sqlite3
from pathlib import Path

from ddray.errors import EnvironmentProblem
from ddray.tracking.runs import read_only

_REVISION = re.compile(r"""^(down_)?revision\b[^=\n]*=\s*["']([0-9a-f]+)["']""", re.MULTILINE)
REMEDY = "Delete the file and mirror again (ddray collect SWEEP --mlflow): everything in it is rebuilt from the store."


def check_schema(database: Path) -> None:
    """Refuse a database that another version of MLflow wrote, or another program.

    Raises:
        EnvironmentProblem: The installed MLflow would end with a traceback on it.
    """
    if not database.exists():
        return
    try:
        with contextlib.closing(read_only(database)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = [str(version) for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise EnvironmentProblem(
                f"{database}: cannot be read; got {error}. End what holds it, or check the permissions of its folder."
            ) from error
        if tables:
            raise EnvironmentProblem(
                f"{database}: not a database of MLflow; got tables {', '.join(sorted(tables)[:6])}. {REMEDY}"
            ) from None
        return
    except sqlite3.Error as error:
        raise EnvironmentProblem(f"{database}: not a database; got {error}. {REMEDY}") from error
    newest = _newest()
    if newest and found != newest:
        raise EnvironmentProblem(
            f"{database}: was written by another version of MLflow; got schema {', '.join(found) or 'none'}; expected "
            f"{', '.join(newest)}, which the installed one writes. Install the MLflow that wrote it. Or: {REMEDY}"
        )


def _newest() -> list[str]:
    """The schema that the installed MLflow writes; nothing where its files are not where they have been."""
    known: set[str] = set()
    former: set[str] = set()
    try:
        package = importlib.util.find_spec("mlflow")
        folders = package.submodule_search_locations if package is not None else None
        for folder in folders or ():
            for path in (Path(folder) / "store" / "db_migrations" / "versions").glob("*.py"):
                for before, revision in _REVISION.findall(path.read_text(encoding="utf-8")):
                    (former if before else known).add(revision)
    except (OSError, ValueError):
        return []
    return sorted(known - former)
