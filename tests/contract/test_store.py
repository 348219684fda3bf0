"""What every store promises, on a disk and in an object store: all or nothing, once, and never wrong bytes."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore
from workspace import Workspace

from ddray.errors import EnvironmentProblem
from ddray.store.artifacts import FORMAT, Artifact, DamagedArtifact, Store
from ddray.store.files import LocalFiles, RemoteFiles
from ddray.store.manifest import NAME, Manifest

KEY = "ab" * 32
OTHER = "cd" * 32
PAYLOAD = {"set.safetensors": b"\x00\x01tensors", "facts.json": b"{}\n"}


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def make(location: str, tmp_path: Path) -> Callable[..., Store]:
    """A view of one store, as another process would have it; ``node`` names the machine."""
    return lambda node="here": Store(location, tmp_path / node)


@pytest.fixture
def store(make: Callable[..., Store]) -> Store:
    return make()


def manifest(key: str = KEY, **other: Any) -> Manifest:
    values: dict[str, Any] = {
        "kind": "distill",
        "version": 1,
        "label": "distill dm digits",
        "config": {"ipc": 1},
        "inputs": {},
        **other,
    }
    return Manifest(key=key, files={}, **values)


def commit(store: Store, key: str = KEY, payload: dict[str, bytes] = PAYLOAD, **other: Any) -> bool:
    with store.writing() as folder:
        for name, content in payload.items():
            (folder / name).write_bytes(content)
        return store.commit(folder, manifest(key, **other))


def content(artifact: Artifact) -> dict[str, bytes]:
    return {name: (artifact.folder / name).read_bytes() for name in artifact.manifest.files}


def tamper(store: Store, key: str, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Change a stored file, or (None) remove it."""
    path = f"artifacts/{key[:2]}/{key}/{name}"
    changed = change(store.files.read(path))
    if changed is None:
        store.files.remove(path)
    else:
        store.files.write(path, changed)


def flip(before: bytes) -> bytes:
    return before[:-1] + bytes([before[-1] ^ 1])


