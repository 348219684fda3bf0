"""Which audits the data have enough images for: images are never promised twice, and refusals carry their numbers."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddray.plan.audits import Audits, audits
from trainables.attacks import EVERY_AUDIT, MEMBERSHIP_ATTACKS
from trainables.configs import PrivacySettings, SignalsConfig

SETTINGS = st.builds(
    PrivacySettings,
    audit=st.lists(st.sampled_from(EVERY_AUDIT), unique=True, min_size=1).map(tuple),
    rows=st.sampled_from(["smoke", "standard", "full"]) | st.integers(2, 50).map(lambda half: 2 * half),
    targets=st.integers(1, 40),
    shadows=st.integers(0, 40),
    canaries=st.integers(0, 3),
    population=st.integers(1, 500),
    reserve=st.integers(0, 2000),
)
SIZES = st.integers(1, 5000).flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size)))


@given(SETTINGS, SIZES, st.integers(0, 100))
def test_every_audit_fits_into_a_class(asked: PrivacySettings, sizes: tuple[int, int], real_images: int) -> None:
    per_class, size = sizes
    found = audits(asked, per_class, size, min(real_images, per_class), 10)
    assert {*found.audit, *found.unfit} == set(asked.audit)
    assert not set(found.audit) & found.unfit.keys()
    if "seed" in found.audit:
        blocks = found.shadows + 2 if found.shadows else 1
        assert blocks * per_class <= size, "the draw, a block for each shadow, and what the last one is asked about"
    if {"pool", "one_run"} & set(found.audit):
        assert 2 * per_class + found.signals.population + found.signals.reserve <= size
    else:
        assert found.signals == SignalsConfig()
    if "pool" in found.audit:
        assert found.rows == asked.num_rows >= 2 * found.targets
    else:
        assert (found.rows, found.canaries, found.targets) == (0, 0, 1)


@given(SETTINGS, SIZES, st.integers(0, 100))
def test_nothing_is_cut_that_fits(asked: PrivacySettings, sizes: tuple[int, int], real_images: int) -> None:
    per_class, size = sizes
    found = audits(asked, per_class, size, min(real_images, per_class), 10)
    assert ("pool" in found.unfit) == ("pool" in asked.audit and 2 * per_class > size)
    assert "seed" not in found.unfit
    if "seed" in found.audit and found.shadows < asked.shadows:
        assert (found.shadows + 3) * per_class > size, "one more would not fit"
    if "pool" in found.audit:
        left = size - 2 * per_class
        assert found.signals.population == min(asked.population, left), "the population comes first"
        assert found.signals.reserve == min(asked.reserve, left - found.signals.population)
        assert found.targets == min(asked.targets, found.rows // 2)


@given(SETTINGS, SIZES, st.randoms(use_true_random=False))
def test_the_order_of_a_request_makes_no_difference(
    asked: PrivacySettings, sizes: tuple[int, int], random: st.random.Random
) -> None:
    attacks = random.sample(list(MEMBERSHIP_ATTACKS), 4)
    one = asked.model_copy(update={"attacks": tuple(attacks)})
    other = asked.model_copy(update={"attacks": tuple(reversed(attacks)), "audit": tuple(reversed(asked.audit))})
    found = audits(one, *sizes, 0, 10)
    assert audits(other, *sizes, 0, 10) == found
    assert sorted(found.attacks) == sorted(attacks)


def cifar10(per_class: int, real_images: int = 0, **asked: object) -> Audits:
    return audits(PrivacySettings.model_validate(asked), per_class, 5000, real_images, 10)


def test_an_origin_of_4000_has_no_pool_on_cifar10() -> None:
    found = cifar10(4000, audit=("seed", "pool", "one_run"))
    assert (found.audit, found.shadows) == (("seed",), 0)
    assert found.unfit["pool"].startswith("pool: ")
    assert [int(number) for number in re.findall(r"\d+", found.unfit["pool"])] == [4000, 8000, 5000]
    assert cifar10(2500).signals == SignalsConfig(), "the pool takes all there is and still fits"
    assert "pool" in cifar10(2500).audit
    assert "pool" not in cifar10(2501).audit


@pytest.mark.parametrize(("classes", "each"), [(2, 1000), (5, 400), (10, 200), (100, 200)])
def test_the_population_is_2000_images_in_all_at_least(classes: int, each: int) -> None:
    found = audits(PrivacySettings(audit=("pool",)), 40, 5000, 0, classes)
    assert found.signals.population == each
    assert found.signals.population * classes >= 2000
    assert found.signals.reserve == 1000
    assert audits(PrivacySettings(audit=("pool",), population=5), 40, 5000, 0, classes).signals.population == 5


def test_tiers_and_settings_of_the_paper() -> None:
    found = cifar10(400, rows="standard")
    assert (found.rows, found.targets, found.shadows) == (16, 3, 4)
    assert found.signals == SignalsConfig(population=200, reserve=1000)
    assert cifar10(400, rows="smoke", targets=9).targets == 3, "the first row of each pair"


@pytest.mark.parametrize("per_class, real_images", [(40, 10), (400, 40), (80, 40)])
def test_coins_leave_enough_images_where_the_audit_is_allowed(per_class: int, real_images: int) -> None:
    """The exact probability that any of 100 classes comes out short."""
    assert "one_run" in cifar10(per_class, real_images, audit=("one_run",)).audit
    tosses = 2 * per_class
    short = sum(math.comb(tosses, count) for count in range(real_images)) / 2**tosses
    assert 100 * short < 1e-3


@pytest.mark.parametrize("per_class, real_images", [(40, 40), (12, 0), (20, 15)])
def test_coins_are_refused_where_they_may_leave_too_few(per_class: int, real_images: int) -> None:
    found = cifar10(per_class, real_images, audit=("pool", "one_run"))
    assert found.audit == ("pool",), "a row of the pool has exactly origin_per_class"
    assert str(2 * per_class) in found.unfit["one_run"]
