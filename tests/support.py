"""Fakes and tiny data that several test folders share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from trainables.configs import (
    DatasetConfig,
    DistillConfig,
    NetworkConfig,
    NetworkSettings,
    OriginConfig,
    RecipeConfig,
    SignalsConfig,
    TrainConfig,
)
from trainables.context import Interrupted
from trainables.data.known import KNOWN
from trainables.data.origins import Origin, QueriedImages, TestSet
from trainables.distill.context import DistillContext
from trainables.dry_run import Counted
from trainables.methods import METHODS
from trainables.payloads import DistilledSet
from trainables.testing import FolderContext

T = TypeVar("T")

torch.set_num_threads(1)  # a job's default; more only makes tiny tensors wait for busy cores


class FakeContext(FolderContext):
    """A context in a folder. ``stop_after`` interrupts every run after that many iterations, each time saving."""

    def __init__(self, folder: Path, stop_after: int | None = None, keep: bool = True) -> None:
        super().__init__(folder, stops=sys.maxsize if stop_after else 0, every=stop_after or 1)
        self.keep = keep

    def restore(self) -> tuple[int, Path] | None:
        return super().restore() if self.keep else None


def conformance_folder() -> Path:
    """The folder of vectors recorded from the authors' programs; the calling test is NOT RUN without it."""
    folder = os.environ.get("DDRAY_CONFORMANCE")
    if not folder:
        pytest.skip("NOT RUN: DDRAY_CONFORMANCE is not set")
    return Path(folder)


def vectors(path: Path) -> dict[str, torch.Tensor]:
    """The arrays of one npz file, as tensors."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries below ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def network_of(state: dict[str, torch.Tensor], image_size: int, channels: int) -> NetworkConfig:
    """The network that a recorded ConvNet's parameters belong to (instance norm)."""
    depth = sum(value.ndim == 4 for value in state.values())
    return NetworkConfig(
        architecture="convnet3",
        norm="instance",
        width=len(state["features.0.bias"]),
        depth=depth,
        image_size=image_size,
        channels=channels,
        num_classes=len(state["classifier.bias"]),
    )


def dataset_config(num_classes: int = 3, size: int = 8, channels: int = 1, **other: Any) -> DatasetConfig:
    return DatasetConfig(
        name="tiny",
        base="digits",
        digest="sha256:0",
        num_classes=num_classes,
        image_size=size,
        channels=channels,
        mean=(0.4,) * channels,
        std=(0.3,) * channels,
        **other,
    )


def digits_config(num_classes: int = 10) -> DatasetConfig:
    """The digits that come with scikit-learn."""
    known = KNOWN["digits"]
    return DatasetConfig(
        name="digits",
        base="digits",
        digest=known.digest or "",
        num_classes=num_classes,
        image_size=8,
        channels=1,
        mean=known.mean,
        std=known.std,
        flip=False,
    )


def tiny_origin(num_classes: int = 3, each: int = 12, size: int = 8, channels: int = 1, seed: int = 0) -> Origin:
    """Random images around a class mean, class after class, with canonical indices from 100 on."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_classes).repeat_interleave(each)
    centres = torch.randn(num_classes, channels, size, size, generator=generator)
    images = centres[labels] + 0.5 * torch.randn(len(labels), channels, size, size, generator=generator)
    by_class = tuple((labels == index).nonzero().squeeze(1) for index in range(num_classes))
    return Origin(images, labels, torch.arange(len(labels)) + 100, by_class)


def query_sets(
    dataset: DatasetConfig, origin: OriginConfig, signals: SignalsConfig, data: Path, cache: Path, device: str
) -> dict[str, TestSet]:
    """All images of ``QueriedImages``, by split."""
    pieces: dict[str, list[TestSet]] = {}
    for split, piece in QueriedImages(dataset, origin, signals, data, cache, device):
        pieces.setdefault(split, []).append(piece)
    return {split: TestSet(*map(torch.cat, zip(*parts, strict=True))) for split, parts in pieces.items()}


def tiny_test(origin: Origin, seed: int = 1) -> TestSet:
    """The origin's images with other noise."""
    noise = torch.randn(origin.images.shape, generator=torch.Generator().manual_seed(seed))
    return TestSet(origin.images + 0.1 * noise, origin.labels, torch.arange(len(origin.labels)))


def tiny_network(num_classes: int = 3, size: int = 8, channels: int = 1, **other: Any) -> NetworkConfig:
    # Two blocks: a third would leave instance norm four pixels of an 8-pixel image, and next to nothing to learn from.
    values = {"architecture": "convnet3", "norm": "instance", "width": 8, "depth": 2, **other}
    return NetworkConfig(image_size=size, channels=channels, num_classes=num_classes, **values)


