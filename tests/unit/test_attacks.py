"""The attacks as the planner sees them."""

import json
import subprocess
import sys
from typing import Any, get_args

import pytest

from trainables.attacks import (
    MEMBERSHIP_ATTACKS,
    PANELS,
    ROBUSTNESS_ATTACKS,
    attack_settings,
    epsilons_for,
    load,
)
from trainables.configs import MembershipAttackName, PrivacySettings, RobustnessAttackName, RobustnessSettings


def test_every_attack_of_a_sweep_is_described() -> None:
    assert set(ROBUSTNESS_ATTACKS) == set(get_args(RobustnessAttackName))
    assert all(name == spec.name for name, spec in ROBUSTNESS_ATTACKS.items())
    assert set(RobustnessSettings().attacks) <= set(ROBUSTNESS_ATTACKS)


def test_names_of_attacks_on_membership_are_those_of_the_records() -> None:
    assert tuple(MEMBERSHIP_ATTACKS) == get_args(MembershipAttackName) == PrivacySettings().attacks
    assert all(name == attack.name for name, attack in MEMBERSHIP_ATTACKS.items())


def test_the_panels_are_those_that_were_registered() -> None:
    assert PANELS == {
        "pool": ("loss", "shokri", "lira_online", "lira_offline", "rmia", "calib", "data_release"),
        "seed": ("loss", "shokri", "lira_offline", "rmia", "calib", "data_release"),
        "one_run": ("loss",),
    }
    assert all(set(attack.panel) <= set(attack.audits) for attack in MEMBERSHIP_ATTACKS.values())
    assert [name for name, attack in MEMBERSHIP_ATTACKS.items() if attack.paper] == ["loss", "shokri"]


@pytest.mark.parametrize(
    "attack", [*ROBUSTNESS_ATTACKS.values(), *MEMBERSHIP_ATTACKS.values()], ids=lambda each: each.name
)
def test_a_record_names_what_is_there(attack: Any) -> None:
    for path in (getattr(attack, "run", None), getattr(attack, "parts", None), getattr(attack, "score", None)):
        assert path is None or callable(load(path))


@pytest.mark.parametrize("name", ROBUSTNESS_ATTACKS)
def test_budgets_ascend_without_0_in_units_of_the_image(name: str) -> None:
    epsilons = epsilons_for(name)
    assert list(epsilons) == sorted(set(epsilons))
    assert epsilons[0] > 0
    if ROBUSTNESS_ATTACKS[name].norm == "linf":
        assert epsilons[-1] < 0.2  # beyond it, somebody meant 0 to 255


def test_the_grids_hold_what_others_report() -> None:
    for name, spec in ROBUSTNESS_ATTACKS.items():
        wanted = {0.5} if spec.norm == "l2" else {2 / 255, 4 / 255, 8 / 255}
        assert wanted <= set(epsilons_for(name))
    assert len(epsilons_for("deepfool_l2")) == 12
    assert len(epsilons_for("deepfool_linf")) == 11


@pytest.mark.parametrize("name", ROBUSTNESS_ATTACKS)
def test_own_budgets_replace_those_of_one_norm(name: str) -> None:
    found = epsilons_for(name, epsilons_l2=[0.7, 0, 0.2, 0.7], epsilons_linf=None)
    assert found == ((0.2, 0.7) if ROBUSTNESS_ATTACKS[name].norm == "l2" else ROBUSTNESS_ATTACKS[name].epsilons)


@pytest.mark.parametrize("name", ROBUSTNESS_ATTACKS)
def test_settings_are_a_copy_of_json_types(name: str) -> None:
    settings = attack_settings(name)
    assert json.loads(json.dumps(settings)) == settings
    settings["steps"] = -1
    assert attack_settings(name) != settings


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2"])
def test_pgd_can_cross_its_ball(name: str) -> None:
    settings = attack_settings(name)
    assert settings["rel_stepsize"] >= 2.5 / settings["steps"]


def test_planning_loads_no_torch() -> None:
    for module in ("trainables.attacks", "trainables.evaluate.paired"):
        program = f"import sys, {module}; print(sorted({{'torch', 'foolbox', 'scipy'}} & set(sys.modules)))"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "[]"
