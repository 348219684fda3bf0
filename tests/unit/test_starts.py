"""The start of a distillation, which audits of iteration 0 train on: what zero steps leave, with nothing learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import TINY, FakeContext, distil, distill_config

from trainables.methods import METHODS

HARD = [
    name
    for name in TINY
    if METHODS[name].settings.budget and METHODS[name].settings.model_validate(TINY[name]).label_source is None
]
"""Methods whose sets have hard labels; others have experts label their start."""


@pytest.mark.parametrize("method", HARD)
@pytest.mark.parametrize("init", ["real", "noise"])
def test_a_start_needs_no_experts(tmp_path: Path, method: str, init: str) -> None:
    """Planning gives it none; the same start comes out where there are some."""
    config = distill_config(method, iterations=0, init=init)
    alone, usual = (
        distil(config, FakeContext(tmp_path / name), inputs=inputs) for name, inputs in (("alone", {}), ("usual", None))
    )
    assert torch.equal(alone.images, usual.images)
    assert torch.equal(alone.labels.classes, usual.labels.classes)
    assert alone.info["iterations"] == 0


def test_what_takes_steps_does_need_them(tmp_path: Path) -> None:
    """The control: without experts MTT goes nowhere, and DATM has no labels."""
    for config in (distill_config("mtt", iterations=1), distill_config("datm", iterations=0)):
        with pytest.raises(AssertionError):
            distil(config, FakeContext(tmp_path), inputs={})


@pytest.mark.parametrize("method", ["dsa", "mtt"])
def test_methods_start_from_the_same_images(tmp_path: Path, method: str) -> None:
    """Real starts are shared, so their rows at iteration 0 compare methods by nothing at all."""
    one, two = (
        distil(distill_config(name, iterations=0), FakeContext(tmp_path / name), inputs={}) for name in ("dm", method)
    )
    torch.testing.assert_close(one.images, two.images)
