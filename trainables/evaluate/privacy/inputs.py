"""What attacks on membership look at, logits of the attacked model, of its shadows, and of images that were never in,
and what they say of each candidate.

Legend: n candidates, K classes, S shadows, m population images, r learning rows. Arrays are float64, int64 or bool;
whatever comes in is converted. Candidates that no shadow was trained on (the reserve) have ``member`` False throughout.
The attacked model's own memberships are nowhere here: only ``metrics.py`` sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainables.evaluate.intervals import Booleans, Floats, Integers
from trainables.seeds import derive


class NotApplicable(Exception):
    """An attack cannot be run on what there is: the text says what is missing."""


@dataclass(frozen=True)
class Target:
    """The attacked model.

    Raises:
        ValueError: Shapes do not fit, or a logit is not finite.
    """

    logits: Floats
    """(n, K)."""
    labels: Integers
    """(n,) positions of the classes, as the attacker believes them (a canary's: the wrong one)."""
    population: Floats | None = None
    """(m, K), of images that neither it nor any shadow was trained on."""
    population_labels: Integers | None = None
    """(m,)."""

    def __post_init__(self) -> None:
        _set(self, "logits", _finite("target", self.logits, 2))
        _set(self, "labels", _labels("target", self.labels, len(self.logits)))
        if self.population is not None:
            _set(self, "population", _finite("target", self.population, 2))
            _set(self, "population_labels", _labels("target", self.population_labels, len(self.population)))

    def take(self, chosen: Any) -> Target:
        """The same model on some of the candidates (mask or indices)."""
        return Target(self.logits[chosen], self.labels[chosen], self.population, self.population_labels)


@dataclass(frozen=True, eq=False)  # by identity: what was learned from them is kept for the next caller
class ShadowOutputs:
    """What attack classifiers and thresholds are learned from: outputs of shadows with known memberships."""

    logits: Floats
    """(r, K)."""
    labels: Integers
    """(r,)."""
    member: Booleans
    """(r,): whether that shadow was trained on that image."""
    shadow: Integers
    """(r,): what cross-validation keeps together: number of the shadow, or of the complementary pair it belongs to."""

    def __post_init__(self) -> None:
        _set(self, "logits", _finite("shadow rows", self.logits, 2))
        for name, kind in (("labels", np.int64), ("member", np.bool_), ("shadow", np.int64)):
            column = np.asarray(getattr(self, name), dtype=kind)
            assert column.shape == (len(self.logits),), f"{name} {column.shape}"
            _set(self, name, column)


@dataclass(frozen=True)
class Shadows:
    """Shadows queried about the target's own candidates. Never the target itself, nor its twin.

    The twin (the row whose members are exactly the target's non-members) must be left out: among the other rows of a
    balanced matrix every candidate is then IN exactly S/2 times. With the twin kept, the count alone tells who is a
    member of the target.

    Raises:
        ValueError: Shapes do not fit, a logit is not finite, or the candidates that are ever IN are not all IN for the
            same number of shadows.
    """

    logits: Floats
    """(S, n, K)."""
    labels: Integers
    """(n,), the target's."""
    member: Booleans
    """(S, n)."""
    population: Floats | None = None
    """(S, m, K), of the images of ``Target.population``."""

    def __post_init__(self) -> None:
        _set(self, "logits", _finite("shadows", self.logits, 3))
        _set(self, "labels", _labels("shadows", self.labels, self.logits.shape[1]))
        member = np.asarray(self.member, dtype=np.bool_)
        assert member.shape == self.logits.shape[:2], f"member {member.shape}, logits {self.logits.shape}"
        _set(self, "member", member)
        if self.population is not None:
            _set(self, "population", _finite("shadows", self.population, 3))
            assert len(self.population) == len(self.logits)
        counts = np.unique(member.sum(0)[member.any(0)])
        if len(counts) > 1:
            raise ValueError(
                f"privacy: candidates are members of unequal numbers of shadows, got {counts.tolist()}; expected one "
                "number for all. Leave the target and its twin out, or truncate: unequal counts give memberships away."
            )

    @property
    def num(self) -> int:
        """S."""
        return len(self.logits)

    @property
    def ever_in(self) -> Booleans:
        """(n,): False for the reserve."""
        return np.asarray(self.member.any(0))

    @property
    def pairs(self) -> Integers:
        """(S,): number of each shadow's complementary pair; a shadow without a twin here has a number of its own."""
        numbers = np.full(self.num, -1)
        known = self.member[:, self.ever_in]
        for index in range(self.num):
            if numbers[index] < 0:
                numbers[index] = index
                twins = np.flatnonzero((known == ~known[index]).all(1)) if known.shape[1] else np.array([], dtype=int)
                if len(twins) and numbers[twins[0]] < 0:
                    numbers[twins[0]] = index
        return numbers.astype(np.int64)

    @property
    def out(self) -> Booleans:
        """(S, n): shadows that give a candidate's OUT statistics, equally many for every candidate.

        For images that are members somewhere: those it is OUT of. An image of the reserve is OUT of all S; it takes one
        of each pair, by a draw of its own, so that it has as many as the others and its scores are theirs to compare.
        """
        chosen = ~self.member
        reserve = ~self.ever_in
        if not reserve.any() or reserve.all():
            return chosen
        wanted = int(chosen[:, self.ever_in].sum(0)[0])
        rng = np.random.default_rng(derive("privacy", "reserve", self.num))
        # Pairs in random order, one of each first, then the rest: the first ``wanted`` are taken.
        pairs = np.unique(self.pairs, return_inverse=True)[1]
        order = rng.random((self.num, int(reserve.sum())))
        first = np.zeros_like(order, dtype=np.bool_)
        for pair in range(pairs.max() + 1):
            rows = np.flatnonzero(pairs == pair)
            first[rows[np.argmin(order[rows], axis=0)], np.arange(order.shape[1])] = True
        rank = np.argsort(np.argsort(order + ~first, axis=0), axis=0)
        chosen[:, reserve] = rank < wanted
        return chosen

    def take(self, chosen: Any) -> Shadows:
        """The same shadows on some of the candidates (mask or indices)."""
        return Shadows(self.logits[:, chosen], self.labels[chosen], self.member[:, chosen], self.population)

    def without(self, index: int) -> Shadows:
        """All shadows but number ``index`` and its twin, as if that one were the target."""
        pairs = self.pairs
        kept = pairs != pairs[index]
        kept[index] = False
        population = None if self.population is None else self.population[kept]
        return Shadows(self.logits[kept], self.labels, self.member[kept], population)

    def as_target(self, index: int) -> Target:
        """One shadow as a target, for choices that are made on shadows."""
        return Target(self.logits[index], self.labels)

    def apply(self, statistic: Callable[[Floats, Integers], Floats]) -> Floats:
        """A statistic of (logits, labels) for every shadow and candidate (S, n)."""
        return statistic(self.logits, np.broadcast_to(self.labels, self.member.shape))

    def rows(self, kept: Any = None) -> ShadowOutputs:
        """Learning rows (S times the candidates that are ever IN, within the mask ``kept`` if there is one)."""
        chosen = self.ever_in if kept is None else self.ever_in & np.asarray(kept, dtype=np.bool_)
        logits = self.logits[:, chosen]
        count = logits.shape[1]
        return ShadowOutputs(
            logits.reshape(-1, logits.shape[2]),
            np.tile(self.labels[chosen], self.num),
            self.member[:, chosen].reshape(-1),
            np.repeat(self.pairs, count),
        )


@dataclass(frozen=True)
class Scored:
    """What an attack says of every candidate."""

    values: Floats
    """(n,) finite; higher: likelier a member."""
    settings: dict[str, Any] = field(default_factory=dict)
    """For the row: ``n_shadows``, ``variance_mode``, ``rmia_mode``, ``rmia_population``, ``by_class``, …"""
    tuned: dict[str, float] = field(default_factory=dict)
    """Settings that were chosen by looking at shadows' scores: numbers of their own, no part of a row's identity."""
    pooled: Floats | None = None
    """(n,) scores that mean the same for every target and may be pooled over targets: LiRA's ratios, RMIA's share,
    calibrated losses. None where a target's own level enters."""
    extra: dict[str, Floats] = field(default_factory=dict)
    """Further scores (n,), e.g. ``rmia_share``."""
    variants: Mapping[str, Scored] = field(default_factory=dict)
    """The same attack done another way, by what details append to its name."""


def _set(instance: Any, name: str, value: Any) -> None:
    object.__setattr__(instance, name, value)


def _finite(what: str, given: Any, dims: int) -> Floats:
    logits: Floats = np.asarray(given, dtype=np.float64)
    if logits.ndim != dims or logits.shape[-1] < 2:
        raise ValueError(f"privacy: {what}: got logits {logits.shape}; expected {dims} dimensions, the last of K >= 2.")
    if not np.isfinite(logits).all():
        raise ValueError(
            f"privacy: {what}: some logits are not finite; expected finite numbers. The training diverged: lower its "
            "lr."
        )
    return logits


def _labels(what: str, given: Any, count: int) -> Integers:
    labels: Integers = np.asarray(given, dtype=np.int64)
    if labels.shape != (count,):
        raise ValueError(f"privacy: {what}: got labels {labels.shape}; expected ({count},), one for each image.")
    return labels
