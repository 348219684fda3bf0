"""Differential privacy: the accountant against reference values and its own laws."""

from __future__ import annotations

import math

import pytest

from trainables import guarantee
from trainables.guarantee import Guarantee, epsilon_of, noise_for

DELTA = 1e-5
CIFAR = 256 / 50_000


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "epsilon"),
    [
        (0.01, 1.0, 1_000, 2.1014),
        (0.01, 1.0, 10_000, 6.7127),
        (CIFAR, 1.0, 1_960, 1.4762),
        (1.0, 1.0, 1, 4.7285),
        (1.0, 10.0, 100, 4.7285),
        (1.0, 4.0, 1, 1.0126),
    ],
)
def test_epsilon_agrees_with_the_reference(rate: float, noise: float, rounds: int, epsilon: float) -> None:
    """methods2.md 5.1, worked out with the series that Opacus sums."""
    assert epsilon_of(noise, delta=DELTA, rate=rate, rounds=rounds) == pytest.approx(epsilon, abs=6e-5)


@pytest.mark.parametrize(
    ("epsilon", "rate", "rounds", "noise"),
    [
        (1.0, 0.01, 1_000, 1.5131),
        (1.0, 0.01, 10_000, 4.1258),
        (1.0, 0.01, 20_000, 5.7782),
        (10.0, 0.01, 1_000, 0.5731),
        (10.0, 0.01, 10_000, 0.8301),
        (10.0, 0.01, 20_000, 0.9998),
        (1.0, CIFAR, 5_859, 1.7549),
        (10.0, CIFAR, 5_859, 0.5933),
    ],
)
def test_noise_agrees_with_the_reference(epsilon: float, rate: float, rounds: int, noise: float) -> None:
    """methods2.md 5.1 and 5.2; ours is rounded up."""
    found = noise_for(epsilon, delta=DELTA, rate=rate, rounds=rounds)
    assert found == pytest.approx(noise, abs=2e-4)
    assert epsilon_of(found, delta=DELTA, rate=rate, rounds=rounds) <= epsilon
    assert epsilon_of(found - 2e-4, delta=DELTA, rate=rate, rounds=rounds) > epsilon


OPACUS = {
    (0.5, 0.001, 1): 2.835610329,
    (0.5, 0.001, 100): 3.59811321,
    (0.5, 0.001, 5000): 5.535898385,
    (0.5, 0.1, 1): 7.35527276,
    (0.5, 0.1, 100): 35.2253844,
    (0.5, 0.1, 5000): 459.4577221,
    (0.5, 1.0, 1): 10.7255097,
    (0.5, 1.0, 100): 294.8612601,
    (0.5, 1.0, 5000): 11111.77826,
    (1.0, 0.001, 1): 0.6087728218,
    (1.0, 0.001, 100): 0.6360525446,
    (1.0, 0.001, 5000): 0.7266407512,
    (1.0, 0.1, 1): 2.133005995,
    (1.0, 0.1, 100): 7.899255002,
    (1.0, 0.1, 5000): 79.78926941,
    (1.0, 1.0, 1): 4.728507067,
    (1.0, 1.0, 100): 96.11630843,
    (1.0, 1.0, 5000): 2861.778258,
    (5.0, 0.001, 1): 0.10286854,
    (5.0, 0.001, 100): 0.1029961303,
    (5.0, 0.001, 5000): 0.1093112055,
    (5.0, 0.1, 1): 0.1199603811,
    (5.0, 0.1, 100): 0.8348633051,
    (5.0, 0.1, 5000): 7.194244392,
    (5.0, 1.0, 1): 0.7945220325,
    (5.0, 1.0, 100): 10.7255097,
    (5.0, 1.0, 5000): 166.0355336,
}
"""(noise, rate, rounds) -> epsilon at delta 1e-5 by Opacus 1.6.0: ``get_privacy_spent`` of ``compute_rdp``, both in
``opacus.accountants.analysis.rdp``. Not a dependency: its package brings a ``benchmarks`` of its own."""


