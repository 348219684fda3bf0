"""The parts of a store: file operations that readers cannot catch half-way, manifests that say why they are broken."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.store.files import Files, LocalFiles, RemoteFiles
from ddray.store.manifest import BrokenManifest, Manifest, digest_files, sha256


@pytest.fixture
def files(location: str, tmp_path: Path) -> Files:
    return RemoteFiles(location, tmp_path / "downloads") if "://" in location else LocalFiles(Path(location))


def test_write_replaces_and_create_does_not(files: Files) -> None:
    with pytest.raises(FileNotFoundError):
        files.read("a/b.json")
    files.write("a/b.json", b"one")
    files.write("a/b.json", b"two")
    assert files.read("a/b.json") == b"two"
    assert not files.create("a/b.json", b"three")
    assert files.read("a/b.json") == b"two"
    assert files.create("a/c.json", b"three")
    assert files.names("a") == ["b.json", "c.json"], "no temporary files are left"
    assert files.names("nowhere") == []
    assert files.exists("a")
    assert files.exists("a/b.json")
    assert not files.exists("a/d.json")


def test_remove_takes_files_folders_and_nothing(files: Files) -> None:
    files.write("a/b.json", b"")
    files.write("a/c/d.json", b"")
    files.remove("a/b.json")
    assert files.names("a") == ["c"]
    files.remove("a")
    assert not files.exists("a/c/d.json")
    files.remove("a")


def test_move_takes_a_folder_and_forgives_that_it_is_gone(files: Files) -> None:
    files.write("a/manifest.json", b"1")
    files.write("a/data", b"2")
    files.move("a", "b/c")
    assert (files.read("b/c/manifest.json"), files.read("b/c/data")) == (b"1", b"2")
    assert not files.exists("a/manifest.json")
    files.move("a", "b/d")
    assert not files.exists("b/d/data")


def test_commit_makes_a_folder_of_the_prepared_one(files: Files) -> None:
    for expected in (True, False):
        scratch = files.scratch()
        assert list(scratch.iterdir()) == []
        (scratch / "data").write_bytes(b"data")
        (scratch / "last").write_bytes(b"last")
        assert files.commit(scratch, "x/y", "last") is expected
        assert not scratch.exists()
    folder = files.fetch("x/y", ["data", "last"])
    assert (folder / "data").read_bytes() == b"data"
    with pytest.raises(FileNotFoundError):
        (files.fetch("x/y", ["nothing"]) / "nothing").read_bytes()


def test_readers_see_the_old_or_the_new_and_never_a_part(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    old, new = b"a" * 200_000, b"b" * 200_000
    files.write("x", old)
    over = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not over.is_set():
            seen.add(files.read("x"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        files.write("x", new if number % 2 else old)
    over.set()
    reader.join()
    assert seen <= {old, new}


def test_only_one_of_many_creates(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    for number in range(20):
        made: list[bool] = []
        barrier = threading.Barrier(6)

        def create(number: int = number, made: list[bool] = made, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            made.append(files.create(f"claims/{number}", b"mine"))

        threads = [threading.Thread(target=create) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [False] * 5 + [True]


WORDS = st.text("abc:=", max_size=5)


@given(st.dictionaries(WORDS, st.integers() | WORDS | st.lists(WORDS)), st.dictionaries(WORDS, WORDS))
def test_manifests_survive_the_disk(config: dict[str, object], inputs: dict[str, str]) -> None:
    manifest = Manifest(
        key="k",
        kind="train",
        version=2,
        label="train x",
        config=config,
        inputs=inputs,
        files={"a": {"sha256": "0", "bytes": 1}},
        provenance={"seconds": 0.5},
    )
    assert Manifest.loads(manifest.dumps()) == manifest
    assert manifest.dumps().endswith(b"\n")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", json.dumps({"key": "k"}).encode(), b"\xff\xfe"])
def test_a_broken_manifest_is_called_so(content: bytes) -> None:
    with pytest.raises(BrokenManifest):
        Manifest.loads(content)


def test_a_manifest_of_a_newer_version_is_not_misread() -> None:
    known = json.loads(Manifest(key="k", kind="train", version=1, label="", config={}, inputs={}, files={}).dumps())
    with pytest.raises(BrokenManifest, match="unheard_of"):
        Manifest.loads(json.dumps({**known, "unheard_of": 1}).encode())


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "abc").write_bytes(b"abc")
    found = digest_files(tmp_path, ["empty", "abc"])
    assert list(found) == ["abc", "empty"]
    # FIPS 180-2, appendix B.1, and the digest of nothing
    assert found["abc"] == {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "bytes": 3}
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