class TestStore:
    """The contract."""

    def test_what_was_committed_is_there_for_everybody(self, make: Callable[..., Store]) -> None:
        assert make().keys() == set()
        assert not make().has(KEY)
        with pytest.raises(KeyError):
            make().open(KEY)
        assert make().stamps() == {}
        assert commit(make(), provenance={"seconds": 1.5})
        other = make("elsewhere")
        assert other.has(KEY)
        assert other.keys() == {KEY}
        assert set(other.stamps()) == {KEY}
        artifact = other.open(KEY)
        assert content(artifact) == PAYLOAD
        assert artifact.manifest.config == {"ipc": 1}
        assert artifact.manifest.provenance == {"seconds": 1.5}
        assert set(artifact.manifest.files) == set(PAYLOAD)

    def test_a_body_that_fails_leaves_nothing(self, store: Store) -> None:
        seen: list[Path] = []

        def write() -> None:
            with store.writing() as folder:
                seen.append(folder)
                (folder / "set.safetensors").write_bytes(b"half")
                raise Killed

        with pytest.raises(Killed):
            write()
        assert not seen[0].exists()
        assert store.keys() == set()

    def test_a_torn_write_is_invisible_and_no_obstacle(
        self, store: Store, make: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The end comes between the data and the manifest."""
        with monkeypatch.context() as patch:
            if isinstance(store.files, LocalFiles):
                patch.setattr("os.rename", _die)
            else:
                assert isinstance(store.files, RemoteFiles)
                put = store.files.filesystem.put_file
                patch.setattr(
                    store.files.filesystem,
                    "put_file",
                    lambda source, target: _die() if target.endswith(NAME) else put(source, target),
                )
            with pytest.raises(Killed):
                commit(store)
        if isinstance(store.files, RemoteFiles):
            written = store.files.names(f"artifacts/{KEY[:2]}/{KEY}")
            assert sorted(written) == sorted(PAYLOAD), "control: the data did get there"
        for view in (store, make("elsewhere")):
            assert not view.has(KEY)
            assert view.keys() == set()
            with pytest.raises(KeyError):
                view.open(KEY)
        assert commit(store)
        assert content(make("elsewhere").open(KEY)) == PAYLOAD

    def test_two_writers_of_one_key(self, make: Callable[..., Store]) -> None:
        """Both hold the same bytes; the second is told that it was there, and leaves nothing behind."""
        one, two = make(), make()
        with one.writing() as first, two.writing() as second:
            for folder in (first, second):
                for name, data in PAYLOAD.items():
                    (folder / name).write_bytes(data)
            assert one.commit(first, manifest(provenance={"who": 1}))
            assert not two.commit(second, manifest(provenance={"who": 2}))
            assert not second.exists()
        assert make("elsewhere").open(KEY).manifest.provenance == {"who": 1}

    def test_many_writers_at_once(self, make: Callable[..., Store]) -> None:
        made: list[bool] = []
        barrier = threading.Barrier(8)

        def write(number: int) -> None:
            store = make()
            with store.writing() as folder:
                for name, data in PAYLOAD.items():
                    (folder / name).write_bytes(data)
                barrier.wait()
                made.append(store.commit(folder, manifest()))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
        # An object store has no exclusive rename: there several may win, each with a whole and equal artifact.
        assert made.count(True) == 1 if isinstance(make().files, LocalFiles) else made.count(True) >= 1
        assert content(make("elsewhere").open(KEY)) == PAYLOAD

    @pytest.mark.parametrize(
        "name, change, reason",
        [
            ("set.safetensors", flip, "set.safetensors differs from its digest"),
            ("set.safetensors", lambda data: data[:-1], "set.safetensors differs from its digest"),
            ("facts.json", lambda _: None, "facts.json is missing"),
            (NAME, lambda data: data[: len(data) // 2], "unreadable manifest"),
            (NAME, lambda _: b"[]", "unreadable manifest"),
            (NAME, lambda data: data.replace(KEY.encode(), OTHER.encode()), "the manifest speaks of cdcd"),
        ],
    )
    def test_damage_is_noticed_put_aside_and_can_be_mended(
        self,
        store: Store,
        make: Callable[..., Store],
        name: str,
        change: Callable[[bytes], bytes | None],
        reason: str,
    ) -> None:
        commit(store)
        commit(store, OTHER)
        stamp = store.stamps()[KEY]
        tamper(store, KEY, name, change)
        if not store.location.startswith("memory://"):
            assert store.stamps().get(KEY) != stamp
        with pytest.raises(DamagedArtifact, match=reason) as damage:
            store.open(KEY)
        assert damage.value.key == KEY
        assert KEY[:12] in str(damage.value)
        assert not store.has(KEY)
        assert store.keys() == {OTHER}
        with pytest.raises(KeyError):
            make("elsewhere").open(KEY)
        (place,) = store.files.names("quarantine")
        assert place.startswith(KEY)
        assert damage.value.quarantine.endswith(place)
        kept = set(store.files.names(f"quarantine/{place}"))
        assert kept >= set(PAYLOAD) - {name}

        assert commit(store)
        for view in (store, make("elsewhere")):
            assert content(view.open(KEY)) == PAYLOAD

    def test_damage_twice_keeps_both(self, store: Store) -> None:
        for _ in range(2):
            commit(store)
            tamper(store, KEY, "facts.json", flip)
            with pytest.raises(DamagedArtifact):
                store.open(KEY)
        assert len(store.files.names("quarantine")) == 2

    def test_a_reader_can_refuse_what_the_digests_accept(self, store: Store) -> None:
        commit(store)
        assert isinstance(store.discard(KEY, "the content is unusable"), DamagedArtifact)
        assert not store.has(KEY)

    def test_failures_are_kept_until_the_stage_succeeds(self, store: Store, make: Callable[..., Store]) -> None:
        assert store.failure(KEY) is None
        store.record_failure(KEY, {"cause": "StageFailure: first", "label": "distill"})
        store.record_failure(KEY, {"cause": "StageFailure: second", "label": "distill"})
        store.record_failure(OTHER, {"cause": "other"})
        failure = make("elsewhere").failure(KEY)
        assert failure is not None
        assert (failure["cause"], failure["key"]) == ("StageFailure: second", KEY)
        assert store.failures() == {KEY, OTHER}
        commit(store)
        assert store.failures() == {OTHER}
        assert store.failure(KEY) is None

    def test_a_newer_store_is_refused(self, store: Store, make: Callable[..., Store]) -> None:
        store.files.write("store.json", json.dumps({"format": FORMAT + 1}).encode())
        with pytest.raises(
            EnvironmentProblem, match=r"written by a newer ddray \(format 2\).*Upgrade ddray"
        ) as problem:
            make()
        assert problem.value.exit_code == 3

    @pytest.mark.parametrize("text", [b"", b"not json", b"[]", b"{}", b'{"format": null}', b'{"format": "x"}'])
    def test_a_store_with_an_unreadable_mark_is_refused(
        self, store: Store, make: Callable[..., Store], text: bytes
    ) -> None:
        store.files.write("store.json", text)
        with pytest.raises(EnvironmentProblem, match=r"store\.json is not readable"):
            make()


def _die(*_: object) -> None:
    raise Killed


# --- on a disk ----------------------------------------------------------------------------------------------------

KILL = """
import os, signal, sys
from pathlib import Path
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest

store = Store(sys.argv[1], Path(sys.argv[1]) / "nothing")
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with store.writing() as folder:
    (folder / "set.safetensors").write_bytes(b"data")
    store.commit(folder, Manifest(key="ab" * 32, kind="distill", version=1, label="", config={}, inputs={}, files={}))
"""


def test_a_process_killed_before_its_rename_leaves_nothing_visible(tmp_path: Path) -> None:
    location = str(tmp_path / "store")
    ended = subprocess.run([sys.executable, "-c", KILL, location], check=False)
    assert ended.returncode == -9
    store = Store(location, tmp_path)
    assert not store.has(KEY)
    assert store.keys() == set()
    assert any((tmp_path / "store" / "tmp").iterdir()), "control: it had begun"
    assert commit(store)
    assert content(store.open(KEY)) == PAYLOAD


def test_a_folder_that_lost_its_manifest_is_damage_and_no_obstacle(tmp_path: Path) -> None:
    """`keys` trusts names, for speed; whoever opens the artifact finds out, and it can be made again."""
    store = Store(str(tmp_path / "store"), tmp_path)
    commit(store)
    folder = store.open(KEY).folder
    (folder / NAME).unlink()
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(DamagedArtifact, match=r"manifest\.json is missing"):
        store.open(KEY)
    assert store.keys() == set()
    shutil.copytree(tmp_path / "copy", folder)
    assert commit(store), "even where nobody opened it first"
    assert content(store.open(KEY)) == PAYLOAD


def test_a_store_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="Set DDRAY_STORE to a writable place"):
        Store(str(tmp_path / "file"), tmp_path)


def test_the_command_line_says_3(workspace: Workspace) -> None:
    path = workspace.tiny()
    workspace.store.files.write("store.json", json.dumps({"format": FORMAT + 1}).encode())
    for command in (("plan", path), ("sweep", path, "--local", "--no-mlflow")):
        ran = workspace.run(*command)
        assert (ran.code, "written by a newer ddray" in ran.err) == (3, True)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    commit(Store(f"file://{tmp_path}/store", tmp_path))
    assert content(Store(str(tmp_path / "store"), tmp_path).open(KEY)) == PAYLOAD


# --- as a URL -----------------------------------------------------------------------------------------------------


def test_a_damaged_download_is_fetched_again(tmp_path: Path) -> None:
    """The copy is bad, not the artifact: nothing goes to quarantine."""
    store = Store(f"memory://{uuid.uuid4().hex}", tmp_path)
    commit(store)
    copy = store.open(KEY).folder / "set.safetensors"
    copy.write_bytes(flip(copy.read_bytes()))
    assert content(store.open(KEY)) == PAYLOAD
    assert store.files.names("quarantine") == []


def test_a_download_older_than_the_artifact_is_fetched_again(tmp_path: Path) -> None:
    """Put aside and computed again elsewhere, on another device: other bytes under the same key, and both right."""
    location = f"memory://{uuid.uuid4().hex}"
    here, there = Store(location, tmp_path / "here"), Store(location, tmp_path / "there")
    commit(here)
    assert content(here.open(KEY)) == PAYLOAD
    there.discard(KEY, "for the test")
    again = {**PAYLOAD, "set.safetensors": b"made elsewhere"}
    assert commit(there, payload=again)
    assert content(here.open(KEY)) == again
    assert len(here.files.names("quarantine")) == 1, "only what the test put there"


@pytest.mark.parametrize("location", ["nosuchprotocol://bucket/x", "abfs://bucket/x"])
def test_a_url_without_a_driver_names_the_remedy(location: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"Install the protocol's fsspec driver"):
        Store(location, tmp_path)


def test_a_server_that_does_not_answer_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers have errors of their own, which are not the system's."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("DDRAY_STORE", "s3://bucket/store")
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(variable, "x")
        monkeypatch.setattr("s3fs.S3FileSystem.cachable", False)
        ran = workspace.run("sweep", workspace.tiny(), "--local", "--no-mlflow")
    assert ran.code == 3, ran.err
    assert "store s3://bucket/store: cannot be read or written; got" in ran.err
    assert "Traceback" not in ran.err


def test_a_bucket_that_is_not_there_is_named(
    workspace: Workspace, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDRAY_STORE", "s3://nowhere/store")
    ran = workspace.run("sweep", workspace.tiny(), "--local", "--no-mlflow")
    assert ran.code == 3, ran.err
    assert "store s3://nowhere/store: cannot be read or written; got" in ran.err


def test_damage_travels_between_processes() -> None:
    damage = DamagedArtifact(KEY, "reason", "place")
    copy = pickle.loads(pickle.dumps(damage))
    assert (copy.key, copy.reason, copy.quarantine, str(copy)) == (KEY, "reason", "place", str(damage))
