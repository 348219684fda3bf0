"""What is hashed, and how: keys of stages, their lineage, the identity of points, digests of anything else.

| hash | of what | made by |
|---|---|---|
| key of a stage | kind, version, ``Config.key_json``, keys of its inputs | ``stage_key`` |
| its lineage | the same without the budget (``DistillConfig.lineage_json``) | ``lineage_key`` |
| hash of a point | its axes that are not null, settings, protocol, changes of the recipe | ``point_identity`` |
| name of a job, digest of a plan or of a request | keys and names, as a list | ``digest`` |

``Config.key_json`` stands with the configurations (``trainables/configs.py``), because computations use it too; a field
in ``outside_key`` is not in it, one in ``neutral`` only where it differs from what held before it existed. Content
digests of data and of files are not made here: ``trainables/data``, ``ddray/store``.

A key is the SHA-256 of everything that determines a stage's result: kind, hand-set versions, configuration with all
defaults filled in, the keys of its inputs (and so their whole history), the content digest of the data. It does not
cover where or when the stage runs; that is provenance and stands in the manifest. Some keys are pinned in
``tests/unit/test_keys.py``: if one changes, somebody meant it and says so in the changelog.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, NewType

from trainables.configs import canonical_json

Key = NewType("Key", str)

SHORT = 12
"""Characters of a key shown to people; commands accept any unambiguous beginning."""


def canonical(value: Any) -> str:
    """JSON with sorted names and no spaces; the same value always gives the same text.

    Raises:
        ValueError: The value holds NaN or an infinity, which have no JSON form.
    """
    return canonical_json(value)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal characters."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def stage_key(kind: str, version: int, config: Mapping[str, Any] | str, inputs: Mapping[str, str]) -> Key:
    """The content address of a stage.

    Args:
        kind: The stage kind; it prefixes the pre-image, so that no two kinds can share an address.
        version: The kind's hand-set version.
        config: ``Config.key_json``, or a mapping of JSON types.
        inputs: Role (``set``, ``model``) to key.
    """
    config = config if isinstance(config, str) else canonical(config)
    # Put together by hand, in sorted order: the configuration's own text is made only once, and the encoder is slow.
    roles = ",".join(f"{encode_basestring(role)}:{encode_basestring(inputs[role])}" for role in sorted(inputs))
    preimage = f'{{"config":{config},"inputs":{{{roles}}},"kind":"{kind}","version":{version}}}'
    return Key(hashlib.sha256(f"ddray stage {kind}\n{preimage}".encode()).hexdigest())


def lineage_key(kind: str, version: int, path: str, inputs: Mapping[str, str]) -> Key:
    """Shared by stages that follow one path to different budgets; their checkpoints live under it.

    Args:
        kind: As of ``stage_key``, like the other two.
        version: The kind's.
        path: ``DistillConfig.lineage_json``: the configuration without the budget.
        inputs: Role to key.
    """
    return stage_key(kind, version, f'{{"lineage":{path}}}', inputs)


def point_identity(
    axes: Mapping[str, Any], settings: Mapping[str, Any], protocol: str, train: Mapping[str, Any]
) -> str:
    """JSON of what tells a point from others, equal for equal points; its SHA-256 is the point's hash.

    Args:
        axes: Those that are not null: points keep their identity when an axis is added to the grammar.
        settings: Of the method, as given.
        protocol: The recipe's name.
        train: Values that differ from the recipe.
    """
    content = {"axes": axes, "settings": settings, "protocol": protocol, "train": train}
    # Not ``canonical``: letters beyond ASCII are escaped here, in every store and table there is.
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def short(key: str) -> str:
    """The form of a key that people see."""
    return key[:SHORT]
