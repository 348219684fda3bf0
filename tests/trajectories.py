"""A student's training and where it should have ended, and experts of one parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from support import tiny_network
from torch import Tensor

from trainables.data import augment
from trainables.distill.unroll import Batch, MetaGradient
from trainables.experts import flat_parameters
from trainables.models.network import build
from trainables.payloads import Expert


class Problem:
    """A student's training in float64 and where it should have ended."""

    def __init__(
        self, steps: int, *, augmented: bool = True, batch: int = 4, norm: Any = "instance", width: int = 4
    ) -> None:
        generator = torch.Generator().manual_seed(7)
        self.network = build(tiny_network(norm=norm, width=width), 0).double()
        self.start = flat_parameters(self.network)
        self.target = self.start + 0.1 * torch.randn(self.start.shape, generator=generator, dtype=torch.float64)
        self.images = torch.randn(6, 1, 8, 8, generator=generator, dtype=torch.float64)
        self.rate = torch.tensor(0.03, dtype=torch.float64)
        strategy, self.labels = augment.strategy_for(True), torch.arange(6) % 3
        self.batches = []
        for _ in range(steps):
            rows = torch.randperm(6, generator=generator)[:batch]
            params = augment.sample(strategy, batch, shared=False, generator=generator) if augmented else None
            self.batches.append(Batch(rows, params))

    def solve(self, way: Callable[..., MetaGradient], **other: Any) -> MetaGradient:
        values = {**vars(self), **other}
        return way(*(values[name] for name in ("start", "images", "labels", "rate", "batches", "network", "target")))

    def soft(self) -> Tensor:
        """Logits (6, 3) of soft labels that are near to no class."""
        return torch.randn(6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


PARTS = ("loss", "images", "rate", "final")
"""Of a gradient where labels are hard."""


def gap(one: Tensor, other: Tensor) -> float:
    """Relative to the second."""
    return float((one - other).norm() / other.norm())


def stored(folder: Path, accuracies: Sequence[float], places: Sequence[float], index: int = 0) -> Path:
    """An expert of one parameter that was at these places, with these train accuracies there."""
    where = torch.tensor(places).double()
    expert = Expert(
        where[:, None].float(), (where[:, None] - where).square(), [("weight", [1])], {"train_acc": list(accuracies)}
    )
    path = folder / f"expert{index}"
    path.mkdir(parents=True)
    expert.save(path)
    return path


LEARNING = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95]
"""Train accuracies of an expert that never gets 99 % right."""
