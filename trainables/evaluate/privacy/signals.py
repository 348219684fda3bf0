"""From the folders of a privacy stage to what attacks look at: the logits of targets and shadows on candidates.

Legend: R rows of the membership matrix, n pool images, q of the reserve, m of the population, K classes. Nothing is
computed here but who is a member of what, which the rows' numbers say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.configs import OriginConfig, PrivacyConfig
from trainables.data.origins import canary_labels, origin_indices, pool_indices
from trainables.evaluate.accuracy import Floats, Integers
from trainables.evaluate.privacy.inputs import Booleans, ShadowRows, Shadows, Target
from trainables.payloads import DistilledSet, Outputs, TrainedModel
from trainables.seeds import derive

Logits = NDArray[np.float32]

LEARNING_ROWS = 60_000
"""Outputs of shadows that attacks learn from, at most: more images per class change nothing but the time."""


@dataclass(frozen=True)
class Asked:
    """What one model said of one split."""

    logits: Logits
    """(n, K)."""
    labels: Integers
    """(n,) positions."""
    ids: Integers
    """(n,) canonical indices in the split's images."""


@dataclass(frozen=True)
class Pool:
    """The models of a membership matrix and what they say of its pool."""

    ids: Integers
    """(n,) canonical train indices of the candidates."""
    labels: Integers
    """(n,) positions; of canaries, the wrong one they are trained with."""
    member: Booleans
    """(R, n)."""
    canary: Booleans
    """(n,)."""
    logits: Logits
    """(R, n, K)."""
    reserve: tuple[Asked, ...]
    """Per row; all of the same images, or no row has any."""
    population: tuple[Asked, ...]
    """Likewise."""

    def target(self, row: int, *, reserve: bool = False) -> tuple[Target, Shadows]:
        """A row as the attacked model, and all rows but it and its twin as shadows.

        Args:
            row: Which.
            reserve: Append the reserve to the candidates.
        """
        assert not reserve or self.reserve
        others = [other for other in range(len(self.logits)) if other // 2 != row // 2]
        logits, labels, member = self.logits, self.labels, self.member[others]
        if reserve:
            labels = np.concatenate([labels, self.reserve[row].labels])
            member = np.pad(member, ((0, 0), (0, len(self.reserve[row].labels))))

        def said(index: int) -> Floats:
            own = np.concatenate([logits[index], self.reserve[index].logits]) if reserve else logits[index]
            return own.astype(np.float64)

        def said_of_others(index: int) -> Floats:
            return known[index].logits.astype(np.float64)

        known = self.population
        z_labels = known[row].labels if known else None
        target = Target(said(row), labels, said_of_others(row) if known else None, z_labels)
        z = np.stack([said_of_others(index) for index in others]) if known else None
        shadows = Shadows(np.stack([said(index) for index in others]), labels, member, z)
        return target, shadows


def row_origin(config: PrivacyConfig, row: int) -> OriginConfig:
    """The origin of a row of the point's membership matrix."""
    own = config.origin
    return OriginConfig(
        kind="pool", per_class=own.per_class, draw=own.draw, row=row, canaries=config.canaries, classes=own.classes
    )


def asked(folder: Path) -> dict[str, Asked]:
    """What a trained model said, by split."""
    return {split: _as_arrays(signals) for split, signals in TrainedModel.load_outputs(folder).items()}


def load_pool(config: PrivacyConfig, inputs: Mapping[str, Path], what: str, train_labels: Integers) -> Pool:
    """All rows of a membership matrix.

    Args:
        config: The point and the number of rows.
        inputs: Folders by role.
        what: ``model``, or ``start`` for models trained on the undistilled starts.
        train_labels: Of the whole train split.
    """
    rows = [asked(inputs[f"row.{row}.{what}"]) for row in range(config.rows)]
    first = rows[0]["pool"]
    for split in ("pool", "population", "reserve"):
        for row in rows:
            assert (split in row) == (split in rows[0]), f"some rows were not asked about the {split}"
            same = split not in row or np.array_equal(row[split].ids, rows[0][split].ids)
            assert same, f"rows were asked about different images of the {split}"
    assert np.array_equal(first.ids, pool_indices(row_origin(config, 0), train_labels)), "another pool"
    held = [set(rows[0][split].ids.tolist()) for split in ("pool", "population", "reserve") if split in rows[0]]
    assert len(set().union(*held)) == sum(map(len, held)), "population, reserve and pool overlap"
    return Pool(
        ids=first.ids,
        labels=first.labels,
        member=np.stack(
            [np.isin(first.ids, origin_indices(row_origin(config, row), train_labels)) for row in range(config.rows)]
        ),
        canary=np.isin(first.ids, list(canary_labels(row_origin(config, 0), train_labels))),
        logits=np.stack([row["pool"].logits for row in rows]),
        reserve=tuple(row["reserve"] for row in rows if "reserve" in row),
        population=tuple(row["population"] for row in rows if "population" in row),
    )


def start_members(ids: Integers, member: Booleans, released: DistilledSet | None) -> Booleans:
    """(n,): candidates that the set started from, or is made of, tiles included; none without a set.

    Every one is a member: anything else would mean that a set was made of images it must not have seen.
    """
    if released is None:
        return np.zeros(len(ids), dtype=np.bool_)
    named = released.indices.numpy()
    found = np.isin(ids, named[named >= 0])
    strangers = np.setdiff1d(named[named >= 0], ids[member])
    assert not len(strangers), f"the set starts from images that are no members: {strangers[:10].tolist()}"
    return np.asarray(found)


def seed_rows(config: PrivacyConfig, inputs: Mapping[str, Path]) -> ShadowRows | None:
    """Learning rows of the audit ``seed``: each shadow on its own block, as members, and on the next, as others.

    Returns:
        None without shadows.
    """
    parts = []
    for block in range(1, config.shadows + 1):
        said = asked(inputs[f"shadow.{block}.model"])
        for split, member in (("origin", True), ("other", False)):
            kept = spread(said[split].labels, LEARNING_ROWS // (2 * config.shadows), block)
            logits, labels = said[split].logits[kept], said[split].labels[kept]
            parts.append((logits, labels, np.full(len(labels), member), np.full(len(labels), block)))
    return ShadowRows(*map(np.concatenate, zip(*parts, strict=True))) if parts else None


def learning_rows(shadows: Shadows) -> ShadowRows:
    """What attacks of the audit ``pool`` learn from: outputs of all shadows on the candidates, or on enough of them."""
    kept = spread(shadows.labels, max(1, LEARNING_ROWS // shadows.num), 0)
    chosen = np.zeros(len(shadows.labels), dtype=np.bool_)
    chosen[kept] = True
    return shadows.rows(chosen)


def spread(labels: Integers, count: int, *numbers: int) -> Integers:
    """Places of about ``count`` random images, equally many of each class, ascending; all where there are fewer."""
    classes = np.unique(labels).tolist()
    return some_of_each(labels, dict.fromkeys(classes, max(1, count // len(classes))), *numbers)


def some_of_each(labels: Integers, counts: Mapping[int, int], *parts: int | str) -> Integers:
    """Places of random images, so many of each class, ascending; all where there are fewer.

    Args:
        labels: (n,).
        counts: By class; none of those that are left out.
        parts: What the random numbers are for.
    """
    chosen = [np.empty(0, dtype=np.int64)]
    for label, count in counts.items():
        places = np.flatnonzero(labels == label)
        rng = np.random.default_rng(derive("privacy", "spread", *parts, label))
        chosen.append(places if len(places) <= count else rng.choice(places, count, replace=False))
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _as_arrays(signals: Outputs) -> Asked:
    return Asked(signals.logits.numpy(), signals.labels.numpy(), signals.ids.numpy())
