"""Differential privacy: what noise guarantees, and how much noise a guarantee takes. No torch.

A mechanism releases R sums. Into each an image goes by a coin of probability q (Poisson sampling), with a term that is
clipped to norm C; N(0, sigma^2 C^2) is added to each number of the sum. With one image more or less the probability of
whatever is made of the sums changes by a factor of at most e^epsilon, but for delta:

    P(E with it) <= e^epsilon P(E without it) + delta,    and the other way round

Accounting is by Rényi divergences of orders a > 1 (Mironov, Talwar & Zhang 2019; converted as by Balle et al.,
AISTATS 2020):

    RDP(a) = R / (a - 1) * ln E over z ~ N(0, sigma^2) of (1 - q + q exp((2 z - 1) / (2 sigma^2)))^a
    epsilon = min over a of RDP(a) - (ln delta + ln a) / (a - 1) + ln((a - 1) / a)

The expectation is integrated numerically, where other programs sum a series: one formula for whole orders and for those
between. A tighter accountant (PRV) would state less for the same noise.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ORDERS: tuple[float, ...] = (*(1 + tenth / 10 for tenth in range(1, 100)), *map(float, range(12, 64)))
"""a: the same as in Opacus, so that both state the same epsilon."""
DIGITS = 4
"""Of sigma, which is rounded up: it does not hang on the last bit of a machine's logarithm."""
PRIVATE = "private"
"""In the facts of a set, and of a model trained on it or with noise: what the mechanism states."""
_TAILS, _PARTS = 12.0, 20
"""The integral goes so many sigmas beyond where its mass is, in so many steps each."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a mechanism states of itself: of one image that is added or taken away, by Rényi accounting.

    It is of a program whose noise nobody knows. Ours is drawn from the stage's seed, so that a run can be repeated: who
    knows the seed can take the noise off again.
    """

    epsilon: float
    delta: float
    noise: float
    """sigma, in units of the clipping norm."""
    clip: float
    """C."""
    rate: float
    """q."""
    rounds: int
    """R."""

    @classmethod
    def of(cls, epsilon: float, *, delta: float, clip: float, rate: float, rounds: int) -> Guarantee:
        """With the least noise that gives ``epsilon``; what is stated is what the rounded noise gives."""
        noise = noise_for(epsilon, delta=delta, rate=rate, rounds=rounds)
        stated = epsilon_of(noise, delta=delta, rate=rate, rounds=rounds)
        return cls(epsilon=stated, delta=delta, noise=noise, clip=clip, rate=rate, rounds=rounds)

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON types, for what is released to be kept with."""
        return {**asdict(self), "accountant": "rdp", "unit": "one image, added or removed"}


def epsilon_of(noise: float, *, delta: float, rate: float, rounds: int) -> float:
    """What some noise guarantees.

    Args:
        noise: sigma, above 0.
        delta: Above 0, below 1.
        rate: q, above 0, at most 1.
        rounds: R, at least 1.
    """
    best = math.inf
    for order in ORDERS:
        divergence = rounds * _log_moment(order, noise, rate) / (order - 1)
        slack = -(math.log(delta) + math.log(order)) / (order - 1) + math.log((order - 1) / order)
        best = min(best, divergence + slack)
    return max(0.0, best)


def noise_for(epsilon: float, *, delta: float, rate: float, rounds: int) -> float:
    """The least sigma, rounded up to four digits after the point, that guarantees ``epsilon``; the rest is as there.

    Raises:
        ValueError: No noise does: with so small a delta the conversion alone costs more.
    """
    parts: int = 10**DIGITS
    low, high = 0, 2**10

    def enough(units: int) -> bool:
        return epsilon_of(units / parts, delta=delta, rate=rate, rounds=rounds) <= epsilon

    while not enough(high):
        low, high = high, 2 * high
        if high > 2**40:
            raise ValueError(
                f"no noise guarantees so little; got epsilon {epsilon:g} at delta {delta:g}; expected more. Raise one."
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high / parts


def _log_moment(order: float, noise: float, rate: float) -> float:
    """ln of the expectation above, of one round."""
    if rate >= 1.0:
        return float(order * (order - 1) / (2 * noise**2))
    step = noise / _PARTS
    z = np.arange(-_TAILS * noise, order + _TAILS * noise, step)
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * noise**2))
    density = -(z**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    # Above 0 by Jensen; rounding may say a little less.
    return max(0.0, float(np.logaddexp.reduce(order * ratio + density)) + math.log(step))
