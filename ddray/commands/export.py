"""`ddray export`: the distilled sets of a sweep as files that other programs read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddray.errors import RequestError
from ddray.plan.graph import Stage
from ddray.plan.keys import short
from ddray.prepare import Prepared
from ddray.store.artifacts import DamagedArtifact, Store
from trainables.configs import DistillConfig

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.pixels import Whitening
    from trainables.labels import SoftLabels
    from trainables.payloads import DistilledSet

INDEX = "sets.json"
"""What was written, with what a reader has to know of it."""


@dataclass(frozen=True)
class Set:
    """A distilled set as others see it."""

    images: Tensor
    """(N, C, H, W) float32 in pixel space."""
    labels: Tensor
    """(N,) int64: the data set's own numbers."""
    config: DistillConfig
    factor: int
    soft: SoftLabels | None
    learned_lr: float | None
    whitening: Whitening | None

    @property
    def normalised(self) -> Tensor:
        """The images as the authors' programs keep them: less the mean, over the deviation of each channel."""
        import torch

        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (self.images - mean) / std

    @property
    def whole(self) -> bool:
        """Whether it stands for all training images of its data set."""
        return self.config.origin.kind == "full" and len(self.config.origin.classes) == self.config.dataset.num_classes

    @property
    def mean(self) -> list[float]:
        return list(self.config.dataset.mean)

    @property
    def std(self) -> list[float]:
        return list(self.config.dataset.std)


def _safetensors(each: Set, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    path = folder / "set.safetensors"
    told = {"space": "pixel01", "factor": str(each.factor), "config": each.config.model_dump_json()}
    save_file({"images": each.images.contiguous(), "labels": each.labels}, path, metadata=told)
    return {"set": path.name, "space": "pixel01"}


def _dc(each: Set, folder: Path) -> dict[str, Any]:
    """As DC, DSA and DM write them: a list with one set for each experiment."""
    import torch

    config = each.config
    name = f"res_{config.method.upper()}_{config.dataset.name.upper()}_{_network(config)}_{config.ipc}ipc.pt"
    torch.save({"data": [[each.normalised, each.labels]], "accs_all_exps": {}}, folder / name)
    return {"set": name, "space": "normalised"}


def _mtt(each: Set, folder: Path) -> dict[str, Any]:
    """As MTT writes them: two bare tensors, and whitened images as networks see them."""
    import torch

    images, space = each.normalised, "normalised"
    if each.whitening is not None and each.whole:  # whoever reads it has the whitening of all training images
        images, space = each.whitening.whiten(images, tuple(each.mean), tuple(each.std)), "whitened"
    torch.save(images, folder / "images_best.pt")
    torch.save(each.labels, folder / "labels_best.pt")
    files = {"set": "images_best.pt", "labels": "labels_best.pt", "space": space}
    if each.learned_lr is not None:
        torch.save(torch.tensor(each.learned_lr), folder / "lr_best.pt")
        files["learned_lr"] = "lr_best.pt"
    return files


def _idc(each: Set, folder: Path) -> dict[str, Any]:
    """As IDC writes them: a list of images between 0 and 1, about, and labels."""
    import torch

    torch.save([each.images, each.labels], folder / "data.pt")
    return {"set": "data.pt", "space": "pixel01"}


def _png(each: Set, folder: Path) -> dict[str, Any]:
    """Pictures, in a folder for each class: clamped and rounded to 256 levels, so another set than it was."""
    import numpy as np
    from PIL import Image

    pixels = (each.images.clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, each.labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0).squeeze()))
        picture.save(folder / str(label) / f"{number:05d}.png")
    return {"pictures": "CLASS/NUMBER.png"}


FORMS: dict[str, Callable[[Set, Path], dict[str, Any]]] = {
    "safetensors": _safetensors,
    "dc": _dc,
    "mtt": _mtt,
    "idc": _idc,
    "png": _png,
}
"""By the name of the option."""


