"""Every kind of stage, run again from recorded inputs, gives what is recorded: payload, metric rows and all.

In the recorded numerics class to the byte, in another to what was measured between AVX-512 and AVX2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from goldens import ACROSS, CHAOTIC, STAGES, differences, stage_message, tolerance_of
from workspace import Workspace, places_in

from trainables import stages
from trainables.testing import FolderContext

MOST = 12
"""Stages of a kind that are run again: those of different methods and attacks first."""


class Golden:
    """The recorded store, and its plan of today."""

    def __init__(self, workspace: Workspace) -> None:
        STAGES.unpack(workspace.folder / "store")
        self.folder = workspace.folder
        self.stages = workspace.prepare(STAGES.yaml).plan.stages

    def artifact(self, key: str) -> Path:
        return self.folder / "store" / "artifacts" / key[:2] / key

    def chosen(self, kind: str) -> list[Any]:
        """Stages of a kind that are recorded and still planned."""
        found = [each for each in self.stages.values() if each.kind == kind and self.artifact(each.key).exists()]
        distinct = {" ".join(each.label.split()[:3]): each for each in reversed(found)}
        return [*distinct.values(), *(each for each in found if each not in distinct.values())][:MOST]

    def run(self, stage: Any, folder: Path) -> Path:
        """A stage's payload, from recorded inputs."""
        context = FolderContext(folder / "context")
        context.cache = self.folder / "cache"
        inputs = {role: self.artifact(key) for role, key in stage.inputs}
        payload = stages.run(stage.kind, stage.config, inputs, context)
        (folder / "payload").mkdir()
        payload.save(folder / "payload")
        return folder / "payload"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Any:
    with places_in(tmp_path_factory.mktemp("golden"), digits_cache) as workspace:
        yield Golden(workspace)


@pytest.mark.parametrize("kind", ACROSS)
def test_a_stage_gives_what_is_recorded_under_its_key(kind: str, golden: Golden, tmp_path: Path) -> None:
    chosen = golden.chosen(kind)
    assert chosen, f"no stage of the kind {kind} is recorded under a key of today; record again"
    for index, stage in enumerate(chosen):
        recorded = golden.artifact(stage.key)
        manifest = json.loads((recorded / "manifest.json").read_text())
        (tmp_path / str(index)).mkdir()
        tolerance = tolerance_of(manifest)
        texts = list(differences(recorded, golden.run(stage, tmp_path / str(index)), tolerance))
        if tolerance:
            texts = [text for text in texts if not text.startswith(CHAOTIC)]
        assert not texts, stage_message(kind, stage.label, texts)
