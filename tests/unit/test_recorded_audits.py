"""Attacks on membership against what other people's tools said of the same inputs.

Recorded from ML Privacy Meter (RMIA, Steinke's bound) and PrivacyGuard (LiRA); the commits stand beside the files.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from support import conformance_folder

from trainables.evaluate.privacy import lira, rmia
from trainables.evaluate.privacy.one_run import eps_lower_bound

Arrays = dict[str, NDArray[np.float64]]

pytestmark = pytest.mark.conformance


def recorded(name: str) -> Arrays:
    with np.load(conformance_folder() / "privacy" / name, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def test_lira_online_with_a_variance_for_each_image() -> None:
    """PrivacyGuard's score, to rounding."""
    given = recorded("lira_online.npz")
    found = lira.online(given["target"], given["shadows"], given["member"].astype(bool), "per_example")
    np.testing.assert_allclose(found, given["score_per_example"], rtol=0, atol=1e-9)


class Asked:
    """What the Meter's RMIA was asked: one target, its shadows without the twin, and a population."""

    def __init__(self) -> None:
        given = recorded("rmia.npz")
        self.scores = {float(a): given[f"score_a{a:.1f}"] for a in given["offline_a"]}
        target = int(given["target"])
        left = np.setdiff1d(np.arange(given["member"].shape[1]), [target, int(given["twin"])])
        images, population = (np.log(given[name]).T for name in ("probability", "population_probability"))
        self.target, self.shadows = images[target], images[left]
        self.z, self.z_shadows = population[target], population[left]
        self.out = ~given["member"].T[left].astype(bool)

    def ratios(self, a: float) -> NDArray[np.float64]:
        """log r_x of each candidate by ours."""
        return rmia.log_ratio_offline(self.target, self.shadows, self.out, a)

    def shares(self, a: float, reference: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Ours, with p(z) over the models that ``reference`` (S, m) names."""
        return rmia.share(self.ratios(a), rmia.log_ratio_offline(self.z, self.z_shadows, reference, a))


def test_rmia_with_the_meters_reference_for_the_population() -> None:
    """The Meter takes the surer half of the shadows for p(z), though all are OUT; with it: equal to rounding."""
    asked = Asked()
    surer = stats.rankdata(asked.z_shadows, axis=0, method="ordinal") > len(asked.z_shadows) / 2
    for a, score in asked.scores.items():
        np.testing.assert_allclose(asked.shares(a, surer), score, rtol=0, atol=1e-6)


def test_rmia_with_ours_orders_candidates_alike() -> None:
    """All shadows are OUT of the population, and ours uses all: other shares, but the same order of candidates."""
    asked = Asked()
    everywhere = np.ones(asked.z_shadows.shape, dtype=np.bool_)
    for a, score in asked.scores.items():
        shares = asked.shares(a, everywhere)
        assert np.abs(shares - score).max() > 0.05
        assert stats.spearmanr(shares, score).statistic > 0.996
        # Neither population enters log r_x, which is what we rank by: it orders whatever the Meter's share tells apart.
        assert (np.diff(score[np.argsort(asked.ratios(a))]) >= 0).all()


def test_steinkes_bound() -> None:
    """The Meter bisects to 1e-5 and keeps the lower end."""
    cases = json.loads((conformance_folder() / "privacy" / "one_run_eps.json").read_text())
    assert len(cases) == 80
    for case in cases:
        found = eps_lower_bound(case["right"], case["guesses"], case["delta"], case["alpha"], case["total"])
        assert 0 <= found - case["eps"] <= 1e-5, case
