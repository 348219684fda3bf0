"""Mistakes of bookkeeping: another subset under the same key, one subset under two, levels of repetition mixed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import worlds
from audited import digits
from hypothesis import given
from hypothesis import strategies as st
from support import recipe, train_config

from ddray.measurements.statistics import paired, spread
from ddray.plan.keys import stage_key
from trainables.configs import OriginConfig
from trainables.data.cache import open_split
from trainables.external.members import read_members

# --- 18: keys ---------------------------------------------------------------------------------------------------------


def key_of(origin: OriginConfig) -> str:
    return stage_key("train", 1, train_config(recipe(), origin=origin).key_material(), {})


def test_the_order_in_which_members_are_told_does_not_enter_a_key(tmp_path: Path, digits_cache: Path) -> None:
    labels, every = open_split(digits(), "train", tmp_path, digits_cache).labels, tuple(range(10))
    rng = np.random.default_rng(0)
    members = rng.choice(len(labels), 60, replace=False)

    def origin_of(indices: list[int]) -> OriginConfig:
        (tmp_path / "members.json").write_text(json.dumps(indices))
        return read_members(tmp_path / "members.json", digits(), every, "canonical", tmp_path, labels)

    keys = {key_of(origin_of(rng.permutation(members).tolist())) for _ in range(5)}
    assert len(keys) == 1
    stranger = next(index for index in range(len(labels)) if index not in members)
    for place in (0, 30, 59):  # the control: one image is another
        other = np.sort(members)
        other[place] = stranger
        assert key_of(origin_of(other.tolist())) not in keys
    assert key_of(origin_of(members[1:].tolist())) not in keys
    with pytest.raises(ValueError, match="indices must ascend"):
        OriginConfig(kind="listed", indices=tuple(np.sort(members)[::-1].tolist()), classes=every)


AXES: dict[str, tuple[str, str]] = {
    "dataset": ("cifar10", "cifar100"),
    "method": ("dm", "dsa"),
    "ipc": ("1", "10"),
    "init": ("real", "noise"),
    "origin_per_class": ("40", "80"),
    "origin_draw": ("0", "1"),
    "num_classes": ("5", "2"),
    "class_draw": ("0", "1"),
    "distill_aug": ("dsa", "none"),
    "distill_seed": ("0", "1"),
}
"""What a distilled set is made of: a value, and another."""


@pytest.mark.parametrize("axis", AXES)
def test_the_key_of_a_set_changes_with_each_axis_of_its_identity(axis: str, tmp_path: Path) -> None:
    def key(folder: str, values: dict[str, str]) -> str:
        (tmp_path / folder).mkdir()
        said = ", ".join(f"{name}: [{value}]" for name, value in values.items())
        text = f"ddray: 1\ngrids: {{g: {{protocol: quick, axes: {{{said}}}, settings: {settings}}}}}\n"
        (chain,) = worlds.plan_of(worlds.sweep_of(tmp_path / folder, text)).chains
        return worlds.stage_of(chain, "distill").key

    settings = f"{{{AXES['method'][axis == 'method']}: {{iterations: 7}}}}"
    plain = {name: values[0] for name, values in AXES.items()}
    assert key("one", plain) == key("two", plain)
    assert key("other", {**plain, axis: AXES[axis][1]}) != key("three", plain)


# --- 20: levels of repetition -----------------------------------------------------------------------------------------

VALUES = st.lists(st.floats(0.1, 0.9), min_size=2, max_size=4)


@given(VALUES, st.floats(1, 5))
def test_the_scatter_of_trainings_does_not_enter_that_of_distillations(means: list[float], large: float) -> None:
    """Trainings that scatter more around the same mean of each set leave the scatter over sets as it is."""

    def found(scatter: float) -> dict[int | None, dict[int, float]]:
        return {one: {0: mean - scatter, 1: mean, 2: mean + scatter} for one, mean in enumerate(means)}

    narrow, wide = spread(found(1e-3)), spread(found(large))
    assert narrow is not None
    assert wide is not None
    assert narrow.unit == wide.unit == "distillations"
    assert narrow.count == len(means)
    assert narrow.sd == pytest.approx(np.std(means, ddof=1), abs=1e-9)
    assert wide.sd == pytest.approx(narrow.sd, abs=1e-9)
    together = [value for each in found(large).values() for value in each.values()]
    assert np.std(together, ddof=1) > 0.6 > np.std(means, ddof=1), "the control: thrown together, another number"


@given(st.lists(st.floats(0.1, 0.9), min_size=1, max_size=9), st.floats(-0.1, 0.1))
def test_trainings_of_one_set_never_give_an_interval_over_sets(values: list[float], shift: float) -> None:
    ours: dict[int | None, dict[int, float]] = {0: dict(enumerate(values))}
    theirs: dict[int | None, dict[int, float]] = {0: {seed: value + shift for seed, value in ours[0].items()}}
    found, difference = spread(ours), paired(ours, theirs)
    assert found is not None
    assert difference is not None
    assert found.unit == "trainings"
    assert (difference.low, difference.high, difference.pairs) == (None, None, 1)
    assert math.isclose(difference.mean, -shift, abs_tol=1e-9)
