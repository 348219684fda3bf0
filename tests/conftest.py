"""Every test gets places of its own; what is expensive and never changes is made once."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from clusters import Grown
from filelock import FileLock
from object_store import ObjectStore
from tally import Tally
from workspace import SHARING, Swept, Workspace, places_in

BESIDE = 3
"""Files of short tests between two of long ones."""

# A shared machine makes single examples slow; the suite's own timeout catches what hangs. Where a change is judged the
# examples are always the same: what a new one finds is not its fault.
hypothesis.settings.register_profile("ddray", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("ddray")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tally(), "tally")
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup; commands that tests start would inherit it
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with whole sweeps among those of short tests: they wait much, and two processes at them wait for each
    other."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    long = [path for path in files if path.parent.name in ("contract", "pipeline")]
    short = [path for path in files if path.parent.name not in ("contract", "pipeline")]
    order: list[Path] = []
    for number, path in enumerate(long):
        order += [path, *short[number * BESIDE : (number + 1) * BESIDE]]
    order += short[len(long) * BESIDE :]
    items[:] = [item for path in order for item in files[path]]


@pytest.fixture(autouse=True)
def private_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or leaves anything outside its own folder, nor joins a Ray that runs already."""
    monkeypatch.setenv("DDRAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DDRAY_STORE", str(tmp_path / "home" / "store"))
    monkeypatch.setenv("DDRAY_CACHE", str(tmp_path / "home" / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(autouse=True)
def alone() -> None:
    """What an earlier test left is not this one's: threads (on busy cores a second one makes tiny tensors wait for it),
    and how far the global generator has come, on which a test's made-up images would depend."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDRAY_CACHE that holds the decoded digits."""
    from trainables.data.cache import build

    cache = tmp_path_factory.mktemp("cache")
    build("digits", None, None, cache / "nothing", cache)
    return cache


@pytest.fixture
def workspace(tmp_path: Path, digits_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Somewhere to run sweeps of the digits."""
    monkeypatch.delenv("DDRAY_DATA", raising=False)
    shutil.copytree(digits_cache, Path(os.environ["DDRAY_CACHE"]))
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """An S3-compatible server."""
    with ObjectStore().serving() as server:
        yield server


@pytest.fixture(params=["folder", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be: on a disk, in a file system of fsspec, at a server."""
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/store"
    server: ObjectStore = request.getfixturevalue("s3")
    return server.location()


@pytest.fixture(scope="session")
def ray_folder(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Path:
    """Where a sweep ran on a Ray with one logical GPU, whose jobs ask for a half or a quarter of it; what it said
    stands in ``said.txt``. Once for all of the suite's processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "on-ray"
    with FileLock(f"{folder}.lock"):
        if not (folder / "said.txt").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a test process that died in here
            with places_in(folder, digits_cache) as workspace:
                path = workspace.write("sharing", SHARING)
                ran = workspace.spawn("sweep", path, "--cpus", "4", "--gpus", "1", "--no-mlflow", "--mps")
                assert ran.code == 1, ran.err
                assert "5 of 6 points done, 1 failed" in ran.err
            (folder / "said.txt").write_text(ran.err)
    return folder


@pytest.fixture(scope="session")
def on_ray(ray_folder: Path, digits_cache: Path) -> Swept:
    """What came of it."""
    with places_in(ray_folder, digits_cache) as workspace:
        return workspace.swept("sharing")


@pytest.fixture
def grown() -> Iterator[Grown]:
    """A cluster without nodes, for a test to let it grow."""
    made = Grown()
    try:
        yield made
    finally:
        made.cluster.shutdown()
