"""The files of every payload: their names, and readers that need no torch.

``payloads.py`` writes them and reads them as tensors. Tables, report and mirror read them here, as NumPy arrays and
plain values: importing torch takes longer than building a small report.

    payload             files
    distilled set       set.safetensors, facts.json; zca.safetensors where its images are whitened
    expert              expert.safetensors, expert.json
    trained model       model.safetensors, signals.safetensors, model.json; zca.safetensors
    trained ensemble    the same of each member, their names beginning with seed-S.
    metrics             metrics.json; details.safetensors where the numbers were made of examples
    attack              attack.safetensors, attack.json
    embedding           embedding.safetensors, metrics.json
    t-SNE map           tsne.safetensors, tsne.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SET_TENSORS = "set.safetensors"
"""``images``, ``labels``, ``indices`` of a distilled set, and of one with soft labels their rows."""
SOFT_LABELS = "soft"
"""Name of those rows."""
SET_INFO = "facts.json"
"""How a distilled set's images are to be read, and how it was made."""
WHITENING = "zca.safetensors"
"""``mean``, ``matrix``: what a set's or a model's images are whitened with."""
EXPERT_TENSORS = "expert.safetensors"
"""``snapshots``, ``distances``."""
EXPERT_INFO = "expert.json"
"""Names and shapes of the parameters, and how the expert was trained."""
MODEL_STATE = "model.safetensors"
"""A network's ``state_dict``."""
MODEL_INFO = "model.json"
"""The network's configuration, its normalisation, and how it was trained."""
OUTPUTS = "signals.safetensors"
"""A model's ``SPLIT.logits``, ``SPLIT.labels``, ``SPLIT.ids``, in the artifact of its training."""
METRICS = "metrics.json"
"""An evaluation's rows."""
DETAILS = "details.safetensors"
"""An audit's memberships and scores, image by image."""
ROLES = ("member_init", "member_other", "non_member", "canary", "reserve")
"""What a candidate is to an attacked model, by the code in an audit's details: a member whose image the distillation
started from; any other member; an image that could have been one; an image with a wrong label (member or not); an image
that is never a member."""
INIT, OTHER, NON_MEMBER, CANARY, RESERVE = range(len(ROLES))
ATTACK_TENSORS = "attack.safetensors"
"""``ids``, ``labels``, ``correct``, ``success``, and ``distance`` of attacks that look for the smallest one."""
ATTACK_INFO = "attack.json"
"""Norm, epsilons, settings and library of an attack."""
EMBEDDING_TENSORS = "embedding.safetensors"
"""``features``, ``labels``."""
MAP_TENSORS = "tsne.safetensors"
"""``points``, ``labels``, ``sources`` of a t-SNE map."""
MAP_INFO = "tsne.json"
"""Names of a map's sources, its options, and the numbers about it."""


def save_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys. NaN and infinity are errors: a missing number is None."""
    path.write_text(json.dumps(value, sort_keys=True, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: It is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a safetensors file, from its header alone.

    Raises:
        ValueError: It is not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as arrays:
            return list(arrays.keys())
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def load_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file: all, or those of these names, of which alone the bytes are read.

    Raises:
        ValueError: It is not such a file, or has no array of a name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as arrays:
            return {name: arrays.get_tensor(name) for name in (arrays.keys() if names is None else names)}
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error
