"""Files that ddray wrote and that were cut short or replaced: read as far as they can be, built again, or named.

Never a traceback, and what is finished is not computed again. A file is spoilt in every way at a time, then mended by
the command that its message names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from workspace import Ran, Workspace, places_in

from trainables.configs import NetworkConfig
from trainables.models.network import build
from trainables.networks import parse

SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-3],
    "no text": lambda content: b"\xff\xfe" + content,
    "list": lambda _: b"[]",
    "null": lambda _: b"null",
    "number": lambda _: b"7",
    "text": lambda _: b'"text"',
    "nothing in it": lambda _: b"{}",
    "every value null": lambda content: _every(content, None),
    "every value a number": lambda content: _every(content, 7),
    "every value a list": lambda content: _every(content, []),
    "every value a text": lambda content: _every(content, "text"),
    "every value a mapping": lambda content: _every(content, {"x": None}),
}


def _every(content: bytes, value: Any) -> bytes:
    return json.dumps(dict.fromkeys(json.loads(content), value)).encode()


def _each(content: bytes) -> Iterator[bytes]:
    """The content spoilt in every way, and with one value of another kind at a time."""
    for spoil in SPOILT.values():
        yield spoil(content)
    whole = json.loads(content)
    for name, value in whole.items():
        for other in (None, [], "text", 7, {"x": None}):
            if type(value) is not type(other):
                yield json.dumps({**whole, name: other}).encode()
        yield json.dumps({key: entry for key, entry in whole.items() if key != name}).encode()


def told(ran: Ran) -> None:
    """An end that a person can read."""
    assert ran.code in (0, 1, 2, 3), ran.err
    assert "Traceback" not in ran.err, ran.err
    assert not ran.code or ran.err.strip(), "why it is not 0 is said"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Iterator[Path]:
    """A sweep whose DM fails, an evaluation of a network, and the checkpoints of a sweep that goes on."""
    with places_in(tmp_path_factory.mktemp("own"), digits_cache) as workspace:
        path = workspace.tiny(diverges=True)
        assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 1
        network = NetworkConfig.of(parse("convnet3-w8"), image_size=8, channels=1, num_classes=10)
        torch.save(build(network, "a test").state_dict(), workspace.folder / "net.pt")
        arguments = ["--dataset", "digits", "--architecture", "convnet3-w8", "--normalisation", "digits"]
        arguments += ["--robustness", "none", "--local", "--no-mlflow", "--name", "net"]
        assert workspace.run("evaluate", "--model", workspace.folder / "net.pt", *arguments).code == 0
        yield workspace.folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of it, at its own place."""
    for name in ("home", "store"):
        shutil.copytree(finished / name, tmp_path / name)
    for name in ("HOME", "STORE", "CACHE"):
        monkeypatch.setenv(f"DDRAY_{name}", str((tmp_path if name != "CACHE" else finished) / name.lower()))
    return Workspace(tmp_path)


@pytest.mark.parametrize("name", ["coverage.json", "state.json", "sweep.json"])
def test_tables_are_built_again_or_the_command_that_does_it_is_named(
    workspace: Workspace, finished: Path, name: str
) -> None:
    sweep, file = finished / "tiny.yaml", workspace.results("tiny").folder / name
    before, whole = workspace.manifests(), file.read_bytes()
    for content in _each(whole):
        file.write_bytes(content)
        for command in ("report", "status"):
            told(workspace.run(command, "tiny"))
    for spoilt in (b"", b"[]", whole[:20], _every(whole, "text")):
        file.write_bytes(spoilt)
        ran = workspace.run("sweep", sweep, "--local", "--no-mlflow")
        assert ran.code == 1, "DM fails as before"
        told(ran)
        assert workspace.run("report", "tiny").code == 0
        if name != "state.json":
            assert json.loads(file.read_bytes()) == json.loads(whole)
    told(workspace.run("collect", sweep))
    assert {key: workspace.manifests()[key] for key in before} == before, "nothing finished was computed again"


def test_an_evaluation_is_named(workspace: Workspace) -> None:
    file = workspace.results("net").folder / "evaluate.json"
    (workspace.results("net").folder / "sweep.json").write_text(
        json.dumps({"path": str(file), "sets": [], "profiles": []})
    )
    assert workspace.run("report", "net").code == 0  # control
    for content in _each(file.read_bytes()):
        file.write_bytes(content)
        for command in ("report", "status", "collect"):
            told(workspace.run(command, "net"))
    file.write_bytes(b"[]")
    ran = workspace.run("report", "net")
    assert ran.code == 2
    assert "not an evaluation" in ran.err
    assert "Run it again under another --name" in ran.err


def test_failures_claims_and_manifests_are_shown_as_far_as_they_can_be(workspace: Workspace, finished: Path) -> None:
    (failed,) = workspace.store.failures()
    record = Path(workspace.folders.store) / "failures" / f"{failed}.json"
    claim = Path(workspace.folders.store) / "claims" / f"{failed}.json"
    claim.parent.mkdir(exist_ok=True)
    held = json.dumps({"host": "there", "pid": 1, "heartbeat": 1.0, "token": "x"}).encode()
    for file, whole in ((record, record.read_bytes()), (claim, held)):
        for content in _each(whole):
            file.write_bytes(content)
            told(workspace.run("show", failed[:12]))
        file.write_bytes(b"[]")
        told(workspace.run("collect", finished / "tiny.yaml"))
        told(workspace.run("report", "tiny"))
        told(workspace.run("sweep", finished / "tiny.yaml", "--local", "--no-mlflow"))
        file.write_bytes(whole)
    done = sorted(workspace.store.keys())[0]
    manifest = next((Path(workspace.folders.store) / "artifacts").glob(f"*/{done}/manifest.json"))
    whole = manifest.read_bytes()
    for content in _each(whole):
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_bytes(content)
        told(workspace.run("show", done[:12]))


def test_a_spoilt_checkpoint_is_left_out(workspace: Workspace) -> None:
    store = workspace.store
    for nth in range(200):
        checkpoints = store.checkpoints(f"{nth:064d}")
        with checkpoints.writing(10, snapshot=True) as folder:
            (folder / "points.json").write_text("[1, 2]")
        assert checkpoints.furthest(10) is not None  # control
        at = Path(workspace.folders.store) / checkpoints.folder / f"{10:09d}"
        ways = [*_each((at / "checkpoint.json").read_bytes())]
        if nth >= len(ways):
            break
        harmless = (
            json.loads(ways[nth]).get("files") == json.loads((at / "checkpoint.json").read_bytes())["files"]
            if (_is_mapping(ways[nth]))
            else False
        )
        (at / "checkpoint.json").write_bytes(ways[nth])
        assert (checkpoints.furthest(10) is not None) == harmless
        with checkpoints.writing(20, snapshot=False) as folder:
            (folder / "points.json").write_text("[1, 2, 3]")
        assert checkpoints.furthest(20) is not None


def _is_mapping(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False
