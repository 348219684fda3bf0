"""One sweep that nothing happens to, and others to which something does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tally import TRIAL
from trials import LOCAL, SWEEP, Trial
from workspace import Swept, Workspace, places_in


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> tuple[Path, Swept]:
    """The folder and the results of the sweep when nobody interferes. Its checkpoints are there too."""
    with places_in(tmp_path_factory.mktemp("undisturbed"), digits_cache) as workspace:
        ran = workspace.run("sweep", workspace.tiny(**SWEEP), *LOCAL)
        assert ran.code == 0, ran.err
        return workspace.folder, workspace.swept("tiny")


@pytest.fixture
def trial(workspace: Workspace, undisturbed: tuple[Path, Swept], request: pytest.FixtureRequest) -> Trial:
    """A sweep for something to happen to."""
    properties = request.node.user_properties
    return Trial(workspace, *undisturbed, lambda lost, again: properties.append((TRIAL, (lost, again))))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that brings faults about below Python; NOT RUN without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT RUN: no C compiler")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)