@pytest.mark.parametrize("case", OPACUS)
def test_epsilon_is_that_of_opacus(case: tuple[float, float, int]) -> None:
    noise, rate, rounds = case
    assert epsilon_of(noise, delta=DELTA, rate=rate, rounds=rounds) == pytest.approx(OPACUS[case], rel=1e-8)


@pytest.mark.parametrize("noise", [0.6, 1.0, 3.0])
@pytest.mark.parametrize("rate", [0.004, 0.2, 0.9])
@pytest.mark.parametrize("order", [2, 3, 17, 63])
def test_the_integral_is_the_binomial_sum_for_whole_orders(noise: float, rate: float, order: int) -> None:
    """Mironov, Talwar & Zhang 2019: in logarithms, because single terms exceed any float."""
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(i + 1)
        - math.lgamma(order - i + 1)
        + i * math.log(rate)
        + (order - i) * math.log1p(-rate)
        + i * (i - 1) / (2 * noise**2)
        for i in range(order + 1)
    ]
    top = max(terms)
    expected = top + math.log(math.fsum(math.exp(term - top) for term in terms))
    assert guarantee._log_moment(order, noise, rate) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_more_noise_guarantees_more_and_more_images_or_rounds_less() -> None:
    def epsilon(noise: float = 1.0, rate: float = 0.02, rounds: int = 500) -> float:
        return epsilon_of(noise, delta=DELTA, rate=rate, rounds=rounds)

    for values in (
        [epsilon(noise=noise) for noise in (8.0, 4.0, 2.0, 1.0, 0.5)],
        [epsilon(rate=rate) for rate in (0.005, 0.02, 0.1, 0.5, 1.0)],
        [epsilon(rounds=rounds) for rounds in (1, 10, 100, 1_000, 10_000)],
    ):
        assert values == sorted(values)
        assert values[0] < values[-1]
    assert epsilon(rounds=700) <= epsilon(rounds=500) + epsilon(rounds=200)


def test_every_image_in_every_sum_is_the_limit_of_almost_every() -> None:
    almost = epsilon_of(2.0, delta=DELTA, rate=1 - 1e-9, rounds=3)
    assert almost == pytest.approx(epsilon_of(2.0, delta=DELTA, rate=1.0, rounds=3), rel=1e-6)


def test_what_is_stated_is_what_the_rounded_noise_gives() -> None:
    made = Guarantee.of(1.0, delta=DELTA, clip=0.5, rate=0.01, rounds=1_000)
    assert 0.999 < made.epsilon <= 1.0
    assert made.facts == {
        "epsilon": made.epsilon,
        "delta": DELTA,
        "noise": made.noise,
        "clip": 0.5,
        "rate": 0.01,
        "rounds": 1_000,
        "accountant": "rdp",
        "unit": "one image, added or removed",
    }
    assert round(made.noise, 4) == made.noise


def test_a_large_epsilon_takes_little_noise() -> None:
    found = noise_for(200.0, delta=DELTA, rate=0.5, rounds=10)
    assert 0 < found < 0.5
    assert epsilon_of(found, delta=DELTA, rate=0.5, rounds=10) <= 200.0


def test_an_epsilon_below_what_delta_costs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no noise guarantees so little; got epsilon 0\.001 at delta 1e-300"):
        noise_for(0.001, delta=1e-300, rate=0.01, rounds=10)


def test_the_mean_of_two_worlds_differs_by_no_more_than_epsilon_allows() -> None:
    """Of the mechanism itself, one round with every image: the best test of N(0, sigma^2) against N(1, sigma^2) has
    TPR - e^epsilon FPR below delta, at every threshold."""
    noise = 4.0
    epsilon = epsilon_of(noise, delta=DELTA, rate=1.0, rounds=1)

    def above(threshold: float) -> float:
        return 0.5 * math.erfc(threshold / (noise * math.sqrt(2)))

    worst = max(above(t - 1) - math.exp(epsilon) * above(t) for t in [step / 10 for step in range(-400, 800)])
    assert worst <= DELTA
    tighter = 0.8 * epsilon
    assert max(above(t - 1) - math.exp(tighter) * above(t) for t in [step / 10 for step in range(-400, 800)]) > DELTA
