"""What a stage hands on, and its bytes on disk: safetensors without metadata, and JSON with sorted keys.

The names of the files, and readers without torch, are in ``files.py``. Equal content gives equal
bytes, and loading a payload never runs code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables import files
from trainables.configs import NetworkConfig
from trainables.data.pixels import Whitening
from trainables.files import load_json, save_json
from trainables.labels import HardLabels, Labels, SoftLabels


@dataclass(frozen=True)
class DistilledSet:
    """A small set of images that stands for its origin."""

    images: Tensor
    """(N, C, H, W) float32 on the CPU, in pixel space: [0, 1] for real images, not clamped for learned ones."""
    labels: Labels
    """Of N images, class-major."""
    indices: Tensor
    """(N,) int64 canonical index of the training image a row started from, or is; -1 if none. (N, T) where a row
    started from T images in tiles (IDC's ``mix``): column k is tile k, row by row."""
    info: dict[str, Any]
    """``space``, ``mean``, ``std``, ``zca``, ``factor``, ``label_kind``, and how the set was made. ``learned_lr`` and
    ``network`` where a learning rate was learned with it, for that network. Of soft labels also ``label_form``,
    ``temperature``, ``label_source`` and, where there is one, ``teacher``."""
    whitening: Whitening | None = None
    """What networks that are trained on the set want their images whitened with (``zca``), instead of normalised."""

    def save(self, folder: Path) -> None:
        """Write ``set.safetensors``, ``facts.json`` and, with ZCA, ``zca.safetensors`` into an existing folder."""
        tensors = {"images": self.images, "labels": self.labels.classes, "indices": self.indices}
        info = self.info
        if isinstance(self.labels, SoftLabels):
            tensors[files.SOFT_LABELS], info = self.labels.rows, {**info, **self.labels.info}
        save_tensors(folder / files.SET_TENSORS, tensors)
        save_json(folder / files.SET_INFO, info)
        save_whitening(folder, self.whitening)

    @classmethod
    def load(cls, folder: Path) -> DistilledSet:
        tensors, info = load_tensors(folder / files.SET_TENSORS), load_json(folder / files.SET_INFO)
        rows = tensors.get(files.SOFT_LABELS)
        labels = HardLabels(tensors["labels"]) if rows is None else SoftLabels.of(tensors["labels"], rows, info)
        return cls(tensors["images"], labels, tensors["indices"], info, load_whitening(folder))


@dataclass(frozen=True)
class Expert:
    """A network's trajectory: its parameters at some steps of its training (Cazenavette et al., CVPR 2022).

    S + 1 snapshots, the first before any step, of P parameters, in the order of the network's ``named_parameters``.
    """

    snapshots: Tensor
    """(S + 1, P) float32 on the CPU."""
    distances: Tensor
    """(S + 1, S + 1) float64: squared Euclidean distances between snapshots."""
    parameters: list[tuple[str, list[int]]]
    """Name and shape of each tensor that a row is made of, in order."""
    info: dict[str, Any]
    """``steps`` done at each snapshot, ``train_acc`` there, and how the expert was trained."""

    def save(self, folder: Path) -> None:
        """Write ``expert.safetensors`` and ``expert.json`` into an existing folder."""
        save_tensors(folder / files.EXPERT_TENSORS, {"snapshots": self.snapshots, "distances": self.distances})
        save_json(folder / files.EXPERT_INFO, {"parameters": self.parameters, "facts": self.info})

    @classmethod
    def load(cls, folder: Path) -> Expert:
        """The whole expert: 65 MB of 50 epochs of ConvNet3. See ``StoredExpert`` for less."""
        stored = StoredExpert(folder)
        tensors = load_tensors(folder / files.EXPERT_TENSORS)
        return cls(**tensors, parameters=stored.parameters, info=stored.info)


class StoredExpert:
    """An expert on disk, of which one snapshot at a time is read.

    Attributes:
        distances: See ``Expert``; so are ``parameters`` and ``info``.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / files.EXPERT_TENSORS
        description = load_json(folder / files.EXPERT_INFO)
        self.parameters = [(name, shape) for name, shape in description["parameters"]]
        self.info: dict[str, Any] = description["facts"]
        with safe_open(self._path, framework="pt") as tensors:
            self.distances: Tensor = tensors.get_tensor("distances")

    def __len__(self) -> int:
        """S + 1."""
        return len(self.distances)

    def snapshot(self, index: int) -> Tensor:
        """One row (P,) float32; the rest of the file is not read."""
        with safe_open(self._path, framework="pt") as tensors:
            row: Tensor = tensors.get_slice("snapshots")[index]
        return row


@dataclass(frozen=True)
class Outputs:
    """What a model's last layer gives for some images."""

    logits: Tensor
    """(n, K) float32."""
    labels: Tensor
    """(n,) int64: positions of the true classes."""
    ids: Tensor
    """(n,) int64: canonical indices of the images in their split."""


@dataclass(frozen=True)
class TrainedModel:
    """A network after the last epoch of its training."""

    state: dict[str, Tensor]
    """The network's ``state_dict`` on the CPU."""
    network: NetworkConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per channel, of images in [0, 1]: what the network expects its input to be normalised with."""
    outputs: dict[str, Outputs] = field(default_factory=dict)
    """By split; ``test`` is always there, the others of ``SignalsConfig`` where the configuration has one."""
    info: dict[str, Any] = field(default_factory=dict)
    """``optimiser_steps``, ``trained_lr``, ``epochs``, ``train_acc``, ``train_loss``, ``num_parameters``, ``curve``."""
    whitening: Whitening | None = None
    """When the network was trained on whitened images: what its input is to be whitened with after normalising."""

    def save(self, folder: Path, prefix: str = "") -> None:
        """Write ``model.safetensors``, ``signals.safetensors``, ``model.json`` and, with ZCA, ``zca.safetensors`` into
        an existing folder.

        Args:
            prefix: Of the first three names, where several models share a folder.
        """
        save_tensors(folder / (prefix + files.MODEL_STATE), self.state)
        save_whitening(folder, self.whitening)
        save_tensors(
            folder / (prefix + files.OUTPUTS),
            {
                f"{split}.{name}": getattr(outputs, name)
                for split, outputs in self.outputs.items()
                for name in ("logits", "labels", "ids")
            },
        )
        description = {"network": self.network.model_dump(mode="json"), "mean": self.mean, "std": self.std}
        save_json(folder / (prefix + files.MODEL_INFO), {**description, "facts": self.info})

    @classmethod
    def load(cls, folder: Path, prefix: str = "") -> TrainedModel:
        description = load_json(folder / (prefix + files.MODEL_INFO))
        return cls(
            state=load_tensors(folder / (prefix + files.MODEL_STATE)),
            network=NetworkConfig.model_validate(description["network"]),
            mean=tuple(description["mean"]),
            std=tuple(description["std"]),
            outputs=cls.load_outputs(folder, prefix),
            info=description["facts"],
            whitening=load_whitening(folder),
        )

    @staticmethod
    def load_outputs(folder: Path, prefix: str = "") -> dict[str, Outputs]:
        """The outputs by split, without the model."""
        tensors = load_tensors(folder / (prefix + files.OUTPUTS))
        splits = sorted({name.rpartition(".")[0] for name in tensors})
        return {
            split: Outputs(tensors[f"{split}.logits"], tensors[f"{split}.labels"], tensors[f"{split}.ids"])
            for split in splits
        }


@dataclass(frozen=True)
class Metrics:
    """Measured numbers, one per row, under the column names of the table of measurements."""

    rows: list[dict[str, Any]]
    """``property``, ``metric``, ``value``, ``unit``, ``n`` and whatever other columns apply. ``class_id`` is a
    position in the origin's list of classes."""
    details: dict[str, Tensor] = field(default_factory=dict)
    """What the numbers were made of, example by example: scores, memberships, distances."""

    def save(self, folder: Path) -> None:
        """Write ``metrics.json`` and, with details, ``details.safetensors`` into an existing folder."""
        save_json(folder / files.METRICS, self.rows)
        if self.details:
            save_tensors(folder / files.DETAILS, self.details)

    @classmethod
    def load(cls, folder: Path) -> Metrics:
        path = folder / files.DETAILS
        return cls(load_json(folder / files.METRICS), load_tensors(path) if path.exists() else {})


@dataclass(frozen=True)
class AttackResult:
    """What one attack did to n images of one model, image by image."""

    ids: Tensor
    """(n,) int64: canonical indices in the test split, ascending."""
    labels: Tensor
    """(n,) int64: positions of the true classes."""
    correct: Tensor
    """(n,) bool: whether the image is classified correctly as it is."""
    success: Tensor
    """(E, n) bool: whether the attack succeeded at each epsilon; True where ``correct`` is False."""
    distance: Tensor | None
    """(n,) float32, of attacks that look for the smallest perturbation: its norm; 0 where ``correct`` is False,
    infinite where the attack failed. None for attacks with a budget."""
    info: dict[str, Any]
    """``attack``, ``norm``, ``epsilons``, ``settings``, ``library``, ``library_version``, ``zero_gradient_share``."""

    def save(self, folder: Path) -> None:
        """Write ``attack.safetensors`` and ``attack.json`` into an existing folder."""
        tensors = {"ids": self.ids, "labels": self.labels, "correct": self.correct, "success": self.success}
        if self.distance is not None:
            tensors["distance"] = self.distance
        save_tensors(folder / files.ATTACK_TENSORS, tensors)
        save_json(folder / files.ATTACK_INFO, self.info)

    @classmethod
    def load(cls, folder: Path) -> AttackResult:
        tensors = load_tensors(folder / files.ATTACK_TENSORS)
        distance = tensors.pop("distance", None)
        return cls(**tensors, distance=distance, info=load_json(folder / files.ATTACK_INFO))


@dataclass(frozen=True)
class Embedding:
    """A distilled set in an encoder's feature space, and the numbers about it."""

    features: Tensor
    """(N, D) float32 of the decoded images."""
    labels: Tensor
    """(N,) int64 positions."""
    rows: list[dict[str, Any]]
    """As of ``Metrics``."""

    def save(self, folder: Path) -> None:
        """Write ``embedding.safetensors`` and ``metrics.json`` into an existing folder."""
        save_tensors(folder / files.EMBEDDING_TENSORS, {"features": self.features, "labels": self.labels})
        save_json(folder / files.METRICS, self.rows)

    @classmethod
    def load(cls, folder: Path) -> Embedding:
        return cls(**load_tensors(folder / files.EMBEDDING_TENSORS), rows=load_json(folder / files.METRICS))


@dataclass(frozen=True)
class TsneMap:
    """Real images and several sets on one map of two dimensions."""

    points: Tensor
    """(M, 2) float32."""
    labels: Tensor
    """(M,) int64 positions of the classes."""
    sources: Tensor
    """(M,) int64: 0 for real images, 1 + I for set I."""
    info: dict[str, Any]
    """``sources`` (names, ``real`` first), ``perplexity``, ``trustworthiness``, ``kl_divergence``, and options."""

    def save(self, folder: Path) -> None:
        """Write ``tsne.safetensors`` and ``tsne.json`` into an existing folder."""
        save_tensors(
            folder / files.MAP_TENSORS, {"points": self.points, "labels": self.labels, "sources": self.sources}
        )
        save_json(folder / files.MAP_INFO, self.info)

    @classmethod
    def load(cls, folder: Path) -> TsneMap:
        return cls(**load_tensors(folder / files.MAP_TENSORS), info=load_json(folder / files.MAP_INFO))


@dataclass(frozen=True)
class TrainedEnsemble:
    """Networks that were trained together, side by side in one folder: each can be loaded without the others."""

    models: dict[int, TrainedModel]
    """By seed. Their whitening, where there is any, is one and the same."""

    def save(self, folder: Path) -> None:
        """Write the files of each model into an existing folder, their names beginning with ``seed-S.``; but
        ``zca.safetensors`` once."""
        for seed, model in self.models.items():
            model.save(folder, _member(seed))

    @staticmethod
    def load_member(folder: Path, seed: int) -> TrainedModel:
        """One of the models."""
        return TrainedModel.load(folder, _member(seed))


def _member(seed: int) -> str:
    return f"seed-{seed}."


Payload = DistilledSet | Expert | TrainedModel | TrainedEnsemble | Metrics | AttackResult | Embedding | TsneMap


def save_whitening(folder: Path, whitening: Whitening | None) -> None:
    """Write ``zca.safetensors`` into an existing folder, or nothing."""
    if whitening is not None:
        save_tensors(folder / files.WHITENING, {"mean": whitening.mean, "matrix": whitening.matrix})


def load_whitening(folder: Path) -> Whitening | None:
    """What ``save_whitening`` wrote."""
    path = folder / files.WHITENING
    return Whitening(**load_tensors(path)) if path.exists() else None


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors of any device and layout; the file's header holds names, types and shapes alone."""
    # Cloned, because safetensors refuses tensors that share memory, and other layouts than the plain one.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    save_file(plain, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU."""
    tensors: dict[str, Tensor] = load_file(path)
    return tensors