TINY: dict[str, dict[str, Any]] = {
    "dm": {"iterations": 4, "batch_real": 6},
    "datadam": {"iterations": 4, "batch_real": 6},
    "dpdm": {"iterations": 4, "batch_real": 6, "rounds": 3, "epsilon": 20.0},
    "dsa": {"iterations": 4, "batch_real": 6, "batch_train": 4},
    "dc": {"iterations": 4, "batch_real": 6, "batch_train": 4},
    "idc": {"iterations": 4, "inner_loop": 3, "layout": "whole", "batch_real": 6, "net_images": 12},
    "mtt": {
        "iterations": 4,
        "syn_steps": 4,
        "match_snapshots": 1,
        "max_start": 2,
        "lr_img": 10.0,
        "lr_lr": 1e-4,
        "lr_syn": 0.05,
        "num_experts": 2,
        "expert_snapshots": 2,
        "snapshot_steps": 8,
        "lr_expert": 0.05,
    },
}
TINY["ncfm"] = {
    **{"iterations": 4, "factor": 1, "frequencies": 16, "batch_real": 6, "lr_img": 0.01},
    **{"num_networks": 2, "epochs_net": 2, "lr_net": 0.05, "batch_net": 8},
}
TINY["idm"] = {
    **{"iterations": 4, "factor": 1, "batch_real": 6, "queue": 3, "first_networks": 2, "net_interval": 2},
    **{"net_steps": 2, "batch_net": 8, "lr_net": 0.05},
}
TINY["rded"] = {"candidates": 8, "crops": 3, "epochs_net": 2, "lr_net": 0.05, "batch_net": 8}
TINY["fairdd"] = TINY["dm"]
TINY["dream"] = {**TINY["idc"], "clusters": 5, "interval": 2}
TINY["ftd"] = {**TINY["mtt"], "radius": 0.05, "ema": 0.5}
TINY["tesla"] = TINY["mtt"]
TINY["datm"] = {
    **TINY["mtt"],
    "zca": False,
    "radius": 0.05,
    "right_first": False,
    "early_starts": 1,
    "growth": 2,
    "threshold": 10.0,
    "lr_label": 0.5,
}
"""Settings that make a method's distillation a matter of milliseconds."""


def distill_config(method: str = "dm", *, ipc: int = 2, distill_seed: int = 0, **other: Any) -> DistillConfig:
    """A tiny distillation; settings of the method and fields of the configuration by name."""
    declared = METHODS[method]
    settings = {name: other.pop(name) for name in list(other) if name in declared.settings.model_fields}
    matches = issubclass(declared.settings, NetworkSettings)
    values: dict[str, Any] = {
        "method_version": 1,
        "dataset": dataset_config(flip=False),
        "origin": OriginConfig(classes=(0, 1, 2)),
        "init": "real" if "init" in declared.uses else None,
        "augmentation": "dsa" if "distill_aug" in declared.uses else None,
        "network": tiny_network() if matches else None,
        "settings": declared.settings(**{**TINY.get(method, {}), **settings}).key_material(),
        **other,
    }
    return DistillConfig(method=method, ipc=ipc, distill_seed=distill_seed, **values)


def distil(
    config: DistillConfig, context: FakeContext, origin: Origin | None = None, inputs: dict[str, Path] | None = None
) -> DistilledSet:
    """What a stage does: the method's function with its settings and surroundings; experts are trained as needed."""
    method = METHODS[config.method]
    settings = method.settings.model_validate(config.settings)
    origin = origin or tiny_origin()
    if inputs is None:
        inputs = tiny_experts(config, context.data / "experts", origin)
    result: DistilledSet = method.load()(origin, settings, DistillContext(config, context, inputs))
    return result


def result_bytes(folder: Path, config: DistillConfig, context: FakeContext) -> dict[str, bytes]:
    """The bytes of a distillation that is started again whenever it is interrupted."""
    distilled = to_its_end(lambda: distil(config, context))
    folder.mkdir()
    distilled.save(folder)
    return folder_bytes(folder)


def to_its_end(stage: Callable[[], T]) -> T:
    """What a stage gives that is started again whenever it is interrupted."""
    while True:
        try:
            return stage()
        except Interrupted:
            continue


def losses(context: FakeContext) -> list[float]:
    """The losses a distillation reported."""
    return [values["loss"] for values in context.measured if "loss" in values]


def tiny_experts(config: DistillConfig, folder: Path, origin: Origin | None = None) -> dict[str, Path]:
    """Train and save the experts that a distillation learns from; none for most methods.

    Returns:
        Folders by role (``expert.I``), as a distillation's inputs.
    """
    from trainables.experts import train_expert

    settings = METHODS[config.method].settings.model_validate(config.settings)
    inputs = {}
    if config.network is not None:
        for expert in settings.experts(config.dataset, config.origin, config.network, config.augmentation):
            role = f"expert.{expert.index}"
            inputs[role] = folder / role
            inputs[role].mkdir(parents=True, exist_ok=True)
            train_expert(expert, origin or tiny_origin(), FakeContext(folder)).save(inputs[role])
    return inputs


def recipe(**other: Any) -> RecipeConfig:
    values: dict[str, Any] = {
        "epochs": 4,
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": (0.5,),
        "gamma": 0.1,
        "batch": 8,
        "augmentation": "none",
    }
    return RecipeConfig(**{**values, **other})


def train_config(recipe: RecipeConfig, *, seed: int = 0, **other: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "dataset": dataset_config(flip=False),
        "origin": OriginConfig(classes=(0, 1, 2)),
        "on_origin": False,
        "network": tiny_network(),
        "curve_points": 3,
        "curve_images": 9,
        **other,
    }
    return TrainConfig(recipe=recipe, seed=seed, **values)


def dispatches(body: Callable[[], object]) -> int:
    """How many operators PyTorch hands to a device while ``body`` runs, views and bookkeeping included."""
    with Counted("cpu") as counted:
        body()
    return counted.operators


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
