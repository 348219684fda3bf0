"""Content addresses: canonical JSON, and the key of a stage.

A key is the SHA-256 of everything that determines a stage's result: kind, hand-set versions, configuration with all
defaults filled in, the keys of its inputs (and so their whole history), the content digest of the data. It does not
cover where or when the stage runs; that is provenance and stands in the manifest. Some keys are pinned in
``tests/unit/test_keys.py``: if one changes, somebody meant it and says so in the changelog.
"""

from __future__ import annotations

import hashlib
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


def short(key: str) -> str:
    """The form of a key that people see."""
    return key[:SHORT]
