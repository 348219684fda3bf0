"""One home with results, for everything here that looks at some."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import SWEEPS, run


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the first point of the quickstart was computed."""
    home = tmp_path_factory.mktemp("newcomer") / "home"
    (quickstart,) = (path for path in SWEEPS if path.stem == "quickstart")
    ran = run("sweep", quickstart, "--limit", 1, "--local", "--no-mlflow", "--quiet", home=home)
    assert ran.returncode == 0, ran.stderr
    return home
