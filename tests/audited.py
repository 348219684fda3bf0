"""Trained models and distilled sets of a privacy stage, made up: what their logits give away is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support import digits_config, query_sets, tiny_network

from trainables.attacks import MEMBERSHIP_ATTACKS
from trainables.configs import DatasetConfig, OriginConfig, PrivacyConfig, SignalsConfig
from trainables.data.cache import open_split
from trainables.data.origins import origin_indices, query_indices
from trainables.evaluate.privacy.designs import row_origin
from trainables.labels import HardLabels
from trainables.models.network import build
from trainables.payloads import DistilledSet, Outputs, TrainedModel
from trainables.seeds import derive

Rng = np.random.Generator
Logits = NDArray[np.float64]
Says = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], Rng], Logits]
"""Of ids, labels, memberships and start images (n,), and the model's own generator: logits (n, K)."""


def digits(num_classes: int = 10) -> DatasetConfig:
    return digits_config(num_classes)


def noise(ids: Any, labels: Any, member: Any, start: Any, rng: Rng, num_classes: int = 10) -> Logits:
    """Logits that know nothing but the label, with hard and easy images: no attack may find members."""
    hardness = np.array([np.random.default_rng(derive("hardness", int(index))).normal() for index in ids])
    logits = 0.7 * rng.normal(size=(len(ids), num_classes))
    logits[np.arange(len(ids)), labels] += 2 + hardness
    return np.asarray(logits)


def exposing(start_effect: float, other_effect: float = 0.0) -> Says:
    """Images that a set started from stand out, and the other members."""

    def says(ids: Any, labels: Any, member: Any, start: Any, rng: Rng) -> Logits:
        logits = noise(ids, labels, member, start, rng)
        logits[np.arange(len(ids)), labels] += start_effect * start + other_effect * (member & ~start)
        return logits

    return says


@dataclass
class Audited:
    """A folder with a privacy stage's inputs.

    Attributes:
        inputs: Folders by role, as they are written.
    """

    folder: Path
    cache: Path
    per_class: int = 40
    rows: int = 6
    shadows: int = 1
    canaries: int = 0
    signals: SignalsConfig = field(default_factory=lambda: SignalsConfig(population=20, reserve=20))
    classes: tuple[int, ...] = tuple(range(10))
    ipc: int = 10
    inputs: dict[str, Path] = field(default_factory=dict)

    @property
    def place(self) -> tuple[Path, Path]:
        return self.folder / "data", self.cache

    def config(self, **other: Any) -> PrivacyConfig:
        origin = OriginConfig(kind="draw", per_class=self.per_class, draw=0, classes=self.classes)
        values: dict[str, Any] = {
            "dataset": digits(),
            "origin": origin,
            "method": "random",
            "ipc": self.ipc,
            "init": None,
            "audit": ("pool",),
            "rows": self.rows,
            "targets": min(3, self.rows // 2),
            "shadows": self.shadows,
            "attacks": tuple(MEMBERSHIP_ATTACKS),
            "canaries": self.canaries,
            "signals": self.signals,
            "start": True,
        }
        return PrivacyConfig(**{**values, **other})

    def origin_of(self, role: str) -> OriginConfig:
        """The origin behind ``seed``, ``shadow.B``, ``row.R`` or ``coin``."""
        config = self.config()
        if role == "seed":
            return config.origin
        if role == "coin":
            return row_origin(config, 0).model_copy(update={"kind": "coin"})
        number = int(role.partition(".")[2])
        if role.startswith("row."):
            return row_origin(config, number)
        return config.origin.model_copy(update={"block": number})

    def write_set(self, role: str) -> None:
        """A set of ``ipc`` member images of each class, as they are, drawn at random."""
        origin = self.origin_of(role)
        split = open_split(digits(), "train", *self.place)
        members = origin_indices(origin, split.labels)
        rng = np.random.default_rng(derive("start", role))
        chosen = np.concatenate(
            [rng.choice(members[split.labels[members] == label], self.ipc, replace=False) for label in self.classes]
        )
        images = torch.from_numpy(split.images[chosen]).float() / 255
        facts = {"space": "pixel01", "factor": 1, "zca": False, "label_kind": "hard"}
        labels = torch.arange(len(self.classes)).repeat_interleave(self.ipc)
        self._save(f"{role}.set", DistilledSet(images, HardLabels(labels), torch.from_numpy(chosen), facts))

    def write_model(self, role: str, says: Says, what: str = "model") -> None:
        """A model that says what ``says`` says; ``write_set`` comes first where there is one."""
        origin = self.origin_of(role)
        split = open_split(digits(), "train", *self.place)
        members = origin_indices(origin, split.labels)
        start = np.array([], dtype=np.int64)
        if f"{role}.set" in self.inputs:
            start = DistilledSet.load(self.inputs[f"{role}.set"]).indices.numpy()
        signals = {}
        rng = np.random.default_rng(derive(role, what))
        sets = query_sets(digits(), origin, self.signals, *self.place, "cpu")
        assert list(sets) == list(query_indices(origin, self.signals, split.labels))
        for name, images in sets.items():
            ids, labels = images.ids.numpy(), images.labels.numpy()
            logits = says(ids, labels, np.isin(ids, members), np.isin(ids, start), rng)
            signals[name] = Outputs(torch.from_numpy(logits).float(), images.labels, images.ids)
        test = open_split(digits(), "test", *self.place)
        ids = np.flatnonzero(np.isin(test.labels, self.classes))
        labels = np.searchsorted(self.classes, test.labels[ids])
        nobody = np.zeros(len(ids), dtype=np.bool_)
        logits = says(ids + 100_000, labels, nobody, nobody, rng)
        signals["test"] = Outputs(torch.from_numpy(logits).float(), torch.from_numpy(labels), torch.from_numpy(ids))
        # Shadows of the audit seed are asked about the target's candidates too: by a network that knows nobody.
        config = tiny_network(len(self.classes))
        state = build(config, role, what).state_dict() if role.startswith("shadow.") else {"w": torch.zeros(1)}
        self._save(f"{role}.{what}", TrainedModel(state, config, (0.5,), (0.5,), signals, {}))

    def write_pool(self, says: Says, *, sets: bool = True, start: Says | None = None) -> None:
        """All rows of the matrix."""
        for row in range(self.rows):
            if sets:
                self.write_set(f"row.{row}")
            self.write_model(f"row.{row}", says)
            if start is not None:
                self.write_model(f"row.{row}", start, "start")

    def write_seed(self, says: Says, *, sets: bool = True) -> None:
        """The target of the audit ``seed`` and its shadows."""
        if sets:
            self.write_set("seed")
        self.write_model("seed", says)
        for block in range(1, self.shadows + 1):
            if sets:
                self.write_set(f"shadow.{block}")
            self.write_model(f"shadow.{block}", says)

    def _save(self, role: str, payload: DistilledSet | TrainedModel) -> None:
        folder = self.folder / role
        folder.mkdir(parents=True, exist_ok=True)
        payload.save(folder)
        self.inputs[role] = folder
