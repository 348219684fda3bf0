"""A sweep to which something happens, and what is compared with one that was left alone."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace import Ran, Running, Swept, Workspace

from ddray.plan.graph import Stage
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest

ITERATIONS = 1000
SWEEP: dict[str, Any] = {"iterations": ITERATIONS, "distill_seeds": (0, 1)}
LOCAL = ("--local", "--no-mlflow")
RAY = ("--cpus", "2", "--no-mlflow")

NOTING = """
import importlib.util, os, sys

class Noting:
    def find_spec(self, name, path=None, target=None):
        if name != "ddray.store.artifacts":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            commit = module.Store.commit

            def noted(store, folder, manifest):
                made = commit(store, folder, manifest)
                with open(os.environ["COMMITS"], "a") as file:
                    file.write(manifest.key + "\\n")
                return made

            module.Store.commit = noted

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Noting())
"""
"""A ``sitecustomize``: every process notes what it has computed in the file COMMITS."""


class Trial:
    """A sweep of which something goes wrong, to be run again and compared."""

    def __init__(self, workspace: Workspace, folder: Path, expected: Swept, note: Callable[[int, int], None]) -> None:
        self.workspace = workspace
        self.reference = folder
        self.expected = expected
        self.path = folder / "tiny.yaml"
        self.commits = workspace.folder / "commits"
        self.commits.touch()
        (workspace.folder / "sitecustomize.py").write_text(NOTING)
        self.variables = {"PYTHONPATH": str(workspace.folder), "COMMITS": str(self.commits)}
        self._note = note

    @property
    def store(self) -> Path:
        return Path(self.workspace.folders.store)

    def finish(self) -> None:
        """Let it be finished before anything happens: a copy of the undisturbed one."""
        for name, place in (("home", self.workspace.folders.home), ("store", self.store)):
            shutil.copytree(self.reference / name, place, dirs_exist_ok=True)

    def stages(self, kind: str) -> list[Stage]:
        """Of the sweep, in the order of their keys."""
        plan = self.workspace.prepare(self.path).plan
        return sorted((stage for stage in plan.stages.values() if stage.kind == kind), key=lambda stage: stage.key)

    def remove(self, stages: Collection[Stage]) -> None:
        """Artifacts, as if nobody had computed them."""
        for stage in stages:
            shutil.rmtree(self.store / "artifacts" / stage.key[:2] / stage.key)

    @contextlib.contextmanager
    def start(self, *how: str, **variables: str) -> Iterator[Running]:
        """`ddray sweep` in a process of its own."""
        with self.workspace.start("sweep", self.path, *how, **self.variables, **variables) as running:
            yield running

    def progress(self) -> int:
        """Steps that are kept: finished stages and checkpoints."""
        found = [*self.store.glob("artifacts/*/*/manifest.json"), *self.store.glob("checkpoints/*/*/*/checkpoint.json")]
        return len(found)

    def again(self, *, spoilt: Collection[str] = (), how: tuple[str, ...] = LOCAL) -> Ran:
        """Run the same command again, in this process, and compare with the undisturbed sweep.

        Args:
            spoilt: Keys of finished stages that the fault made unusable: they have to be computed again, once.
            how: Options of `ddray sweep`.
        """
        before = self.finished(spoilt)
        ran = self.here("sweep", self.path, *how)
        assert ran.code == 0, ran.err
        self.compare(before, spoilt)
        return ran

    def here(self, *arguments: object) -> Ran:
        """A command in this process."""
        commit = Store.commit

        def noted(store: Store, folder: Path, manifest: Manifest) -> bool:
            made = commit(store, folder, manifest)
            with self.commits.open("a") as file:
                file.write(manifest.key + "\n")
            return made

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "commit", noted)
            return self.workspace.run(*arguments)

    def finished(self, spoilt: Collection[str] = ()) -> dict[str, tuple[int, bytes]]:
        """Times and contents of manifests, by key: those of files that nobody has written again are equal."""
        return {key: value for key, value in self.workspace.manifests().items() if key not in spoilt}

    def kept(self, before: dict[str, tuple[int, bytes]]) -> None:
        """Count what was finished ``before`` and is gone or was written again, of a fault that others follow."""
        after = self.finished()
        lost = [key for key in before if key not in after]
        again = [key for key, manifest in before.items() if after.get(key, manifest) != manifest]
        self._note(len(lost), len(again))
        assert (lost, again) == ([], [])

    def compare(self, before: dict[str, tuple[int, bytes]], spoilt: Collection[str] = ()) -> None:
        """Count what was lost and what was computed twice, for the tally; both have to be 0.

        Lost is a stage of the undisturbed run without equal files now, and its table when it differs. Recomputed is
        a stage that was finished ``before`` and was written again, and each further time that any was computed.
        """
        payloads, after = self.workspace.payloads(), self.finished()
        lost = [key for key, files in self.expected.payloads.items() if payloads.get(key) != files]
        lost += ["table"] * (not self.workspace.table("tiny").equals(self.expected.table))
        times = Counter(self.commits.read_text().split())
        again = [key for key, manifest in before.items() if after.get(key) != manifest]
        again += [key for key, count in times.items() for _ in range(count - 1 - (key in spoilt and count > 1))]
        self._note(len(lost), len(again))
        assert (lost, again) == ([], [])


def claims(store: Path) -> list[dict[str, Any]]:
    """Who computes what right now."""
    found = []
    for path in store.glob("claims/*.json"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            found.append(json.loads(path.read_text()))
    return found