def export_sets(prepared: Prepared, store: Store, into: Path, form: str) -> list[dict[str, Any]]:
    """Write the finished distilled sets of the selected points.

    Args:
        prepared: The sweep.
        store: Has them.
        into: A folder; each set gets one of its own in it.
        form: One of ``FORMS``.

    Returns:
        For each: ``folder``, ``key``, ``label``, ``method``, ``dataset``, ``ipc``, ``factor``, ``mean``, ``std``,
        ``evaluate`` (the command that reads it again, where one can), and the names of its files. The same stands in
        ``sets.json``.

    Raises:
        RequestError: None is finished, or the folder cannot be written.
    """
    from trainables.payloads import DistilledSet

    wanted: dict[str, Stage] = {}
    for chain in prepared.plan.chains:
        stage = chain.stage("distill")
        if stage is not None and chain.point.hash in prepared.plan.selected and store.has(stage.key):
            wanted.setdefault(stage.key, stage)
    if not wanted:
        raise RequestError(f"{prepared.sweep.name}: none of its distilled sets is finished. Run: ddray sweep FILE")
    written = []
    for stage in wanted.values():
        try:
            found = DistilledSet.load(store.open(stage.key).folder)
        except DamagedArtifact as damage:
            raise RequestError(f"{damage}: run its sweep") from damage
        folder = into / _folder(stage)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written.append(_facts(stage, folder.name, _set(stage, found), form, folder))
        except OSError as error:
            raise RequestError(f"{folder}: cannot be written; got {error}. Name another folder.") from error
    (into / INDEX).write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    return written


def _set(stage: Stage, found: DistilledSet) -> Set:
    import torch

    from trainables.labels import SoftLabels

    assert isinstance(stage.config, DistillConfig)
    classes = torch.tensor(stage.config.origin.classes)
    soft = found.labels if isinstance(found.labels, SoftLabels) else None
    factor, rate = int(found.info["factor"]), found.info.get("learned_lr")
    return Set(found.images, classes[found.labels.classes], stage.config, factor, soft, rate, found.whitening)


def _soft(soft: SoftLabels, files: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Beside the set; in place of its labels, where they have a file of their own (DATM's layout)."""
    import torch

    name = files.get("labels", "soft_labels.pt")
    torch.save(soft.rows, folder / name)
    classes = {"image_classes": "class-major"} if "labels" in files else {}
    return {
        "labels": name,
        "label_form": soft.form,
        "temperature": soft.temperature,
        "label_source": soft.source,
    } | classes


def _facts(stage: Stage, name: str, each: Set, form: str, folder: Path) -> dict[str, Any]:
    files = FORMS[form](each, folder)
    if each.soft is not None and "set" in files:
        files |= _soft(each.soft, files, folder)
    if each.learned_lr is not None and "set" in files:
        files.setdefault("learned_lr", each.learned_lr)
    config = each.config
    facts = {
        "folder": name,
        "key": stage.key,
        "label": stage.label,
        "method": config.method,
        "dataset": config.dataset.name,
        "ipc": config.ipc,
        "factor": each.factor,
        "mean": each.mean,
        "std": each.std,
        **files,
    }
    # Soft labels of some classes are not read again: what is left of a row is another label.
    again = "set" in files and (each.soft is None or len(config.origin.classes) == config.dataset.num_classes)
    return facts | ({"evaluate": _command(facts, each)} if again else {})


def _command(facts: Mapping[str, Any], each: Set) -> str:
    words = ["ddray evaluate", f"--set {facts['set']}", f"--dataset {facts['dataset']}", f"--space {facts['space']}"]
    if facts["space"] == "normalised":
        words += [f"--{name} {','.join(f'{value:g}' for value in facts[name])}" for name in ("mean", "std")]
    for option in ("labels", "label_form", "temperature", "label_source", "image_classes", "learned_lr"):
        if facts.get(option) is not None:
            words.append(f"--{option.replace('_', '-')} {facts[option]}")
    words += [f"--factor {each.factor}"] if each.factor > 1 else []
    classes = sorted(set(each.labels.tolist()))
    if len(classes) < each.config.dataset.num_classes:
        words.append(f"--classes {','.join(map(str, classes))}")
    return " ".join(words)


def _network(config: DistillConfig) -> str:
    return "ConvNet" if config.network is None else config.network.variant.name


def _folder(stage: Stage) -> str:
    words = re.sub(r"[^A-Za-z0-9=.]+", "-", stage.label.removeprefix("distill ")).strip("-")
    return f"{words[:80]}-{short(stage.key)}"
